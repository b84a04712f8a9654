"""Training, ours and the reference's in turn: ``python -m benchmarks.train TABLE --model DIR --python PY``.

Each side trains on the same table and config in a process of its own, as it does usually, from the table to
the last step; the steps alone are timed. It prints one JSON line per pair and one with the medians. Ratios
are those of tokens per second, ours to theirs, and of tokens per second of processor time, which other
programs of the machine change less; tokens are those of the examples, without padding. ``PY`` is the Python
of the reference's environment.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SEED = 7
RATIOS = {"ratio": "tokens_per_s", "cpu_ratio": "tokens_per_cpu_s"}
REPOSITORY = Path(__file__).parents[1]
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "NSS_TELEMETRY_ENABLED": "false",
    "PYTHONHASHSEED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "WANDB_MODE": "disabled",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path, help="a CSV file")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--python", type=Path, help="Python of the reference's environment")
    parser.add_argument("--private", action="store_true")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--records", type=int, default=400, help="as training.num_input_records_to_sample")
    parser.add_argument("--batch", type=int, default=8, help="examples of a step")
    parser.add_argument("--rows", type=int, default=1, help="as training.batch_size")
    parser.add_argument("--per-example", type=int, help="most records of an example (default: the config's)")
    given = parser.parse_args()
    sides = {"ours": [sys.executable, "-m", "benchmarks.train_part"]}
    if given.python is not None:
        sides["theirs"] = [str(given.python), "-m", "benchmarks.train_reference"]
    pairs = []
    for _ in range(given.pairs):
        pair = {side: measured(command, work_of(given)) for side, command in sides.items()}
        if given.python is not None:
            pairs.append({name: pair["ours"][rate] / pair["theirs"][rate] for name, rate in RATIOS.items()})
            pair |= {name: round(value, 2) for name, value in pairs[-1].items()}
        print(json.dumps(pair | {"load": round(os.getloadavg()[0], 1)}), flush=True)
    if pairs:
        print(json.dumps({"pairs": len(pairs)} | {name: summary(pairs, name) for name in RATIOS}))


def summary(pairs: list[dict[str, float]], name: str) -> dict[str, float]:
    found = [pair[name] for pair in pairs]
    figures = {"median": statistics.median(found), "least": min(found), "most": max(found)}
    return {figure: round(value, 2) for figure, value in figures.items()}


def work_of(given: argparse.Namespace) -> dict[str, Any]:
    """Return what both sides do: NSS's own fields alone."""
    config: dict[str, Any] = {
        "data": {"holdout": 0, "random_state": 1},
        "training": {
            "pretrained_model": str(given.model.resolve()),
            "num_input_records_to_sample": given.records,
            "batch_size": given.rows,
            "gradient_accumulation_steps": given.batch // given.rows,
            "attn_implementation": "sdpa",
        },
    }
    if given.per_example is not None:
        config["data"] |= {"max_sequences_per_example": given.per_example}
    if given.private:
        config |= {"privacy": {"dp_enabled": True}}
    return {"table": str(given.table.resolve()), "config": config, "seed": SEED, "steps": given.steps}


def measured(command: list[str], work: dict[str, Any]) -> dict[str, Any]:
    """Run one side; return its figures."""
    with tempfile.TemporaryDirectory() as name:
        wanted, result = Path(name) / "work.json", Path(name) / "result.json"
        wanted.write_text(json.dumps(work), encoding="utf-8")
        done = subprocess.run(
            [*command, str(wanted), str(result)],
            cwd=REPOSITORY,
            env=os.environ | OFFLINE | {"PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{command[-1]} failed:\n{done.stderr[-4000:]}")
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    main()
