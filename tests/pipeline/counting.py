"""A store that counts the calls it receives."""

from __future__ import annotations

import hashlib
from typing import Any

from tasks.store.base import Store


class CountingStore:
    """A store that passes every call on to a real one and records its name."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def counted(*args: Any) -> Any:
            self.calls.append(name)
            return method(*args)

        return counted

    def snapshot(self, prefix: str) -> dict[str, str]:
        """Return the digest of every object below a prefix, without counting the reads."""
        return {key: hashlib.sha256(self._store.read(key)).hexdigest() for key in self._store.list(prefix)}
