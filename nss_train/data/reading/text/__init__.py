"""Text tables: how their bytes become lines, fields and numbers."""
