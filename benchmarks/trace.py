"""The trace of one job as a waterfall: ``python -m benchmarks.trace TABLE --config CONFIG``.

It starts broker, store, workers and a collector, runs a job, and prints each span of its trace with the
time at which it began and how long it lasted.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tasks.client import Client
from tasks.local.stack import stack
from tasks.settings import Settings
from tests.collector import Collector, collector, waterfall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--config", type=Path, required=True)
    arguments = parser.parse_args()
    with collector() as collected:
        traced = Settings().model_copy(update={"otlp_endpoint": collected.endpoint})
        with stack(traced, s3=True) as settings:
            client = Client(settings)
            job_id = client.submit(table=arguments.table, config=arguments.config)
            *_, last = client.watch(job_id)
            _wait_for_root(collected)
        # The client's own spans are exported with a delay.
        time.sleep(6)
    print(f"{job_id}: {last.state}")
    print(waterfall(collected.spans))
    for span in sorted(collected.spans, key=lambda span: span.began_s):
        for when, name in span.events:
            print(f"{when - collected.spans[0].began_s:+9.3f} s during {span.name}: {name}")


def _wait_for_root(collected: Collector) -> None:
    deadline = time.monotonic() + 30
    while not any(span.name == "job" for span in collected.spans) and time.monotonic() < deadline:
        time.sleep(0.2)


if __name__ == "__main__":
    main()
