"""A training on a CUDA device: its kernels, its room, what it leaves. ``make gpu-check`` runs them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from nss_train import stages
from nss_train.contract import CHECKPOINT_SAVED, CHECKPOINTS, DRAIN, CheckpointPolicy, Event, Kernels
from nss_train.errors import StageLost
from nss_train.training.steps.micro_batches import Room
from nss_train.training.steps.passes import ROOM_FILE, Passes
from tasks.execution.processes.supervisor import StageStopped, tail
from tests.device import Held, held, held_in_the_end

from .conftest import load, read, silent
from .runs import EVERY_STEP, MakeRun, Run, runs_of, wanted

pytestmark = pytest.mark.cuda

ROUNDING = 2**-7
"""Two units in the last place of bfloat16: by so much the loss of the same step may differ."""
DRIFT = 2**-5
"""Share by which two loss curves may differ in the end: each step adds its rounding."""
TRIED = "micro-batches of up to"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Make the inputs of a train stage."""
    return load(tmp_path_factory.mktemp("prepared"), wanted(tiny_model))


@pytest.fixture
def run(prepared: Path, tiny_model: Path, tmp_path: Path) -> MakeRun:
    make = runs_of(tiny_model, prepared, tmp_path)

    def on_one_device(name: str, *, checkpoint: Path | None = None, **update: Any) -> Run:
        return make(name, checkpoint=checkpoint, ranks=1, **update)

    return on_one_device


def test_compiled_layers_give_the_loss_curve_of_eager_ones(run: MakeRun) -> None:
    eager = run("eager", kernels=Kernels(layers="eager"))
    compiled = run("compiled", kernels=Kernels(layers="compiled"))
    for one in (eager, compiled):
        one.start()
    said = tail(compiled.folder)
    assert "layers=compiled because it is asked for" in said
    assert "layers=eager" not in said  # it did not fall back
    assert len(compiled.losses) == len(eager.losses) > 1
    assert eager.losses[-1] < eager.losses[0]
    assert compiled.losses[0] == pytest.approx(eager.losses[0], rel=ROUNDING)
    assert compiled.losses == pytest.approx(eager.losses, rel=DRIFT)


class Watched:
    """The passes of a training's steps, those that look for the room left out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, fail_at: int | None = None) -> None:
        """Let pass number ``fail_at`` run out of memory once its gradients are there."""
        self.rooms: list[Room] = []
        self.began_with_gradients: list[bool] = []
        whole: Callable[..., torch.Tensor] = Passes._add

        def add(passes: Passes, *given: Any, learned: int) -> torch.Tensor:
            if learned == 1:
                return whole(passes, *given, learned=learned)
            self.rooms.append(given[-1])
            self.began_with_gradients.append(any(p.grad is not None for p in passes.model.parameters()))
            loss = whole(passes, *given, learned=learned)
            if len(self.rooms) == fail_at:
                raise torch.OutOfMemoryError("CUDA out of memory: a test wants it")
            return loss

        monkeypatch.setattr(Passes, "_add", add)


def test_the_room_found_by_trial_lets_every_step_run(
    run: MakeRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watched, one = Watched(monkeypatch), run("one")
    with caplog.at_level(logging.INFO):
        result = stages.train(one.folder, one.request, report=silent)
    (tried,) = (record for record in caplog.records if getattr(record, "action", "") == "train.room")
    assert len(watched.rooms) == result.figures["steps"] > 1
    assert {(room.rows, room.tokens) for room in watched.rooms} == {(4, vars(tried)["tokens"])}
    assert read(one.folder / "out" / "training_result.json")["training_complete"]


def test_a_step_that_runs_out_of_memory_goes_on_with_half_the_room(
    run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    untroubled, one = run("untroubled"), run("one")
    untroubled.start()
    watched = Watched(monkeypatch, fail_at=3)
    result = stages.train(one.folder, one.request, report=silent)
    assert read(one.folder / "out" / "training_result.json")["training_complete"]
    assert len(watched.rooms) == result.figures["steps"] + 1
    before, after = watched.rooms[:3], watched.rooms[3:]
    assert before == [before[0]] * 3
    assert after == [before[0].halved()] * len(after)
    # The gradients of the pass that failed do not count.
    assert not any(watched.began_with_gradients)
    assert one.losses == pytest.approx(untroubled.losses, rel=DRIFT)


def test_a_drained_training_goes_on_with_its_room_and_its_curve(run: MakeRun) -> None:
    whole = run("whole")
    whole.start()
    assert TRIED in tail(whole.folder)
    first = run("first", checkpoints=CheckpointPolicy())

    def drain_after_two(event: Event) -> None:
        if event.fields.get("step") == 2:
            (first.folder / DRAIN).touch()

    with pytest.raises(StageStopped):
        first.start(drain_after_two)
    (step,) = (e.fields["step"] for e in first.events if e.action == CHECKPOINT_SAVED)
    checkpoint = first.folder / CHECKPOINTS / str(step)
    second = run("second", checkpoint=checkpoint, checkpoints=EVERY_STEP)
    second.start()
    assert TRIED not in tail(second.folder)
    later = second.folder / CHECKPOINTS / str(step + 1)
    assert read(later / ROOM_FILE) == read(checkpoint / ROOM_FILE)
    assert next(e.fields["step"] for e in second.events if e.action == "train.step") == step + 1
    assert len(second.losses) == len(whole.losses)
    assert second.losses == pytest.approx(whole.losses, rel=DRIFT)


class OnTheDevice:
    """What the devices hold after a stage's first step, while it stands still; it may be killed then."""

    def __init__(self, stage: Run, *, kill: bool) -> None:
        self.before = held()
        self.during: list[Held] = []
        self._stage, self._kill = stage, kill

    def __call__(self, event: Event) -> None:
        if event.action != "train.step" or event.fields["step"] != 1:
            return
        process = self._process()
        process.suspend()
        self.during.append(held())
        if self._kill:
            process.kill()
        else:
            process.resume()

    def _process(self) -> psutil.Process:
        children = psutil.Process().children(recursive=True)
        (found,) = (child for child in children if str(self._stage.folder) in child.cmdline())
        return found


@pytest.mark.parametrize("kill", [False, True], ids=["ended", "killed"])
def test_a_stage_whose_process_is_gone_holds_nothing_of_the_device(run: MakeRun, *, kill: bool) -> None:
    stage = run("stage")
    seen = OnTheDevice(stage, kill=kill)
    if kill:
        with pytest.raises(StageLost, match="SIGKILL"):
            stage.start(seen)
    else:
        stage.start(seen)
    (during,) = seen.during
    assert during.exceeds(seen.before)  # else nothing could be seen to be given back
    assert not held_in_the_end(seen.before).exceeds(seen.before)
