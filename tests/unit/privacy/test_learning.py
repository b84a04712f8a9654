"""With a strong signal a private adapter learns it: rows that it never saw are likelier."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from nss_train import stages
from nss_train.config import parse_config
from nss_train.contract import Event, ModelPolicy, Request
from nss_train.model.adapter import load_adapter
from nss_train.model.loading import FLOAT32, load_base

UNITS, BATCH = 400, 40
LEARNING_RATE = 0.005
"""With 0.02 one training in twenty left the minimum again, shortly before its end."""


def table(first: int, rows: int) -> str:
    birds = ("gull,20", "tern,70")
    return "bird,size\n" + "".join(f"{birds[i % 2]}{i % 7}\n" for i in range(first, first + rows))


def request_of(model: Path, *, private: bool) -> Request:
    config = {
        "data": {"holdout": 0, "random_state": 1, "max_sequences_per_example": 1},
        "preflight": {"disabled_checks": ["dataset.size"]},
        "training": {
            "pretrained_model": str(model),
            "num_input_records_to_sample": UNITS if private else 20,
            "batch_size": BATCH,
            "gradient_accumulation_steps": 1,
            "learning_rate": LEARNING_RATE,
            "lr_scheduler": "constant",
            "warmup_steps": 0,
            "lora_r": 8,
        },
        "privacy": {"dp_enabled": private, "epsilon": 8.0},
        "guarantee": {"schema_source": "declared"},
    }
    policy = ModelPolicy(models_dir=str(model.parent))
    return Request(job_id="job-0000001", table="t.csv", config=parse_config(config), seed=1, policy=policy)


def prepare(folder: Path, request: Request, text: str) -> Path:
    for part in ("in", "out"):
        (folder / part).mkdir(parents=True)
    (folder / "in" / "t.csv").write_text(text)
    stages.prepare_data(folder, request, report=_nobody)
    return folder / "out"


def _nobody(_event: Event) -> None:
    """Ignore the event."""


def loss_per_token(model: Path, adapter: Path | None, examples: Dataset) -> float:
    base = load_base(model, FLOAT32, attention="sdpa", trust_remote_code=False)
    found = base.eval() if adapter is None else load_adapter(base, adapter, trainable=False).eval()
    total, tokens = 0.0, 0
    for example in examples:
        ids, labels = (torch.tensor(example[name]) for name in ("input_ids", "labels"))
        with torch.no_grad():
            logits = found(ids[None]).logits[0, :-1]
        total += float(torch.nn.functional.cross_entropy(logits, labels[1:], reduction="sum"))
        tokens += int((labels[1:] != -100).sum())
    return total / tokens


def test_the_loss_of_unseen_rows_falls_at_epsilon_8(
    tmp_path: Path, tiny_model: Path, record_property: Any
) -> None:
    request = request_of(tiny_model, private=True)
    prepared = prepare(tmp_path / "prepare", request, table(0, UNITS))
    unseen = prepare(tmp_path / "unseen", request_of(tiny_model, private=False), table(UNITS, 20))
    load, train = tmp_path / "load", tmp_path / "train"
    for folder in (load, train):
        (folder / "out").mkdir(parents=True)
        shutil.copytree(prepared, folder / "in" / "prepare_data")
    stages.load_model(load, request, report=_nobody)
    (train / "in" / "model").symlink_to(load / "out" / "model")
    result = stages.train(train, request, report=_nobody)
    assert result.figures["epsilon_spent"] <= 8.0
    examples = Dataset.from_file(str(unseen / "train.arrow"))
    before, after = (
        loss_per_token(tiny_model, adapter, examples) for adapter in (None, train / "out" / "adapter")
    )
    record_property("loss", (before, after))
    assert after < before - 0.1, (before, after)
