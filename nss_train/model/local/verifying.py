"""Getting to know a model of this machine before its first job, and hashing it again when in doubt."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from nss_train.contract import ModelPolicy
from nss_train.model.local.hashing import hash_files, learn
from nss_train.model.local.known import KnownModel, Memory
from nss_train.model.local.snapshot import SETTLED_NS
from nss_train.model.local.source import ModelSource, find_model


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    """The files of a model, compared with what was known of them."""

    files: int
    unknown: tuple[str, ...]
    """Files of which nothing was known."""
    changed: tuple[str, ...]
    """Files with another content, and other times or sizes: somebody wrote them."""
    damaged: tuple[str, ...]
    """Files with another content though nothing else tells it: a disk's fault, or worse."""
    gone: tuple[str, ...]

    @property
    def differs(self) -> bool:
        return bool(self.changed or self.damaged or self.gone)


def get_to_know(folder: Path, memory: Memory) -> None:
    """Hash a model's files, so that its first job need not; wait until they are old enough to be known."""
    learn(_settled(folder, memory), memory)


def verify(folder: Path, memory: Memory) -> Verified:
    """Hash all files of a model, and say which are not those that were known; remember those that are there.

    Raises :class:`ParameterError` if the model would not be used any more.
    """
    recorded = memory.recorded(folder)
    source = _settled(folder, Memory(None))
    hashed = hash_files(source.files, source.seen)
    source.check_unchanged()
    memory.keep(source.folder, KnownModel(files=hashed, checked=source.checked_by), source.seen)
    known = recorded.files
    differ = [name for name in hashed if name in known and known[name].sha256 != hashed[name].sha256]
    damaged = [name for name in differ if known[name].identity == hashed[name].identity]
    return Verified(
        files=len(hashed),
        unknown=tuple(sorted(hashed.keys() - known.keys())),
        changed=tuple(sorted(set(differ) - set(damaged))),
        damaged=tuple(sorted(damaged)),
        gone=tuple(sorted(known.keys() - hashed.keys())),
    )


def _settled(folder: Path, memory: Memory) -> ModelSource:
    """Return the checked model once none of its files is too young."""
    policy = ModelPolicy(models_dir=str(folder.parent))
    source = find_model(str(folder.absolute()), policy, memory=memory)
    if source.seen.settled:
        return source
    # A file from the future is never known; nobody waits for it.
    time.sleep(min(source.seen.settles_in_s, SETTLED_NS / 1e9))
    return find_model(str(folder.absolute()), policy, memory=memory)
