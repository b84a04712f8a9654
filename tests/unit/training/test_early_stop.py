"""Trainings that end early, run by ``fit`` as a facade would."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import TrainerCallback

from nss_train.artifacts.generator import Completions, Generator
from nss_train.artifacts.sampling import Sampling
from nss_train.model.adapter import initial_adapter
from nss_train.model.loading import FLOAT32, load_base
from nss_train.training.fit import fit
from nss_train.training.fitted import Fitted
from nss_train.training.reports.quality import GenerationQuality
from nss_train.training.trainer import load_transformers_tokenizer, make_trainer

from .conftest import make_request, run_options

ROW = list(range(5, 45))
Fit = Callable[..., Fitted]

COLUMNS = {"name": {"type": "string"}, "size": {"type": "integer"}}
SCHEMA = {"type": "object", "properties": COLUMNS, "required": list(COLUMNS)}
METADATA = {
    "instruction": "Generate data.",
    "prompt_config": {"template": "{instruction}{schema}{prefill}", "eos_token_id": 2},
    "base_max_seq_length": 64,
    "max_tokens_per_example": 40,
    "max_sequences_per_example": 10,
}


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path) -> Fit:
    """Return a function that trains for twelve steps, evaluated after every second one."""

    def fitted(*callbacks: TrainerCallback, max_seconds: float | None = None) -> Fitted:
        config = make_request(tiny_model, learning_rate=0.001, validation_steps=2).config
        base = load_base(tiny_model, FLOAT32, attention="sdpa", trust_remote_code=False)
        # Dropout, so that the training draws random numbers that sampling might disturb.
        for layer in base.model.layers:
            layer.self_attn.attention_dropout = 0.2
        row = {"input_ids": ROW, "attention_mask": [1] * len(ROW), "labels": ROW}
        options = run_options(tmp_path / "trainer", max_seconds=max_seconds)
        trainer = make_trainer(
            initial_adapter(base, config.training, seed=1),
            load_transformers_tokenizer(tiny_model),
            config,
            {"train": Dataset.from_list([row] * 24), "validation": Dataset.from_list([row] * 4)},
            options,
            callbacks=callbacks,
        )
        return fit(trainer, options)

    return fitted


def quality(model: Path, **sampling: Any) -> GenerationQuality:
    return GenerationQuality(load_transformers_tokenizer(model), METADATA, SCHEMA, Sampling(**sampling), 1)


def evaluations(fitted: Fitted) -> list[float]:
    return [entry["eval_loss"] for entry in fitted.log_history if "eval_loss" in entry]


def test_nothing_ends_a_training_early_unless_asked(run: Fit) -> None:
    fitted = run()
    assert (fitted.training_complete, fitted.reason, fitted.steps) == (True, None, 12)
    assert fitted.figures["tokens"] == 24 * len(ROW)
    assert len(evaluations(fitted)) == 6
    assert all(math.isfinite(loss) for loss in evaluations(fitted))


def test_a_model_that_writes_nonsense_stops_after_patience_evaluations(run: Fit, tiny_model: Path) -> None:
    fitted = run(quality(tiny_model, patience=2))
    assert (fitted.training_complete, fitted.reason, fitted.steps) == (False, "no_records", 4)
    assert {"training_incomplete": "no_records"} in fitted.log_history
    assert len(evaluations(fitted)) == 2


def test_sampling_leaves_the_course_of_the_training_as_it_was(run: Fit, tiny_model: Path) -> None:
    watched = run(quality(tiny_model, patience=100))
    assert watched.training_complete
    assert evaluations(watched) == evaluations(run())


def test_some_valid_records_are_told_from_none(
    run: Fit, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching = quality(tiny_model, patience=3, invalid_fraction_threshold=0.5)
    texts = ['{"name": "a", "size": 1}\n{"name": 1}\n{"size": 1}\n']
    written = Completions(texts=texts, tokens=0)
    monkeypatch.setattr(Generator, "run", lambda *_: written)
    fitted = run(watching)
    assert (fitted.reason, fitted.steps) == ("stopping_condition_reached", 6)


def test_a_time_limit_ends_after_the_step_it_passes_in(run: Fit) -> None:
    fitted = run(max_seconds=0.0)
    assert (fitted.training_complete, fitted.reason, fitted.steps) == (False, "max_seconds", 1)


def test_a_time_that_suffices_ends_nothing(run: Fit) -> None:
    assert run(max_seconds=600.0).training_complete
