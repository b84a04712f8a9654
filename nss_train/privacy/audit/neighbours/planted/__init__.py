"""Mistakes between a table's file and its gradients, planted on purpose: each must be found."""
