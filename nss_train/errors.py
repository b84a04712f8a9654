"""The errors that this library raises on purpose, and whether a retry can help."""

from __future__ import annotations

import errno
import math
import reprlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from nss_train import documents


class Retry(StrEnum):
    """A worker's reaction to a failed stage."""

    NEVER = "never"
    SAME_WORKER = "same_worker"
    """A service was unreachable: retry here, as often as needed."""
    OTHER_WORKER = "other_worker"
    """Retry on any free worker; the operator limits how often."""
    SMALLER_BATCH = "smaller_batch"
    """Retry with half the micro-batch."""


MOST_PROBLEMS = 50
"""Most problems that an error lists: more than a person fixes at a time."""
_FIELD_CHARS = 200
_VALUE_CHARS = 200
_REMEDY_CHARS = 1_000
_MESSAGE_CHARS = 4_000
_DIGITS = 40
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxother, _SHORT.maxlong = 3, _VALUE_CHARS, _DIGITS


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing that is wrong with a request: where, what was given, what to do about it.

    It is shown, stored and sent, so each part is cut to a maximum length, whatever its origin.
    """

    field: str
    value: Any
    remedy: str

    def __post_init__(self) -> None:
        for name, value in (
            ("field", cut(self.field, _FIELD_CHARS)),
            ("value", _shown(self.value)),
            ("remedy", cut(self.remedy, _REMEDY_CHARS)),
        ):
            object.__setattr__(self, name, value)

    def __str__(self) -> str:
        return f"{self.field} = {self.value!r}: {self.remedy}"


_MORE = "…"
"""Field of the problem that stands for the unlisted ones; its value is their number."""


def cut(text: str, chars: int) -> str:
    """Return the text, cut to at most ``chars`` characters and encodable as UTF-8."""
    short = text if len(text) <= chars else f"{text[: chars - 1]}…"
    return short.encode("utf-8", "backslashreplace").decode("utf-8")


def _shown(value: object) -> Any:
    """Return a value as a problem shows it: short, whatever its size and depth."""
    if isinstance(value, str):
        return cut(value, _VALUE_CHARS)
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and value.bit_length() <= documents.INTEGER_BITS:
        return value
    if isinstance(value, int):
        return f"a number of {value.bit_length()} bits"
    return cut(_SHORT.repr(value), _VALUE_CHARS)


def _few(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return the first problems, and one that says how many more there are."""
    found = list(problems)
    if len(found) <= MOST_PROBLEMS:
        return tuple(found)
    rest = found[MOST_PROBLEMS:]
    return (*found[:MOST_PROBLEMS], unlisted(sum(one.value if one.field == _MORE else 1 for one in rest)))


def unlisted(count: int) -> Problem:
    """Return the problem that stands for ``count`` others."""
    return Problem(field=_MORE, value=count, remedy=f"and {count:,} more; mend the others first")


class NSSTrainError(Exception):
    """Root of everything this library raises on purpose.

    NSSTrainError
    ├── UserError                    the request is wrong; never retried (exit code 2)
    │   ├── DataError                the table (NSS's name, kept)
    │   ├── ParameterError           the config (NSS's name, kept)
    │   ├── GenerationError          records or prompt do not fit the model (NSS's name, kept)
    │   ├── LimitExceeded            its work exceeded one of the operator's limits
    │   └── BudgetExceeded           it would exceed the privacy budget of the job or its dataset
    ├── ResourceError                the machine is too small (exit code 3)
    │   └── OutOfMemory              retried with half the micro-batch
    └── InfrastructureError          broker, store, disk, a lost process; retried elsewhere (exit code 3)
        ├── StoreUnavailable         retried as often as needed
        │   └── StoreCorrupt         an object is not what was uploaded
        ├── BrokerUnavailable        retried as often as needed
        ├── DiskFull                 the worker's own disk
        ├── NotInstalled             a part of nss-train is not installed here (exit code 2)
        └── StageLost                a child process ended without a result
            └── StageStalled         it lived, but made no progress
    """

    retry: ClassVar[Retry] = Retry.NEVER
    exit_code: ClassVar[int] = 3
    told: ClassVar[str | None] = None
    """Message shown where a private table must not leak; ``None``: not even the class is shown."""

    def __init__(self, message: str, problems: Iterable[Problem] = (), *, public: bool = False) -> None:
        self.message = cut(message, _MESSAGE_CHARS)
        self.problems = _few(problems)
        self.public = public
        """``True`` if it states public facts only, so that it may be shown for a strictly private table."""
        super().__init__(self.message)

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  - {problem}" for problem in self.problems)])

    def __reduce__(self) -> tuple[type[NSSTrainError], tuple[str, tuple[Problem, ...]], dict[str, bool]]:
        return type(self), (self.message, self.problems), {"public": self.public}


