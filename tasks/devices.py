"""CUDA devices of this machine: those that a worker sees, and its claim that keeps other workers away.

A claim is a flock of our own: filelock closes its file in a child process, which shall keep the claim here.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nss_train.errors import ParameterError, Problem
from tasks.permissions import make_folder
from tasks.settings import DEVICES, VISIBLE_DEVICES, Settings

logger = logging.getLogger(__name__)

CLAIM_S = 2.0
"""Time for which a claim is tried: the processes of a predecessor need a moment to end."""
_TRY_S = 0.05
_ANSWER_S = 60.0
"""Time for the driver's answer, which takes seconds per GPU where nothing keeps the driver loaded."""
_LIST = ("nvidia-smi", "-L")
_GPU = re.compile(r"GPU (?P<index>\d+): (?P<name>.+) \(UUID: (?P<uuid>GPU-\S+)\)")
_INSTANCE = re.compile(r"\s+MIG (?P<name>\S+)\s+Device\s+(?P<index>\d+): \(UUID: (?P<uuid>MIG-\S+)\)")
"""Lines of ``nvidia-smi -L``, as NVIDIA's MIG user guide shows them; instances follow their GPU."""
_UUID = re.compile(r"(GPU|MIG)-\S+")
_NONE = {"-1", "NoDevFiles", "none", "void"}
"""Entries of CUDA_VISIBLE_DEVICES after which nothing is seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A whole GPU, or a MIG instance of one."""

    uuid: str
    index: str
    """Index of the GPU as nvidia-smi counts; ``0-1``: the instance 1 of GPU 0."""
    name: str

    @property
    def is_instance(self) -> bool:
        return self.uuid.startswith("MIG-")

    def __str__(self) -> str:
        return " ".join(part for part in (self.index, self.name, self.uuid) if part)


@dataclass(frozen=True, kw_only=True, slots=True)
class User:
    """The worker that has claimed a device."""

    worker: str
    pid: int

    def __str__(self) -> str:
        return f"{self.worker} (process {self.pid})"


def of_this_machine() -> list[Device]:
    """Return every GPU without MIG instances, and every instance; none where the driver does not answer."""
    try:
        told = subprocess.run(_LIST, check=True, capture_output=True, text=True, timeout=_ANSWER_S).stdout
    except FileNotFoundError:
        return []
    except (OSError, subprocess.SubprocessError):
        logger.warning("nvidia-smi does not answer", exc_info=True)
        return []
    return parse(told)


def parse(listing: str) -> list[Device]:
    """Return the devices that ``nvidia-smi -L`` lists."""
    found: list[Device] = []
    gpu = ""
    for line in listing.splitlines():
        if whole := _GPU.match(line):
            gpu = whole["index"]
            found.append(Device(uuid=whole["uuid"], index=gpu, name=whole["name"]))
        elif instance := _INSTANCE.match(line):
            if found and found[-1].index == gpu:
                found.pop()  # nobody can use a divided GPU as a whole
            found.append(
                Device(uuid=instance["uuid"], index=f"{gpu}-{instance['index']}", name=instance["name"])
            )
    return found


def visible(settings: Settings) -> list[Device]:
    """Return the devices that a worker may use: all, unless the settings or the environment name some.

    Raises :class:`ParameterError` with every name that stands for no device.
    """
    present, wanted = of_this_machine(), settings.wanted_devices
    if wanted is None:
        return present
    if not present:
        return _untold(wanted)
    found: dict[str, Device] = {}
    problems: list[Problem] = []
    for name in _before_none(wanted):
        matching = _named(name, present)
        found |= {device.uuid: device for device in matching}
        if not matching:
            listed = ", ".join(f"{device.index} ({device.uuid})" for device in present)
            problems.append(Problem(field=_field(settings), value=name, remedy=f"name one of {listed}"))
    if problems:
        raise ParameterError("This machine has no such CUDA devices.", problems)
    return list(found.values())


def _before_none(wanted: Sequence[str]) -> Iterator[str]:
    for name in wanted:
        if name in _NONE:
            return
        yield name


