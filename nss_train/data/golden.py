"""All prepared examples in one comparable file, in the format of the golden sets."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nss_train.data.examples import Examples
from nss_train.data.prepared import Entry, Prepared
from nss_train.data.tokenization.fragments import record_text
from nss_train.model.tokenizer import IGNORED_LABEL, ModelTokenizer

FORMAT = 1


def describe(
    prepared: Prepared, *, tokenizer: ModelTokenizer, seed: int, entry: Entry, whole: int = 3
) -> dict[str, Any]:
    """Return digests of all records and examples, the first ``whole`` examples, and all that is derived."""
    return {
        "format": FORMAT,
        "entry": entry.value,
        "rng": {"seed": seed},
        "resolved_params": prepared.config.as_nss(),
        "dataset_schema": prepared.schema,
        "model_metadata": prepared.metadata.as_json(dataset_name="data", run_name="run"),
        "schema_prompt": prepared.schema_prompt,
        "schema_prompt_tokens": prepared.schema_prompt_tokens,
        "max_seq_length": prepared.metadata.max_seq_length,
        "data_fraction": prepared.data_fraction,
        "true_dataset_size": prepared.units_train,
        "num_records_train": prepared.records_train,
        "num_records_validation": len(prepared.records) - prepared.records_train,
        "training_df": _describe_frame(prepared),
        "holdout": _describe_holdout(prepared) if entry is Entry.PROCESS_DATA else None,
        "records": _describe_records(prepared),
        "stats": {name: series.as_json() for name, series in prepared.statistics.items()},
        "train": describe_examples(prepared.train, tokenizer, whole),
        "validation": None
        if prepared.validation is None
        else describe_examples(prepared.validation, tokenizer, whole),
    }


def describe_examples(examples: Examples, tokenizer: ModelTokenizer, whole: int) -> dict[str, Any]:
    """Return the length and digests of every example, and the first ``whole`` in full."""
    rows: list[dict[str, Any]] = []
    first: list[dict[str, Any]] = []
    tokens, trained = 0, 0
    for ids in examples:
        labels = examples.labels(ids)
        rows.append({"n": len(ids), "ids": _digest(ids), "labels": _digest(labels)})
        tokens += len(ids)
        trained += int((labels != IGNORED_LABEL).sum())
        if len(first) < whole:
            text = tokenizer.backend.decode(ids.tolist(), skip_special_tokens=False)
            first.append({"input_ids": ids.tolist(), "labels": labels.tolist(), "text": text})
    return {"count": len(rows), "tokens": tokens, "trained_tokens": trained, "all": rows, "first": first}


def write_golden(document: dict[str, Any], path: Path) -> None:
    """Write the document gzipped, with the same bytes each time."""
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        file.write(json.dumps(document, separators=(",", ":")).encode() + b"\n")


def _describe_records(prepared: Prepared) -> dict[str, Any]:
    kept = prepared.assembled.described
    texts = [record_text(prepared.columns, row) for row in kept.tolist()]
    ids = hashlib.sha256()
    for index in kept.tolist():
        ids.update(bytes.fromhex(_digest(prepared.records.record(index))))
    return {
        "count": len(kept),
        "text_sha256": hashlib.sha256("".join(texts).encode("utf-8", "surrogatepass")).hexdigest(),
        "ids_sha256_of_sha256s": ids.hexdigest(),
        "first_texts": texts[:5],
    }


def _describe_frame(prepared: Prepared) -> dict[str, Any]:
    table = prepared.table
    # A private table's dtypes are those of single cells, not a statistic of its columns.
    frame = _texts(prepared) if table is None else table.to_pandas()
    return {
        "rows": len(frame),
        "columns": [str(column) for column in frame.columns],
        "dtypes": [str(dtype) for dtype in frame.dtypes],
    }


def _texts(prepared: Prepared) -> pd.DataFrame:
    return pd.DataFrame(
        {column.name: [column.texts[code] for code in column.codes] for column in prepared.columns}
    )


def _describe_holdout(prepared: Prepared) -> dict[str, Any]:
    splits = {"training": prepared.training, "test": prepared.test}
    return {
        name: None
        if frame is None
        else {
            "rows": len(frame),
            "csv_sha256": hashlib.sha256(frame.to_csv(index=False).encode()).hexdigest(),
        }
        for name, frame in splits.items()
    }


def _digest(ids: Iterable[int]) -> str:
    return hashlib.sha256(np.asarray(ids, dtype="<i4").tobytes()).hexdigest()
