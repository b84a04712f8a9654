"""The steps of a training are the same however they are divided and computed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from torch._dynamo.testing import CompileCounterWithBackend

from nss_train.contract import CHECKPOINT_MANIFEST, CHECKPOINTS, CheckpointPolicy, Kernels
from nss_train.errors import OutOfMemory, ParameterError
from nss_train.model.adapter import initial_adapter
from nss_train.model.layers.loss import Head
from nss_train.model.loading import FLOAT32, load_base
from nss_train.model.quantization import quantization_config
from nss_train.model.scheme import Scheme
from nss_train.training.checkpoint import Checkpoints
from nss_train.training.fit import fit
from nss_train.training.fitted import Fitted
from nss_train.training.hugging_face import AdapterTrainer
from nss_train.training.steps import micro_batches, passes
from nss_train.training.steps.micro_batches import Room
from nss_train.training.steps.passes import ROOM_FILE, Passes
from nss_train.training.trainer import load_transformers_tokenizer, make_trainer

from .conftest import make_request, run_options, silent

EXAMPLES, BATCH, PROMPT = 13, 6, 2
IMPORTS_OF_A_COMPILER = "ignore:.*script_method.*:DeprecationWarning"
STEPS = 3
"""Of 13 examples: two of six, and one of a single example."""


A_TRIALS = 1
"""Learned tokens that a trial of a device's memory divides by."""


@pytest.fixture(autouse=True)
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a device compute in float32, where two ways of rounding agree to 1e-5; in bfloat16 none do."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)


class Trained:
    """A short training of examples of many lengths, with its losses and its weights."""

    def __init__(self, fitted: Fitted, model: PeftModel) -> None:
        self.losses = [entry["loss"] for entry in fitted.log_history if "loss" in entry]
        parts = [weight.detach().flatten() for weight in model.parameters() if weight.requires_grad]
        self.weights = torch.cat(parts)

    def is_like(self, other: Trained) -> bool:
        """Tell whether losses agree to 1e-5 and the adapter to 1e-4 of its norm."""
        close = (self.weights - other.weights).norm() <= 1e-4 * other.weights.norm()
        return self.losses == pytest.approx(other.losses, rel=1e-5) and bool(close)


Train = Callable[..., Trained]


@pytest.fixture(scope="module")
def examples() -> Dataset:
    generator = torch.Generator().manual_seed(1)
    rows = []
    for _ in range(EXAMPLES):
        tokens = int(torch.randint(5, 40, (), generator=generator))
        ids = torch.randint(5, 4000, (tokens,), generator=generator).tolist()
        rows.append(
            {
                "input_ids": ids,
                "attention_mask": [1] * tokens,
                "labels": [-100] * PROMPT + ids[PROMPT:],
            }
        )
    return Dataset.from_list(rows)


@pytest.fixture
def train(tiny_model: Path, tmp_path: Path, examples: Dataset) -> Train:
    def run(*, rows: int = 1, scheme: Scheme | None = None, **options: Any) -> Trained:
        config = make_request(
            tiny_model,
            batch_size=rows,
            gradient_accumulation_steps=BATCH // rows,
            learning_rate=0.01,
            warmup_steps=0.0,
        ).config
        quantization = None if scheme is None else quantization_config(scheme, torch.float32)
        base = load_base(
            tiny_model, FLOAT32, attention="sdpa", trust_remote_code=False, quantization=quantization
        )
        model = initial_adapter(base, config.training, seed=1)
        wanted = run_options(tmp_path / "trainer", **options)
        sides = {"train": examples, "validation": None}
        trainer = make_trainer(model, load_transformers_tokenizer(tiny_model), config, sides, wanted)
        return Trained(fit(trainer, wanted), model)

    return run


@pytest.fixture
def reference(train: Train) -> Trained:
    """Train row by row, with the model's own loss."""
    found = train(kernels=Kernels(loss="model"))
    assert len(found.losses) == STEPS
    return found


def test_no_division_of_a_step_shows_in_its_loss_or_in_the_adapter(train: Train, reference: Trained) -> None:
    for rows in (1, 2, 3, 6):
        for loss in ("chunked", "model"):
            assert train(rows=rows, kernels=Kernels(loss=loss)).is_like(reference), (rows, loss)


@pytest.mark.parametrize("scheme", [Scheme.BNB_4BIT, Scheme.BNB_8BIT])
def test_no_division_shows_over_a_quantized_base(train: Train, scheme: Scheme, long: bool) -> None:
    reference = train(kernels=Kernels(loss="model"), scheme=scheme)
    for rows in (1, 2, 3, 6) if long else (3,):
        for loss in ("chunked", "model") if long else ("chunked",):
            assert train(rows=rows, kernels=Kernels(loss=loss), scheme=scheme).is_like(reference), (
                rows,
                loss,
            )


