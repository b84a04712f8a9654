"""A store in a folder: for one machine, and for a shared file system."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nss_train.errors import Problem, StoreUnavailable
from tasks.permissions import make_folder, private_file
from tasks.store.base import own_disk
from tasks.store.keys import check_key, check_prefix

_ASIDE = ".aside"
"""Folder where files are written before they are renamed; never listed."""
_PIECE_BYTES = 2**20
_TRIES = 10


class LocalStore:
    """A :class:`tasks.store.base.Store` in a folder. Writes go aside, are synced, then renamed or linked."""

    def __init__(self, root: Path, *, look: Callable[[], None] = lambda: None) -> None:
        self._root = root
        self._look = look

    def read(self, key: str) -> bytes:
        with self._errors(key):
            return self._path(key).read_bytes()

    def write(self, key: str, data: bytes) -> None:
        with self._errors(key), self._aside(key) as aside:
            _write_synced(aside, data)
            self._place(key, aside.replace)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        with self._errors(key), self._aside(key) as aside:
            _write_synced(aside, data)
            try:
                # A link is made once, however many race for it.
                self._place(key, lambda target: os.link(aside, target))
            except FileExistsError:
                return False
            return True

    def upload(self, key: str, path: Path) -> None:
        with self._errors(key), self._aside(key) as aside:
            self._copy(path, aside)
            self._place(key, aside.replace)

    def download(self, key: str, path: Path) -> None:
        with self._errors(key), own_disk(path.parent):
            make_folder(path.parent)
            aside = path.with_name(f".{path.name}.part")
            self._copy(self._path(key), aside)
            aside.replace(path)

    def size(self, key: str) -> int:
        with self._errors(key):
            return self._path(key).stat().st_size

    def exists(self, key: str) -> bool:
        with self._errors(key):
            return self._path(key).is_file()

    def list(self, prefix: str) -> Iterator[str]:
        folder = self._path(check_prefix(prefix).removesuffix("/"))
        with self._errors(prefix):
            return iter(sorted(p.relative_to(self._root).as_posix() for p in _files_below(folder)))

    def children(self, prefix: str) -> Iterator[str]:
        folder = self._path(check_prefix(prefix).removesuffix("/"))
        with self._errors(prefix):
            try:
                return iter(sorted(p.name for p in folder.iterdir()))
            except (FileNotFoundError, NotADirectoryError):
                return iter(())

    def delete(self, key: str) -> None:
        with self._errors(key):
            path = self._path(key)
            path.unlink(missing_ok=True)
            self._remove_empty(path.parent)

    def attended(self, look: Callable[[], None]) -> LocalStore:
        return LocalStore(self._root, look=look)

    def check(self) -> None:
        with self._errors("the store"):
            make_folder(self._root / _ASIDE)
            with tempfile.NamedTemporaryFile(dir=self._root / _ASIDE):
                pass

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    @contextmanager
    def _aside(self, key: str) -> Iterator[Path]:
        check_key(key)
        make_folder(self._root / _ASIDE)
        with tempfile.TemporaryDirectory(dir=self._root / _ASIDE) as folder:
            yield Path(folder) / "file"

    def _place(self, key: str, put: Callable[[Path], object]) -> None:
        """Put a file where it belongs, though a delete may remove its empty folder at that moment."""
        target = self._path(key)
        for _ in range(_TRIES):
            with suppress(FileNotFoundError):
                make_folder(target.parent)
                put(target)
                return
        raise OSError(errno.EAGAIN, "its folder is removed again and again")

    def _copy(self, source: Path, target: Path) -> None:
        with source.open("rb") as reader, private_file(target, "wb") as writer:
            while piece := reader.read(_PIECE_BYTES):
                writer.write(piece)
                self._look()
            writer.flush()
            os.fsync(writer.fileno())

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
    with private_file(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield all files; a folder that vanishes meanwhile has none."""
    for root, _, names in os.walk(folder, onerror=_unless_gone):
        yield from (Path(root, name) for name in names)


def _unless_gone(error: OSError) -> None:
    if error.errno not in (errno.ENOENT, errno.ENOTDIR):
        raise error
