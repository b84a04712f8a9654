"""The owner of a record, and the records of a unit that count, depend on that unit alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nss_train.config import SafeSynthesizerParameters, parse_config
from nss_train.config.sections.guarantee import ColumnType
from nss_train.privacy.coins import HoldoutKey
from nss_train.privacy.schema.unit_count import kind_of_units
from nss_train.privacy.units import FoundUnits, Membership, UnitLimits, find_units, take, toss
from tests.unit.privacy.tables import private_table

OWNERS = st.lists(st.one_of(st.none(), st.integers(0, 5)), min_size=1, max_size=40)
LONG = 1000
KEY = HoldoutKey(secret=bytes(32))


def private(
    group: str | None = None, order: str | None = None, **guarantee: Any
) -> SafeSynthesizerParameters:
    data = {"group_training_examples_by": group, "order_training_examples_by": order}
    return parse_config({"privacy": {"dp_enabled": True}, "data": data, "guarantee": guarantee})


def limits(**given_: Any) -> UnitLimits:
    return UnitLimits(**{"tokens_per_record": LONG} | given_)


def found(
    owners: list[Any],
    config: SafeSynthesizerParameters,
    limits_: UnitLimits | None = None,
    *,
    lengths: list[int] | None = None,
    when: list[Any] | None = None,
) -> FoundUnits:
    table = private_table({"owner": owners, "when": when or list(range(len(owners)))[::-1]})
    tokens = np.asarray(lengths or [1] * len(owners), dtype=np.int64)
    return find_units(table, tokens, config, limits_ or limits())


def by_unit(units: FoundUnits) -> list[list[int]]:
    groups = units.groups
    return [groups.rows[groups.offsets[i] : groups.offsets[i + 1]].tolist() for i in range(len(groups))]


@given(owners=OWNERS, most=st.integers(1, 4), data=st.data())
def test_the_first_records_of_a_unit_that_count_are_its_own(
    owners: list[int | None], most: int, data: st.DataObject
) -> None:
    lengths = data.draw(
        st.lists(st.sampled_from([1, 2, LONG + 1]), min_size=len(owners), max_size=len(owners))
    )
    units = found(owners, private(unit_column="owner"), limits(records=most), lengths=lengths)
    expected: dict[int, list[int]] = {}
    for row, owner in enumerate(owners):
        if owner is not None and lengths[row] <= LONG:
            expected.setdefault(owner, []).append(row)
    assert by_unit(units) == [rows[:most] for rows in expected.values()]
    assert units.groups.tokens.tolist() == [sum(lengths[row] for row in rows) for rows in by_unit(units)]
    assert units.idle == len(set(owners) - {None}) - len(expected)


@given(owners=OWNERS, more=OWNERS, most=st.integers(1, 3), data=st.data())
def test_another_unit_s_records_move_no_record(
    owners: list[int | None], more: list[int | None], most: int, data: st.DataObject
) -> None:
    """Wherever these stand, one unit's records are the same, in the same order."""
    others = [None if owner is None else owner + 10 for owner in more]
    mixed = data.draw(st.permutations([*enumerate(owners), *((-1, other) for other in others)]))
    order = [index for index, _ in mixed if index >= 0]
    alone = found([owners[i] for i in order], private(unit_column="owner"), limits(records=most))
    among = found([owner for _, owner in mixed], private(unit_column="owner"), limits(records=most))
    numbers = [index for index, _ in mixed]
    kept = [[numbers[row] for row in rows] for rows in by_unit(among) if numbers[rows[0]] >= 0]
    assert kept == [[order[row] for row in rows] for rows in by_unit(alone)]


def test_a_unit_keeps_what_its_tokens_have_room_for() -> None:
    units = found([1, 1, 2, 1, 3], private(unit_column="owner"), limits(tokens=5), lengths=[3, 2, 6, 1, 5])
    assert by_unit(units) == [[0, 1], [4]]
    assert units.idle == 1


