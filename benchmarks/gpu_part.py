"""One training of benchmarks.gpu, in this process: ``python -m benchmarks.gpu_part WORK RESULT``."""

from __future__ import annotations

import faulthandler
import itertools
import json
import logging
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nss_train.contract import Event, Kernels, ModelPolicy, Request

GIB = 2**30
_CHOICE = re.compile(r"(?P<name>[a-z_0-9]+)=(?P<value>\S+) because ")
_MATRIX = 8192
"""Rows and columns of the product whose rate is taken for the device's limit."""
_PRODUCTS = 20


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a part measures."""

    part: str
    model: str
    table: str
    prepared: str
    """Folder of prepared models, by digest: all parts share them."""
    records: int
    layers: str
    small: bool = False
    """Whether examples and batches are small, as a dry run's are."""
    scheme: str | None = None
    """Scheme by which the base model is quantized."""
    private: bool = False
    batch_size: int = 1
    """Examples of a micro-batch as the config names them; a step has eight of these."""
    watch_s: float | None = None
    """Seconds after which, again and again, it writes where its threads stand; ``None``: never."""
    most_steps: int | None = None
    """Steps of a private training after which it ends; its plan may have hundreds."""

    def request(self) -> Request:
        from nss_train.config import parse_config

        training: dict[str, Any] = {
            "pretrained_model": self.model,
            "num_input_records_to_sample": self.records,
            "attn_implementation": "sdpa",
            "batch_size": self.batch_size,
        }
        if self.scheme:
            training |= {"quantize_model": True, "quantization_scheme": self.scheme}
        data = {"holdout": 0, "random_state": 1} | ({"max_sequences_per_example": 1} if self.small else {})
        config: dict[str, Any] = {"data": data, "training": training}
        if self.private:
            config |= {"privacy": {"dp_enabled": True}}
            config |= {"guarantee": {"schema_source": "raw", "strict": False, "units": "rows"}}
        return Request(
            job_id="benchmark",
            table="table.csv",
            config=parse_config(config),
            seed=7,
            policy=ModelPolicy(models_dir=str(Path(self.model).parent)),
            kernels=Kernels.model_validate({"layers": self.layers}),
            prepared=tuple(folder.name for folder in Path(self.prepared).iterdir()),
        )


class Choices(logging.Handler):
    """What the library says that it chose, the last word on each thing, and why."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.made: dict[str, str] = {}
        self.because: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        found = _CHOICE.match(said)
        if found:
            self.made[found["name"]] = found["value"]
        if " because " in said and said[:600] not in self.because:
            self.because.append(said[:600])


def main() -> None:
    work = Work(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    if work.watch_s is not None:
        stacks = Path(sys.argv[2]).with_suffix(".stacks").open("w", encoding="utf-8")
        faulthandler.dump_traceback_later(work.watch_s, repeat=True, file=stacks)
    choices = Choices()
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("nss_train").setLevel(logging.INFO)
    logging.getLogger("nss_train").addHandler(choices)
    with tempfile.TemporaryDirectory() as root:
        found = measure(work, Path(root))
    found |= {"choices": choices.made, "because": choices.because}
    Path(sys.argv[2]).write_text(json.dumps(found, default=str), encoding="utf-8")


def measure(work: Work, root: Path) -> dict[str, Any]:
    """Run the stages one after the other, as workers do, and measure the training."""
    import torch

    from nss_train import stages

    cuda, limit, request = torch.cuda.is_available(), matrix_flops(), work.request()
    seconds: dict[str, float] = {}
    train = prepared(work, request, root, seconds)
    ends = _private_steps() if work.private else []

    def note(event: Event) -> None:
        if event.action == "train.step" and not work.private:
            ends.append(time.perf_counter())

    if cuda:
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    result = _timed(seconds, "train", lambda: stages.train(train, request, report=note))
    length = statistics.mean(_lengths(train / "in" / "prepare_data" / "train.arrow"))
    # A private step draws its units: as many as it expects are counted.
    tokens = length * request.config.training.effective_batch_size
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "seconds": seconds,
        "tokens_per_example": round(length, 1),
        "tokens_per_step": round(tokens),
        "first_step_s": round(ends[0] - began, 2) if ends else None,
        "losses": _losses(train / "out" / "log_history.json"),
        "figures": result.figures,
        "matrix_limit_tflop_per_s": round(limit / 1e12, 2),
    }
    if work.private:
        found["coupling"] = _coupling(train / "out" / "privacy_result.json")
    found |= _rates(ends, began, tokens, flop_per_token(Path(work.model), length) / limit)
    if cuda:
        found["peak_gib"] = round(torch.cuda.max_memory_allocated() / GIB, 2)
        found["reserved_gib"] = round(torch.cuda.max_memory_reserved() / GIB, 2)
    return found


def prepared(work: Work, request: Request, root: Path, seconds: dict[str, float]) -> Path:
    """Run the stages before the training; return the training's folder."""
    from nss_train import stages

    prepare, load, train = (root / name for name in ("prepare_data", "load_model", "train"))
    for folder in (prepare / "in", prepare / "out"):
        folder.mkdir(parents=True)
    shutil.copyfile(work.table, prepare / "in" / "table.csv")
    _timed(seconds, "prepare_data", lambda: stages.prepare_data(prepare, request, report=_nobody))
    for folder in (load, train):
        (folder / "out").mkdir(parents=True)
        shutil.copytree(prepare / "out", folder / "in" / "prepare_data")
    if work.private and work.most_steps:
        _shorten(train / "in" / "prepare_data" / "privacy.json", work.most_steps)
    loaded = _timed(seconds, "load_model", lambda: stages.load_model(load, request, report=_nobody))
    kept = Path(work.prepared) / loaded.model_digest
    if (load / "out" / "model").exists():
        shutil.move(load / "out" / "model", kept)
    (train / "in" / "model").symlink_to(kept)
    return train