def test_what_stands_behind_the_end_of_a_row_has_no_effect(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    for loss in ("chunked", "model"):
        usual = train(rows=3, kernels=Kernels(loss=loss))
        with monkeypatch.context() as other:
            other.setattr(micro_batches, "PADDING", 4_321)
            padded_otherwise = train(rows=3, kernels=Kernels(loss=loss))
        assert padded_otherwise.losses == usual.losses
        assert torch.equal(padded_otherwise.weights, usual.weights)


def test_each_token_of_a_step_counts_equally(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mean of the rows' means is another loss: the rows have different lengths."""
    usual = train(rows=2)
    whole = Head.loss

    def mean_of_rows(head: Head, ids: torch.Tensor, learned: torch.Tensor, targets: torch.Tensor) -> Any:
        return whole(head, ids, learned, targets) / len(targets)

    monkeypatch.setattr(Head, "loss", mean_of_rows)
    assert not train(rows=2).is_like(usual)


@pytest.mark.long
@pytest.mark.filterwarnings(IMPORTS_OF_A_COMPILER)
def test_compiled_layers_train_as_they_are_written(
    train: Train, reference: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = CompileCounterWithBackend("aot_eager")
    compile_layers, compiled_head = passes.compile_layers, passes.compiled_head
    monkeypatch.setattr(passes, "compile_layers", lambda model: compile_layers(model, backend=counter))
    monkeypatch.setattr(passes, "compiled_head", lambda head: compiled_head(head, backend="eager"))
    assert train(rows=3, kernels=Kernels(layers="compiled")).is_like(reference)
    # One graph for all layers and all shapes of several rows; the last step's single row is not compiled.
    assert 0 < counter.frame_count <= 2


@pytest.mark.filterwarnings(IMPORTS_OF_A_COMPILER)
def test_layers_that_cannot_be_compiled_are_computed_as_they_are_written(
    train: Train,
    reference: Trained,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no C compiler")

    compile_layers = passes.compile_layers
    monkeypatch.setattr(passes, "compile_layers", lambda model: compile_layers(model, backend=broken))
    parts: list[int] = []
    whole = Head.loss

    def counted(*given: Any) -> torch.Tensor:
        parts.append(1)
        return whole(*given)

    monkeypatch.setattr(Head, "loss", counted)
    # The loss that was asked for stays: it is no part of what failed.
    assert train(rows=3, kernels=Kernels(layers="compiled", loss="model")).is_like(reference)
    assert "layers=eager because compiling them failed" in caplog.text
    assert not parts


def test_where_memory_runs_out_the_step_begins_anew_with_half_the_room(
    train: Train, reference: Trained, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loss, passed = Passes._loss, []

    def limited(self: Passes, trainer: Any, model: Any, batch: Any, learned: int) -> torch.Tensor:
        if learned == A_TRIALS:
            return loss(self, trainer, model, batch, learned)
        passed.append(len(batch.input_ids))
        # The second micro-batch of the first step: the first one's gradient is there already.
        if len(passed) > 1 and len(batch.input_ids) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss(self, trainer, model, batch, learned)

    monkeypatch.setattr(Passes, "_loss", limited)
    assert train(rows=3).is_like(reference)
    assert passed[:2] == [3, 3]
    assert set(passed[2:]) == {1}
    assert "micro-batches are halved because memory ran out" in caplog.text


def test_a_single_row_that_does_not_fit_is_out_of_memory(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Passes, "_loss", full)
    with pytest.raises(OutOfMemory):
        train(rows=2)


def test_a_loss_that_is_no_number_ends_the_training_at_once(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, calls = Passes._loss, []

    def broken(self: Passes, trainer: Any, model: Any, batch: Any, learned: int) -> torch.Tensor:
        found = loss(self, trainer, model, batch, learned)
        if learned == A_TRIALS:
            return found
        calls.append(1)
        return found * float("nan")

    monkeypatch.setattr(Passes, "_loss", broken)
    with pytest.raises(ParameterError, match="Training diverged: the loss is no number"):
        train(rows=6)
    assert len(calls) == 1


def test_a_resumed_training_divides_its_steps_as_before(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = []
    add = Passes._add

    def seen(self: Passes, trainer: Any, model: Any, examples: Any, room: Room, **named: Any) -> torch.Tensor:
        rooms.append(room)
        return add(self, trainer, model, examples, room, **named)

    monkeypatch.setattr(Passes, "_add", seen)
    kept = Room(rows=2, tokens=64, multiple=8)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / ROOM_FILE).write_text(json.dumps({"rows": 2, "tokens": 64, "multiple": 8}))
    (folder / CHECKPOINT_MANIFEST).write_text(json.dumps({"step": 0}))
    honest = AdapterTrainer.train
    monkeypatch.setattr(AdapterTrainer, "train", lambda trainer, **_: honest(trainer))
    train(rows=6, resume_from=folder)
    assert set(rooms) == {kept}


@pytest.mark.parametrize("kept_room", [True, False])
def test_a_resumed_training_is_the_uninterrupted_one_whatever_computes_the_rest(
    train: Train, reference: Trained, tmp_path: Path, kept_room: bool
) -> None:
    checkpoints = Checkpoints(tmp_path, CheckpointPolicy(every_s=None, every_steps=1), silent)
    train(rows=3, checkpoints=checkpoints)
    folder = tmp_path / CHECKPOINTS / "1"
    if not kept_room:
        (folder / ROOM_FILE).unlink()
    resumed = train(rows=6, kernels=Kernels(loss="model"), resume_from=folder)
    assert len(resumed.losses) == STEPS
    assert resumed.is_like(reference)
