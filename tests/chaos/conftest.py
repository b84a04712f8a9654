"""A cluster of two workers, and a job that trains for some seconds in many small steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.cluster import Cluster
from tests.chaos.jobs import End, Jobs


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster"), workers=2) as found:
        yield found


@pytest.fixture(scope="module")
def jobs(cluster: Cluster, tiny_model: Path) -> Jobs:
    return Jobs(cluster, tiny_model)


@pytest.fixture(scope="module")
def undisturbed(jobs: Jobs) -> End:
    """Return the end of a job that nothing happened to."""
    return jobs.end(jobs.submit(steps=40))
