"""Two strictly private jobs on neighbouring tables, on real servers: what is published, byte by byte."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.app import App, make_app
from tasks.client import Client
from tasks.execution.progress import stream_key
from tasks.jobs.documents import JobState
from tasks.jobs.ids import id_of_key
from tasks.jobs.keys import Keys
from tasks.jobs.repository import JobRepository
from tasks.jobs.stage_files import sha256_of
from tasks.settings import Settings
from tasks.webhooks import delivery
from tests.digests import digests_in, sizes_in
from tests.pipeline.test_pipeline import wait_for_end, wait_until

ROWS = 60
NULLED = 17
TIMES = ("_at", "timestamp", "seconds", "eta_s", "local_received", "runtime", "clock")
DRAWN = ("sha256", "token", "uuid", "pid", "root_id", "parent_id", "idempotency_key", "input")
"""Endings of names whose values differ between any two jobs: ids, random names, digests of weights."""
DRAW = json.dumps({"effective": ROWS}).encode()
EARLIER = ("cache",)
"""Names whose values depend on whether an earlier job prepared the base model."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Everything visible of one job, and separately its private part."""

    job_id: str
    bytes_by_place: Mapping[str, bytes]
    private: Mapping[str, bytes]
    table: bytes = b""

    def documents(self) -> dict[str, Any]:
        """Return the JSON documents among it, with the job's own names taken out."""
        return dict(self._documents())

    def _documents(self) -> Iterator[tuple[str, Any]]:
        for place, data in self.bytes_by_place.items():
            try:
                yield self.unnamed(place), json.loads(self.unnamed(data.decode()))
            except ValueError:
                continue  # weights, the card, a time

    def unnamed(self, text: str) -> str:
        """Return a text without the job's name, and Flower's line without its time."""
        return re.sub(r", \d+ s left", "", text.replace(self.job_id, "JOB"))


class Events:
    """Celery's events as Flower receives them, from one subscription: between two, some are lost."""

    def __init__(self, app: App) -> None:
        self.got: list[dict[str, Any]] = []
        self._receiver = app.events.Receiver(app.connection_for_read(), handlers={"*": self.got.append})
        self._thread = threading.Thread(target=self._receiver.capture, daemon=True)

    def __enter__(self) -> Events:
        self._thread.start()
        wait_until(lambda: bool(self.got))  # a worker's heartbeat
        return self

    def told_the_end_of(self, job_id: str) -> bool:
        """Tell whether the event of a job's last task is there, which is sent after its outcome is stored."""
        results = [str(one.get("result")) for one in self.got if one["type"] == "task-succeeded"]
        return any(job_id in result and "artifacts" in result for result in results)

    def __exit__(self, *_: object) -> None:
        self._receiver.should_stop = True
        self._thread.join(30)


def rows(nulled: int | None) -> str:
    """Return a table of text; the record ``nulled``, if given, is empty."""
    lines = [f"bird {i} of {('Dream', 'Biscoe')[i % 2]},{'abcde'[i % 5]}" for i in range(ROWS)]
    if nulled is not None:
        lines[nulled] = ","
    return "what,kind\n" + "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def neighbours(
    deployment: Settings, config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> list[Seen]:
    folder, client, app = tmp_path_factory.mktemp("neighbours"), Client(deployment), make_app(deployment)
    private = config | {
        "privacy": {"dp_enabled": True, "epsilon": 8.0, "delta": 1e-4},
        "guarantee": {"schema_source": "declared", "dataset": "birds-observed"},
    }
    jobs = []
    tables = [folder / str(number) / "birds.csv" for number in range(2)]
    for table, nulled in zip(tables, (None, NULLED), strict=True):
        table.parent.mkdir()
        table.write_text(rows(nulled))
    with Events(app) as events:
        for table in tables:
            key = f"observed-{table.parent.name}"
            # One draw for both, so that what differs comes from the table.
            app.store.put_if_absent(Keys(id_of_key(key)).draw, DRAW)
            jobs.append(client.submit(table=table, config=private, seed=7, idempotency_key=key))
        ends = [wait_for_end(client, job_id) for job_id in jobs]
        assert [end.state for end in ends] == [JobState.SUCCEEDED] * 2, [end.error for end in ends]
        wait_until(lambda: all(map(events.told_the_end_of, jobs)))
    return [seen(app, client, events, job_id, folder) for job_id in jobs]


