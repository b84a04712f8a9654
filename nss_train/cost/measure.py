"""The cost of a prepared training on this machine, measured once for each model and kind of training."""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import math
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nss_train.config import SafeSynthesizerParameters
from nss_train.config.sections.training import TrainingHyperparams
from nss_train.contract import Frozen
from nss_train.cost.cost import CPU, Cost
from nss_train.cost.pace import Pace
from nss_train.cost.work import WORK, Work
from nss_train.model.local.source import ModelSource, read_config
from nss_train.model.scheme import choose_scheme
from nss_train.remembered import recall, remember

if TYPE_CHECKING:
    from nss_train.privacy.accounting.plan import PrivacyPlan

logger = logging.getLogger(__name__)

_IMPORTED = ("nss_train.training.stage", "nss_train.cost.probe")
_PRIVATELY = ("nss_train.privacy.dpsgd.private", "nss_train.cost.private_probe")
PROCESS_S = 1.0
"""Seconds until a new process has imported this library's light parts, plus the time to store its files."""
ALIKE = 2**0.5
"""Rows whose lengths differ by less than this factor are assumed to cost the same per token."""
READ_BYTES_PER_S = 5e8
"""Rate at which a base model is verified, mapped and converted to the type of the computation: between 1.1e9
from a page cache and 2e8 from a network's disk."""

SLOW_FLOPS_PER_S = 2e10
"""Least rate in float32 that one core of a server's CPU reaches."""
WORTH_MEASURING_S = 600.0
"""Shortest training that is measured, in seconds on such a core; a measurement takes some seconds itself."""

MOST_MEASURING_S = 180.0
"""Longest measurement, in seconds on such cores: it was 96 s for SmolLM2-135M, private, on half of one."""
MOST_ADAPTER = 2**27
"""Most parameters of the adapter in a measurement; a private one holds several gradients of each unit."""


class Measured(Frozen):
    """The content of ``<digest>.json`` in the folder of paces."""

    device: str
    pace: Pace
    imports_s: float
    busy: bool = False
    """Whether other work kept the processor busy: the pace is too slow then, and measured again later."""

    @property
    def told(self) -> str:
        """Return the device as people read it."""
        return f"{self.device}, busy with other work" if self.busy else self.device


def cost_of_stage(
    prepared: Path, source: ModelSource, config: SafeSynthesizerParameters, *, paces: Path, imports_s: float
) -> Cost | None:
    """Return the cost of what prepare_data left in a folder; ``None`` if an older release wrote it.

    The time of a short training is not measured.
    """
    file = prepared / f"{WORK}.json"
    if not file.is_file():
        return None
    work, plan = Work.model_validate_json(file.read_bytes()), None
    model = read_config(source.folder)
    if work.flops(model) < WORTH_MEASURING_S * SLOW_FLOPS_PER_S:
        return work.cost(model, config.training)
    if work.private:
        # Imported here because other trainings do without the accountant, which may not be installed.
        from nss_train.privacy.accounting.plan import PrivacyPlan

        plan = PrivacyPlan.model_validate_json((prepared / "privacy.json").read_bytes())
    return measured_cost(source, config, work, plan, paces=paces, imports_s=imports_s)


def measured_cost(
    source: ModelSource,
    config: SafeSynthesizerParameters,
    work: Work,
    plan: PrivacyPlan | None,
    *,
    paces: Path,
    imports_s: float = 0.0,
) -> Cost:
    """Return the cost with the time it takes here, or without a time if the model cannot be tried.

    ``imports_s`` is the time that the imports of a train stage have taken so far in this process.
    """
    model = read_config(source.folder)
    cost = work.cost(model, config.training)
    try:
        found = _measured(source, config, work, plan, paces=paces, imports_s=imports_s)
    except Exception:  # no job fails because of an estimate: its training will report what is wrong
        logger.warning("the training's duration is unknown because it could not be measured", exc_info=True)
        return cost
    if found is None:
        return cost
    weights = sum(path.stat().st_size for path in source.files if path.suffix == ".safetensors")
    begins_s = PROCESS_S + found.imports_s + weights / READ_BYTES_PER_S
    seconds = begins_s + found.pace.seconds(work, model)
    return cost.model_copy(update={"seconds": round(seconds, 1), "device": found.told})


def _measured(
    source: ModelSource,
    config: SafeSynthesizerParameters,
    work: Work,
    plan: PrivacyPlan | None,
    *,
    paces: Path,
    imports_s: float,
) -> Measured | None:
    """Return an earlier measurement, or measure now; ``None`` if that would take long itself."""
    file, began = paces / f"{_key(source, config, work)}.json", time.monotonic()
    for module in (*_IMPORTED, *(_PRIVATELY if work.private else ())):
        importlib.import_module(module)
    imports_s += time.monotonic() - began
    from nss_train.cost import probe

    device, busy = probe.device_name(), is_busy()
    known = recall(file, Measured)
    if known is not None and known.device == device and (busy or not known.busy):
        return known
    if not is_bearable(read_config(source.folder), config.training, work, on_cpu=device.startswith(CPU)):
        logger.info("the training's duration is unknown because measuring it would take too long")
        return None
    began = time.monotonic()
    pace = probe.pace_of(source, config, work, plan)
    fields = {"action": "cost.measured", "seconds": round(time.monotonic() - began, 1)}
    logger.info("the pace of this training is measured on %s", device, extra=fields)
    found = Measured(device=device, pace=pace, imports_s=imports_s, busy=busy)
    remember(file, found)
    return found


def is_busy() -> bool:
    """Tell whether more processes than cores wanted to run in the last minute."""
    return os.getloadavg()[0] > len(os.sched_getaffinity(0))


def is_bearable(
    model: Mapping[str, object], training: TrainingHyperparams, work: Work, *, on_cpu: bool
) -> bool:
    """Tell whether a measurement has bounded cost, whatever the config asks for."""
    if work.tried_adapter(model, training) > MOST_ADAPTER:
        return False
    cores = len(os.sched_getaffinity(0))
    return not on_cpu or work.tried_flops(model, training) <= MOST_MEASURING_S * SLOW_FLOPS_PER_S * cores


def _key(source: ModelSource, config: SafeSynthesizerParameters, work: Work) -> str:
    """Return the digest of all that a pace depends on except the device; similar row lengths share one."""
    training = config.training
    parts = {
        "machine": platform.node(),
        "model": read_config(source.folder),
        "scheme": choose_scheme(training),
        "training": training.model_dump(
            include={"lora_r", "lora_target_modules", "attn_implementation"}, mode="json"
        ),
        "rows": work.rows_at_once,
        "row_tokens": _bucket(work.row_tokens),
        "longest": _bucket(work.longest_tokens),
        "private": [round(work.rows_per_step), work.context_tokens, config.strictly_private]
        if work.private
        else None,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _bucket(tokens: float) -> int:
    return round(math.log(max(tokens, 1.0), ALIKE))
