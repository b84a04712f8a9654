"""Code written against NSS's page of the backend runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, Trainer

from nss_train import backend as backend_module
from nss_train.backend import HuggingFaceBackend, ParameterError, Workdir
from nss_train.config import parse_config
from nss_train.errors import DataError, NotInstalled
from nss_train.model.loading import load_base
from nss_train.privacy.dpsgd.trainer import OpacusDPTrainer

Make = Callable[..., HuggingFaceBackend]


@pytest.fixture
def make(tiny_model: Path, tmp_path: Path) -> Make:
    def backend(**options: Any) -> HuggingFaceBackend:
        training = {"pretrained_model": str(tiny_model), "num_input_records_to_sample": 120, "lora_r": 4}
        config = parse_config(
            {
                "training": training | options.pop("training", {}),
                "data": {"holdout": 0},
                "privacy": options.pop("privacy", {}),
                "guarantee": options.pop(
                    "guarantee", {"columns": {"name": {"type": "string"}, "size": {"type": "integer"}}}
                ),
            }
        )
        frame = pd.DataFrame({"name": [f"bird {i % 7}" for i in range(120)], "size": range(120)})
        given = {"training_dataset": Dataset.from_pandas(frame), "workdir": Workdir(base_path=tmp_path)}
        return HuggingFaceBackend(params=config, model_metadata=None, seed=1, **(given | options))

    return backend


def test_the_whole_flow(make: Make, tiny_model: Path) -> None:
    backend = make(verbose_logging=True, maybe_split_dataset=True, artifact_path=None)
    backend.train()
    results, adapter = backend.results, Path(backend.workdir.train.adapter)
    assert results.training_complete
    assert results.adapter_path == adapter
    assert len(results.training_df) == 120
    assert results.df_ml_utility_holdout is None
    assert [entry for entry in results.log_history if "loss" in entry]
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), adapter)
    assert json.loads(backend.workdir.train.adapter.schema.read_text()) == backend.dataset_schema
    assert not hasattr(backend, "model")


def test_a_private_flow(make: Make) -> None:
    backend = make(privacy={"dp_enabled": True, "epsilon": 2.0})
    backend.train()
    assert backend.trainer_type is OpacusDPTrainer
    document = json.loads((Path(backend.workdir.train) / "privacy.json").read_text())
    assert 0 < document["result"]["epsilon_spent"] <= 2.0
    assert document["result"]["steps_applied"] == document["plan"]["steps"]
    assert "guarantee" not in json.loads(backend.workdir.train.config.read_text())
    assert not [entry for entry in backend.results.log_history if "loss" in entry]
    assert document["plan"]["adjacency"] == "zero-out"
    key = Path(backend.workdir.private.key)
    assert (key.stat().st_mode & 0o777, key.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert len(key.read_bytes()) == 32
    _assert_its_key_is_needed(make, backend.workdir, document["plan"]["dataset"])


def test_a_private_config_is_refused_where_the_extra_is_missing(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nss_train.extras.is_installed", lambda package: package != "opendp")
    with pytest.raises(NotInstalled, match="nss-train\\[private\\]"):
        make(privacy={"dp_enabled": True, "epsilon": 2.0})
    assert make().trainer_type is Trainer


def _assert_its_key_is_needed(make: Make, workdir: Workdir, dataset: str) -> None:
    """Assert that the run's name follows from its key, without which the split cannot be repeated."""
    again = make(privacy={"dp_enabled": True, "epsilon": 2.0}, workdir=workdir)
    again.prepare_training_data()
    assert again.prepared.plan is not None
    assert again.prepared.plan.dataset == dataset
    assert dataset.startswith("job-")
    Path(workdir.private.key).unlink()
    with pytest.raises(ParameterError, match="its key is missing, so that the holdout cannot be repeated"):
        again.prepare_training_data()


def test_a_private_frame_needs_its_columns_declared(make: Make) -> None:
    backend = make(privacy={"dp_enabled": True}, guarantee={})
    with pytest.raises(ParameterError, match=r"guarantee\.columns = 'name, size'"):
        backend.prepare_training_data()


def test_samples_of_a_half_trained_private_adapter_are_refused(make: Make) -> None:
    with pytest.raises(ParameterError, match="generation_eval"):
        make(privacy={"dp_enabled": True}, generation_eval=True)


@pytest.mark.parametrize(("private", "expected"), [(True, {"": 0}), (False, "auto")])
def test_a_private_model_is_not_spread_over_devices(
    private: bool, expected: object, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def load(*args: Any, placement: object = "auto", **options: Any) -> Any:
        asked.append(placement)
        return load_base(*args, **options)

    monkeypatch.setattr(backend_module, "load_base", load)
    make(privacy={"dp_enabled": private}).load_model()
    assert asked == [expected]


def test_the_methods_one_by_one_and_twice(make: Make) -> None:
    backend = make()
    for _ in range(2):
        backend.prepare_config()
        backend.load_model()
        backend.maybe_quantize()
        backend.prepare_training_data()
        backend.prepare_params(anything="is ignored")
        backend.save_model()
        backend.info()
    assert isinstance(backend.model, PeftModel)
    assert backend.data_fraction == 1.0
    assert backend.true_dataset_size == 120
    for _ in range(2):
        backend.teardown()
    assert not hasattr(backend, "trainer")


@pytest.mark.parametrize(
    ("method", "first"),
    [
        ("maybe_quantize", "load_model"),
        ("prepare_params", "prepare_training_data"),
        ("save_model", "dataset_schema"),
    ],
)
def test_what_is_called_too_early_says_what_is_missing(make: Make, method: str, first: str) -> None:
    with pytest.raises(ParameterError, match=first):
        getattr(make(), method)()


def test_teardown_may_come_first_and_after_a_failure(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = make()
    backend.teardown()
    monkeypatch.setattr(backend, "save_model", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        backend.train()
    assert not hasattr(backend, "model")


def test_without_data_or_workdir_there_is_a_clear_error(make: Make) -> None:
    with pytest.raises(DataError, match="training_dataset must be set"):
        make(training_dataset=None).prepare_training_data()
    with pytest.raises(ValueError, match="workdir is required"):
        make(workdir=None)


def test_the_same_seed_gives_the_same_examples(make: Make) -> None:
    first, second = make(), make()
    for backend in (first, second):
        backend.prepare_training_data()
    assert first.training_examples["train"][0] == second.training_examples["train"][0]


def test_early_stop_by_quality_is_said_in_the_result(make: Make) -> None:
    training = {"validation_ratio": 0.1, "validation_steps": 1, "num_input_records_to_sample": 240}
    backend = make(generation_eval=True, training=training)
    backend.train()
    assert not backend.results.training_complete
    assert {"training_incomplete": "no_records"} in backend.results.log_history
