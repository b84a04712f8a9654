"""From cells to tokens, each distinct value once."""
