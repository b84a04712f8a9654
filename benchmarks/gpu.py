"""Trainings on a CUDA device, through the stages: ``python -m benchmarks.gpu [PART...]``.

The parts are plain, warm (plain again, with the kernels that it compiled), quantized (4 bits), eight (8 bits)
and private; without any, all of them. Each runs in a process of its own with a time limit, and has a line of
JSON; one that fails is a line too, with the last that it printed, and the exit code is 1. All lines and the
device are in the file of ``--out``, from the first part on. Nothing is downloaded: model and table are made
here, unless they are given. Without a device the exit code is 2.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.gpu_inputs import make_table
from benchmarks.gpu_part import Work, written
from tests.device import Held, held, held_in_the_end

PARTS = ("plain", "warm", "quantized", "eight", "private")
SCHEMES = {"quantized": "bnb-4bit", "eight": "bnb-8bit"}
ROWS = 1_000
RECORDS = {False: 1_600, True: 40}
"""Records of a training, and those of a dry run."""
TOKENIZER = Path(".nss-train/models/SmolLM2-135M-Instruct")
LAST_LINES = 12


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=" | ".join(PARTS))
    parser.add_argument("--model", type=Path, help="folder of a base model (default: a random one of 3.08 G)")
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER, help="folder whose tokenizer it gets")
    parser.add_argument("--table", type=Path, help="a CSV file (default: made-up flights)")
    parser.add_argument("--records", type=int, help=f"records to sample (default {RECORDS[False]:,})")
    parser.add_argument("--batch-size", type=int, help="an eighth of a step's examples (1; 8 if private)")
    parser.add_argument("--private-steps", type=int, default=12, help="steps of the private training")
    parser.add_argument("--layers", choices=["auto", "compiled", "eager"], help="default: compiled")
    parser.add_argument("--limit-s", type=float, default=240.0, help="time limit of a part")
    parser.add_argument("--watch-s", type=float, help="write where a part stands every so many seconds")
    parser.add_argument("--scratch", type=Path, help="folder that keeps kernels, prepared models and logs")
    parser.add_argument("--out", type=Path, help="file that receives all results as one JSON document")
    parser.add_argument("--dry-run", action="store_true", help="a tiny model on the CPU")
    parser.add_argument("--look", action="store_true", help="only tell whether there is a device")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if not given.dry_run and not _has_device():
        print("there is no CUDA device that torch can use; --dry-run tries the parts on the CPU")
        return 2
    return 0 if given.look else _run(given)


def _has_device() -> bool:
    import torch

    return torch.cuda.is_available()


def _run(given: argparse.Namespace) -> int:
    results: list[dict[str, Any]] = []
    with _scratch(given.scratch) as scratch:
        for result in _results(given, scratch):
            results.append(result)
            print(json.dumps(result), flush=True)
            if given.out is not None:
                _save(given.out, results)
    return 1 if any("failed" in result for result in results) else 0


@contextmanager
def _scratch(kept: Path | None) -> Iterator[Path]:
    if kept is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    else:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()


def _save(file: Path, results: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    document = {"written": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()), "results": results}
    file.write_text(json.dumps(document, indent=1), encoding="utf-8")


def _results(given: argparse.Namespace, scratch: Path) -> Iterator[dict[str, Any]]:
    """Make what is not given, and yield the result of each part."""
    bench = Bench(given, scratch)
    if given.table is None:
        make_table(bench.table, ROWS)
    if given.model is None:
        shape = ["--small"] if given.dry_run else []
        tokenizer = str(given.tokenizer.resolve())
        made = bench.process("model", ["benchmarks.gpu_inputs", str(bench.model), tokenizer, *shape])
        yield made
        if "failed" in made:
            return
    chosen = set(given.parts or PARTS)
    for part in PARTS:
        # The second training is warm because of the first.
        if part in chosen or (part == "plain" and "warm" in chosen):
            yield bench.measured(part)


class Bench:
    """The processes of the parts, what they share, and what they leave on the device."""

    def __init__(self, given: argparse.Namespace, scratch: Path) -> None:
        self._given, self._scratch = given, scratch
        self.model = (given.model or scratch / "SmolLM2-random").resolve()
        self.table = (given.table or scratch / "flights.csv").resolve()
        self._prepared = scratch / "prepared"
        self._prepared.mkdir(exist_ok=True)

    def measured(self, part: str) -> dict[str, Any]:
        """Run one part."""
        dry = self._given.dry_run
        work = Work(
            part=part,
            model=str(self.model),
            table=str(self.table),
            prepared=str(self._prepared),
            records=self._given.records or RECORDS[dry],
            layers=self._given.layers or ("auto" if dry else "compiled"),
            small=dry,
            scheme=SCHEMES.get(part),
            private=part == "private",
            batch_size=self._given.batch_size or (8 if part == "private" and not dry else 1),
            most_steps=self._given.private_steps,
            watch_s=self._given.watch_s,
        )
        wanted, found = written(work, self._scratch / f"{part}.work.json"), self._scratch / f"{part}.json"
        before = _held()
        ended = self.process(part, ["benchmarks.gpu_part", str(wanted), str(found)])
        measured = json.loads(found.read_text(encoding="utf-8")) if found.exists() else {}
        return measured | ended | {"left_on_the_device": _left(before)}

    def process(self, part: str, command: list[str]) -> dict[str, Any]:
        """Run a module in a session of its own; return how it ended."""
        log, began = self._scratch / f"{part}.log", time.monotonic()
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=self._environment(),
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            failed = self._failure(process)
        ended: dict[str, Any] = {"part": part, "process_s": round(time.monotonic() - began, 2)}
        if failed:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            ended |= {"failed": failed, "last_lines": [line[:400] for line in lines[-LAST_LINES:]]}
        return ended

    def _failure(self, process: subprocess.Popen[bytes]) -> str | None:
        """Wait for a process; return what went wrong with it."""
        try:
            code = process.wait(timeout=self._given.limit_s)
        except subprocess.TimeoutExpired:
            return f"it had not ended after {self._given.limit_s:g} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with the compiler's processes
            process.wait()
        return f"exit code {code}" if code else None

    def _environment(self) -> dict[str, str]:
        kernels = self._scratch / "kernels"
        caches = {
            "TORCHINDUCTOR_CACHE_DIR": str(kernels / "inductor"),
            "TRITON_CACHE_DIR": str(kernels / "triton"),
        }
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if self._given.dry_run else {}
        return os.environ | caches | hidden | {"TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}


def _held() -> Held | None:
    """Return what is held of the devices; ``None`` where the driver's program is not there to be asked."""
    return held() if shutil.which("nvidia-smi") else None


def _left(before: Held | None) -> dict[str, Any] | str:
    """Return what is held that was not held before, once the driver had time to take it back."""
    if before is None:
        return "not measured: there is no nvidia-smi"
    after = held_in_the_end(before)
    return {
        "mib_before": before.used_mib,
        "mib_after": after.used_mib,
        "processes": sorted(after.processes - before.processes),
    }


if __name__ == "__main__":
    sys.exit(main())
