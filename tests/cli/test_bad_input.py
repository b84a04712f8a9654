"""Every bad input: one clear message, the right exit code, nothing half-written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tasks.local.valkey import Valkey
from tasks.settings import Settings, worker_environment

GOOD_TABLE = "a,b\n1,x\n2,y\n3,z\n"
GOOD_CONFIG = "training:\n  lora_r: 4\n"
TEN_WRONG = """
training: {lora_r: 0, batch_size: 0, learning_rate: 3, weight_decay: 0, warmup_steps: 2.5}
data: {holdout: -1, order_training_examples_by: when}
privacy: {epsilon: 0}
generation: {top_p: 2}
evaluation: {sqs_report_rows: many}
"""
UNCOVERED = """
privacy: {dp_enabled: true}
training: {validation_ratio: 0.2}
guarantee: {schema_source: raw}
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command, what it is given, and what its message must say."""

    command: list[str]
    says: list[str]
    exit_code: int = 2
    files: dict[str, bytes] = field(default_factory=dict)
    broker_is_down: bool = False
    store: str = ""


CASES = {
    "missing file": Case(command=["run", "nothing.csv"], says=["nothing.csv", "no such file"]),
    "folder": Case(command=["run", "."], says=["a folder; give one file"]),
    "negative seed of examples": Case(
        command=["examples", "t.csv", "--model", ".", "--seed", "-1"], says=["Invalid value for '--seed'"]
    ),
    "empty file": Case(command=["run", "t.csv"], files={"t.csv": b""}, says=["the file is empty"]),
    "binary file": Case(command=["run", "t.csv"], files={"t.csv": b"\x7fELF\0\0\1"}, says=["binary content"]),
    "unknown format": Case(
        command=["run", "t.xls"], files={"t.xls": b"x"}, says=["unknown format", ".parquet"]
    ),
    "duplicate columns": Case(
        command=["run", "t.csv"], files={"t.csv": b"a,b,a\n1,2,3\n4,5,6\n"}, says=["['a']", "more than once"]
    ),
    "negative seed": Case(
        command=["run", "t.csv", "--seed", "-1"],
        files={"t.csv": b"a,b\n1,2\n3,4\n"},
        says=["seed = -1", "use 0 to"],
    ),
    "unknown key": Case(
        command=["run", "t.csv", "--config", "c.yaml"],
        files={"c.yaml": b"training: {lern_rate: 1}"},
        says=["training.lern_rate", "did you mean training.learning_rate?"],
    ),
    "ten wrong values": Case(
        command=["run", "t.csv", "--config", "c.yaml"],
        files={"c.yaml": TEN_WRONG.encode()},
        says=[
            "training.lora_r",
            "training.batch_size",
            "training.learning_rate",
            "training.weight_decay",
            "data.holdout",
            "privacy.epsilon",
            "generation.top_p",
            "evaluation.sqs_report_rows",
        ],
    ),
    "privacy": Case(
        command=["run", "t.csv", "--config", "c.yaml"],
        files={"c.yaml": UNCOVERED.encode()},
        says=[
            "training.validation_ratio = 0.2",
            "guarantee.schema_source = 'raw'",
            "guarantee.strict: false",
        ],
    ),
    "what nothing can be trained with": Case(
        command=["submit", "t.csv", "--config", "c.yaml"],
        files={
            "c.yaml": b"training: {lr_scheduler: cosin, quantize_model: true, quantization_scheme: fp8}\n"
            b"data: {max_sequences_per_example: -1, holdout: .nan}\ngeneration: {temperature: .inf}"
        },
        says=[
            "training.lr_scheduler = 'cosin': no such schedule; did you mean cosine?",
            "training.quantization_scheme = 'fp8': transformers trains no adapter on such weights",
            "data.max_sequences_per_example = -1: must be 1 or more",
            "data.holdout = nan: must be a finite number",
            "generation.temperature = inf: must be a finite number",
        ],
    ),
    "a schedule without the losses that it goes by": Case(
        command=["submit", "t.csv", "--config", "c.yaml"],
        files={"c.yaml": b"training: {lr_scheduler: reduce_lr_on_plateau}"},
        says=["training.lr_scheduler = 'reduce_lr_on_plateau': it goes by validation losses"],
    ),
    "weights that cannot be shared": Case(
        command=["submit", "t.csv", "--config", "c.yaml", "--fsdp", "--ranks", "1"],
        files={"c.yaml": b"privacy: {dp_enabled: true}\ntraining: {quantize_model: true}"},
        says=[
            "fsdp = True: the gradients of single units need whole layers",
            "fsdp = True: quantized weights stay whole on every rank",
            "fsdp = True: a single rank has no other rank to share with",
        ],
    ),
    "ranks that share no batch": Case(
        command=["submit", "t.csv", "--ranks", "3"], says=["ranks = 3: must divide the effective batch of 8"]
    ),
    "unknown job": Case(
        command=["status", "20990101-000000-abcdef01"], says=["Unknown job", "nss-train list"]
    ),
    "job id outside": Case(command=["status", "../../etc"], says=["Not a job id", "../../etc"]),
    "broker down": Case(
        command=["submit", "t.csv", "--config", "c.yaml"],
        says=["The broker does not answer", "127.0.0.1:9"],
        exit_code=3,
        broker_is_down=True,
    ),
    "store down": Case(
        command=["submit", "t.csv", "--config", "c.yaml"],
        says=["The store does not answer", "s3://none"],
        exit_code=3,
        store="s3://none",
    ),
}


def nss_train(
    case: Case, folder: Path, settings: Settings, *options: str
) -> subprocess.CompletedProcess[str]:
    for name, content in {"t.csv": GOOD_TABLE.encode(), "c.yaml": GOOD_CONFIG.encode(), **case.files}.items():
        (folder / name).write_bytes(content)
    command = [sys.executable, "-m", "tasks.cli", *case.command, *options]
    environment = worker_environment(settings)
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def settings_of(case: Case, tmp_path: Path, valkey: Valkey) -> Settings:
    update = {"store_url": case.store, "s3_endpoint": "127.0.0.1:9", "s3_secure": False}
    broker = "redis://127.0.0.1:9/0" if case.broker_is_down else valkey.url
    return Settings.model_validate({"home": tmp_path / "home", "broker_url": broker} | update)


@pytest.mark.parametrize("name", CASES)
def test_bad_input_gets_one_clear_message(name: str, tmp_path: Path, valkey: Valkey) -> None:
    case, folder = CASES[name], tmp_path / "work"
    folder.mkdir()
    done = nss_train(case, folder, settings_of(case, tmp_path, valkey))
    assert done.returncode == case.exit_code, done.stderr
    assert all(words in done.stderr for words in case.says), done.stderr
    assert "Traceback" not in done.stderr
    assert valkey.password not in done.stderr
    assert not list((tmp_path / "home").rglob("request.json"))


def test_with_json_an_error_is_one_object(tmp_path: Path, valkey: Valkey) -> None:
    case, folder = CASES["ten wrong values"], tmp_path / "work"
    folder.mkdir()
    done = nss_train(case, folder, settings_of(case, tmp_path, valkey), "--json")
    error = json.loads(done.stdout)["error"]
    assert error["type"] == "ParameterError"
    assert len(error["problems"]) == 10


def test_with_json_an_error_is_json_whatever_the_value(tmp_path: Path, valkey: Valkey) -> None:
    case, folder = CASES["what nothing can be trained with"], tmp_path / "work"
    folder.mkdir()
    done = nss_train(case, folder, settings_of(case, tmp_path, valkey), "--json")
    error = json.loads(done.stdout, parse_constant=pytest.fail)["error"]
    assert [p["value"] for p in error["problems"] if p["field"] == "data.holdout"] == ["nan"]


def test_pii_that_nobody_replaces_is_warned_of_where_the_job_is_submitted(
    tmp_path: Path, valkey: Valkey
) -> None:
    files = {"c.yaml": b"replace_pii: {steps: [{}]}"}
    case = Case(command=["submit", "t.csv", "--config", "c.yaml"], says=[], files=files)
    folder = tmp_path / "work"
    folder.mkdir()
    done = nss_train(case, folder, settings_of(case, tmp_path, valkey))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("replace_pii has no effect") == 1


EXAMPLES = {
    "one row": (b"a,b\n1,2\n", ["has 1 row;"]),
    "ragged rows": (b"a,b\n1,2\n3,4,5\n6,7,8\n", ["line 3", "line 4", "3 fields where the header has 2"]),
    "nothing but nulls": (b"a,b,c\n" + b"1,,\n" * 250, ["  - b", "  - c", "nothing but nulls"]),
    "not UTF-8": (b"a,b\n\xff\xfe,1\n2,3\n", ["not UTF-8"]),
    "too few rows": (b"a,b\n1,2\n3,4\n", ["rows = 2", "dataset.size"]),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_bad_table_is_named_by_the_preparation(
    name: str, base_model: Path, tmp_path: Path, settings: Settings
) -> None:
    content, says = EXAMPLES[name]
    command = ["examples", "t.csv", "--model", str(base_model), "--entry", "process_data"]
    done = nss_train(Case(command=command, says=says, files={"t.csv": content}), tmp_path, settings)
    assert done.returncode == 2, done.stderr
    assert all(words in done.stderr for words in says), done.stderr


def test_a_model_folder_with_a_pickle_is_refused(base_model: Path, tmp_path: Path) -> None:
    from nss_train.contract import ModelPolicy
    from nss_train.errors import ParameterError
    from nss_train.model.local.source import find_model

    folder = tmp_path / "SmolLM2-bad"
    folder.mkdir()
    shutil.copyfile(base_model / "config.json", folder / "config.json")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ParameterError) as caught:
        find_model(str(folder), ModelPolicy(models_dir=str(tmp_path)))
    said = str(caught.value)
    assert "pytorch_model.bin" in said
    assert "tokenizer.json is missing" in said
    assert "no .safetensors" in said


def test_doctor_says_what_is_missing_and_how_to_mend_it(tmp_path: Path, settings: Settings) -> None:
    done = nss_train(Case(command=["doctor"], says=[]), tmp_path, settings)
    assert done.returncode == 1
    assert "MISSING models" in done.stdout
    assert "nss-train model add smollm2" in done.stdout
    assert "ok      broker" in done.stdout
