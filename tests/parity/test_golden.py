"""Every golden set, compared example by example."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from nss_train.config import SafeSynthesizerParameters, load_config
from nss_train.config.sections.guarantee import ColumnType, GuaranteeParameters, PublicColumn, SchemaSource
from nss_train.config.sections.privacy import DifferentialPrivacyParameters
from nss_train.data.golden import describe
from nss_train.errors import GenerationError
from nss_train.model.tokenizer import load_tokenizer
from nss_train.stages.preparation import Entry, Prepared, prepare
from tests.missing import missing

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
CONTEXT_TOKENS = {"SmolLM2-tiny": 8192, "TinyLlama-tiny": 2048}
SETS = [
    "01_penguins_default",
    "02_flights_oversampled",
    "02b_flights_fill_context",
    "03_flights_by_carrier",
    "03c_flights_by_tailnum",
    "03d_flights_by_tailnum_validation",
    "04_weather_timeseries",
    "04b_stocks_timeseries",
    "04c_stocks_timeseries_validation",
    "05_penguins_validation",
    "07_wide_auto",
    "07c_wide_rope_3",
    "07d_long_text_auto",
    "08_penguins_process_data",
    "08b_flights_process_data_grouped",
]
MEASURED = {
    name: PublicColumn(type=ColumnType.NUMBER)
    for name in ("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g")
}
"""Number columns that the reference takes for fractions because of their gaps; here that is declared."""
EXACT = [
    "resolved_params",
    "dataset_schema",
    "schema_prompt",
    "schema_prompt_tokens",
    "max_seq_length",
    "data_fraction",
    "true_dataset_size",
    "num_records_train",
    "num_records_validation",
    "training_df",
    "records",
]


def golden(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    if not GOLDEN.is_dir():
        raise missing(f"the golden sets are missing: {GOLDEN}")
    case = json.loads((GOLDEN / name / "case.json").read_text())
    return case, json.loads(gzip.decompress((GOLDEN / name / "golden.json.gz").read_bytes()))


@pytest.fixture(scope="module")
def models(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return folders with the golden sets' tokenizer and the contexts of their models."""
    root = tmp_path_factory.mktemp("models")
    for name, context in CONTEXT_TOKENS.items():
        (root / name).mkdir()
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(base_model / file, root / name / file)
        config = {
            "max_position_embeddings": context,
            "vocab_size": 49_152,
            "rope_parameters": {"rope_theta": 1e5, "rope_type": "default"},
        }
        (root / name / "config.json").write_text(json.dumps(config))
    return root


def ours(name: str, case: dict[str, Any], models: Path) -> dict[str, Any]:
    return described(case, models, prepared_for(name, case, models))


def prepared_for(
    name: str, case: dict[str, Any], models: Path, guarantee: GuaranteeParameters | None = None
) -> Prepared:
    model = models / case["model"]
    given = load_config(GOLDEN / name / case["config"])
    training = given.training.model_copy(update={"pretrained_model": str(model)})
    update = {"training": training, "privacy": _with_nss_delta(given), "guarantee": guarantee}
    config = given.model_copy(update={key: value for key, value in update.items() if value is not None})
    table, entry = GOLDEN / name / case["data"], Entry(case["entry"])
    return prepare(table, config, model=model, seed=case["seed"], entry=entry)


def described(case: dict[str, Any], models: Path, prepared: Prepared) -> dict[str, Any]:
    model = models / case["model"]
    entry, tokenizer = Entry(case["entry"]), load_tokenizer(model)
    document = describe(prepared, tokenizer=tokenizer, seed=case["seed"], entry=entry)
    found: dict[str, Any] = json.loads(json.dumps(document).replace(str(model), case["model"]))
    return found


def _with_nss_delta(config: SafeSynthesizerParameters) -> DifferentialPrivacyParameters | None:
    """Return the privacy section with NSS's rule for δ by its own name: it is too large for a guarantee."""
    if config.privacy is None or config.privacy.delta != "auto" or not config.dp_enabled:
        return config.privacy
    return config.privacy.model_copy(update={"delta": "nss"})


