"""The audit of the private step clears the real one, and finds every fault that is planted in it."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.privacy.audit import __main__ as program
from nss_train.privacy.audit.faults import FAULTS
from nss_train.privacy.audit.observations import observe, real
from nss_train.privacy.audit.verdict import ALARM, CHECKS, Verdict, audit, audited_plan
from nss_train.privacy.dpsgd.mechanism import Mechanism

pytestmark = pytest.mark.heavy

FLAGS = {
    "no noise": {"bound", "noise"},
    "half the noise": {"bound", "noise"},
    "noise of every rank": {"noise"},
    "noise from a public seed": {"bound", "noise of runs"},
    "the same noise in every step": {"noise of steps"},
    "the same noise for all values": {"noise of values"},
    "no clip": {"bound", "unit"},
    "clip of rows": {"bound", "unit"},
    "clip of tensors": {"unit"},
    "divided by the drawn size": {"sampling"},
    "shuffled": {"sampling"},
    "batches of fixed size": {"sampling"},
    "draws from a public seed": {"draws of runs"},
    "units drawn twice as often": {"bound", "unit", "sampling"},
    "units copied": {"bound", "unit", "sampling"},
}
"""Evidence that must speak against each fault; more may."""


@pytest.fixture(scope="module")
def verdict() -> Verdict:
    return audit()


def test_the_real_step_keeps_what_it_claims(verdict: Verdict) -> None:
    assert verdict.epsilon == pytest.approx(1.0, abs=0.01)
    assert verdict.holds, verdict.flagged_by


def test_the_audit_proves_most_of_what_is_claimed(verdict: Verdict) -> None:
    assert 0.5 <= verdict.epsilon_lower_bound <= 1.0
    assert verdict.confidence >= 0.95


def test_a_false_alarm_is_rarer_than_one_in_ten_thousand(verdict: Verdict) -> None:
    assert len(verdict.checks) == CHECKS
    assert (CHECKS + 1) * ALARM <= 1e-4
    assert 1 - verdict.confidence <= ALARM * 1.000001


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str) -> None:
    found = audit(FAULTS[fault], runs=80)
    assert not found.holds
    assert set(found.flagged_by) >= FLAGS[fault]


def test_an_attack_on_a_fault_may_prove_much_more_than_is_claimed() -> None:
    for fault in ("no noise", "no clip", "noise from a public seed"):
        assert audit(FAULTS[fault], runs=80).epsilon_lower_bound > 5


def test_noise_of_a_public_seed_is_subtracted_by_a_replay() -> None:
    plan = audited_plan()
    seen = observe(FAULTS["noise from a public seed"], plan, runs=2)
    np.testing.assert_array_equal(seen.outside - seen.replay_outside, 0)
    drawn = np.round(seen.inside - seen.replay_inside, 3)
    assert set(np.unique(drawn)) == {0.0, 1.0}


def test_honest_p_values_are_spread_evenly() -> None:
    found = np.array([[check.p_value for check in audit(runs=4).checks] for _ in range(25)])
    # Of 200 values some 20 are below 0.1; 45 or more, or none, once in 10 million times.
    assert 0 < (found < 0.1).sum() < 45


def test_public_generators_are_left_as_they_were() -> None:
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    observe(FAULTS["noise from a public seed"], audited_plan(), runs=1)
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_the_audit_takes_the_steps_of_the_plan() -> None:
    plan = audited_plan()
    made: list[Mechanism] = []

    def make(asked: PrivacyPlan, parameters: Sequence[torch.Tensor]) -> Mechanism:
        made.append(real(asked, parameters))
        return made[-1]

    seen = observe(make, plan, runs=3)
    # Each run has a replay.
    assert len(made) == 6
    assert seen.inside.shape[:2] == seen.crowd.shape == (3, plan.steps)
    assert all(one.noise.deviation == plan.noise_multiplier * plan.clip for one in made)


@pytest.mark.parametrize(("fault", "code"), [(None, 0), ("half the noise", 1)])
def test_the_program_ends_with_1_when_the_claim_does_not_hold(
    fault: str | None, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make = real if fault is None else FAULTS[fault]
    monkeypatch.setattr(program, "audit", lambda: audit(make, runs=40))
    monkeypatch.setattr("sys.argv", ["audit", "--json"])
    assert program.main() == code
    assert json.loads(capsys.readouterr().out)["holds"] is (fault is None)


def test_the_program_ends_with_1_when_a_fault_is_not_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "audit", lambda: audit(runs=40))
    monkeypatch.setattr(program, "planted", lambda: {"none at all": audit(runs=40)})
    monkeypatch.setattr(program, "replays_of_faults", dict)
    monkeypatch.setattr("sys.argv", ["audit", "--faults"])
    assert program.main() == 1
    assert "none at all" in capsys.readouterr().out
