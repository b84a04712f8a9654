"""One table's run through the real stages, and everything that it leaves, public and private."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nss_train import errors, stages
from nss_train.contract import DRAW, HOLDOUT_KEY, KEPT_DRAW, PROPOSED_DRAW, SKETCH_KEY, Event, Request
from nss_train.errors import UserError
from nss_train.privacy.audit.neighbours.releases import Released, seen_releases
from nss_train.privacy.audit.neighbours.tables import TableFile

PRIVATE = ("train.arrow", "validation.arrow", "units.arrow", "statistics.json", "training.csv", "test.csv")
"""Private files of prepare_data, which stay with the table."""
KEY = bytes(range(32))
"""Key of the audit: both worlds have the same secrets, so every difference comes from the table."""
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName"}

Examples = tuple[bytes, ...]
"""The tokens of each unit, in the units' order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Secrets:
    """The values that an honest run draws at random, and that are injected here."""

    holdout_key: bytes = KEY
    draw: bytes | None = None
    """Draw recorded by an earlier attempt; ``None``: this attempt draws."""
    units: int | None = None
    """Noisy count that this attempt draws; ``None``: a real draw."""


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Everything that a run with one table left."""

    published: Mapping[str, bytes]
    """Everything that leaves the stage: files, events, log lines, figures, prices, and its ending."""
    private: Mapping[str, bytes]
    """Files that stay inside, the table among them."""
    train: Examples
    validation: Examples
    units: tuple[int, ...]
    """Numbers of the units in ``train``."""
    releases: tuple[Released, ...]
    """Secret inputs of noisy releases."""
    draw: bytes | None
    """The draw that is recorded now."""
    ended_by: Exception | None = None

    @property
    def succeeded(self) -> bool:
        return self.ended_by is None

    @property
    def was_refused(self) -> bool:
        """Tell whether it ended by refusing the request, which is no failure."""
        return isinstance(self.ended_by, UserError)


def private_pieces(world: World) -> dict[str, bytes]:
    """Return the data whose digests must not be published: private files, and each line of the table."""
    found = dict(world.private)
    for name, content in world.private.items():
        if Path(name).suffix in {".csv", ".jsonl"}:
            lines = content.split(b"\n")
            found |= {f"line {number} of {name}": line for number, line in enumerate(lines) if line.strip()}
    return found


@dataclass(kw_only=True, slots=True)
class _Trace:
    """The events and log lines of a running stage."""

    folder: Path
    secrets: Secrets
    draw: bytes | None = None
    lines: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def take(self, event: Event) -> None:
        """Act as the supervisor, which records a draw before it is used and keeps the first one."""
        self.events.append(event)
        if event.action == DRAW:
            self.draw = self.secrets.draw or self._proposed()
            (self.folder / KEPT_DRAW).write_bytes(self.draw)

    def _proposed(self) -> bytes:
        proposed = json.loads((self.folder / PROPOSED_DRAW).read_bytes())
        drawn = {} if self.secrets.units is None else {"effective": self.secrets.units}
        return json.dumps(proposed | drawn).encode()


def run(table: TableFile, request: Request, folder: Path, secrets: Secrets | None = None) -> World:
    """Run prepare_data on a table in an empty folder."""
    secrets = secrets or Secrets()
    request = request.model_copy(update={"keep_draw": True, "table": f"table{table.suffix}"})
    _lay_out(folder, table, request, secrets)
    trace = _Trace(folder=folder, secrets=secrets)
    with _listening(trace.lines), seen_releases() as releases:
        figures, failed = _prepare(folder, request, trace.take)
    private = set(_private_files(folder))
    return World(
        published=_published(folder, private, trace, figures, failed),
        private={str(path.relative_to(folder)): path.read_bytes() for path in private},
        train=_examples(folder, "train"),
        validation=_examples(folder, "validation"),
        units=tuple(np.unique(_owners(folder)).tolist()),
        releases=tuple(releases),
        draw=trace.draw,
        ended_by=failed,
    )


def _lay_out(folder: Path, table: TableFile, request: Request, secrets: Secrets) -> None:
    for name in ("in", "out"):
        (folder / name).mkdir(parents=True)
    table.write(folder / "in" / str(request.table))
    key = folder / "in" / HOLDOUT_KEY
    key.parent.mkdir()
    key.write_bytes(secrets.holdout_key)
    # A deployment has a key for sketches, too, and an odd cell must not end their making.
    (folder / "in" / SKETCH_KEY).write_bytes(secrets.holdout_key)


def _prepare(
    folder: Path, request: Request, take: Callable[[Event], None]
) -> tuple[Mapping[str, Any], Exception | None]:
    try:
        return stages.prepare_data(folder, request, report=take).figures, None
    except Exception as error:  # noqa: BLE001 - as at the boundary of the stage's process: every ending is recorded
        return {}, error


def _published(
    folder: Path,
    private: Collection[Path],
    trace: _Trace,
    figures: Mapping[str, object],
    failed: Exception | None,
) -> dict[str, bytes]:
    def plain(text: str) -> bytes:
        return text.replace(str(folder), "<folder>").encode(errors="surrogatepass")

    out = [path for path in _files(folder / "out") if path not in private]
    found = {str(path.relative_to(folder)): path.read_bytes() for path in out}
    found |= {f"event {at}": plain(event.model_dump_json()) for at, event in enumerate(trace.events)}
    found |= {f"log line {at}": plain(line) for at, line in enumerate(trace.lines)}
    ending = "done" if failed is None else json.dumps(errors.to_json(errors.typed(failed, folder)))
    return found | {"figures": plain(json.dumps(figures)), "ending": plain(ending)}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _private_files(folder: Path) -> Iterator[Path]:
    yield from _files(folder / "in")
    for path in _files(folder / "out"):
        if path.name in PRIVATE or "private" in path.relative_to(folder).parts:
            yield path


def _examples(folder: Path, side: str) -> Examples:
    """Return the bytes of each unit's tokens, row after row."""
    found = next(iter((folder / "out").rglob(f"{side}.arrow")), None)
    if found is None:
        return ()
    rows = [
        np.asarray(row, dtype=np.int64).tobytes() + b"|"
        for row in _read(found).column("input_ids").to_pylist()
    ]
    if side != "train":
        return tuple(rows)
    return tuple(b"".join(rows[first:last]) for first, last in _spans(_owners(folder)))


def _owners(folder: Path) -> npt.NDArray[np.int64]:
    """Return the unit number of each training example."""
    found = next(iter((folder / "out").rglob("units.arrow")), None)
    return np.zeros(0, dtype=np.int64) if found is None else _read(found).column("unit").to_numpy()


def _spans(units: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield the first and last index of each unit's rows."""
    ends = np.flatnonzero(np.diff(units)) + 1
    edges = [0, *ends.tolist(), len(units)]
    yield from pairwise(edges) if len(units) else ()


def _read(path: Path) -> pa.Table:
    with pa.ipc.open_stream(path) as stream:
        return stream.read_all()


@contextmanager
def _listening(lines: list[str]) -> Iterator[None]:
    """Collect every log line with its fields, and every warning."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            fields = {name: value for name, value in vars(record).items() if name not in _PLAIN}
            lines.append(f"{record.levelname} {record.name} {record.getMessage()} {fields}")

    logger, listener = logging.getLogger("nss_train"), Listener(logging.DEBUG)
    level = logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.DEBUG)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield
        lines += [f"WARNING {warning.message}" for warning in warned]
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
