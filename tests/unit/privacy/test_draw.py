"""A draw is kept before it is used, once in a job."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from nss_train.contract import DRAW, KEPT_DRAW, PROPOSED_DRAW, Event
from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.privacy.draw import Draw, DrawnColumn, InMemory, SupervisorsDraw
from tests.unit.privacy.plans import plan, schema

PRICE: PrivacyPlan = plan(steps=0, by_products=schema(0.1, 1e-7))
MINE = Draw(
    effective=-3,
    idle=2,
    columns={"city": DrawnColumn(how="3 categories", reason="so", categories=("Bern", 1, 1.5, True, None))},
)
THEIRS = Draw(effective=171, idle=0)


def test_what_is_kept_comes_back_as_it_was() -> None:
    again = Draw.model_validate_json(MINE.model_dump_json())
    assert again == MINE
    assert [type(value) for value in again.columns["city"].categories or ()] == [
        str,
        int,
        float,
        bool,
        type(None),
    ]


def test_without_a_supervisor_a_draw_is_its_own() -> None:
    assert InMemory().keep(MINE, price=PRICE) is MINE


def test_a_draw_waits_for_what_the_supervisor_has_on_record(tmp_path: Path) -> None:
    asked = threading.Event()
    events: list[Event] = []

    def report(event: Event) -> None:
        events.append(event)
        asked.set()

    kept: list[Draw] = []
    waiting = threading.Thread(
        target=lambda: kept.append(SupervisorsDraw(tmp_path, report).keep(MINE, price=PRICE))
    )
    waiting.start()
    assert asked.wait(timeout=30)
    # The proposal is complete before it is reported, and nothing is used before there is an answer.
    assert Draw.model_validate_json((tmp_path / PROPOSED_DRAW).read_bytes()) == MINE
    assert kept == []
    aside = tmp_path / "answer"
    aside.write_text(THEIRS.model_dump_json())
    aside.rename(tmp_path / KEPT_DRAW)
    waiting.join(timeout=30)
    assert kept == [THEIRS]
    (event,) = events
    assert event.action == DRAW
    price = PrivacyPlan.model_validate(json.loads(json.dumps(event.fields["price"])))
    assert price == PRICE
    assert (price.spent(0), price.steps) == (0.1, 0)
