"""What a training says of itself while it runs: events, figures, the quality of generated rows."""
