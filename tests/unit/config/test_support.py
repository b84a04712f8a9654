"""Reasons for which a private training is refused before any work."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from nss_train.config import parse_config
from nss_train.config.support import unsupported_ranks, unsupported_training
from nss_train.data.auto_values import resolve_privately
from nss_train.errors import ParameterError

DP = {"dp_enabled": True}


def fields(**sections: Any) -> list[str]:
    return [problem.field for problem in unsupported_training(parse_config({"privacy": DP} | sections))]


def test_a_private_training_with_defaults_is_not_refused() -> None:
    assert fields() == []


def test_all_that_strict_forbids_is_named_at_once() -> None:
    found = fields(
        training={"validation_ratio": 0.1, "attn_implementation": "flash_attention_2"},
        guarantee={"schema_source": "raw", "unit_column": "who", "columns": {"a": {"categories": []}}},
        data={"group_training_examples_by": "family"},
    )
    assert found == [
        "training.validation_ratio",
        "guarantee.schema_source",
        "training.attn_implementation",
        "guarantee.unit_column",
        "guarantee.columns.a",
    ]


def test_what_is_not_strict_may_validate_and_show_its_schema() -> None:
    guarantee = {"strict": False, "schema_source": "raw"}
    assert fields(training={"validation_ratio": 0.1}, guarantee=guarantee) == []


def test_without_privacy_nothing_of_it_is_refused() -> None:
    config = parse_config({"training": {"validation_ratio": 0.1}, "guarantee": {"schema_source": "raw"}})
    assert unsupported_training(config) == ()


def test_a_validation_that_takes_all_records_is_refused() -> None:
    (problem,) = unsupported_training(parse_config({"training": {"validation_ratio": 1}}))
    assert (problem.field, problem.value) == ("training.validation_ratio", 1.0)


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({}, "set training.validation_ratio"),
        ({"training": {"validation_ratio": 0.1}}, None),
        ({"privacy": DP}, "a private training must not"),
        (
            {"privacy": DP, "guarantee": {"strict": False}, "training": {"validation_ratio": 0.1}},
            "a private training must not",
        ),
    ],
)
def test_a_schedule_that_goes_by_losses_needs_some(sections: dict[str, Any], says: str | None) -> None:
    training = sections.get("training", {}) | {"lr_scheduler": "reduce_lr_on_plateau"}
    problems = unsupported_training(parse_config(sections | {"training": training}))
    assert [problem.field for problem in problems] == ["training.lr_scheduler"] * (says is not None)
    assert all(str(says) in problem.remedy for problem in problems)


@pytest.mark.parametrize(
    ("ranks", "says"),
    [
        (0, None),
        (1, None),
        (4, None),
        (3, "must divide the effective batch of 8"),
        (-2, "use 0, which leaves"),
    ],
)
def test_ranks_that_cannot_share_a_batch_are_refused(ranks: int, says: str | None) -> None:
    remedies = [problem.remedy for problem in unsupported_ranks(ranks, effective_batch=8)]
    assert len(remedies) == (says is not None)
    assert all(remedy.startswith(str(says)) for remedy in remedies)


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ({"categories": []}, "allows no value"),
        ({"categories": ["a"], "minimum": 1}, "leave minimum and maximum out"),
        ({"minimum": 2, "maximum": 1}, "minimum must not be above maximum"),
    ],
)
def test_declarations_that_contradict_themselves_are_refused(column: dict[str, Any], says: str) -> None:
    config = parse_config({"privacy": DP, "guarantee": {"columns": {"c": column}}})
    assert [says in problem.remedy for problem in unsupported_training(config)] == [True]


def test_a_config_that_nss_refuses_too_learns_everything() -> None:
    given = {
        "privacy": DP,
        "data": {"max_sequences_per_example": 3},
        "time_series": {"is_timeseries": True, "timestamp_column": "t"},
        "training": {"validation_ratio": 0.2, "bogus": 1},
        "guarantee": {"schema_source": "raw"},
    }
    with pytest.raises(ParameterError) as caught:
        parse_config(given)
    assert {problem.field for problem in caught.value.problems} == {
        "training.bogus",
        "time_series.is_timeseries",
        "data.max_sequences_per_example",
        "training.validation_ratio",
        "guarantee.schema_source",
    }


def test_private_lengths_do_not_decide_on_the_context(caplog: pytest.LogCaptureFixture) -> None:
    given = {"privacy": DP, "training": {"pretrained_model": "TinyLlama-x"}}
    with caplog.at_level(logging.INFO):
        resolved = resolve_privately(parse_config(given))
    choice = next(c for c in resolved.choices if c.name == "training.rope_scaling_factor")
    assert choice.value == 1
    assert "may not decide" in choice.reason
    assert "longest record" not in caplog.text
    # One long record would change what fits into the examples of all others, strict or not.
    given["guarantee"] = {"strict": False}
    assert resolve_privately(parse_config(given)).choices == resolved.choices


@pytest.mark.parametrize("of", ["guarantee.unit_column", "data.group_training_examples_by"])
def test_values_of_a_column_are_not_counted_exactly(of: str) -> None:
    section, _, name = of.partition(".")
    given = {"privacy": DP, "guarantee": {"units": "rows"}}
    assert unsupported_training(parse_config(given)) == ()
    given[section] = given.get(section, {}) | {name: "patient"}
    (problem,) = unsupported_training(parse_config(given))
    assert (problem.field, problem.value) == ("guarantee.units", "rows")
    assert "counted with noise or declared" in problem.remedy
