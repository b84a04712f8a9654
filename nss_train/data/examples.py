"""Training examples: token ids and labels, in an Arrow file that a trainer memory-maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nss_train.data.assembly.layout import Layout
from nss_train.data.assembly.statistics import Running
from nss_train.data.ragged import gather, offsets_of
from nss_train.data.tokenization.fragments import Fragments, Tokens
from nss_train.data.tokenization.records import Records
from nss_train.model.metadata import ModelMetadata
from nss_train.model.tokenizer import IGNORED_LABEL

CHUNK_TOKENS = 1 << 20
"""Tokens in memory at a time while examples are written: about 40 MB with all columns."""

SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("attention_mask", pa.list_(pa.int8())),
        ("labels", pa.list_(pa.int64())),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """The part of every example that is not learned."""

    ids: Tokens
    """Token ids of the schema prompt with the family's special tokens; shape (tokens,)."""
    bos_id: int
    eos_id: int

    @classmethod
    def of(cls, schema_ids: list[int], metadata: ModelMetadata) -> Prompt:
        before = [metadata.bos_token_id] if metadata.family.bos_in_prompt else []
        after = [metadata.eos_token_id] if metadata.family.eos_in_prompt else []
        ids = np.asarray([*before, *schema_ids, *after], dtype=np.int32)
        return cls(ids=ids, bos_id=metadata.bos_token_id, eos_id=metadata.eos_token_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class Examples:
    """A layout of examples over tokenized records; an example's tokens are computed on request."""

    prompt: Prompt
    lengths: npt.NDArray[np.int64]
    """Tokens of each record."""
    plan: Layout
    fragments: Fragments
    """The records' fragments, then three rows of one fragment each: prompt, begin and end token."""

    @classmethod
    def of(cls, prompt: Prompt, records: Records, plan: Layout) -> Examples:
        fragments = _with_specials(records.fragments, prompt)
        return cls(prompt=prompt, lengths=records.lengths, plan=plan, fragments=fragments)

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[Tokens]:
        for start, stop in self._chunks():
            ids, lengths = self._tokens(start, stop)
            yield from np.split(ids, np.cumsum(lengths)[:-1])

    @property
    def tokens_per_example(self) -> npt.NDArray[np.int64]:
        """Return the tokens of each example, with prompt, begin and end tokens; shape (examples,)."""
        totals = offsets_of(self.lengths[self.plan.rows])
        records = np.diff(totals[self.plan.sequences[self.plan.examples]])
        return len(self.prompt.ids) + records + 2 * self.plan.sequences_per_example

    def labels(self, input_ids: Tokens) -> npt.NDArray[np.int64]:
        """Return the ids as labels, with :data:`IGNORED_LABEL` for the prompt; shape (tokens,)."""
        labels = input_ids.astype(np.int64)
        labels[: len(self.prompt.ids)] = IGNORED_LABEL
        return labels

    def statistics(self) -> dict[str, Running]:
        """Return the statistics of tokens and records per example."""
        return {
            "tokens_per_example": Running.of(self.tokens_per_example),
            "records_per_example": Running.of(self.plan.records_per_example),
        }

    def write(self, path: Path) -> None:
        """Write the examples as an Arrow stream, :data:`CHUNK_TOKENS` at a time."""
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as stream:
            for start, stop in self._chunks():
                stream.write_batch(self._batch(start, stop))

    def _chunks(self) -> Iterator[tuple[int, int]]:
        """Yield ranges of examples with about :data:`CHUNK_TOKENS` tokens."""
        ends = np.cumsum(self.tokens_per_example)
        start = 0
        while start < len(self):
            before = int(ends[start - 1]) if start else 0
            stop = max(int(np.searchsorted(ends, before + CHUNK_TOKENS, side="right")), start + 1)
            yield start, stop
            start = stop

    def _tokens(self, start: int, stop: int) -> tuple[Tokens, npt.NDArray[np.int64]]:
        """Return all ids of some examples, and the length of each example."""
        slots = self.fragments.rows[self._slots(start, stop)].ravel()
        ids, _ = gather(self.fragments.ids, self.fragments.offsets, slots)
        return ids, self.tokens_per_example[start:stop]

    def _slots(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Return the rows of the fragment table that some examples consist of."""
        prompt, begin, end = len(self.fragments.rows) - 3 + np.arange(3)
        sequences = self.plan.sequences[self.plan.examples[start] : self.plan.examples[stop] + 1]
        rows = self.plan.rows[sequences[0] : sequences[-1]]
        bounds = sequences - sequences[0]
        starts = self.plan.sequences[self.plan.examples[start:stop]] - sequences[0]
        # Insertions at the same place keep their order: end, then prompt, then begin.
        places = np.concatenate([bounds[1:], starts, bounds[:-1]])
        specials = np.repeat([end, prompt, begin], [len(bounds) - 1, len(starts), len(bounds) - 1])
        return np.insert(rows, places, specials)

    def _batch(self, start: int, stop: int) -> pa.RecordBatch:
        ids, lengths = self._tokens(start, stop)
        offsets = offsets_of(lengths)
        labels = ids.astype(np.int64)
        labels[(offsets[:-1, None] + np.arange(len(self.prompt.ids))).ravel()] = IGNORED_LABEL
        mask = np.ones(len(ids), dtype=np.int8)
        bounds = pa.array(offsets, type=pa.int32())
        lists = [pa.ListArray.from_arrays(bounds, pa.array(values)) for values in (ids, mask, labels)]
        return pa.record_batch(lists, schema=SCHEMA)


def _with_specials(fragments: Fragments, prompt: Prompt) -> Fragments:
    """Append prompt, begin and end token as fragments, and as rows of one fragment and empty ones."""
    count, width = len(fragments.offsets) - 1, fragments.rows.shape[1]
    lengths = np.concatenate([np.diff(fragments.offsets), [len(prompt.ids), 1, 1, 0]])
    specials = np.full((3, width), count + 3, dtype=fragments.rows.dtype)
    specials[:, 0] = count + np.arange(3)
    ends = np.asarray([prompt.bos_id, prompt.eos_id], dtype=np.int32)
    return Fragments(
        ids=np.concatenate([fragments.ids, prompt.ids, ends]),
        offsets=offsets_of(lengths),
        rows=np.concatenate([fragments.rows, specials]),
    )
