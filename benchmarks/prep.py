"""Data preparation, ours and the reference's in turn: ``python benchmarks/prep.py --help``.

Both are timed from a table in memory, with the config resolved once and the tokenizer loaded, to the
written examples. It prints one JSON line per pair and one with the medians.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SEED = 1234


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", help="a CSV file, or worst:ROWS for a table of distinct values")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--reference", type=Path, help="folder of the reference's scripts")
    parser.add_argument("--python", type=Path, help="Python of the reference's environment")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=1, help="rows are repeated this often")
    parser.add_argument("--before", type=Path, help="another checkout, measured in turn with this one")
    parser.add_argument("--values", action="store_true", help="time the comparison of cells, too")
    parser.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ours:
        print(json.dumps(measure(Path(given.table), given.model)))
        return
    with tempfile.TemporaryDirectory() as folder:
        table = make_table(given.table, Path(folder), given.repeat)
        if given.values:
            for _ in range(given.pairs):
                print(json.dumps(share_of_comparison(table, given.model)), flush=True)
            return
        if given.before is not None:
            compare_checkouts(table, given)
            return
        if given.reference is None:
            for _ in range(given.pairs):
                print(json.dumps(run_ours(table, given.model)), flush=True)
            return
        compare(table, given, Path(folder))


def compare(table: Path, given: argparse.Namespace, folder: Path) -> None:
    """Run the two in turn, then compare every example's digest once."""
    ratios = []
    for _ in range(given.pairs):
        script = [str(given.python), str(given.reference / "bench_prep.py")]
        theirs = last_line([*script, "--data", str(table), "--model", str(given.model)])
        ours = run_ours(table, given.model)
        ratios.append(theirs["seconds"] / ours["seconds"])
        pair = {"ours_s": ours["seconds"], "theirs_s": theirs["seconds"], "ratio": round(ratios[-1], 1)}
        print(
            json.dumps(pair | {"ours_peak_mb": ours["peak_rss_mb"], "theirs_peak_mb": theirs["peak_rss_mb"]})
        )
    summary = {
        "table": given.table,
        "rows": ours["rows"],
        "median_ratio": round(statistics.median(ratios), 1),
    }
    summary |= {"stage_wall_s": stage_wall_s(table, given.model), "records_per_s": ours["records_per_s"]}
    print(json.dumps(summary | {"examples_equal": examples_equal(table, given, folder)}), flush=True)


def compare_checkouts(table: Path, given: argparse.Namespace) -> None:
    """Alternate between another checkout and this one."""
    ratios = []
    for _ in range(given.pairs):
        before = run_ours(table, given.model, checkout=given.before)
        now = run_ours(table, given.model)
        ratios.append(now["seconds"] / before["seconds"])
        pair = {"before_s": before["seconds"], "now_s": now["seconds"], "ratio": round(ratios[-1], 2)}
        print(json.dumps(pair), flush=True)
    print(json.dumps({"table": given.table, "median_ratio": round(statistics.median(ratios), 2)}))


def share_of_comparison(table: Path, model: Path) -> dict[str, float]:
    """Prepare a file in this process; return how long that took, and its comparison of cells alone."""
    from nss_train.config import parse_config
    from nss_train.data import source
    from nss_train.stages.preparation import prepare

    spent, check = [0.0], source.check_changes

    def timed(*arguments: Any) -> Any:
        started = time.perf_counter()
        try:
            return check(*arguments)
        finally:
            spent[0] += time.perf_counter() - started

    config = parse_config({"reading": {"types": "nss"}, "training": {"pretrained_model": str(model)}})
    source.check_changes = timed
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        prepare(table, config, model=model, seed=SEED).train.write(Path(folder) / "train.arrow")
    seconds = time.perf_counter() - started
    source.check_changes = check
    share = spent[0] / (seconds - spent[0])
    return {"prepare_s": round(seconds, 3), "comparison_s": round(spent[0], 3), "share": round(share, 3)}


