"""Neighbouring tables leave the same traces: each pair goes through prepare_data, and every byte is compared."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from nss_train.data import pieces
from nss_train.data.private import prepare
from nss_train.privacy import accountant
from nss_train.privacy.audit.neighbours.comparison import differences, moves
from nss_train.privacy.audit.neighbours.digests import DigestScanner
from nss_train.privacy.audit.neighbours.edits import Moved
from nss_train.privacy.audit.neighbours.worlds import Secrets, World, private_pieces, run

from .tables import EDITS, Case, cases

PAIRS, PAIRS_WITH_TIME = 400, 10_000
NOISY_COUNT = 40
"""What a noisy count says, so that a table of three rows is not refused for its draw."""


@contextmanager
def cheap_accountant() -> Iterator[None]:
    """Functions of the same public numbers in place of the accountant, which takes a minute for each new one.

    Whatever it is asked would show in the plan: that all numbers stand in what it answers.
    """

    def noise(*, epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
        return 1 + epsilon / 100 + delta + sampling_rate / 10 + steps / 1e4

    def spent(*, noise_multiplier: float, sampling_rate: float, steps: int, delta: float) -> float:
        return (noise_multiplier + sampling_rate + delta) * steps / 1e6

    with ExitStack() as planted:
        for name, function in {"noise_multiplier": noise, "spent_in_steps": spent}.items():
            planted.enter_context(mock.patch.object(accountant, name, function))
        planted.enter_context(mock.patch.object(accountant, "spent", lambda *_, **__: 0.5))
        # Functions of the model alone.
        for module, name in ((prepare, "load_tokenizer"), (pieces, "_boundaries")):
            planted.enter_context(mock.patch.object(module, name, _remembered(getattr(module, name))))
        yield


def _remembered(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same function, called once for each argument, which may have no hash."""
    found: dict[str, Any] = {}

    def remembering(of: Any) -> Any:
        name = str(of) if isinstance(of, Path) else str(id(of))
        if name not in found:
            found[name] = function(of)
        return found[name]

    return remembering


@pytest.fixture(scope="module", autouse=True)
def _cheap() -> Iterator[None]:
    with cheap_accountant():
        yield


def scanned(world: World) -> list[str]:
    """Digests of private pieces in what a world publishes."""
    return DigestScanner(private_pieces(world)).find(world.published)


def compare(case: Case, model: Path, folder: Path) -> list[str]:
    """What tells a table from its neighbours, and digests of it, in words."""
    request = case.request(str(model))
    one = run(case.table, request, folder / "table", Secrets(units=NOISY_COUNT))
    found = scanned(one)
    for number, edit in enumerate(case.edits):
        secrets = Secrets(units=NOISY_COUNT, draw=one.draw)
        other = run(edit.changed, request, folder / f"neighbour-{number}", secrets)
        found += [f"{edit}: {found}" for found in differences(one, other, edit, same_n=case.same_n(edit))]
    return found


def test_no_neighbour_of_any_table_can_be_told(tiny_model: Path, tmp_path: Path, *, long: bool) -> None:
    @settings(
        max_examples=(PAIRS_WITH_TIME if long else PAIRS) // EDITS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    @given(cases())
    def pairs(case: Case) -> None:
        folder = tmp_path / "pair"
        try:
            assert compare(case, tiny_model, folder) == []
        finally:
            shutil.rmtree(folder)

    pairs()


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("", "", (0, 0)),
        ("abc", "abc", (0, 0)),
        ("abc", "ac", (1, 0)),
        ("ac", "abc", (0, 1)),
        ("abc", "adc", (1, 1)),
        ("abcd", "bcda", (1, 1)),
        ("abcabba", "cbabac", (3, 2)),
        ("abc", "xyz", (3, 3)),
        ("aaaa", "aa", (2, 0)),
    ],
)
def test_moves_are_the_least_that_make_one_sequence_of_another(
    one: str, other: str, expected: tuple[int, int]
) -> None:
    parts = [[letter.encode() for letter in text] for text in (one, other)]
    assert moves(*parts) == Moved(*expected)
