"""Our side of ``make interop``: ``ours.py make MODEL FOLDER`` and ``ours.py load FOLDER``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM

from nss_train.artifacts.run_folder import Workdir
from nss_train.backend import HuggingFaceBackend
from nss_train.config import load_config, parse_config
from nss_train.model.metadata import metadata_from_json

ROWS = 120
TABLES = {
    "plain": {},
    "grouped": {"data": {"group_training_examples_by": "name", "order_training_examples_by": "size"}},
    "series": {
        "data": {"group_training_examples_by": "name"},
        "time_series": {"is_timeseries": True, "timestamp_column": "size"},
    },
}


def make(model: Path, folder: Path) -> None:
    """Train three small adapters with the facade."""
    frame = pd.DataFrame({"name": [f"b{i % 7}" for i in range(ROWS)], "size": range(ROWS), "x": 0.5})
    for name, sections in TABLES.items():
        training = {"pretrained_model": str(model), "num_input_records_to_sample": ROWS, "lora_r": 4}
        config = parse_config(sections | {"training": training, "generation": {"num_records": 7}})
        workdir = Workdir(base_path=folder, config_name="ours", dataset_name=name, run_name="run")
        HuggingFaceBackend(
            params=config, training_dataset=Dataset.from_pandas(frame), workdir=workdir, seed=1
        ).train()


def load(folder: Path) -> None:
    """Read what the reference made, and print what it holds."""
    for run in sorted(folder.glob("*/run")):
        adapter = run / "train" / "adapter"
        document = json.loads((adapter / "metadata_v2.json").read_text())
        metadata = metadata_from_json(document)
        config = load_config(run / "train" / "safe-synthesizer-config.json")
        assert parse_config(config.model_dump(mode="json")) == config
        written = metadata.as_json(dataset_name="", run_name="")
        assert {key: written[key] for key in written if key != "workdir"} == {
            key: value for key, value in document.items() if key != "workdir"
        }
        base = AutoModelForCausalLM.from_pretrained(metadata.model_name_or_path)
        model = PeftModel.from_pretrained(base, adapter)
        schema = json.loads((adapter / "dataset_schema.json").read_text())
        columns, kind = list(schema["properties"]), type(model).__name__
        print(f"{run.parent.name}: {metadata.max_seq_length} tokens, {columns}, {kind}")


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    {"make": make, "load": load}[command](*map(Path, arguments))
