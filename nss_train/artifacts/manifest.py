"""The manifest of a folder: SHA-256 and size of every file. A folder counts as complete once it has one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nss_train.artifacts.files import read_json, sha256_of, write_json
from nss_train.errors import InfrastructureError, Problem

NAME = "manifest.json"
FORMAT = 1


def write_manifest(folder: Path, *, known: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Write ``folder/manifest.json``, which covers all other files, and return it. Call this last.

    ``known`` has the SHA-256 of files that need not be read for it.

    ``{"format": 1, "files": {"<path with />": {"sha256": "<hex>", "bytes": <int>}, …}}``, sorted by path.
    """
    known = known or {}
    files = {name: _entry(folder / name, known.get(name)) for name in _names(folder)}
    manifest = {"format": FORMAT, "files": files}
    write_json(folder / NAME, manifest)
    return manifest


def verify_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest if the folder holds exactly what it lists.

    Raises:
        DataError: there is no manifest, or it is not JSON.
        InfrastructureError: files are missing, changed or unexpected; every one is named.
    """
    manifest: dict[str, Any] = read_json(folder / NAME)
    problems = _mismatches(folder, manifest["files"])
    if problems:
        raise InfrastructureError(f"{folder} is not what its manifest says.", problems)
    return manifest


def _names(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name != NAME)


def _entry(path: Path, sha256: str | None = None) -> dict[str, Any]:
    return {"sha256": sha256 or sha256_of(path), "bytes": path.stat().st_size}


def _mismatches(folder: Path, expected: dict[str, dict[str, Any]]) -> list[Problem]:
    found = set(_names(folder))
    problems = []
    for name in sorted(found | expected.keys()):
        if name not in found:
            problems.append(Problem(field=name, value=None, remedy="is missing; fetch the folder again"))
        elif name not in expected:
            problems.append(Problem(field=name, value=None, remedy="is not in the manifest; remove it"))
        elif (entry := _entry(folder / name)) != expected[name]:
            remedy = f"differs from the manifest ({expected[name]}); fetch the folder again"
            problems.append(Problem(field=name, value=entry, remedy=remedy))
    return problems
