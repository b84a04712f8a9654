"""A store in a folder: for one machine, and for a shared file system."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nss_train.errors import Problem, StoreUnavailable
from tasks.store.keys import check_key, check_prefix

_ASIDE = ".aside"
"""Where files are written before they are renamed; never listed."""


class LocalStore:
    """See :class:`tasks.store.base.Store`. Writes go aside, are synced, and are renamed or linked."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, key: str) -> bytes:
        with self._errors(key):
            return self._path(key).read_bytes()

    def write(self, key: str, data: bytes) -> None:
        with self._errors(key), self._aside(key) as aside:
            _write_synced(aside, data)
            aside.replace(self._path(key))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        with self._errors(key), self._aside(key) as aside:
            _write_synced(aside, data)
            try:
                # A link is made once, however many race for it.
                os.link(aside, self._path(key))
            except FileExistsError:
                return False
            return True

    def upload(self, key: str, path: Path) -> None:
        with self._errors(key), self._aside(key) as aside:
            shutil.copyfile(path, aside)
            with aside.open("rb") as file:
                os.fsync(file.fileno())
            aside.replace(self._path(key))

    def download(self, key: str, path: Path) -> None:
        with self._errors(key):
            source = self._path(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f".{path.name}.part")
            shutil.copyfile(source, aside)
            aside.replace(path)

    def size(self, key: str) -> int:
        with self._errors(key):
            return self._path(key).stat().st_size

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def list(self, prefix: str) -> Iterator[str]:
        folder = self._path(check_prefix(prefix).removesuffix("/"))
        files = (p for p in folder.rglob("*") if p.is_file())
        return iter(sorted(p.relative_to(self._root).as_posix() for p in files))

    def children(self, prefix: str) -> Iterator[str]:
        folder = self._path(check_prefix(prefix).removesuffix("/"))
        return iter(sorted(p.name for p in folder.iterdir()) if folder.is_dir() else ())

    def delete(self, key: str) -> None:
        with self._errors(key):
            path = self._path(key)
            path.unlink(missing_ok=True)
            self._remove_empty(path.parent)

    def check(self) -> None:
        with self._errors("the store"):
            (self._root / _ASIDE).mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._root / _ASIDE):
                pass

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    @contextmanager
    def _aside(self, key: str) -> Iterator[Path]:
        target = self._path(key)
        (self._root / _ASIDE).mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._root / _ASIDE) as folder:
            yield Path(folder) / "file"

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise KeyError(key) from error
        except OSError as error:
            remedy = "check that the folder exists, is writable and has space; NSS_TRAIN_STORE_URL names it"
            problem = Problem(field="store_url", value=str(self._root), remedy=remedy)
            raise StoreUnavailable(
                f"The store does not answer: {error.strerror or error}.", [problem]
            ) from error

    def _remove_empty(self, folder: Path) -> None:
        # S3 has no folders; without this a deleted attempt would still be seen here.
        while folder != self._root:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
