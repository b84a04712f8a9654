"""An adapter that fits is known again by all that decides whether it fits, and by nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from nss_train.config import parse_config
from nss_train.stages import adapter_check
from nss_train.stages.adapter_check import adapter_shape


def shape(private: bool = False, **training: Any) -> str:
    sections = {"privacy": {"dp_enabled": True}, "guarantee": {"schema_source": "declared"}}
    return adapter_shape(parse_config({"training": training, **(sections if private else {})}))


@pytest.mark.parametrize("change", [{"lora_r": 8}, {"lora_target_modules": ["q_proj"]}, {"private": True}])
def test_what_changes_the_adapter_changes_its_shape(change: dict[str, Any]) -> None:
    assert shape(**change) != shape()


@pytest.mark.parametrize(
    "change", [{"learning_rate": 0.5}, {"batch_size": 7}, {"num_input_records_to_sample": 9}]
)
def test_what_only_concerns_the_steps_leaves_the_shape(change: dict[str, Any]) -> None:
    assert shape(**change) == shape()


def test_another_release_of_a_library_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    before = shape()
    monkeypatch.setattr(adapter_check, "version", lambda name: f"{name}-next")
    assert shape() != before
