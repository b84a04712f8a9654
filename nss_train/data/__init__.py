"""The way from a table to training examples, token for token as NSS makes them. Imports no torch."""
