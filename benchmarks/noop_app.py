"""A worker whose stages do nothing, and two kinds of chain to compare it with."""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import partial
from typing import Any

from celery import chain, shared_task

from tasks.app import App
from tasks.execution import attempt
from tasks.execution.processes.supervisor import run_child
from tasks.settings import Settings
from tasks.worker.process import run_worker

BARE, PROCESS = "noop.bare", "noop.process"
UNGUARDED = "noop"
"""A queue that takes chains of any task, as no queue of a deployment does."""


@shared_task(name=BARE, bind=True)
def bare(self: Any) -> None:
    self.app.redis.incr(BARE)


@shared_task(name=PROCESS, bind=True)
def process(self: Any) -> None:
    """Start a new Python process, as any task must that needs a clean one."""
    subprocess.run([sys.executable, "-c", "import pydantic"], check=True)
    self.app.redis.incr(PROCESS)


def bare_chain(app: App, task: str) -> Any:
    one = app.signature(task, immutable=True, queue=UNGUARDED)
    return chain(*[one.clone() for _ in range(4)], app=app)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queues", default=f"cpu,cuda,{UNGUARDED}")
    parser.add_argument("--name", default="noop@localhost")
    parser.add_argument("--stages", default="benchmarks.noop_stages", help="module of the stages")
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--max-jobs", type=int)
    parser.add_argument("--idle-exit-s", type=float)
    given = parser.parse_args()
    attempt.run_child = partial(run_child, module=given.stages)  # type: ignore[assignment]
    run_worker(
        Settings(),
        given.queues,
        name=given.name,
        concurrency=given.concurrency,
        max_jobs=given.max_jobs,
        idle_exit_s=given.idle_exit_s,
    )


if __name__ == "__main__":
    main()
