"""The chart as Kubernetes would see it: rendered, and checked against schemas and checkov's rules."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from tool import DEPLOY, CheckFailed, call

CHART = DEPLOY / "helm" / "nss-train"
VALUES = tuple(sorted((CHART / "ci").glob("*.yaml")))
OLDEST_KUBERNETES = "1.27"
RELEASE, NAMESPACE = "release", "nss-train"

Manifest = dict[str, Any]


def lint() -> None:
    for values in VALUES:
        call("helm", "lint", CHART, "--strict", "--quiet", "--values", values)


def checker(values: Path) -> Callable[[Path], None]:
    """Return the check of the chart with these values."""

    def check(folder: Path) -> None:
        text = call("helm", "template", RELEASE, CHART, "--namespace", NAMESPACE, "--values", values)
        manifests = [one for one in yaml.safe_load_all(text) if one]
        validate(manifests, folder)
        check_queries(manifests, folder)

    return check


def check_jobset(folder: Path) -> None:
    validate([yaml.safe_load((DEPLOY / "examples" / "jobset.yaml").read_text())], folder)


def validate(manifests: list[Manifest], folder: Path) -> None:
    """Validate custom resources by their own schemas, and the jobs that they make like everything else."""
    custom = [one for one in manifests if _schema(one["kind"]).is_file()]
    for one in custom:
        _hold_against(_schema(one["kind"]), one)
    plain = [one for one in manifests if one not in custom] + [job for one in custom for job in jobs_of(one)]
    path = folder / "manifests.yaml"
    path.write_text(yaml.safe_dump_all(plain))
    for version in ([], ["--kubernetes-version", OLDEST_KUBERNETES]):
        call("kubernetes-validate", "--strict", "--quiet", *version, path)
    checkov("kubernetes", path)


def jobs_of(custom: Manifest) -> list[Manifest]:
    """Return the jobs that KEDA or the JobSet's controller would make."""
    match custom["kind"]:
        case "ScaledJob":
            specs = [custom["spec"]["jobTargetRef"]]
        case "JobSet":
            specs = [job["template"]["spec"] for job in custom["spec"]["replicatedJobs"]]
        case _:
            specs = []
    # Both controllers make them in the namespace of their resource.
    metadata = {"namespace": NAMESPACE} | custom["metadata"]
    return [{"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec} for spec in specs]


def check_queries(manifests: list[Manifest], folder: Path) -> None:
    """Check that scaler and alerts query only the series of this release, in valid PromQL."""
    asking = [one for one in manifests if one["kind"] in {"ScaledJob", "PrometheusRule"}]
    own = f'{{namespace="{NAMESPACE}",service="{RELEASE}-nss-train-metrics",'
    strange = re.findall(rf"nss_train_\w+(?!\w|{re.escape(own)})", str(asking))
    if strange:
        raise CheckFailed(f"of any release: {', '.join(strange)}")
    for rules in (one["spec"] for one in asking if one["kind"] == "PrometheusRule"):
        (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
        call("promtool", "check", "rules", folder / "rules.yaml")


def checkov(framework: str, path: Path) -> None:
    """Run checkov without its guidelines, which come from a service."""
    call("checkov", "--framework", framework, "--file", path, "--compact", "--quiet", "--skip-download")


def check_schema(name: str, path: Path) -> None:
    _hold_against(_schema(name), yaml.safe_load(path.read_text()))


def _schema(name: str) -> Path:
    return DEPLOY / "checks" / "schemas" / f"{name}.json"


def _hold_against(schema: Path, document: Any) -> None:
    validator = jsonschema.Draft7Validator(json.loads(schema.read_text()))
    errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]
    if errors:
        raise CheckFailed("\n".join(errors))
