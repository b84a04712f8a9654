"""Ranks divide a step among themselves, and each ends with the same gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nss_train.contract import Request, Stage
from nss_train.errors import StageLost
from nss_train.training.steps.micro_batches import Room
from nss_train.training.steps.reduction import add_over_ranks, dealt, smallest
from tests.unit.environment import run_without_devices

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
    """Run a stage of :mod:`rank_stages`."""
    run_without_devices(stage, folder, request_for(model), module="tests.unit.training.rank_stages")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> list[dict[str, Any]]:
    """Return what each of two ranks has after it added gradients and trained."""
    folder = tmp_path_factory.mktemp("ranks")
    run_two(Stage.TRAIN, folder, tiny_model)
    return [read(folder / f"{rank}.json") for rank in (0, 1)]


@pytest.mark.long
@pytest.mark.timeout(300)
def test_every_rank_gets_the_sum_of_all_gradients_and_the_smallest_room(both: list[dict[str, Any]]) -> None:
    assert both[0] == both[1]
    assert both[0]["gradients"] == [[[0.0, 3.0, 6.0], [9.0, 12.0, 15.0]], [0.5] * 4]
    assert both[0]["dtypes"] == ["torch.float32", "torch.bfloat16"]
    assert both[0]["parameter"] == [[0.0] * 3] * 2
    assert both[0]["room"] == [7, 100, 64]


@pytest.mark.long
@pytest.mark.timeout(300)
def test_ranks_with_unequal_numbers_of_micro_batches_train_as_one_process(
    both: list[dict[str, Any]], tmp_path: Path, tiny_model: Path
) -> None:
    """In the last step one rank has no row at all; with shared weights it takes part all the same."""
    alone = trained(tmp_path, request_for(tiny_model))
    reference = torch.tensor(alone["moved"])
    for kind in ("plain", "fsdp"):
        assert both[0][kind]["losses"] == pytest.approx(alone["losses"], rel=1e-6), kind
        assert len(both[0][kind]["losses"]) == 3
        moved = torch.tensor(both[0][kind]["moved"])
        assert (moved - reference).norm() <= 1e-4 * reference.norm(), kind


@pytest.mark.long
@pytest.mark.timeout(180)
def test_nobody_waits_for_the_gradients_of_a_rank_that_died(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(StageLost, match=r"Rank 1 ended by signal SIGKILL\."):
        run_two(Stage.SAVE_MODEL, tmp_path, tiny_model)
