"""Differential privacy: what is promised, what it costs, and the training that keeps the promise."""
