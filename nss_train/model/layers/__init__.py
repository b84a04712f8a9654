"""What is set, read or replaced in the layers of a loaded model."""
