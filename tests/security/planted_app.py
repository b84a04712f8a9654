"""A worker that fails between the consumer and the pool where a message's id asks for it."""

from __future__ import annotations

import sys
from threading import Lock
from typing import Any

from celery import signals

from tasks.app import make_app
from tasks.broker import transport
from tasks.settings import Settings
from tests.security.messages import PLANTED

app = make_app(Settings())


@signals.task_received.connect
def _make_it_unpicklable(request: Any, **_: Any) -> None:
    if request.id.startswith(PLANTED["pickle"]):
        request._request_dict["planted"] = Lock()


@app.task(name="nss_train.planted")
def memory() -> None:
    raise MemoryError("planted")


class _Failing(transport.GuardedTransport):
    def _hand_in(self, message: dict[str, Any], queue: str) -> None:
        if message["headers"]["id"].startswith(PLANTED["listed"]):
            message["headers"]["planted"] = Lock()  # which no list of unacknowledged messages can hold
        if message["headers"]["id"].startswith(PLANTED["received"]):
            message["headers"]["timelimit"] = 7  # which no request can have
        super()._hand_in(message, queue)


transport.GuardedTransport = _Failing  # type: ignore[misc]

if __name__ == "__main__":
    app.worker_main(["worker", "--queues=cpu", "--hostname=cpu@planted", "--concurrency=1", *sys.argv[1:]])
