"""Our side of benchmarks.train, in a process of its own: ``python -m benchmarks.train_part WORK RESULT``."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from benchmarks.gpu_part import Work, prepared
from benchmarks.train_steps import Steps, digest
from nss_train import stages
from nss_train.config import parse_config
from nss_train.contract import ModelPolicy, Request
from nss_train.privacy.dpsgd.gradients.micro_batches import MicroBatch, UnitExamples
from nss_train.training import stage
from nss_train.training.fitted import Fitted
from nss_train.training.hugging_face import AdapterTrainer
from nss_train.training.options import RunOptions
from nss_train.training.steps.passes import Passes


def main() -> None:
    work = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as root:
        found = measure(work, Path(root))
    Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")


def measure(work: dict[str, Any], root: Path) -> dict[str, Any]:
    """Run the stages as workers do; time the steps of the training."""
    steps, kept = Steps(most=work["steps"]), root / "prepared"
    kept.mkdir()
    model = work["config"]["training"]["pretrained_model"]
    shared = Work(part="ours", model=model, table=work["table"], prepared=str(kept), records=0, layers="auto")
    request = request_of(work)
    folder = prepared(shared, request, root, {})
    count_tokens(steps)
    stages.train(folder, request, report=lambda _event: None)
    history = json.loads((folder / "out" / "log_history.json").read_text(encoding="utf-8"))
    examples = Dataset.from_file(str(folder / "in" / "prepare_data" / "train.arrow"))
    return steps.figures(history) | {"examples": digest(examples["input_ids"])}


def request_of(work: dict[str, Any]) -> Request:
    config = dict(work["config"])
    if config.get("privacy", {}).get("dp_enabled"):
        # As the reference: types are taken from the table, and losses are told.
        config["guarantee"] = {"schema_source": "raw", "strict": False, "units": "rows"}
    model = Path(config["training"]["pretrained_model"])
    return Request(
        job_id="benchmark",
        table="table.csv",
        config=parse_config(config),
        seed=work["seed"],
        policy=ModelPolicy(models_dir=str(model.parent)),
    )


def count_tokens(steps: Steps) -> None:
    """Time the steps of the next training, and count the tokens of their examples."""
    fit, step, micro_batches = stage.fit, Passes.step, UnitExamples.micro_batches

    def timed(trainer: AdapterTrainer, run: RunOptions) -> Fitted:
        trainer.add_callback(steps)
        return fit(trainer, run)

    def plain(self: Passes, trainer: Any, model: Any, examples: Any, **named: Any) -> Any:
        steps.take(sum(len(example.input_ids) for example in examples))
        return step(self, trainer, model, examples, **named)

    def private(self: UnitExamples, *given: Any, **named: Any) -> Iterator[MicroBatch]:
        for batch in micro_batches(self, *given, **named):
            steps.take(batch.tokens)
            yield batch

    stage.fit = timed
    Passes.step = plain  # type: ignore[method-assign]
    UnitExamples.micro_batches = private  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
