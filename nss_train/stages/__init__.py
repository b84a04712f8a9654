"""The four stages of a job: each reads ``folder/in``, writes ``folder/out`` and reports on the way.

Imports are inside the functions because a stage's process must load only what it needs: preparing data
never imports torch.
"""

from __future__ import annotations

from pathlib import Path

from nss_train.config import load_resolved
from nss_train.contract import Report, Request, StageResult


def prepare_data(folder: Path, request: Request, *, report: Report) -> StageResult:
    """Check the table, resolve the config, write the training examples."""
    from nss_train.stages import preparation

    return preparation.run(folder, request, report=report)


def load_model(folder: Path, request: Request, *, report: Report) -> StageResult:
    """Prepare the base model, content-addressed, and check that the adapter fits it."""
    from nss_train.stages.base_model import prepare_model

    return prepare_model(folder, request, report=report)


def train(folder: Path, request: Request, *, report: Report) -> StageResult:
    """Fine-tune the adapter."""
    from nss_train.training.ranks.group import choose_ranks, launch
    from nss_train.training.ranks.sharing import check_sharing

    config = load_resolved(folder)
    ranks = choose_ranks(request.ranks, config.training.effective_batch_size, room=request.max_ranks)
    if request.fsdp:
        check_sharing(config, ranks, model=folder / "in" / "model")
    if ranks > 1:
        return launch(_train_as_rank, folder, request, ranks=ranks, report=report)
    from nss_train.training.stage import train as train_alone

    return train_alone(folder, request, report=report)


def _train_as_rank(folder: Path, request: Request, *, report: Report) -> StageResult:
    # Imported in the rank: bitsandbytes may initialise the devices, which must not happen before a fork.
    from nss_train.training.stage import train as train_adapter

    return train_adapter(folder, request, report=report)


def save_model(folder: Path, request: Request, *, report: Report) -> StageResult:
    """Assemble the artifact tree."""
    from nss_train.artifacts.workdir import assemble

    return assemble(folder, request, report=report)
