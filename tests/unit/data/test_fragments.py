"""Tokenizing by fragments gives the ids of tokenizing whole records, whatever table and tokenizer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nss_train.data.tokenization import fragments
from nss_train.data.tokenization.distinct_values import distinct_columns, to_arrow
from nss_train.data.tokenization.fragments import record_text
from nss_train.data.tokenization.records import tokenize
from nss_train.errors import ParameterError
from nss_train.model.tokenizer import ModelTokenizer

NAMES = [
    "name",
    "name with space",
    "123",
    "a/b",
    'quote"d',
    "don't",
    "x_2",
    "städte",
    "emoji🙂",
    "e\u0301",
    "...",
    "ends_",
]
TEXTS = [
    "plain words here",
    "it's",
    "I'll go",
    "  lead",
    "tail ",
    "",
    "a\tb\nc",
    "日本語",
    "🙂🚀",
    "e\u0301",
    "\u2028",
    "x" * 99,
    "12 34",
    "\\",
    '"',
]
VALUES: list[st.SearchStrategy[Any]] = [
    st.sampled_from([*TEXTS, None]),
    st.text(max_size=12),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=True),
    st.booleans(),
]


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True))
    rows = draw(st.integers(2, 12))
    columns = {n: draw(st.lists(draw(st.sampled_from(VALUES)), min_size=rows, max_size=rows)) for n in names}
    return pd.DataFrame(columns)


def whole_records(frame: pd.DataFrame) -> list[str]:
    """Return what the reference tokenizes: pandas' own lines, in its batches."""
    table = to_arrow(frame)
    lines: list[str] = []
    for start in range(0, table.num_rows, 1000):
        batch = pd.DataFrame(table.slice(start, 1000).to_pydict())
        text: str = batch.to_json(orient="records", lines=True, force_ascii=False)
        lines += [f"{line}\n" for line in text.split("\n") if line]
    return lines


def assert_equal_to_whole(frame: pd.DataFrame, tokenizer: ModelTokenizer) -> None:
    columns = distinct_columns(to_arrow(frame))
    expected = whole_records(frame)
    assert [record_text(columns, row) for row in range(len(frame))] == expected
    records = tokenize(columns, tokenizer)
    for row, text in enumerate(expected):
        assert records.record(row).tolist() == tokenizer.encode(text), text


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frame=tables().filter(lambda f: not any("\ud800" <= c <= "\udfff" for c in f.to_string())))
def test_any_table(frame: pd.DataFrame, tokenizer: ModelTokenizer) -> None:
    assert_equal_to_whole(frame, tokenizer)


def test_a_table_of_distinct_values(tokenizer: ModelTokenizer) -> None:
    rng = np.random.default_rng(1)
    words = [*TEXTS, "the", "end", "of", "it", "3.5", "A-1"]
    frame = pd.DataFrame(
        {
            "free text": [" ".join(rng.choice(words, 9)) for _ in range(400)],
            "number": rng.integers(10**14, 10**15, 400) / 1e7,
            "small": -rng.random(400) * 1e-6,
        }
    )
    assert_equal_to_whole(frame, tokenizer)


def test_dates_gaps_and_lists(tokenizer: ModelTokenizer) -> None:
    rows = 1500
    frame = pd.DataFrame(
        {
            "when": pd.date_range("2024-01-01", periods=rows, freq="h"),
            "whole": pd.array([None if i == 1200 else i for i in range(rows)], dtype="Int64"),
            "pair": [[i % 3, i % 2] for i in range(rows)],
            "flag": [None if i % 7 == 0 else bool(i % 2) for i in range(rows)],
        }
    )
    assert_equal_to_whole(frame, tokenizer)


def test_a_cut_that_does_not_hold_fails_loudly(
    tokenizer: ModelTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pd.DataFrame({"name": ["Ann", "Bob"] * 3, "year": range(6)})
    monkeypatch.setattr(fragments, "_cut", lambda *_: 2)  # behind `,"`
    monkeypatch.setattr(fragments, "gather", lambda *_: (np.asarray([7]), None))
    with pytest.raises(ParameterError, match="other ids by what surrounds them: row 0"):
        tokenize(distinct_columns(to_arrow(frame)), tokenizer)
