"""The size of a base model's weights, and whether the devices can hold them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

from nss_train.config import SafeSynthesizerParameters
from nss_train.errors import Problem, ResourceError
from nss_train.model.footprint import COMPUTE_BYTES, WEIGHT_BYTES
from nss_train.model.scheme import Scheme
from nss_train.text.counted import counted
from nss_train.training.ranks.group import group_state


def check_weights_fit(
    base: Path, config: SafeSynthesizerParameters, *, value_bytes: int, scheme: Scheme | None, fsdp: bool
) -> None:
    """Raise :class:`ResourceError` for weights that take more than all memory of the devices that hold them.

    This is found out before they are read: a smaller micro-batch would not help.
    """
    if not torch.cuda.is_available():
        return
    state = group_state()
    spread = state.num_processes == 1 and not config.dp_enabled
    devices = state.num_processes if fsdp else torch.cuda.device_count() if spread else 1
    needed = _weight_bytes(base, value_bytes=value_bytes, scheme=scheme)
    there = devices * torch.cuda.get_device_properties(state.device).total_memory
    if needed > there:
        told = f"take {needed / 2**30:.1f} GiB, and {counted(devices, 'device')} have {there / 2**30:.1f} GiB"
        field, name = "training.pretrained_model", config.training.pretrained_model
        remedy = _remedy(config, ranks=math.ceil(devices * needed / there))
        problem = Problem(field=field, value=name, remedy=remedy)
        raise ResourceError(f"The base model's weights {told}.", [problem])


def _weight_bytes(base: Path, *, value_bytes: int, scheme: Scheme | None) -> int:
    """Return the least bytes of a model's weights on a device, from the sizes of its files."""
    stored = sum(file.stat().st_size for file in base.glob("*.safetensors"))
    described = json.loads((base / "config.json").read_text(encoding="utf-8"))
    if described.get("quantization_config") is not None:
        return stored
    kept_bytes = 4 if "float32" in (described.get("dtype"), described.get("torch_dtype")) else 2
    return int(stored / kept_bytes * value_bytes * WEIGHT_BYTES[scheme] / COMPUTE_BYTES)


def _remedy(config: SafeSynthesizerParameters, *, ranks: int) -> str:
    ways = [] if config.training.quantize_model else ["quantize it (training.quantize_model)"]
    if not config.dp_enabled and not config.training.quantize_model:
        ways.append(f"let {ranks} ranks or more share it (fsdp)")
    return ", ".join([*ways, "or train where the devices are larger"]).removeprefix("or ")
