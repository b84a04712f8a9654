"""load_model of a new, an added and a prepared base model: ``python -m benchmarks.load_model --help``.

A model of random bytes with another model's tokenizer is made, in shards as on the hub, and stays in the page
cache. Each way is timed within this process, which has imported everything: as in a worker whose stages are
forked. It prints one JSON object: seconds, seconds of CPU time, and rates in 1e9 bytes per second.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig

from nss_train import stages
from nss_train.config import parse_config
from nss_train.contract import Event, ModelPolicy, Request, StageResult
from nss_train.model.local.copying import copy_files
from nss_train.model.local.hashing import hash_files
from nss_train.model.local.known import Memory
from nss_train.model.local.source import find_model
from nss_train.model.local.verifying import get_to_know

GB = 1e9
LAYER, VOCABULARY, HIDDEN = 44_000_000, 49_152, 2_048
"""Parameters of a layer, about, and the sizes of SmolLM2's vocabulary and of the hidden state."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of a model with SmolLM2's")
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the model and its copies go; a temporary folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        print(json.dumps(measure(Path(name), given)))


def measure(root: Path, given: argparse.Namespace) -> dict[str, Any]:
    model = root / "models" / "random"
    size = make_model(model, given.tokenizer, given.gigabytes, given.shards)
    data = prepare_data(root / "prepare", model)
    load_model(root / "warm", data, given.tokenizer, known=root / "known")
    time.sleep(2)  # until the model is old enough to be known
    os.sync()

    def load(name: str, *prepared: str) -> tuple[StageResult, dict[str, float]]:
        return timed(lambda: load_model(root / name, data, model, known=root / "known", prepared=prepared))

    found: dict[str, Any] = {"gigabytes": round(size / GB, 2), "cores": os.cpu_count()}
    found["parts"] = parts(root, model, size)
    new, found["new"] = load("new")
    _, found["added"] = load("added")
    for kind in ("new", "added"):
        found[kind]["gb_per_s"] = round(size / GB / found[kind]["seconds"], 2)
        shutil.rmtree(root / kind)
    cached = [load(f"cached{n}", str(new.model_digest))[1] for n in range(given.rounds)]
    found["cached"] = {key: statistics.median(one[key] for one in cached) for key in cached[0]}
    return found | {"load": round(os.getloadavg()[0], 1)}


def parts(root: Path, model: Path, size: int) -> dict[str, float]:
    """Return the rates of hashing and copying alone, and of a copy until it is on the disk."""
    source = find_model(str(model), ModelPolicy(models_dir=str(model.parent)))
    copy = root / "copy"
    copy.mkdir()
    rates = {
        "hash_gb_per_s": timed(lambda: hash_files(source.files, source.seen))[1],
        "copy_gb_per_s": timed(lambda: copy_files(source.files, copy, seen=source.seen))[1],
        "sync_gb_per_s": timed(os.sync)[1],
        "add_gb_per_s": timed(lambda: get_to_know(model, Memory(root / "known-too")))[1],
    }
    shutil.rmtree(copy)
    return {name: round(size / GB / one["seconds"], 2) for name, one in rates.items()}


T = TypeVar("T")


def timed(action: Callable[[], T]) -> tuple[T, dict[str, float]]:
    began, cpu = time.monotonic(), time.process_time()
    made = action()
    seconds, cpu_s = time.monotonic() - began, time.process_time() - cpu
    return made, {"seconds": round(seconds, 3), "cpu_s": round(cpu_s, 3)}


def make_model(folder: Path, tokenizer: Path, gigabytes: float, shards: int) -> int:
    """Make a Llama of random bfloat16 bytes, and return the bytes of its weights."""
    folder.mkdir(parents=True)
    layers = max(1, round((gigabytes * GB / 2 - 2 * VOCABULARY * HIDDEN) / LAYER))
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=5_632,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=4,
        max_position_embeddings=8192,
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer / name, folder / name)
    with torch.device("meta"):
        shapes = {
            name: one.shape for name, one in AutoModelForCausalLM.from_config(config).state_dict().items()
        }
    names, index = list(shapes), {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        held = names[shard::shards]
        save_file({name: _random(shapes[name]) for name in held}, folder / file, {"format": "pt"})
        index |= dict.fromkeys(held, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _random(shape: torch.Size) -> torch.Tensor:
    return torch.randint(0, 2**15, shape, dtype=torch.int16).view(torch.bfloat16)


def prepare_data(folder: Path, model: Path) -> Path:
    """Run prepare_data on a small table, and return its output."""
    (folder / "in").mkdir(parents=True)
    (folder / "out").mkdir()
    (folder / "in" / "table.csv").write_text("a,b\n" + "".join(f"{n},{n * n}\n" for n in range(300)))
    stages.prepare_data(folder, request_of(model), report=_nobody)
    return folder / "out"


def load_model(
    folder: Path, data: Path, model: Path, *, known: Path, prepared: tuple[str, ...] = ()
) -> StageResult:
    (folder / "out").mkdir(parents=True)
    shutil.copytree(data, folder / "in" / "prepare_data")
    stored = folder / "in" / "prepare_data" / "config.json"
    config = json.loads(stored.read_text())
    config["training"]["pretrained_model"] = str(model)
    stored.write_text(json.dumps(config))
    request = request_of(model).model_copy(update={"known": str(known), "prepared": prepared})
    return stages.load_model(folder, request, report=_nobody)


def request_of(model: Path) -> Request:
    training = {"pretrained_model": str(model), "num_input_records_to_sample": 200}
    config = parse_config({"data": {"holdout": 0, "random_state": 1}, "training": training})
    policy = ModelPolicy(models_dir=str(model.parent))
    return Request(job_id="job-0000001", table="table.csv", config=config, seed=1, policy=policy)


def _nobody(_event: Event) -> None: ...


if __name__ == "__main__":
    main()
