"""Ranks divide a step among themselves, and each ends with the same gradient."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nss_train.contract import Request, Stage
from nss_train.errors import StageLost
from nss_train.training.micro_batches import Room
from nss_train.training.reduction import add_over_ranks, dealt, smallest
from tasks.execution.supervisor import Limits, run_child

from .conftest import make_request, read
from .rank_stages import parameters, trained

LENGTHS = st.lists(st.integers(1, 4_000), max_size=40)


@given(lengths=LENGTHS, ranks=st.integers(1, 9))
def test_each_row_is_dealt_once_and_no_rank_has_a_row_too_many(lengths: list[int], ranks: int) -> None:
    shares = dealt(lengths, ranks)
    assert sorted(number for share in shares for number in share) == list(range(len(lengths)))
    tokens = [sum(lengths[number] for number in share) for share in shares]
    for share, mine in zip(shares, tokens, strict=True):
        # Without its last and shortest row, a rank has no more than any other.
        assert mine - min((lengths[number] for number in share), default=0) <= min(tokens)


def test_a_single_rank_has_every_row_with_the_longest_first() -> None:
    assert dealt([3, 9, 3, 5], 1) == [[1, 3, 0, 2]]


def test_one_process_exchanges_nothing() -> None:
    mine = parameters(1)
    add_over_ranks(mine)
    assert mine[1].grad is None
    assert smallest(Room(rows=3, tokens=9)) == Room(rows=3, tokens=9)


def request_for(model: Path) -> Request:
    """Return a request for steps of four examples, one at a time."""
    return make_request(
        model, batch_size=1, gradient_accumulation_steps=4, learning_rate=0.01, warmup_steps=0.0
    )


def run_two(stage: Stage, folder: Path, model: Path) -> None:
    """Run a stage of :mod:`rank_stages`, whose two ranks cannot share a CUDA device."""
    (folder / "request.json").write_text(request_for(model).model_dump_json())
    run_child(
        stage,
        folder,
        on_event=lambda _event: None,
        on_tick=lambda: None,
        limits=Limits(tick_s=0.1),
        environment=dict(os.environ) | {"CUDA_VISIBLE_DEVICES": ""},
        module="tests.unit.training.rank_stages",
    )


def test_every_rank_gets_the_sum_of_all_gradients_and_the_smallest_room(
    tmp_path: Path, tiny_model: Path
) -> None:
    run_two(Stage.TRAIN, tmp_path, tiny_model)
    first, second = (read(tmp_path / f"{rank}.json") for rank in (0, 1))
    assert first == second
    assert first["gradients"] == [[[0.0, 3.0, 6.0], [9.0, 12.0, 15.0]], [0.5] * 4]
    assert first["dtypes"] == ["torch.float32", "torch.bfloat16"]
    assert first["parameter"] == [[0.0] * 3] * 2
    assert first["room"] == [7, 100, 64]


@pytest.mark.timeout(300)
def test_ranks_with_unequal_numbers_of_micro_batches_train_as_one_process(
    tmp_path: Path, tiny_model: Path
) -> None:
    """In the last step one rank has no row at all; with shared weights it takes part all the same."""
    alone = trained(tmp_path, request_for(tiny_model))
    run_two(Stage.LOAD_MODEL, tmp_path, tiny_model)
    first, second = (read(tmp_path / f"{rank}.json") for rank in (0, 1))
    for kind in ("plain", "fsdp"):
        assert first[kind]["losses"] == pytest.approx(alone["losses"], rel=1e-6), kind
        assert len(first[kind]["losses"]) == 3
        moved, reference = torch.tensor(first[kind]["moved"]), torch.tensor(alone["moved"])
        assert (moved - reference).norm() <= 1e-4 * reference.norm(), kind
        assert first[kind]["moved"] == second[kind]["moved"], kind


@pytest.mark.timeout(180)
def test_nobody_waits_for_the_gradients_of_a_rank_that_died(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(StageLost, match=r"Rank 1 ended by signal SIGKILL\."):
        run_two(Stage.SAVE_MODEL, tmp_path, tiny_model)
