"""``HuggingFaceBackend``: the API of NSS's training backend, in one process.

It is composed of the functions that the stages call, and is the only class that keeps NSS's mutable
attributes; everything below it only passes data forward.
"""

from __future__ import annotations

import gc
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainerCallback

from nss_train.artifacts.files import write_json
from nss_train.artifacts.guarantee import Guarantee
from nss_train.artifacts.run_folder import BoundDir, Workdir
from nss_train.artifacts.sampling import Sampling
from nss_train.config.support import unsupported_training
from nss_train.contract import ModelPolicy
from nss_train.data import columns
from nss_train.data.assembly.holdout import Split
from nss_train.data.prepared import Prepared
from nss_train.data.private.reading import read_private_frame
from nss_train.errors import DataError, GenerationError, ParameterError, Problem
from nss_train.extras import needed_by, require_extras
from nss_train.model.adapter import initial_adapter, ready_for_training, save_adapter
from nss_train.model.loading import choose_attention, choose_precision, load_base, max_memory
from nss_train.model.local.source import ModelSource, find_model
from nss_train.model.quantization import quantization_config
from nss_train.model.scheme import choose_scheme
from nss_train.privacy.accounting.result import check_release
from nss_train.privacy.coins import HoldoutKey
from nss_train.privacy.draw import InMemory
from nss_train.stages.base_model import full_weights
from nss_train.stages.preparation import prepare_split
from nss_train.training.backend import NSSTrainerResult, TrainingBackend
from nss_train.training.fitted import incomplete_reason
from nss_train.training.options import RunOptions
from nss_train.training.ranks.group import placement
from nss_train.training.reports.callbacks import TimeLimit
from nss_train.training.reports.metrics import compute_metrics, preprocess_logits_for_metrics
from nss_train.training.reports.quality import GenerationQuality
from nss_train.training.steps.out_of_memory import typed_out_of_memory
from nss_train.training.trainer import load_transformers_tokenizer, make_trainer

if TYPE_CHECKING:
    from nss_train.privacy.dpsgd.trainer import OpacusDPTrainer

__all__ = [
    "BoundDir",
    "DataError",
    "GenerationError",
    "HuggingFaceBackend",
    "NSSTrainerResult",
    "ParameterError",
    "TrainingBackend",
    "Workdir",
    "compute_metrics",
    "preprocess_logits_for_metrics",
]

logger = logging.getLogger(__name__)

_OWN_ARGUMENTS = {
    "params",
    "model_metadata",
    "training_dataset",
    "data_fraction",
    "true_dataset_size",
    "eval_dataset",
    "generation_eval",
    "callbacks",
    "action_executor",
    "verbose_logging",
    "maybe_split_dataset",
    "artifact_path",
    "rope_scaling_factor",
    "workdir",
}
"""Arguments of this class that callers pass along with the model's."""


