"""Whoever changes a module finds its tests: a test file imports it, bears its name, or is listed here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.architecture import ROOT

TESTED_THROUGH: dict[str, tuple[str, str]] = {
    # They are parts of commands, which tests run whole.
    "tasks.cli.commands.budget": ("tests/cli/test_privacy.py", "tasks.cli"),
    "tasks.cli.commands.local": ("tests/rehearsals/stack.py", "tasks.cli"),
    "tasks.cli.commands.operate": ("tests/cli/test_usage.py", "tasks.cli"),
    "tasks.cli.options": ("tests/cli/test_costs.py", "tasks.cli.commands.jobs"),
    "tasks.cli.subprograms": ("tests/cli/test_costs.py", "tasks.cli.commands.jobs"),
    # Steps and hooks of Celery's worker do nothing outside of one: tests start a whole worker.
    "tasks.worker.consumer": ("tests/pipeline/test_worker_life.py", "tasks.app"),
    "tasks.worker.drain": ("tests/pipeline/test_worker_life.py", "tasks.app"),
    "tasks.worker.handover": ("tests/security/test_handover.py", "tasks.app"),
    "tasks.worker.reconciler_step": ("tests/pipeline/test_worker_life.py", "tasks.app"),
    "tasks.worker.repeating": (
        "tests/integration/tasks/worker/test_visibility.py",
        "tasks.worker.visibility",
    ),
    # A trace is known once it has reached a collector.
    "tasks.telemetry.tracing": ("tests/pipeline/test_tracing.py", "tasks.app"),
    # An interface has no behaviour.
    "tasks.deployment": ("tests/integration/tasks/submission/test_refusals.py", "tasks.submission.refusals"),
    "nss_train.training.backend": ("tests/facade/test_backend.py", "nss_train.backend"),
    # Rules across sections are checked as parts of a whole config.
    "nss_train.config.parameters": ("tests/unit/config/test_config.py", "nss_train.config"),
    # A card is judged by the whole of it.
    "nss_train.artifacts.model_card": ("tests/unit/artifacts/test_workdir.py", "nss_train.artifacts.workdir"),
    # A measurement is one of the whole: its parts are seconds.
    "nss_train.cost.measuring": ("tests/unit/cost/test_measure.py", "nss_train.cost.probe"),
    "nss_train.cost.private_probe": ("tests/unit/cost/test_measure.py", "nss_train.cost.measure"),
    "nss_train.cost.privately": ("tests/unit/cost/test_measure.py", "nss_train.cost.__main__"),
    # Tables are prepared, and files are read, in every way that they come in.
    "nss_train.data.assembly.assembler": ("tests/unit/data/test_read_as.py", "nss_train.stages.preparation"),
    "nss_train.data.private.declarations": (
        "tests/unit/data/private/test_cells.py",
        "nss_train.data.private.reading",
    ),
    "nss_train.data.private.files.parquet_columns": (
        "tests/unit/data/private/test_cells.py",
        "nss_train.data.private.reading",
    ),
    "nss_train.data.private.files.preconditions": (
        "tests/unit/data/private/test_cells.py",
        "nss_train.data.private.reading",
    ),
    "nss_train.data.private.findings": (
        "tests/unit/data/private/test_neighbours.py",
        "nss_train.data.private.__main__",
    ),
    "nss_train.data.private.proposals": (
        "tests/unit/data/private/test_neighbours.py",
        "nss_train.data.private.__main__",
    ),
    "nss_train.data.private.values.typed_cells": (
        "tests/unit/data/private/test_neighbours.py",
        "nss_train.data.private.values.rules",
    ),
    "nss_train.data.reading.faults": (
        "tests/unit/data/reading/test_encoding.py",
        "nss_train.data.reading.text.encoding",
    ),
    "nss_train.data.tokenization.pieces": (
        "tests/unit/data/test_fragments.py",
        "nss_train.data.tokenization.fragments",
    ),
    "nss_train.stages.private_preparation": ("tests/facade/test_ways.py", "nss_train.stages.preparation"),
    # A model is refused as a whole folder.
    "nss_train.model.bounds.config": ("tests/security/test_models.py", "nss_train.model.local.source"),
    "nss_train.model.bounds.tokenizer": ("tests/security/test_models.py", "nss_train.model.local.source"),
    "nss_train.model.bounds.weights": ("tests/security/test_models.py", "nss_train.model.local.source"),
    "nss_train.model.local.folder": ("tests/security/test_models.py", "nss_train.model.local.source"),
    # An audit's parts are right if it finds planted faults and clears the honest mechanism.
    "nss_train.privacy.audit.checks": ("tests/unit/privacy/test_audit.py", "nss_train.privacy.audit.verdict"),
    "nss_train.privacy.audit.neighbours.odd": (
        "tests/unit/privacy/test_audit_neighbours.py",
        "nss_train.privacy.audit.neighbours.tables",
    ),
    "nss_train.privacy.audit.neighbours.planted.fault": (
        "tests/unit/privacy/test_audit_neighbours.py",
        "nss_train.privacy.audit.neighbours.planted.faults",
    ),
    "nss_train.privacy.audit.neighbours.planted.outputs": (
        "tests/unit/privacy/test_audit_neighbours.py",
        "nss_train.privacy.audit.neighbours.planted.faults",
    ),
    "nss_train.privacy.audit.neighbours.planted.reading": (
        "tests/unit/privacy/test_audit_neighbours.py",
        "nss_train.privacy.audit.neighbours.planted.faults",
    ),
    "nss_train.privacy.audit.neighbours.releases": (
        "tests/unit/privacy/test_audit_rows.py",
        "nss_train.privacy.audit.neighbours.worlds",
    ),
}
"""Modules that are rightly tested through a caller alone: the test file, and the caller that it names."""


def modules() -> Iterator[Path]:
    """Yield the modules of the two packages; ``__init__.py`` only binds the others together."""
    for package in ("tasks", "nss_train"):
        for file in sorted((ROOT / package).rglob("*.py")):
            if file.name != "__init__.py":
                yield file.relative_to(ROOT)


def dotted(module: Path) -> str:
    return ".".join(module.with_suffix("").parts)


@cache
def nodes_of(file: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))))


@cache
def imported(file: Path) -> frozenset[str]:
    """Return the modules that a file imports, and what it imports from them."""
    found = set[str]()
    for node in nodes_of(file):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = file.parent.parts[: len(file.parent.parts) + 1 - node.level] if node.level else ()
            origin = ".".join([*above, *([node.module] if node.module else [])])
            found |= {origin} | {f"{origin}.{alias.name}" for alias in node.names}
    return frozenset(found)


@cache
def names_in(file: Path) -> frozenset[str]:
    """Return the modules that a file imports, and the words of the texts that it holds."""
    texts = (
        node.value
        for node in nodes_of(file)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return imported(file) | {word for text in texts for word in text.split()}


@cache
def all_tests() -> tuple[Path, ...]:
    """Return the files of the tests, without this one, which names what is tested elsewhere."""
    files = (file.relative_to(ROOT) for file in (ROOT / "tests").rglob("*.py") if file != Path(__file__))
    return tuple(sorted(files))


def names(test: Path, module: Path) -> bool:
    """Tell whether a test file imports a module, or names it: as the program of a process, or as a path."""
    return not names_in(test).isdisjoint(called(module))


def called(module: Path) -> set[str]:
    return {dotted(module).removesuffix(".__main__"), module.as_posix()}


def bears_name(test: Path, module: Path) -> bool:
    """Tell whether a test file is called as a module is, in a folder that is called as its room is."""
    if test.name != f"test_{module.stem}.py":
        return False
    rooms = module.parent.parts[1:] or module.parent.parts
    return rooms[0] in test.parent.parts


def helpers_of(test: Path) -> set[Path]:
    """Return a test file with the files of ``tests`` that it imports, at any depth, and its conftest."""
    found, left = set[Path](), {test, test.parent / "conftest.py"}
    while left:
        file = left.pop()
        if (ROOT / file).is_file() and file not in found:
            found.add(file)
            inner = {each.replace(".", "/") for each in imported(file) if each.startswith("tests.")}
            left |= {Path(f"{each}.py") for each in inner}
    return found


def test_each_module_is_named_by_a_test_file() -> None:
    named = frozenset().union(*map(names_in, all_tests()))
    unnamed = {
        dotted(module)
        for module in modules()
        if named.isdisjoint(called(module)) and not any(bears_name(test, module) for test in all_tests())
    }
    assert unnamed - set(TESTED_THROUGH) == set(), "write a test that imports it, or say what tests it"
    assert set(TESTED_THROUGH) - unnamed == set(), "they are named by a test file: leave them out here"


@pytest.mark.parametrize("module", TESTED_THROUGH)
def test_a_module_that_is_tested_through_its_caller_is_reached_by_the_named_test(module: str) -> None:
    test, caller = TESTED_THROUGH[module]
    file = Path(caller.replace(".", "/"))
    place = file / "__init__.py" if (ROOT / file).is_dir() else file.with_suffix(".py")
    assert any(said.partition(":")[0] == module or module.endswith(f".{said}") for said in names_in(place))
    assert any(names(helper, file.with_suffix(".py")) for helper in helpers_of(Path(test)))
