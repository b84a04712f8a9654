"""The visible part of a strictly private job: what is listed, as it is listed, and nothing else."""

from __future__ import annotations

import math
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nss_train import errors
from nss_train.contract import TRAIN_STEP, Event, Stage
from nss_train.errors import (
    BudgetExceeded,
    DataError,
    DiskFull,
    NSSTrainError,
    OutOfMemory,
    ParameterError,
    Problem,
    StageLost,
    StoreUnavailable,
    public_facts,
)
from nss_train.privacy import observables
from nss_train.privacy.observables import INSIDE, LISTED, Kind, published
from tasks.jobs.gate import Gate, Unlisted

CELL = "Erika Mustermann, 1964-08-12"
SHUT = Gate(strict=True)
TESTED = Gate(strict=True, raises=True)
STEP = {"step": 3, "total_steps": 9, "epsilon": 0.51, "eta_s": 12.0}

values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(["a", []]))
fields = st.dictionaries(st.sampled_from([*STEP, "units_per_s", "rows", "drawn"]), values)


@given(fields)
def test_no_field_passes_that_is_not_listed_or_of_another_type(given_fields: dict[str, Any]) -> None:
    found = published(Kind.EVENT, TRAIN_STEP, given_fields)
    assert found is not None
    assert set(found.fields) | set(found.unlisted) == set(given_fields)
    assert set(found.fields) <= set(LISTED[Kind.EVENT][TRAIN_STEP])
    for name, value in found.fields.items():
        assert value is None or type(value) in ({int} if "step" in name else {int, float})
    assert published(Kind.EVENT, TRAIN_STEP, found.fields) == observables.Published(fields=found.fields)


