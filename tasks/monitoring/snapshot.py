"""A snapshot of Redis and the store at one moment. Nothing is written, nothing kept."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NoAnswer
from dataclasses import dataclass, field

from redis import Redis
from redis.exceptions import RedisError

from nss_train.errors import StoreUnavailable
from tasks.broker import queues, workers
from tasks.broker.workers import WorkerInfo
from tasks.scheduling.admission import FIGURES
from tasks.settings import Settings
from tasks.store.base import Store
from tasks.telemetry import counters
from tasks.telemetry.histograms import HISTOGRAMS, INFINITY, LOSSES, TOTALS, Histogram

logger = logging.getLogger(__name__)

STORE_S = 5.0
"""Time after which a silent store counts as down: Prometheus asks again soon."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """A histogram for one set of label values."""

    labels: tuple[str, ...]
    buckets: tuple[tuple[str, int], ...]
    """Upper bounds and how many values lie below each of them, ``+Inf`` last."""
    sum_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Broker:
    """The state of the deployment in Redis."""

    waiting: Mapping[str, int]
    held: int
    """Jobs that wait for their tenant's turn."""
    running: Mapping[str, int]
    workers: Mapping[str, bool]
    gpu_bytes: Mapping[tuple[str, str], int]
    losses: Mapping[str, float]
    events: Mapping[str, int]
    totals: Mapping[str, int]
    histograms: Mapping[str, tuple[Series, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """The state of broker and store; ``None`` stands for what does not answer."""

    broker: Broker | None
    jobs_open: int | None


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A reader of snapshots; several may read at once, here and elsewhere."""

    settings: Settings
    redis: Redis
    store: Store
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "store"))

    def read(self) -> Snapshot:
        """Read broker and store; it is no error here if one does not answer."""
        jobs = self._pool.submit(lambda: sum(1 for _ in self.store.children("open/")))
        broker = self.broker()
        try:
            return Snapshot(broker=broker, jobs_open=jobs.result(STORE_S))
        except (StoreUnavailable, NoAnswer):
            jobs.cancel()
            logger.warning("the store does not answer", exc_info=True)
            return Snapshot(broker=broker, jobs_open=None)

    def broker(self) -> Broker | None:
        """Read Redis alone; ``None`` when it does not answer."""
        try:
            return read_broker(self.redis, self.settings)
        except (RedisError, OSError):
            logger.warning("Redis does not answer", exc_info=True)
            return None


def read_broker(redis: Redis, settings: Settings) -> Broker:
    """Read everything from Redis. Raises what the connection raises."""
    now = queues.now_s(redis)
    said = workers.read(redis)
    up = {name: now - worker.seen_s <= workers.UP_S for name, worker in said.items()}
    alive = {name: worker for name, worker in said.items() if up[name]}
    return Broker(
        waiting=queues.waiting(redis, settings),
        held=int(redis.hget(FIGURES, "held") or 0),
        running=_running(alive, settings),
        workers=up,
        gpu_bytes={(name, gpu): used for name, w in alive.items() for gpu, used in w.gpu_bytes.items()},
        losses={name: float(loss) for name, loss in _hash(redis, LOSSES).items() if name in alive},
        events=counters.read(redis),
        totals={name: int(total) for name, total in _hash(redis, TOTALS).items()},
        histograms={h.name: tuple(_series(h, _hash(redis, h.key))) for h in HISTOGRAMS},
    )


def _running(alive: Mapping[str, WorkerInfo], settings: Settings) -> dict[str, int]:
    total: Counter[str] = Counter(dict.fromkeys(queues.names(settings), 0))
    for worker in alive.values():
        total.update(worker.running)
    return dict(total)


def _series(histogram: Histogram, fields: Mapping[str, str]) -> list[Series]:
    counts: dict[tuple[str, ...], dict[str, int]] = {}
    for name, value in fields.items():
        *labels, bucket = name.split("|")
        counts.setdefault(tuple(labels), {})[bucket] = int(value)
    bounds = [*(f"{bound:g}" for bound in histogram.buckets_s), INFINITY]
    return [_one_series(labels, found, bounds) for labels, found in sorted(counts.items())]


def _one_series(labels: tuple[str, ...], found: Mapping[str, int], bounds: list[str]) -> Series:
    buckets, below = [], 0
    for bound in bounds:
        below += found.get(bound, 0)
        buckets.append((bound, below))
    return Series(labels=labels, buckets=tuple(buckets), sum_s=found.get("sum_ms", 0) / 1000)


def _hash(redis: Redis, key: str) -> dict[str, str]:
    found: Mapping[bytes, bytes] = redis.hgetall(key)  # type: ignore[assignment]
    return {name.decode(): value.decode() for name, value in found.items()}
