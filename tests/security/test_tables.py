"""A small file that becomes a large table is refused before it is decoded; every limit is named at once."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import resource
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nss_train.config import parse_config
from nss_train.contract import ModelPolicy, Request, Stage, TableLimits
from nss_train.data.limits import check_size
from nss_train.data.source import read_table
from nss_train.errors import DataError, LimitExceeded, ParameterError
from tasks.execution.processes.supervisor import Limits, run_child
from tasks.jobs.documents import JobRequest, Table
from tasks.jobs.repository import JobRepository
from tasks.jobs.table import check_table_file, describe_table, fetch_table, table_at, upload_table
from tasks.settings import Settings, child_environment
from tasks.store.open import open_store

LIMITS = TableLimits(
    file_bytes=2**20,
    rows=1_000,
    columns=50,
    cell_chars=5_000,
    decoded_bytes=8 * 2**20,
    expansion=20,
    small_bytes=2**16,
    depth=8,
)


def parquet(path: Path, table: pa.Table, **options: object) -> None:
    pq.write_table(table, path, compression="zstd", **options)


def _rows_csv(path: Path) -> None:
    path.write_text("a\n" + "1\n" * 2_000)


def _columns_csv(path: Path) -> None:
    path.write_text(",".join(f"c{n}" for n in range(100)) + "\n" + ",".join("1" * 100) + "\n")


def _cell_csv(path: Path) -> None:
    path.write_text("a,b\n1," + "x" * 6_000 + "\n2,y\n")


def _bytes_csv(path: Path) -> None:
    path.write_text("a,b\n" + f"1,{'x' * 100}\n" * 12_000)


def _columns_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps({f"key{n}": n}) + "\n" for n in range(100)))


def _deep_jsonl(path: Path) -> None:
    path.write_text('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}\n" + '{"a": 1}\n')


def _rows_parquet(path: Path) -> None:
    parquet(path, pa.table({"a": pa.array(np.zeros(1_000_000, dtype="int64"))}))


def _repeated_parquet(path: Path) -> None:
    """Write a text of 4,000 characters once in a dictionary and 900 times in the table, in 50 columns."""
    column = pa.array(["x" * 4_000] * 900)
    parquet(path, pa.table({f"c{n}": column for n in range(50)}))


def _nested_parquet(path: Path) -> None:
    """Write ten rows, each with a list of 300,000 zeros."""
    parquet(path, pa.table({"a": [[0] * 300_000] * 10}))


def _nested_texts_parquet(path: Path) -> None:
    """Write the same within lists and structures."""
    cell = [{"b": "x" * 4_000}] * 10
    parquet(path, pa.table({"a": [cell] * 900}))


def _zeros_parquet(path: Path) -> None:
    """Write zeros that no dictionary holds: what compression alone can do."""
    table = pa.table({f"c{n}": pa.array(np.zeros(900)) for n in range(50)})
    parquet(path, table, use_dictionary=False)


BOMBS: dict[str, tuple[str, Callable[[Path], None], list[str]]] = {
    "rows of a CSV": (".csv", _rows_csv, ["table.rows = '1,001'"]),
    "columns of a CSV": (".csv", _columns_csv, ["table.columns = '100'"]),
    "a cell of a CSV": (".csv", _cell_csv, ["b = 'a text of 6,000 characters'"]),
    "bytes of a CSV": (".csv", _bytes_csv, ["table.file_bytes"]),
    "names of JSON Lines": (".jsonl", _columns_jsonl, ["table.columns"]),
    "nesting of JSON Lines": (".jsonl", _deep_jsonl, ["table.depth = '100,001'"]),
    "rows of a Parquet": (".parquet", _rows_parquet, ["table.rows = '1,000,000'", "table.expansion"]),
    "repeated texts": (".parquet", _repeated_parquet, ["table.decoded_bytes = '11,"]),
    "repeated texts in lists": (".parquet", _nested_texts_parquet, ["table.decoded_bytes"]),
    "nested lists": (".parquet", _nested_parquet, ["table.decoded_bytes", "table.expansion"]),
    "compressed zeros": (".parquet", _zeros_parquet, ["table.expansion"]),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_and_every_limit_that_it_passes_is_named(name: str, tmp_path: Path) -> None:
    suffix, make, says = BOMBS[name]
    path = tmp_path / f"bomb{suffix}"
    make(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError) as caught:
        read_table(path, LIMITS)
    assert all(words in str(caught.value) for words in says), str(caught.value)
    assert "table is refused" in str(caught.value)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100 * 1024


def test_a_hundred_gigabytes_in_some_kilobytes_are_refused_in_a_moment(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    column = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(10**7, dtype="int32")), pa.array(["x" * 100_000])
    )
    parquet(path, pa.table({"a": column}))
    assert path.stat().st_size < 50_000
    started = time.monotonic()
    with pytest.raises(DataError, match=r"table.decoded_bytes = '104,937,600,000'"):
        check_size(path, TableLimits())
    assert time.monotonic() - started < 5


def _zip() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t.csv", "a,b\n" + "0,0\n" * 1_000_000)
    return made.getvalue()


COMPRESSED = {"gzip": gzip.compress(b"a,b\n" + b"0,0\n" * 1_000_000), "zip": _zip()}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("kind", COMPRESSED)
def test_a_compressed_file_is_refused_wherever_it_is_met(kind: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"t{suffix}"
    path.write_bytes(COMPRESSED[kind])
    with pytest.raises(DataError, match="compressed; unpack it first"):
        check_table_file(path)
    with pytest.raises(DataError, match="compressed; unpack it first"):
        read_table(path, LIMITS)


def test_a_glance_refuses_a_file_that_is_too_large_or_too_wide(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    _bytes_csv(path)
    with pytest.raises(DataError, match=r"table\.file_bytes"):
        check_table_file(path, LIMITS)
    _columns_csv(path)
    with pytest.raises(DataError, match=r"table\.columns"):
        check_table_file(path, LIMITS)


BROKEN = [b'a,"b\n1,2\n' + b"x" * 200_000, b"\xff\xfea,b\n", b"a,b\n" + b'"' * 199_999]


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_table_is_the_sender_s_fault(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(DataError):
        read_table(path, TableLimits())


def test_honest_tables_pass(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": range(500), "b": [f"text {n}" for n in range(500)], "c": [None, "x\ny"] * 250})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    for path in tmp_path.iterdir():
        assert len(read_table(path, LIMITS)) == 500


def test_line_breaks_within_quotes_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + ('1,"' + "\n" * 50 + '"\n') * 100)
    assert len(read_table(path, LIMITS)) == 100


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("raise SystemExit('unpickled')",)


def test_a_pickle_in_the_metadata_of_a_parquet_file_is_not_loaded(tmp_path: Path) -> None:
    metadata = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Bomb()),
    }
    field = pa.field("a", pa.int64(), metadata=metadata)
    table = pa.Table.from_arrays([pa.array([1, 2])], schema=pa.schema([field]))
    pq.write_table(table, tmp_path / "t.parquet")
    assert list(read_table(tmp_path / "t.parquet", LIMITS)["a"]) == [1, 2]


def test_a_table_in_the_store_that_is_too_large_is_not_fetched(tmp_path: Path, settings: Settings) -> None:
    small = settings.model_copy(update={"table_max_bytes": 1_000})
    path = tmp_path / "t.csv"
    _rows_csv(path)
    store, described = open_store(small), describe_table(path, strict=False)
    stored = upload_table(path, JobRepository(store, "job-0001"), str(described.input))
    job = JobRequest(
        job_id="job-0001", table=described, config=parse_config({}), seed=1, submitted_at=datetime.now(UTC)
    )
    with pytest.raises(DataError, match=r"table\.file_bytes = 4002"):
        fetch_table(job, stored, tmp_path / "in", store=store, settings=small)
    assert not (tmp_path / "in").exists()


REFUSED_URIS = [
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "s3://shared/../private/t.csv",
    "s3://shared/tables/../../private/t.csv",
    "s3://shared/tables\\..\\private/t.csv",
    "s3://shared/tables-of-others/t.csv",
    "s3://shared@elsewhere/tables/t.csv",
    "s3://SHARED/tables/t.csv",
    "http://169.254.169.254/latest/meta-data/",
    "https://127.0.0.1/t.csv",
    "http://[::1]/t.csv",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "s3://shared/tables/t.csv\0.png",
    "s3://shared/tables//t.csv",
]


@pytest.mark.parametrize("uri", REFUSED_URIS)
def test_a_table_outside_the_operator_s_prefixes_is_refused(uri: str, settings: Settings) -> None:
    allowing = settings.model_copy(update={"allowed_table_uris": ("s3://shared/tables/",)})
    with pytest.raises(ParameterError, match="URI is refused"):
        table_at(uri, allowing)


def test_a_prefix_without_its_slash_is_a_folder_all_the_same(settings: Settings) -> None:
    allowing = settings.model_copy(update={"allowed_table_uris": ("s3://shared/tables",)})
    assert table_at("s3://shared/tables/t.csv", allowing).uri == "s3://shared/tables/t.csv"
    with pytest.raises(ParameterError):
        table_at("s3://shared/tables-of-others/t.csv", allowing)


def test_an_object_that_this_deployment_may_not_read_is_the_submitter_s_to_mend(
    s3_settings: Settings, tmp_path: Path
) -> None:
    uri = "s3://nobodys-bucket/t.csv"
    allowing = s3_settings.model_copy(update={"allowed_table_uris": ("s3://nobodys-bucket/",)})
    table = Table(name="t.csv", uri=uri)
    job = JobRequest(
        job_id="job-0001", table=table, config=parse_config({}), seed=1, submitted_at=datetime.now(UTC)
    )
    with pytest.raises(DataError, match="may not read") as caught:
        fetch_table(job, None, tmp_path / "in", store=open_store(allowing), settings=allowing)
    assert [problem.value for problem in caught.value.problems] == [uri]


@pytest.mark.parametrize(
    ("limit", "behaviour", "says"),
    [
        ({"memory_bytes": 256 * 2**20}, "memory", "too large"),
        ({"cpu_s": 2}, "expression", "more time of its processors"),
        ({"memory_bytes": 2**30}, "abort", "more memory"),
    ],
)
def test_a_process_that_takes_too_much_ends_alone_and_is_not_tried_elsewhere(
    tmp_path: Path, limit: dict[str, int], behaviour: str, says: str
) -> None:
    request = Request(
        job_id="test-0001",
        config=parse_config({}),
        seed=1,
        dataset_name=behaviour,
        policy=ModelPolicy(models_dir=str(tmp_path)),
        **limit,
    )
    (tmp_path / "request.json").write_text(request.model_dump_json())
    with pytest.raises(LimitExceeded, match=says):
        run_child(
            Stage.PREPARE_DATA,
            tmp_path,
            on_event=lambda _: None,
            on_tick=lambda: None,
            limits=Limits(),
            environment=child_environment(),
            module="tests.security.hungry_stages",
        )


def test_reading_a_table_fits_in_a_gigabyte(tmp_path: Path) -> None:
    """An operator can set a limit: arrow and the tokenizer reserve more than they use."""
    (tmp_path / "t.csv").write_text("a,b\n" + "1,x\n" * 100)
    script = (
        "import sys; from pathlib import Path;"
        "from nss_train.process import limit_memory; limit_memory(2**30);"
        "from nss_train.contract import TableLimits; from nss_train.stages import preparation;"
        "print(len(preparation.read_source(Path(sys.argv[1]), TableLimits()).frame))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "t.csv")]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout.strip() == b"100"
