"""Stage functions for tests of warm hosts: each reports what its process is like, or waits."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from nss_train.contract import Event, Report, Request, Stage, StageResult

PR_GET_DUMPABLE = 3
SLEEP = "import time; time.sleep(600)"


def prepare_data(folder: Path, request: Request, *, report: Report) -> StageResult:
    """Do nothing, wait with a child of its own, or report on this process when its imports are done."""
    if request.dataset_name == "idles":
        return StageResult(stage=Stage.PREPARE_DATA)
    import nss_train.stages.preparation  # noqa: F401

    if request.dataset_name == "waits":
        child = subprocess.Popen([sys.executable, "-c", SLEEP], process_group=0)
        report(Event(action="test.started", fields={"pids": [os.getpid(), child.pid]}))
        time.sleep(600)
    return StageResult(stage=Stage.PREPARE_DATA, figures={"seen": seen(folder), "drawn": drawn()})


def load_model(folder: Path, request: Request, *, report: Report) -> StageResult:
    """Report on the host, as far as a process with torch can tell."""
    import torch
    from datasets.fingerprint import generate_random_fingerprint
    from peft.import_utils import is_bnb_available

    host = os.getppid()
    tasks = Path(f"/proc/{host}/task")
    figures = {
        "threads": sorted(
            (task / "comm").read_text().strip() for task in tasks.iterdir() if task.name != str(host)
        ),
        "cuda": torch.cuda.is_initialized() or torch.cuda._is_in_bad_fork(),
        "drawn": [*drawn(), float(torch.rand(())), generate_random_fingerprint()],
        "bitsandbytes": "bitsandbytes" in sys.modules,
        "bitsandbytes_is_known": is_bnb_available(),
        "frozen": gc.get_freeze_count(),
        "host": host,
    }
    return StageResult(stage=Stage.LOAD_MODEL, figures=figures)


def seen(folder: Path) -> dict[str, Any]:
    """Return everything in which two processes of the same stage might differ and should not."""
    status = dict(
        line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line
    )
    mask = os.umask(0)
    os.umask(mask)
    return {
        "environment": dict(os.environ),
        "files": sorted(_kind(path, folder) for path in Path("/proc/self/fd").iterdir()),
        "umask": oct(mask),
        "signals": {name: status[name] for name in ("SigBlk", "SigIgn", "SigCgt", "ShdPnd")},
        "handlers": {number.name: str(signal.getsignal(number)) for number in signal.Signals},
        "leads_its_session": os.getsid(0) == os.getpid() == os.getpgid(0),
        "limits": {
            name: resource.getrlimit(getattr(resource, name))
            for name in dir(resource)
            if name.startswith("RLIMIT_")
        },
        "folder": str(Path.cwd()),
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
        "threads": threading.active_count(),
        "memory_is_open": ctypes.CDLL(None).prctl(PR_GET_DUMPABLE),
        "privileges": [status[name] for name in ("Uid", "Gid", "CapEff", "NoNewPrivs")],
        "command": Path("/proc/self/cmdline").read_text().split("\0")[1:5],
    }


def drawn() -> list[Any]:
    """Return draws of the global generators."""
    import numpy as np

    return [random.random(), float(np.random.rand())]


def _kind(path: Path, folder: Path) -> str:
    try:
        target = str(path.readlink())
    except FileNotFoundError:
        return "the listing itself"
    return json.dumps(target.replace(str(folder), "FOLDER").partition(":[")[0].partition("/proc/")[0])
