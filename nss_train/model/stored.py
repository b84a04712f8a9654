"""The check that a model's files hold the model: without it, transformers would invent the missing weights.

Sizes that a ``config.json`` leaves out are those of the model's class, often 7 billion parameters. Only the
headers of the weights are read, and no weight is allocated.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from nss_train.errors import ParameterError, Problem
from nss_train.model.bounds.config import LEAST_BYTES, SLACK_BYTES, against_weights, config_faults
from nss_train.model.loading import loading_alone, typed_errors, weight_files

MOST_BUFFER_BYTES = 2**30
"""Most bytes of a model's buffers, which no file holds: causal masks and rotary frequencies. GPT-Neo 2.7B
has 134 MB, the most of the known families."""
_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """The weights of a model's files, of which only headers are read."""

    folder: Path
    shapes: Mapping[str, tuple[int, ...]]
    """The shape of each tensor."""
    bytes_there: int

    @classmethod
    def of(cls, folder: Path) -> Self:
        shapes: dict[str, tuple[int, ...]] = {}
        with typed_errors(folder):
            names = weight_files(folder)
            for name in names:
                with safe_open(folder / name, framework="pt") as file:
                    tensors = list(file.keys())
                    shapes |= {one: tuple(file.get_slice(one).get_shape()) for one in tensors}
            there = sum((folder / name).stat().st_size for name in names)
        return cls(folder=folder, shapes=shapes, bytes_there=there)


def check_resolved(stored: Stored) -> None:
    """Raise :class:`ParameterError` unless a config is within its bounds with the defaults of its class, too.

    It comes before the layers are built: building takes time for each.
    """
    with typed_errors(stored.folder):
        config: PretrainedConfig = AutoConfig.from_pretrained(str(stored.folder), local_files_only=True)
        resolved = json.loads(config.to_json_string(use_diff=False))
    faults = config_faults(resolved) or list(
        against_weights(resolved, tensors=len(stored.shapes), bytes_there=stored.bytes_there)
    )
    _refuse(faults, stored.folder)


def check_stored(stored: Stored, skeleton: PreTrainedModel) -> None:
    """Raise :class:`ParameterError` unless the weight files hold each parameter of a skeleton.

    Tied parameters may be missing, and buffers, which have a bound of their own.
    """
    # First: transformers fills the buffers while it matches names.
    _refuse(_buffer_faults(skeleton), stored.folder)
    _refuse(_least_faults(skeleton, stored.bytes_there), stored.folder)
    with typed_errors(stored.folder):
        faults = list(_parameter_faults(skeleton, stored.shapes))
    _refuse(faults, stored.folder)


def _least_faults(skeleton: PreTrainedModel, bytes_there: int) -> Iterator[str]:
    least = LEAST_BYTES * sum(one.numel() for one in skeleton.parameters())
    if least > bytes_there + SLACK_BYTES:
        yield f"config.json means at least {least:,.0f} bytes of weights; there are {bytes_there:,}"


def _buffer_faults(skeleton: PreTrainedModel) -> Iterator[str]:
    taken = sum(one.numel() * one.element_size() for one in skeleton.buffers())
    if taken > MOST_BUFFER_BYTES:
        yield f"config.json means {taken:,} bytes of masks and tables; {MOST_BUFFER_BYTES:,} are allowed"


def _parameter_faults(skeleton: PreTrainedModel, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """Yield which parameters the files lack; transformers matches the names, which releases change."""
    quantized = getattr(skeleton.config, "quantization_config", None) is not None
    found = _matched(skeleton, shapes)
    parameters = dict(skeleton.named_parameters(remove_duplicate=False))
    missing = sorted(parameters.keys() & set(found["missing_keys"]))
    if quantized:  # stored under other names of the same layer, packed
        layers = {name.rpartition(".")[0] for name in found["unexpected_keys"]}
        layers |= {name.rpartition(".")[0] for name in layers}
        missing = [name for name in missing if name.rpartition(".")[0] not in layers]
    if missing:
        yield f"the weights lack {len(missing):,} parameters of the model: {_some(missing)}"
    others = sorted(
        name for name, stored, wanted in found["mismatched_keys"] if math.prod(stored) != math.prod(wanted)
    )
    if others and not quantized:
        yield f"the weights have {len(others):,} parameters of another size than config.json: {_some(others)}"


def _matched(skeleton: PreTrainedModel, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return what transformers says of loading tensors of these shapes; they have no bytes."""
    config = copy.deepcopy(skeleton.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    with loading_alone():
        loaded: Any = type(skeleton).from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            device_map={"": "meta"},
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    return dict(loaded[1])


def _some(names: list[str]) -> str:
    return ", ".join(name[:100] for name in names[:_SHOWN])


def _refuse(faults: Iterable[str], folder: Path) -> None:
    problems = [
        Problem(field="training.pretrained_model", value=folder.name, remedy=fault) for fault in faults
    ]
    if problems:
        raise ParameterError("The base model cannot be used.", problems)
