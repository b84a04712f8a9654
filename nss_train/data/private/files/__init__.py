"""Private tables by format, one record at a time."""
