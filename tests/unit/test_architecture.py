"""The map of the code is true, and the files that its page names exist."""

from __future__ import annotations

import re

from tests import architecture


def test_the_map_has_a_line_for_each_module_as_its_docstring_begins() -> None:
    assert architecture.PAGE.read_text(encoding="utf-8") == architecture.written(), (
        "run python -m tests.architecture"
    )


def test_every_file_that_the_page_names_is_there() -> None:
    named = re.findall(r"`((?:tasks|nss_train|tests)/[\w/]+(?:\.py|/))`", architecture.PAGE.read_text())
    assert named
    assert [name for name in named if not (architecture.ROOT / name).exists()] == []


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(file)
        for package in ("tasks", "nss_train")
        for file in (architecture.ROOT / package).rglob("*.py")
        if file.stat().st_size and not architecture.says(file)
    ]
    assert silent == []
