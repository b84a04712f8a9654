"""The config: NSS's names, defaults, ranges and rules, and every problem at once."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel
from torch import nn, optim
from transformers import SchedulerType, get_scheduler

from nss_train.config import SafeSynthesizerParameters, load_resolved, parse_config
from nss_train.config.ignored import ignored
from nss_train.config.sections.guarantee import PublicColumn
from nss_train.config.sections.reading import ColumnReading, column_setting
from nss_train.config.sections.training import LOSS_SCHEDULES, SCHEDULES, UNFINISHED_SCHEDULES
from nss_train.data.auto_values import max_token_count, resolve_delta, resolve_privately
from nss_train.errors import ParameterError

WRONG: list[tuple[str, str, Any]] = [
    ("training", "num_input_records_to_sample", -1),
    ("training", "batch_size", 0),
    ("training", "batch_size", 8.5),
    ("training", "weight_decay", 0),
    ("training", "weight_decay", 1),
    ("training", "warmup_steps", 2.5),
    ("training", "learning_rate", 0),
    ("training", "lora_r", 0),
    ("training", "lora_alpha_over_r", 0.4),
    ("training", "rope_scaling_factor", None),
    ("training", "quantization_scheme", "int3"),
    ("training", "validation_ratio", 1.1),
    ("training", "lr_scheduler", "cosin"),
    ("data", "holdout", -0.1),
    ("data", "max_sequences_per_example", -1),
    ("data", "order_training_examples_by", "when"),
    ("privacy", "epsilon", 0),
    ("privacy", "delta", 1),
    ("time_series", "timestamp_interval_seconds", 0),
    ("generation", "top_p", 0),
]


@pytest.mark.parametrize(("section", "name", "value"), WRONG)
def test_a_wrong_value_is_named_with_its_field(section: str, name: str, value: Any) -> None:
    with pytest.raises(ParameterError) as caught:
        parse_config({section: {name: value}})
    assert [p.field for p in caught.value.problems] == [f"{section}.{name}"]


def test_all_wrong_values_and_unknown_keys_are_reported_at_once() -> None:
    config: dict[str, Any] = {"nope": 1, "training": {"bogus": 2}}
    for section, name, value in WRONG:
        config.setdefault(section, {})[name] = value
    with pytest.raises(ParameterError) as caught:
        parse_config(config)
    fields = {f"{section}.{name}" for section, name, _ in WRONG} | {"nope", "training.bogus"}
    assert {p.field for p in caught.value.problems} == fields


def test_unknown_keys_can_be_ignored() -> None:
    assert parse_config({"unknown_fields": "ignore", "training": {"bogus": 1}}).training.lora_r == 32


@pytest.mark.parametrize(("given_", "expected"), [("auto", 1), (None, 1), (1, 1)])
def test_privacy_means_one_sequence_per_example(given_: Any, expected: int) -> None:
    config = {"privacy": {"dp_enabled": True}, "data": {"max_sequences_per_example": given_}}
    assert parse_config(config).data.max_sequences_per_example == expected


def test_privacy_refuses_more_sequences_and_time_series() -> None:
    with pytest.raises(ParameterError, match="must be 1, 'auto', or None"):
        parse_config({"privacy": {"dp_enabled": True}, "data": {"max_sequences_per_example": 3}})
    series = {"is_timeseries": True, "timestamp_column": "t"}
    with pytest.raises(ParameterError, match="not supported in time-series mode"):
        parse_config({"privacy": {"dp_enabled": True}, "time_series": series})


def test_warmup_ratio_stands_in_for_warmup_steps_unless_both_are_given() -> None:
    assert parse_config({"training": {"warmup_ratio": 0.2}}).training.warmup_steps == 0.2
    assert parse_config({"training": {"warmup_ratio": 0.2, "warmup_steps": 3}}).training.warmup_steps == 3


def test_a_random_state_is_drawn_once_and_stays() -> None:
    drawn = {parse_config({}).data.random_state for _ in range(8)}
    assert len(drawn) > 1
    config = parse_config({})
    assert parse_config(config.model_dump()).data.random_state == config.data.random_state


@given(
    lora_r=st.integers(1, 256),
    holdout=st.floats(0, 0.9),
    epsilon=st.floats(0.1, 100),
    sequences=st.one_of(st.none(), st.integers(0, 50)),
)
def test_a_dump_loads_back_equal(lora_r: int, holdout: float, epsilon: float, sequences: int | None) -> None:
    config = parse_config(
        {
            "training": {"lora_r": lora_r},
            "data": {"holdout": holdout, "max_sequences_per_example": sequences},
            "privacy": {"epsilon": epsilon},
        }
    )
    assert parse_config(config.model_dump(mode="json")) == config
    assert SafeSynthesizerParameters.model_validate_json(config.model_dump_json()) == config


def test_the_token_estimate_is_the_reference_s() -> None:
    frame = pd.DataFrame({"id": [1, 2, 3], "name": ["Ann", "Bob", "Zoë"], "score": [0.5, None, 2.25]})
    assert max_token_count(frame) == 67.125
    assert max_token_count(pd.DataFrame({"a": ["x" * 100_000]})) == 25044.625


@pytest.mark.parametrize(("rows", "delta"), [(50, 0.1 / 50), (1000, 1 / 1000**1.2)])
def test_automatic_values_carry_a_reason(rows: int, delta: float) -> None:
    privacy = {"dp_enabled": True, "delta": "nss"}
    given_ = {"privacy": privacy, "training": {"pretrained_model": "Mistral-x"}}
    resolved = resolve_delta(resolve_privately(parse_config(given_)), units=rows)
    assert resolved.config.privacy is not None
    assert resolved.config.privacy.delta == delta
    assert resolved.config.training.learning_rate == 1e-4
    assert resolved.config.training.num_input_records_to_sample == 25_000
    assert all(choice.reason for choice in resolved.choices)


def floats(section: type[BaseModel], path: str = "") -> Iterator[str]:
    """Yield the dotted name of every number with a fraction in the config."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from floats(field.annotation, f"{path}{name}.")
        elif "float" in str(field.annotation):
            yield f"{path}{name}"


