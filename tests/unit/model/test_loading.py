"""Errors for a base model that cannot be loaded."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from nss_train.errors import InfrastructureError, ParameterError, Retry
from nss_train.model.loading import FLOAT32, load_base


def load(folder: Path) -> None:
    load_base(folder, FLOAT32, attention="sdpa", trust_remote_code=False)


def test_weights_that_are_cut_short_are_the_submitter_s_to_mend(tiny_model: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ParameterError, match="cannot be loaded"):
        load(base)


def test_a_copy_that_another_worker_removed_is_worth_another_try(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="copy of base is gone") as caught:
        load(tmp_path / "base")
    assert caught.value.retry is Retry.OTHER_WORKER


def test_threads_that_load_at_once_leave_transformers_as_it_was(tiny_model: Path) -> None:
    ties = PreTrainedModel.tie_weights
    try:
        with ThreadPoolExecutor(4) as threads:
            for done in [threads.submit(load, tiny_model) for _ in range(16)]:
                done.result()
        assert PreTrainedModel.tie_weights is ties
    finally:
        PreTrainedModel.tie_weights = ties  # type: ignore[method-assign]
