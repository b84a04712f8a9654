"""A table's rows as JSON Lines records, tokenized one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from nss_train.model.tokenizer import ModelTokenizer

BATCH_ROWS = 1000
"""Part of the format: a nullable integer is written as a float in a batch that holds a null."""

_RECORD = re.compile(r"{.+?}(?=\n|$)")

Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Records:
    """Tokenized records: the ids of all of them in one array, and where each begins."""

    ids: Tokens
    """Shape (tokens,)."""
    offsets: npt.NDArray[np.int64]
    """Shape (records + 1,)."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each record, its newline included; shape (records,)."""
        return np.diff(self.offsets)

    def record(self, index: int) -> Tokens:
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def take(self, indices: npt.NDArray[np.int64]) -> Records:
        """Some of the records, in the given order."""
        parts = [self.record(int(i)) for i in indices]
        lengths = [len(part) for part in parts]
        return Records(ids=np.concatenate(parts), offsets=np.concatenate([[0], np.cumsum(lengths)]))


def arrow_round_trip(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the types it has after NSS's detour through a dataset: ``Int64`` becomes float."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    result: pd.DataFrame = table.replace_schema_metadata(None).to_pandas()
    return result


def record_texts(frame: pd.DataFrame) -> Iterator[list[str]]:
    """Batches of records as text, each ending in a newline."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    for start in range(0, table.num_rows, BATCH_ROWS):
        batch = pd.DataFrame(table.slice(start, BATCH_ROWS).to_pydict())
        text = batch.to_json(orient="records", lines=True, force_ascii=False)
        yield [f"{match}\n" for match in _RECORD.findall(text)]


def tokenize(frame: pd.DataFrame, tokenizer: ModelTokenizer) -> Records:
    """Tokenize every row of a frame."""
    parts: list[Tokens] = []
    lengths: list[int] = []
    for texts in record_texts(frame):
        for encoding in tokenizer.backend.encode_batch_fast(texts, add_special_tokens=False):
            ids = encoding.ids
            parts.append(np.asarray(ids, dtype=np.int32))
            lengths.append(len(ids))
    ids = np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)
    return Records(ids=ids, offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))
