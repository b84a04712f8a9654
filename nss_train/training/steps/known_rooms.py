"""The rooms that trials found on this machine, remembered from job to job."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from peft import PeftModel

from nss_train import __version__
from nss_train.remembered import recall, remember
from nss_train.training.steps.kernels import base_of
from nss_train.training.steps.micro_batches import Room

NAMES = {"_name_or_path", "transformers_version"}
"""Entries of a model's config that say where it came from, and take no memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownRooms:
    """The rooms in a folder, each under a digest of everything that a pass's memory depends on."""

    folder: Path

    def find(self, key: str) -> Room | None:
        """Return the remembered room, if there is one."""
        return recall(self.folder / f"{key}.json", Room)

    def keep(self, key: str, room: Room) -> None:
        """Remember a room."""
        remember(self.folder / f"{key}.json", room)


def room_key(model: PeftModel, *, longest: int, rows: int, kernels: str, device: torch.device) -> str:
    """Return the digest of everything that a pass's memory depends on.

    ``longest`` counts the longest example's tokens, ``rows`` a rank's examples of a step; ``kernels`` names
    the loss and the layers.
    """
    base = base_of(model)
    shape = {name: value for name, value in base.config.to_dict().items() if name not in NAMES}
    parts = {
        "base": shape,
        "weights": sorted({str(weight.dtype) for weight in base.parameters()}),
        "adapter": [list(weight.shape) for weight in model.parameters() if weight.requires_grad],
        "recomputed": bool(base.is_gradient_checkpointing),
        "longest": longest,
        "rows": rows,
        "kernels": kernels,
        "device": _describe(device),
        "versions": [version("torch"), version("transformers"), __version__],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _describe(device: torch.device) -> list[object]:
    """Return a device's name and bytes, by which one part of a card differs from another."""
    if device.type != "cuda":
        return [device.type]
    properties = torch.cuda.get_device_properties(device)
    return [properties.name, properties.total_memory]
