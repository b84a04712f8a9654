"""The form of names that become part of keys, paths and tables."""

from __future__ import annotations

import re
import secrets

DATASET = r"^[a-z0-9][a-z0-9-]{0,62}$"
"""A dataset with a privacy budget: up to 63 lower-case letters, digits and hyphens, no hyphen first."""
UNNAMED = r"^job-[0-9a-f]{32}$"
"""The ledger of a job that names no dataset: 128 random bits. Such a name cannot be declared."""


def is_dataset(name: str) -> bool:
    """Tell whether a ledger may have this name, declared or drawn."""
    return re.fullmatch(DATASET, name) is not None


def is_unnamed(name: str) -> bool:
    """Tell whether a name was drawn for one job."""
    return re.fullmatch(UNNAMED, name) is not None


def draw_name() -> str:
    """Return a random name for the ledger of a job that names no dataset; it reveals nothing of the table."""
    return f"job-{secrets.token_hex(16)}"


def declared(name: str) -> str:
    """Return the name itself; raise ``ValueError`` for one reserved for jobs without a name."""
    if is_unnamed(name):
        raise ValueError("job- and 32 hex digits is the form of names that are drawn; choose another")
    return name
