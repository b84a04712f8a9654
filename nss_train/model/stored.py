"""The check that a model's files hold the model: without it, transformers would invent the missing weights.

Sizes that a ``config.json`` leaves out are those of the model's class, often 7 billion parameters. Only the
headers of the weights are read, and no weight is allocated.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from nss_train.errors import ParameterError, Problem
from nss_train.model.bounds.config import LEAST_BYTES, config_faults, layers_of
from nss_train.model.loading import no_progress_bar, typed_errors, weight_files

MOST_BUFFER_BYTES = 2**30
"""Most bytes of a model's buffers, which no file holds: causal masks and rotary frequencies. GPT-Neo 2.7B
has 134 MB, the most of the known families."""
_SLACK_BYTES = 2**20
_SHOWN = 5

Shapes = dict[str, tuple[int, ...]]


def check_resolved(folder: Path) -> None:
    """Raise :class:`ParameterError` unless a config is within its bounds with the defaults of its class, too.

    It comes before the layers are built: building takes time for each.
    """
    with typed_errors(folder):
        config: PretrainedConfig = AutoConfig.from_pretrained(str(folder), local_files_only=True)
        resolved = json.loads(config.to_json_string(use_diff=False))
        tensors = len(_stored(folder)[0])
    faults = config_faults(resolved)
    layers = layers_of(resolved.get("text_config") or resolved)
    if layers > tensors:
        faults.append(f"config.json means {layers:,} layers; the weights have {tensors:,} tensors")
    _refuse(faults, folder)


def check_stored(folder: Path, skeleton: PreTrainedModel) -> None:
    """Raise :class:`ParameterError` unless the weight files hold each parameter of a skeleton.

    Tied parameters may be missing, and buffers, which have a bound of their own.
    """
    _refuse(list(_buffer_faults(skeleton)), folder)  # first: transformers fills them while it matches names
    with typed_errors(folder):
        shapes, bytes_there = _stored(folder)
        faults: list[str] = []
        least = LEAST_BYTES * sum(one.numel() for one in skeleton.parameters())
        if least > bytes_there + _SLACK_BYTES:
            faults.append(
                f"config.json means at least {least:,.0f} bytes of weights; there are {bytes_there:,}"
            )
        else:
            faults += _parameter_faults(skeleton, shapes)
    _refuse(faults, folder)


def _stored(folder: Path) -> tuple[Shapes, int]:
    """Return the shapes of all stored tensors, and the bytes of their files."""
    found: Shapes = {}
    names = weight_files(folder)
    for name in names:
        with safe_open(folder / name, framework="pt") as file:
            found |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (no mapping)
    return found, sum((folder / name).stat().st_size for name in names)


def _buffer_faults(skeleton: PreTrainedModel) -> Iterator[str]:
    taken = sum(one.numel() * one.element_size() for one in skeleton.buffers())
    if taken > MOST_BUFFER_BYTES:
        yield f"config.json means {taken:,} bytes of masks and tables; {MOST_BUFFER_BYTES:,} are allowed"


def _parameter_faults(skeleton: PreTrainedModel, shapes: Shapes) -> Iterator[str]:
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


def _matched(skeleton: PreTrainedModel, shapes: Shapes) -> dict[str, Any]:
    """Return what transformers says of loading tensors of these shapes; they have no bytes."""
    config = copy.deepcopy(skeleton.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    with no_progress_bar():
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
