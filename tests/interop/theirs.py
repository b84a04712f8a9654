"""The reference's side of ``make interop``: ``theirs.py load FOLDER``, ``theirs.py make MODEL FOLDER``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from nemo_safe_synthesizer.cli.artifact_structure import Workdir
from nemo_safe_synthesizer.config import SafeSynthesizerParameters
from nemo_safe_synthesizer.llm.metadata import ModelMetadata
from peft import PeftModel
from transformers import AutoModelForCausalLM


def load(folder: Path) -> None:
    """Read our run folders with the reference's own classes."""
    for run in sorted(folder.glob("*/run")):
        config_name, _, dataset_name = run.parent.name.partition("---")
        workdir = Workdir(
            base_path=folder, config_name=config_name, dataset_name=dataset_name, run_name="run"
        )
        metadata = ModelMetadata.from_metadata_json(workdir.metadata_file, workdir=workdir)
        text = workdir.train.config.read_text()
        config = SafeSynthesizerParameters.from_json(workdir.train.config)
        assert config.model_dump(mode="json") == json.loads(text)
        schema = json.loads(workdir.schema_file.read_text())
        base = AutoModelForCausalLM.from_pretrained(metadata.model_name_or_path)
        model = PeftModel.from_pretrained(base, workdir.adapter_path)
        columns, kind = list(schema["properties"]), type(model).__name__
        series = (metadata.timeseries_group_values, metadata.timeseries_metadata)
        print(f"{run.parent.name}: {metadata.max_seq_length} tokens, {columns}, {series}, {kind}")


def make(model: Path, folder: Path) -> None:
    """Write an adapter, metadata, schema and config with the reference."""
    import pandas as pd
    import torch
    from datasets import Dataset
    from nemo_safe_synthesizer.config.autoconfig import AutoConfigResolver
    from nemo_safe_synthesizer.training.huggingface_backend import HuggingFaceBackend

    frame = pd.DataFrame({"name": [f"b{i % 7}" for i in range(120)], "size": range(120), "x": 0.5})
    training = {"pretrained_model": str(model), "num_input_records_to_sample": 120, "lora_r": 4}
    for name, sections in {"plain": {}, "grouped": {"data": {"group_training_examples_by": "name"}}}.items():
        given = sections | {"training": training, "replace_pii": None, "emit_telemetry": False}
        params = AutoConfigResolver(frame, SafeSynthesizerParameters.model_validate(given)).resolve()
        workdir = Workdir(base_path=folder, config_name="theirs", dataset_name=name, run_name="run")
        workdir.ensure_directories()
        backend = HuggingFaceBackend(
            params=params,
            model_metadata=ModelMetadata.from_config(params, workdir=workdir),
            training_dataset=Dataset.from_pandas(frame),
            workdir=workdir,
        )
        backend.load_model(dtype=torch.float32)
        backend.prepare_training_data()
        backend.save_model()
        backend.teardown()
        print(f"{workdir.run_dir} is written")


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    {"make": make, "load": load}[command](*map(Path, arguments))
