"""The warm host of stages: ``python -m nss_train.host STAGE… --channel-fd N --parent PID``.

Importing torch and what trains with it takes longer than many a stage. A host has imported it once, and forks
a process for each stage, which then does what :mod:`nss_train.child` does. Its supervisor holds the other end
of the channel, and sends the command of a cold process with three file descriptors: the log, the pipe for
events, and the pipe on which the fork says its pid and the host its exit code. The host ends when the channel
closes, or dies with its parent.

``multiprocessing.forkserver`` listens for anyone on the machine, passes on its caller's environment, and runs
what it unpickles; here it is a pair of sockets, an environment without secrets, and one function.

A fork must find nothing here that a new process would not have, and no stage may change what others get: no
other process can read or write a host's memory. So a host imports and does nothing else: it
looks at no device (a process that has used CUDA cannot be forked), starts no thread of its own, computes with
no tensor, and sees no job's data. Which library threads there are is listed in a test.

The two halves of the stages have a host each. Tables are prepared without torch (213 MB held instead of 580),
under a limit of memory that counts what is inherited as if it had been imported by the process itself.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import selectors
import socket
import sys
import sysconfig
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from nss_train.child import Assignment, log_to_output, work
from nss_train.contract import Stage
from nss_train.huge_pages import collapse
from nss_train.process import die_with_parent, flush, keep_files_to_itself, leave, open_memory, show_as

READY = b"ready"
"""The host's first message: all is imported."""
_REQUEST_BYTES = 65536
_SEEDS: dict[str, Callable[[Any], object]] = {
    "numpy": lambda numpy: numpy.random.seed(),
    "torch": lambda torch: torch.default_generator.seed(),
    "datasets.fingerprint": lambda fingerprint: fingerprint.fingerprint_rng.seed(),
}
"""Modules that make a generator when they are imported, and how it gets a new seed."""
_BITSANDBYTES = "bitsandbytes"
_NAMES = "transformers.conversion_mapping"
"""Module whose table of weights' names is built on its first use, from 400 regular expressions: 0.2 s."""
_TORCH_ASKS_DRIVER = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""With it torch asks the driver's library whether there is a device, and does not begin to use one."""

