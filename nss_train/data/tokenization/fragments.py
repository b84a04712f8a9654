"""The tokenization of a table by fragments of records, each distinct one once.

A tokenizer merges only within pre-tokens, so the ids of a record are those of its fragments in
sequence if each cut between two fragments lies between two pre-tokens in any context. The
cuts lie after the last letter of a column's name: ``{"year`` ``":2013,"month`` ``":1}``. What
follows a cut depends on one column's value only, and a column has far fewer values than rows.
A cut that does not meet this condition is omitted, and its two columns share a fragment; without
any cut the fragments are whole records.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from nss_train.data.ragged import Offsets, gather, offsets_of
from nss_train.data.tokenization.distinct_values import Codes, Column
from nss_train.data.tokenization.pieces import PieceEncoder
from nss_train.errors import ParameterError, Problem
from nss_train.model.tokenizer import UNREADABLE, ModelTokenizer

Tokens = npt.NDArray[np.int32]

CHECKED_RECORDS = 100
"""Number of records that are also tokenized whole, besides those with a column's longest value."""
_INVENTED = (
    *(
        "null",
        "true",
        "false",
        "0",
        "-1",
        "63",
        "1024",
        "0.5",
        "-12.25",
        "39.1",
        "1e-07",
        "12345678901234567",
    ),
    *('""', '" "', '"a"', '" b"', '"1"', '"00501"', '"Torgersen"', '"NA"', '"it\'s a long day"', '"a  b"'),
    *('"2024-02-29"', '"2024-02-29T12:30:00.5+01:00"', '"Ann O\'Neil, 3rd"', '"a@b.example"', '"x_2"'),
    *('"é"', '"Köln"', '"Żółć"', '"日本語"', '"🙂👍🏽"', '"e\u0301"', '"\u00a0"', '"\u200b"', '"ﬁ"', '"١٢٣"'),
    *('"a\\nb"', '"a\\tb"', '"\\""', '"\\\\"', '"<b>&amp;</b>"', '"http:\\/\\/a.example\\/?q=1#2"'),
    *('"{}"', '"[1, 2]"', "[]", "[1,2]", '["a",null]', "{}", '{"a":{"b":[1.5]}}', '"' + "word " * 40 + '"'),
    '"' + "9" * 60 + '"',
)
"""JSON of values of all kinds, for records that are used in place of real ones."""
_FOLLOWERS = ("1", "0.5", "-1", "null", "true", '"a"', '" b"', '"1"', '"é"', '"\'s"', "[1]", '"\\n"')


@dataclass(frozen=True, kw_only=True, slots=True)
class Fragments:
    """All distinct fragments of a table, and the fragments of each row."""

    ids: Tokens
    """Ids of all fragments, concatenated; shape (tokens,)."""
    offsets: Offsets
    """Start of each fragment in ``ids``, and the end; shape (fragments + 1,)."""
    rows: Codes
    """Fragment numbers of each row, in order; shape (rows, fragments per row)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A run of neighbouring columns between two cuts."""

    columns: Sequence[Column]
    before: tuple[str, ...]
    """Text before each value."""
    after: str
    """Text after the last value, up to the next cut."""
    context: str
    """Text before the segment in every record; empty for the first."""


def tokenize_columns(columns: Sequence[Column], tokenizer: ModelTokenizer) -> Fragments:
    """Return the fragments of every row; raise :class:`ParameterError` if sampled records differ."""
    fragments = _fragments(columns, tokenizer, PieceEncoder(tokenizer))
    _cross_check(fragments, columns, tokenizer)
    return fragments


def tokenize_privately(columns: Sequence[Column], tokenizer: ModelTokenizer) -> Fragments:
    """Return the fragments of every row from its own cells alone; only invented records are checked.

    The way texts are cut does not depend on how many there are.
    """
    encoder = PieceEncoder(tokenizer, few_texts=0, alone=True)
    stand_ins = invented(columns)
    _cross_check(_fragments(stand_ins, tokenizer, encoder), stand_ins, tokenizer)
    return _fragments(columns, tokenizer, encoder)


def invented(columns: Sequence[Column]) -> list[Column]:
    """Return columns of the same names with invented values: one record per value, shifted by column."""
    rows = np.arange(len(_INVENTED), dtype=np.int32)
    values = [json.loads(text) for text in _INVENTED]
    return [
        replace(column, codes=np.roll(rows, shift), values=values, texts=list(_INVENTED))
        for shift, column in enumerate(columns)
    ]


