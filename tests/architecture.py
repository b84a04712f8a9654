"""The map in docs/architecture.md: ``python -m tests.architecture`` rewrites it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
BEGINS = "## The map\n"


def written() -> str:
    """Return the page as it should be: its text, and a line for each module from its docstring."""
    text, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGINS)
    introduction = rest.split("\n### ")[0].rstrip()
    return f"{text}{BEGINS}{introduction}\n\n" + "\n".join(_rooms())


def _rooms() -> Iterator[str]:
    for package in ("tasks", "nss_train"):
        folders = sorted({file.parent for file in (ROOT / package).rglob("*.py")})
        for folder in folders:
            yield f"### {folder.relative_to(ROOT).as_posix()}/\n"
            yield from (_line(file) for file in sorted(folder.glob("*.py")) if says(file))
            yield ""


def _line(file: Path) -> str:
    return f"- `{file.name}`: {says(file)}"


def says(file: Path) -> str:
    """Return the first paragraph of a module's docstring, or an empty string if it has none."""
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.split("\n\n")[0].split())


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
