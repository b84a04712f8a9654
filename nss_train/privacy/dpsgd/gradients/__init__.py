"""Gradients of single units: their passes, norms and clipping."""
