"""The reference's side of benchmarks.train, run by its own Python: ``train_reference.py WORK RESULT``.

It computes on the CPU, where the reference itself is not meant to train: float32 instead of bfloat16, AdamW
of torch instead of the paged one of bitsandbytes, no checkpoints; and its examples are drawn by a seed. All
else is its own: ``load_model``, ``prepare_training_data``, its trainers and, of private trainings, Opacus.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from nemo_safe_synthesizer.cli.artifact_structure import Workdir
from nemo_safe_synthesizer.config import SafeSynthesizerParameters
from nemo_safe_synthesizer.config.autoconfig import AutoConfigResolver
from nemo_safe_synthesizer.data_processing.assembler import TrainingExampleAssembler
from nemo_safe_synthesizer.llm.metadata import ModelMetadata
from nemo_safe_synthesizer.training import huggingface_backend
from transformers import set_seed

from benchmarks.train_steps import Steps, digest

ON_A_CPU = {"optim": "adamw_torch", "bf16": False, "use_cpu": True, "save_strategy": "no"}


def main() -> None:
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    work = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as root:
        found = measure(work, Path(root))
    Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")


def measure(work: dict[str, Any], root: Path) -> dict[str, Any]:
    """Train as the reference does; time the steps."""
    huggingface_backend.FIXED_RUNTIME_TRAINING_ARGS.update(
        **ON_A_CPU, seed=work["seed"], data_seed=work["seed"]
    )
    huggingface_backend.TrainingExampleAssembler = seeded(work["seed"])
    backend = make_backend(work, root)
    set_seed(work["seed"])
    backend.prepare_config(add_max_memory=False, dtype=torch.float32, device_map={"": "cpu"})
    backend.load_model()
    backend.prepare_training_data()
    backend.prepare_params()
    steps = Steps(most=work["steps"])
    count_tokens(backend.trainer, steps)
    backend.trainer.add_callback(steps)
    backend.trainer.train()
    examples = digest(backend.training_examples.train["input_ids"])
    return steps.figures(backend.trainer.state.log_history) | {"examples": examples}


def make_backend(work: dict[str, Any], root: Path) -> Any:
    frame = pd.read_csv(work["table"])
    config = work["config"] | {"replace_pii": None, "emit_telemetry": False}
    params = AutoConfigResolver(frame, SafeSynthesizerParameters.model_validate(config)).resolve()
    workdir = Workdir(base_path=root, config_name="theirs", dataset_name="table", run_name="run")
    workdir.ensure_directories()
    return huggingface_backend.HuggingFaceBackend(
        params=params,
        model_metadata=ModelMetadata.from_config(params, workdir=workdir),
        training_dataset=huggingface_backend.Dataset.from_pandas(frame),
        workdir=workdir,
    )


def seeded(seed: int) -> Any:
    """Return an assembler that draws by the seed; the reference gives it none."""

    class Seeded:
        @staticmethod
        def from_data(**given: Any) -> Any:
            return TrainingExampleAssembler.from_data(**{"seed": seed, **given})

    return Seeded


def count_tokens(trainer: Any, steps: Steps) -> None:
    """Count the tokens of each micro-batch."""
    whole = trainer.training_step

    def counted(model: Any, inputs: Any, *given: Any, **named: Any) -> Any:
        steps.take(int(inputs["attention_mask"].sum()))
        return whole(model, inputs, *given, **named)

    trainer.training_step = counted


if __name__ == "__main__":
    main()
