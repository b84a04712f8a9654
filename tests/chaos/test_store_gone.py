"""A store that is unreachable for longer than a finished stage waits for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nss_train.contract import Stage
from tasks.jobs.documents import JobState
from tests.chaos.cluster import Cluster, wait_until
from tests.chaos.jobs import End, Jobs
from tests.chaos.proxy import Mode

STEPS = 40
PATIENCE_S = 3.0
GIVES_UP_S = 240.0
"""Maximum seconds until the training, which nothing disturbs, has ended and its stage has given up."""
BACK_S = 60.0
"""Maximum seconds between the store's return and the job's outcome."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster(folder, workers=2, store_patience_s=PATIENCE_S) as found:
        yield found


@pytest.mark.long
@pytest.mark.parametrize("stage", list(Stage))
def test_a_store_that_is_gone_delays_the_outcome_and_shows_no_half_of_it(
    jobs: Jobs, cluster: Cluster, undisturbed: End, stage: Stage
) -> None:
    job_id = jobs.submit(steps=STEPS)
    jobs.wait_for_stage(job_id, stage)
    shown = jobs.shown(job_id)
    cluster.set_store(Mode.DOWN)
    try:
        assert wait_until(lambda: not any(host.working_on for host in cluster.hosts), GIVES_UP_S), "works on"
        assert jobs.shown(job_id) == shown
        assert jobs.client.status(job_id).state is JobState.RUNNING
    finally:
        cluster.set_store(Mode.PASS)
    end = jobs.end(job_id, BACK_S)
    assert end.status.state is JobState.SUCCEEDED, end.status.error
    assert len(jobs.claims(job_id, stage)) > 1, "its first attempt gave up"
    assert jobs.violations({job_id: undisturbed.adapter}) == []
