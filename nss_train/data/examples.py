"""Training examples: token ids and labels, in an Arrow file that a trainer maps into memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from nss_train.data.packing import Order
from nss_train.data.records import Records, Tokens
from nss_train.data.statistics import Running
from nss_train.model.metadata import ModelMetadata

IGNORED_LABEL = -100
_BATCH_EXAMPLES = 256

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
    """Shape (tokens,): the schema prompt with the family's special tokens."""
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
    """A plan of examples over tokenized records; the tokens of an example exist when it is asked for."""

    prompt: Prompt
    records: Records
    plan: tuple[Order, ...]
    """Record numbers of each example."""

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[Tokens]:
        return (self.input_ids(index) for index in range(len(self)))

    def input_ids(self, index: int) -> Tokens:
        """Prompt, then begin token, records, end token; shape (tokens,)."""
        records = [self.records.record(int(i)) for i in self.plan[index]]
        begin, end = (np.asarray([i], dtype=np.int32) for i in (self.prompt.bos_id, self.prompt.eos_id))
        return np.concatenate([self.prompt.ids, begin, *records, end])

    def labels(self, input_ids: Tokens) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The ids themselves, but :data:`IGNORED_LABEL` for the prompt; shape (tokens,)."""
        labels = input_ids.astype(np.int64)
        labels[: len(self.prompt.ids)] = IGNORED_LABEL
        return labels

    def statistics(self) -> dict[str, Running]:
        """Tokens and records per example."""
        fixed = len(self.prompt.ids) + 2
        lengths = self.records.lengths
        return {
            "tokens_per_example": Running.of(fixed + int(lengths[rows].sum()) for rows in self.plan),
            "records_per_example": Running.of(len(rows) for rows in self.plan),
        }

    def write(self, path: Path) -> None:
        """Write the examples as an Arrow stream, a few hundred at a time."""
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as stream:
            for start in range(0, len(self), _BATCH_EXAMPLES):
                stop = min(start + _BATCH_EXAMPLES, len(self))
                ids = [self.input_ids(index) for index in range(start, stop)]
                masks = [np.ones(len(example), dtype=np.int8) for example in ids]
                labels = [self.labels(example) for example in ids]
                arrays = [
                    pa.array(part, type=field.type)
                    for part, field in zip((ids, masks, labels), SCHEMA, strict=True)
                ]
                stream.write_batch(pa.record_batch(arrays, schema=SCHEMA))
