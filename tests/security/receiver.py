"""A receiver of webhooks on loopback that gives the answers it is set to."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tasks.settings import Settings

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Receiver:
    """The requests that were received, and the answers: the given statuses, then 204."""

    port: int = 0
    statuses: list[int] = field(default_factory=list)
    location: str = ""
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def url(self, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}/hooks?token=sesame"


@contextmanager
def receiver(
    *, address: str = "127.0.0.1", port: int = 0, certificate: Path | None = None
) -> Iterator[Receiver]:
    """Listen until the end; with TLS when there is a certificate (``.crt`` beside its ``.key``)."""
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.bodies.append(self.rfile.read(int(self.headers["content-length"])))
            found.headers.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(found.statuses.pop(0) if found.statuses else 204)
            if found.location:
                self.send_header("location", found.location)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer((address, port), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    found.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def webhook_settings(settings: Settings, **more: Any) -> dict[str, Any]:
    """Return settings with webhooks to loopback, as no operator would have them."""
    given = {
        "webhook_hosts": ["127.0.0.1", "hooks.example"],
        "webhook_secret": SECRET,
        "webhook_http": True,
        "webhook_networks": ["127.0.0.0/8"],
        "webhook_timeout_s": 1.0,
        "webhook_backoff_s": 0.05,
        "webhook_attempts": 3,
    }
    return dict(Settings.model_validate(dict(settings) | given | more))
