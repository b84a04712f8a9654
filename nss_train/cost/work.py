"""The work of a training, as prepare_data knows it; for a private table, from its plan alone. No torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nss_train.config import SafeSynthesizerParameters
from nss_train.config.sections.guarantee import ColumnType
from nss_train.config.sections.training import TrainingHyperparams
from nss_train.contract import Frozen
from nss_train.cost.cost import Cost
from nss_train.model.footprint import Shape, adapter_parameters, process_bytes
from nss_train.model.scheme import choose_scheme
from nss_train.model.tokenizer import ModelTokenizer

if TYPE_CHECKING:
    from nss_train.data.prepared import Prepared
    from nss_train.privacy.accounting.plan import PrivacyPlan

WORK = "work"
"""Name of the document among the outputs of prepare_data."""
MORE_LAYERS = 8
"""Most layers that a measurement tries."""
TRIED_TOKENS = {False: 2_000, True: 8_000}
"""Tokens that a measurement takes through them, without and with privacy: a private one repeats the trial of
a training, of some 40 rows of 128 tokens on a CPU."""
TYPICAL: Mapping[ColumnType, Any] = {
    ColumnType.INTEGER: 1234,
    ColumnType.NUMBER: 123.45,
    ColumnType.BOOLEAN: True,
    ColumnType.STRING: "a few words",
    ColumnType.DATETIME: "2026-01-31 12:30:00",
    ColumnType.JSON: {"a": 1, "b": [2, 3]},
    ColumnType.ANY: "some text",
}
"""Typical cell by type, for a private column of which only the type may be used."""


class Work(Frozen):
    """The passes of a training. If it is private, all follows from its plan, config and declarations."""

    private: bool
    steps: int
    full_steps: float
    tokens: int
    rows_per_step: float
    """Sequences that go through the model in each step."""
    rows_at_once: int = 1
    """Rows of a micro-batch; a private training chooses them itself."""
    row_tokens: float
    """Tokens of a sequence as computed, with the padding of its micro-batch."""
    prompt_tokens: int
    """Tokens that each row begins with."""
    context_tokens: int
    """Most tokens that a row may have."""
    longest_tokens: int
    """Tokens of the longest row; for a private table, of a typical row."""
    evaluated_rows: float = 0.0
    """Sequences that validation takes through the model, in all evaluations together."""
    evaluated_tokens: float = 0.0

    def flops(self, model: Mapping[str, object]) -> float:
        """Return the floating-point operations of the passes; 0 for an unknown architecture.

        Two per parameter and token in the forward pass, two in the backward pass: no gradient of the frozen
        weights is computed (Kaplan et al. 2020, arXiv 2001.08361, §2.1).
        """
        shape = Shape.of(model)
        if shape is None:
            return 0.0
        parameters = shape.layer_parameters + shape.vocabulary * shape.hidden
        return 4.0 * parameters * self.steps * self.rows_per_step * self.row_tokens

    def tried_adapter(self, model: Mapping[str, object], training: TrainingHyperparams) -> int:
        """Return the most adapter parameters that a measurement has; 0 for an unknown architecture."""
        shape = Shape.of(model)
        return 0 if shape is None else adapter_parameters(_tried(shape), training)

    def tried_flops(self, model: Mapping[str, object], training: TrainingHyperparams) -> float:
        """Return the floating-point operations of a measurement; 0 for an unknown architecture.

        The adapter counts like the weights: its clipped gradients cost a private training as much.
        """
        shape = Shape.of(model)
        if shape is None:
            return 0.0
        parameters = _tried(shape).layer_parameters + shape.vocabulary * shape.hidden
        return 4.0 * TRIED_TOKENS[self.private] * (parameters + self.tried_adapter(model, training))

    def cost(self, model: Mapping[str, object], training: TrainingHyperparams) -> Cost:
        """Return the cost that is known without a device; ``model`` is the base model's ``config.json``."""
        memory = process_bytes(
            model,
            training,
            tokens=self.longest_tokens,
            rows=self.rows_at_once,
            scheme=choose_scheme(training),
            # Evaluations are computed from whole logits.
            in_parts=not self.evaluated_rows,
        )
        return Cost(steps=self.steps, full_steps=self.full_steps, tokens=self.tokens, memory_bytes=memory)


def _tried(shape: Shape) -> Shape:
    return replace(shape, layers=min(MORE_LAYERS, shape.layers))


