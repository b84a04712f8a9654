"""The work of a training, and its cost."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import get_cosine_schedule_with_warmup

from nss_train.config import parse_config
from nss_train.cost.cost import FEW_STEPS, LONG_S, Cost
from nss_train.cost.pace import FORWARD_SHARE, Pace
from nss_train.cost.work import full_steps, longest_of, plain_work, private_work
from tests.unit.privacy.plans import plan

MODEL = {"hidden_size": 64, "num_hidden_layers": 4, "vocab_size": 1000, "num_attention_heads": 4}
PACE = Pace(before_s=3.0, step_s=0.5, token_s=0.01, width=100)


def cost(**known: Any) -> Cost:
    return Cost.model_validate({"steps": 100, "full_steps": 95.0, "tokens": 5000} | known)


@settings(max_examples=25)
@given(st.integers(1, 100), st.one_of(st.floats(0, 0.9), st.integers(1, 400).map(float)))
def test_full_steps_are_those_of_the_trainers_own_schedule(steps: int, warmup: float) -> None:
    warm = int(warmup) if warmup >= 1 else math.ceil(steps * warmup)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    # Without an end the cosine does not fall.
    schedule = get_cosine_schedule_with_warmup(optimizer, warm, num_training_steps=10**9)
    rates = []
    for _ in range(steps):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert full_steps(steps, warmup) == pytest.approx(sum(rates), abs=1e-3)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 500), min_size=2, max_size=30))
def test_padding_is_what_a_random_batch_is_padded_to(lengths: list[int]) -> None:
    drawn = np.random.default_rng(1).choice(lengths, (20_000, 4)).max(axis=1)
    spread = drawn.std() / math.sqrt(len(drawn))
    assert longest_of(np.asarray(lengths), 4) == pytest.approx(drawn.mean(), abs=6 * spread + 1e-6)


def test_steps_and_tokens_are_those_that_the_trainer_takes() -> None:
    training = parse_config(
        {"training": {"batch_size": 2, "gradient_accumulation_steps": 3, "validation_steps": 4}}
    ).training
    lengths = np.full(31, 10)
    work = plain_work(lengths, np.full(5, 20), training, prompt_tokens=4, context=2048)
    # 16 batches of 2 and 1, three to a step; validated after 4 steps and after the last one.
    assert (work.steps, work.tokens, work.longest_tokens) == (6, 310, 10)
    assert work.steps * work.rows_per_step == pytest.approx(31)
    assert (work.evaluated_rows, work.evaluated_tokens) == (10, 200)


def test_time_is_the_sum_of_its_parts() -> None:
    training = parse_config({"training": {"validation_ratio": 0.5}}).training
    work = plain_work(np.full(16, 100), np.full(16, 100), training, prompt_tokens=4, context=2048)
    expected = 3 + 2 * 0.5 + 0.01 * (1600 + FORWARD_SHARE * 1600)
    assert PACE.seconds(work, MODEL) == pytest.approx(expected)
    longer = plain_work(np.full(16, 1000), None, training, prompt_tokens=4, context=2048)
    assert PACE.seconds(longer, MODEL) > 3 + 2 * 0.5 + 0.01 * 16_000  # attention


def test_the_layers_that_were_not_tried_take_as_long_as_those_that_were() -> None:
    few, more = (Pace(before_s=0, step_s=s, token_s=t, width=9) for s, t in ((1, 0.1), (4, 0.4)))
    assert few.extended(more, 29 / 3).model_dump() == pytest.approx(
        {"before_s": 0, "step_s": 30, "token_s": 3, "width": 9}
    )
    noisy = few.extended(Pace(before_s=0, step_s=0.9, token_s=0.1, width=9), 10)
    assert (noisy.step_s, noisy.token_s) == (0.9, 0.1)


@pytest.mark.parametrize(
    ("units", "config", "rows", "row"),
    [
        (1000, {}, 8, 70),
        (250, {"guarantee": {"unit_column": "nest", "max_records_per_unit": 3}}, 24, 70),
        (250, {"data": {"group_training_examples_by": "nest"}}, 8, 190),
    ],
    ids=["records", "several records", "groups"],
)
def test_the_work_of_a_private_table_is_its_plan(
    units: int, config: dict[str, Any], rows: float, row: float
) -> None:
    private = parse_config({"privacy": {"dp_enabled": True}} | config)
    planned = plan(units=units, batch=8, steps=50)
    sizes = {"prompt_tokens": 30, "record_tokens": 40, "context": 2048}
    work = private_work(planned, private, **sizes, records_per_unit=1000 / units)
    assert (work.steps, work.rows_per_step, work.row_tokens) == (50, rows, row)
    assert work.tokens == 50 * rows * row


def test_a_training_that_is_all_warm_up_or_nearly_nothing_is_warned_of() -> None:
    (nothing,) = cost(steps=1, full_steps=0.0).warnings()
    assert nothing.startswith("1 optimizer step, all of them warm-up")
    assert "training.num_input_records_to_sample" in nothing
    (little,) = cost(steps=FEW_STEPS, full_steps=FEW_STEPS - 0.5).warnings()
    assert f"fewer than {FEW_STEPS} teach next to nothing" in little
    assert not list(cost(full_steps=float(FEW_STEPS)).warnings())


def test_hours_count_on_a_processor_alone() -> None:
    assert cost(seconds=LONG_S, device="cpu, 2 threads").is_long
    assert not cost(seconds=LONG_S, device="NVIDIA H100 80GB HBM3").is_long
    assert not cost(seconds=LONG_S - 1, device="cpu, 2 threads").is_long
    assert not cost().is_long


def test_what_a_newer_release_knows_of_a_cost_is_no_error_and_an_older_one_tells_none() -> None:
    newer = {"cost": cost().model_dump() | {"joules": 5}}
    assert Cost.among(newer) == cost()
    assert Cost.among({"rows": 3}) is None


def test_a_cost_is_told_in_one_line() -> None:
    assert str(cost()) == "100 steps, about 5,000 tokens, time not measured"
    known = cost(memory_bytes=3 * 2**29, seconds=12_900.0, device="cpu, 2 threads")
    assert str(known) == "100 steps, about 5,000 tokens, 1.5 GiB, about 3 h 35 min on cpu, 2 threads"
