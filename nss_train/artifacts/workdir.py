"""The save_model stage: outputs of the three other stages → the run folder that NSS reads.

The layout is the one that NSS reads. Base weights are never copied: the adapter names its base model.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from nss_train.artifacts.adapter_file import AdapterFile, inspect_adapter
from nss_train.artifacts.files import copy_aside, read_json, write_aside, write_json
from nss_train.artifacts.guarantee import Guarantee, read_guarantee
from nss_train.artifacts.manifest import write_manifest
from nss_train.artifacts.model_card import CardFacts, model_card
from nss_train.contract import Event, Report, Request, Stage, StageResult
from nss_train.text.counted import counted

logger = logging.getLogger(__name__)

CONFIG = Path("train/safe-synthesizer-config.json")
ADAPTER = Path("train/adapter")
PRIVACY = Path("train/privacy.json")
TRAINING_CSV = Path("dataset/training.csv")
TEST_CSV = Path("dataset/test.csv")
WEIGHTS = "adapter_model.safetensors"


def assemble(folder: Path, request: Request, *, report: Report) -> StageResult:
    """Write the run folder into ``folder/out``: the same inputs give the same bytes.

    Raises:
        StageLost: the training stage left no usable adapter.
        ParameterError: the adapter holds infinite or NaN weights.
        DataError: a JSON file of an earlier stage is missing or broken.
        BudgetExceeded: the training spent more privacy than the job has.
    """
    inputs, out = folder / "in", folder / "out"
    adapter = inspect_adapter(inputs / "train/adapter" / WEIGHTS)
    guarantee = read_guarantee(inputs)
    _write_documents(inputs, out)
    copy_aside(inputs / "train/adapter" / WEIGHTS, out / ADAPTER / WEIGHTS)
    if guarantee is not None:
        write_json(out / PRIVACY, guarantee.as_json())
    if guarantee is None or not guarantee.strict:
        _copy_tables(inputs, out)
    card = model_card(_facts(inputs, adapter, guarantee))
    write_aside(out / ADAPTER / "README.md", card.encode())
    manifest = write_manifest(out)
    return _result(manifest, adapter, request, report)


def _write_documents(inputs: Path, out: Path) -> None:
    prepared = inputs / "prepare_data"
    metadata = read_json(prepared / "metadata.json")
    config = read_json(prepared / "config.json")
    # NSS does not know this section and would refuse the file.
    config.pop("guarantee", None)
    write_json(out / CONFIG, config)
    write_json(out / ADAPTER / "metadata_v2.json", metadata)
    write_json(out / ADAPTER / "dataset_schema.json", read_json(prepared / "schema.json"))
    adapter_config = read_json(inputs / "train/adapter/adapter_config.json")
    write_aside(out / ADAPTER / "adapter_config.json", _portable(adapter_config, metadata))


def _portable(adapter_config: dict[str, Any], metadata: dict[str, Any]) -> bytes:
    """Return the adapter's config without the path of the training folder, and with sorted target modules."""
    named = {**adapter_config, "base_model_name_or_path": metadata["model_name_or_path"]}
    if isinstance(named.get("target_modules"), list):
        named["target_modules"] = sorted(named["target_modules"])
    return json.dumps(named, indent=2, sort_keys=True).encode()  # as PEFT writes it


def _copy_tables(inputs: Path, out: Path) -> None:
    copy_aside(inputs / "prepare_data/training.csv", out / TRAINING_CSV)
    held_out = inputs / "prepare_data/test.csv"
    if held_out.exists():
        copy_aside(held_out, out / TEST_CSV)


def _facts(inputs: Path, adapter: AdapterFile, guarantee: Guarantee | None) -> CardFacts:
    prepared, trained = inputs / "prepare_data", inputs / "train"
    return CardFacts(
        config=read_json(prepared / "config.json"),
        choices=read_json(prepared / "choices.json"),
        schema=read_json(prepared / "schema.json"),
        metadata=read_json(prepared / "metadata.json"),
        training_rows=_rows(prepared / "training.csv"),
        test_rows=_rows(prepared / "test.csv"),
        log_history=read_json(trained / "log_history.json"),
        training=read_json(trained / "training_result.json"),
        adapter=adapter.figures(),
        guarantee=guarantee,
        warnings=_warnings(prepared / "warnings.json"),
    )


def _warnings(path: Path) -> list[str]:
    """Return the warnings; releases before 5 wrote none, and private tables have none."""
    return list(read_json(path)) if path.exists() else []


def _rows(path: Path) -> int:
    """Count the records of a CSV file below its header: line ends outside quotes, for cells of any length."""
    if not path.exists():
        return 0
    ends, quotes = 0, 0
    with path.open("rb") as file:
        for line in file:
            quotes += line.count(b'"')
            ends += quotes % 2 == 0
    return max(0, ends - 1)


def _result(manifest: dict[str, Any], adapter: AdapterFile, request: Request, report: Report) -> StageResult:
    files = manifest["files"]
    figures = {
        "files": len(files),
        "bytes": sum(file["bytes"] for file in files.values()),
        **adapter.figures(),
    }
    message = f"{counted(len(files), 'file')}, adapter of {adapter.bytes:,} bytes"
    logger.info("Job %s: %s", request.job_id, message, extra={"action": "save.assembled"})
    report(Event(action="save.assembled", message=message, fields=figures))
    return StageResult(stage=Stage.SAVE_MODEL, figures=figures)
