"""Base models: family, metadata, source, preparation, adapter."""
