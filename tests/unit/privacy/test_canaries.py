"""Invented units in a private training, and what an attacker learns of them."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nss_train import stages
from nss_train.errors import ParameterError
from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.privacy.dpsgd import private
from nss_train.privacy.dpsgd.canaries import CONFIDENCE, GUESSES, Canaries
from nss_train.privacy.dpsgd.gradients.clipping import ClippedSum, Noise
from nss_train.privacy.dpsgd.mechanism import Mechanism
from nss_train.privacy.dpsgd.randomness import SecretRandomness
from tests.unit.training import conftest as small
from tests.unit.training.conftest import load, make_request, read, silent

from .plans import plan

PARAMETERS = [torch.zeros(100, 30), torch.zeros(2000)]
CLAIM = plan(units=100, batch=50, sampling_rate=0.5, steps=20, noise_multiplier=2.0, epsilon=8.0, clip=0.3)


def attacked(claim: PrivacyPlan = CLAIM, *, noise: float = 1.0, count: int = 5000, steps: int = 20) -> Any:
    """Return what the audit of a training without any real unit finds."""
    canaries = Canaries(count, plan=claim, parameters=PARAMETERS)
    honest = Mechanism.of(claim, PARAMETERS, units=claim.units, randomness=SecretRandomness())
    changed = Noise(deviation=noise * honest.noise.deviation, randomness=SecretRandomness())
    for _ in range(steps):
        canaries.join(honest.gradients)
        canaries.see(honest.gradients.release(changed, batch=honest.batch))
    return canaries.result()


def test_sparse_units_are_clipped_like_any_other() -> None:
    values, places = torch.tensor([0.1, 5.0, -7.0]), torch.tensor([0, 2999, 3000])
    sums = [ClippedSum(PARAMETERS, clip=0.3) for _ in range(2)]
    sums[0].add_sparse(places, values)
    dense = torch.zeros(3, 5000).scatter_(1, places[:, None], values[:, None])
    sums[1].add([dense[:, :3000].view(3, 100, 30), dense[:, 3000:]], torch.arange(3))
    silence = Noise(deviation=0.0, randomness=SecretRandomness())
    sparse, whole = (one.release(silence, batch=1.0) for one in sums)
    assert all(torch.equal(a, b) for a, b in zip(sparse, whole, strict=True))
    assert sparse[0].flatten()[0] == pytest.approx(0.1, rel=1e-5)
    assert sparse[0].flatten()[2999] == pytest.approx(0.3, rel=1e-5)
    assert sparse[1][0] == pytest.approx(-0.3, rel=1e-5)


def test_sparse_units_of_one_coordinate_add_up() -> None:
    total = ClippedSum(PARAMETERS, clip=1.0)
    total.add_sparse(torch.tensor([7, 7]), torch.tensor([0.25, 0.5]))
    released = total.release(Noise(deviation=0.0, randomness=SecretRandomness()), batch=1.0)
    assert released[0].flatten()[7] == pytest.approx(0.75)


def test_half_of_the_canaries_take_part_each_drawn_by_its_own_coin() -> None:
    canaries, total = Canaries(5000, plan=CLAIM, parameters=PARAMETERS), ClippedSum(PARAMETERS, clip=0.3)
    silence = Noise(deviation=0.0, randomness=SecretRandomness())
    draws = []
    for _ in range(40):
        canaries.join(total)
        released = torch.cat([part.flatten() for part in total.release(silence, batch=1.0)])
        draws.append((released / CLAIM.clip).round(decimals=3).numpy())
    drawn = np.stack(draws)
    assert set(np.unique(drawn)) == {0.0, 1.0}
    taking_part = drawn.any(axis=0)
    tosses = drawn[:, taking_part]
    # A share of n heads has a deviation of 1 / (2 √n); six of them to both sides.
    assert abs(taking_part.mean() - 0.5) < 3 / math.sqrt(taking_part.size)
    assert abs(tosses.mean() - 0.5) < 3 / math.sqrt(tosses.size)


def test_an_honest_training_keeps_its_claim_and_gives_some_of_it_away() -> None:
    found = attacked(noise=1.0)
    assert 1.0 < found.epsilon_lower_bound <= CLAIM.spent(20)
    assert found.steps == 20
    assert found.weak_because is None


def test_a_training_without_noise_gives_away_who_takes_part() -> None:
    found = attacked(noise=0.0)
    assert found.correct == found.guesses == 4750
    assert found.epsilon_lower_bound > 7


def test_nobody_is_guessed_better_than_by_chance_under_heavy_noise() -> None:
    assert attacked(noise=1000.0).epsilon_lower_bound < 0.5


def test_an_audit_of_canaries_that_no_step_draws_says_that_it_is_weak() -> None:
    rare = CLAIM.model_copy(update={"sampling_rate": 0.01})
    assert attacked(rare, steps=10).weak_because == "90% of the canaries that take part are drawn by no step"


def test_an_audit_with_few_canaries_says_that_it_is_weak() -> None:
    assert attacked(count=100).weak_because == "100 canaries are few"


def test_a_training_that_was_over_before_it_was_seen_proves_nothing() -> None:
    found = attacked(steps=0)
    assert found.epsilon_lower_bound < 0.5
    assert found.steps == 0
    assert found.weak_because == "100% of the canaries that take part are drawn by no step"


def test_more_canaries_than_coordinates_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"guarantee.audit_canaries = 5001: the adapter has 5000"):
        Canaries(5001, plan=CLAIM, parameters=PARAMETERS)


def test_the_chance_of_being_wrong_is_shared_among_the_numbers_of_guesses() -> None:
    assert sum(GUESSES.values()) == pytest.approx(1 - CONFIDENCE)


def test_rank_0_alone_has_canaries_and_only_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = torch.nn.Linear(10, 10)
    assert private.canaries_of(model, CLAIM, 0) is None
    assert private.canaries_of(model, CLAIM, 50) is not None
    monkeypatch.setattr(private, "is_first", lambda: False)
    assert private.canaries_of(model, CLAIM, 50) is None


@pytest.fixture(scope="module")
def audited_job(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Callable[[], dict[str, Any]]:
    """Return a function that trains privately on 16 rows at ε = 8 with 20,000 canaries, to its result."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small, "TABLE", "".join(small.TABLE.splitlines(keepends=True)[:17]))
        request = make_request(
            tiny_model,
            sections={
                "privacy": {"dp_enabled": True, "epsilon": 8.0, "delta": 1e-6},
                "guarantee": {"schema_source": "declared", "audit_canaries": 20_000},
            },
            gradient_accumulation_steps=8,
            warmup_steps=0.0,
            lora_r=32,
            num_input_records_to_sample=112,
        )
        root = tmp_path_factory.mktemp("audited")
        prepared = load(root, request)

    def run() -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("train")
        shutil.copytree(prepared / "in", folder / "in", symlinks=True)
        (folder / "out").mkdir()
        stages.train(folder, request, report=silent)
        found: dict[str, Any] = read(folder / "out" / "privacy_result.json")
        return found

    return run


def test_the_audit_of_a_real_job_does_not_refute_its_epsilon(
    audited_job: Callable[[], dict[str, Any]],
) -> None:
    found = audited_job()
    assert found["epsilon_spent"] <= 8
    assert 0 < found["audit"]["epsilon_lower_bound"] <= 8
    assert found["audit"]["canaries"] == 20_000


def test_the_audit_of_a_job_whose_noise_is_off_refutes_its_epsilon(
    audited_job: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Noise, "draw", lambda _, total: torch.zeros_like(total))
    found = audited_job()
    assert found["epsilon_spent"] <= 8
    assert found["audit"]["epsilon_lower_bound"] > 8
    assert found["audit"]["confidence"] == 0.95
