"""Every field of a submitted config has bounds; what an older release stored is read without them."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from enum import Enum
from typing import Any

import annotated_types as at
import pytest
from pydantic import BaseModel

from nss_train.config import SafeSynthesizerParameters, parse_config, parse_resolved
from nss_train.config.bounds import AtMost, Within
from nss_train.config.support import unsupported_training
from nss_train.errors import MOST_PROBLEMS, ParameterError


def leaves(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, Any, list[Any]]]:
    """Yield each type that a field may have, with the bounds on its size."""
    for name, field in model.model_fields.items():
        yield from _leaves(field.annotation, list(field.metadata), f"{path}{name}")


def _leaves(kind: Any, said: list[Any], path: str) -> Iterator[tuple[str, Any, list[Any]]]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        inner, *more = arguments
        yield from _leaves(inner, [*said, *(one for each in more for one in _flat(each))], path)
    elif origin in (typing.Union, types.UnionType):
        for one in arguments:
            yield from _leaves(one, said, path)
    elif origin in (list, tuple, dict):
        yield path, origin, said
        for one in arguments:
            yield from _leaves(one, [], f"{path}[]")
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        yield from leaves(kind, f"{path}.")
    elif isinstance(kind, type) and not issubclass(kind, Enum | bool):
        yield path, kind, said


def _flat(said: Any) -> list[Any]:
    return [said, *getattr(said, "metadata", ())]


ALL = list(leaves(SafeSynthesizerParameters))


@pytest.mark.parametrize(("path", "kind", "said"), ALL, ids=[f"{p}-{k.__name__}" for p, k, _ in ALL])
def test_a_field_has_bounds(path: str, kind: type, said: list[Any]) -> None:
    if kind in (int, float):
        within = any(isinstance(one, Within) for one in said)
        low = any(isinstance(one, at.Ge | at.Gt) for one in said)
        high = any(isinstance(one, at.Le | at.Lt) for one in said)
        assert within or (low and high), path
    elif kind in (str, list, tuple, dict):
        pattern = any(getattr(one, "pattern", None) for one in said)
        assert pattern or any(isinstance(one, AtMost) for one in said), path


def test_the_walk_sees_the_fields_that_it_is_there_for() -> None:
    paths = {path for path, _, _ in ALL}
    assert {"training.lora_r", "guarantee.columns[].minimum", "data.max_sequences_per_example"} <= paths
    assert len(paths) > 60


TOO_MUCH = {
    "training": {
        "num_input_records_to_sample": 10**9,
        "lora_r": 10**9,
        "rope_scaling_factor": 10**9,
        "batch_size": 10**9,
        "lora_target_modules": ["x"] * 2_000,
        "pretrained_model": "x" * 5_000,
    },
    "privacy": {"epsilon": 1e6, "per_sample_max_grad_norm": 1e30},
    "guarantee": {"audit_canaries": 10**10, "columns": {"x": {"categories": ["a"] * 20_000}}},
}


def test_what_costs_too_much_is_refused_with_every_reason_at_once() -> None:
    with pytest.raises(ParameterError) as caught:
        parse_config(TOO_MUCH)
    assert {problem.field for problem in caught.value.problems} == {
        *(f"training.{name}" for name in TOO_MUCH["training"]),
        *(f"privacy.{name}" for name in TOO_MUCH["privacy"]),
        "guarantee.audit_canaries",
        "guarantee.columns.x.categories",
    }


def test_a_stored_config_of_an_older_release_is_read_whatever_it_asks_for() -> None:
    read = parse_resolved({"training": {"num_input_records_to_sample": 10**9, "lora_r": 10**9}})
    assert read.training.lora_r == 10**9


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"training": {"num_input_records_to_sample": 10**8}}, "training.num_input_records_to_sample"),
        ({"training": {"batch_size": 60_000, "gradient_accumulation_steps": 60_000}}, "training.batch_size"),
        ({"privacy": {"dp_enabled": True, "delta": 1e-300}}, "privacy.delta"),
        ({"privacy": {"dp_enabled": True, "epsilon": 1e-30}}, "privacy.epsilon"),
        (
            {"privacy": {"dp_enabled": True, "per_sample_max_grad_norm": 1e-44}},
            "privacy.per_sample_max_grad_norm",
        ),
        ({"privacy": {"dp_enabled": True}, "guarantee": {"schema_share": 1e-300}}, "guarantee.schema_share"),
    ],
)
def test_what_no_training_can_be_is_refused_at_submission(config: dict[str, Any], field: str) -> None:
    try:
        problems = unsupported_training(parse_config(config))
    except ParameterError as error:  # before anything else is done with it
        problems = error.problems
    assert [problem.field for problem in problems] == [field]


@pytest.mark.parametrize("depth", [33, 100, 480, 1_000])
def test_a_deep_config_is_refused_by_name(depth: int) -> None:
    value: Any = 0
    for _ in range(depth):
        value = {"a": value}
    with pytest.raises(ParameterError) as caught:
        parse_config({"replace_pii": value, "training": {"bogus": 1}})
    assert [problem.field for problem in caught.value.problems] == ["replace_pii.a", "training.bogus"]


def test_a_config_that_an_alias_unfolds_is_refused() -> None:
    lists: Any = [0] * 10
    for _ in range(9):
        lists = [lists] * 10
    with pytest.raises(ParameterError) as caught:
        parse_config({"replace_pii": {"x": lists}})
    assert "more than 50,000 values" in caught.value.problems[0].remedy


def test_a_refusal_lists_fifty_problems_and_counts_the_rest() -> None:
    with pytest.raises(ParameterError) as caught:
        parse_config({f"k{number}": "x" * 10_000 for number in range(4_000)})
    *listed, more = caught.value.problems
    assert len(listed) == MOST_PROBLEMS
    assert more.value == 4_000 - MOST_PROBLEMS
    assert len(str(caught.value)) < 100_000


@pytest.mark.parametrize("ignored", [False, True])
def test_a_section_with_more_names_than_any_has_is_one_problem(ignored: bool) -> None:
    given = {"training": {f"k{number}": 0 for number in range(4_000)}, "data": {"holdout": -1}}
    with pytest.raises(ParameterError) as caught:
        parse_config(given | ({"unknown_fields": "ignore"} if ignored else {}))
    training, holdout = caught.value.problems
    assert (training.field, training.value) == ("training", "4,000 names")
    assert "learning_rate" in training.remedy
    assert holdout.field == "data.holdout"


def test_an_unknown_section_with_too_many_names_is_one_problem() -> None:
    with pytest.raises(ParameterError) as caught:
        parse_config({"of_another_program": {f"k{number}": 0 for number in range(5_001)}})
    assert [problem.field for problem in caught.value.problems][:1] == ["of_another_program"]


def test_a_slip_gets_a_hint() -> None:
    slips = {"lora_rr": 8, "learning_rat": 1e-4} | {f"k{number}": 0 for number in range(100)}
    with pytest.raises(ParameterError) as caught:
        parse_config({"training": slips})
    assert "did you mean training.lora_r?" in caught.value.problems[0].remedy
    assert "did you mean training.learning_rate?" in caught.value.problems[1].remedy
