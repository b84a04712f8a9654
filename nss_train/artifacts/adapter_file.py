"""The inspection of an adapter's safetensors file without torch: tensors, types, finite numbers.

safetensors says whether the file is whole. Its tensors are read from their bits, because for numpy it has
no 8-bit floats, and bfloat16 only with ml_dtypes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from nss_train.artifacts.files import sha256_of
from nss_train.errors import ParameterError, Problem, StageLost

_NOT_FINITE = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
    "F8_E5M2": ("u1", 0x7C),
    "F8_E4M3": ("u1", 0x7F),
}
"""Integer type by dtype, and the bits that are all set in what is infinite or not a number: the exponent
(IEEE 754; bfloat16 is the upper half of a float32), in E4M3 the fraction too (OCP 8-bit floating point)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterFile:
    """The content of an adapter's weight file, in figures."""

    bytes: int
    sha256: str
    tensors: int
    parameters: int
    dtypes: tuple[str, ...]

    def figures(self) -> dict[str, Any]:
        """Return plain JSON for :class:`StageResult`."""
        return {
            "adapter_bytes": self.bytes,
            "adapter_sha256": self.sha256,
            "adapter_tensors": self.tensors,
            "adapter_parameters": self.parameters,
            "adapter_dtypes": list(self.dtypes),
        }


def inspect_adapter(path: Path) -> AdapterFile:
    """Read the file's header and check each tensor.

    Raises:
        StageLost: the file is missing, truncated or without tensors.
        ParameterError: a weight is infinite or not a number, so training diverged; all are named.
    """
    header, data_start = _header(path)
    if not header:
        raise StageLost(f"{path.name} holds no tensor.")
    broken = [name for name, tensor in header.items() if not _is_finite(path, data_start, tensor)]
    if broken:
        remedy = "lower it, or raise training.warmup_steps: these weights are not finite numbers"
        problem = Problem(field="training.learning_rate", value=", ".join(sorted(broken)), remedy=remedy)
        raise ParameterError(f"Training diverged: {len(broken)} adapter tensors hold NaN.", [problem])
    return AdapterFile(
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
        tensors=len(header),
        parameters=sum(prod(tensor["shape"]) for tensor in header.values()),
        dtypes=tuple(sorted({tensor["dtype"] for tensor in header.values()})),
    )


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the tensors' descriptions and the start of their data (format: 8-byte length, JSON, data)."""
    try:
        with safe_open(path, framework="np"):  # refuses a file whose header does not fit it
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except (OSError, SafetensorError) as error:
        raise StageLost(f"{path.name} is not a whole safetensors file: {error}") from error
    header.pop("__metadata__", None)
    if not all(isinstance(tensor, dict) for tensor in header.values()):  # safetensors reads lists as well
        raise StageLost(f"{path.name} is not a whole safetensors file: a tensor has no named fields.")
    return header, 8 + length


def _is_finite(path: Path, data_start: int, tensor: dict[str, Any]) -> bool:
    import numpy as np

    if tensor["dtype"] not in _NOT_FINITE:
        return True
    kind, mask = _NOT_FINITE[tensor["dtype"]]
    offset = data_start + tensor["data_offsets"][0]
    bits = np.fromfile(path, dtype=kind, count=prod(tensor["shape"]), offset=offset)
    return not bool(((bits & mask) == mask).any())