def _named(name: str, present: Sequence[Device]) -> list[Device]:
    """Return the devices of an index (those of a divided GPU are its instances), or that of a UUID."""
    if not _UUID.match(name):
        return [device for device in present if name in (device.index, device.index.partition("-")[0])]
    # CUDA takes the beginning of a UUID, too, where only one begins so.
    matching = [device for device in present if device.uuid.startswith(name)]
    return matching if len(matching) == 1 else []


def _untold(wanted: Sequence[str]) -> list[Device]:
    """Return the devices that are named by UUID where nvidia-smi tells nothing, as in some containers."""
    names = list(_before_none(wanted))
    known = [name for name in names if _UUID.match(name)]
    if len(known) < len(names):
        logger.warning("devices %s cannot be identified without nvidia-smi", ",".join(names))
    return [Device(uuid=uuid, index=str(number), name="") for number, uuid in enumerate(known)]


def _field(settings: Settings) -> str:
    return DEVICES if settings.devices else VISIBLE_DEVICES


@contextmanager
def claimed(devices: Sequence[Device], settings: Settings, *, worker: str) -> Iterator[Settings]:
    """Keep the devices for this worker; yield its settings, which name them by UUID.

    A claim is a lock on ``<home>/devices/<uuid>``. The worker's processes inherit it, so that it ends with
    the last of them, however they end. Raises :class:`ParameterError` with every device in use.
    """
    _check_instances(devices, settings)
    with ExitStack() as held:
        problems = []
        for device in devices:
            file = held.enter_context(_opened(device, settings))
            if _lock(file, within_s=CLAIM_S):
                _write(file, User(worker=worker, pid=os.getpid()))
            else:
                problems.append(_in_use(device, _read(file), settings))
        if problems:
            raise ParameterError("Another worker of this machine uses the device.", problems)
        mine = tuple(device.uuid for device in devices)
        yield settings.model_copy(update={"devices": mine}) if mine else settings


def check_free(devices: Sequence[Device], settings: Settings) -> None:
    """Raise :class:`ParameterError` with every device that a worker uses."""
    users = ((device, user_of(device, settings)) for device in devices)
    problems = [_in_use(device, user, settings) for device, user in users if user is not None]
    if problems:
        raise ParameterError("Other workers of this machine use devices.", problems)


def user_of(device: Device, settings: Settings) -> User | None:
    """Return the worker that uses a device."""
    if not _path(device, settings).is_file():
        return None
    with _opened(device, settings) as file:
        return None if _lock(file) else _read(file)


def _check_instances(devices: Sequence[Device], settings: Settings) -> None:
    """Refuse several devices with an instance among them: a CUDA process sees a single instance."""
    if len(devices) > 1 and any(device.is_instance for device in devices):
        listed = ",".join(device.uuid for device in devices)
        remedy = "a process uses one MIG instance: name one, or start `nss-train worker --per-gpu`"
        problem = Problem(field=_field(settings), value=listed, remedy=remedy)
        raise ParameterError("A worker cannot use several MIG instances.", [problem])


def _in_use(device: Device, user: User, settings: Settings) -> Problem:
    remedy = f"{user} uses it; end that one, or name another device in {VISIBLE_DEVICES}"
    return Problem(field=_field(settings), value=str(device), remedy=remedy)


def _path(device: Device, settings: Settings) -> Path:
    # A UUID of drivers before R470 has slashes: MIG-GPU-…/7/0.
    return settings.devices_dir / device.uuid.replace("/", "_")


def _opened(device: Device, settings: Settings) -> BinaryIO:
    make_folder(settings.devices_dir)
    return _path(device, settings).open("a+b")


def _lock(file: BinaryIO, *, within_s: float = 0.0) -> bool:
    deadline = time.monotonic() + within_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_TRY_S)
        else:
            return True


def _write(file: BinaryIO, user: User) -> None:
    file.truncate(0)
    file.write(json.dumps({"worker": user.worker, "pid": user.pid}).encode())
    file.flush()


def _read(file: BinaryIO) -> User:
    """Return what the lock's owner wrote, who may be about to."""
    file.seek(0)
    text = file.read()
    return User(**json.loads(text)) if text else User(worker="that is starting", pid=0)
