"""Canaries through a real file: gradients prove most of the claim, and a planted fault exceeds it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path

import pytest

from nss_train.config import parse_config
from nss_train.contract import ModelPolicy, Request
from nss_train.privacy.audit.neighbours import edits
from nss_train.privacy.audit.neighbours.edits import Edit, Odd
from nss_train.privacy.audit.neighbours.invented import cheap_plans, write_model
from nss_train.privacy.audit.neighbours.planted.faults import FAULTS
from nss_train.privacy.audit.neighbours.rows_by_coin import audit_pairs, audit_rows
from nss_train.privacy.audit.neighbours.tables import Csv
from nss_train.privacy.audit.neighbours.worlds import Examples, Secrets, run

pytestmark = pytest.mark.heavy

ROWS, ROWS_WITH_TIME = 4_000, 20_000
TRIALS = 400
PLACE = 3
KINDS = ("null out", "delete", "other type")
MORE_KINDS = ("insert", "gap", "stray quote", "open quote", "surplus field", "NUL", "bad UTF-8", "long text")
MORE = [pytest.param(kind, marks=pytest.mark.long) for kind in MORE_KINDS]


@pytest.fixture(scope="module", autouse=True)
def _cheap() -> Iterator[None]:
    with cheap_plans():
        yield


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> Request:
    model = write_model(tmp_path_factory.mktemp("models"))
    config = parse_config(
        {
            "privacy": {"dp_enabled": True, "epsilon": 1.0, "delta": 1e-6},
            "preflight": {"disabled_checks": ["dataset.size"]},
            "data": {"holdout": 0.2},
            "guarantee": {"schema_source": "declared"},
            "training": {
                "pretrained_model": model.name,
                "num_input_records_to_sample": 1000,
                "batch_size": 1,
                "gradient_accumulation_steps": 8,
            },
        }
    )
    policy = ModelPolicy(models_dir=str(model.parent))
    return Request(job_id="audit", table="table", config=config, seed=1, policy=policy)


def rows(there: Sequence[bool], shift: int = 0) -> Csv:
    lines = (
        f"p{row},{(row + shift) % 90}".encode() if is_there else b"," for row, is_there in enumerate(there)
    )
    return Csv(header=b"person,age", records=tuple(lines))


def without_holdout(request: Request) -> Request:
    data = request.config.data.model_copy(update={"holdout": 0})
    return request.model_copy(update={"config": request.config.model_copy(update={"data": data})})


def test_one_run_proves_half_of_the_claim_and_not_more_than_it(
    request_: Request, tmp_path: Path, *, long: bool
) -> None:
    found = audit_rows(rows, ROWS_WITH_TIME if long else ROWS, without_holdout(request_), tmp_path)
    assert found.claim == pytest.approx(1.0, abs=0.01)
    assert found.epsilon_lower_bound <= found.claim
    assert found.epsilon_lower_bound >= (0.5 * found.claim if long else 0.1)


def edit(kind: str, table: Csv) -> Edit:
    simple = {"null out": edits.null_out, "delete": edits.delete}
    if kind in simple:
        return simple[kind](table, PLACE, None)
    odd = table.odd(PLACE, "age")
    if kind == "insert":
        return edits.insert(table, PLACE, Odd("fraction", odd["fraction"]), None)
    return edits.replace(table, PLACE, Odd(kind, odd[kind]), None)


def worlds(kind: str, request: Request, root: Path, *, key: bytes, shift: int) -> tuple[Examples, Examples]:
    table = rows([True] * 150, shift)
    secrets = Secrets(holdout_key=key)
    one = run(table, request, root / "one", secrets)
    other = run(edit(kind, table).changed, request, root / "other", secrets)
    return one.train, other.train


def fresh(kind: str, request: Request, root: Path) -> Iterator[tuple[Examples, Examples]]:
    """Yield pairs of worlds, each with a table and a key of its own."""
    chance = random.Random(1)
    for trial in range(TRIALS):
        yield worlds(kind, request, root / str(trial), key=chance.randbytes(32), shift=trial)


@pytest.mark.parametrize("kind", [*KINDS, *MORE])
def test_no_edit_is_told_by_more_than_the_claim(
    kind: str, request_: Request, tmp_path: Path, *, long: bool
) -> None:
    if long:
        pairs = fresh(kind, request_, tmp_path)
    else:
        pairs = repeat(worlds(kind, request_, tmp_path, key=bytes(32), shift=0), TRIALS)
    steps = 1 if kind in {"null out", "delete", "insert"} else 2
    found = audit_pairs(pairs, steps=steps)
    assert found.canaries == TRIALS
    assert found.epsilon_lower_bound <= found.claim


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("types from the table", "other type"),
        ("types from the first rows", "other type"),
        ("a quote across lines", "open quote"),
        ("permuted holdout", "delete"),
    ],
)
def test_a_fault_that_reaches_other_units_passes_the_claim(
    fault: str, kind: str, request_: Request, tmp_path: Path
) -> None:
    with FAULTS[fault].plant():
        pair = worlds(kind, request_, tmp_path, key=bytes(32), shift=0)
    steps = 1 if kind == "delete" else 2
    found = audit_pairs(repeat(pair, TRIALS), steps=steps)
    assert found.epsilon_lower_bound > found.claim
