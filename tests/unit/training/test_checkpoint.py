"""Training that stops and resumes, and training by several ranks, each in processes of its own."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed import DistError

from nss_train import errors
from nss_train.contract import (
    CHECKPOINT_SAVED,
    CHECKPOINTS,
    DRAIN,
    CheckpointPolicy,
    Event,
    StageResult,
)
from nss_train.errors import DiskFull, GenerationError, NSSTrainError, OutOfMemory, ParameterError, StageLost
from nss_train.training import arguments as arguments_module
from nss_train.training.arguments import training_arguments
from nss_train.training.ranks import group as ranks_module
from nss_train.training.ranks.group import choose_ranks
from nss_train.training.ranks.sharing import check_sharing
from tasks.execution.processes.hosts import Hosts
from tasks.execution.processes.supervisor import StageStopped, StopReason

from .conftest import load, make_request, read, run_options
from .runs import EVERY_STEP, MakeRun, Run, runs_of, wanted


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Make the inputs of a train stage."""
    return load(tmp_path_factory.mktemp("prepared"), wanted(tiny_model))


@pytest.fixture
def run(prepared: Path, tiny_model: Path, tmp_path: Path) -> MakeRun:
    return runs_of(tiny_model, prepared, tmp_path)


@pytest.fixture(scope="module")
def whole_of(
    prepared: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], Run]:
    """Return a function that gives the undisturbed run of so many ranks, trained once for the module."""
    make = runs_of(tiny_model, prepared, tmp_path_factory.mktemp("whole"))

    @cache
    def whole_of(ranks: int) -> Run:
        run = make(str(ranks), ranks=ranks)
        run.start()
        return run

    return whole_of


def test_a_drained_training_goes_on_bit_for_bit(run: MakeRun, whole_of: Callable[[int], Run]) -> None:
    whole = whole_of(1)
    first = run("first", checkpoints=CheckpointPolicy())

    def drain_after_two(event: Event) -> None:
        if event.fields.get("step") == 2:
            (first.folder / DRAIN).touch()

    with pytest.raises(StageStopped) as stopped:
        first.start(drain_after_two)
    assert stopped.value.reason is StopReason.DRAINED
    (kept,) = (e.fields for e in first.events if e.action == CHECKPOINT_SAVED)
    assert kept["step"] in (2, 3)
    second = run("second", checkpoint=first.folder / CHECKPOINTS / str(kept["step"]))
    second.start()
    steps = [e.fields["step"] for e in second.events if e.action == "train.step"]
    assert steps[0] == kept["step"] + 1
    assert second.adapter == whole.adapter
    assert second.history == whole.history
    assert any("eval_loss" in entry for entry in whole.history)


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_training_in_a_forked_process_gives_the_same_bits(
    run: MakeRun, whole_of: Callable[[int], Run], warm: Hosts, ranks: int
) -> None:
    new, forked = whole_of(ranks), run("forked", ranks=ranks)
    forked.start(hosts=warm)
    assert forked.adapter == new.adapter
    assert forked.history == new.history


def test_ranks_share_a_batch_and_give_the_same_curve(whole_of: Callable[[int], Run], long: bool) -> None:
    several = (2, 4) if long else (2,)
    runs = {ranks: whole_of(ranks) for ranks in (1, *several)}
    for ranks in several:
        assert runs[ranks].losses == pytest.approx(runs[1].losses, abs=1e-6), ranks
        evaluated = [[e["eval_loss"] for e in runs[n].history if "eval_loss" in e] for n in (1, ranks)]
        assert evaluated[1] == pytest.approx(evaluated[0], abs=1e-5)


def test_the_death_of_a_rank_ends_its_group_and_is_the_cause(run: MakeRun) -> None:
    group = run("group", ranks=2, checkpoints=EVERY_STEP)
    killed_at: list[float] = []

    def kill_rank_1(event: Event) -> None:
        if event.fields.get("step") == 3 and not killed_at:
            os.kill(ranks_of(group.folder)[1].pid, signal.SIGKILL)
            killed_at.append(time.monotonic())

    with pytest.raises(StageLost, match="Rank 1 ended by signal SIGKILL"):
        group.start(kill_rank_1)
    assert time.monotonic() - killed_at[0] < 10
    assert not ranks_of(group.folder)
    kept = [e.fields["step"] for e in group.events if e.action == CHECKPOINT_SAVED]
    resumed = run("resumed", ranks=2, checkpoint=group.folder / CHECKPOINTS / str(kept[-1]))
    resumed.start()
    assert resumed.losses


