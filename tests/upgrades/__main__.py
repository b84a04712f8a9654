"""The folder of a new version: ``python -m tests.upgrades`` copies the newest one and numbers its documents.

The fields that are new are added by hand, as this release writes them.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tasks.jobs.versioning import VERSION

HERE = Path(__file__).parent


def make(folder: Path, version: int) -> Path:
    """Return the new folder of a version below ``folder``; ``FileExistsError`` where it is there already."""
    made = shutil.copytree(folder / f"v{version - 1}", folder / f"v{version}")
    for path in filter(Path.is_file, made.rglob("*")):
        text = path.read_text(encoding="utf-8")
        numbered = text.replace(f'"version": {version - 1}', f'"version": {version}')
        path.write_text(numbered, encoding="utf-8")
    return made


if __name__ == "__main__":
    sys.stdout.write(f"{make(HERE, VERSION)}\n")
