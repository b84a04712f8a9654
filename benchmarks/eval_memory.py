"""Peak memory of an evaluation with few and with many batches: ``python benchmarks/eval_memory.py MODEL``."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

FEW, MANY = 10, 200


def main() -> None:
    if len(sys.argv) == 2:
        few, many = (
            int(
                subprocess.run(
                    [sys.executable, __file__, sys.argv[1], str(n)], check=True, capture_output=True
                ).stdout
            )
            for n in (FEW, MANY)
        )
        print(
            json.dumps({f"{FEW}_batches_kb": few, f"{MANY}_batches_kb": many, "ratio": round(many / few, 3)})
        )
    else:
        print(evaluate(Path(sys.argv[1]), int(sys.argv[2])))


def evaluate(model_folder: Path, batches: int) -> int:
    """Return the peak resident memory in kilobytes after an evaluation of this many batches of two."""
    from datasets import Dataset

    from nss_train.config import parse_config
    from nss_train.model.adapter import initial_adapter
    from nss_train.model.loading import FLOAT32, load_base
    from nss_train.training.options import RunOptions
    from nss_train.training.trainer import load_transformers_tokenizer, make_trainer

    config = parse_config({"training": {"learning_rate": 1e-3}})
    base = load_base(model_folder, FLOAT32, attention="sdpa", trust_remote_code=False)
    row = {"input_ids": list(range(512)), "attention_mask": [1] * 512, "labels": list(range(512))}
    examples = Dataset.from_list([row] * (2 * batches))
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(
            initial_adapter(base, config.training, seed=1),
            load_transformers_tokenizer(model_folder),
            config,
            {"train": examples, "validation": examples},
            RunOptions(output=Path(folder), seed=1, checkpointing=False, report=lambda _event: None),
        )
        trainer.evaluate()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
