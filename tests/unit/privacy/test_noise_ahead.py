"""Noise that a thread draws ahead is as secret and as normal as any, and is used once."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from randomgen import ChaCha
from scipy import stats

from nss_train.privacy.dpsgd import noise_ahead
from nss_train.privacy.dpsgd.gradients.clipping import ClippedSum, Noise
from nss_train.privacy.dpsgd.noise_ahead import NoiseAhead, drawing_ahead
from nss_train.privacy.dpsgd.randomness import ROUNDS, SecretRandomness

VALUES, FALSE_ALARM = 50_000, 1e-4


class Repeatable(SecretRandomness):
    """Randomness that a test can repeat; it counts the keys."""

    def __init__(self, key: int = 1) -> None:
        self._key = key
        self._generator = np.random.Generator(ChaCha(key=key, rounds=ROUNDS))

    def another(self) -> Repeatable:
        return Repeatable(self._key + 1)


class Broken(Repeatable):
    """Randomness that fails in the thread that draws ahead."""

    def another(self) -> Broken:
        return Broken()

    def fill_gaussian(self, values: npt.NDArray[np.float64]) -> None:  # noqa: ARG002 (its interface)
        raise OSError("no entropy")


def released(ahead: NoiseAhead | None, randomness: SecretRandomness) -> torch.Tensor:
    noise = Noise(deviation=0.7, randomness=randomness, ahead=ahead)
    (found,) = ClippedSum([torch.zeros(VALUES)], clip=1.0).release(noise, batch=4)
    return found


def test_each_step_gets_fresh_noise_of_the_right_size() -> None:
    ahead = NoiseAhead(SecretRandomness(), values=VALUES, pinned=False)
    steps = [released(ahead, SecretRandomness()) for _ in range(3)]
    ahead.close()
    for step in steps:
        assert stats.kstest(step.numpy() * 4 / 0.7, "norm").pvalue > FALSE_ALARM
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert abs(float(torch.corrcoef(torch.stack([steps[one], steps[other]]))[0, 1])) < 6 / VALUES**0.5


def test_its_key_is_its_own_and_no_coin_is_taken_from_the_others() -> None:
    coins = Repeatable()
    ahead = NoiseAhead(coins, values=VALUES, pinned=False)
    first = [coins.heads(1000, 0.3) for _ in range(2) if released(ahead, coins) is not None]
    ahead.close()
    alone = Repeatable()
    assert all(np.array_equal(one, alone.heads(1000, 0.3)) for one in first)


def test_another_source_has_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, urandom = [], os.urandom

    def remembered(size: int) -> bytes:
        keys.append(urandom(size))
        return keys[-1]

    monkeypatch.setattr("nss_train.privacy.dpsgd.randomness.os", SimpleNamespace(urandom=remembered))
    source = SecretRandomness()
    assert not np.array_equal(source.another().gaussian(9), source.gaussian(9))
    assert len(set(keys)) == 2


def test_a_thread_that_fails_fails_the_step() -> None:
    ahead = NoiseAhead(Broken(), values=VALUES, pinned=False)
    with pytest.raises(OSError, match="no entropy"):
        released(ahead, SecretRandomness())
    ahead.close()


def test_it_is_drawn_in_another_thread_that_ends_with_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise_ahead, "WORTH_A_THREAD", 1)
    seen: list[str] = []

    class Watched(SecretRandomness):
        def fill_gaussian(self, values: npt.NDArray[np.float64]) -> None:
            seen.append(threading.current_thread().name)
            super().fill_gaussian(values)

    # A device that is no CPU; nothing is computed on it.
    with drawing_ahead([torch.zeros(9, device="meta")], Watched()) as ahead:
        assert ahead is not None
        assert ahead.take().shape == (9,)
    assert seen
    assert all(name.startswith("noise") for name in seen)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("noise")]


def test_a_small_adapter_and_a_cpu_draw_when_they_need_it() -> None:
    for few in (torch.zeros(9, device="meta"), torch.zeros(2**21)):
        with drawing_ahead([few], SecretRandomness()) as ahead:
            assert ahead is None