@pytest.mark.parametrize("unlisted", [{"units_per_s": 3.5}, {"drawn": 7}, {"step": "4 of Erika"}])
def test_what_is_not_listed_is_left_out_and_named_in_one_line_of_the_log(
    unlisted: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    told = SHUT.event(Event(action=TRAIN_STEP, message=CELL, fields=STEP | unlisted))
    assert told is not None
    assert told.fields == {name: value for name, value in STEP.items() if name not in unlisted}
    (record,) = caplog.records
    assert next(iter(unlisted)) in record.message
    assert str(next(iter(unlisted.values()))) not in record.message


@pytest.mark.parametrize("raising", [{"units_per_s": 3.5}, {"step": "4"}])
def test_what_is_not_listed_is_an_error_where_it_is_tested(raising: dict[str, Any]) -> None:
    with pytest.raises(Unlisted, match=next(iter(raising))):
        TESTED.event(Event(action=TRAIN_STEP, fields=STEP | raising))


def test_an_event_is_told_in_words_made_of_its_listed_fields() -> None:
    told = SHUT.event(Event(action=TRAIN_STEP, message=CELL, fields=STEP))
    assert told is not None
    assert told.message == "step 3/9, ε ≤ 0.510"
    started = SHUT.event(Event(action="prepare.started", message=f"preparing {CELL}"))
    assert started is not None
    assert started.message == "prepare.started"


def test_an_unknown_event_is_not_told_at_all() -> None:
    assert SHUT.event(Event(action="train.drew", fields={"drawn": 7})) is None
    with pytest.raises(Unlisted, match=r"train\.drew"):
        TESTED.event(Event(action="train.drew"))


@given(st.floats(min_value=0, max_value=1e7))
def test_seconds_are_whole_minutes_never_fewer(seconds: float) -> None:
    for told in (
        SHUT.figures(Stage.TRAIN, {"seconds": seconds})["seconds"],
        SHUT.seconds("stage_seconds", seconds),
    ):
        assert told % 60 == 0
        assert max(seconds, 60) <= told <= 60 * math.ceil(seconds / 60) + 60


@given(
    st.floats(min_value=0, max_value=4e9),
    st.timedeltas(timedelta(), timedelta(3)),
)
def test_moments_are_whole_minutes_and_at_least_one_apart(epoch_s: float, took: timedelta) -> None:
    began = datetime.fromtimestamp(epoch_s, UTC)
    first, last = SHUT.began(began), SHUT.ended(began + took)
    assert (first.second, first.microsecond, last.second, last.microsecond) == (0, 0, 0, 0)
    assert first <= began <= began + took < last
    assert last - first >= timedelta(minutes=1)


@pytest.mark.parametrize("name", ["gpu_memory_bytes", "training_loss", "steps"])
def test_no_other_metric_measures_a_strictly_private_stage(name: str) -> None:
    assert SHUT.seconds(name, 5.0) is None


@pytest.mark.parametrize(
    ("stage", "private", "public"),
    [
        (
            Stage.PREPARE_DATA,
            ("train.arrow", "validation.arrow", "units.arrow", "statistics.json", "training.csv", "new.json"),
            ("config.json", "choices.json", "schema.json", "metadata.json", "privacy.json"),
        ),
        (Stage.TRAIN, ("drawn.json", "rng.pt"), ("adapter/adapter_model.safetensors", "log_history.json")),
        (
            Stage.SAVE_MODEL,
            ("dataset/training.csv", "train/x.csv"),
            ("manifest.json", "train/adapter/README.md"),
        ),
    ],
)
def test_files_are_private_unless_they_are_listed(
    stage: Stage, private: tuple[str, ...], public: tuple[str, ...]
) -> None:
    assert not [name for name in private if SHUT.is_published(stage, name)]
    assert [name for name in public if SHUT.is_published(stage, name)] == list(public)


def test_rows_of_a_table_lie_apart_in_jobs_without_privacy_too() -> None:
    opened = Gate()
    assert not opened.is_published(Stage.PREPARE_DATA, "train.arrow")
    assert opened.is_published(Stage.SAVE_MODEL, "dataset/training.csv")


QUOTING = [
    DataError(f"Row 17: {CELL}", [Problem(field="row 17", value=CELL, remedy=CELL)]),
    ParameterError(CELL),
    NSSTrainError(f"Unexpected KeyError: {CELL}"),
    OutOfMemory(f"Out of memory: {CELL}"),
]


@pytest.mark.parametrize("error", QUOTING, ids=lambda error: type(error).__name__)
def test_an_error_that_may_speak_of_the_table_says_only_where_its_reason_is(error: NSSTrainError) -> None:
    told = SHUT.error(error, Stage.PREPARE_DATA, reason="job-1.prepare_data.1")
    assert errors.to_json(told) == {
        "type": "NSSTrainError",
        "message": f"{INSIDE} (job-1.prepare_data.1).",
        "problems": [],
    }


@pytest.mark.parametrize("kind", [StageLost, StoreUnavailable, DiskFull])
def test_a_lost_service_is_named_by_its_kind_alone(kind: type[NSSTrainError]) -> None:
    told = SHUT.error(kind(f"killed; its last words: {CELL}"), Stage.TRAIN, reason="job-1.train.2")
    assert type(told) is kind
    assert told.retry is kind.retry
    assert CELL not in str(told)


def test_public_facts_are_told_as_they_are() -> None:
    with pytest.raises(DataError) as caught, public_facts():
        raise DataError("The table has no such column.", [Problem(field="age", value=None, remedy="x")])
    here = errors.from_json(errors.to_json(caught.value))
    assert SHUT.error(here, Stage.PREPARE_DATA, reason="r") is here
    assert pickle.loads(pickle.dumps(here)).public  # noqa: S301 (our own)
    for error in (BudgetExceeded("too much"), ParameterError("this layer couples rows")):
        assert SHUT.error(error, Stage.TRAIN, reason="r") is error


def test_without_strict_privacy_everything_is_told() -> None:
    opened, event = Gate(), Event(action="train.drew", message=CELL, fields={"drawn": 7})
    assert opened.event(event) is event
    assert opened.figures(Stage.TRAIN, {"rows": 3}) == {"rows": 3}
    assert opened.error(QUOTING[0], None, reason="r") is QUOTING[0]
