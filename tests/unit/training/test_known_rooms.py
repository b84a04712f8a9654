"""What a trial found on a machine spares the next training of the same kind its own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel

from nss_train.model.adapter import initial_adapter
from nss_train.model.loading import FLOAT32, load_base
from nss_train.training.steps.known_rooms import KnownRooms, room_key
from nss_train.training.steps.micro_batches import Room
from nss_train.training.steps.passes import Passes

from .conftest import make_request

CUDA = torch.device("cuda:0")
TRAINER: Any = SimpleNamespace(
    args=SimpleNamespace(per_device_train_batch_size=8, device=CUDA, world_size=1, process_index=0)
)
FOUND = Room(rows=8, tokens=4096, multiple=64)


@pytest.fixture
def model(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> PeftModel:
    card = SimpleNamespace(name="card", total_memory=80)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    return adapted(tiny_model)


def adapted(tiny_model: Path, **training: Any) -> PeftModel:
    base = load_base(tiny_model, FLOAT32, attention="sdpa", trust_remote_code=False)
    return initial_adapter(base, make_request(tiny_model, **training).config.training, seed=1)


def passes(model: PeftModel, folder: Path, *, longest: int = 40) -> Passes:
    known = KnownRooms(folder=folder)
    return Passes(model=model, room=None, longest=longest, head=None, known=known)


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the trials, each of which finds the same room."""
    made: list[int] = []

    def find(_run: object, *, longest: int, rows: int, device: torch.device) -> Room:
        assert (rows, device) == (8, CUDA)
        made.append(longest)
        return FOUND

    monkeypatch.setattr("nss_train.training.steps.passes.find_room", find)
    return made


def test_the_second_training_of_a_kind_makes_no_trial(
    model: PeftModel, trials: list[int], tmp_path: Path
) -> None:
    folder = tmp_path / "rooms"
    for _ in range(2):
        assert passes(model, folder)._tried_room(TRAINER, model) == FOUND
    assert trials == [40]
    passes(model, folder, longest=80)._tried_room(TRAINER, model)
    assert trials == [40, 80]


def test_a_room_that_was_too_large_is_remembered_halved(
    model: PeftModel, trials: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(_self: Passes, _trainer: Any, _model: Any, _examples: Any, room: Room, **_: Any) -> torch.Tensor:
        if room.rows > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.zeros(())

    monkeypatch.setattr(Passes, "_add", add)
    passes(model, tmp_path).step(TRAINER, model, [], learned=1)
    assert passes(model, tmp_path)._tried_room(TRAINER, model) == FOUND.halved()
    assert trials == [40]


def test_whatever_takes_memory_is_part_of_the_key(model: PeftModel, tiny_model: Path) -> None:
    def key(of: PeftModel = model, **changed: Any) -> str:
        given: dict[str, Any] = {"longest": 40, "rows": 8, "kernels": "chunked, eager", "device": CUDA}
        return room_key(of, **given | changed)

    usual = key()
    assert key(adapted(tiny_model)) == usual
    larger = adapted(tiny_model, lora_r=64)
    recomputed = adapted(tiny_model)
    recomputed.get_base_model().gradient_checkpointing_enable()
    others = [
        key(longest=41),
        key(rows=4),
        key(kernels="model, eager"),
        key(device=torch.device("cpu")),
        key(larger),
        key(recomputed),
        key(adapted(tiny_model).to(torch.bfloat16)),
    ]
    assert len({usual, *others}) == 1 + len(others)
