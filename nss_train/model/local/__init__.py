"""Base models in the folders of this machine."""
