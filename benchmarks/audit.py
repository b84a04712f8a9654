"""Benchmark of the audits: ``benchmarks/audit.py steps``, or ``job`` or ``events`` with ``--model FOLDER``.

``steps`` audits the private step and every planted fault; ``job`` audits a whole private training of a
table with canaries, as it is and with its noise off; ``events`` infers from the events of a training in
which steps its longest record was drawn. It prints one JSON line per audit.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from nss_train import stages
from nss_train.config import parse_config
from nss_train.config.sections.guarantee import Clock
from nss_train.contract import ModelPolicy, Request
from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.privacy.audit.faults import FAULTS
from nss_train.privacy.audit.told_steps import Watcher, told
from nss_train.privacy.audit.verdict import RUNS, Verdict, audit
from nss_train.privacy.dpsgd.gradients.clipping import Noise
from nss_train.privacy.dpsgd.poisson_sampling import PoissonSampler


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, dest="command")
    steps = commands.add_parser("steps")
    steps.add_argument("--runs", type=int, default=RUNS, help="of each mechanism")
    job = commands.add_parser("job")
    job.add_argument("--model", type=Path, required=True)
    job.add_argument("--epsilon", type=float, default=8.0)
    job.add_argument("--delta", type=float, default=1e-5)
    job.add_argument("--units", type=int, default=128, help="rows of the table")
    job.add_argument("--batch", type=int, default=16, help="units expected in a step")
    job.add_argument("--passes", type=int, default=20, help="over the table")
    job.add_argument("--canaries", type=int, default=20_000)
    events = commands.add_parser("events")
    events.add_argument("--model", type=Path, required=True)
    events.add_argument("--clock", choices=[clock.value for clock in Clock], default=Clock.COARSE.value)
    events.add_argument("--passes", type=int, default=20, help="over the table")
    given = parser.parse_args()
    if given.command == "steps":
        audit_steps(given.runs)
    elif given.command == "job":
        audit_job(given)
    else:
        audit_events(given)


UNITS, BATCH = 120, 8
LONGEST = 200
"""Maximum number of tokens of a unit: the long record has nearly as many, the others a tenth."""


def audit_events(given: argparse.Namespace) -> None:
    """Train on ordinary records and a long one; infer from what is visible which steps drew the long one."""
    drawn: list[tuple[int, bool]] = []
    honest = PoissonSampler.draw

    def draw(sampler: PoissonSampler) -> Any:
        found = honest(sampler)
        drawn.append((len(found), UNITS in found))
        return found

    PoissonSampler.draw = draw  # type: ignore[method-assign]
    guarantee = {"schema_source": "declared", "clock": given.clock, "max_tokens_per_unit": LONGEST}
    request = make_request(
        argparse.Namespace(
            epsilon=8.0,
            delta=1e-5,
            canaries=0,
            model=given.model,
            batch=BATCH,
            units=UNITS,
            passes=given.passes,
        ),
        **guarantee,
    )
    with tempfile.TemporaryDirectory() as root:
        inputs = prepare(Path(root), request, units=UNITS, extra="a long history " + "12 " * 60 + ",7\n")
        folder = Path(root) / "train"
        (folder / "out").mkdir(parents=True)
        shutil.copytree(inputs, folder / "in", symlinks=True)
        watcher = Watcher(folder=folder)
        started = time.perf_counter()
        stages.train(folder, request.model_copy(update={"charged_steps": 0}), report=watcher.take)
        numbers, has_target = zip(*drawn, strict=True)
        found = asdict(told(watcher, numbers, has_target))
    print(json.dumps({"clock": given.clock, **found, "seconds": round(time.perf_counter() - started, 1)}))


def audit_steps(runs: int) -> None:
    torch.set_num_threads(1)
    for fault, make in {None: None, **FAULTS}.items():
        started = time.perf_counter()
        verdict = audit(runs=runs) if make is None else audit(make, runs=runs)
        print(json.dumps({"fault": fault, **brief(verdict, started)}), flush=True)


def brief(verdict: Verdict, started: float) -> dict[str, Any]:
    found = {"claimed": verdict.epsilon, "delta": verdict.delta, "audited": verdict.epsilon_lower_bound}
    return {name: round(value, 4) for name, value in found.items()} | {
        "confidence": verdict.confidence,
        "flagged_by": list(verdict.flagged_by),
        "holds": verdict.holds,
        "seconds": round(time.perf_counter() - started, 1),
    }


def audit_job(given: argparse.Namespace) -> None:
    request = make_request(given)
    with tempfile.TemporaryDirectory() as root:
        inputs = prepare(Path(root), request, units=given.units)
        plan = PrivacyPlan.model_validate_json((inputs / "prepare_data" / "privacy.json").read_bytes())
        shown = plan.model_dump(include={"units", "batch", "sampling_rate", "steps", "noise_multiplier"})
        honest = Noise.draw
        for noise in (True, False):
            Noise.draw = honest if noise else silent  # type: ignore[method-assign]
            started = time.perf_counter()
            result = train(Path(root) / f"noise-{noise}", inputs, request)
            seconds = round(time.perf_counter() - started, 1)
            print(json.dumps({"noise": noise, **shown, **result, "seconds": seconds}), flush=True)


def silent(_: Noise, total: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(total)


def make_request(given: argparse.Namespace, **guarantee: Any) -> Request:
    config = parse_config(
        {
            "data": {"holdout": 0, "random_state": 1},
            "preflight": {"disabled_checks": ["dataset.size"]},
            "privacy": {"dp_enabled": True, "epsilon": given.epsilon, "delta": given.delta},
            "guarantee": {"schema_source": "declared", "audit_canaries": given.canaries} | guarantee,
            "training": {
                "pretrained_model": str(given.model.resolve()),
                "batch_size": 1,
                "gradient_accumulation_steps": given.batch,
                "num_input_records_to_sample": given.units * given.passes,
                "lora_r": 32,
                "warmup_steps": 0.0,
            },
        }
    )
    policy = ModelPolicy(models_dir=str(given.model.resolve().parent))
    return Request(job_id="benchmark", table="table.csv", config=config, seed=1, policy=policy)


def prepare(root: Path, request: Request, *, units: int, extra: str = "") -> Path:
    """Make the inputs of a train stage and return their folder."""
    data, model, inputs = root / "data", root / "model", root / "inputs"
    for folder in (data / "in", data / "out", model / "in", model / "out", inputs):
        folder.mkdir(parents=True)
    rows = "".join(f"bird {row % 7},{20 + row}\n" for row in range(units))
    (data / "in" / "table.csv").write_text("name,size\n" + rows + extra)
    stages.prepare_data(data, request, report=ignore)
    for folder in (model / "in", inputs):
        (folder / "prepare_data").symlink_to(data / "out")
    stages.load_model(model, request, report=ignore)
    (inputs / "model").symlink_to(model / "out" / "model")
    return inputs


def train(folder: Path, inputs: Path, request: Request) -> dict[str, Any]:
    """Run a private training and return its privacy result."""
    (folder / "out").mkdir(parents=True)
    shutil.copytree(inputs, folder / "in", symlinks=True)
    stages.train(folder, request, report=ignore)
    found: dict[str, Any] = json.loads((folder / "out" / "privacy_result.json").read_text())
    return found


def ignore(_: object) -> None:
    """Ignore the event."""


if __name__ == "__main__":
    main()
