"""Files of other kinds that are named like text tables: each is refused by what its first lines show."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from nss_train.data.reading.faults import unreadable
from nss_train.data.reading.text.dialect import Dialect, open_text

_LINES = 3
"""Lines from the first that is not empty on, among which a drawn table has a line without any cell."""
_LINE_CHARS = 2**16
_BEGINNINGS = {
    '{"': "JSON Lines (.jsonl)",
    "[{": "JSON (.json)",
    "<!doctype": "HTML",
    "<html": "HTML",
    "<table": "HTML",
    "<?xml": "XML",
    "%pdf-": "PDF",
    "{\\rtf": "RTF",
    "@relation": "ARFF",
    "create table": "SQL",
    "insert into": "SQL",
    "version https://git-lfs": "a pointer of Git LFS (fetch the file itself: git lfs pull)",
}
_RULES = ("---", "===")
_DRAWN = frozenset("|+:=- \t")
"""Characters of a line between the cells of a table that psql, MySQL or Markdown draw."""


def check_kind(path: Path, dialect: Dialect) -> None:
    """Raise :class:`DataError` for a file of another kind, before its fields are looked at."""
    with open_text(path, dialect) as text:
        lines = list(islice(filter(str.strip, iter(lambda: text.readline(_LINE_CHARS), "")), _LINES))
    first = lines[0].strip().strip('"').casefold() if lines else ""
    if first.startswith("sep=") and len(first) <= len("sep=;"):
        raise unreadable(path.name, f"its first line ({first}) is Excel's and no header; remove it")
    for beginning, kind in _BEGINNINGS.items():
        if first.startswith(beginning):
            raise unreadable(
                path.name, f"it begins as {kind} does; name it as what it is, or write it as CSV"
            )
    if any(_is_drawn(line.strip()) for line in lines):
        remedy = (
            "its cells stand between drawn lines, as psql, MySQL or Markdown print them; export it as CSV"
        )
        raise unreadable(path.name, remedy)


def _is_drawn(line: str) -> bool:
    return any(rule in line for rule in _RULES) and _DRAWN.issuperset(line)
