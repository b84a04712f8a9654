"""A collector of OpenTelemetry traces: OTLP over HTTP, kept in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A span as it arrived."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    began_s: float
    ended_s: float
    attributes: dict[str, Any]
    events: tuple[tuple[float, str], ...]


@dataclass(slots=True)
class Collector:
    """The spans that arrived so far."""

    endpoint: str = ""
    spans: list[Span] = field(default_factory=list)

    def receive(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(_span(one) for one in scope.spans)


@contextmanager
def collector() -> Iterator[Collector]:
    """Run a collector on a free port of the loopback interface."""
    made = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.receive(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.endpoint = f"http://127.0.0.1:{server.server_port}/v1/traces"
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()


def waterfall(spans: Sequence[Span], *, width: int = 60) -> str:
    """Return the spans of one trace as text: a line each, indented below its parent, with a bar in time."""
    began, ended = min(span.began_s for span in spans), max(span.ended_s for span in spans)
    known = {span.span_id for span in spans}
    lines: list[str] = []

    def add(parent: str | None, depth: int) -> None:
        below = [s for s in spans if (s.parent_id if s.parent_id in known else None) == parent]
        for span in sorted(below, key=lambda s: (s.began_s, -s.ended_s)):
            start = round(width * (span.began_s - began) / (ended - began))
            stop = max(start + 1, round(width * (span.ended_s - began) / (ended - began)))
            bar = " " * start + "█" * (stop - start)
            seconds = f"{span.began_s - began:8.3f} {span.ended_s - span.began_s:8.3f}"
            lines.append(f"{'  ' * depth + span.name:<24} {seconds}  |{bar:<{width}}|")
            add(span.span_id, depth + 1)

    add(None, 0)
    return "\n".join([f"{'span':<24} {'begins s':>8} {'lasts s':>8}", *lines])


def _span(one: Any) -> Span:
    return Span(
        name=one.name,
        trace_id=one.trace_id.hex(),
        span_id=one.span_id.hex(),
        parent_id=one.parent_span_id.hex(),
        began_s=one.start_time_unix_nano / 1e9,
        ended_s=one.end_time_unix_nano / 1e9,
        attributes={a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in one.attributes},
        events=tuple((e.time_unix_nano / 1e9, e.name) for e in one.events),
    )
