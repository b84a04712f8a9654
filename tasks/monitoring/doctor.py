"""The checks of what this machine has and lacks."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from redis.exceptions import RedisError

from nss_train.errors import NSSTrainError, ParameterError
from nss_train.extras import PACKAGES, TRAIN, is_installed, missing
from tasks.app import connect_redis
from tasks.broker.checks import weaknesses
from tasks.devices import user_of, visible
from tasks.permissions import open_folders
from tasks.settings import Settings, unknown_settings
from tasks.store.open import open_store

MIN_FREE_GIB = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The result of one check."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
    exit_code: int = 1
    """Exit code of `doctor` when this is not ok."""

    def __str__(self) -> str:
        mend = "" if self.ok else f"\n        mend: {self.remedy}"
        return f"{'ok     ' if self.ok else 'MISSING'} {self.name}: {self.found}{mend}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def examine(settings: Settings) -> list[Finding]:
    """Return the result of every check; none changes anything but a probe in the store."""
    return list(_findings(settings))


def _findings(settings: Settings) -> Iterator[Finding]:
    python = sys.version.split()[0]
    yield Finding(
        name="python", ok=sys.version_info >= (3, 11), found=python, remedy="install Python 3.11 or later"
    )
    yield from _installed()
    yield _environment()
    yield _models(settings)
    yield _broker(settings)
    yield _store(settings)
    yield from _permissions(settings)
    free_gib = shutil.disk_usage(_existing(settings)).free / 2**30
    remedy = "free some space, or set NSS_TRAIN_HOME to a larger disk"
    yield Finding(name="disk", ok=free_gib >= MIN_FREE_GIB, found=f"{free_gib:.0f} GiB free", remedy=remedy)
    yield _cuda(settings)


def _installed() -> Iterator[Finding]:
    """Check the installed extras. Only training is missed; the other parts are optional."""
    lacking = [name for name in PACKAGES[TRAIN] if not is_installed(name)]
    found = f"lacks {', '.join(lacking)}" if lacking else "installed"
    remedy = "pip install torch==2.13.0, then pip install 'nss-train[train]'"
    yield Finding(name="training", ok=not lacking, found=found, remedy=remedy)
    without = [extra for extra in missing() if extra != TRAIN]
    told = f"pip install 'nss-train[{','.join(without)}]' adds what is not here" if without else "all"
    yield Finding(name="extras", ok=True, found=told)


def _environment() -> Finding:
    """Check for misspelt settings, which nothing reads."""
    unknown = unknown_settings()
    found = ", ".join(problem.field for problem in unknown) or "every NSS_TRAIN_ variable is a setting"
    remedy = "; ".join(f"{problem.field}: {problem.remedy}" for problem in unknown)
    return Finding(name="environment", ok=not unknown, found=found, remedy=remedy, exit_code=2)


def _models(settings: Settings) -> Finding:
    folder = settings.models_dir
    names = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    found = ", ".join(names) or f"none in {folder}"
    return Finding(name="models", ok=bool(names), found=found, remedy="nss-train model add smollm2")


def _broker(settings: Settings) -> Finding:
    address = settings.broker_url.get_secret_value().rpartition("@")[2]
    remedy = "start Redis or Valkey and set NSS_TRAIN_BROKER_URL; `nss-train run` and `up` start their own"
    try:
        found = weaknesses(connect_redis(settings))
    except RedisError as error:
        return Finding(name="broker", ok=False, found=f"{address}: {type(error).__name__}", remedy=remedy)
    # Weak settings are shown, but they are no fault: jobs survive an emptied broker.
    said = "; ".join([address, *(f"{problem}" for problem in found)])
    return Finding(name="broker", ok=True, found=said)


def _store(settings: Settings) -> Finding:
    try:
        open_store(settings).check()
    except NSSTrainError as error:
        remedy = "; ".join(f"{one.field}: {one.remedy}" for one in error.problems)
        remedy = remedy or "check NSS_TRAIN_STORE_URL"
        code = 2 if error.exit_code == 2 else 1
        return Finding(name="store", ok=False, found=error.message, remedy=remedy, exit_code=code)
    return Finding(name="store", ok=True, found=settings.effective_store_url)


def _cuda(settings: Settings) -> Finding:
    """Check the devices that a worker would see, and say who uses each."""
    try:
        devices = visible(settings)
    except ParameterError as error:
        remedy = "; ".join(f"{one.field}: {one.remedy}" for one in error.problems)
        return Finding(name="cuda", ok=False, found=str(error.message), remedy=remedy, exit_code=2)
    users = {device: user_of(device, settings) for device in devices}
    told = (f"{device}, {f'used by {user}' if user else 'free'}" for device, user in users.items())
    # Not a fault: a worker without a GPU can stand in, slowly.
    return Finding(name="cuda", ok=True, found="; ".join(told) or "no GPU; training runs on the CPU")


def _permissions(settings: Settings) -> Iterator[Finding]:
    found = open_folders(settings)
    if not found:
        yield Finding(name="permissions", ok=True, found="no other user of this machine sees the files")
    for folder in found:
        yield Finding(name="permissions", ok=False, found=str(folder), remedy=folder.remedy)


def _existing(settings: Settings) -> str:
    return str(next(p for p in (settings.home, *settings.home.absolute().parents) if p.exists()))
