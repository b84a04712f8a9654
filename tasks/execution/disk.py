"""The worker's own disk: room for the next stage, and what its errors mean."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nss_train.errors import DiskFull, InfrastructureError
from tasks.execution.inputs import Worker
from tasks.store.base import own_disk


def spare_disk(worker: Worker) -> None:
    """Raise :class:`DiskFull` when the worker's disk lacks room even after unused base models are removed."""
    settings = worker.settings
    remove_copies(worker, free_bytes=settings.scratch_free_bytes)
    with errors_of_the_machine(settings.scratch_dir):
        settings.scratch_dir.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(settings.scratch_dir).free
    if free < settings.scratch_free_bytes:
        raise DiskFull(f"The worker's disk has {free / 2**20:.0f} MiB left.")


def remove_copies(worker: Worker, *, free_bytes: float) -> None:
    """Remove base models that no stage works with until the disk has ``free_bytes``."""
    settings = worker.settings
    with errors_of_the_machine(settings.scratch_dir):
        worker.models.prune(
            free_bytes=free_bytes,
            most_bytes=settings.prepared_max_bytes,
            in_use=list(_models_in_use(settings.scratch_dir)),
        )


def _models_in_use(scratch_dir: Path) -> Iterator[str]:
    for model in scratch_dir.glob("*/in/model"):
        with suppress(FileNotFoundError):  # the stage came to its end just now
            if model.is_symlink():
                yield model.readlink().name


@contextmanager
def errors_of_the_machine(folder: Path) -> Iterator[None]:
    """Raise a full disk as :class:`DiskFull`, and other errors of the system as the worker's, too.

    Only a full disk is a reason to remove copies of base models.
    """
    try:
        with own_disk(folder):
            yield
    except OSError as error:
        raise InfrastructureError(f"The worker's system reported an error: {error}.") from error
