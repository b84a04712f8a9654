"""Loading of a base model in the precision that the machine computes in."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils import logging as hf_logging

from nss_train.config.sections.training import ATTENTIONS, ROWWISE_ATTENTIONS
from nss_train.errors import InfrastructureError, ParameterError, Problem
from nss_train.model.layers.dropout import config_without_dropout, model_without_dropout
from nss_train.model.layers.rope import RopeScaling, stretch
from nss_train.model.quantization import NO_OUTLIERS, without_outliers

logger = logging.getLogger(__name__)

_LOADING = threading.Lock()

Placement = str | dict[str, int] | None
"""A ``device_map`` of transformers."""

RESERVED_BYTES = 2 * 2**30
"""Bytes left free on a device for everything but weights, as in NSS."""
ROPES_OF_THE_BATCH = {"dynamic", "longrope"}
"""RoPE types whose frequencies change for all rows when one row is long."""
BATCH_NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)  # noqa: SLF001
"""Layers that normalise a row by other rows."""
BITSANDBYTES = "bitsandbytes"
"""The quantization known to keep rows independent, if LLM.int8's outliers are off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Precision:
    """The data type of the base weights, and why."""

    dtype: torch.dtype
    reason: str

    @property
    def name(self) -> str:
        return str(self.dtype).removeprefix("torch.")


FLOAT32 = Precision(dtype=torch.float32, reason="asked for")


def choose_precision() -> Precision:
    """Return bfloat16 where the device computes in it, float32 elsewhere; log the reason."""
    if torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False):
        chosen = Precision(dtype=torch.bfloat16, reason="the CUDA device computes in bfloat16")
    elif torch.cuda.is_available():
        chosen = Precision(dtype=torch.float32, reason="the CUDA device has no bfloat16 units")
    else:
        chosen = Precision(
            dtype=torch.float32, reason="there is no CUDA device, and a CPU is slow in bfloat16"
        )
    logger.info("dtype=%s because %s", chosen.name, chosen.reason, extra={"action": "model.dtype"})
    return chosen


def load_base(
    folder: Path,
    precision: Precision,
    *,
    attention: str,
    trust_remote_code: bool,
    quantization: Any = None,
    rope: RopeScaling | None = None,
    max_vram_fraction: float | None = None,
    placement: Placement = "auto",
    rows_independent: bool = False,
) -> PreTrainedModel:
    """Load a causal language model from a local safetensors folder.

    A folder that holds quantized weights is loaded as it is; ``quantization`` quantizes others while
    loading. ``rope`` stretches the context. ``placement`` maps parts of the model to CUDA devices;
    ``None`` leaves it to the trainer. ``rows_independent`` keeps each row of a batch from affecting the
    others, as private trainings need. Raises :class:`ParameterError` when the files are not a loadable
    model.
    """
    options: dict[str, Any] = {"dtype": precision.dtype, "use_safetensors": True}
    if quantization is not None:
        options["quantization_config"] = without_outliers(quantization) if rows_independent else quantization
    if torch.cuda.is_available() and max_vram_fraction is not None and placement is not None:
        options |= {"device_map": placement, "max_memory": max_memory(max_vram_fraction)}
    with typed_errors(folder), loading_alone():
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            str(folder),
            config=_config(
                folder,
                precision,
                rope,
                trust_remote_code=trust_remote_code,
                rows_independent=rows_independent,
            ),
            attn_implementation=choose_attention(attention, rows_independent=rows_independent),
            trust_remote_code=trust_remote_code,
            local_files_only=True,
            **options,
        )
    _keep_weights_as_stored(model)
    if rows_independent:
        check_layers(model, folder.name)
        model_without_dropout(model)
    return model


def load_skeleton(
    folder: Path, *, attention: str, trust_remote_code: bool, rows_independent: bool = False
) -> PreTrainedModel:
    """Return the layers of a model and their shapes, without reading or allocating weights.

    Raises :class:`ParameterError` when the config is not that of a loadable model, or when rows must be
    independent but are not known to be.
    """
    with typed_errors(folder), loading_alone(), torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            _config(
                folder,
                FLOAT32,
                None,
                trust_remote_code=trust_remote_code,
                rows_independent=rows_independent,
            ),
            attn_implementation=choose_attention(attention, rows_independent=rows_independent),
            trust_remote_code=trust_remote_code,
            dtype=FLOAT32.dtype,
        )
    if rows_independent:
        check_layers(model, folder.name)
    return model


def check_weights(folder: Path) -> None:
    """Raise :class:`ParameterError` for missing or truncated weights; only headers are read."""
    with typed_errors(folder):
        for name in weight_files(folder):
            with safe_open(folder / name, framework="pt") as file:
                file.keys()


def weight_files(folder: Path) -> list[str]:
    """Return the names of the files that transformers takes the weights from."""
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if (folder / SAFE_WEIGHTS_NAME).is_file() or not index.is_file():
        return [SAFE_WEIGHTS_NAME]
    return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))


@contextmanager
def typed_errors(folder: Path) -> Iterator[None]:
    """Turn errors of transformers and safetensors about a model's files into a user error.

    A missing folder is not the user's mistake: another worker removed it to make room.
    """
    try:
        yield
    except ParameterError:
        raise  # which is a ValueError, too
    except (MemoryError, InfrastructureError, torch.OutOfMemoryError):
        raise  # not caused by the files
    except Exception as error:
        # A model's classes may raise anything when numbers do not fit together.
        if not folder.is_dir():
            raise InfrastructureError(f"The worker's copy of {folder.name} is gone.") from error
        remedy = f"the files cannot be loaded ({type(error).__name__}: {error})"
        problem = Problem(field="training.pretrained_model", value=folder.name, remedy=remedy)
        raise ParameterError("The base model cannot be loaded.", [problem]) from error


