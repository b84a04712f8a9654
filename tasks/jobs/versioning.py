"""The version of what outlives a process: messages and the documents of the store."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Annotated, ClassVar, TypeVar

from pydantic import Field, ValidationError

from nss_train.contract import Frozen
from nss_train.errors import InfrastructureError, Retry

logger = logging.getLogger(__name__)

VERSION = 6
"""Version that this release writes; it reads this and every older one.

1. what was written before there were versions: the same documents without ``version``.
2. ``version`` everywhere; ``request.json`` may name a webhook.
3. a submission by message may name family, ranks and fsdp; a prepared model is the base alone, unless it is
   LoftQ's: an older train stage would look for an adapter in it.
4. the private part of a job lies under ``private/``: its table, the files and digests of its preparation,
   what it drew. A dataset of a ledger has an owner and a unit, and a job proves that it may use it.
5. a config may say how its table is read, and an outcome holds the warnings about that.
6. steps are paid for under ``private/``, and a strictly private job has its checkpoints there, too: an older
   release would count too few steps, and so it meets a claim and a charge of this version first.

A field that an older release would refuse makes a new version. Examples of each are in tests/upgrades.
"""


class Versioned(Frozen):
    """A document or message that outlives its process, and may be read by one of another release."""

    version: Annotated[int, Field(strict=True, ge=1, le=VERSION)] = VERSION


Document = TypeVar("Document", bound=Frozen)


class NewerVersion(InfrastructureError):
    """A newer release wrote the document; a worker of that release can read it. Costs no attempt."""

    retry: ClassVar[Retry] = Retry.SAME_WORKER


class Unreadable(InfrastructureError):
    """No release wrote a document like this. No retry repairs it: only an operator can."""


def read(kind: type[Document], data: bytes, *, what: str) -> Document:
    """Return a document of a known version; raise :class:`Unreadable` or :class:`NewerVersion` for others."""
    try:
        return parse(kind, json.loads(data), what=what)
    except ValidationError as error:
        # What was found there is left out: the document may be one of a job's private ones.
        faults = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise Unreadable(f"{what} is not a {kind.__name__}: {'; '.join(faults)}") from None
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{what} is not a {kind.__name__}: {error}") from error


def parse(kind: type[Document], document: object, *, what: str) -> Document:
    """Return what is decoded already as a document; pydantic's ``ValidationError`` when it is none.

    Raises :class:`NewerVersion` before a look at fields that this release cannot know.
    """
    if not isinstance(document, Mapping):
        return kind.model_validate(document)
    check(document, what=what)
    return kind.model_validate_json(json.dumps({"version": 1} | dict(document)))


def check(document: Mapping[str, object], *, what: str) -> None:
    """Raise :class:`NewerVersion` unless this release knows the document's version."""
    found = document.get("version", 1)
    if isinstance(found, int) and not isinstance(found, bool) and found > VERSION:
        fields = {"action": "version.newer", "what": what, "found": found, "known": VERSION}
        logger.warning("%s has version %d; this release knows %d", what, found, VERSION, extra=fields)
        raise NewerVersion(
            f"{what} has version {found}, and this release knows versions up to {VERSION}; upgrade it."
        )
