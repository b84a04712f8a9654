"""Auditor of what a round left in store and broker: it checks the invariants, and shares no worker code."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minio import Minio
from redis import Redis

STAGES = ("prepare_data", "load_model", "train", "save_model")
ADAPTER = "train/adapter/adapter_model.safetensors"
KEPT_OF_AN_ATTEMPT = {"claim.json", "ending.json", "log.txt"}


PRIORITIES = ("", "\x06\x163", "\x06\x166", "\x06\x169")
"""Suffixes that Celery's transport adds to the name of a queue."""


class Auditor:
    """The auditor looks at a bucket, a broker and the workers' disks with nothing but their own clients."""

    def __init__(self, minio: Minio, bucket: str, redis: Redis, disks: list[Path]) -> None:
        self._minio = minio
        self._bucket = bucket
        self._redis = redis
        self._disks = disks
        self.objects = [
            str(item.object_name) for item in minio.list_objects(bucket, recursive=True) if not item.is_dir
        ]

    def violations(self, expected: dict[str, str]) -> Iterator[str]:
        """Yield everything that is wrong; ``expected`` gives the digest of each job's adapter."""
        for job_id, adapter in expected.items():
            yield from self._outcome(job_id)
            yield from self._stages(job_id)
            yield from self._adapter(job_id, adapter)
        yield from self._leftovers()
        yield from self._broker()

    def _outcome(self, job_id: str) -> Iterator[str]:
        """Check I1: exactly one outcome."""
        document = self._json(f"jobs/{job_id}/outcome.json")
        if document is None:
            yield f"I1: {job_id} is lost: it has no outcome"
        elif document["outcome"] != "succeeded":
            yield f"I1: {job_id} is {document['outcome']}: {json.dumps(document.get('error'))[:500]}"

    def _stages(self, job_id: str) -> Iterator[str]:
        """Check I2: one committed attempt per stage, whole, and nothing visible of the others."""
        for stage in STAGES:
            marker = self._json(f"jobs/{job_id}/stages/{stage}.json")
            if marker is None:
                yield f"I2: {job_id} has no marker for {stage}"
                continue
            private = self._json(f"jobs/{job_id}/private/attempts/{stage}/{marker['attempt']}/files.json")
            if private is None:
                yield f"I2: what {job_id} keeps of {stage} for workers is missing"
            for file in (*marker["files"], *(private or {"files": ()})["files"]):
                data = self._read(file["key"])
                if data is None:
                    yield f"I2: {file['key']} is committed and missing"
                elif hashlib.sha256(data).hexdigest() != file["sha256"]:
                    yield f"I2: {file['key']} is not what was committed"
            yield from self._attempts(job_id, stage, int(marker["attempt"]))

    def _attempts(self, job_id: str, stage: str, committed: int) -> Iterator[str]:
        for root in (f"jobs/{job_id}/", f"jobs/{job_id}/private/"):
            prefix = f"{root}attempts/{stage}/"
            for key in self.objects:
                if key.startswith(prefix):
                    number, _, name = key.removeprefix(prefix).partition("/")
                    if int(number) != committed and name not in KEPT_OF_AN_ATTEMPT:
                        yield f"I4: {key} is of an attempt that was not committed"

    def _adapter(self, job_id: str, expected: str) -> Iterator[str]:
        """Check I6: an interrupted job makes the same adapter as an undisturbed one."""
        marker = self._json(f"jobs/{job_id}/stages/save_model.json")
        if marker is not None:
            found = {file["path"]: file["sha256"] for file in marker["files"]}[ADAPTER]
            if expected and found != expected:
                yield f"I6: the adapter of {job_id} is {found[:12]}, undisturbed it is {expected[:12]}"

    def adapter(self, job_id: str) -> str:
        """Return the digest of a job's adapter, or an empty string when there is none."""
        marker = self._json(f"jobs/{job_id}/stages/save_model.json")
        files = [] if marker is None else marker["files"]
        return next((file["sha256"] for file in files if file["path"] == ADAPTER), "")

    def _leftovers(self) -> Iterator[str]:
        """Check I4: no checkpoint, no open job and no scratch folder is left."""
        for key in self.objects:
            if "/checkpoints/" in key or key.startswith("open/"):
                yield f"I4: {key} is left over"
        for disk in self._disks:
            for path in disk.iterdir():
                yield f"I4: {path.name} is left on {disk.parent.name}"

    def _broker(self) -> Iterator[str]:
        for key in self._redis.scan_iter("nss-train:lease:*"):
            yield f"I4: {key.decode()} is left over"
        for queue in ("cpu", "cuda"):
            waiting = sum(self._redis.llen(f"{queue}{step}") for step in PRIORITIES)
            if waiting:
                yield f"I3: {waiting} messages are left in {queue}"

    def claims(self) -> Counter[str]:
        """Count the attempts per stage, over all jobs."""
        return Counter(key.split("/")[3] for key in self.objects if key.endswith("/claim.json"))

    def fingerprint(self) -> dict[str, str]:
        """Return the ETag of every object of the jobs: a repeated delivery must change none."""
        items = self._minio.list_objects(self._bucket, prefix="jobs/", recursive=True)
        return {str(item.object_name): str(item.etag) for item in items}

    def _json(self, key: str) -> dict[str, Any] | None:
        data = self._read(key)
        return None if data is None else json.loads(data)

    def _read(self, key: str) -> bytes | None:
        if key not in self.objects:
            return None
        answer = self._minio.get_object(self._bucket, key)
        try:
            return bytes(answer.read())
        finally:
            answer.close()
            answer.release_conn()
