"""What a training will cost, known before it begins: what it has to do, and how fast that goes here."""
