"""Checks of Prometheus' configuration and of the dashboard's queries."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from tool import DEPLOY, CheckFailed, call

RULES = DEPLOY / "prometheus" / "rules.yaml"
TESTS = DEPLOY / "prometheus" / "rules.test.yaml"
DASHBOARD = DEPLOY / "grafana" / "dashboard.json"

_METRIC = re.compile(r"nss_train_\w+")


def check_configuration(folder: Path) -> None:
    for name in ("prometheus.yaml", "rules.yaml"):
        shutil.copy(DEPLOY / "prometheus" / name, folder)
    call("promtool", "check", "config", folder / "prometheus.yaml")


def check_dashboard(folder: Path) -> None:
    """Check the dashboard's queries as rules with promtool; Grafana fills in the interval."""
    queries = [
        target["expr"].replace("$__rate_interval", "1m")
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel["targets"]
    ]
    if not all(_METRIC.search(query) for query in queries):
        raise CheckFailed("a query asks for no metric of nss-train")
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    (folder / "queries.json").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    call("promtool", "check", "rules", folder / "queries.json")
