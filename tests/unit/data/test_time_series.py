"""Time series: routes, errors, splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from nss_train.config import parse_config
from nss_train.data.assembly import time_series
from nss_train.data.assembly.timestamps import guess_format
from nss_train.errors import DataError, ParameterError, UserError


def config(group: str | None = "g", **series: Any) -> Any:
    given = {"is_timeseries": True, "timestamp_column": "t"} | series
    return parse_config({"data": {"group_training_examples_by": group}, "time_series": given})


def frame(lengths: tuple[int, ...] = (3, 3), step: str = "D") -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "t": pd.date_range("2024-01-01", periods=n, freq=step).strftime("%Y-%m-%d"),
                "g": f"g{i}",
                "v": 1.5,
            }
        )
        for i, n in enumerate(lengths)
    ]
    return pd.concat(parts, ignore_index=True)


def test_groups_of_one_shape_keep_their_timestamps() -> None:
    found = time_series.process(frame().iloc[::-1], config())
    assert found.metadata.flexible is None
    assert list(found.frame.columns) == ["g", "t", "v"]
    assert found.frame["t"].tolist() == ["2024-01-01", "2024-01-02", "2024-01-03"] * 2
    assert found.config.time_series.timestamp_interval_seconds == 86400
    assert found.config.time_series.stop_timestamp == "2024-01-03 00:00:00"


def test_groups_of_different_length_are_numbered() -> None:
    found = time_series.process(frame((3, 2)), config())
    assert found.frame["_time_idx"].tolist() == [0, 1, 2, 0, 1]
    assert found.frame["_is_last_row"].tolist() == [False, False, True, False, True]
    assert found.config.time_series.stop_timestamp == 2


def test_an_interval_without_a_column_counts_seconds() -> None:
    given = frame().drop(columns="t")
    found = time_series.process(given, config(timestamp_column=None, timestamp_interval_seconds=60))
    assert found.frame["elapsed_seconds"].tolist() == [0, 60, 120, 0, 60, 120]


@pytest.mark.parametrize(
    ("change", "options", "error", "says"),
    [
        ({"t": None}, {}, DataError, "missing values"),
        ({"t": "nonsense"}, {}, ParameterError, "Could not infer"),
        ({}, {"timestamp_format": "%d/%m/%Y"}, ParameterError, "Did you mean: '%Y-%m-%d'"),
        ({}, {"timestamp_interval_seconds": 60}, DataError, "does not match the spacing"),
        ({}, {"timestamp_format": "elapsed_seconds"}, DataError, "elapsed seconds"),
        ({}, {"timestamp_column": "missing"}, ParameterError, "not found"),
    ],
)
def test_what_cannot_be_a_series(
    change: dict[str, Any], options: dict[str, Any], error: type[UserError], says: str
) -> None:
    with pytest.raises(error, match=says):
        time_series.process(frame().assign(**change), config(**options))


def test_one_bad_timestamp_is_named_by_its_row() -> None:
    given = frame()
    given.loc[4, "t"] = "2024-99-99"
    with pytest.raises(DataError, match="Failed to parse 1 timestamp") as caught:
        time_series.process(given, config(timestamp_format="%Y-%m-%d"))
    assert caught.value.problems[0].field == "row 4"


def test_text_that_does_not_sort_by_time_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    given = frame((40,))
    given["t"] = pd.to_datetime(given["t"]).dt.strftime("%d/%m/%Y")
    time_series.process(given, config(group=None, timestamp_format="%d/%m/%Y"))
    assert "not in order as text" in caplog.text


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["2024-01-31"], "%Y-%m-%d"),
        (["2024-01-01 00:00:00"], "%Y-%m-%d %X"),
        (["2024-01-01T00:00:00"], "%Y-%m-%dT%X"),
        (["2024-01-01 00:00:00.123"], "%Y-%m-%d %X.%f"),
        (["13/02/2024"], "%d/%m/%Y"),
        (["01/02/2024", "13/02/2024"], "%d/%m/%Y"),
        (["2013-01-01T10:00:00Z"], "%Y-%m-%dT%X%z"),
        (["Jan 1 2000"], "%b %d %Y"),
        (["20240101"], None),
        (["00:00:00"], None),
    ],
)
def test_formats_are_guessed_from_all_values(values: list[str], expected: str | None) -> None:
    assert guess_format(values) == expected


def test_intervals_tolerate_a_tenth_of_a_second() -> None:
    given = pd.DataFrame({"t": np.array([0.0, 10.04, 20.0]), "v": 1, "g": "a"})
    found = time_series.process(given, config(timestamp_format="elapsed_seconds"))
    assert found.config.time_series.timestamp_interval_seconds == 10
