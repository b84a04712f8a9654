"""The time at which each step begins, and what it reveals of the units drawn."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import rankdata

from nss_train import stages
from nss_train.contract import Event
from nss_train.privacy.dpsgd.poisson_sampling import Indices, PoissonSampler
from tests.unit.training import conftest as small
from tests.unit.training.conftest import load, make_request

UNITS = 200
LONG = "a long history " * 60
TABLE = "name,size\n" + "".join(f"bird {i % 7},{20 + i}\n" for i in range(UNITS)) + f"{LONG},9\n"
Floats = npt.NDArray[np.float64]


def area(scores: Floats, positive: npt.NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve: the chance that a positive has the higher score."""
    hits, misses = int(positive.sum()), int((~positive).sum())
    ranks = float(rankdata(scores)[positive].sum())
    return (ranks - hits * (hits + 1) / 2) / (hits * misses)


class Watched:
    """A training with the observed beginning of each step and the units drawn in it."""

    def __init__(self, root: Path, model: Path, clock: str, patch: pytest.MonkeyPatch) -> None:
        self.begun: list[float] = []
        self.drawn: list[Indices] = []
        self.events: list[Event] = []
        honest = PoissonSampler.draw

        def draw(sampler: PoissonSampler) -> Indices:
            self.begun.append(time.monotonic())
            self.drawn.append(honest(sampler))
            return self.drawn[-1]

        patch.setattr(small, "TABLE", TABLE)
        request = make_request(
            model,
            sections={
                "privacy": {"dp_enabled": True, "epsilon": 8.0, "delta": 1e-5},
                "guarantee": {
                    "schema_source": "declared",
                    "clock": clock,
                    "max_tokens_per_unit": 256,
                },
            },
            gradient_accumulation_steps=8,
            num_input_records_to_sample=10 * UNITS,
        )
        folder = load(root, request)
        patch.setattr(PoissonSampler, "draw", draw)
        stages.train(folder, request, report=self.events.append)

    def told_apart(self) -> tuple[float, float]:
        """Return areas by duration: for the steps of the long unit, and for those that drew many units."""
        seconds = np.diff(self.begun)
        # A slot is what a watch is certain of; what is below is the machine's own restlessness.
        slots = np.round(seconds / float(np.median(seconds)), 1)
        target = np.asarray([UNITS in one for one in self.drawn[:-1]])
        many = np.asarray([len(one) for one in self.drawn[:-1]])
        return area(slots, target), area(slots, many > np.median(many))


@pytest.mark.long
def test_steps_that_are_paced_say_nothing_and_others_do(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for clock in ("coarse", "paced"):
        with monkeypatch.context() as patch:
            watched = Watched(tmp_path / clock, tiny_model, clock, patch)
        found[clock] = watched.told_apart()
        told = [event.fields for event in watched.events if event.action == "train.step"]
        assert all(set(one) == {"step", "total_steps", "epsilon", "learning_rate", "eta_s"} for one in told)
    assert max(found["coarse"]) > 0.8, found
    assert max(found["paced"]) <= 0.55, found
