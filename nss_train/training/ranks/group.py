"""The process group that trains: its number of ranks, their start, and the error that is raised.

Accelerate's launcher starts it: torch's ``elastic_launch`` alone would look at the CUDA devices before the
fork, and so take them from the ranks. Its results and error files cannot replace the notes: a file has the
text of an error without its problems, and one that a full disk cut off hides the error.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState, notebook_launcher
from accelerate.utils import broadcast
from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from nss_train import errors
from nss_train.config.support import unsupported_ranks
from nss_train.contract import Report, Request, StageDrained, StageResult
from nss_train.errors import NSSTrainError, ParameterError, Problem, StageLost
from nss_train.process import default_signals, die_with_parent

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

StageFunction = Callable[..., StageResult]

_MONITOR_S = 0.1
_LET_THE_CAUSE_BE_SEEN_S = 10 * _MONITOR_S
_PEERS_SAY = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL")
"""Parts of the messages of gloo, which raises a bare RuntimeError, and of NCCL."""


def launch(
    function: StageFunction, folder: Path, request: Request, *, ranks: int, report: Report
) -> StageResult:
    """Run a stage function as a group of ``ranks`` processes; return the result of rank 0.

    They are forked and meet on a free loopback port, so that groups can share a machine. When one rank
    fails all end, and its error is raised: :class:`~nss_train.errors.StageLost` when it died without
    leaving one.
    """
    notes = folder / "ranks"
    notes.mkdir(exist_ok=True)
    parent = os.getpid()

    def member() -> None:
        _become_rank(parent, ranks)
        try:
            _run_rank(function, folder, request, report, notes)
        except Exception:
            logger.exception("rank %s failed", os.environ["RANK"])
            # Raised further, it would be written into temporary files, which torch reads but does not remove.
            sys.exit(1)

    try:
        # Accelerate prints what it launches; the events already report it.
        with contextlib.redirect_stdout(io.StringIO()):
            notebook_launcher(
                member,
                num_processes=ranks,
                rdzv_backend="c10d",
                rdzv_endpoint="127.0.0.1:0",
                rdzv_id=request.job_id,
                monitor_interval=_MONITOR_S,
            )
    except ChildFailedError as failed:
        raise _cause(failed, notes) from failed
    return _outcome(notes)


def choose_ranks(wanted: int, effective_batch: int, *, room: int = 0) -> int:
    """Return a number of ranks that share an effective batch evenly.

    ``wanted`` is the job's number: it is kept, or refused with :class:`ParameterError`. Without one (0),
    it is the worker's ``room``, or the number of CUDA devices, lowered to a divisor of the batch.
    """
    devices = room or torch.cuda.device_count()
    if wanted == 0:
        found = max(n for n in range(1, max(devices, 1) + 1) if effective_batch % n == 0)
        if found < devices:
            logger.warning(
                "ranks=%d of %d devices: they must divide the batch of %d", found, devices, effective_batch
            )
        return found
    problems = list(unsupported_ranks(wanted, effective_batch=effective_batch))
    if 0 < devices < wanted:
        problems.append(Problem(field="ranks", value=wanted, remedy=f"this worker has room for {devices}"))
    if problems:
        raise ParameterError("The job cannot be trained by so many processes.", problems)
    return wanted


def group_state() -> PartialState:
    """Return Accelerate's state of this process's group; without ``cpu`` a CPU rank would seem alone."""
    return PartialState(cpu=not torch.cuda.is_available())


def agreed(mine: bool) -> bool:
    """Return rank 0's answer on every rank, because ranks check clocks and files at different moments."""
    state = group_state()
    if state.num_processes == 1:
        return mine
    return bool(broadcast(torch.tensor([int(mine)], device=state.device)).item())


def is_first() -> bool:
    """Tell whether this process is rank 0."""
    return bool(group_state().is_main_process)


def placement(*, fsdp: bool, whole: bool = False) -> str | dict[str, int] | None:
    """Return the device map of this rank's base model: its own device, or all devices for a single rank.

    A ``whole`` model is never spread over devices.
    """
    state = group_state()
    if fsdp:
        return None
    return "auto" if state.num_processes == 1 and not whole else {"": int(state.local_process_index)}


def on_device(base: PreTrainedModel) -> PreTrainedModel:
    """Move the model to this rank's device, unless a device map placed it while loading; return it."""
    if getattr(base, "hf_device_map", None) is None and base.device != group_state().device:
        base.to(group_state().device)
    return base


def wait_for_all() -> None:
    """Return when every rank has reached this call."""
    group_state().wait_for_everyone()


def _become_rank(parent: int, ranks: int) -> None:
    die_with_parent(parent)
    default_signals()
    if not torch.cuda.is_available():
        # Ranks that each take every core are slower than one rank.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // ranks))


def _run_rank(function: StageFunction, folder: Path, request: Request, report: Report, notes: Path) -> None:
    rank = int(os.environ["RANK"])
    try:
        result = function(folder, request, report=report if rank == 0 else _nobody)
    except StageDrained as drained:
        _note(notes, rank, {"drained": drained.step})
    except Exception as error:
        if _lost_a_peer(error):
            # The rank that failed first is the cause: give it time to be detected.
            time.sleep(_LET_THE_CAUSE_BE_SEEN_S)
        _note(notes, rank, {"error": errors.to_json(errors.typed(error, folder))})
        raise
    else:
        _note(notes, rank, {"result": result.model_dump(mode="json")})
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _lost_a_peer(error: Exception) -> bool:
    if isinstance(error, NSSTrainError) or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, DistError) or any(part in str(error) for part in _PEERS_SAY)


def _note(notes: Path, rank: int, document: dict[str, Any]) -> None:
    aside = notes / f"{rank}.part"
    aside.write_text(json.dumps(document), encoding="utf-8")
    aside.replace(notes / f"{rank}.json")


def _outcome(notes: Path) -> StageResult:
    document = json.loads((notes / "0.json").read_text(encoding="utf-8"))
    if "drained" in document:
        raise StageDrained(document["drained"])
    return StageResult.model_validate(document["result"])


def _cause(failed: ChildFailedError, notes: Path) -> NSSTrainError:
    """Return the error of the rank that failed first, typed if the rank had time to write it."""
    rank, failure = failed.get_first_failure()
    note = notes / f"{rank}.json"
    if note.is_file():
        document = json.loads(note.read_text(encoding="utf-8"))
        if "error" in document:
            return errors.from_json(document["error"])
    if failure.exitcode < 0:
        return StageLost(f"Rank {rank} ended by signal {signal.Signals(-failure.exitcode).name}.")
    # It left no note: perhaps the disk was full.
    return errors.typed(RuntimeError(f"rank {rank} left exit code {failure.exitcode} and no error"), notes)


def _nobody(_event: object) -> None:
    """Ignore an event: the report function of every rank but the first."""
