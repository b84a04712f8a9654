"""Messages as the broker holds them, honest and forged."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping
from typing import Any

JOB = "20260101-000000-abcdef01"
DEEP = b"[" * 200_000 + b"]" * 200_000


def body(kwargs: Any, *, args: Any = (), embedded: Any = None) -> str:
    return base64.b64encode(json.dumps([args, kwargs, embedded or {}]).encode()).decode()


def envelope(task: str, kwargs: Any, **changes: Any) -> dict[str, Any]:
    """Return what an honest Celery client would send; a change replaces a part (``headers__eta=…``)."""
    message: dict[str, Any] = {
        "body": body(kwargs),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "task": task,
            "id": str(uuid.uuid4()),
            "lang": "py",
            "eta": None,
            "timelimit": [None, None],
        },
        "properties": {
            "delivery_tag": str(uuid.uuid4()),
            "delivery_info": {"exchange": "", "routing_key": "cpu"},
            "body_encoding": "base64",
            "delivery_mode": 2,
            "priority": 0,
        },
    }
    for name, value in changes.items():
        *path, last = name.split("__")
        place = message
        for part in path:
            place = place[part]
        place[last.replace("_type", "-type") if last == "content_type" else last] = value
    return message


def raw(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode()


def stage(job_id: Any = JOB, name: Any = "prepare_data", **more: Any) -> dict[str, Any]:
    return {"message": {"job_id": job_id, "stage": name} | more}


PLANTED = {"pickle": "planted-pickle", "listed": "planted-listed", "received": "planted-received"}
"""Beginnings of the ids of messages that a planted fault meets on their way to the pool."""