class HuggingFaceBackend(TrainingBackend):
    """LoRA fine-tuning with the Hugging Face trainer.

    Raises :class:`ValueError` without a workdir and :class:`ParameterError` for a model that cannot be used.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        problems = [*unsupported_training(self.params), *self._against_privacy()]
        if problems:
            raise ParameterError("The config asks for what this version cannot do.", problems)
        require_extras(*needed_by(self.params))
        self.trainer_type = _private_trainer() if self.params.dp_enabled else Trainer
        self.model_loader_type = AutoModelForCausalLM
        self.training_output_dir = Path(self.workdir.train.cache)
        self.source = self._find_source()
        self.autoconfig = AutoConfig.from_pretrained(
            str(self.source.folder), trust_remote_code=self.source.trust_remote_code
        )
        logger.info("seed=%d", self.seed, extra={"action": "backend.seed", "seed": self.seed})

    def __str__(self) -> str:
        name = self.params.training.pretrained_model
        return f"HuggingFaceBackend(pretrained_model={name}, params={self.params})"

    def prepare_config(self, add_max_memory: bool = True, **kwargs: Any) -> None:
        """Collect the arguments of the model's loader, once; keyword arguments override the chosen ones."""
        if self.framework_load_params:
            logger.info("already prepared loading parameters")
            return
        given = {name: value for name, value in kwargs.items() if name not in _OWN_ARGUMENTS}
        training, precision = self.params.training, choose_precision()
        fraction = given.pop("max_vram_fraction", None)
        fraction = training.max_vram_fraction if fraction is None else fraction
        scheme = choose_scheme(training)
        chosen = {
            "pretrained_model_name_or_path": str(self.source.folder),
            "trust_remote_code": self.source.trust_remote_code,
            "attn_implementation": choose_attention(training.attn_implementation),
            "dtype": precision.dtype,
        }
        if add_max_memory:
            chosen["max_memory"] = max_memory(fraction)
        if scheme is not None:
            chosen["quantization_config"] = quantization_config(scheme, precision.dtype)
        self.framework_load_params = chosen | given

    def load_model(self, **model_args: Any) -> None:
        """Load the base model and its tokenizer, and put the adapter around it."""
        self.prepare_config(**model_args)
        self.tokenizer = load_transformers_tokenizer(self.source.folder)
        training = self.params.training
        self.model: Any = load_base(
            self.source.folder,
            choose_precision(),
            attention=str(self.framework_load_params["attn_implementation"]),
            trust_remote_code=self.source.trust_remote_code,
            quantization=self.framework_load_params.get("quantization_config"),
            rope=None if self.model_metadata is None else self.model_metadata.rope,
            max_vram_fraction=training.max_vram_fraction,
            placement=placement(fsdp=False, whole=self.params.dp_enabled),
            rows_independent=self.params.dp_enabled,
        )
        self.maybe_quantize(**model_args)

    def maybe_quantize(self, **_quant_params: Any) -> None:
        """Put the LoRA adapter around the loaded model, unless it is there already."""
        if not hasattr(self, "model"):
            raise _too_early("maybe_quantize", "load_model")
        if isinstance(self.model, PeftModel):
            logger.info("the model has its adapter already")
            return
        training = self.params.training
        base = ready_for_training(self.model, checkpointing=True)
        full = full_weights(self.source, training)
        self.model = initial_adapter(base, training, seed=self.seed, full=full)
        trainable = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        logger.info("Using PEFT - %.2f million parameters are trainable", trainable / 1e6)

    def prepare_training_data(self) -> None:
        """Check the columns, resolve the config, build the examples.

        Raises :class:`DataError`, :class:`ParameterError` or :class:`GenerationError` with every problem.
        """
        if self.training_dataset is None:
            raise DataError("training_dataset must be set before preparing training data")
        frame = self.training_dataset
        frame = frame if isinstance(frame, pd.DataFrame) else frame.to_pandas()
        if not self.params.dp_enabled:
            columns.validate_groupby_column(frame, self.params.data.group_training_examples_by)
            self._validate_orderby_column(frame)
        if self.action_executor is not None:
            frame = self.action_executor.preprocess(frame)
        self.prepared = self._prepared(frame)
        self._take_over(self.prepared, frame)

    def prepare_params(self, **_training_args: Any) -> None:
        """Make the trainer; keyword arguments are accepted but, as in NSS, ignored."""
        if not hasattr(self, "model"):
            self.load_model()
        if not hasattr(self, "training_examples"):
            raise _too_early("prepare_params", "prepare_training_data")
        self.workdir.ensure_directories()
        run = RunOptions(
            output=self.training_output_dir,
            seed=self.seed % 2**31,
            checkpointing=True,
            report=_unreported,
        )
        parts = (self.model, self.tokenizer, self.params, self.training_examples, run)
        callbacks = [*self.callbacks, *self._early_ends()]
        plan, membership = self.prepared.plan, self.prepared.assembled.membership
        if plan is None or membership is None:
            self.trainer: Trainer = make_trainer(*parts, callbacks=callbacks)
        else:
            from nss_train.privacy.dpsgd.private import Private, make_private_trainer

            private = Private(
                plan=plan,
                unit_of=membership.of_example,
                longest=self.prepared.metadata.max_seq_length,
            )
            self.trainer = make_private_trainer(*parts, private=private, callbacks=callbacks)
        self.train_args = self.trainer.args

    def train(self, **training_args: Any) -> None:
        """Prepare, train and save; set ``results`` to the outcome. Tears down, also after a failure."""
        started = time.monotonic()
        try:
            self.prepare_training_data()
            self.prepare_params(**training_args)
            with typed_out_of_memory():
                self.trainer.train()
            self._check_release()
            seconds = time.monotonic() - started
            log_history = self.trainer.state.log_history
            self.save_model()
        finally:
            self.teardown()
        self.results = NSSTrainerResult(
            training_df=self.training_df,
            df_ml_utility_holdout=self.test_df,
            config=self.params,
            training_complete=incomplete_reason(log_history) is None,
            log_history=log_history,
            adapter_path=self.workdir.adapter_path,
            elapsed_time=seconds,
            seed=self.seed,
        )

    def save_model(self) -> None:
        """Write adapter, metadata, schema and config into the run folder; the model stays loaded."""
        if self.dataset_schema is None or self.model_metadata is None:
            raise ParameterError("dataset_schema must be set before saving model")
        if not hasattr(self, "model"):
            raise _too_early("save_model", "load_model")
        self.workdir.ensure_directories()
        adapter = self.workdir.train.adapter
        save_adapter(self.model, Path(adapter), base_name=self.params.training.pretrained_model)
        document = self.model_metadata.as_json(
            dataset_name=self.workdir.dataset_name,
            run_name=self.workdir.run_name,
            base_path=str(self.workdir.base_path),
        )
        write_json(adapter.metadata, document)
        write_json(adapter.schema, self.dataset_schema)
        write_json(self.workdir.train.config, self.params.as_nss())

    def teardown(self) -> None:
        """Release model, trainer, device memory and process group; may be called at any time, repeatedly."""
        for name in ("trainer", "model"):
            self.__dict__.pop(name, None)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    def info(self) -> None:
        """Log the run's main attributes."""
        shown = {
            "params": self.params,
            "training_output_dir": self.training_output_dir,
            "save_path": self.workdir.adapter_path,
            "artifact_path": self.workdir.run_dir,
        }
        logger.info("Trainer Information\n%s", "\n".join(f"{name}: {value}" for name, value in shown.items()))

    def _against_privacy(self) -> Iterator[Problem]:
        if self.generation_eval and self.params.dp_enabled:
            remedy = "samples of a half-trained adapter are judged by private records; leave it out"
            yield Problem(field="generation_eval", value=True, remedy=remedy)

    def _check_release(self) -> None:
        """Raise if a private training overspent; otherwise write its guarantee to the run folder."""
        plan = self.prepared.plan
        if plan is not None and isinstance(self.trainer, _private_trainer()):
            result = self.trainer.privacy_result()
            check_release(plan, result)
            found = Guarantee(config=self.params, plan=plan, result=result)
            write_json(Path(self.workdir.train.privacy), found.as_json())

    def _early_ends(self) -> list[TrainerCallback]:
        """Return the callbacks that may end the training early: on a bad sample, or after too long a time."""
        found: list[TrainerCallback] = []
        if self.max_seconds is not None:
            found.append(TimeLimit(self.max_seconds))
        if self.generation_eval:
            metadata = self.prepared.metadata.as_json(dataset_name="data", run_name="run")
            sampling = Sampling.of(self.params.generation.model_dump(mode="json"))
            quality = GenerationQuality(self.tokenizer, metadata, self.prepared.schema, sampling, self.seed)
            found.append(quality)
        return found

    def _validate_orderby_column(self, frame: pd.DataFrame) -> None:
        columns.validate_orderby_column(frame, self.params.data.order_training_examples_by)

    def _find_source(self) -> ModelSource:
        name = self.params.training.pretrained_model
        # In their own process, callers may use any model they name; a worker's operator sets a policy.
        return find_model(name, ModelPolicy(models_dir=str(Path(name).parent), allow_hub=True))

    def _prepared(self, frame: pd.DataFrame) -> Prepared:
        """Return the frame as examples; a private one is read cell by cell, by its declared columns."""
        if not self.params.dp_enabled:
            split = Split(train=frame, test=None)
            return prepare_split(split, self.params, model=self.source.folder, seed=self.seed)
        from nss_train.stages.private_preparation import prepare_privately

        return prepare_privately(
            read_private_frame(frame, self.params.guarantee),
            self.params,
            model=self.source.folder,
            key=HoldoutKey(secret=self.workdir.holdout_key()),
            keeper=InMemory(),
            holds_out=False,
        )

    def _take_over(self, prepared: Prepared, frame: pd.DataFrame) -> None:
        """Set NSS's attributes from what was prepared."""
        self.params = prepared.config
        self.model_metadata = prepared.metadata
        self.dataset_schema = json.loads(json.dumps(prepared.schema))
        self.training_df, self.test_df = frame, prepared.test
        self.data_fraction = prepared.data_fraction
        self.true_dataset_size = prepared.units_train if prepared.plan is None else prepared.plan.units
        self.training_examples = self._write_examples(prepared)

    def _write_examples(self, prepared: Prepared) -> dict[str, Dataset | None]:
        """Write the examples to the run's cache and return them, mapped into memory."""
        self.training_output_dir.mkdir(parents=True, exist_ok=True)
        found: dict[str, Dataset | None] = {"train": None, "validation": None}
        for side, examples in (("train", prepared.train), ("validation", prepared.validation)):
            if examples is not None:
                path = self.training_output_dir / f"{side}.arrow"
                examples.write(path)
                found[side] = Dataset.from_file(str(path))
        return found


def _private_trainer() -> type[OpacusDPTrainer]:
    """Return the private trainer, imported late: most trainings need neither Opacus nor an accountant."""
    from nss_train.privacy.dpsgd.trainer import OpacusDPTrainer

    return OpacusDPTrainer


def _unreported(_event: object) -> None:
    """Ignore an event: callers of this class follow a training by callbacks of their own."""


def _too_early(method: str, first: str) -> ParameterError:
    problem = Problem(field=method, value=None, remedy=f"call {first}() first")
    return ParameterError(f"{method} needs what {first} makes.", [problem])
