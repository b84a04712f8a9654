"""Stages in which ranks add their gradients: run in a child process, as all stages are."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import torch
from torch import nn

from nss_train.contract import Report, Request, Stage, StageResult
from nss_train.training.group import launch
from nss_train.training.micro_batches import Room
from nss_train.training.reduction import add_over_ranks, begin_alike, smallest


def train(folder: Path, request: Request, *, report: Report) -> StageResult:
    """Add gradients and agree on a room; write what each rank has afterwards."""
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


def _together(folder: Path, _request: Request, *, report: Report) -> StageResult:
    rank = int(os.environ["RANK"])
    mine = parameters(rank)
    add_over_ranks(mine)
    begin_alike(mine)
    room = smallest(Room(rows=8 - rank, tokens=100 + rank, multiple=64))
    gradients = [one.grad for one in mine if one.grad is not None]
    found = {
        "gradients": [one.tolist() for one in gradients],
        "dtypes": [str(one.dtype) for one in gradients],
        "parameter": mine[0].tolist(),
        "room": [room.rows, room.tokens, room.multiple],
    }
    (folder / f"{rank}.json").write_text(json.dumps(found))
    return StageResult(stage=Stage.TRAIN)


def _gone(_folder: Path, _request: Request, *, report: Report) -> StageResult:
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    add_over_ranks(parameters(0))
    return StageResult(stage=Stage.SAVE_MODEL)
