"""The base model's weights shared by the ranks of a group: fully sharded data parallelism (FSDP)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import FullyShardedDataParallelPlugin, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from nss_train.config import SafeSynthesizerParameters
from nss_train.config.support import unsupported_sharing
from nss_train.errors import ParameterError

if TYPE_CHECKING:
    # It imports bitsandbytes, which no process may import before it forks its ranks.
    from transformers import Trainer

FSDP = {"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "state_dict_type": "FULL_STATE_DICT"}
"""FSDP options: each layer is gathered when it is computed; the adapter is saved whole."""


def check_sharing(config: SafeSynthesizerParameters, ranks: int, *, model: Path) -> None:
    """Raise :class:`ParameterError` where each rank would silently hold all weights of a prepared model."""
    stored = json.loads((model / "base" / "config.json").read_text(encoding="utf-8"))
    quantized = stored.get("quantization_config") is not None
    problems = list(unsupported_sharing(config, ranks=ranks, quantized=quantized))
    if problems:
        raise ParameterError("The job cannot be trained with shared weights.", problems)


def share_between_cpus(options: dict[str, Any]) -> None:
    """Make gloo ranks share weights too: Accelerate applies its plugin only to devices.

    ``options`` are the plugin's. Optimizer and schedule read the states again, and the accelerator's
    state copies the process's, so both must be set.
    """
    kind = {"distributed_type": DistributedType.FSDP}
    PartialState._shared_state.update(kind)  # noqa: SLF001
    plugin = FullyShardedDataParallelPlugin(**options)
    AcceleratorState._shared_state.update(kind, fsdp_plugin=plugin)  # noqa: SLF001


def share_held(trainer: Trainer) -> float:
    """Return the share of the model's values that this rank holds, from 0 to 1."""
    held = all_values = 0
    for parameter in trainer.accelerator.unwrap_model(trainer.model).parameters():
        local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
        held += local.numel()
        all_values += parameter.numel()
    return held / all_values
