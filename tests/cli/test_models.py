"""Base models are added after a job's checks, and removed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nss_train.errors import InfrastructureError, ParameterError
from nss_train.model.local.adding import add_model
from tasks import cli
from tasks.client import Client
from tasks.local.valkey import Valkey
from tasks.settings import Settings


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NSS_TRAIN_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "models"


def copied(model: Path, to: Path) -> Path:
    shutil.copytree(model, to)
    (to / "README.md").write_text("not part of the model")
    return to


def test_a_model_is_copied_listed_and_removed(
    models: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = copied(tiny_model, tmp_path / "SmolLM2-mine")
    assert add_model(str(source), models) == models / "SmolLM2-mine"
    weights = "model.safetensors"
    assert (models / "SmolLM2-mine" / weights).read_bytes() == (source / weights).read_bytes()
    assert not (models / "SmolLM2-mine" / "README.md").exists()
    assert cli.run(["model", "list", "--json"]) == 0
    assert cli.run(["model", "rm", "SmolLM2-mine"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0]) == {"models": ["SmolLM2-mine"]}
    assert list(models.iterdir()) == []


def test_of_a_linked_model_the_link_alone_is_removed(models: Path, tiny_model: Path, tmp_path: Path) -> None:
    source = copied(tiny_model, tmp_path / "SmolLM2-mine")
    assert add_model(str(source), models, link=True).is_symlink()
    assert cli.run(["model", "rm", "SmolLM2-mine"]) == 0
    assert (source / "config.json").is_file()
    assert list(models.iterdir()) == []


def test_a_model_that_no_job_would_take_is_not_added(models: Path, tiny_model: Path, tmp_path: Path) -> None:
    source = copied(tiny_model, tmp_path / "SmolLM2-bad")
    (source / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (source / "tokenizer_config.json").unlink()
    with pytest.raises(ParameterError) as caught:
        add_model(str(source), models)
    assert "pytorch_model.bin" in str(caught.value)
    assert "tokenizer_config.json is missing" in str(caught.value)
    assert not models.exists()


def test_a_model_is_not_overwritten(models: Path, tiny_model: Path) -> None:
    add_model(str(tiny_model), models, link=True)
    with pytest.raises(ParameterError, match="is there already"):
        add_model(str(tiny_model), models)


def test_a_hub_out_of_reach_is_said_with_what_to_do(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InfrastructureError) as caught:
        add_model("nobody/has-this-model", models)
    assert "nss-train model add PATH" in str(caught.value)


@pytest.mark.parametrize("name", ["nothing", "../models", ".", "a/b/c", ""])
def test_what_is_neither_folder_nor_name_is_refused(name: str, models: Path) -> None:
    with pytest.raises(ParameterError):
        add_model(str(models / name) if name in {"..", "."} else name, models)


@pytest.mark.parametrize("name", ["nothing", "../home", ".", "", "/"])
def test_only_a_model_that_is_listed_is_removed(name: str, models: Path, tmp_path: Path) -> None:
    models.mkdir(parents=True)
    assert cli.run(["model", "rm", name]) == 2
    assert models.is_dir()


@pytest.mark.parametrize(
    ("there", "name", "said"),
    [
        ((), "SmolLM2-tiny", "has none: `nss-train model add smollm2`"),
        (
            ("SmolLM2-tiny",),
            "HuggingFaceTB/smollm2-tinny",
            "did you mean SmolLM2-tiny? `nss-train model add`",
        ),
        (("Llama", "Qwen"), "nothing-like-it", "which has Llama, Qwen; `nss-train model add`"),
    ],
)
def test_an_unknown_base_model_ends_a_run_before_anything_is_started(
    there: tuple[str, ...],
    name: str,
    said: str,
    models: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for one in there:
        (models / one).mkdir(parents=True)
    table = models.parents[1] / "t.csv"
    table.write_text("a,b,a\n1,2,3\n4,5,6\n")
    assert cli.run(["run", str(table), "--set", f"training.pretrained_model={name}"]) == 2
    out = capsys.readouterr()
    assert said in out.err
    assert "['a']" in out.err  # what is wrong with the table is told at the same time
    assert "starting" not in out.out


def test_submit_warns_of_a_model_that_this_machine_does_not_have(
    models: Path, valkey: Valkey, tmp_path: Path
) -> None:
    table = tmp_path / "t.csv"
    table.write_text("a,b\n1,x\n2,y\n3,z\n")
    client = Client(Settings.model_validate({"home": models.parent, "broker_url": valkey.url}))
    config = {"training": {"pretrained_model": "SmolLM2-tinny"}}
    assert client.foreseen_warnings(table=table, config=config) == []  # it has none: workers may have any
    (models / "SmolLM2-tiny").mkdir(parents=True)
    (warning,) = client.foreseen_warnings(table=table, config=config)
    assert "training.pretrained_model = 'SmolLM2-tinny'" in warning
    assert "did you mean SmolLM2-tiny?" in warning
    assert warning.endswith("The job ends there unless the workers have it")


def test_a_model_is_verified_by_its_name_and_what_differs_is_named(
    models: Path, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = copied(tiny_model, tmp_path / "SmolLM2-mine")
    assert cli.run(["model", "add", str(source)]) == 0
    (known,) = (models.parent / "known").iterdir()
    there = {path.name for path in (models / "SmolLM2-mine").iterdir()}
    assert set(json.loads(known.read_text())["files"]) == there
    assert cli.run(["model", "verify", "SmolLM2-mine"]) == 0
    assert "files, as before" in capfd.readouterr().out
    (models / "SmolLM2-mine" / "chat_template.jinja").write_text("{{ messages }}")
    (models / "SmolLM2-mine" / "generation_config.json").write_text("{}")
    assert cli.run(["model", "verify", "SmolLM2-mine"]) == 2
    assert "generation_config.json" in capfd.readouterr().err
    assert cli.run(["model", "verify", "SmolLM2-other"]) == 2
