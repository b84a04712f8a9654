"""The config: NSS's names, defaults, ranges and rules, and every problem at once."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nss_train.config import SafeSynthesizerParameters, parse_config
from nss_train.config.resolve import max_token_count, resolve
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
    ("data", "holdout", -0.1),
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
    resolved = resolve(parse_config(given_), pd.DataFrame({"a": range(rows)}))
    assert resolved.config.privacy is not None
    assert resolved.config.privacy.delta == delta
    assert resolved.config.training.learning_rate == 1e-4
    assert resolved.config.training.num_input_records_to_sample == 25_000
    assert all(choice.reason for choice in resolved.choices)