def _rates(ends: list[float], began: float, tokens: float, limit_s_per_token: float) -> dict[str, Any]:
    """Return speeds from the times at which steps ended, the training's beginning with what came before."""
    if len(ends) < 2:
        return {}
    step_s = statistics.median(later - earlier for earlier, later in itertools.pairwise(ends))
    return {
        "steps": len(ends),
        "median_step_s": round(step_s, 4),
        "tokens_per_s_of_the_median_step": round(tokens / step_s, 1),
        "tokens_per_s_with_the_start": round(tokens * len(ends) / (ends[-1] - began), 1),
        "share_of_the_matrix_limit": round(tokens / step_s * limit_s_per_token, 4),
    }


def matrix_flops() -> float:
    """Return the rate of a large product in bfloat16, the operation that a device does fastest, in FLOP/s."""
    import torch

    cuda = torch.cuda.is_available()
    size, kind = (_MATRIX, torch.bfloat16) if cuda else (512, torch.float32)
    one, other = (torch.randn(size, size, device="cuda" if cuda else "cpu", dtype=kind) for _ in range(2))
    wait: Callable[[], None] = torch.cuda.synchronize if cuda else lambda: None
    for _ in range(3):
        one @ other
    wait()
    began = time.perf_counter()
    for _ in range(_PRODUCTS):
        one @ other
    wait()
    seconds = time.perf_counter() - began
    del one, other
    if cuda:
        torch.cuda.empty_cache()
    return float(_PRODUCTS * 2 * size**3 / seconds)


def flop_per_token(model: Path, tokens: float) -> float:
    """Return what forward and backward need for a token of an example with so many tokens.

    Weights are frozen, so their products are done twice, forward and for the activations' gradients: four
    FLOP per parameter. Causal attention looks at half of the tokens on average: forward 2 x 2 x width x
    tokens / 2 FLOP per layer, and backward twice that.
    """
    from nss_train.model.loading import load_skeleton

    skeleton = load_skeleton(model, attention="sdpa", trust_remote_code=False)
    parameters = sum(weight.numel() for weight in skeleton.parameters())
    config = skeleton.config
    return float(4 * parameters + 6 * config.num_hidden_layers * config.hidden_size * tokens)


def _timed(seconds: dict[str, float], name: str, stage: Callable[[], Any]) -> Any:
    began = time.perf_counter()
    try:
        return stage()
    finally:
        seconds[name] = round(time.perf_counter() - began, 2)


def _shorten(file: Path, most: int) -> None:
    from nss_train.privacy.accounting.plan import PrivacyPlan

    plan = PrivacyPlan.model_validate_json(file.read_bytes())
    file.write_text(plan.model_copy(update={"steps": min(plan.steps, most)}).model_dump_json())


def _private_steps() -> list[float]:
    """Return a list that receives the time of each private step: its events are rare by design."""
    from nss_train.privacy.dpsgd.trainer import OpacusDPTrainer

    ends: list[float] = []
    whole = OpacusDPTrainer._after_step  # noqa: SLF001 (events do not tell)

    def after(self: OpacusDPTrainer, *given: Any) -> None:
        ends.append(time.perf_counter())
        whole(self, *given)

    OpacusDPTrainer._after_step = after  # type: ignore[method-assign]  # noqa: SLF001
    return ends


def _lengths(file: Path) -> list[int]:
    from datasets import Dataset

    from nss_train.training.steps.micro_batches import lengths_of

    return [int(length) for length in lengths_of(Dataset.from_file(str(file)))]


def _coupling(file: Path) -> dict[str, Any]:
    """Return what the differential check of the model found, as shares of the clipping norm."""
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return {"slack": result["slack"], "found": result["coupling"]}


def _losses(history: Path) -> list[float]:
    """Return the first and the last loss."""
    losses = [entry["loss"] for entry in json.loads(history.read_text()) if "loss" in entry]
    return [round(losses[0], 4), round(losses[-1], 4)] if losses else []


def _nobody(event: Event) -> None:
    """Ignore the event."""


def written(work: Work, file: Path) -> Path:
    """Write what to measure for the process that does it."""
    file.write_text(json.dumps(asdict(work)), encoding="utf-8")
    return file


if __name__ == "__main__":
    main()
