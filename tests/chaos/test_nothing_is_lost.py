"""One thing goes wrong at a time, on real servers, and its outcome is checked closely."""

from __future__ import annotations

import json
import random
import signal
import time
from contextlib import suppress

import psutil
import pytest

from nss_train.contract import Stage
from tasks.app import make_app
from tasks.jobs.documents import EndKind, JobState
from tests.chaos.cluster import Cluster, WorkerHost, wait_until
from tests.chaos.jobs import End, Jobs
from tests.chaos.proxy import Mode

STEPS = 40


@pytest.mark.long
def test_a_worker_killed_again_and_again_in_one_job(jobs: Jobs, undisturbed: End) -> None:
    kills, rng = 10, random.Random(1)
    job_id = jobs.submit(steps=STEPS)
    for kill in range(1, kills + 1):
        jobs.wait_for_step(job_id, kill * STEPS // (kills + 2) - rng.randrange(3))
        host = jobs.wait_for_stage(job_id, Stage.TRAIN)
        host.kill()
        host.start()
    end = jobs.end(job_id)
    assert end.status.state is JobState.SUCCEEDED, end.status.error
    assert end.adapter == undisturbed.adapter
    repeated = len(end.steps) - len({step for _, step in end.steps})
    # The checkpoint interval is one step; the upload of the last one may have been under way.
    assert repeated <= 2 * kills, end.steps
    assert {step for _, step in end.steps} == {step for _, step in undisturbed.steps}
    assert jobs.violations({job_id: undisturbed.adapter}) == []


def test_the_zombie_loses_and_cleans_up_after_itself(jobs: Jobs, undisturbed: End) -> None:
    job_id = jobs.submit(steps=STEPS)
    jobs.wait_for_step(job_id, 3)
    zombie = jobs.wait_for_stage(job_id, Stage.TRAIN)
    send(zombie, signal.SIGSTOP)
    try:
        # The other worker takes over while the first one sleeps, and ends the job.
        end = jobs.end(job_id)
    finally:
        send(zombie, signal.SIGCONT)
    assert end.status.state is JobState.SUCCEEDED, end.status.error
    assert end.status.stages[2].attempt == 2
    assert wait_until(lambda: zombie.working_on is None, 30)
    # It deletes what it has in the store after its own folder.
    wait_until(lambda: not jobs.violations({job_id: undisturbed.adapter}), 30)
    assert jobs.violations({job_id: undisturbed.adapter}) == []


def send(host: WorkerHost, number: signal.Signals) -> None:
    for process in host.tree():
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


@pytest.mark.long
def test_an_emptied_broker_loses_nothing(jobs: Jobs, undisturbed: End, long: bool) -> None:
    submitted = [jobs.submit(steps=STEPS) for _ in range(12 if long else 4)]
    assert wait_until(lambda: sum(1 for host in jobs.cluster.hosts if host.working_on) == 2, 60)
    make_app(jobs.cluster.settings).redis.flushall()
    ends = [jobs.end(job_id, 600) for job_id in submitted]
    assert [end.status.state for end in ends] == [JobState.SUCCEEDED] * len(submitted)
    assert jobs.violations(dict.fromkeys(submitted, undisturbed.adapter)) == []


@pytest.mark.parametrize("how", ["SIGTERM", pytest.param("control shutdown", marks=pytest.mark.long)])
def test_a_worker_that_leaves_hands_its_training_on(jobs: Jobs, undisturbed: End, how: str) -> None:
    job_id = jobs.submit(steps=STEPS)
    jobs.wait_for_step(job_id, 5)
    host = jobs.wait_for_stage(job_id, Stage.TRAIN)
    asked = time.monotonic()
    if how == "control shutdown":
        make_app(jobs.cluster.settings).control.shutdown(destination=[f"{host.name}@chaos"])
        assert host.process is not None
        host.process.wait(30)
    host.terminate(30)
    assert time.monotonic() - asked < host.settings.drain_grace_s
    assert host.exits[-1] == 0
    host.start()
    end = jobs.end(job_id)
    assert end.status.state is JobState.SUCCEEDED, end.status.error
    first, second = jobs.claims(job_id)
    assert [ending.kind for ending in jobs.endings(job_id)] == [EndKind.DRAINED]
    # Not one step is done twice, and none is left out.
    assert [step for _, step in end.steps] == [step for _, step in undisturbed.steps]
    assert second.position == max(step for attempt, step in end.steps if attempt == first.attempt)
    assert jobs.violations({job_id: undisturbed.adapter}) == []


@pytest.mark.long
def test_a_second_sigterm_ends_a_worker_at_once(jobs: Jobs, undisturbed: End) -> None:
    job_id = jobs.submit(steps=STEPS)
    host = jobs.wait_for_stage(job_id, Stage.LOAD_MODEL)
    assert host.process is not None
    host.process.terminate()
    time.sleep(1)
    asked = time.monotonic()
    host.terminate(10)
    assert time.monotonic() - asked < 2
    host.start()
    assert jobs.end(job_id).adapter == undisturbed.adapter


@pytest.mark.long
def test_the_death_of_a_rank_is_told_and_made_up_for(jobs: Jobs, undisturbed: End) -> None:
    job_id = jobs.submit(steps=STEPS, ranks=2)
    jobs.wait_for_step(job_id, 3)
    host = jobs.wait_for_stage(job_id, Stage.TRAIN)
    group = host.stage_processes()
    assert len(group) == 3
    killed = time.monotonic()
    group[2].kill()
    assert wait_until(lambda: not any(process.is_running() for process in group), 10)
    assert time.monotonic() - killed < 10
    end = jobs.end(job_id)
    assert end.status.state is JobState.SUCCEEDED, end.status.error
    (ending,) = jobs.endings(job_id)
    assert ending.error is not None
    assert "Rank 1 ended by signal SIGKILL" in ending.error["message"]


@pytest.mark.long
def test_cancel_at_any_moment(jobs: Jobs, undisturbed: End) -> None:
    rng, whole = random.Random(3), seconds_of(undisturbed)
    for _ in range(20):
        job_id = jobs.submit(steps=STEPS)
        time.sleep(rng.uniform(0, 1.1 * whole))
        jobs.client.cancel(job_id, reason="test", requested_by="a person")
        asked = time.monotonic()
        assert wait_until(lambda job_id=job_id: not is_worked_on(jobs, job_id), 10)
        assert time.monotonic() - asked <= 5
        end = jobs.end(job_id)
        assert end.status.state in {JobState.CANCELLED, JobState.SUCCEEDED}
        if end.status.state is JobState.CANCELLED:
            assert end.status.reason == "test (by a person)"
        else:
            assert end.adapter == undisturbed.adapter
    assert jobs.violations({}) == []


def seconds_of(end: End) -> float:
    return sum(stage.seconds or 0 for stage in end.status.stages)


def is_worked_on(jobs: Jobs, job_id: str) -> bool:
    names = [host.working_on or "" for host in jobs.cluster.hosts]
    processes = [p for host in jobs.cluster.hosts for p in host.stage_processes()]
    return any(name.startswith(job_id) for name in names) or any(
        job_id in str(p.cmdline()) for p in processes
    )


@pytest.mark.parametrize("terminate", [True, pytest.param(False, marks=pytest.mark.long)])
def test_revoking_by_stamp_cancels_the_job(jobs: Jobs, terminate: bool) -> None:
    job_id = jobs.submit(steps=STEPS)
    if terminate:
        jobs.wait_for_step(job_id, 3)
    control = make_app(jobs.cluster.settings).control
    control.revoke_by_stamped_headers({"job_id": [job_id]}, terminate=terminate)
    end = jobs.end(job_id)
    assert end.status.state is JobState.CANCELLED
    assert end.status.reason == "revoked through Celery (by celery)"
    assert wait_until(lambda: not is_worked_on(jobs, job_id), 5)
    assert jobs.violations({}) == []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "away_during" in metafunc.fixturenames:
        short = [Stage.TRAIN]
        metafunc.parametrize("away_during", list(Stage) if metafunc.config.getoption("--long") else short)


@pytest.mark.long
def test_a_store_that_is_away_is_waited_for(
    jobs: Jobs, cluster: Cluster, undisturbed: End, away_during: Stage, long: bool
) -> None:
    job_id = jobs.submit(steps=STEPS)
    jobs.wait_for_stage(job_id, away_during)
    cluster.set_store(Mode.DOWN)
    try:
        time.sleep(30 if long else 10)
        # Nothing of the stage is visible meanwhile.
        assert jobs.client.status(job_id).stages[list(Stage).index(away_during)].state == "running"
    finally:
        cluster.set_store(Mode.PASS)
    end = jobs.end(job_id)
    assert end.status.state is JobState.SUCCEEDED, end.status.error
    assert end.adapter == undisturbed.adapter
    assert jobs.violations({job_id: undisturbed.adapter}) == []


@pytest.mark.long
def test_a_checkpoint_that_is_not_whole_is_passed_over(jobs: Jobs, undisturbed: End) -> None:
    job_id = jobs.submit(steps=STEPS)
    jobs.wait_for_step(job_id, 8)
    for host in jobs.cluster.hosts:
        host.kill()
    store = make_app(jobs.cluster.settings).store
    kept = sorted(
        {int(key.split("/")[3]) for key in store.list(f"jobs/{job_id}/checkpoints/") if "manifest" in key}
    )
    (weights,) = (
        key for key in store.list(f"jobs/{job_id}/checkpoints/{kept[-1]}/") if "adapter_model" in key
    )
    store.write(weights, store.read(weights)[:-100])
    for host in jobs.cluster.hosts:
        host.start()
    end = jobs.end(job_id)
    assert end.adapter == undisturbed.adapter
    second = [step for attempt, step in end.steps if attempt == 2]
    assert second[0] == kept[-2] + 1


def test_the_log_of_a_stage_can_be_read_and_names_its_attempt(jobs: Jobs, undisturbed: End) -> None:
    assert "nss_train" in jobs.client.logs(undisturbed.status.job_id, stage=Stage.TRAIN, attempt=1)


@pytest.mark.long
def test_every_retry_is_shown_with_its_reason(jobs: Jobs) -> None:
    job_id, attempts = jobs.submit(steps=STEPS), 0
    for attempts in range(1, 4):
        jobs.wait_for_stage(job_id, Stage.LOAD_MODEL).stage_processes()[0].kill()
        assert wait_until(lambda n=attempts: len(jobs.endings(job_id, Stage.LOAD_MODEL)) == n, 30)
    retries = jobs.client.status(job_id).stages[1].retries
    assert len(retries) == attempts
    assert all("signal SIGKILL" in json.dumps(retry) for retry in retries)
    assert jobs.end(job_id).status.state is JobState.SUCCEEDED