def seen(app: App, client: Client, events: Events, job_id: str, folder: Path) -> Seen:
    """Collect objects, stream, events, status, notices, log and artifacts of a job, and its private part."""
    store, keys = app.store, Keys(job_id)
    places = {key: store.read(key) for key in store.list(f"{keys.root}/") if not key.startswith(keys.private)}
    hidden = {key: store.read(key) for key in store.list(keys.private)}
    for number, (_, entry) in enumerate(app.redis.xrange(stream_key(job_id))):
        places[f"stream {number}"] = entry[b"event"]
    for number, event in enumerate(one for one in events.got if job_id in json.dumps(one)):
        places[f"event {number} {event['type']}"] = json.dumps(event).encode()
    places["status"] = client.status(job_id).model_dump_json().encode()
    places["log"] = client.logs(job_id).encode()
    for notice in delivery.notices(JobRepository(store, job_id)):
        places[f"notice {notice.name}"] = notice.body().encode()
    fetched = client.fetch(job_id, folder / f"{job_id}-out")
    for path in (path for path in fetched.rglob("*") if path.is_file()):
        places[f"fetched {path.relative_to(fetched)}"] = path.read_bytes()
    places["names"] = "\n".join(key for key in places if key.startswith("jobs/")).encode()
    table = next(
        data
        for key, data in hidden.items()
        if key.startswith(f"{keys.private}input/") and not key.endswith(".json")
    )
    return Seen(job_id=job_id, bytes_by_place=places, private=hidden, table=table)


def texts(table: bytes) -> dict[str, bytes]:
    """Return a table's lines, each with and without its line break."""
    lines = [line for line in table.splitlines() if line.strip(b",")]
    found = {f"line {number}": line for number, line in enumerate(lines)}
    return found | {f"line {number} with its break": line + b"\n" for number, line in enumerate(lines)}


def test_no_digest_of_private_bytes_is_published(neighbours: list[Seen]) -> None:
    for job in neighbours:
        assert list(digests_in(job.bytes_by_place, dict(job.private) | texts(job.table))) == []


def test_the_scanner_finds_a_digest_in_whatever_form(neighbours: list[Seen], tmp_path: Path) -> None:
    job = neighbours[0]
    (tmp_path / "t").write_bytes(job.table)
    places = {"marker": json.dumps({"input": sha256_of(tmp_path / "t")[:16]}).encode()}
    assert any("sha256 in hex of jobs/" in found for found in digests_in(places, job.private))


def test_no_size_of_a_private_file_is_published(neighbours: list[Seen]) -> None:
    for job in neighbours:
        published = {len(data) for data in job.bytes_by_place.values()}
        sizes = {len(data) for data in job.private.values()} - published - set(range(1000))
        assert sizes
        assert list(sizes_in(job.documents(), sizes)) == []


def test_a_record_that_is_nulled_changes_no_published_byte_but_times_names_and_what_was_paid_for(
    neighbours: list[Seen],
) -> None:
    first, second = (equal_parts(job) for job in neighbours)
    assert first.keys() == second.keys()
    assert sorted(set(first.pop("events")) ^ set(second.pop("events"))) == []
    assert {
        place: (document, second[place]) for place, document in first.items() if document != second[place]
    } == {}


def equal_parts(job: Seen) -> dict[str, Any]:
    """Return what must be equal: every document without times and draws, and the size of every other object.

    Celery's own events come in an order that depends on the clock; what they hold is compared sorted.
    """
    documents = job.documents()
    events = sorted(
        json.dumps(without_times(document), sort_keys=True)
        for place, document in documents.items()
        if place.startswith("event")
        and document["type"] in {"task-progress", "task-succeeded", "task-failed"}
    )
    found = {place: without_times(document) for place, document in documents.items() if place[:5] != "event"}
    others = {
        job.unnamed(place): len(data)
        for place, data in job.bytes_by_place.items()
        if job.unnamed(place) not in documents and place != "names" and not place.startswith("event")
    }
    return found | {
        "events": events,
        "sizes": others,
        "names": job.unnamed(job.bytes_by_place["names"].decode()),
    }


def without_times(document: Any) -> Any:
    """Return a document without times, random names and digests of released weights."""
    if isinstance(document, dict):
        return {
            name: without_times(value)
            for name, value in document.items()
            if not name.endswith((*TIMES, *DRAWN)) and name not in EARLIER
        }
    return [without_times(one) for one in document] if isinstance(document, list) else document
