"""Rows sampled from a real, tiny model."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from rich.console import Console

from nss_train.artifacts.__main__ import main
from nss_train.artifacts.generator import Generator
from nss_train.artifacts.preview import Stopped, sample
from nss_train.artifacts.prompt import first_budget, max_new_tokens, schema_prompt
from nss_train.artifacts.sampling import Sampling
from nss_train.artifacts.table import row_table, write_csv
from nss_train.errors import DataError, GenerationError, ParameterError

from .conftest import METADATA, SCHEMA, make_run

CALM = Sampling(temperature=0.5)


def adapter_of(run: Path) -> Path:
    return run / "train/adapter"


def test_as_many_rows_as_asked_come_back_and_each_fits_the_schema(toy_base: Path, toy_run: Path) -> None:
    preview = sample(toy_base, adapter_of(toy_run), rows=5, seed=1, sampling=CALM)
    assert (len(preview.rows), preview.stopped, preview.columns) == (5, Stopped.COMPLETE, ("kind", "size"))
    assert [row for row in preview.rows if not Draft202012Validator(SCHEMA).is_valid(row)] == []


def test_the_same_seed_gives_the_same_rows(toy_base: Path, toy_run: Path) -> None:
    first, second = (
        sample(toy_base, adapter_of(toy_run), rows=6, seed=9, sampling=Sampling(temperature=1.2))
        for _ in range(2)
    )
    assert replace(first, seconds=0.0) == replace(second, seconds=0.0)


def test_without_a_seed_two_previews_differ(toy_base: Path, toy_run: Path) -> None:
    hot = Sampling(temperature=1.0)
    drawn = [sample(toy_base, adapter_of(toy_run), rows=30, sampling=hot).rows for _ in range(2)]
    assert drawn[0] != drawn[1]


def test_temperature_zero_is_greedy(toy_base: Path, toy_run: Path) -> None:
    greedy = Sampling(temperature=0.0)
    rows = [sample(toy_base, adapter_of(toy_run), rows=2, seed=s, sampling=greedy).rows for s in (1, 2)]
    assert rows[0] == rows[1]


def test_the_adapter_takes_part_in_sampling(toy_base: Path, tmp_path: Path) -> None:
    noisy = make_run(toy_base, tmp_path, noise=50.0)
    preview = sample(toy_base, adapter_of(noisy), rows=5, seed=1, sampling=CALM)
    assert (preview.rows, preview.stopped) == ((), Stopped.PATIENCE)


def test_invalid_records_are_counted_by_class_and_sampling_gives_up(toy_base: Path, tmp_path: Path) -> None:
    run = make_run(toy_base, tmp_path, noise=0.0)
    narrow = {**SCHEMA, "properties": {**SCHEMA["properties"], "kind": {"enum": ["c"]}}}
    (adapter_of(run) / "dataset_schema.json").write_text(json.dumps(narrow))
    preview = sample(toy_base, adapter_of(run), rows=4, seed=1, sampling=CALM)
    told = "enum in column kind"
    assert (preview.valid, set(preview.reasons), preview.stopped) == (0, {told}, Stopped.PATIENCE)
    assert preview.invalid == preview.reasons[told] >= 3
    assert "is not one of ['c']" in preview.examples[told]


def test_special_tokens_are_not_in_the_text(toy_base: Path, toy_run: Path) -> None:
    generator = Generator.load(
        toy_base, adapter_of(toy_run), metadata=METADATA, columns=("kind", "size"), sampling=CALM, seed=1
    )
    texts = generator.run(2).texts
    assert texts[0].startswith('{"kind":')
    assert "<" not in "".join(texts)


def test_generation_stops_when_the_batch_has_enough_lines(toy_base: Path, toy_run: Path) -> None:
    generator = Generator.load(
        toy_base, adapter_of(toy_run), metadata=METADATA, columns=("kind", "size"), sampling=CALM, seed=1
    )
    completions = generator.run(1, scale=100)
    assert completions.texts[0].count("\n") == 1
    assert completions.tokens < 40


def test_a_prompt_that_fills_the_context_is_a_generation_error(toy_base: Path, tmp_path: Path) -> None:
    run = make_run(toy_base, tmp_path, noise=0.0)
    short = {**METADATA, "base_max_seq_length": 20}
    (adapter_of(run) / "metadata_v2.json").write_text(json.dumps(short))
    with pytest.raises(GenerationError, match="at most 20 tokens"):
        sample(toy_base, adapter_of(run), rows=1)


def test_a_missing_base_and_no_rows_are_told_together(toy_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ParameterError) as caught:
        sample(tmp_path, adapter_of(toy_run), rows=0)
    assert [problem.field for problem in caught.value.problems] == ["rows", "base"]


def test_a_folder_that_is_no_adapter_is_a_data_error(toy_base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"metadata_v2\.json"):
        sample(toy_base, tmp_path, rows=1)


def test_the_prompt_is_the_one_of_training() -> None:
    metadata = {**METADATA, "instruction": "Generate a JSONL dataset with the following columns: "}
    assert schema_prompt(metadata, ["id", 'a"b', "{x}"]) == (
        "user\n Generate a JSONL dataset with the following columns:  "
        '"id":<unk>,"a"b":<unk>,"{x}":<unk> \n assistant\n'
    )


@pytest.mark.parametrize(
    ("changes", "prompt_tokens", "multiplier", "expected"),
    [
        ({"max_tokens_per_example": 100}, 50, None, 120),
        ({"max_tokens_per_example": 100}, 50, 1.5, 150),
        ({"max_tokens_per_example": 100}, 200, 1.2, 56),
        ({"max_tokens_per_example": None}, 56, 1.2, 200),
        ({"max_tokens_per_example": 100}, 256, 1.2, 0),
        ({"max_tokens_per_example": None, "rope_scaling": {"factor": 2.0}}, 12, 1.2, 500),
        ({"max_tokens_per_example": None, "base_max_seq_length": None}, 48, 1.2, 2000),
    ],
)
def test_new_tokens_follow_the_reference_formula(
    changes: dict[str, Any], prompt_tokens: int, multiplier: float | None, expected: int
) -> None:
    assert max_new_tokens({**METADATA, **changes}, prompt_tokens, multiplier) == expected


def test_the_first_budget_is_an_estimate_below_the_limit() -> None:
    penguins = {**METADATA, "max_tokens_per_example": 835, "max_sequences_per_example": 10}
    assert first_budget(penguins, 83, 2, 1002) == int(3 * 75.2 * 1.2) + 8
    assert first_budget({**penguins, "max_sequences_per_example": None}, 83, 2, 1002) == 1002


def test_sampling_reads_its_part_of_a_config() -> None:
    generation = {"temperature": 0.3, "num_records": 5, "validation": {"enforce_numeric_range": False}}
    assert Sampling.of(generation) == Sampling(temperature=0.3, enforce_numeric_range=False)


@pytest.mark.heavy
def test_the_module_prints_one_json_object(toy_base: Path, toy_run: Path) -> None:
    command = [sys.executable, "-m", "nss_train.artifacts", str(toy_run), "--base", str(toy_base)]
    done = subprocess.run(
        [*command, "--rows", "2", "--seed", "1", "--json"], capture_output=True, text=True, check=True
    )
    document = json.loads(done.stdout)
    assert (len(document["rows"]), document["stopped"], done.returncode) == (2, "complete", 0)


def test_a_user_error_leaves_exit_code_two_and_is_told_twice(
    toy_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([str(toy_run), "--base", str(tmp_path), "--json"])
    told = capsys.readouterr()
    assert (code, json.loads(told.out)["error"]["type"]) == (2, "ParameterError")
    assert "base" in told.err


def test_a_run_folder_that_is_none_is_a_user_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "--base", str(tmp_path)]) == 2
    assert "safe-synthesizer-config.json" in capsys.readouterr().err


def test_a_grouped_adapter_cannot_be_previewed(
    toy_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(toy_base, tmp_path, noise=0.0)
    path = run / "train/safe-synthesizer-config.json"
    config = json.loads(path.read_text())
    config["data"]["group_training_examples_by"] = "kind"
    path.write_text(json.dumps(config))
    assert main([str(run), "--base", str(toy_base)]) == 2
    assert "group_training_examples_by" in capsys.readouterr().err


def test_the_table_shows_rows_share_and_csv_file(
    toy_base: Path, toy_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "rows.csv"
    assert (
        main([str(toy_run), "--base", str(toy_base), "--rows", "3", "--seed", "1", "--csv", str(target)]) == 0
    )
    assert "records valid" in capsys.readouterr().out
    assert len(target.read_text().splitlines()) == 4


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n=", "＝"])
def test_text_that_a_spreadsheet_would_run_is_quoted(tmp_path: Path, start: str) -> None:
    write_csv(tmp_path / "x.csv", [{start + "c": start + "1+1"}], [start + "c"])
    with (tmp_path / "x.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["'" + start + "c"], ["'" + start + "1+1"]]


def test_numbers_and_gaps_stay_what_they_are_in_csv(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", [{"a": -1.5, "b": None, "c": True, "d": [1], "e": -3}], list("abcde"))
    assert (tmp_path / "x.csv").read_text() == "a,b,c,d,e\n-1.5,,True,[1],-3\n"


def test_cells_are_neither_markup_nor_control_codes(capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=80).print(row_table([{"a": "[red]x[/red]\x1b[31m"}], ["a"]))
    out = capsys.readouterr().out
    assert "[red]x[/red]" in out
    assert "\x1b[31m" not in out
