"""The map of the code is true, and its sentences have a subject."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

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


DANGLING = re.compile(r"(Of|Those|That|So|Which|Whoever)\b")
"""Words that make a reader look for the subject."""


def test_no_docstring_begins_without_a_subject() -> None:
    found = [
        f"{file.relative_to(architecture.ROOT)}:{line}: {text[:60]}"
        for package in ("tasks", "nss_train")
        for file in (architecture.ROOT / package).rglob("*.py")
        for line, text in docstrings(file)
        if DANGLING.match(text)
    ]
    assert found == []


def docstrings(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the texts that stand alone: docstrings of modules, classes, functions, fields and constants."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text


PRIVATE_METHODS = Path("nss_train/training/hugging_face.py")


def test_private_methods_of_hugging_faces_trainer_are_used_in_one_module() -> None:
    transformers = importlib.util.find_spec("transformers")
    assert transformers is not None
    assert transformers.origin is not None
    trainer = Path(transformers.origin).with_name("trainer.py")
    private = {name for name in methods(trainer) if name.startswith("_")} - {"__init__"}
    users = {
        file.relative_to(architecture.ROOT)
        for file in (architecture.ROOT / "nss_train").rglob("*.py")
        if "Trainer" in file.read_text(encoding="utf-8") and private & (methods(file) | attributes(file))
    }
    assert users == {PRIVATE_METHODS}


def methods(file: Path) -> set[str]:
    return {
        each.name
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Trainer")
        for each in node.body
        if isinstance(each, ast.FunctionDef)
    }


def attributes(file: Path) -> set[str]:
    """Return the names that follow a dot, except those of functions and classes of the file itself."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    return {node.attr for node in nodes if isinstance(node, ast.Attribute)} - own
