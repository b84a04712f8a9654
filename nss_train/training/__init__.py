"""Training of the adapter."""