FLOATS = [*floats(SafeSynthesizerParameters), "privacy.epsilon", "privacy.delta"]


def nested(path: str, value: Any) -> Any:
    first, _, rest = path.partition(".")
    return {first: nested(rest, value) if rest else value}


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("path", FLOATS)
def test_what_json_has_no_number_for_is_refused(path: str, value: float) -> None:
    with pytest.raises(ParameterError) as caught:
        parse_config(nested(path, value))
    (problem,) = caught.value.problems
    assert (problem.field, repr(problem.value)) == (path, repr(value))
    assert "finite number" in problem.remedy


def test_the_numbers_that_a_stored_job_would_lose_are_among_them() -> None:
    assert {"data.holdout", "generation.temperature", "training.learning_rate"} <= set(FLOATS)


@pytest.mark.parametrize(
    "column", [{"maximum": math.inf}, {"minimum": -math.inf}, {"categories": ["a", math.nan]}]
)
def test_a_declared_column_has_finite_bounds_and_categories(column: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=r"guarantee\.columns = .*: .*finite number"):
        parse_config({"guarantee": {"columns": {"c": column}}})
    assert PublicColumn(categories=("a", None, 1.5)).categories == ("a", None, 1.5)


def test_the_schedules_are_those_of_transformers() -> None:
    known = [*SCHEDULES, *UNFINISHED_SCHEDULES]
    assert sorted(known) == sorted(one.value for one in SchedulerType)


