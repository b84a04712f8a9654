"""Neighbouring tables leave the same traces: pairs go through prepare_data, and every byte is compared."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from nss_train.privacy.audit.neighbours.comparison import moves
from nss_train.privacy.audit.neighbours.corpus import corpus
from nss_train.privacy.audit.neighbours.digests import DigestScanner
from nss_train.privacy.audit.neighbours.edits import Moved, delete, null_out
from nss_train.privacy.audit.neighbours.invented import cheap_plans, write_model
from nss_train.privacy.audit.neighbours.planted.faults import FAULTS
from nss_train.privacy.audit.neighbours.replay import replay
from nss_train.privacy.audit.neighbours.tables import Parquet

from .drawn_tables import EDITS, FORMATS, UNIT, Drawn, cases, make_table

pytestmark = pytest.mark.heavy

PAIRS, PAIRS_WITH_TIME = 200, 10_000


@pytest.fixture(scope="module", autouse=True)
def _cheap() -> Iterator[None]:
    with cheap_plans():
        yield


@pytest.fixture(scope="module")
def invented_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models"))


def test_no_neighbour_of_any_table_can_be_told(tiny_model: Path, *, long: bool) -> None:
    tables = refused = 0

    @settings(
        max_examples=(PAIRS_WITH_TIME if long else PAIRS) // EDITS,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    @given(cases())
    def pairs(drawn: Drawn) -> None:
        nonlocal tables, refused
        found = replay([drawn.case(tiny_model)])
        assert found.holds, "\n".join(map(str, found.found))
        tables, refused = tables + 1, refused + found.refused

    pairs()
    assert refused < tables / 2  # a refused table shows nothing of its neighbours


@pytest.mark.parametrize("format_", FORMATS)
def test_a_table_may_lose_its_last_unit(format_: str, tiny_model: Path) -> None:
    table = make_table(format_, ("booleans",), 1, seed=0, has_unit=True)
    declared = {name: {"type": "string"} for name in table.columns}
    drawn = Drawn(
        format=format_,
        kinds=("booleans",),
        rows=1,
        seed=0,
        unit="column",
        sections={
            "privacy": {"dp_enabled": True, "epsilon": 8.0, "delta": 1e-5},
            "preflight": {"disabled_checks": ["dataset.size"]},
            "guarantee": {"columns": declared, "units": 40, "unit_column": UNIT},
            "data": {"holdout": 0},
            "training": {
                "num_input_records_to_sample": 20,
                "batch_size": 1,
                "gradient_accumulation_steps": 2,
            },
        },
        edits=(delete(table, 0, UNIT), null_out(table, 0, UNIT)),
        table=table,
    )
    found = replay([drawn.case(tiny_model)])
    assert found.holds, "\n".join(map(str, found.found))
    assert found.refused == 0


def test_no_neighbour_in_the_corpus_of_the_faults_can_be_told(invented_model: Path) -> None:
    found = replay(corpus(invented_model))
    assert found.holds, "\n".join(map(str, found.found))
    assert found.pairs > 100
    assert found.refused == 0


@pytest.mark.parametrize("name", FAULTS)
def test_a_mistake_before_the_gradients_is_seen(name: str, invented_model: Path) -> None:
    fault = FAULTS[name]
    with fault.plant():
        found = replay(corpus(invented_model), until=fault.seen_by)
    assert fault.seen_by <= set(found.seen_by)


@pytest.mark.parametrize(
    "written",
    [
        hashlib.sha256(b"secret").hexdigest(),
        hashlib.sha256(b"secret").hexdigest()[:16].upper(),
        hashlib.sha256(b"secret").hexdigest()[-12:],
        hashlib.md5(b"secret", usedforsecurity=False).hexdigest(),
        hashlib.sha1(b"secret", usedforsecurity=False).hexdigest()[:12],
        hashlib.blake2b(b"secret", digest_size=16).hexdigest(),
        base64.b64encode(hashlib.sha512(b"secret").digest()).decode(),
        base64.urlsafe_b64encode(hashlib.sha256(b"secret").digest())[:14].decode(),
    ],
)
def test_a_digest_is_found_however_it_is_written(written: str) -> None:
    scanner = DigestScanner({"a row": b"secret"})
    assert scanner.find({"out/card.md": f"dataset job-{written}.".encode()})
    assert scanner.find({f"out/{written}": b""})
    assert not DigestScanner({"a row": b"another"}).find({"out/card.md": written.encode()})


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


@pytest.mark.parametrize(
    "kind", [pa.timestamp("us"), pa.timestamp("s", tz="UTC"), pa.date32(), pa.duration("s")]
)
def test_cells_beyond_python_s_dates_are_told_apart(kind: pa.DataType) -> None:
    far = pa.array([2**30, 2**30 + 1, None], pa.int32() if kind == pa.date32() else pa.int64())
    years = far if kind == pa.date32() else pc.multiply(far, 10**9)
    table = Parquet.of(pa.table({"when": years.cast(kind)}))
    assert len({table.cell(place, "when") for place in range(3)}) == 3
