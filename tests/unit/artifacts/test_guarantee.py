"""The release of a private job: the tree, the card, and never more than was paid for."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from jsonschema import Draft202012Validator
from safetensors.numpy import save_file

from nss_train.artifacts.workdir import assemble
from nss_train.config import SafeSynthesizerParameters, parse_config
from nss_train.config.sections.guarantee import ColumnType, SchemaSource
from nss_train.contract import Event, ModelPolicy, Request
from nss_train.data.auto_values import resolve_privately
from nss_train.data.schema import make_schema
from nss_train.data.tokenization.distinct_values import distinct_columns, to_arrow
from nss_train.errors import BudgetExceeded, StageLost
from nss_train.model.family import FAMILIES
from nss_train.privacy.draw import InMemory
from nss_train.privacy.schema.publication import Publication, Publisher
from nss_train.privacy.units import UnitLimits, find_units
from tests.unit.privacy.tables import private_table

from .conftest import METADATA

UNITS = 400
RESULT = {"steps_applied": 98, "epsilon_spent": 7.91234, "delta": 1e-5, "audit": None, "loss_reported": False}


def table() -> pd.DataFrame:
    return pd.DataFrame({"kind": ["a", "b"] * (UNITS // 2), "size": [float(i % 90) for i in range(UNITS)]})


def put(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))


def private(**guarantee: Any) -> SafeSynthesizerParameters:
    privacy = {"dp_enabled": True, "epsilon": 8.0, "delta": 1e-5}
    training = {"num_input_records_to_sample": 2 * UNITS}
    return parse_config({"privacy": privacy, "training": training, "guarantee": guarantee})


@functools.cache
def published(source: SchemaSource, report_loss: bool) -> Publication:
    """Return what is published for a kind of config; the search for its noise takes seconds."""
    config = private(schema_source=source, report_loss=report_loss, strict=False)
    types = {"kind": ColumnType.STRING, "size": ColumnType.NUMBER}
    columns = private_table(table().to_dict(orient="list"), types)
    resolved = resolve_privately(config, family=FAMILIES[0])
    publisher = Publisher(
        resolved=resolved,
        types=types,
        places=UNITS,
        dataset="0123abcd",
        holds_out=False,
        keeper=InMemory(),
    )
    each = np.ones(UNITS, dtype=np.int64)
    return publisher.publish(columns, find_units(columns, each, config, UnitLimits(tokens_per_record=1)))


def prepared(folder: Path, config: SafeSynthesizerParameters, **result: Any) -> Request:
    """Make a stage folder with what the earlier stages of a private job leave; return its request."""
    made, trained = folder / "in/prepare_data", folder / "in/train"
    found = published(config.guarantee.schema_source, config.guarantee.report_loss)
    put(made / "config.json", config.model_dump(mode="json"))
    choices = [{"name": c.name, "value": c.value, "reason": c.reason} for c in found.resolved.choices]
    put(made / "choices.json", choices)
    # A raw schema is no publication: prepare_data makes it from the training rows.
    put(made / "schema.json", found.schema or make_schema(distinct_columns(to_arrow(table()))))
    put(made / "metadata.json", METADATA)
    put(made / "privacy.json", found.plan.model_dump(mode="json"))
    if not config.strictly_private:
        put(made / "training.csv", table().to_csv(index=False))
        put(made / "test.csv", "kind,size\na,1\n")
    put(trained / "log_history.json", [{"loss": 2.5, "step": 1}, {"loss": 1.5, "step": 2}])
    put(trained / "training_result.json", {"steps": 98, "tokens": 4321, "dtype": "float32"})
    put(trained / "privacy_result.json", RESULT | result)
    put(trained / "adapter/adapter_config.json", {"base_model_name_or_path": "x", "r": 4})
    save_file({"a": np.ones(4, np.float32)}, trained / "adapter/adapter_model.safetensors")
    (folder / "out").mkdir()
    return Request(job_id="job-0000001", config=config, seed=1, policy=ModelPolicy(models_dir="."))


def ignore(_event: Event) -> None:
    """Ignore the event."""


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def card(folder: Path) -> str:
    return (folder / "out/train/adapter/README.md").read_text()


@pytest.mark.heavy
def test_a_strict_job_releases_no_table(tmp_path: Path) -> None:
    assemble(tmp_path, prepared(tmp_path, private()), report=ignore)
    assert files(tmp_path / "out") == [
        "manifest.json",
        "train/adapter/README.md",
        "train/adapter/adapter_config.json",
        "train/adapter/adapter_model.safetensors",
        "train/adapter/dataset_schema.json",
        "train/adapter/metadata_v2.json",
        "train/privacy.json",
        "train/safe-synthesizer-config.json",
    ]
    assert "give it the table that you submitted" in card(tmp_path)


def test_plan_and_result_are_one_document(tmp_path: Path) -> None:
    assemble(tmp_path, prepared(tmp_path, private()), report=ignore)
    document = json.loads((tmp_path / "out/train/privacy.json").read_text())
    assert document["plan"] == json.loads((tmp_path / "in/prepare_data/privacy.json").read_text())
    assert RESULT.items() <= document["result"].items()


@pytest.mark.heavy
def test_the_card_states_the_guarantee(tmp_path: Path) -> None:
    assemble(tmp_path, prepared(tmp_path, private()), report=ignore)
    said = card(tmp_path)
    assert published(SchemaSource.PRIVATE, report_loss=False).plan.promise() in said
    for line in (
        "about (2ε, (1 + exp(ε))·δ)",
        "`guarantee.unit_column` makes all records of a person one unit",
        "- unit of privacy: record",
        "- n: 400 places, the rows of the file",
        # Rounded up: never less than what was spent.
        "- ε: 7.9124 spent of 8",
        "- sampling rate q: 0.02",
        "- expected batch: 8 units",
        "- steps: 98 of 102 planned",
        "- clipping: the gradient of each unit to an ℓ2 norm of 1",
        "- by-products: count for ε = 0.08 and δ = 0; schema for ε = 0.8 and δ = 1e-06",
        "- budget: charged to `0123abcd`",
        "n = 400 units of privacy, 2 columns.",
    ):
        assert line in said
    assert "- noise multiplier σ: " in said


def test_the_card_says_what_is_proved_what_is_public_what_is_made_harder_and_what_is_neither(
    tmp_path: Path,
) -> None:
    assemble(tmp_path, prepared(tmp_path, private()), report=ignore)
    parts = card(tmp_path).split("### ")
    said = {part.partition("\n")[0]: part for part in parts}
    for heading, words in (
        ("Covered by the guarantee", "digests of published files"),
        ("Public by definition", "types that the config or the file's own schema declares"),
        ("Public by definition", "- n\n"),
        ("Made harder, not proved", "single steps"),
        ("Not covered by the guarantee", "a stop-watch"),
        ("Not covered by the guarantee", "a precondition"),
        ("Not covered by the guarantee", "caches, power, swap"),
        ("Not covered by the guarantee", "`private/`"),
    ):
        assert words in said[heading]
    assert "stray quote" not in card(tmp_path)


def test_the_card_names_what_cells_with_line_breaks_assume(tmp_path: Path) -> None:
    assemble(tmp_path, prepared(tmp_path, private(multiline_cells=True)), report=ignore)
    assert "no correct program wrote" in card(tmp_path)


def test_the_card_of_a_strict_job_shows_no_loss_and_no_count(tmp_path: Path) -> None:
    assemble(tmp_path, prepared(tmp_path, private()), report=ignore)
    said = card(tmp_path)
    assert "loss:" not in said
    assert "4321" not in said
    assert "rows for training" not in said


@pytest.mark.heavy
def test_losses_with_noise_are_shown(tmp_path: Path) -> None:
    asked = prepared(tmp_path, private(report_loss=True), loss_reported=True)
    assemble(tmp_path, asked, report=ignore)
    assert "- first loss: 2.5" in card(tmp_path)
    assert "the reported losses, which hold noise" in card(tmp_path)


def test_an_audit_is_shown_beside_the_claim(tmp_path: Path) -> None:
    audit = {"epsilon_lower_bound": 1.25, "confidence": 0.95, "canaries": 100}
    audit |= {"guesses": 10, "correct": 9, "steps": 98}
    assemble(tmp_path, prepared(tmp_path, private(), audit=audit), report=ignore)
    assert "- audit: an attack with 100 invented units shows ε ≥ 1.25 with 95% confidence" in card(tmp_path)


@pytest.mark.heavy
def test_what_is_not_strict_is_published_and_named_as_uncovered(tmp_path: Path) -> None:
    assemble(tmp_path, prepared(tmp_path, private(strict=False, schema_source="raw")), report=ignore)
    assert {"dataset/training.csv", "dataset/test.csv"} <= set(files(tmp_path / "out"))
    uncovered = card(tmp_path).partition("### Not covered")[2].partition("\n## ")[0]
    for words in (
        "the schema: it holds the table's own",
        "the tables in dataset/",
        "losses that hold no noise",
    ):
        assert words in uncovered
    assert "400 rows for training, 1 held out" in card(tmp_path)
    assert "by-products: count for ε = 0.08 and δ = 0" in card(tmp_path)


@pytest.mark.parametrize(
    ("result", "field"), [({"epsilon_spent": 8.0001}, "privacy.epsilon"), ({"delta": 2e-5}, "privacy.delta")]
)
def test_an_adapter_over_budget_is_not_released(tmp_path: Path, result: dict[str, float], field: str) -> None:
    asked = prepared(tmp_path, private(), **result)
    with pytest.raises(BudgetExceeded) as caught:
        assemble(tmp_path, asked, report=ignore)
    assert [problem.field for problem in caught.value.problems] == [field]
    assert files(tmp_path / "out") == []


@pytest.mark.parametrize("name", ["prepare_data/privacy.json", "train/privacy_result.json"])
def test_without_a_record_of_what_was_spent_nothing_is_released(tmp_path: Path, name: str) -> None:
    asked = prepared(tmp_path, private())
    (tmp_path / "in" / name).unlink()
    with pytest.raises(StageLost, match=Path(name).name):
        assemble(tmp_path, asked, report=ignore)
    assert files(tmp_path / "out") == []


def test_the_published_schema_takes_generated_rows(tmp_path: Path) -> None:
    assemble(tmp_path, prepared(tmp_path, private()), report=ignore)
    schema = json.loads((tmp_path / "out/train/adapter/dataset_schema.json").read_text())
    validator = Draft202012Validator(schema)
    assert validator.is_valid({"kind": "a", "size": 40.5})
    assert not validator.is_valid({"kind": "someone", "size": 40.5})


@pytest.mark.heavy
def test_a_job_without_privacy_loads_no_accountant() -> None:
    modules = "nss_train.artifacts.workdir, nss_train.stages.preparation"
    code = f"import sys, {modules}; sys.exit('dp_accounting' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