def _fragments(columns: Sequence[Column], tokenizer: ModelTokenizer, encoder: PieceEncoder) -> Fragments:
    parts, codes, base = [], [], 0
    for segment in _segments(columns, tokenizer):
        texts, rows = _texts(segment)
        encoded = encoder.encode(texts, context=segment.context)
        parts.append(encoded)
        codes.append(rows + np.int32(base))
        base += len(texts)
    lengths = np.concatenate([np.diff(offsets) for _, offsets in parts])
    return Fragments(
        ids=np.concatenate([ids for ids, _ in parts]),
        offsets=offsets_of(lengths),
        rows=np.stack(codes, axis=1),
    )


def record_text(columns: Sequence[Column], row: int) -> str:
    """Return one record as text, with its newline."""
    fields = (f"{c.label}:{c.texts[c.codes[row]]}" for c in columns)
    return "{" + ",".join(fields) + "}\n"


def _segments(columns: Sequence[Column], tokenizer: ModelTokenizer) -> list[Segment]:
    """Return the groups of columns between the valid cuts."""
    lead = [("," if i else "{") + column.label for i, column in enumerate(columns)]
    cuts = [_cut(text, tokenizer) if i else 0 for i, text in enumerate(lead)]
    starts = [i for i, cut in enumerate(cuts) if cut is not None]
    found = []
    for start, stop in zip(starts, [*starts[1:], len(columns)], strict=True):
        cut = cuts[start] or 0
        after = "}\n" if stop == len(columns) else lead[stop][: cuts[stop]]
        found.append(
            Segment(
                columns=columns[start:stop],
                before=(lead[start][cut:] + ":", *(f"{text}:" for text in lead[start + 1 : stop])),
                after=after,
                context=lead[start][:cut],
            )
        )
    return found


def _cut(text: str, tokenizer: ModelTokenizer) -> int | None:
    """Return the place after the last letter of a separator and name, if no token spans it."""
    cut = next((i for i in range(len(text), 0, -1) if text[i - 1].isalpha()), None)
    if cut is None:
        return None
    return cut if all(tokenizer.splits_at(f"1{text}:{value}", cut + 1) for value in _FOLLOWERS) else None


def _texts(segment: Segment) -> tuple[list[str], Codes]:
    """Return the distinct texts of a segment, and the text of each row."""
    if len(segment.columns) == 1:
        (column,), (before,) = segment.columns, segment.before
        return [f"{before}{text}{segment.after}" for text in column.texts], column.codes
    codes, combinations = _combined(segment.columns)
    texts = []
    for combination in combinations:
        values = (c.texts[i] for c, i in zip(segment.columns, combination, strict=True))
        fields = (before + value for before, value in zip(segment.before, values, strict=True))
        texts.append("".join(fields) + segment.after)
    return texts, codes


def _combined(columns: Sequence[Column]) -> tuple[Codes, npt.NDArray[np.int32]]:
    """Return each row's code and the distinct combinations of the columns' codes, (combinations, columns)."""
    codes = columns[0].codes.astype(np.int64)
    for column in columns[1:]:
        # Factorized after each column, so that the product never overflows.
        codes = pd.factorize(codes)[0] * len(column.values) + column.codes
    rows, _ = pd.factorize(codes)
    first = np.full(rows.max(initial=-1) + 1, -1, dtype=np.int64)
    first[rows[::-1]] = np.arange(len(rows))[::-1]
    return rows.astype(np.int32), np.stack([column.codes[first] for column in columns], axis=1)


def _cross_check(fragments: Fragments, columns: Sequence[Column], tokenizer: ModelTokenizer) -> None:
    """Compare a sample of whole records, including those with each column's longest value."""
    rows = len(fragments.rows)
    # A fixed sample rather than a random one: the stage is a function of its inputs.
    sample: set[int] = set(np.linspace(0, rows - 1, min(rows, CHECKED_RECORDS), dtype=int).tolist())
    for column in columns:
        longest = max(range(len(column.texts)), key=lambda i, c=column: len(c.texts[i]))  # type: ignore[misc]
        sample.add(int(np.argmax(column.codes == longest)))
    rows_checked = sorted(sample)
    texts = [record_text(columns, row) for row in rows_checked]
    whole = tokenizer.encode_each(texts)
    for row, text, ids in zip(rows_checked, texts, whole, strict=True):
        ours = gather(fragments.ids, fragments.offsets, fragments.rows[row])[0].tolist()
        if ids == [UNREADABLE] and UNREADABLE in ours:
            continue  # a record that no private job trains on
        if ours != ids:
            # Tokenizers come with jobs. One without pre-tokens that drops the characters which it lacks
            # merges what was never neighbours, so that no cut holds in every context.
            remedy = (
                "tokenizer.json (pre_tokenizer, model) gives texts other ids by what surrounds them: row "
                f"{row}: {text[:200]!r}; use another base model, or report one of a known family"
            )
            problem = Problem(field="training.pretrained_model", value="tokenizer.json", remedy=remedy)
            raise ParameterError("The tokenizer cannot be used.", [problem])
