"""A worker process: ``python -m tasks.worker --queues cpu --name cpu@host``."""

from __future__ import annotations

import argparse
import logging

from tasks.app import make_app
from tasks.scratch import sweep
from tasks.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.worker", description=__doc__)
    parser.add_argument("--queues", required=True, help="comma-separated queue names")
    parser.add_argument("--name", required=True, help="unique name, such as cpu@host")
    parser.add_argument("--concurrency", type=int, default=1, help="stages at a time")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    run_worker(Settings(), arguments.queues, name=arguments.name, concurrency=arguments.concurrency)


def run_worker(settings: Settings, queues: str, *, name: str, concurrency: int) -> None:
    """Serve the queues until SIGTERM. Prefork, because only there the worker answers while a stage runs."""
    sweep(settings.scratch_dir)
    options = [f"--queues={queues}", f"--hostname={name}", f"--concurrency={concurrency}", "--pool=prefork"]
    make_app(settings).worker_main(
        ["worker", *options, "-O", "fair", "--events", "--without-gossip", "--without-mingle"]
    )


if __name__ == "__main__":
    main()
