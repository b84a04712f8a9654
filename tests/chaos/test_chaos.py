"""A short round of everything at once; ``make chaos`` plays the long ones."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.cluster import Cluster
from tests.chaos.round import RECOVERY_LIMIT_S, Round


def test_nothing_is_lost_or_left_or_changed_by_ten_faults(tmp_path: Path, tiny_model: Path) -> None:
    with Cluster(tmp_path, workers=2) as cluster:
        verdict = Round(cluster, seed=7, faults=10, jobs=3, model=tiny_model).run()
    assert verdict["violations"] == []
    assert verdict["faults"] == 10
    assert verdict["slowest_recovery_s"] <= RECOVERY_LIMIT_S, verdict["by_fault"]