@pytest.mark.parametrize("name", [one.value for one in SchedulerType])
def test_a_schedule_is_refused_if_a_config_cannot_complete_it(name: str) -> None:
    optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    if name in SCHEDULES:
        parse_config({"training": {"lr_scheduler": name}})
        get_scheduler(name, optimizer, num_warmup_steps=1, num_training_steps=3)
    else:
        with pytest.raises(ParameterError, match="needs arguments that a config has no place for; .* linear"):
            parse_config({"training": {"lr_scheduler": name}})
        if name == "greedy":  # never lower than the rates that are chosen automatically
            assert min(get_scheduler(name, optimizer).min_lrs) > 5e-4  # type: ignore[attr-defined]
            return
        with pytest.raises((TypeError, ValueError)):
            get_scheduler(name, optimizer, num_warmup_steps=1, num_training_steps=3)


def test_a_schedule_with_a_typo_gets_the_closest_name_and_all_others() -> None:
    with pytest.raises(ParameterError) as caught:
        parse_config({"training": {"lr_scheduler": "cosine_with_restart"}})
    (problem,) = caught.value.problems
    assert "did you mean cosine_with_restarts?" in problem.remedy
    assert all(name in problem.remedy for name in SCHEDULES)
    assert set(LOSS_SCHEDULES) < set(SCHEDULES)


@pytest.mark.parametrize("scheme", ["fp8", "nvfp4", "mxfp4"])
def test_a_scheme_that_nothing_can_be_trained_on_is_refused(scheme: str) -> None:
    with pytest.raises(ParameterError) as caught:
        parse_config({"training": {"quantize_model": True, "quantization_scheme": scheme}})
    (problem,) = caught.value.problems
    assert (problem.field, problem.value) == ("training.quantization_scheme", scheme)
    assert "use bnb-4bit or bnb-8bit" in problem.remedy
    assert parse_config({"training": {"quantization_scheme": scheme}}).training.quantization_scheme == scheme


@pytest.mark.parametrize(
    ("section", "stored"),
    [
        ("training", {"lr_scheduler": "cosine_with_min_lr"}),
        ("training", {"lr_scheduler": "cosin"}),
        ("training", {"quantize_model": True, "quantization_scheme": "fp8"}),
        ("data", {"max_sequences_per_example": -1}),
    ],
)
def test_what_older_releases_took_is_still_read_where_it_is_stored(
    section: str, stored: dict[str, Any], tmp_path: Path
) -> None:
    document = {section: stored}
    read = SafeSynthesizerParameters.model_validate_json(json.dumps(document))
    assert stored.items() <= read.model_dump(mode="json")[section].items()
    file = tmp_path / "in" / "prepare_data" / "config.json"
    file.parent.mkdir(parents=True)
    file.write_text(read.model_dump_json())
    assert load_resolved(tmp_path) == read


@pytest.mark.parametrize("value", [0, None])
def test_no_limit_of_sequences_is_written_as_in_nss(value: int | None) -> None:
    given_ = {"data": {"max_sequences_per_example": value}}
    assert parse_config(given_).data.max_sequences_per_example == value


@pytest.mark.parametrize(("given_", "warnings"), [({"steps": []}, 1), (None, 0)])
def test_pii_that_nobody_will_replace_is_warned_of_once(given_: dict[str, Any] | None, warnings: int) -> None:
    config = parse_config({"replace_pii": given_})
    said = list(ignored(config))
    assert len(said) == warnings
    assert all("Replace PII before you submit, and set replace_pii: null" in words for words in said)
    assert config.as_nss()["replace_pii"] == given_


@given(st.text(st.characters(exclude_categories=("Cc", "Cn", "Cs", "Zl", "Zp")), max_size=12))
@example("a\nb")
@example("2012")
@example("yes")
@example("2024-13-45")
@example("a: b")
def test_what_a_remedy_says_of_a_column_is_what_yaml_reads(name: str) -> None:
    said = column_setting(name, ColumnReading.DROP).removeprefix("reading.")
    assert yaml.safe_load(said) == {"columns": {name: "drop"}}
