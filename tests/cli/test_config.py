"""The config as the command line takes it: written, shown, checked, and set field by field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nss_train.config import parse_config
from nss_train.config.overrides import with_overrides
from nss_train.errors import ParameterError
from tasks import cli
from tasks.cli.nss_options import translated


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NSS_TRAIN_HOME", str(tmp_path / "home"))
    return tmp_path


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert cli.run(["config", "show", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_config_that_is_written_holds_the_defaults(folder: Path) -> None:
    assert cli.run(["config", "init", "job.yaml"]) == 0
    written = yaml.safe_load((folder / "job.yaml").read_text())
    without = {"data": {"random_state"}}
    assert parse_config(written).model_dump(exclude=without) == parse_config(
        {"replace_pii": None}
    ).model_dump(exclude=without)
    assert cli.run(["config", "validate", "job.yaml"]) == 0


def test_a_config_of_somebody_is_not_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "config.yaml").write_text("training: {lora_r: 7}")
    assert cli.run(["config", "init"]) == 2
    assert "exists" in capsys.readouterr().err
    assert (folder / "config.yaml").read_text() == "training: {lora_r: 7}"


def test_the_only_model_of_the_machine_is_named(folder: Path) -> None:
    (folder / "home" / "models" / "SmolLM2-mine").mkdir(parents=True)
    assert cli.run(["config", "init"]) == 0
    written = yaml.safe_load((folder / "config.yaml").read_text())
    assert written["training"]["pretrained_model"] == "SmolLM2-mine"


def test_validating_lists_every_problem(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "c.yaml").write_text("training: {lora_r: 0, lern_rate: 1}\ngeneration: {top_p: 2}")
    assert cli.run(["config", "validate", "c.yaml", "--set", "data.holdout=-1"]) == 2
    said = capsys.readouterr().err
    for field in ("training.lora_r", "training.lern_rate", "generation.top_p", "data.holdout"):
        assert field in said


def test_a_field_is_set_by_our_option_and_by_that_of_nss(capsys: pytest.CaptureFixture[str]) -> None:
    ours = shown(capsys, "--set", "training.lora_r=16", "--set", "training.learning_rate=2e-4")
    theirs = shown(capsys, "--training__lora_r", "16", "--training__learning_rate=2e-4")
    assert ours["training"] == theirs["training"]
    assert (ours["training"]["lora_r"], ours["training"]["learning_rate"]) == (16, 2e-4)


def test_a_section_is_left_out_as_nss_does_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "--no-replace-pii", "--no-privacy")["replace_pii"] is None


def test_set_takes_the_place_of_what_the_file_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "c.yaml").write_text("training: {lora_r: 8, batch_size: 2}")
    found = shown(capsys, "c.yaml", "--set", "training.lora_r=16")["training"]
    assert (found["lora_r"], found["batch_size"]) == (16, 2)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--set", "training.lora_rr=1"], "did you mean training.lora_r?"),
        (["--set", "lora_r"], "write FIELD=VALUE"),
        (["--set", "training..lora_r=1"], "write FIELD=VALUE"),
        (["--set", "training.lora_r=[1"], "is not YAML"),
        (["--set", "training=null", "--set", "training.lora_r=1"], "set as a whole, too"),
        (["--set", f"training.lora_r={'9' * 5000}"], "is not YAML"),
        (["--set", "training.lora_target_modules=q_proj,v_proj"], "write a list, such as [a, b]"),
        (["--set", "training=1"], "is a section, such as {name: value}"),
        (["--training__nothing", "1"], "training.nothing"),
    ],
)
def test_what_cannot_be_set_is_named(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["config", "show", *words]) == 2
    assert says in capsys.readouterr().err


UNREADABLE = {
    "a name that is there twice": (b"training: {lora_r: 16, lora_r: 8}", "'lora_r' is there twice"),
    "a section that is there twice": (b"data: {holdout: 1}\ndata: {}", "'data' is there twice"),
    "a date that does not exist": (b"training: {lora_r: 2026-02-30}", "line 1, column 20"),
    "more digits than Python converts": (b"training: {lora_r: " + b"9" * 5000 + b"}", "line 1, column 20"),
    "a word for a boolean": (b"privacy: {dp_enabled: !!bool maybe}", "line 1"),
    "letters of another encoding": ("training: {pretrained_model: Zürich}".encode("cp1252"), "UTF-8"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_yaml_cannot_give_is_refused_with_the_place(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, says = UNREADABLE[name]
    (folder / "c.yaml").write_bytes(content)
    assert cli.run(["config", "validate", "c.yaml"]) == 2
    assert says in capsys.readouterr().err


def test_the_name_of_a_merged_mapping_may_be_there_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "c.yaml").write_text(
        "unknown_fields: ignore\nx: &x {lora_r: 8, batch_size: 2}\ntraining: {<<: *x, lora_r: 16}"
    )
    found = shown(capsys, "c.yaml")["training"]
    assert (found["lora_r"], found["batch_size"]) == (16, 2)


def test_a_config_that_powershell_wrote_is_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "c.yaml").write_bytes("training: {lora_r: 16}".encode("utf-16"))
    assert shown(capsys, "c.yaml")["training"]["lora_r"] == 16


def test_a_device_without_an_end_is_no_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["config", "validate", "/dev/zero"]) == 2
    assert "has more than 1,048,576 bytes" in capsys.readouterr().err


@pytest.mark.parametrize("field", ["training.lora_r", "data.holdout", "training.learning_rate"])
def test_true_is_no_number(field: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["config", "show", "--set", f"{field}=yes"]) == 2
    assert "is no number" in capsys.readouterr().err


NAMES = st.from_regex(r"[a-z]{1,5}", fullmatch=True)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text('aé:#{- 0"', max_size=5)
    | st.lists(st.integers(), max_size=2)
)


@settings(max_examples=30)
@given(st.dictionaries(NAMES, st.dictionaries(NAMES, LEAVES, min_size=1, max_size=3), max_size=3), st.data())
def test_a_config_set_field_by_field_is_the_same_config(config: dict[str, Any], data: Any) -> None:
    fields = [(f"{s}.{f}", value) for s, section in config.items() for f, value in section.items()]
    overrides = [
        f"{name}={json.dumps(value, ensure_ascii=False)}"
        for name, value in data.draw(st.permutations(fields))
    ]
    assert with_overrides({}, overrides) == config


def test_what_stands_behind_two_dashes_stays_as_it_is() -> None:
    assert list(translated(["--a__b", "1", "--", "--c__d", "2"])) == ["--set", "a.b=1", "--", "--c__d", "2"]
    assert list(translated(["--a__b"])) == ["--a__b"]


def test_every_problem_of_the_overrides_is_told_at_once() -> None:
    with pytest.raises(ParameterError) as caught:
        with_overrides({}, ["nothing", "a.b={", "=1"])
    assert len(caught.value.problems) == 3