def _keep_weights_as_stored(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from repacking 4-bit weights at the first evaluation on a CPU.

    The repacking fails for layers whose width is not a multiple of 32, and training continues afterwards.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 (a Module types its attributes)


def max_memory(fraction: float) -> dict[int, int]:
    """Return the usable bytes of each CUDA device: the fraction, at most 2 GiB less than its free memory."""
    found = {}
    for device in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(device)
        found[device] = int(min(fraction, max(free - RESERVED_BYTES, 0) / total) * total)
    return found


def _config(
    folder: Path,
    precision: Precision,
    rope: RopeScaling | None,
    *,
    trust_remote_code: bool,
    rows_independent: bool = False,
) -> PretrainedConfig:
    config: PretrainedConfig = AutoConfig.from_pretrained(
        str(folder), trust_remote_code=trust_remote_code, local_files_only=True
    )
    if rows_independent:
        check_rows(config, folder.name)
        config_without_dropout(config)
    stored = getattr(config, "quantization_config", None)
    if isinstance(stored, dict):
        config.quantization_config = stored | _of_this_run(
            stored, precision, rows_independent=rows_independent
        )
    if rope is not None:
        stretch(config, rope)
    return config


def check_rows(config: PretrainedConfig, name: str) -> None:
    """Raise :class:`ParameterError` unless each row is computed as if alone in its batch."""
    # A config whose code comes with the model may still use the older names.
    ropes = dict(getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {})
    found = [rope for rope in (ropes, *ropes.values()) if isinstance(rope, dict)]
    kinds = {rope.get("rope_type", rope.get("type")) for rope in found}
    stored = getattr(config, "quantization_config", None) or {"quant_method": BITSANDBYTES}
    remedies = {
        "its rotary frequencies follow the longest row of a batch": not kinds.isdisjoint(ROPES_OF_THE_BATCH),
        "its quantization may scale a row by others": stored.get("quant_method") != BITSANDBYTES,
        "its experts take so many tokens of a batch and no more": bool(_capacities(config)),
    }
    _refuse([why for why, holds in remedies.items() if holds], name)


def check_layers(model: nn.Module, name: str) -> None:
    """Raise :class:`ParameterError` for layers that mix the rows of a batch, and for adapted experts."""
    found = [path for path, module in model.named_modules() if isinstance(module, BATCH_NORMS)]
    reasons = [f"its {path} normalises a row by others" for path in found[:1]]
    factors = (path for path, _ in model.named_parameters() if "lora_" in path)
    if any("expert" in path for path in factors):
        reasons.append("its experts, which an adapter would train, see tokens and not rows")
    _refuse(reasons, name)


def _capacities(config: PretrainedConfig) -> list[str]:
    """Return the names of fields that limit an expert's tokens, in any part of a config."""
    parts = [config, *(part for part in vars(config).values() if isinstance(part, PretrainedConfig))]
    return [key for part in parts for key, value in vars(part).items() if "capacity" in key and value]


def _refuse(reasons: list[str], name: str) -> None:
    remedy = "{why}, so that one record would change another's gradient; use another base model"
    problems = [
        Problem(field="training.pretrained_model", value=name, remedy=remedy.format(why=why))
        for why in reasons
    ]
    if problems:
        raise ParameterError("The base model cannot be trained privately.", problems)


def _of_this_run(stored: dict[str, Any], precision: Precision, *, rows_independent: bool) -> dict[str, Any]:
    """Return the quantization settings that depend on the run: one stored model serves all jobs."""
    chosen: dict[str, Any] = {}
    if "bnb_4bit_compute_dtype" in stored:
        # Stored by a machine that may compute in another dtype.
        chosen["bnb_4bit_compute_dtype"] = precision.name
    if rows_independent and stored.get("load_in_8bit"):
        chosen["llm_int8_threshold"] = NO_OUTLIERS
    return chosen


@contextmanager
def loading_alone() -> Iterator[None]:
    """Load in one thread at a time, without progress bars, which would garble a stage's log.

    While it loads, transformers replaces methods of its classes and torch's default type for all threads;
    two that overlap would leave them replaced, and each later model without tied weights.
    """
    with _LOADING:
        shown = hf_logging.is_progress_bar_enabled()
        hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            if shown:
                hf_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def choose_attention(wanted: str, *, rows_independent: bool = False) -> str:
    """Return the configured attention, or ``sdpa`` when its kernels are not installed; log the reason.

    Raises :class:`ParameterError` for one that mixes rows where they must be independent.
    """
    if rows_independent and wanted not in ROWWISE_ATTENTIONS:
        remedy = "its kernels pack rows of different length into one; use sdpa or eager"
        problem = Problem(field="training.attn_implementation", value=wanted, remedy=remedy)
        raise ParameterError("The base model cannot be trained privately.", [problem])
    from importlib.util import find_spec

    if wanted not in ATTENTIONS:  # from a job that an older release accepted
        remedy = f"must be one of {', '.join(ATTENTIONS)}"
        problem = Problem(field="training.attn_implementation", value=wanted, remedy=remedy)
        raise ParameterError("The attention is not known.", [problem])
    if wanted.startswith("kernels-community/") and find_spec("kernels") is None:
        logger.warning("attn_implementation=sdpa because %s needs the package kernels", wanted)
        return "sdpa"
    return wanted
