"""Columns that the config names are checked all at once, with the nearest name that exists."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from nss_train.config import SafeSynthesizerParameters, parse_config
from nss_train.data import columns
from nss_train.errors import DataError, ParameterError

FRAME = pd.DataFrame({"city": ["a", None, "b"], "day": [[1], [2], [3]], "size": [1, 2, 3]})


def config(**data: Any) -> SafeSynthesizerParameters:
    return parse_config({"data": data})


def test_a_wrong_group_and_a_wrong_order_are_one_error() -> None:
    asked = config(group_training_examples_by="citty", order_training_examples_by="sice")
    with pytest.raises(ParameterError) as caught:
        columns.check_roles(FRAME, asked)
    assert [(problem.field, problem.remedy) for problem in caught.value.problems] == [
        ("data.group_training_examples_by", "did you mean 'city'?"),
        ("data.order_training_examples_by", "did you mean 'size'?"),
    ]


def test_a_group_column_has_no_gaps_and_the_first_is_named() -> None:
    with pytest.raises(DataError, match="1 value is missing, the first in row 1"):
        columns.check_groupby_column(FRAME, "city")


@pytest.mark.parametrize("check", [columns.check_groupby_column, columns.check_orderby_column])
def test_cells_that_cannot_be_compared_are_neither_group_nor_order(check: Any) -> None:
    with pytest.raises(DataError, match="holds lists or objects"):
        check(FRAME, "day")
    check(FRAME, "size")
    check(FRAME, None)


def test_several_names_in_one_are_recognised_as_such() -> None:
    with pytest.raises(ParameterError, match="use a single column name"):
        columns.check_groupby_column(FRAME, "region,land")


def test_names_of_a_private_table_are_checked_without_a_look_at_its_cells() -> None:
    asked = config(group_training_examples_by="citty", order_training_examples_by="size")
    with pytest.raises(ParameterError, match="did you mean 'city'") as caught:
        columns.check_named_roles(list(FRAME), asked)
    assert len(caught.value.problems) == 1


def test_every_column_without_a_value_is_named() -> None:
    empty = FRAME.assign(a=None, b=float("nan"))
    with pytest.raises(DataError) as caught:
        columns.check_columns(empty)
    assert [problem.field for problem in caught.value.problems] == ["a", "b"]
    columns.check_columns(FRAME)


def test_a_table_of_fewer_rows_than_nss_accepts_is_refused_unless_the_check_is_off() -> None:
    few, enough = (pd.DataFrame({"a": range(rows)}) for rows in (columns.MIN_ROWS - 1, columns.MIN_ROWS))
    with pytest.raises(DataError, match="too small"):
        columns.check_rows(few, config())
    columns.check_rows(enough, config())
    columns.check_rows(few, parse_config({"preflight": {"disabled_checks": ["dataset.size"]}}))


def test_warnings_tell_gaps_of_the_order_few_rows_and_many_repetitions() -> None:
    frame = pd.DataFrame({"t": [1.0, None, 3.0], "v": [1.0, None, None]})
    grouped = {"group_training_examples_by": "v", "order_training_examples_by": "t"}
    asked = parse_config({"data": grouped, "training": {"num_input_records_to_sample": 30}})
    assert columns.split_warnings(frame, asked) == [
        "t: 1 values are missing; these records come last in their groups",
        "the training split has 3 rows; more would help",
        "each of 3 rows is seen 10.0 times",
    ]
