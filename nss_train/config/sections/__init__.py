"""The sections of a config, each with its fields."""
