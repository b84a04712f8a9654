"""An early end of a training whose model generates mostly invalid records."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nss_train.artifacts.generator import Generator
from nss_train.artifacts.records import parse_completion, schema_validator
from nss_train.artifacts.sampling import MAX_SEQUENCES, RECORDS_PER_SEQUENCE, Sampling
from nss_train.training.reports.callbacks import stop

logger = logging.getLogger(__name__)


class GenerationQuality(TrainerCallback):
    """A callback that samples at each evaluation and stops after ``patience`` bad evaluations in a row.

    As in NSS, an evaluation is bad when the mean invalid fraction so far is at or above
    ``invalid_fraction_threshold``. One without any record counts as completely invalid.
    """

    def __init__(
        self,
        tokenizer: Any,
        metadata: Mapping[str, Any],
        schema: Mapping[str, Any],
        sampling: Sampling,
        seed: int,
    ) -> None:
        self._tokenizer = tokenizer
        self._metadata = metadata
        self._columns = tuple(schema["properties"])
        self._validator = schema_validator(dict(schema))
        self._sampling = sampling
        self._seed = seed
        self._fractions: list[float] = []
        self._valid = 0
        self._bad_in_a_row = 0

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: object = None,
        **_: object,
    ) -> None:
        fraction = self._invalid_fraction(model, state.global_step)
        self._fractions.append(fraction)
        mean = sum(self._fractions) / len(self._fractions)
        bad = mean >= self._sampling.invalid_fraction_threshold
        self._bad_in_a_row = self._bad_in_a_row + 1 if bad else 0
        logger.info(
            "%.0f%% of the sampled records are invalid", 100 * fraction, extra={"action": "train.sampled"}
        )
        if self._bad_in_a_row >= self._sampling.patience:
            stop(state, control, "stopping_condition_reached" if self._valid else "no_records")

    def _invalid_fraction(self, model: Any, step: int) -> float:
        training = model.training
        model.eval()
        # Forked so that sampling does not change the training's random state.
        with torch.random.fork_rng():
            torch.manual_seed(self._seed + step)
            generator = Generator.of(
                model,
                self._tokenizer,
                metadata=self._metadata,
                columns=self._columns,
                sampling=self._sampling,
            )
            texts = generator.run(MAX_SEQUENCES * RECORDS_PER_SEQUENCE).texts
        model.train(training)
        parsed = [parse_completion(text, self._validator) for text in texts]
        valid = sum(len(records.valid) for records in parsed)
        invalid = sum(len(records.invalid) for records in parsed)
        self._valid += valid
        return invalid / (valid + invalid) if valid + invalid else 1.0
