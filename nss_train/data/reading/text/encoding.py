"""The encoding of a text file: declared by the config, by its byte-order mark, or inferred from its bytes."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from charset_normalizer import from_bytes

from nss_train.data.reading.faults import contradicted, undecided, unreadable
from nss_train.errors import DataError, ParameterError, Problem
from nss_train.formats import UTF_16

_FIELD = "reading.encoding"
_CHUNK_BYTES = 2**20
_HEAD_BYTES = 2**16
_SAMPLE_BYTES = 2**16
_WESTERN = "cp1252"
"""Latin-1 with the characters that Windows adds; where both apply, they decode to the same text."""
_WIDE = ("utf-16", "utf-32")
"""Beginnings of the names of encodings that have zero bytes."""
_LINE = b"\n"
_MOST_LINES = 10
"""Most lines that are taken for mistakes in a UTF-8 text; with more, the text is of another encoding."""
_UTF_32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_OF_DOMAINS = ("punycode", "idna")
"""Codecs of domain names, which are no encodings of files and take quadratic time."""
_RUNS = re.compile(rb"[\x80-\xff]{2,}")
_SIDE_BY_SIDE = 0.5
"""Share of non-ASCII letters that are adjacent: few in Western text, nearly all in East Asian text."""
_CODE_PAGES = tuple(f"cp125{number}" for number in range(8))


def find_encoding(path: Path, declared: str | None) -> str:
    """Return the encoding of a text file; raise :class:`DataError` if it is not text or is ambiguous."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    found = "utf-32" if head.startswith(_UTF_32) else "utf-16" if head.startswith(UTF_16) else None
    encoding = found if declared is None else _known(declared)
    if found is None and (encoding is None or not encoding.startswith(_WIDE)):
        _check_zeros(path)
    if encoding is not None:
        return _checked(path, encoding, found)
    if _fault(path, "utf-8") is None:
        return "utf-8"
    _check_lines(path)
    return _guess(path)


def _check_zeros(path: Path) -> None:
    """Raise :class:`DataError` for a zero byte, at which pandas would end the cell."""
    line = 1
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            at = chunk.find(b"\0")
            if at >= 0:
                remedy = (
                    f"binary content, not text (a zero byte in line {line + chunk.count(_LINE, 0, at)});"
                    f" export the table as UTF-8 CSV, or set {_FIELD}: utf-16-le if that is what it is"
                )
                raise unreadable(path.name, remedy)
            line += chunk.count(_LINE)


def _check_lines(path: Path) -> None:
    """Raise :class:`DataError` with the lines that are not UTF-8 if most lines beyond ASCII are."""
    good, wrong = 0, list[Problem]()
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.isascii():
                continue
            try:
                line.decode()
                good += 1
            except UnicodeDecodeError as error:
                shown = line.decode(errors="replace").strip()
                remedy = f"not UTF-8 ({error.reason}), as other lines are; correct the line"
                wrong.append(Problem(field=f"line {number}", value=shown[:80], remedy=remedy))
            if len(wrong) > _MOST_LINES:
                return
    if good > len(wrong):
        raise DataError("The table cannot be read.", wrong)


def _known(name: str) -> str:
    """Return a codec's canonical name; byte-order marks are handled elsewhere."""
    try:
        "".encode(name)  # refuses codecs of bytes, such as hex
        found = codecs.lookup(name).name
    except (LookupError, ValueError):  # ValueError: a name with NUL, or a codec that encodes nothing
        found = None
    if found is None or found in _OF_DOMAINS:
        problem = Problem(field=_FIELD, value=name, remedy="unknown; use utf-8, cp1252, utf-16, …")
        raise ParameterError("The config is not valid.", [problem])
    return "utf-8" if found == "utf-8-sig" else found


def _checked(path: Path, name: str, marked: str | None) -> str:
    if marked is not None and not name.startswith(marked):
        raise contradicted(_FIELD, name, f"the file begins with the byte-order mark of {marked.upper()}")
    fault = _fault(path, name)
    if fault is not None:
        raise contradicted(_FIELD, name, f"the file is not {name.upper()} text ({fault}); correct it")
    return name if marked is None else marked


def _fault(path: Path, encoding: str) -> str | None:
    """Return why the file cannot be decoded, and where; ``None`` if it can."""
    decoder, position = codecs.getincrementaldecoder(encoding)(), 0
    with path.open("rb") as file:
        while True:
            chunk = file.read(_CHUNK_BYTES)
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeError as error:
                return f"{getattr(error, 'reason', error)} near byte {position:,}"
            if not chunk:
                return None
            position += len(chunk)


def _guess(path: Path) -> str:
    """Return Windows' Western code page if every likely Windows code page gives the same letters.

    The likeliest one alone is often wrong: for a Polish table it is the Western one, with other letters.
    """
    sample = _telling(path)
    likely = list(from_bytes(sample, cp_isolation=list(_CODE_PAGES)))
    western = _decoded(sample, _WESTERN)
    if _is_dense(sample):
        likely = list(from_bytes(sample))
    elif likely and all(str(one) == western for one in likely) and _fault(path, _WESTERN) is None:
        return _WESTERN
    names = [one.encoding for one in likely] or [one.encoding for one in from_bytes(sample)][:1]
    shown = " or ".join(dict.fromkeys([*names, _WESTERN]))
    remedy = (
        f"not UTF-8 text; it may be {shown}: convert the file to UTF-8, or name what it is, such as"
        f" `{_FIELD}: {_WESTERN}` (Western Europe)"
    )
    raise undecided(path.name, _FIELD, remedy)


def _is_dense(sample: bytes) -> bool:
    beyond = sum(byte > 0x7F for byte in sample)
    return sum(map(len, _RUNS.findall(sample))) > _SIDE_BY_SIDE * beyond


def _decoded(sample: bytes, encoding: str) -> str | None:
    try:
        return sample.decode(encoding)
    except UnicodeDecodeError:
        return None


def _telling(path: Path) -> bytes:
    """Return the first lines with non-ASCII bytes; the others carry no information."""
    sample = b""
    with path.open("rb") as file:
        while len(sample) < _SAMPLE_BYTES and (line := file.readline(_SAMPLE_BYTES)):
            sample += b"" if line.isascii() else line
    return sample
