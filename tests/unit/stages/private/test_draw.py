"""What chance decides of a private table is decided once: the draw, and who is held out."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from nss_train.contract import (
    HOLDOUT_KEY,
    KEPT_DRAW,
    PROPOSED_DRAW,
)
from nss_train.privacy.schema import noisy_statistics
from nss_train.stages import preparation
from tests.unit.stages.private.runs import (
    KEY,
    NOISY,
    Supervisor,
    arrow,
    prepared_bytes,
    read,
    request,
    run,
    visits,
)


def test_a_repeated_stage_uses_the_draw_that_is_kept_and_makes_the_same_bytes(
    folder: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "in" / "private").mkdir()
    (folder / "in" / HOLDOUT_KEY).write_bytes(KEY)
    counts = iter([190, 3, 150, 9])
    monkeypatch.setattr(noisy_statistics, "count", lambda *_, **__: next(counts))
    asked = request(models, **NOISY).model_copy(update={"keep_draw": True, "budget_name": "visits"})
    supervisor = Supervisor(folder)
    results, outputs = [], []
    for _ in range(2):
        results.append(preparation.run(folder, asked, report=supervisor))
        outputs.append(prepared_bytes(folder))
        (folder / KEPT_DRAW).unlink()
    assert outputs[0] == outputs[1]
    assert results[0] == results[1]
    plan = read(folder, "privacy")
    assert (plan["units"], plan["without_effect"], plan["holdout"]) == (190, 3, 0.1)
    # The second attempt drew other numbers, and the price is that of the by-products alone.
    assert json.loads((folder / PROPOSED_DRAW).read_bytes())["effective"] == 150
    assert supervisor.prices[0] == supervisor.prices[1]
    price = supervisor.prices[0]
    assert (price.steps, price.dataset, price.unit) == (0, "visits", "value of patient")
    assert [product.name for product in price.by_products] == ["count", "schema"]
    assert price.by_products[0].epsilon == pytest.approx(0.08)


def test_the_same_key_holds_out_the_same_units_in_another_table(folder: Path, models: Path) -> None:
    (folder / "in" / "private").mkdir()
    (folder / "in" / HOLDOUT_KEY).write_bytes(KEY)
    asked = request(models, data={"holdout": 0.1})

    def trained(frame: pd.DataFrame) -> set[tuple[int, ...]]:
        frame.to_csv(folder / "in" / "visits.csv", index=False)
        run(folder, asked)
        return {tuple(ids) for ids in arrow(folder, "train").column("input_ids").to_pylist()}

    one = pd.DataFrame({"patient": [-1], "ward": ["north"], "days": [3]})
    before, after = trained(visits()), trained(pd.concat([one, visits()[::-1]]))
    assert len(before - after) == 0
    assert len(after - before) <= 1


def test_a_key_is_in_no_output(folder: Path, models: Path) -> None:
    (folder / "in" / "private").mkdir()
    (folder / "in" / HOLDOUT_KEY).write_bytes(KEY)
    result = run(folder, request(models, data={"holdout": 0.1}))
    shown = result.model_dump_json().encode() + b"".join(prepared_bytes(folder).values())
    for text in (KEY[:8], KEY.hex()[:16].encode(), KEY.hex()[:16].upper().encode()):
        assert text not in shown
