"""OpenTelemetry traces: one for each job, from its submission to its outcome.

The ids of a job's trace and of its first span follow from the job's id. So no message has to carry them, and
work on a job after a lost message, an emptied broker or a dead worker adds to the same trace. Without an
endpoint nothing of OpenTelemetry is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any

from nss_train.extras import OTEL, require_extras
from tasks.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

FLUSH_MS = 2000
"""Longest time that a stage waits for a slow collector."""

_provider: TracerProvider | None = None
_quiet: ContextVar[bool] = ContextVar("quiet", default=False)
"""Whether spans and events are left out."""
_ids: ContextVar[tuple[int, int] | None] = ContextVar("ids", default=None)
"""Trace id and span id of the next span; ``None``: drawn."""


def configure(settings: Settings) -> None:
    """Send this process's spans to ``otlp_endpoint``, if there is one.

    Raises :class:`~nss_train.errors.NotInstalled` where OpenTelemetry is missing.
    """
    global _provider  # noqa: PLW0603 (a process has one tracer, as it has one log)
    if settings.otlp_endpoint and _provider is None:
        _provider = _make_provider(settings.otlp_endpoint)


@contextmanager
def flushed() -> Iterator[None]:
    """Send what is traced inside the block when it ends: the process may be killed before it would itself."""
    try:
        yield
    finally:
        if _provider is not None:
            _provider.force_flush(FLUSH_MS)


@contextmanager
def of_job(job_id: str) -> Iterator[None]:
    """Make the spans inside the block part of the job's trace."""
    if _provider is None:
        yield
        return
    from opentelemetry import context

    token = context.attach(_root(job_id))
    try:
        yield
    finally:
        context.detach(token)


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out all that happens inside the block: its times and errors may reveal a private table."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


@contextmanager
def span(name: str, **attributes: str | int | float) -> Iterator[None]:
    """Trace what happens inside the block as a span, with the error that left it."""
    if _provider is None or _quiet.get():
        yield
        return
    with _provider.get_tracer(__name__).start_as_current_span(name, attributes=_named(attributes)):
        yield


def event(name: str, **attributes: str | int | float) -> None:
    """Add something that happened to the current span."""
    if _provider is None or _quiet.get():
        return
    from opentelemetry import trace

    trace.get_current_span().add_event(name, _named(attributes))


def past(name: str, began: datetime, ended: datetime, **attributes: str | int | float) -> None:
    """Add a span to the current trace that is known only now."""
    if _provider is None:
        return
    made = _provider.get_tracer(__name__).start_span(
        name, start_time=_ns(began), attributes=_named(attributes)
    )
    made.end(_ns(ended))


def job(job_id: str, began: Callable[[], datetime], ended: datetime, **attributes: str | int | float) -> None:
    """Add the first span of a job's trace, the parent of all others; called once, with the outcome.

    ``began`` is called only when there is a trace.
    """
    if _provider is None:
        return
    from opentelemetry.context import Context

    token = _ids.set(_ids_of(job_id))
    try:
        made = _provider.get_tracer(__name__).start_span(
            "job", context=Context(), start_time=_ns(began()), attributes=_named(attributes)
        )
    finally:
        _ids.reset(token)
    made.end(_ns(ended))


def _ids_of(job_id: str) -> tuple[int, int]:
    """Return the ids of a job's trace and first span; neither is 0, which would be invalid."""
    digest = hashlib.sha256(job_id.encode()).digest()
    return int.from_bytes(digest[:16]) | 1, int.from_bytes(digest[16:24]) | 1


def _root(job_id: str) -> Context:
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    trace_id, span_id = _ids_of(job_id)
    flags = TraceFlags(TraceFlags.SAMPLED)
    return set_span_in_context(
        NonRecordingSpan(SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags))
    )


def _make_provider(endpoint: str) -> TracerProvider:
    require_extras(OTEL)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        def generate_trace_id(self) -> int:
            given = _ids.get()
            return super().generate_trace_id() if given is None else given[0]

        def generate_span_id(self) -> int:
            given = _ids.get()
            return super().generate_span_id() if given is None else given[1]

    provider = TracerProvider(resource=Resource.create({"service.name": "nss-train"}), id_generator=Ids())
    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=FLUSH_MS / 1000)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _named(attributes: dict[str, Any]) -> dict[str, Any]:
    return {f"nss_train.{name}": value for name, value in attributes.items()}


def _ns(when: datetime) -> int:
    return int(when.timestamp() * 1e9)
