"""The run folder: NSS's layout, the same bytes each time, and no adapter that is broken."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from nss_train.artifacts.adapter_file import inspect_adapter
from nss_train.artifacts.manifest import verify_manifest
from nss_train.artifacts.workdir import assemble
from nss_train.config import SafeSynthesizerParameters
from nss_train.contract import Event, ModelPolicy, Request
from nss_train.errors import DataError, ParameterError, StageLost

from .conftest import METADATA, SCHEMA

CONFIG = SafeSynthesizerParameters.model_validate({"data": {"random_state": 7}, "privacy": None})
REQUEST = Request(job_id="job-0000001", config=CONFIG, seed=1, policy=ModelPolicy(models_dir="."))
CSV = 'kind,size\na,1\n"two\nlines, and ""quotes""",2\n'


def put(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a stage folder with the outputs of the three earlier stages."""
    made, trained = tmp_path / "in/prepare_data", tmp_path / "in/train"
    put(made / "config.json", CONFIG.model_dump(mode="json"))
    put(made / "choices.json", [{"name": "learning_rate", "value": 0.0005, "reason": "a | b"}])
    put(made / "schema.json", SCHEMA)
    put(made / "metadata.json", METADATA)
    put(made / "training.csv", CSV)
    put(made / "test.csv", "kind,size\nb,2\n")
    put(
        trained / "log_history.json",
        [{"loss": 2.5, "step": 1}, {"loss": 1.5, "step": 2}, {"train_loss": 2.0}],
    )
    put(trained / "training_result.json", {"steps": 2, "tokens": 99, "seconds": 12.3456, "dtype": "float32"})
    adapter = {"base_model_name_or_path": "/scratch/in/model/base", "target_modules": ["v", "k"], "r": 4}
    put(trained / "adapter/adapter_config.json", adapter)
    weights = {"b": np.ones((2, 3), np.float32), "a": np.zeros(4, np.float32)}
    save_file(weights, trained / "adapter/adapter_model.safetensors")
    (trained / "adapter/optimizer.bin").write_bytes(b"not for keeping")
    (tmp_path / "out").mkdir()
    return tmp_path


def ignore(_event: Event) -> None:
    """Ignore the event."""


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_run_folder_has_the_files_that_nss_reads_and_no_others(folder: Path) -> None:
    assemble(folder, REQUEST, report=ignore)
    assert sorted(tree(folder / "out")) == [
        "dataset/test.csv",
        "dataset/training.csv",
        "manifest.json",
        "train/adapter/README.md",
        "train/adapter/adapter_config.json",
        "train/adapter/adapter_model.safetensors",
        "train/adapter/dataset_schema.json",
        "train/adapter/metadata_v2.json",
        "train/safe-synthesizer-config.json",
    ]


def test_the_manifest_of_the_run_folder_verifies(folder: Path) -> None:
    assemble(folder, REQUEST, report=ignore)
    assert len(verify_manifest(folder / "out")["files"]) == 8


def test_documents_are_written_as_nss_writes_them(folder: Path) -> None:
    assemble(folder, REQUEST, report=ignore)
    out = tree(folder / "out")
    assert out["train/adapter/metadata_v2.json"] == json.dumps(METADATA, indent=4).encode()
    assert out["train/adapter/dataset_schema.json"] == json.dumps(SCHEMA, indent=4).encode()
    written = json.loads(out["train/safe-synthesizer-config.json"])
    assert SafeSynthesizerParameters.model_validate(written) == CONFIG


def test_the_adapter_names_its_model_and_not_the_folder_it_was_trained_in(folder: Path) -> None:
    assemble(folder, REQUEST, report=ignore)
    config = json.loads((folder / "out/train/adapter/adapter_config.json").read_text())
    assert config == {"base_model_name_or_path": "toy-smollm2", "target_modules": ["k", "v"], "r": 4}


def test_the_same_inputs_give_the_same_bytes(folder: Path) -> None:
    assemble(folder, REQUEST, report=ignore)
    first = tree(folder / "out")
    adapter = json.loads((folder / "in/train/adapter/adapter_config.json").read_text())
    adapter |= {"base_model_name_or_path": "/elsewhere", "target_modules": ["k", "v"]}
    put(folder / "in/train/adapter/adapter_config.json", adapter)
    put(
        folder / "in/train/training_result.json", {"steps": 2, "tokens": 99, "seconds": 1, "dtype": "float32"}
    )
    assemble(folder, REQUEST, report=ignore)
    assert tree(folder / "out") == first


def test_without_a_holdout_there_is_no_test_table(folder: Path) -> None:
    (folder / "in/prepare_data/test.csv").unlink()
    assemble(folder, REQUEST, report=ignore)
    assert not (folder / "out/dataset/test.csv").exists()


def test_figures_and_event_describe_the_adapter(folder: Path) -> None:
    events: list[Event] = []
    result = assemble(folder, REQUEST, report=events.append)
    assert result.figures | {"adapter_bytes": 0, "bytes": 0, "adapter_sha256": ""} == {
        "files": 8,
        "bytes": 0,
        "adapter_bytes": 0,
        "adapter_sha256": "",
        "adapter_tensors": 2,
        "adapter_parameters": 10,
        "adapter_dtypes": ["F32"],
    }
    assert [event.action for event in events] == ["save.assembled"]


def test_the_card_states_table_training_choices_and_privacy(folder: Path) -> None:
    assemble(folder, REQUEST, report=ignore)
    card = (folder / "out/train/adapter/README.md").read_text()
    assert card.startswith('---\nbase_model: "toy-smollm2"\nlibrary_name: peft\nlicense: unknown\n')
    assert "trained without differential privacy; no formal privacy guarantee" in card
    assert "2 rows for training, 1 held out, 2 columns" in card
    assert "- first loss: 2.5\n- last loss: 1.5\n- mean loss: 2.0" in card
    assert "| learning_rate | 0.0005 | a \\| b |" in card
    assert "12.3456" not in card
    assert "/scratch" not in card


def test_the_card_quotes_no_cell_of_the_table(folder: Path) -> None:
    put(
        folder / "in/prepare_data/schema.json", {**SCHEMA, "properties": {"kind": {"enum": ["secret", None]}}}
    )
    assemble(folder, REQUEST, report=ignore)
    assert "secret" not in (folder / "out/train/adapter/README.md").read_text()


def test_weights_that_are_not_finite_are_refused_by_name(folder: Path) -> None:
    weights = {"good": np.ones(3, np.float32), "bad": np.array([1, np.nan], np.float32)}
    weights["worse"] = np.array([np.inf], np.float16)
    save_file(weights, folder / "in/train/adapter/adapter_model.safetensors")
    with pytest.raises(ParameterError, match="bad, worse"):
        assemble(folder, REQUEST, report=ignore)


def test_nothing_is_written_when_the_adapter_is_broken(folder: Path) -> None:
    (folder / "in/train/adapter/adapter_model.safetensors").unlink()
    with pytest.raises(StageLost):
        assemble(folder, REQUEST, report=ignore)
    assert tree(folder / "out") == {}


def a_file(folder: Path, header: bytes, data: bytes) -> Path:
    path = folder / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


@pytest.mark.parametrize(
    ("dtype", "value", "finite"),
    [
        ("BF16", b"\x80\x3f", True),
        ("BF16", b"\x7f\x7f", True),
        ("BF16", b"\x80\x7f", False),
        ("BF16", b"\xc0\xff", False),
        ("F8_E5M2", b"\x7b", True),
        ("F8_E5M2", b"\xfc", False),
        ("F8_E4M3", b"\x7e", True),
        ("F8_E4M3", b"\xff", False),
    ],
)
def test_floats_that_numpy_lacks_are_read_from_their_bits(
    tmp_path: Path, dtype: str, value: bytes, finite: bool
) -> None:
    data = bytes(len(value)) + value
    header = json.dumps({"x": {"dtype": dtype, "shape": [2], "data_offsets": [0, len(data)]}})
    path = a_file(tmp_path, header.encode(), data)
    if finite:
        assert inspect_adapter(path).dtypes == (dtype,)
    else:
        with pytest.raises(ParameterError, match="= 'x'"):
            inspect_adapter(path)


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"[" * 100_000,
        b'{"x": 5}',
        b'{"x": ["F32", [1], [0, 4]]}',
        b'{"x": {"dtype": "F32", "shape": [1]}}',
        b'{"x": {"dtype": "F33", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 4]}}',
        b'{"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
        b'{"x": {"dtype": "F32", "shape": [0], "data_offsets": [4, 4]}}',
    ],
    ids=lambda header: header[:64].decode(),
)
def test_an_adapter_whose_header_does_not_fit_it_is_a_lost_stage(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(StageLost, match="not a whole safetensors file"):
        inspect_adapter(a_file(tmp_path, header, bytes(4)))


@pytest.mark.parametrize("keep", [0, 5, 20, -1])
def test_an_adapter_cut_short_is_a_lost_stage(folder: Path, keep: int) -> None:
    path = folder / "in/train/adapter/adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StageLost):
        inspect_adapter(path)


def test_an_adapter_without_tensors_is_a_lost_stage(tmp_path: Path) -> None:
    save_file({}, tmp_path / "a.safetensors")
    with pytest.raises(StageLost, match="no tensor"):
        inspect_adapter(tmp_path / "a.safetensors")


def test_a_broken_document_is_a_data_error_that_names_it(folder: Path) -> None:
    put(folder / "in/prepare_data/schema.json", "{")
    with pytest.raises(DataError, match=r"schema\.json"):
        assemble(folder, REQUEST, report=ignore)


def test_saving_needs_no_torch() -> None:
    code = "import nss_train.artifacts.workdir, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_model_card_tells_warnings_of_the_table_where_there_are_some(folder: Path) -> None:
    assemble(folder, REQUEST, report=ignore)
    assert "## Warnings" not in (folder / "out/train/adapter/README.md").read_text()
    shutil.rmtree(folder / "out")
    (folder / "out").mkdir()
    put(folder / "in/prepare_data/warnings.json", ["zip: leading zeros lost in 3 cells"])
    assemble(folder, REQUEST, report=ignore)
    card = (folder / "out/train/adapter/README.md").read_text()
    assert "## Warnings\n\n- zip: leading zeros lost in 3 cells" in card
