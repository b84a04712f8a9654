"""A model folder that is enough to prepare for, and a job that is prepared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from nss_train.contract import StageResult
from nss_train.privacy.accounting import accountant
from nss_train.privacy.accounting.plan import PrivacyPlan
from tests.unit.stages.private.runs import CONTEXT, VOCABULARY, request, run, stage_folder


@pytest.fixture(scope="module", autouse=True)
def noise() -> Iterator[None]:
    """Skip the search for the noise, which takes seconds and is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accountant, "noise_multiplier", lambda **_: 1.0)
        patch.setattr(PrivacyPlan, "spent", lambda plan, steps, *_: plan.epsilon * steps / plan.steps)
        yield


@pytest.fixture(scope="module")
def models(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a model folder that is enough to prepare for."""
    root = tmp_path_factory.mktemp("models")
    folder = root / "SmolLM2-small"
    folder.mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(base_model / file, folder / file)
    config = {"max_position_embeddings": CONTEXT, "vocab_size": VOCABULARY}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return stage_folder(tmp_path)


@pytest.fixture(scope="module")
def strict(models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StageResult]:
    """Prepare a job with the defaults of a private one."""
    folder = stage_folder(tmp_path_factory.mktemp("strict"))
    return folder, run(folder, request(models, guarantee={"columns": {"days": {"minimum": 0}}}))