RANK_1_FINDS_THE_DISK_FULL = """
import errno, os, sys, time
from pathlib import Path
from nss_train import errors
from nss_train.contract import Request
from nss_train.training.ranks.group import launch

def stage(folder, request, *, report):
    if os.environ["RANK"] == "1":
        raise OSError(errno.ENOSPC, "No space left on device")
    time.sleep(60)

folder = Path(sys.argv[1])
request = Request.model_validate_json((folder / "request.json").read_bytes())
try:
    launch(stage, folder, request, ranks=2, report=print)
except errors.NSSTrainError as error:
    print(type(error).__name__, error.retry)
"""


def test_a_rank_that_finds_the_disk_full_is_a_full_disk(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text(wanted(tiny_model).model_dump_json())
    command = [sys.executable, "-c", RANK_1_FINDS_THE_DISK_FULL, str(tmp_path)]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    assert done.stdout.splitlines()[-1] == "DiskFull other_worker", done.stderr
    assert "in stage" in done.stderr  # the traceback is in the log
    # Where such files are written, a full disk cuts them off, and they outlive the stage.
    assert not [path for path in temporary.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(28, "No space left on device"), DiskFull),
        (MemoryError(), OutOfMemory),
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemory),
        (GenerationError("column NCCL is too long"), GenerationError),
        (RuntimeError("shape"), NSSTrainError),
    ],
)
def test_a_rank_says_its_error_as_a_single_process_does(
    error: Exception, expected: type[NSSTrainError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stage(*_: Any, **__: Any) -> StageResult:
        raise error

    monkeypatch.setenv("RANK", "1")
    with pytest.raises(type(error)):
        ranks_module._run_rank(stage, tmp_path, None, print, tmp_path)  # type: ignore[arg-type]
    assert type(errors.from_json(read(tmp_path / "1.json")["error"])) is expected


def test_a_rank_that_lost_another_does_not_take_the_blame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stage(*_: Any, **__: Any) -> StageResult:
        raise DistError("Connection closed by peer")

    waits: list[tuple[float, list[Path]]] = []
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(
        ranks_module.time, "sleep", lambda seconds: waits.append((seconds, list(tmp_path.iterdir())))
    )
    with pytest.raises(DistError):
        ranks_module._run_rank(stage, tmp_path, None, print, tmp_path)  # type: ignore[arg-type]
    # The launcher ends it meanwhile if another one failed first; if none did, it is the cause after all.
    assert waits == [(ranks_module._LET_THE_CAUSE_BE_SEEN_S, [])]
    assert "closed by peer" in read(tmp_path / "0.json")["error"]["message"]


def test_a_disk_without_room_for_a_note_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failed:
        exitcode, message = 1, "OSError"

        def get_first_failure(self) -> tuple[int, Failed]:
            return 1, self

    assert type(ranks_module._cause(Failed(), tmp_path)) is NSSTrainError  # type: ignore[arg-type]
    monkeypatch.setattr(errors.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    assert type(ranks_module._cause(Failed(), tmp_path)) is DiskFull  # type: ignore[arg-type]


def claim_a_device(patch: pytest.MonkeyPatch) -> None:
    """Let training arguments be chosen as with a CUDA device, and returned as they are."""
    # Accelerate keeps the device of its first state for all later trainings of this process.
    patch.setattr(arguments_module, "group_state", lambda: SimpleNamespace(num_processes=1))
    patch.setattr(torch.cuda, "is_available", lambda: True)
    patch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    patch.setattr(arguments_module, "Arguments", lambda **options: options)


def test_sharded_weights_are_stepped_by_an_optimizer_that_can(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    claim_a_device(monkeypatch)
    training = wanted(tiny_model).config.training.model_copy(update={"learning_rate": 0.1})
    chosen = []
    with caplog.at_level(logging.INFO):
        for fsdp in (False, True):
            options: Any = training_arguments(training, run_options(tmp_path, fsdp=fsdp), evaluate=False)
            chosen.append(options["optim"])
    assert chosen == ["adamw_torch_fused", "adamw_torch"]
    assert "optim=adamw_torch because each rank steps its own share of the weights" in caplog.text


def test_a_checkpoint_of_an_older_release_keeps_its_optimizer(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_a_device(monkeypatch)
    training = wanted(tiny_model).config.training.model_copy(update={"learning_rate": 0.1})
    moments = torch.zeros(3)
    for names, optimizer in (("state1", "paged_adamw_32bit"), ("exp_avg", "adamw_torch_fused")):
        torch.save({"state": {0: {names: moments}}, "param_groups": []}, tmp_path / "optimizer.pt")
        wanted_run = run_options(tmp_path, resume_from=tmp_path)
        options: Any = training_arguments(training, wanted_run, evaluate=False)
        assert options["optim"] == optimizer


def ranks_of(folder: Path) -> list[psutil.Process]:
    """Return the processes of the group below the launcher, by rank."""
    found = [p for p in psutil.process_iter(["cmdline"]) if str(folder) in (p.info["cmdline"] or [])]
    return sorted((p for p in found if p.parent() in found), key=lambda p: p.pid)


def test_ranks_that_share_the_weights_train_as_those_that_hold_all_of_them(
    run: MakeRun, whole_of: Callable[[int], Run]
) -> None:
    whole = whole_of(2)
    sharing = run("sharing", ranks=2, fsdp=True)
    result = sharing.start()
    assert result.figures["share_held_by_rank_0"] == pytest.approx(0.5, abs=0.02)
    assert sharing.losses == pytest.approx(whole.losses, abs=1e-5)
    # One sums its losses in parts, the other has the model's own.
    assert distance(sharing.adapter_file, whole.adapter_file) <= 1e-4


def distance(file: Path, other: Path) -> float:
    """Return how far two adapters are apart, as a share of the second one's norm."""
    one, two = ({name: weight.double() for name, weight in load_file(path).items()} for path in (file, other))
    assert one.keys() == two.keys()
    apart = sum(float((one[name] - two[name]).square().sum()) for name in two)
    return math.sqrt(apart / sum(float(weight.square().sum()) for weight in two.values()))


@pytest.mark.long
def test_a_training_with_shared_weights_goes_on_bit_for_bit(run: MakeRun) -> None:
    whole = run("whole", ranks=2, fsdp=True, checkpoints=EVERY_STEP)
    whole.start()
    checkpoint = whole.folder / CHECKPOINTS / "3"
    resumed = run("resumed", ranks=2, fsdp=True, checkpoint=checkpoint)
    resumed.start()
    steps = [e.fields["step"] for e in resumed.events if e.action == "train.step"]
    assert steps[0] == 4
    assert resumed.adapter == whole.adapter
    assert resumed.history == whole.history


def test_weights_that_are_quantized_already_are_not_shared(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    config = make_request(tiny_model).config
    for stored, refused in ({}, False), ({"quantization_config": {"load_in_8bit": True}}, True):
        (tmp_path / "base" / "config.json").write_text(json.dumps(stored))
        with pytest.raises(ParameterError, match="quantized weights") if refused else nullcontext():
            check_sharing(config, 2, model=tmp_path)


def test_weights_are_not_shared_with_nobody(run: MakeRun) -> None:
    with pytest.raises(ParameterError, match="fsdp = True: a single rank has no other rank to share with"):
        run("alone", fsdp=True).start()


@pytest.mark.parametrize(("wanted", "batch", "fits"), [(0, 7, True), (2, 8, True), (3, 8, False)])
def test_ranks_must_divide_the_batch(
    wanted: int, batch: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    if fits:
        assert choose_ranks(wanted, batch) == max(wanted, 1)
    else:
        with pytest.raises(ParameterError, match=f"ranks = {wanted}: must divide the .* batch of {batch}"):
            choose_ranks(wanted, batch)