_TABLES = (
    "nss_train.stages.preparation",
    "nss_train.artifacts.workdir",
    "concurrent.futures.thread",
    "encodings.utf_8_sig",
    "pandas.io.formats.csvs",
    "pyarrow.pandas_compat",
    "pyarrow.vendored.version",
)
_MODELS = (
    "nss_train.stages.base_model",
    "nss_train.training.ranks.group",
    "nss_train.training.ranks.sharing",
    "nss_train.training.stage",
    "torch._inductor.compile_fx",
    "torch._dynamo.repro.after_dynamo",
    "torch.profiler._cupti_monitor",
    "peft.utils.transformers_weight_conversion",
    "transformers.models.llama.modeling_llama",
)
_IMPORTS = {
    Stage.PREPARE_DATA: _TABLES,
    Stage.LOAD_MODEL: _MODELS,
    Stage.TRAIN: _MODELS,
    Stage.SAVE_MODEL: _TABLES,
}
"""What stages import, themselves or on the first call of a function that imports on demand."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m nss_train.host", description=__doc__)
    parser.add_argument("stages", nargs="+", type=Stage)
    parser.add_argument("--channel-fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True, help="pid without which this process ends")
    parser.add_argument("--room", help="room for the command lines of the forks")
    given = parser.parse_args()
    die_with_parent(given.parent)
    show_as([sys.executable, "-m", "nss_train.host", *given.stages])
    keep_files_to_itself()
    open_memory(opened=False)  # one job's process must not reach into what the next one's is made from
    log_to_output()
    warm_up(given.stages)
    assignment = Host(socket.socket(fileno=given.channel_fd)).serve()
    if assignment is None:
        leave(0)
    work(assignment)


def warm_up(stages: Sequence[Stage]) -> None:
    """Import what the stages need, and keep the garbage collector away from it: forks share its pages.

    In huge pages: a fork of the half with torch, and its end, then take 10 ms instead of 35.
    """
    with _without_devices():
        for name in dict.fromkeys(name for stage in stages for name in _IMPORTS[stage]):
            importlib.import_module(name)
    if _NAMES in sys.modules:
        sys.modules[_NAMES].get_checkpoint_conversion_mapping("llama")
    _keep_operators()
    gc.collect()
    gc.freeze()
    collapse()
    flush()


def _keep_operators() -> None:
    """Let no fork take back the operators that torch and its libraries have registered, when it ends.

    That takes 0.1 s of writing to shared pages, in a process of which nothing is left a moment later.
    """
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]  # noqa: SLF001
        finalizer.atexit = False


@contextmanager
def _without_devices() -> Iterator[None]:
    """Keep imports inside the block from using a CUDA device."""
    given = os.environ.get(_TORCH_ASKS_DRIVER)
    os.environ[_TORCH_ASKS_DRIVER] = "1"
    late = _Late()
    sys.meta_path.insert(0, late)
    try:
        yield
    finally:
        sys.meta_path.remove(late)
        del os.environ[_TORCH_ASKS_DRIVER]
        if given is not None:
            os.environ[_TORCH_ASKS_DRIVER] = given


class _Late(Loader):
    """A finder that knows of bitsandbytes but cannot import it yet: its import looks at the devices.

    PEFT asks whether the package is there, and keeps the answer; a fork imports it if need be, in 0.3 s.
    Accelerate forks no ranks from a process that has imported it, not even on a machine without devices.
    """

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name == _BITSANDBYTES else None

    def create_module(self, _spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, _module: ModuleType) -> None:
        raise ImportError("bitsandbytes is imported by the processes that are forked here")


@dataclass(frozen=True, kw_only=True, slots=True)
class Child:
    """A forked process of a stage, as its host sees it."""

    pid: int
    status_fd: int


class Host:
    """The loop of a host: fork for each request, and report each exit code."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, Child] = {}
        """The children by their pidfd."""
        self._version = _version()

    def serve(self) -> Assignment | None:
        """Serve until the channel closes, or a package has changed. In a fork, return its assignment."""
        os.close(os.pidfd_open(os.getpid()))  # where the kernel has none, it is the host that fails
        self._selector.register(self._channel, selectors.EVENT_READ)
        self._channel.send(READY)
        while True:
            for key, _ in self._selector.select():
                if key.fd in self._children:
                    self._reap(key.fd)
                    continue
                message, fds, _, _ = socket.recv_fds(self._channel, _REQUEST_BYTES, 3)
                if not message or self._version != _version():
                    return None
                if self._fork(*fds):
                    return _assignment(json.loads(message), events_fd=fds[1])

    def _fork(self, log: int, events: int, status: int) -> bool:
        """Fork, and tell whether this is the new process."""
        host = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._close()
            _become_child(host, log, status)
            return True
        os.close(log)
        os.close(events)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = Child(pid=pid, status_fd=status)
        self._selector.register(pidfd, selectors.EVENT_READ)
        return False

    def _reap(self, pidfd: int) -> None:
        child = self._children.pop(pidfd)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(child.pid, 0)
        try:
            os.write(child.status_fd, b"code %d\n" % os.waitstatus_to_exitcode(status))
        except BrokenPipeError:
            pass  # its supervisor does not want to know any more
        finally:
            os.close(child.status_fd)

    def _close(self) -> None:
        """Close in a fork what is its host's."""
        self._selector.close()
        self._channel.close()
        for pidfd, child in self._children.items():
            os.close(pidfd)
            os.close(child.status_fd)


def _assignment(words: Sequence[str], *, events_fd: int) -> Assignment:
    show_as([sys.executable, "-m", "nss_train.child", *words])
    stage, folder, module = words
    return Assignment(stage=Stage(stage), folder=Path(folder), module=module, events_fd=events_fd)


def _become_child(host: int, log: int, status: int) -> None:
    """Make a fork what a new process of a stage would be, and say that it is there."""
    os.setsid()
    die_with_parent(host)
    open_memory(opened=True)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    _seed()
    os.write(status, b"pid %d\n" % os.getpid())
    os.close(status)


def _seed() -> None:
    """Seed the generators that imports have made, as in a new process. Python seeds its own after a fork."""
    for name, seed in _SEEDS.items():
        if name in sys.modules:
            seed(sys.modules[name])


def _version() -> list[int]:
    """Return what changes when a package is installed or removed, or a module of this library is edited."""
    packages = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    own = {
        str(module.__file__)
        for name, module in sys.modules.items()
        if name.startswith("nss_train.") and getattr(module, "__file__", None)
    }
    return [_changed_at(path) for path in (*sorted(packages), *sorted(own))]


def _changed_at(path: str) -> int:
    try:
        return Path(path).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


if __name__ == "__main__":
    main()
