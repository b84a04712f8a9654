"""Changes that may happen only once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nss_train.contract import Stage
from nss_train.errors import OutOfMemory, ParameterError, Retry, StoreUnavailable
from tasks.jobs.attempts import AttemptsExhausted
from tasks.jobs.documents import EndKind, Outcome, StageCommit, StageMessage
from tasks.jobs.repository import JobRepository
from tasks.store.local import LocalStore


@pytest.fixture
def records(tmp_path: Path) -> JobRepository:
    return JobRepository(LocalStore(tmp_path), "job-0001")


def marker(attempt: int) -> StageCommit:
    now = datetime.now(UTC)
    return StageCommit(stage=Stage.TRAIN, attempt=attempt, started_at=now, finished_at=now, files=())


def test_racing_claims_get_different_numbers(records: JobRepository) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(
            pool.map(lambda n: records.claim(Stage.TRAIN, worker=str(n), max_attempts=8), range(8))
        )
    assert sorted(numbers) == list(range(1, 9))


def test_attempts_are_capped_by_the_store(records: JobRepository) -> None:
    for _ in range(3):
        records.claim(Stage.TRAIN, worker="w", max_attempts=3)
    with pytest.raises(AttemptsExhausted, match="started 3 times"):
        records.claim(Stage.TRAIN, worker="w", max_attempts=3)


def test_attempts_that_ended_for_other_reasons_do_not_count(records: JobRepository) -> None:
    ends = [(EndKind.DRAINED, None), (EndKind.LOST, None), (EndKind.FAILED, StoreUnavailable("away"))]
    for kind, error in ends:
        number = records.claim(Stage.TRAIN, worker="w", max_attempts=1)
        records.end_attempt(Stage.TRAIN, number, kind, error)
    assert records.claim(Stage.TRAIN, worker="w", max_attempts=1) == 4


def test_attempts_are_counted_anew_after_each_progress(records: JobRepository) -> None:
    for position in (0, 10, 20):
        records.claim(Stage.TRAIN, worker="w", max_attempts=1, position=position)
    with pytest.raises(AttemptsExhausted):
        records.claim(Stage.TRAIN, worker="w", max_attempts=1, position=20)


class DeafStore(LocalStore):
    """A store that does what it is asked, but loses the answer to the next conditional write."""

    deaf = True

    def put_if_absent(self, key: str, data: bytes) -> bool:
        written = super().put_if_absent(key, data)
        if self.deaf:
            self.deaf = False
            raise StoreUnavailable("connection reset")
        return written


def test_a_commit_whose_answer_was_lost_is_still_ours(tmp_path: Path) -> None:
    records = JobRepository(DeafStore(tmp_path), "job-0001")
    with pytest.raises(StoreUnavailable):
        records.commit(marker(1))
    records.store.write(records.keys.output(Stage.TRAIN, 1, "adapter/x"), b"whole")
    records.discard_attempt(Stage.TRAIN, 1)
    assert records.store.exists(records.keys.output(Stage.TRAIN, 1, "adapter/x"))
    assert records.commit(marker(1))
    assert not records.commit(marker(2))


def test_a_claim_whose_answer_was_lost_is_still_ours(tmp_path: Path) -> None:
    records = JobRepository(DeafStore(tmp_path), "job-0001")
    with pytest.raises(StoreUnavailable):
        records.claim(Stage.TRAIN, worker="w", max_attempts=3, token="a")
    assert records.claim(Stage.TRAIN, worker="w", max_attempts=3, token="a") == 1
    assert records.claim(Stage.TRAIN, worker="w", max_attempts=3, token="b") == 2


def test_what_ended_the_attempts_is_told_when_there_are_no_more(records: JobRepository) -> None:
    number = records.claim(Stage.TRAIN, worker="w", max_attempts=1)
    records.end_attempt(Stage.TRAIN, number, EndKind.FAILED, OutOfMemory("No room for a tensor."))
    records.discard_attempt(Stage.TRAIN, number)
    with pytest.raises(AttemptsExhausted) as caught:
        records.claim(Stage.TRAIN, worker="w", max_attempts=1)
    assert str(caught.value.problems[0]) == "attempt 1 = 'OutOfMemory': No room for a tensor."
    assert [ending.retry for ending in records.endings(Stage.TRAIN)] == [Retry.SMALLER_BATCH]


def test_a_number_is_not_given_out_again_after_its_attempt_is_discarded(records: JobRepository) -> None:
    number = records.claim(Stage.TRAIN, worker="w", max_attempts=3)
    records.store.write(records.keys.output(Stage.TRAIN, number, "adapter/x"), b"half")
    records.discard_attempt(Stage.TRAIN, number)
    assert list(records.store.list(records.keys.attempts(Stage.TRAIN))) == [
        records.keys.claim(Stage.TRAIN, number)
    ]
    assert records.claim(Stage.TRAIN, worker="w", max_attempts=3) == number + 1


def test_the_first_commit_counts(records: JobRepository) -> None:
    assert records.commit(marker(1))
    assert not records.commit(marker(2))
    found = records.marker(Stage.TRAIN)
    assert found is not None
    assert found.attempt == 1


def test_a_job_ends_once(records: JobRepository) -> None:
    assert records.finish(Outcome.CANCELLED, reason="first")
    assert not records.finish(Outcome.SUCCEEDED)
    found = records.outcome()
    assert found is not None
    assert found.outcome is Outcome.CANCELLED


@pytest.mark.parametrize("job_id", ["../../etc", "a/b", "", "A-UPPER-CASE", "x" * 65, "a\nb-c-d-e"])
def test_ids_that_could_leave_the_store_are_refused(job_id: str, tmp_path: Path) -> None:
    with pytest.raises(ParameterError):
        JobRepository(LocalStore(tmp_path), job_id)


@pytest.mark.parametrize(
    "message",
    [
        {"job_id": "job-0001", "stage": "train", "extra": 1},
        {"job_id": "../../etc", "stage": "train"},
        {"job_id": "job-0001", "stage": "rm"},
        {"stage": "train"},
    ],
)
def test_a_forged_message_is_refused(message: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"StageMessage|Not a job id"):
        StageMessage.model_validate(message)
