"""The room on a device whose memory grows with the tokens of a pass; the device is invented."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nss_train.errors import OutOfMemory
from nss_train.training.steps.calibration import MOST_TOKENS, USED, WIDTH_MULTIPLE, find_room
from nss_train.training.steps.micro_batches import Example, Room

ANY = torch.device("cuda:0")
WEIGHTS = 5_000


@dataclass
class Device:
    """A device with ``total`` bytes, on which a pass takes ``base`` bytes and ``each`` for a token."""

    total: int
    base: int
    each: int
    peak: int = 0

    def run(self, examples: list[Example], room: Room) -> None:
        needed = self.base + self.each * len(examples) * room.width(len(examples[0].input_ids))
        if WEIGHTS + needed > self.total:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.peak = max(self.peak, WEIGHTS + needed)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(torch.cuda, "mem_get_info", lambda _device: (self.total - WEIGHTS, self.total))
        patch.setattr(torch.cuda, "memory_reserved", lambda _device: WEIGHTS)
        patch.setattr(torch.cuda, "memory_allocated", lambda _device: WEIGHTS)
        patch.setattr(torch.cuda, "max_memory_allocated", lambda _device: self.peak)
        patch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _device: setattr(self, "peak", 0))
        patch.setattr(torch.cuda, "empty_cache", lambda: None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(10_000, 10_000_000),
    st.integers(0, 20_000),
    st.integers(1, 100),
    st.integers(1, 3_000),
    st.integers(1, 64),
)
def test_the_room_fits_and_is_no_smaller_than_it_must_be(
    total: int, base: int, each: int, longest: int, rows: int
) -> None:
    device = Device(total=total, base=base, each=each)
    width = -(-longest // WIDTH_MULTIPLE) * WIDTH_MULTIPLE
    free = total - WEIGHTS
    with pytest.MonkeyPatch.context() as patch:
        device.install(patch)
        if base + each * width > free:
            with pytest.raises(OutOfMemory):
                find_room(device.run, longest=longest, rows=rows, device=ANY)
            return
        room = find_room(device.run, longest=longest, rows=rows, device=ANY)
    count = max(1, min(room.rows, room.tokens // width))
    assert base + each * count * width <= free
    possible = min(rows, MOST_TOKENS // width, int((USED * free - base) / each) // width)
    # With room for two rows only, what a pass takes without any tokens is not known.
    assert count >= min(possible, 2)
    if min(rows, int((free - base) / each) // width) >= 4:
        assert count >= max(1, possible)


def test_a_trial_of_the_room_that_fails_halves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(total=10**6, base=0, each=10)
    device.install(monkeypatch)
    fits = 900 * WIDTH_MULTIPLE // 64

    def run(examples: list[Example], room: Room) -> None:
        device.run(examples, room)
        if len(examples) * len(examples[0].input_ids) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")

    room = find_room(run, longest=128, rows=16, device=ANY)
    assert room.tokens <= 1024
    assert room.rows == 4
