"""The steps of a private gradient: clip each unit, add, noise once, divide by a constant."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nss_train.privacy.dpsgd.gradients.clipping import GRID, STEPS_PER_CLIP, ClippedSum, Noise
from nss_train.privacy.dpsgd.randomness import SecretRandomness

SILENT = Noise(deviation=0.0, randomness=SecretRandomness())
FALSE_ALARM = 1e-4


def rows(*shapes: tuple[int, ...], scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [scale * torch.randn(*shape, generator=generator) for shape in shapes]


def norms(gradients: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([one.flatten(1) for one in gradients], 1).norm(dim=1)


def test_each_unit_is_clipped_over_all_of_its_parameters() -> None:
    found = rows((5, 3, 2), (5, 4), scale=3.0)
    total = ClippedSum([torch.zeros(3, 2), torch.zeros(4)], clip=1.5)
    total.add([one.clone() for one in found], torch.arange(5))
    scale = 1.5 / norms(found)
    assert (scale < 1).all()
    expected = [torch.einsum("n,n...->...", scale, one) / 4 for one in found]
    for released, wanted in zip(total.release(SILENT, batch=4), expected, strict=True):
        assert torch.allclose(released, wanted, rtol=1e-5, atol=1e-6)


def test_a_small_gradient_is_left_as_it_is() -> None:
    (found,) = rows((2, 3), scale=0.01)
    total = ClippedSum([torch.zeros(3)], clip=1.0)
    total.add([found.clone()], torch.arange(2))
    (released,) = total.release(SILENT, batch=1)
    assert torch.allclose(released, found.sum(0), atol=1e-7)


def test_no_unit_weighs_more_than_the_clip_whatever_it_holds() -> None:
    for scale in (1e-3, 1.0, 1e3, 1e10):
        total = ClippedSum([torch.zeros(50)], clip=2.0)
        total.add(rows((1, 50), scale=scale), torch.arange(1))
        assert total.steps().double().norm() <= STEPS_PER_CLIP
        (released,) = total.release(SILENT, batch=1)
        assert released.norm() <= 2.0


def test_the_rows_of_a_unit_are_clipped_together() -> None:
    (found,) = rows((4, 6), scale=5.0)
    places = torch.tensor([0, 1, 1, 1])
    total = ClippedSum([torch.zeros(6)], clip=1.0)
    total.add([found.clone()], places)
    (released,) = total.release(SILENT, batch=1)
    units = torch.stack([found[0], found[1:].sum(0)])
    assert torch.allclose(released, (units / units.norm(dim=1, keepdim=True)).sum(0), atol=1e-5)


def test_a_unit_in_parts_is_clipped_as_a_whole() -> None:
    found = rows((6, 3, 2), (6, 5), scale=3.0)
    places = torch.tensor([0, 0, 0, 0, 1, 1])
    sums = [ClippedSum([torch.zeros(3, 2), torch.zeros(5)], clip=1.5) for _ in range(2)]
    sums[0].add([one.clone() for one in found], places)
    for part in (slice(0, 2), slice(2, 3)):
        sums[1].hold([one[part].clone() for one in found])
    sums[1].add([one[3:4].clone() for one in found], torch.tensor([0]))
    sums[1].add([one[4:].clone() for one in found], torch.tensor([0, 0]))
    for whole, parts in zip(*(total.release(SILENT, batch=1) for total in sums), strict=True):
        assert torch.allclose(whole, parts, atol=1e-6)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf"), 1e25])
def test_a_unit_whose_gradient_is_no_number_changes_nothing(wrong: float) -> None:
    found = rows((4, 3, 2), (4, 5), scale=3.0)
    # The third unit, of two rows; 1e25 is a number, but its norm is none in float32.
    places = torch.tensor([0, 1, 2, 2])
    found[0][2, 1, 1] = wrong
    sums = [ClippedSum([torch.zeros(3, 2), torch.zeros(5)], clip=1.5) for _ in range(2)]
    sums[0].add([one.clone() for one in found], places)
    sums[1].add([one[:2].clone() for one in found], places[:2])
    for with_it, without in zip(*(total.release(SILENT, batch=1) for total in sums), strict=True):
        assert torch.equal(with_it, without)
        assert float(without.abs().max()) > 0


def test_the_divisor_does_not_depend_on_what_was_drawn() -> None:
    released = []
    for drawn in (1, 10):
        total = ClippedSum([torch.zeros(1)], clip=1.0)
        total.add([torch.ones(drawn, 1)], torch.arange(drawn))
        released.append(float(total.release(SILENT, batch=8)[0]))
    assert released == pytest.approx([1 / 8, 10 / 8], rel=1e-5)


def test_a_step_begins_at_zero() -> None:
    total = ClippedSum([torch.zeros(3)], clip=1.0)
    total.add(rows((2, 3)), torch.arange(2))
    total.release(SILENT, batch=1)
    assert float(total.release(SILENT, batch=1)[0].abs().max()) == 0


def test_a_step_of_nobody_is_noise_of_the_right_size() -> None:
    count, deviation, batch = 50_000, 0.7, 4
    noise = Noise(deviation=deviation, randomness=SecretRandomness())
    (released,) = ClippedSum([torch.zeros(count)], clip=1.0).release(noise, batch=batch)
    spread = float((released.double() ** 2).sum()) * batch**2 / deviation**2
    assert FALSE_ALARM < stats.chi2(count).sf(spread) < 1 - FALSE_ALARM
    assert stats.kstest(released.numpy() * batch / deviation, "norm").pvalue > FALSE_ALARM


def test_noisy_sums_lie_on_a_grid_whatever_was_summed() -> None:
    noise = Noise(deviation=0.9, randomness=SecretRandomness())
    sums = torch.tensor([0.0, 1e-9, 0.123456789, -3.3, 1e3], dtype=torch.float64).repeat(100)
    steps = noise.on_grid(sums + noise.draw(sums)) / (0.9 * GRID)
    assert torch.allclose(steps, steps.round(), atol=1e-6, rtol=0)


@given(
    scales=st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=12),
    seed=st.integers(0, 1000),
    cut=st.integers(1, 11),
)
def test_the_sum_has_the_same_bits_in_any_order_and_in_any_parts(
    scales: list[float], seed: int, cut: int
) -> None:
    units = len(scales)
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(units, 9, generator=generator) * torch.tensor(scales)[:, None]
    order = torch.randperm(units, generator=generator)
    sums = [ClippedSum([torch.zeros(9)], clip=0.7) for _ in range(2)]
    sums[0].add([found.clone()], torch.arange(units))
    for part in order.split(cut):
        sums[1].add([found[part].clone()], torch.arange(len(part)))
    assert torch.equal(sums[0].steps(), sums[1].steps())


@given(scale=st.floats(1e-3, 1e12), values=st.sampled_from([1, 7, 1000, 50_000]), seed=st.integers(0, 99))
def test_rounding_leaves_a_unit_within_the_clip(scale: float, values: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    total = ClippedSum([torch.zeros(values)], clip=0.3)
    total.add([scale * torch.randn(1, values, generator=generator)], torch.arange(1))
    assert float(total.steps().double().norm()) <= STEPS_PER_CLIP


def test_one_unit_more_moves_the_sum_by_its_own_gradient_and_by_nothing_else() -> None:
    others, joining = rows((5, 40), scale=1e4)[0], rows((1, 40), scale=1e-3)[0]
    without, with_it, alone = (ClippedSum([torch.zeros(40)], clip=1.0) for _ in range(3))
    without.add([others.clone()], torch.arange(5))
    with_it.add([torch.cat([joining, others])], torch.arange(6))
    alone.add([joining.clone()], torch.arange(1))
    assert torch.equal(with_it.steps() - without.steps(), alone.steps())


def test_rows_of_a_unit_are_added_whatever_else_is_in_the_call() -> None:
    (found,) = rows((3, 8), scale=5.0)
    (more,) = rows((4, 8), scale=2.0)
    sums = [ClippedSum([torch.zeros(8)], clip=1.0) for _ in range(3)]
    sums[0].add([found.clone()], torch.zeros(3, dtype=torch.int64))
    sums[1].add([torch.cat([found, more])], torch.tensor([0, 0, 0, 1, 1, 2, 3]))
    sums[2].add([more.clone()], torch.tensor([0, 0, 1, 2]))
    assert torch.equal(sums[1].steps(), sums[0].steps() + sums[2].steps())