def test_a_group_is_kept_in_its_order_as_far_as_it_fits() -> None:
    config = private("owner", "when")
    units = found([1, 2, 1, 1], config, limits(tokens=4), lengths=[2, 2, 2, 2])
    assert by_unit(units) == [[3, 2], [1]]


@pytest.mark.parametrize(
    ("values", "type_", "form", "expected"),
    [
        ([10, 9, None, 2.5], ColumnType.NUMBER, None, [3, 1, 0, 2]),
        (["10", "9", "é", ""], ColumnType.STRING, None, [3, 0, 1, 2]),
        (["02.01.2024", "01.02.2024", "31.12.2023"], ColumnType.DATETIME, "%d.%m.%Y", [2, 0, 1]),
        (["later", "02.01.2024", "2024-01-01", None], ColumnType.DATETIME, "%d.%m.%Y", [1, 2, 0, 3]),
        (["b", 3, {"a": 1}, True, None, "a", 3.0], ColumnType.ANY, None, [3, 1, 6, 5, 0, 2, 4]),
    ],
)
def test_an_order_goes_by_values_of_a_type(
    values: list[Any], type_: ColumnType, form: str | None, expected: list[int]
) -> None:
    config = private("owner", "when", columns={"when": {"type": type_, "format": form}})
    table = private_table({"owner": [1] * len(values), "when": values}, {"when": type_})
    units = find_units(table, np.ones(len(values), dtype=np.int64), config, limits())
    assert by_unit(units) == [expected]


def test_without_a_column_each_record_that_is_not_null_is_a_unit() -> None:
    table = private_table({"a": [3, None, 3, 1], "b": [None, None, None, 2]})
    units = find_units(table, np.asarray([1, 1, 1, LONG + 1]), private(), limits())
    assert by_unit(units) == [[0], [2]]
    assert units.idle == 2


def test_a_table_of_null_records_has_no_unit() -> None:
    for config in (private(), private(unit_column="a"), private("a")):
        units = find_units(private_table({"a": [None, None]}), np.ones(2, dtype=np.int64), config, limits())
        assert (len(units), units.firsts.tolist()) == (0, [])


def test_equal_records_share_a_coin_and_so_do_a_unit_s() -> None:
    table = private_table({"a": [n % 50 for n in range(200)], "b": [n % 50 for n in range(200)]})
    units = find_units(table, np.ones(200, dtype=np.int64), private(), limits())
    sides = toss(units, table, private(), KEY.holdout(), share=0.5).reshape(4, 50)
    assert (sides == sides[0]).all()
    assert 0 < sides[0].sum() < 50
    config = private(unit_column="a")
    values = find_units(table, np.ones(200, dtype=np.int64), config, limits())
    assert toss(values, table, config, KEY.holdout(), share=0.5).shape == (50,)


def test_a_unit_s_coin_goes_by_its_value_alone() -> None:
    config = private(unit_column="owner")

    def sides(owners: list[str]) -> dict[str, bool]:
        table = private_table({"owner": owners, "x": list(range(len(owners)))})
        units = find_units(table, np.ones(len(owners), dtype=np.int64), config, limits())
        tossed = toss(units, table, config, KEY.holdout(), share=0.5)
        return {owners[row]: bool(side) for row, side in zip(units.firsts, tossed, strict=True)}

    people = [f"p{n}" for n in range(100)]
    assert sides(people) == sides(people[::-1] + people)
    assert sides([*people, "another"]) == sides(people) | sides(["another"])


def test_units_are_taken_with_all_that_is_theirs() -> None:
    units = found([0, 1, 0, 2], private("owner"), lengths=[1, 2, 3, 4]).groups
    some = take(units, np.asarray([2, 0]))
    assert (some.rows.tolist(), some.sizes.tolist(), some.tokens.tolist()) == ([3, 0, 2], [1, 2], [4, 4])


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
