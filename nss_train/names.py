"""What names may look like that become part of keys, paths and tables."""

from __future__ import annotations

DATASET = r"^[a-z0-9][a-z0-9-]{0,62}$"
"""A dataset whose privacy budget is kept: up to 63 lower-case letters, digits and inner hyphens."""
