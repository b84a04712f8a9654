"""Differential privacy: the promise, its cost, and the training that keeps it."""
