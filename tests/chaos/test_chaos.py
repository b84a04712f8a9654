"""A short round of everything at once; ``make chaos`` plays the long ones."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.cluster import Cluster
from tests.chaos.round import RECOVERY_LIMIT_S, Round


def test_nothing_is_lost_or_left_or_changed_by_faults(tmp_path: Path, tiny_model: Path, long: bool) -> None:
    faults, jobs = (10, 3) if long else (5, 2)
    with Cluster(tmp_path, workers=2) as cluster:
        verdict = Round(cluster, seed=7, faults=faults, jobs=jobs, model=tiny_model).run()
    assert verdict["violations"] == []
    assert verdict["faults"] == faults
    assert verdict["slowest_recovery_s"] <= RECOVERY_LIMIT_S, verdict["by_fault"]
