"""The load_model stage."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from nss_train import stages
from nss_train.artifacts.manifest import verify_manifest
from nss_train.contract import Request
from nss_train.errors import ParameterError
from nss_train.model import loading

from .conftest import make_request, prepare, read, silent


def test_a_prepared_model_is_complete_and_says_what_it_is(tiny_model: Path, tmp_path: Path) -> None:
    request = make_request(tiny_model)
    folder = prepare(tmp_path, request)
    result = stages.load_model(folder, request, report=silent)
    files = verify_manifest(folder / "out" / "model")["files"]
    assert "base/model.safetensors" in files
    assert not [name for name in files if not name.startswith("base/")]
    document = read(folder / "out" / "load_model.json")
    assert document["digest"] == result.model_digest
    assert document["dtype"] == "float32"
    assert document["dtype_reason"]


def test_a_private_training_needs_a_base_whose_rows_are_independent(tiny_model: Path, tmp_path: Path) -> None:
    base = tmp_path / "tiny"
    shutil.copytree(tiny_model, base)
    config = read(base / "config.json")
    config["rope_parameters"] |= {"rope_type": "dynamic", "factor": 2.0}
    (base / "config.json").write_text(json.dumps(config))
    sections = {"privacy": {"dp_enabled": True}, "guarantee": {"schema_source": "declared"}}
    for n, private in enumerate([{}, sections]):
        request = make_request(base, sections=private)
        folder = prepare(tmp_path / str(n), request)
        with nullcontext() if not private else pytest.raises(ParameterError, match="longest row of a batch"):
            stages.load_model(folder, request, report=silent)


def test_a_config_that_was_checked_at_submission_is_not_warned_of_again(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    request = make_request(tiny_model)
    folder = prepare(tmp_path, request)
    stored = folder / "in" / "prepare_data" / "config.json"
    config = read(stored) | {"replace_pii": {"steps": []}}
    stored.write_text(json.dumps(config))
    stages.load_model(folder, request, report=silent)
    assert "replace_pii" not in caplog.text


def prepared(root: Path, request: Request) -> tuple[str | None, dict[str, Any]]:
    """Return the digest of the prepared model, and its files."""
    folder = prepare(root, request)
    digest = stages.load_model(folder, request, report=silent).model_digest
    return digest, verify_manifest(folder / "out" / "model")["files"]


@pytest.mark.parametrize("options", [{}, {"quantize_model": True, "quantization_scheme": "bnb-4bit"}])
def test_jobs_with_other_seeds_and_adapters_share_a_prepared_model(
    options: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    one = prepared(tmp_path / "one", make_request(tiny_model, seed=1, **options))
    adapter = {"lora_r": 8, "lora_alpha_over_r": 2.0, "lora_target_modules": ["q_proj"]}
    assert one == prepared(tmp_path / "other", make_request(tiny_model, seed=2, **options | adapter))


def test_a_quantized_model_is_another_one(tiny_model: Path, tmp_path: Path) -> None:
    plain = prepared(tmp_path / "plain", make_request(tiny_model))
    schemes = [{"quantize_model": True, "quantization_scheme": name} for name in ("bnb-4bit", "bnb-8bit")]
    others = [
        prepared(tmp_path / str(i), make_request(tiny_model, **options)) for i, options in enumerate(schemes)
    ]
    assert len({digest for digest, _ in (plain, *others)}) == 3


def test_loftqs_adapter_is_prepared_for_its_settings_whatever_the_seed(
    tiny_model: Path, tmp_path: Path
) -> None:
    options = {"quantize_model": True, "quantization_scheme": "bnb-4bit", "peft_implementation": "loftq"}
    one, same, other = (
        prepared(tmp_path / str(i), make_request(tiny_model, seed=seed, lora_r=rank, **options))
        for i, (seed, rank) in enumerate([(1, 4), (2, 4), (1, 8)])
    )
    assert "adapter/adapter_model.safetensors" in one[1]
    assert one == same
    assert one[0] != other[0]


def test_a_model_is_prepared_without_its_weights_in_memory(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "load_base", None)
    request = make_request(tiny_model)
    folder = prepare(tmp_path, request)
    figures = stages.load_model(folder, request, report=silent).figures
    # q, k, v and o of 4 layers, rank 4: inputs and outputs of each matrix.
    assert figures["parameters_trainable"] == 4 * 4 * (128 + 96 + 96 + 128)


def test_a_model_that_is_prepared_already_is_not_written_again(tiny_model: Path, tmp_path: Path) -> None:
    request = make_request(tiny_model)
    folder = prepare(tmp_path, request)
    digest = stages.load_model(folder, request, report=silent).model_digest
    shutil.rmtree(folder / "out" / "model")
    known = request.model_copy(update={"prepared": (digest,)})
    result = stages.load_model(folder, known, report=silent)
    assert result.model_digest == digest
    assert result.figures["parameters_trainable"] > 0
    assert not (folder / "out" / "model").exists()


def test_what_an_interrupted_run_left_is_replaced(tiny_model: Path, tmp_path: Path) -> None:
    request = make_request(tiny_model)
    folder = prepare(tmp_path, request)
    left = folder / "out" / "model" / "base" / "left-over"
    left.parent.mkdir(parents=True)
    left.touch()
    stages.load_model(folder, request, report=silent)
    assert "base/left-over" not in verify_manifest(folder / "out" / "model")["files"]


@pytest.mark.parametrize("is_prepared", [False, True])
def test_every_unknown_target_module_is_named(is_prepared: bool, tiny_model: Path, tmp_path: Path) -> None:
    request = make_request(tiny_model, lora_target_modules=["q_proj", "wq", "wv"])
    if is_prepared:
        digest, _ = prepared(tmp_path / "other", make_request(tiny_model))
        request = request.model_copy(update={"prepared": (digest,)})
    folder = prepare(tmp_path, request)
    with pytest.raises(ParameterError) as caught:
        stages.load_model(folder, request, report=silent)
    assert [problem.value for problem in caught.value.problems] == ["wq", "wv"]
    assert not (folder / "out" / "model" / "manifest.json").exists()


@pytest.mark.parametrize("end", [1000, -1])
def test_weights_that_are_cut_short_are_a_parameter_error(end: int, tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "smollm2-broken"
    shutil.copytree(tiny_model, model)
    request = make_request(model)
    folder = prepare(tmp_path, request)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:end])
    with pytest.raises(ParameterError, match=r"model\.safetensors"):
        stages.load_model(folder, request, report=silent)


def test_weights_under_a_name_that_is_not_looked_for_are_a_parameter_error(
    tiny_model: Path, tmp_path: Path
) -> None:
    model = tmp_path / "smollm2-renamed"
    shutil.copytree(tiny_model, model)
    (model / "model.safetensors").rename(model / "weights.safetensors")
    with pytest.raises(ParameterError, match=r"neither model\.safetensors nor"):
        prepare(tmp_path, make_request(model))
