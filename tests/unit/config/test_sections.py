"""Each section of a config has its own rules, which hold without the others."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from nss_train.config.passthrough import GenerateParameters, TimeSeriesEvaluation
from nss_train.config.sections.data import DataParameters
from nss_train.config.sections.section import SUBMITTED
from nss_train.config.sections.time_series import TimeSeriesParameters


def test_the_seed_of_the_holdout_is_drawn_when_it_is_absent_and_kept_when_it_is_given() -> None:
    drawn = {DataParameters.model_validate(given).random_state for given in [{}, {"random_state": None}] * 8}
    assert len(drawn) > 1
    assert all(0 <= seed <= 1_000_000 for seed in drawn)
    assert DataParameters.model_validate({"random_state": 0}).random_state == 0


def test_an_order_needs_a_group() -> None:
    with pytest.raises(ValidationError, match="requires group_training_examples_by"):
        DataParameters.model_validate({"order_training_examples_by": "day"})


def test_no_sequences_are_no_limit_and_fewer_are_refused_of_submissions_only() -> None:
    assert DataParameters.model_validate({"max_sequences_per_example": 0}).max_sequences_per_example == 0
    stored = {"max_sequences_per_example": -1}
    assert DataParameters.model_validate(stored).max_sequences_per_example == -1
    with pytest.raises(ValidationError, match="must be 1 or more"):
        DataParameters.model_validate(stored, context=SUBMITTED)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"is_timeseries": True}, "At least one of timestamp_column"),
        ({"timestamp_column": "day"}, "only be set when is_timeseries is True"),
        ({"timestamp_interval_seconds": 60}, "only be set when is_timeseries is True"),
    ],
)
def test_timestamps_belong_to_a_time_series(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        TimeSeriesParameters.model_validate(given)


@pytest.mark.parametrize(
    "given", [{"top_p": 0}, {"top_p": 1.1}, {"patience": 0}, {"max_tokens_multiplier": float("inf")}]
)
def test_parameters_of_generation_have_the_ranges_of_nss(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GenerateParameters.model_validate(given)
    assert GenerateParameters().num_records == 1000
    assert TimeSeriesEvaluation().enabled is None