def examples_equal(table: Path, given: argparse.Namespace, folder: Path) -> bool:
    config = folder / "config.yaml"
    rows = len(pd.read_csv(table))
    config.write_text(f"data: {{random_state: 1}}\ntraining: {{num_input_records_to_sample: {rows}}}\n")
    options = ["--model", str(given.model), "--config", str(config), "--seed", str(SEED), "--out"]
    dump = [str(given.python), str(given.reference / "dump_examples.py"), "--data", str(table)]
    subprocess.run([*dump, *options, str(folder / "theirs.json.gz")], check=True, capture_output=True)
    show = [sys.executable, "-m", "nss_train.data", str(table)]
    subprocess.run([*show, *options, str(folder / "ours.json.gz")], check=True, capture_output=True)
    read = (json.loads(gzip.decompress((folder / f"{n}.json.gz").read_bytes())) for n in ("theirs", "ours"))
    theirs, ours = (document["train"]["all"] for document in read)
    return bool(theirs == ours)


def make_table(wanted: str, folder: Path, repeat: int) -> Path:
    """Write the named table, or one whose values are all distinct: prose, and numbers of fifteen digits."""
    if wanted.startswith("worst:"):
        rng = np.random.default_rng(SEED)
        rows = int(wanted.partition(":")[2])
        letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
        words = ["".join(rng.choice(letters, rng.integers(2, 11))) for _ in range(20_000)]
        frame = pd.DataFrame(
            {f"text_{i}": [" ".join(rng.choice(words, 40)) for _ in range(rows)] for i in range(2)}
        )
        for i in range(6):
            frame[f"number_{i}"] = rng.integers(10**14, 10**15, rows) / 10.0 ** rng.integers(5, 10, rows)
    else:
        frame = pd.read_csv(wanted)
    frame = pd.concat([frame] * repeat, ignore_index=True)
    table = folder / f"{Path(wanted.replace(':', '_')).stem}.csv"
    frame.to_csv(table, index=False)
    return table


def run_ours(table: Path, model: Path, *, checkout: Path | None = None) -> dict[str, Any]:
    """Prepare in a process of its own, with the code of a checkout; this one's by default."""
    root = (checkout or Path(__file__).parents[1]).resolve()
    script = root / "benchmarks" / "prep.py"
    return last_line([sys.executable, str(script), str(table), "--model", str(model), "--ours"], code=root)


def last_line(command: list[str], *, code: Path | None = None) -> dict[str, Any]:
    environment = os.environ | ({} if code is None else {"PYTHONPATH": str(code)})
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measure(table: Path, model: Path) -> dict[str, Any]:
    """Run one preparation in this process and measure it."""
    from nss_train.config import parse_config
    from nss_train.data.assembly.holdout import Split
    from nss_train.data.auto_values import resolve
    from nss_train.data.source import read_table
    from nss_train.model.metadata import read_metadata
    from nss_train.model.tokenizer import load_tokenizer
    from nss_train.stages.preparation import assemble

    frame = read_table(table)
    training = {"pretrained_model": str(model), "num_input_records_to_sample": len(frame)}
    config = resolve(parse_config({"data": {"random_state": 1}, "training": training}), frame).config
    tokenizer = load_tokenizer(model)
    metadata = read_metadata(config, model=model, tokenizer=tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        resolved = resolve(config, frame)
        split = Split(train=frame, test=None)
        prepared = assemble(split, resolved, metadata, tokenizer, seed=SEED)
        prepared.train.write(Path(folder) / "train.arrow")
        seconds = time.perf_counter() - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "rows": len(frame),
        "examples": len(prepared.train),
        "seconds": round(seconds, 4),
        "records_per_s": round(len(frame) / seconds),
        "peak_rss_mb": round(peak_mb),
    }


def stage_wall_s(table: Path, model: Path) -> float:
    """Return the seconds from process start to the end of the stage, as a command-line user sees them."""
    code = """
import sys, tempfile, shutil
from pathlib import Path
from nss_train import stages
from nss_train.config import parse_config
from nss_train.contract import ModelPolicy, Request
table, model = Path(sys.argv[1]), Path(sys.argv[2])
with tempfile.TemporaryDirectory() as root:
    folder = Path(root)
    (folder / "in").mkdir(); (folder / "out").mkdir()
    shutil.copyfile(table, folder / "in" / "table.csv")
    config = parse_config({"training": {"pretrained_model": str(model)}})
    policy = ModelPolicy(models_dir=str(model.parent))
    request = Request(job_id="benchmark", table="table.csv", config=config, seed=1, policy=policy)
    stages.prepare_data(folder, request, report=lambda event: None)
"""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, str(table), str(model)], check=True, capture_output=True)
    return round(time.perf_counter() - started, 2)


if __name__ == "__main__":
    main()
