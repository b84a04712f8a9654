"""Validation, early ends, and where a run reports to."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import EvalPrediction, TrainerControl, TrainerState

from nss_train import stages
from nss_train.artifacts.sampling import Sampling
from nss_train.training.fitted import incomplete_reason
from nss_train.training.reports import reporters
from nss_train.training.reports.metrics import BatchedMetrics, compute_metrics
from nss_train.training.reports.quality import GenerationQuality
from nss_train.training.trainer import load_transformers_tokenizer

from .conftest import Trained, load, make_request, read, silent


def evaluations(folder: Path) -> list[int]:
    return [e["step"] for e in read(folder / "out" / "log_history.json") if "eval_loss" in e]


def test_validation_steps_decide_when_to_evaluate(train: Trained) -> None:
    options = {"validation_ratio": 0.2, "num_input_records_to_sample": 480}
    assert evaluations(train(**options, validation_steps=5)[0]) == [5, 10, 15, 20, 24]
    assert evaluations(train(**options, validation_steps=100)[0]) == [24]


def test_the_mean_loss_is_the_same_batch_by_batch() -> None:
    losses = np.asarray([1.0, 2.0, 4.5])
    whole = compute_metrics(EvalPrediction(predictions=losses, label_ids=losses, losses=losses))
    batched = BatchedMetrics()
    for loss in losses[:-1]:
        assert batched(EvalPrediction(predictions=losses, label_ids=losses, losses=np.asarray([loss]))) == {}
    last = EvalPrediction(predictions=losses, label_ids=losses, losses=losses[-1:])
    assert batched(last, compute_result=True) == whole == {"eval_loss": 2.5}


def test_a_time_limit_ends_in_good_order(tmp_path: Path, tiny_model: Path) -> None:
    request = make_request(tiny_model, num_input_records_to_sample=480)
    folder = load(tmp_path, request)
    stages.train(folder, request.model_copy(update={"max_train_s": 0.0}), report=silent)
    result = read(folder / "out" / "training_result.json")
    assert not result["training_complete"]
    assert result["incomplete_reason"] == "max_seconds"
    assert result["steps"] == 1
    assert (folder / "out" / "adapter" / "adapter_model.safetensors").is_file()


def test_generating_only_nonsense_ends_the_training(tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = load(tmp_path, make_request(tiny_model))
    prepared = folder / "in" / "prepare_data"
    quality = GenerationQuality(
        load_transformers_tokenizer(tiny_model),
        read(prepared / "metadata.json"),
        read(prepared / "schema.json"),
        Sampling(patience=2),
        1,
    )
    state, control = TrainerState(), TrainerControl()
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    quality.on_evaluate(None, state, control, model=model)  # type: ignore[arg-type]
    assert not control.should_training_stop
    quality.on_evaluate(None, state, control, model=model)  # type: ignore[arg-type]
    assert control.should_training_stop
    assert incomplete_reason(json.loads(json.dumps(state.log_history))) == "no_records"


def test_unknown_trackers_and_missing_ones_cost_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporters, "find_spec", lambda name: name == "mlflow" or None)
    assert reporters.choose_reporters(("tensorbord", "mlflow", "wandb", "mlflow")) == ("mlflow",)
    assert "tensorbord because it is none of wandb, mlflow, tensorboard" in caplog.text
    assert "wandb because its package is not installed" in caplog.text