@pytest.mark.parametrize("name", SETS)
def test_every_example_is_equal_to_the_reference(
    name: str, models: Path, record_property: Any, parity_table: list[str]
) -> None:
    case, theirs = golden(name)
    found = ours(name, case, models)
    differing = [key for key in EXACT if found[key] != theirs[key]]
    differing += [
        key for key in ("dataset_schema", "resolved_params") if list(found[key]) != list(theirs[key])
    ]
    differing += _examples("train", found, theirs) + _examples("validation", found, theirs)
    differing += _metadata(found["model_metadata"], theirs["model_metadata"])
    differing += [] if found["holdout"] == theirs.get("holdout") else ["holdout"]
    for series, values in theirs["stats"].items():
        same = all(found["stats"][series][k] == pytest.approx(v, rel=1e-9) for k, v in values.items())
        differing += [] if same else [f"stats.{series}"]
    count = f"{theirs['train']['count']:>6} examples {theirs['train']['tokens']:>9} tokens"
    parity_table.append(f"{name:<36}{count}  {'equal' if not differing else ', '.join(differing)}")
    assert not differing


def test_a_private_set_holds_each_of_the_reference_s_examples_once(
    models: Path, parity_table: list[str]
) -> None:
    """The reference repeats units to make more steps, which breaks its guarantee."""
    name = "06_penguins_dp"
    case, theirs = golden(name)
    open_ = GuaranteeParameters(strict=False, schema_source=SchemaSource.RAW, columns=MEASURED)
    prepared = prepared_for(name, case, models, open_)
    found = described(case, models, prepared)
    # A private table is no frame: its cells have types, its columns have none.
    differing = [key for key in EXACT if found[key] != theirs[key] and key != "training_df"]
    differing += _metadata(found["model_metadata"], theirs["model_metadata"])
    distinct = {example["ids"] for example in theirs["train"]["all"]}
    once = [example["ids"] for example in found["train"]["all"]]
    # Equal rows of two penguins would be two examples.
    assert sorted(once) == sorted(distinct)
    assert len(once) == theirs["true_dataset_size"] < theirs["train"]["count"]
    assert prepared.plan is not None
    assert prepared.plan.sampling_rate == theirs["dp"]["sampling_probability"]
    assert prepared.plan.steps == theirs["dp"]["num_steps"]
    count = f"{len(once):>6} examples {found['train']['tokens']:>9} tokens"
    parity_table.append(f"{name:<36}{count}  {'each once' if not differing else ', '.join(differing)}")
    assert not differing


def test_a_strict_private_set_holds_the_same_examples(models: Path) -> None:
    name = "06_penguins_dp"
    case, theirs = golden(name)
    found = described(case, models, prepared_for(name, case, models, GuaranteeParameters(columns=MEASURED)))
    once = [example["ids"] for example in found["train"]["all"]]
    assert set(once) == {example["ids"] for example in theirs["train"]["all"]}
    assert found["resolved_params"] == theirs["resolved_params"]
    assert list(found["dataset_schema"]["properties"]) == list(theirs["dataset_schema"]["properties"])
    assert found["model_metadata"]["max_tokens_per_example"] == theirs["max_seq_length"]


def _examples(side: str, found: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    ours_, golden_ = found[side], theirs[side]
    if ours_ is None or golden_ is None:
        return [] if ours_ is golden_ else [side]
    keys = ("count", "tokens", "trained_tokens", "all")
    differing = [f"{side}.{key}" for key in keys if ours_[key] != golden_[key]]
    texts = [(a["input_ids"], a["labels"], a["text"]) for a in ours_["first"]]
    return differing + (
        []
        if texts == [(b["input_ids"], b["labels"], b["text"]) for b in golden_["first"]]
        else [f"{side}.first"]
    )


def _metadata(found: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    differing = [] if list(found) == list(theirs) else ["metadata keys"]
    # The workdir names the run, which is ours and not the reference's.
    return differing + [f"metadata.{key}" for key in theirs if key != "workdir" and found[key] != theirs[key]]


@pytest.mark.parametrize(
    ("name", "too_long"), [("07b_wide_auto_short_context", 100), ("03b_flights_by_carrier_too_long", 6)]
)
def test_what_exceeds_the_context_is_refused_as_in_the_reference(
    name: str, too_long: int, models: Path, parity_table: list[str]
) -> None:
    case, theirs = golden(name)
    with pytest.raises(GenerationError) as caught:
        ours(name, case, models)
    assert theirs["error"]["type"] == "GenerationError"
    said = [theirs["error"]["message"], *(cause["message"] for cause in theirs["error"]["causes"])]
    assert any(message.startswith(caught.value.message) for message in said)
    # Every record or group is named, where the reference stops at the first.
    assert caught.value.problems[0].value == too_long
    parity_table.append(f"{name:<36}{'GenerationError':>32}  equal")


def test_the_tokenizer_is_the_reference_s(base_model: Path) -> None:
    import hashlib

    _, theirs = golden(SETS[0])
    assert (
        hashlib.sha256((base_model / "tokenizer.json").read_bytes()).hexdigest() == theirs["tokenizer_sha256"]
    )
