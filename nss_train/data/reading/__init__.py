"""The way from a file to a table: its compression, encoding and separators, and whether its rows fit."""