def work_of(prepared: Prepared) -> Work:
    """Return the work of training on a prepared table."""
    if prepared.plan is None:
        return plain_work(
            prepared.train.tokens_per_example,
            None if prepared.validation is None else prepared.validation.tokens_per_example,
            prepared.config.training,
            prompt_tokens=len(prepared.train.prompt.ids),
            context=prepared.metadata.max_seq_length,
        )
    return private_work(
        prepared.plan,
        prepared.config,
        prompt_tokens=len(prepared.train.prompt.ids),
        record_tokens=prepared.typical_record_tokens,
        context=prepared.metadata.max_seq_length,
    )


def plain_work(
    train: npt.NDArray[np.int64],
    validation: npt.NDArray[np.int64] | None,
    training: TrainingHyperparams,
    *,
    prompt_tokens: int,
    context: int,
) -> Work:
    """Return the work for examples of these lengths; all ranks together take one batch, as in the trainer."""
    batches = math.ceil(len(train) / training.batch_size)
    steps = math.ceil(batches / training.gradient_accumulation_steps)
    rows, evaluations = 0, _evaluations(steps, training)
    width = 0.0
    if validation is not None and len(validation):
        rows, width = len(validation), float(validation.mean())
    return Work(
        private=False,
        steps=steps,
        full_steps=full_steps(steps, training.warmup_steps),
        tokens=int(train.sum()),
        rows_per_step=len(train) / steps,
        rows_at_once=training.batch_size,
        row_tokens=longest_of(train, training.batch_size),
        prompt_tokens=prompt_tokens,
        context_tokens=context,
        longest_tokens=int(train.max()),
        evaluated_rows=rows * evaluations,
        evaluated_tokens=rows * width * evaluations,
    )


def private_work(
    plan: PrivacyPlan,
    config: SafeSynthesizerParameters,
    *,
    prompt_tokens: int,
    record_tokens: int,
    context: int,
    records_per_unit: float = 1.0,
) -> Work:
    """Return the expected work of a private plan; records' lengths follow from the columns.

    A job does not know ``records_per_unit``: if n is declared or noisy, the rows of the file are not public.
    """
    records = max(1.0, records_per_unit)
    if config.data.group_training_examples_by is not None:
        rows, row = 1.0, prompt_tokens + records * record_tokens
    else:
        rows, row = min(records, config.guarantee.max_records_per_unit), prompt_tokens + record_tokens
    row = min(row, context)
    per_step = plan.batch * rows
    share = config.training.validation_ratio
    evaluated = share * plan.units * rows * _evaluations(plan.steps, config.training) if share else 0.0
    return Work(
        private=True,
        steps=plan.steps,
        full_steps=full_steps(plan.steps, config.training.warmup_steps),
        tokens=round(plan.steps * per_step * row),
        rows_per_step=per_step,
        row_tokens=row,
        prompt_tokens=prompt_tokens,
        context_tokens=context,
        longest_tokens=math.ceil(row),
        evaluated_rows=evaluated,
        evaluated_tokens=evaluated * row,
    )


def typical_record(types: Mapping[str, ColumnType], tokenizer: ModelTokenizer) -> int:
    """Return the tokens of an invented record with these column names and types."""
    record = {name: TYPICAL[type_] for name, type_ in types.items()}
    return len(tokenizer.encode(json.dumps(record, separators=(",", ":"), ensure_ascii=False) + "\n"))


def full_steps(steps: int, warmup: float) -> float:
    """Return the sum of the steps' shares of the full learning rate, ignoring the decay at the end.

    Step k of w warm-up steps, counted from 0, has k/w of the rate (``get_cosine_schedule_with_warmup``
    and its siblings in transformers), so a training of one step has none.
    """
    warm = min(steps, int(warmup) if warmup >= 1 else math.ceil(steps * warmup))
    whole = int(warmup) if warmup >= 1 else warm
    return steps - warm + (warm * (warm - 1) / 2 / whole if whole else 0.0)


def longest_of(lengths: npt.NDArray[np.int64], batch: int) -> float:
    """Return the mean length of the longest of ``batch`` random examples; the others are padded to it.

    In ascending order, the i-th of n is the longest with probability (i/n)^b - ((i-1)/n)^b.
    """
    shares = (np.arange(len(lengths) + 1) / len(lengths)) ** batch
    return float(np.sum(np.sort(lengths) * np.diff(shares)))


def _evaluations(steps: int, training: TrainingHyperparams) -> int:
    """Return the number of evaluations: one every ``validation_steps`` steps, and one after the last step."""
    return math.ceil(steps / training.validation_steps)
