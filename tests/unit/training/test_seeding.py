"""Public luck is the same for the same seed, and leaves the generators as they were."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from nss_train.training.seeding import public_luck


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))


def fail_with_luck(seed: int) -> None:
    with public_luck(seed):
        draw()
        raise ValueError("inside")


def test_the_same_seed_draws_the_same_in_every_generator() -> None:
    with public_luck(5):
        first = draw()
    with public_luck(5):
        again = draw()
    with public_luck(6):
        other = draw()
    assert first == again
    assert all(one != two for one, two in zip(first, other, strict=True))


def test_what_is_drawn_afterwards_is_what_would_have_been_drawn_also_after_an_error() -> None:
    with public_luck(1):
        expected = draw()
    with public_luck(1):
        with pytest.raises(ValueError, match="inside"):
            fail_with_luck(9)
        assert draw() == expected
