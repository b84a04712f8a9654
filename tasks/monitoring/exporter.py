"""Metrics for Prometheus at ``/metrics``, and the length of the queues for a scaler at ``/scale``.

The exporter holds no state: it reads Redis and the store when it is asked, so that it may restart. No label
names a job. What the alerts expect of it is in ``deploy/prometheus/rules.yaml``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.registry import Collector

from tasks.app import connect_redis
from tasks.jobs.documents import Outcome
from tasks.monitoring.snapshot import Broker, Reader, Series, Snapshot
from tasks.settings import Settings
from tasks.store.open import open_store
from tasks.telemetry.histograms import QUEUE_WAIT_SECONDS, STAGE_SECONDS, Histogram

BROKER_S = 3.0
"""Time after which a silent broker counts as down."""

Environ = Mapping[str, Any]
StartResponse = Callable[..., Any]


class Exporter(Collector):
    """A snapshot as Prometheus reads it."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def collect(self) -> Iterator[Metric]:
        """Yield all families. What does not answer is left out, except for the two that report it."""
        yield from families(self._reader.read())

    def describe(self) -> Iterable[Metric]:
        """Return nothing in advance: a registry would collect to find out the names."""
        return ()


def families(found: Snapshot) -> Iterator[Metric]:
    """Yield the metric families of a snapshot."""
    yield _gauge("store_up", "Whether the store answers.", found.jobs_open is not None)
    yield _gauge("broker_up", "Whether Redis answers.", found.broker is not None)
    # Not a number rather than absent: without any series the exporter counts as gone.
    jobs = float("nan") if found.jobs_open is None else found.jobs_open
    yield _gauge("jobs_open", "Jobs that were submitted and have not ended.", jobs)
    if found.broker is not None:
        yield from _gauges(found.broker)
        yield from _counters(found.broker)
        yield _histogram(STAGE_SECONDS, "How long attempts at a stage took.", found.broker)
        yield _histogram(QUEUE_WAIT_SECONDS, "How long stages waited for a worker.", found.broker)


def _gauges(broker: Broker) -> Iterator[Metric]:
    stages = GaugeMetricFamily("nss_train_stages", "Stages by queue.", labels=("queue", "state"))
    for state, numbers in (("waiting", broker.waiting), ("running", broker.running)):
        for queue, number in numbers.items():
            stages.add_metric((queue, state), number)
    yield stages
    yield _gauge("jobs_held", "Jobs that wait for their tenant's turn.", broker.held)
    up = GaugeMetricFamily("nss_train_worker_up", "Whether a worker says that it lives.", labels=("worker",))
    for worker, lives in broker.workers.items():
        up.add_metric((worker,), lives)
    yield up
    memory = GaugeMetricFamily(
        "nss_train_gpu_memory_bytes", "GPU memory in use.", labels=("worker", "device")
    )
    for labels, used in broker.gpu_bytes.items():
        memory.add_metric(labels, used)
    yield memory
    loss = GaugeMetricFamily("nss_train_training_loss", "Loss of the running training.", labels=("worker",))
    for worker, value in broker.losses.items():
        loss.add_metric((worker,), value)
    yield loss


def _counters(broker: Broker) -> Iterator[Metric]:
    events = CounterMetricFamily("nss_train_events", "What happened to stages.", labels=("action",))
    for action, number in broker.events.items():
        events.add_metric((action,), number)
    yield events
    jobs = CounterMetricFamily("nss_train_jobs", "Jobs that ended.", labels=("outcome",))
    for outcome in Outcome:
        jobs.add_metric((outcome.value,), broker.totals.get(f"jobs|{outcome}", 0))
    yield jobs
    for name, what in (("steps", "Optimizer steps."), ("tokens", "Tokens that were trained on.")):
        yield CounterMetricFamily(f"nss_train_{name}", what, value=broker.totals.get(name, 0))


def _histogram(histogram: Histogram, what: str, broker: Broker) -> Metric:
    series: tuple[Series, ...] = broker.histograms[histogram.name]
    family = HistogramMetricFamily(f"nss_train_{histogram.name}", what, labels=histogram.labels)
    for one in series:
        family.add_metric(one.labels, buckets=list(one.buckets), sum_value=one.sum_s)
    return family


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(f"nss_train_{name}", what, value=value)


class QuietHandler(WSGIRequestHandler):
    """A handler that logs nothing: Prometheus asks four times a minute."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the library's name)
        del format, args


def make_server_on(settings: Settings, *, host: str, port: int) -> WSGIServer:
    """Return a server that listens; its ``serve_forever`` answers."""
    redis = connect_redis(settings, timeout_s=BROKER_S)
    reader = Reader(settings=settings, redis=redis, store=open_store(settings))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Exporter(reader))
    metrics = make_wsgi_app(registry)

    def answer(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/scale":
            return _scale(reader, start_response)
        if environ["PATH_INFO"] in {"/", "/metrics"}:
            found: Iterable[bytes] = metrics(environ, start_response)
            return found
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"/metrics and /scale are here\n"]

    return make_server(host, port, answer, server_class=ThreadingWSGIServer, handler_class=QuietHandler)


def _scale(reader: Reader, start_response: StartResponse) -> list[bytes]:
    """Answer with each queue's waiting and running stages, or with an error, so that nothing is scaled."""
    broker = reader.broker()
    if broker is None:
        start_response("503 Service Unavailable", [("Content-Type", "application/json")])
        return [b'{"error": "the broker does not answer"}\n']
    start_response("200 OK", [("Content-Type", "application/json")])
    found = {
        queue: {"waiting": broker.waiting.get(queue, 0), "running": broker.running.get(queue, 0)}
        for queue in dict.fromkeys((*broker.waiting, *broker.running))
    }
    return [json.dumps(found).encode() + b"\n"]
