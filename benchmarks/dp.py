"""Private training: the reference's, ours, and ours without privacy: ``python benchmarks/dp.py --help``.

The benchmark times the training alone, in tokens per second, of the units that took part. "Without
privacy" is the same loop over the same kind of draws with the same micro-batches and the same optimizer,
but plain gradients: the difference is what clipping and noise cost. It prints one JSON line per round and
one with the medians.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BATCH = 8
"""Number of units that a step expects, as in NSS's defaults."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--reference", type=Path, help="folder of the reference's scripts")
    parser.add_argument("--python", type=Path, help="Python of the reference's environment")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--batch", type=int, default=BATCH, help="of ours, with and without privacy")
    parser.add_argument("--ours", choices=["private", "plain"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ours:
        print(json.dumps(measure(given)))
        return
    rounds = [one_round(given) for _ in range(given.rounds)]
    summary = {"rounds": len(rounds), "batch": given.batch, "steps": given.steps}
    for name in ("to_reference", "to_plain"):
        found = sorted(one[name] for one in rounds if name in one)
        if found:
            spread = (round(found[0], 2), round(found[-1], 2))
            summary |= {f"{name}_median": round(statistics.median(found), 2), f"{name}_range": spread}
    print(json.dumps(summary), flush=True)


def one_round(given: argparse.Namespace) -> dict[str, float]:
    """Run each of the three once, in a process of its own, and return the ratios of their rates."""
    rates = {name: run_ours(given, name) for name in ("private", "plain")}
    if given.reference is not None:
        rates["reference"] = run_reference(given)
    ratios = {"to_plain": rates["private"] / rates["plain"]}
    if "reference" in rates:
        ratios["to_reference"] = rates["private"] / rates["reference"]
    shown = {f"{name}_tokens_per_s": round(value, 1) for name, value in rates.items()}
    print(json.dumps(shown | {name: round(value, 2) for name, value in ratios.items()}), flush=True)
    return ratios


def run_reference(given: argparse.Namespace) -> float:
    command = [str(given.python), str(given.reference / "bench_train.py"), "--dp"]
    options = ["--data", str(given.table), "--model", str(given.model), "--records", "400"]
    return float(last_line([*command, *options, "--steps", str(given.steps)])["tokens_per_s"])


def run_ours(given: argparse.Namespace, what: str) -> float:
    options = ["--model", str(given.model), "--steps", str(given.steps), "--batch", str(given.batch)]
    return float(
        last_line([sys.executable, __file__, str(given.table), *options, "--ours", what])["tokens_per_s"]
    )


def last_line(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Run one training in this process and return its rate."""
    from nss_train.privacy.dpsgd.gradients.micro_batches import UnitExamples

    taken = [0]
    whole = UnitExamples.micro_batches

    def counted(self: UnitExamples, *args: Any) -> Any:
        for batch in whole(self, *args):
            taken[0] += batch.tokens
            yield batch

    UnitExamples.micro_batches = counted  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as name:
        folder = prepare(given, Path(name))
        private = given.ours == "private"
        seconds = train_privately(folder, given, taken) if private else train_plainly(folder, given)
    return {"tokens": taken[0], "seconds": seconds, "tokens_per_s": taken[0] / seconds}


def prepare(given: argparse.Namespace, root: Path) -> Path:
    """Make the inputs of a train stage and return its folder."""
    from nss_train import stages
    from nss_train.privacy.accounting.plan import PrivacyPlan

    prepared, loaded, folder = (root / name for name in ("prepare", "load", "train"))
    (prepared / "in").mkdir(parents=True)
    (prepared / "out").mkdir()
    shutil.copyfile(given.table, prepared / "in" / "table.csv")
    stages.prepare_data(prepared, request_of(given), report=lambda _event: None)
    file = prepared / "out" / "privacy.json"
    plan = PrivacyPlan.model_validate_json(file.read_text())
    file.write_text(plan.model_copy(update={"steps": given.steps}).model_dump_json())
    for stage in (loaded, folder):
        (stage / "out").mkdir(parents=True)
        shutil.copytree(prepared / "out", stage / "in" / "prepare_data")
    stages.load_model(loaded, request_of(given), report=lambda _event: None)
    (folder / "in" / "model").symlink_to(loaded / "out" / "model")
    return folder


def request_of(given: argparse.Namespace) -> Any:
    from nss_train.config import parse_config
    from nss_train.contract import ModelPolicy, Request

    config = {
        "data": {"holdout": 0, "random_state": 1},
        "training": {
            "pretrained_model": str(given.model),
            "num_input_records_to_sample": 400,
            "batch_size": given.batch,
            "gradient_accumulation_steps": 1,
        },
        "privacy": {"dp_enabled": True},
        "guarantee": {"schema_source": "declared"},
    }
    policy = ModelPolicy(models_dir=str(given.model.parent))
    return Request(job_id="benchmark", table="table.csv", config=parse_config(config), seed=1, policy=policy)


def train_privately(folder: Path, given: argparse.Namespace, taken: list[int]) -> float:
    """Train; return the seconds of the steps alone: the trials before them do not grow with their number."""
    from nss_train.privacy.dpsgd.trainer import OpacusDPTrainer
    from nss_train.training.stage import train

    seconds, steps = [0.0], OpacusDPTrainer.take_steps

    def timed(self: OpacusDPTrainer, *args: Any) -> None:
        taken[0], started = 0, time.monotonic()
        steps(self, *args)
        seconds[0] = time.monotonic() - started

    OpacusDPTrainer.take_steps = timed  # type: ignore[method-assign]
    train(folder, request_of(given), report=lambda _event: None)
    return seconds[0]


def train_plainly(folder: Path, given: argparse.Namespace) -> float:
    import torch
    from datasets import Dataset

    from nss_train.config import load_resolved
    from nss_train.model.adapter import initial_adapter, ready_for_training
    from nss_train.model.loading import FLOAT32, load_base
    from nss_train.privacy.accounting.step_budget import NullRecorder
    from nss_train.privacy.dpsgd.gradients.micro_batches import UnitExamples
    from nss_train.privacy.dpsgd.gradients.passes import row_losses
    from nss_train.privacy.dpsgd.poisson_sampling import PoissonSampler
    from nss_train.privacy.dpsgd.private import Private, shapes_for
    from nss_train.privacy.dpsgd.randomness import SecretRandomness

    config, private = (
        load_resolved(folder),
        Private.read(folder / "in" / "prepare_data", record=NullRecorder()),
    )
    base = load_base(folder / "in" / "model" / "base", FLOAT32, attention="sdpa", trust_remote_code=False)
    base = ready_for_training(base, checkpointing=False)
    model = initial_adapter(base, config.training, seed=request_of(given).seed).train()
    examples = Dataset.from_file(str(folder / "in" / "prepare_data" / "train.arrow"))
    units = UnitExamples(examples, private.unit_of, pad_id=2)
    sampler = PoissonSampler(units=len(units), rate=private.plan.sampling_rate, randomness=SecretRandomness())
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=float(config.training.learning_rate))
    shapes = shapes_for(model, private, config, prompt=units.prompt, halvings=0)
    started = time.monotonic()
    for _ in range(given.steps):
        for batch in units.micro_batches(sampler.draw(), shapes):
            (row_losses(model, batch).sum() / private.plan.batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    return time.monotonic() - started


if __name__ == "__main__":
    main()
