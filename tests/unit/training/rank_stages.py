"""Stages in which ranks add their gradients: run in a child process, as all stages are."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from torch.distributed.tensor import DTensor

from nss_train.contract import Report, Request, Stage, StageResult
from nss_train.training.ranks.group import launch
from nss_train.training.steps.micro_batches import Room
from nss_train.training.steps.reduction import add_over_ranks, begin_alike, smallest

TOKENS = (60, 5, 6, 7, 5, 6, 7, 5, 6)
"""Tokens of examples in steps of four: one has a row longer than the rest, the last step has a single row."""


def train(folder: Path, request: Request, *, report: Report) -> StageResult:
    """Add gradients and agree on a room, and train unequal rows; write what each rank has afterwards."""
    return launch(_together, folder, request, ranks=2, report=report)


def save_model(folder: Path, request: Request, *, report: Report) -> StageResult:
    """Let a rank die while the other waits for its gradients."""
    return launch(_gone, folder, request, ranks=2, report=report)


def parameters(rank: int) -> list[nn.Parameter]:
    """Return two parameters; the second one has no gradient on rank 1, as if it had no rows."""
    found = [nn.Parameter(torch.full((2, 3), float(rank))), nn.Parameter(torch.ones(4, dtype=torch.bfloat16))]
    found[0].grad = torch.arange(6.0).reshape(2, 3) * (rank + 1)
    if rank == 0:
        found[1].grad = torch.full((4,), 0.5, dtype=torch.bfloat16)
    return found


def _together(folder: Path, request: Request, *, report: Report) -> StageResult:
    rank = int(os.environ["RANK"])
    trainings = {kind: trained(folder, request, fsdp=kind == "fsdp") for kind in ("plain", "fsdp")}
    mine = parameters(rank)
    add_over_ranks(mine)
    begin_alike(mine)
    room = smallest(Room(rows=8 - rank, tokens=100 + rank, multiple=64))
    gradients = [one.grad for one in mine if one.grad is not None]
    found = {
        **trainings,
        "gradients": [one.tolist() for one in gradients],
        "dtypes": [str(one.dtype) for one in gradients],
        "parameter": mine[0].tolist(),
        "room": [room.rows, room.tokens, room.multiple],
    }
    (folder / f"{rank}.json").write_text(json.dumps(found))
    return StageResult(stage=Stage.TRAIN)


def trained(folder: Path, request: Request, *, fsdp: bool = False) -> dict[str, Any]:
    """Train a new adapter, row by row, on the examples of :data:`TOKENS`; return its losses and weights."""
    # They import bitsandbytes, which no process may import before it forks its ranks.
    from nss_train.model.adapter import initial_adapter
    from nss_train.model.loading import FLOAT32, load_base
    from nss_train.training.fit import fit
    from nss_train.training.options import RunOptions
    from nss_train.training.trainer import load_transformers_tokenizer, make_trainer

    model_folder = Path(request.config.training.pretrained_model)
    base = load_base(model_folder, FLOAT32, attention="sdpa", trust_remote_code=False)
    model = initial_adapter(base, request.config.training, seed=1)
    before = [value.detach().clone() for value in model.parameters() if value.requires_grad]
    run = RunOptions(
        output=folder / "trainer", seed=1, checkpointing=False, report=lambda _event: None, fsdp=fsdp
    )
    sides = {"train": examples(), "validation": None}
    fitted = fit(
        make_trainer(model, load_transformers_tokenizer(model_folder), request.config, sides, run), run
    )
    trainable = [value.detach() for value in model.parameters() if value.requires_grad]
    # The parts that ranks hold of a shared tensor are gathered on each of them.
    after = [value.full_tensor() if isinstance(value, DTensor) else value for value in trainable]
    moved = torch.cat([(b - a).flatten() for a, b in zip(before, after, strict=True)])
    losses = [entry["loss"] for entry in fitted.log_history if "loss" in entry]
    return {"losses": losses, "moved": moved.tolist()}


def examples() -> Dataset:
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(5, 4000, (tokens,), generator=generator).tolist() for tokens in TOKENS]
    return Dataset.from_list(
        [{"input_ids": row, "attention_mask": [1] * len(row), "labels": row} for row in rows]
    )


def _gone(_folder: Path, _request: Request, *, report: Report) -> StageResult:
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    add_over_ranks(parameters(0))
    return StageResult(stage=Stage.SAVE_MODEL)