class UserError(NSSTrainError):
    """The request is wrong; the same request will fail again."""

    exit_code = 2


class DataError(UserError, ValueError):
    """The table cannot be trained on."""


class ParameterError(UserError, ValueError):
    """The config, or another argument, is wrong."""


class GenerationError(UserError, RuntimeError):
    """Records or prompt do not fit the model's context."""


class LimitExceeded(UserError):
    """The request takes more memory or time than the operator allows a stage."""

    told = "It takes more memory or time than the operator allows a stage; make the table smaller"


class BudgetExceeded(UserError):
    """The request, or the work done for it, costs more privacy than is allowed."""


class ResourceError(NSSTrainError):
    """The machine is too small for the job."""


class OutOfMemory(ResourceError):
    """A device ran out of memory; half the micro-batch may fit."""

    retry = Retry.SMALLER_BATCH


class InfrastructureError(NSSTrainError):
    """A service or a process that the job depends on failed."""

    retry = Retry.OTHER_WORKER
    told = "A service or a process that the job depends on went away"


class StoreUnavailable(InfrastructureError):
    """The object store does not answer."""

    retry = Retry.SAME_WORKER
    told = "The object store does not answer"


class StoreCorrupt(StoreUnavailable):
    """An object in the store is not what was uploaded."""

    retry = Retry.OTHER_WORKER
    told = "An object in the store is not what was uploaded"


class BrokerUnavailable(InfrastructureError):
    """Redis does not answer."""

    retry = Retry.SAME_WORKER
    told = "Redis does not answer"


class DiskFull(InfrastructureError):
    """The worker's own disk has no room for what the stage writes."""

    told = "The worker's disk is full"


class NotInstalled(InfrastructureError):
    """An optional part of nss-train is missing here; another worker may have it."""

    exit_code = 2


class StageLost(InfrastructureError):
    """A stage's process ended without leaving a result."""

    told = "The stage's process ended without a result"


class StageStalled(StageLost):
    """A stage's process lived but made no progress, and was ended."""

    told = "The stage's process made no progress and was ended"


_CLASSES: Mapping[str, type[NSSTrainError]] = {
    cls.__name__: cls
    for cls in (
        NSSTrainError,
        UserError,
        DataError,
        ParameterError,
        GenerationError,
        LimitExceeded,
        BudgetExceeded,
        ResourceError,
        OutOfMemory,
        InfrastructureError,
        StoreUnavailable,
        StoreCorrupt,
        BrokerUnavailable,
        DiskFull,
        NotInstalled,
        StageLost,
        StageStalled,
    )
}


@contextmanager
def public_facts() -> Iterator[None]:
    """Mark refusals inside the block as based on public facts: config, header, schema, n, base model.

    Use it only for work in which no record can cause a refusal.
    """
    try:
        yield
    except UserError as error:
        error.public = True
        raise


_FULL_BYTES = 2**20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def typed(error: BaseException, folder: Path) -> NSSTrainError:
    """Return the error that ended the work in ``folder`` as one of the errors above."""
    if isinstance(error, NSSTrainError):
        return error
    if _is_full(error, folder):
        return DiskFull(f"The worker's disk is full: {error}")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return OutOfMemory(f"Out of memory: {error}")
    return NSSTrainError(f"Unexpected {type(error).__name__}: {error}")


def _is_full(error: BaseException, folder: Path) -> bool:
    """Tell whether the disk is full, by error or by free space: not every library has an error for it."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return True
    return shutil.disk_usage(folder).free < _FULL_BYTES


def to_json(error: NSSTrainError) -> dict[str, Any]:
    """Return the error as JSON; :func:`from_json` restores it on another machine."""
    problems = [{"field": p.field, "value": _plain(p.value), "remedy": p.remedy} for p in error.problems]
    marked = {"public": True} if error.public else {}
    return {"type": type(error).__name__, "message": error.message, "problems": problems} | marked


def from_json(document: Mapping[str, Any]) -> NSSTrainError:
    """Return the error that :func:`to_json` wrote; an unknown type becomes the root class."""
    cls = _CLASSES.get(document["type"], NSSTrainError)
    problems = [Problem(**problem) for problem in document.get("problems", ())]
    return cls(document["message"], problems, public=document.get("public", False))


def _plain(value: object) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)  # JSON has no such number
    return value if isinstance(value, str | int | float | bool | None) else repr(value)
