"""The file formats of tables, recognised by file name. Imports no pandas, which clients lack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePath


class Format(StrEnum):
    """The format of a table's file."""

    CSV = "CSV"
    JSON = "JSON"
    """JSON Lines, or one array of objects."""
    PARQUET = "Parquet"
    ARROW = "Arrow"
    XLSX = "XLSX"


class Compression(StrEnum):
    """How a file is compressed; the value is the suffix."""

    GZIP = ".gz"
    ZSTD = ".zst"
    ZIP = ".zip"


FORMATS: Mapping[str, Format] = {
    ".csv": Format.CSV,
    ".tsv": Format.CSV,
    ".txt": Format.CSV,
    ".jsonl": Format.JSON,
    ".json": Format.JSON,
    ".parquet": Format.PARQUET,
    ".arrow": Format.ARROW,
    ".feather": Format.ARROW,
    ".xlsx": Format.XLSX,
}
PRIVATE = (".csv", ".parquet", ".jsonl", ".json")
"""Suffixes of the formats that are read one record at a time, as privacy needs it."""
MAGIC: Mapping[Compression, bytes] = {
    Compression.GZIP: b"\x1f\x8b",
    Compression.ZSTD: b"\x28\xb5\x2f\xfd",
    Compression.ZIP: b"PK\x03\x04",
}
_BZIP2 = [b"BZh%d%b" % (level, block) for level in range(1, 10) for block in (b"1AY&SY", b"\x17rE8P\x90")]
"""First bytes of bzip2 files: BZh alone may be the beginning of a column's name."""
PACKED = (*MAGIC.values(), *_BZIP2, b"\xfd7zXZ\0")
"""First bytes of gzip, zstd, zip, bzip2 and xz files."""
PACKED_BYTES = max(map(len, PACKED))
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""Byte-order marks of UTF-16 texts, which contain zero bytes."""
MARKERS = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"}
    | {"N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)
"""Texts that pandas reads as missing in a CSV file. Other formats have a null of their own."""
UNKNOWN = (
    f"unknown format; the name must end in one of {', '.join(FORMATS)},"
    f" also packed as {', '.join(Compression)} (one file)"
)
PRIVATE_ONLY = (
    f"a private job reads {', '.join(PRIVATE)} only, unpacked, a record at a time; convert the table to one"
    " of these (CSV: commas, UTF-8)"
)


def missing(path: Path) -> str:
    """Return what is wrong with a path that is not a file."""
    if path.is_dir():
        return "a folder; give one file, and write the parts of a table into one"
    if path.exists():
        return "no regular file; write the table into one"
    return "no such file"


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """Format and compression of a file, by its name."""

    format: Format | None
    """``None``: given by the name of the one file in the archive."""
    suffix: str
    """The format's own suffix; empty where the format is unknown."""
    compression: Compression | None = None


def kind_of(name: str) -> Kind | None:
    """Return what a file name says; ``None`` for one that no table can have."""
    suffixes = [suffix.lower() for suffix in PurePath(name).suffixes]
    packed = Compression(suffixes.pop()) if suffixes and suffixes[-1] in set(Compression) else None
    if suffixes and suffixes[-1] in FORMATS:
        return Kind(format=FORMATS[suffixes[-1]], suffix=suffixes[-1], compression=packed)
    return Kind(format=None, suffix="", compression=packed) if packed is Compression.ZIP else None


def suffix_of(name: str) -> str:
    """Return the whole suffix that gives format and compression, such as ``.csv.gz``."""
    kind = kind_of(name)
    return PurePath(name).suffix.lower() if kind is None else kind.suffix + (kind.compression or "")
