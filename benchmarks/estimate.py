"""Estimates of cost against what trainings then take: ``python benchmarks/estimate.py --models DIR``.

Each job is estimated by the program behind ``nss-train estimate``, without any earlier measurement, and
then trained in a process as a worker starts it. It prints one JSON line per job (``seconds`` and
``memory_bytes`` as estimated and as they were, ratios of the first to the second, the machine's load before
and after) and one with all ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nss_train import stages
from nss_train.config import parse_config
from nss_train.contract import Event, ModelPolicy, Request

TINY, SMALL = "SmolLM2-tiny", "SmolLM2-135M-Instruct"
SHORT = "species,nest,bill\n" + "".join(
    f"{('Adelie', 'Gentoo')[i % 2]},{i % 12},{35 + i / 10}\n" for i in range(300)
)
_WORDS = "the bird that was seen on the island had a long bill and said nothing at all"
_EACH = _WORDS.split()
LONG = "what,note\n" + "".join(
    f"bird {i},{' '.join(_EACH[(i + j) % len(_EACH)] for j in range(60))}\n" for i in range(300)
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A table and a config."""

    name: str
    model: str
    table: str
    training: dict[str, Any]
    private: bool = False

    @property
    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "data": {"holdout": 0} if self.private else {"holdout": 0, "max_sequences_per_example": 1},
            "training": {"pretrained_model": self.model} | self.training,
            "preflight": {"disabled_checks": ["dataset.size"]},
        }
        if self.private:
            found |= {"privacy": {"dp_enabled": True}, "guarantee": {"schema_source": "declared"}}
        return found


JOBS = (
    Job(name="tiny, short", model=TINY, table=SHORT, training={"num_input_records_to_sample": 600}),
    Job(
        name="tiny, long, batches of 4",
        model=TINY,
        table=LONG,
        training={"num_input_records_to_sample": 200, "batch_size": 4, "gradient_accumulation_steps": 2},
    ),
    Job(
        name="tiny, private",
        model=TINY,
        table=SHORT,
        private=True,
        training={"num_input_records_to_sample": 800},
    ),
    Job(
        name="tiny in 4 bits, validated",
        model=TINY,
        table=SHORT,
        training={
            "num_input_records_to_sample": 400,
            "quantize_model": True,
            "quantization_scheme": "bnb-4bit",
            "validation_ratio": 0.1,
        },
    ),
    Job(
        name="135M, short",
        model=SMALL,
        table=SHORT,
        training={"num_input_records_to_sample": 60, "gradient_accumulation_steps": 2},
    ),
    Job(
        name="135M, long",
        model=SMALL,
        table=LONG,
        training={"num_input_records_to_sample": 24, "gradient_accumulation_steps": 2},
    ),
    Job(
        name="135M, private",
        model=SMALL,
        table=SHORT,
        private=True,
        training={"num_input_records_to_sample": 30, "gradient_accumulation_steps": 2},
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, required=True, help="folder with the two base models")
    parser.add_argument("--only", help="jobs whose name begins like this")
    given = parser.parse_args()
    models = given.models.absolute()
    chosen = [job for job in JOBS if job.name.startswith(given.only or "")]
    found = [one(job, models) for job in chosen]
    print(
        json.dumps(
            {
                f"{name}_ratios": sorted(line[f"{name}_ratio"] for line in found)
                for name in ("seconds", "memory")
            }
        )
    )


def one(job: Job, models: Path) -> dict[str, Any]:
    """Estimate a job, train it, and return both costs and their ratios."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        estimated = estimate(job, models, root)
        before = os.getloadavg()[0]
        seconds, memory = train(prepared(job, models, root))
        line = {
            "job": job.name,
            "steps": estimated["steps"],
            "tokens": estimated["tokens"],
            "device": estimated["device"],
            "load": [round(before, 1), round(os.getloadavg()[0], 1)],
            "seconds": [estimated["seconds"], round(seconds, 1)],
            "memory_bytes": [estimated["memory_bytes"], memory],
            "seconds_ratio": round(estimated["seconds"] / seconds, 2),
            "memory_ratio": round(estimated["memory_bytes"] / memory, 2),
        }
    print(json.dumps(line), flush=True)
    return line


def estimate(job: Job, models: Path, root: Path) -> dict[str, Any]:
    (root / "table.csv").write_text(job.table)
    (root / "config.yaml").write_text(yaml.safe_dump(job.config))
    command = [sys.executable, "-m", "nss_train.cost", str(root / "table.csv")]
    options = ["--config", str(root / "config.yaml"), "--models", str(models), "--paces", str(root / "paces")]
    done = subprocess.run([*command, *options, "--json"], check=True, capture_output=True, text=True)
    cost: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])["cost"]
    return cost


def prepared(job: Job, models: Path, root: Path) -> Path:
    """Make the folder of a train stage with its inputs."""
    prepare, load, folder = (root / name for name in ("prepare", "load", "train"))
    for one_ in (prepare, load, folder):
        (one_ / "in").mkdir(parents=True)
        (one_ / "out").mkdir()
    shutil.copyfile(root / "table.csv", prepare / "in" / "table.csv")
    stages.prepare_data(prepare, request(job, models), report=silent)
    for one_ in (load, folder):
        shutil.copytree(prepare / "out", one_ / "in" / "prepare_data")
    stages.load_model(load, request(job, models), report=silent)
    (folder / "in" / "model").symlink_to(load / "out" / "model")
    (folder / "request.json").write_text(request(job, models).model_dump_json())
    return folder


def request(job: Job, models: Path) -> Request:
    policy = ModelPolicy(models_dir=str(models))
    return Request(
        job_id="benchmark-1", table="table.csv", config=parse_config(job.config), seed=1, policy=policy
    )


def silent(event: Event) -> None:
    """Ignore the event."""


def train(folder: Path) -> tuple[float, int]:
    """Run the stage in a process; return its seconds and its peak memory in bytes."""
    reader, writer = os.pipe()
    command = ["-m", "nss_train.child", "train", str(folder), "--events-fd", str(writer)]
    began = time.monotonic()
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command, "--parent", str(os.getpid())],
            pass_fds=[writer],
            stderr=log,
            stdout=log,
        )
        os.close(writer)
        with os.fdopen(reader, "rb") as events:
            events.read()
        _, status, used = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit((folder / "log.txt").read_text()[-2000:])
    return time.monotonic() - began, used.ru_maxrss * 1024


if __name__ == "__main__":
    main()
