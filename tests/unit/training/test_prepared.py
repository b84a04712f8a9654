"""The load_model stage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nss_train import stages
from nss_train.artifacts.manifest import verify_manifest
from nss_train.errors import ParameterError

from .conftest import make_request, prepare, read, silent


def test_a_prepared_model_is_complete_and_says_what_it_is(tiny_model: Path, tmp_path: Path) -> None:
    request = make_request(tiny_model)
    folder = prepare(tmp_path, request)
    result = stages.load_model(folder, request, report=silent)
    assert "adapter/adapter_model.safetensors" in verify_manifest(folder / "out" / "model")["files"]
    document = read(folder / "out" / "load_model.json")
    assert document["digest"] == result.model_digest
    assert document["dtype"] == "float32"
    assert document["dtype_reason"]


def test_the_same_inputs_give_the_same_bytes_and_another_seed_others(
    tiny_model: Path, tmp_path: Path
) -> None:
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        request = make_request(tiny_model, seed=seed)
        folder = prepare(tmp_path / name, request)
        digest = stages.load_model(folder, request, report=silent).model_digest
        found.append((digest, verify_manifest(folder / "out" / "model")["files"]))
    assert found[0] == found[1]
    assert found[0][0] != found[2][0]
    weights = "adapter/adapter_model.safetensors"
    assert found[0][1][weights] != found[2][1][weights]


def test_a_model_that_is_prepared_already_is_not_written_again(tiny_model: Path, tmp_path: Path) -> None:
    request = make_request(tiny_model)
    folder = prepare(tmp_path, request)
    digest = stages.load_model(folder, request, report=silent).model_digest
    shutil.rmtree(folder / "out" / "model")
    known = request.model_copy(update={"prepared": (digest,)})
    assert stages.load_model(folder, known, report=silent).model_digest == digest
    assert not (folder / "out" / "model").exists()


def test_what_an_interrupted_run_left_is_replaced(tiny_model: Path, tmp_path: Path) -> None:
    request = make_request(tiny_model)
    folder = prepare(tmp_path, request)
    left = folder / "out" / "model" / "base" / "left-over"
    left.parent.mkdir(parents=True)
    left.touch()
    stages.load_model(folder, request, report=silent)
    assert "base/left-over" not in verify_manifest(folder / "out" / "model")["files"]


def test_every_unknown_target_module_is_named(tiny_model: Path, tmp_path: Path) -> None:
    request = make_request(tiny_model, lora_target_modules=["q_proj", "wq", "wv"])
    folder = prepare(tmp_path, request)
    with pytest.raises(ParameterError) as caught:
        stages.load_model(folder, request, report=silent)
    assert [problem.value for problem in caught.value.problems] == ["wq", "wv"]
    assert not (folder / "out" / "model" / "manifest.json").exists()


def test_weights_that_are_cut_short_are_a_parameter_error(tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "smollm2-broken"
    shutil.copytree(tiny_model, model)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    request = make_request(model)
    folder = prepare(tmp_path, request)
    with pytest.raises(ParameterError, match="cannot be loaded"):
        stages.load_model(folder, request, report=silent)
