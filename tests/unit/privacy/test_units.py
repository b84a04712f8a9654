"""Whose a record is: each unit once, whatever is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nss_train.config import SafeSynthesizerParameters, parse_config
from nss_train.data.columns import check_roles
from nss_train.data.holdout import hold_out
from nss_train.errors import UserError
from nss_train.privacy.publication import kind_of_units
from nss_train.privacy.units import Membership, find_units, take

OWNERS = st.lists(st.integers(0, 5), min_size=1, max_size=40)


def private(
    group: str | None = None, order: str | None = None, **guarantee: Any
) -> SafeSynthesizerParameters:
    data = {"group_training_examples_by": group, "order_training_examples_by": order, "random_state": 1}
    return parse_config({"privacy": {"dp_enabled": True}, "data": data, "guarantee": guarantee})


def table(owners: list[int]) -> tuple[pa.Table, Any]:
    rows = np.arange(len(owners), dtype=np.int64)
    return pa.table({"owner": owners, "when": rows[::-1]}), rows + 1


@given(owners=OWNERS, most=st.integers(1, 4))
def test_the_first_rows_of_a_unit_are_its_own(owners: list[int], most: int) -> None:
    found = find_units(*table(owners), private(unit_column="owner", max_records_per_unit=most))
    assert len(found) == len(set(owners))
    for unit, owner in enumerate(sorted(set(owners))):
        own = [row for row, whose in enumerate(owners) if whose == owner][:most]
        rows = found.rows[found.offsets[unit] : found.offsets[unit + 1]].tolist()
        assert rows == own
        assert found.tokens[unit] == sum(row + 1 for row in own)


@given(owners=OWNERS)
def test_a_group_is_a_unit_as_a_whole_and_in_its_order(owners: list[int]) -> None:
    found = find_units(*table(owners), private("owner", "when", max_records_per_unit=1))
    assert found.rows.tolist() == sorted(range(len(owners)), key=lambda row: (owners[row], -row))
    assert found.sizes.tolist() == [owners.count(owner) for owner in sorted(set(owners))]


def test_without_a_column_each_record_is_a_unit() -> None:
    found = find_units(*table([3, 3, 1]), private())
    assert found.rows.tolist() == [0, 1, 2]
    assert found.sizes.tolist() == [1, 1, 1]


def test_units_are_taken_with_all_that_is_theirs() -> None:
    found = take(find_units(*table([0, 1, 0, 2]), private("owner")), np.asarray([2, 0]))
    assert (found.rows.tolist(), found.sizes.tolist(), found.tokens.tolist()) == ([3, 0, 2], [1, 2], [4, 4])


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (private(), "record"),
        (private("owner"), "value of owner"),
        (private("owner", unit_column="owner"), "value of owner"),
        (private(unit_column="owner"), "value of owner"),
    ],
)
def test_a_unit_has_a_name(config: SafeSynthesizerParameters, kind: str) -> None:
    assert kind_of_units(config) == kind


def test_units_are_written_as_an_arrow_stream(tmp_path: Path) -> None:
    Membership(of_example=np.asarray([0, 0, 1]), firsts=np.asarray([0, 2])).write(tmp_path / "units.arrow")
    with pa.ipc.open_stream(tmp_path / "units.arrow") as stream:
        assert stream.schema == pa.schema([("unit", pa.int32())])
        assert stream.read_all().column("unit").to_pylist() == [0, 0, 1]


def test_the_unit_column_must_be_there_and_whole() -> None:
    config = private(unit_column="owner")
    with pytest.raises(UserError, match=r"guarantee\.unit_column = 'owner': 1 values are missing"):
        check_roles(pd.DataFrame({"owner": ["a", None], "x": [1, 2]}), config)
    with pytest.raises(UserError, match="did you mean 'ownr'"):
        check_roles(pd.DataFrame({"ownr": ["a", "b"]}), config)


def test_whole_units_are_held_out() -> None:
    frame = pd.DataFrame({"owner": np.repeat(np.arange(50), 5), "x": range(250)})
    split = hold_out(frame, private(unit_column="owner").data, unit_column="owner")
    assert split.test is not None
    assert split.test["owner"].nunique() == 2
    assert not set(split.train["owner"]) & set(split.test["owner"])
    assert len(split.train) + len(split.test) == 250


def test_how_many_records_a_unit_has_does_not_decide_on_others() -> None:
    """As it does in NSS, which takes the split of 20 whose number of rows is nearest."""
    few = pd.DataFrame({"owner": np.repeat(np.arange(60), 5)})
    many = pd.concat([few, pd.DataFrame({"owner": [7] * 400})], ignore_index=True)
    data = private("owner").data
    held = [hold_out(frame, data, unit_column="owner").test for frame in (few, many)]
    assert held[0] is not None
    assert held[1] is not None
    assert set(held[0]["owner"]) == set(held[1]["owner"])


def test_a_holdout_of_no_unit_is_refused() -> None:
    frame = pd.DataFrame({"owner": np.repeat(np.arange(3), 100)})
    with pytest.raises(UserError, match="this holds out 0 of 3 units"):
        hold_out(frame, private(unit_column="owner").data, unit_column="owner")
