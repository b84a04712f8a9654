"""The rules for store keys."""

from __future__ import annotations

from nss_train.errors import ParameterError, Problem


def check_key(key: str) -> str:
    """Return the key itself; raise :class:`ParameterError` when it could point outside the store."""
    parts = key.split("/")
    bad = not key or "\\" in key or "\0" in key or any(part in ("", ".", "..") for part in parts)
    if bad:
        remedy = "a key is a relative path without empty, '.' or '..' parts"
        raise ParameterError("Not a store key.", [Problem(field="key", value=key[:200], remedy=remedy)])
    return key


def check_prefix(prefix: str) -> str:
    """Return the prefix itself; without its last ``/`` it must be a key."""
    check_key(prefix.removesuffix("/"))
    return prefix
