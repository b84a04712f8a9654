"""Several processes take a step together: as one would, with one noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from scipy import stats

from nss_train.contract import Request, Stage
from tests.unit.environment import run_without_devices

from .conftest import PrivateRun, private_request
from .rank_stages import CLIP, COORDINATES, DEVIATION

FALSE_ALARM = 1e-4


def run_stage(stage: Stage, folder: Path, request: Request) -> None:
    run_without_devices(stage, folder, request, module="tests.unit.privacy.rank_stages")


def test_without_noise_ranks_give_the_bits_that_one_process_gives(
    private_run: Callable[..., PrivateRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the order of additions in a matrix product depends on it
    adapters: dict[int, dict[str, torch.Tensor]] = {}
    for ranks in (1, 2):
        run = private_run(str(ranks), ranks=ranks)
        # Every unit takes part in every step: the draw is no matter of chance.
        run.replan(noise_multiplier=0.0, sampling_rate=1.0, batch=run.plan.units, steps=3)
        run_stage(Stage.TRAIN, run.folder, run.request)
        adapters[ranks] = load_file(run.folder / "out" / "adapter" / "adapter_model.safetensors")
    for name, weight in adapters[1].items():
        assert torch.equal(adapters[2][name], weight), name


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("release")
    (folder / "out").mkdir()
    request = private_request(tiny_model).model_copy(update={"ranks": 2})
    run_stage(Stage.SAVE_MODEL, folder, request)
    return [torch.load(folder / "out" / f"{rank}.pt") for rank in (0, 1)]


def test_noise_is_added_once_and_every_rank_gets_the_same(released: list[dict[str, Any]]) -> None:
    first, second = (one["released"] for one in released)
    assert torch.equal(first, second)
    spread = float((first.double() ** 2).sum()) / (DEVIATION * CLIP) ** 2
    assert FALSE_ALARM < stats.chi2(COORDINATES).sf(spread) < 1 - FALSE_ALARM, spread / COORDINATES


def test_every_rank_is_told_the_same_units(released: list[dict[str, Any]]) -> None:
    first, second = (one["drawn"] for one in released)
    assert torch.equal(first, second)
    assert 200 < len(first) < 400
