"""The interface of NSS's training backends, and their result."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset

from nss_train.artifacts.run_folder import Workdir
from nss_train.config import SafeSynthesizerParameters
from nss_train.model.metadata import ModelMetadata


@dataclass(frozen=True, kw_only=True)
class NSSTrainerResult:
    """The result of a training run, in memory."""

    training_df: pd.DataFrame
    df_ml_utility_holdout: pd.DataFrame | None
    config: SafeSynthesizerParameters
    training_complete: bool
    log_history: list[dict[str, Any]]
    adapter_path: Path
    elapsed_time: float
    """Seconds of the run, preparation included."""
    seed: int
    """Seed of the run, given or drawn: with it the run can be repeated."""


class TrainingBackend(ABC):
    """The steps of a training backend, and the state that they share."""

    def __init__(
        self,
        params: SafeSynthesizerParameters,
        model_metadata: ModelMetadata | None = None,
        training_dataset: Dataset | None = None,
        data_fraction: float | None = None,
        true_dataset_size: int | None = None,
        eval_dataset: Dataset | None = None,
        *_args: Any,
        generation_eval: bool = False,
        callbacks: list[Any] | None = None,
        action_executor: Any = None,
        workdir: Workdir | None = None,
        seed: int | None = None,
        max_seconds: float | None = None,
        **_: Any,
    ) -> None:
        if workdir is None:
            raise ValueError("workdir is required")
        self.params = params
        self.model_metadata = model_metadata
        self.training_dataset = training_dataset
        self.data_fraction = data_fraction
        self.true_dataset_size = true_dataset_size
        self.eval_dataset = eval_dataset
        self.generation_eval = generation_eval
        self.callbacks = callbacks or []
        self.action_executor = action_executor
        self.workdir = workdir
        self.max_seconds = max_seconds
        self.seed = secrets.randbelow(2**31) if seed is None else seed
        """Seed of shuffles, splits and initial weights; drawn when not given, and logged."""
        self.dataset_schema: dict[str, Any] | None = None
        self.framework_load_params: dict[str, Any] = {}

    @abstractmethod
    def prepare_config(self, add_max_memory: bool = True, **kwargs: Any) -> None: ...

    @abstractmethod
    def maybe_quantize(self, **quant_params: Any) -> None: ...

    @abstractmethod
    def load_model(self, **model_args: Any) -> None: ...

    @abstractmethod
    def prepare_params(self, **training_args: Any) -> None: ...

    @abstractmethod
    def prepare_training_data(self) -> None: ...

    @abstractmethod
    def train(self, **training_args: Any) -> None: ...

    @abstractmethod
    def save_model(self) -> None: ...

    @abstractmethod
    def teardown(self) -> None: ...
