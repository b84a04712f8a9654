"""The files of deploy/ agree with the code, and with each other."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import SecretStr

from tasks.settings import Settings
from tasks.telemetry.counters import Action
from tests.deploy.conftest import DEPLOY

CHART = DEPLOY / "helm" / "nss-train"
METRICS = {
    "nss_train_stages",
    "nss_train_jobs_open",
    "nss_train_jobs_held",
    "nss_train_worker_up",
    "nss_train_store_up",
    "nss_train_broker_up",
    "nss_train_gpu_memory_bytes",
    "nss_train_events_total",
    "nss_train_jobs_total",
    "nss_train_steps_total",
    "nss_train_tokens_total",
    "nss_train_stage_seconds_bucket",
    "nss_train_stage_seconds_count",
    "nss_train_queue_wait_seconds_bucket",
    "nss_train_training_loss",
}
ACTIONS = {action.value for action in Action}


def load(path: str) -> Any:
    return yaml.safe_load((DEPLOY / path).read_text())


COMPOSE = load("compose.yaml")
OPERATIONS = (DEPLOY.parent / "docs" / "operations.md").read_text()
SECTIONS = {title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", OPERATIONS, re.MULTILINE)}
ALERTS = {rule["alert"]: rule for rule in load("prometheus/rules.yaml")["groups"][0]["rules"]}


def environment() -> dict[str, str]:
    """Return ``environment.example`` without quotes, as systemd and honcho read it."""
    lines = shlex.split((DEPLOY / "environment.example").read_text(), comments=True)
    return dict(line.split("=", 1) for line in lines)


def texts() -> list[Path]:
    ends = {".yaml", ".conf", ".service", ".example", ".sh", ".json", ".tpl", ""}
    return [path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix in ends]


def test_every_setting_that_deploy_names_exists() -> None:
    named = {
        name for path in texts() for name in re.findall(r"NSS_TRAIN_([A-Z][A-Z0-9_]+)", path.read_text())
    }
    named |= set(load("helm/nss-train/values.yaml")["settings"])
    assert named - {name.upper() for name in Settings.model_fields} == set()


def test_compose_is_what_its_schema_says() -> None:
    schema = json.loads((DEPLOY / "checks/schemas/compose.json").read_text())
    jsonschema.Draft7Validator(schema).validate(COMPOSE)


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_service_may_do_and_use_only_so_much(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"])
    # Not on this machine's other interfaces.
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_each_service_sees_its_own_secrets_only() -> None:
    seen = {
        name: {one if isinstance(one, str) else one["source"] for one in service.get("secrets", [])}
        for name, service in COMPOSE["services"].items()
    }
    for role in ("worker", "metrics", "flower"):
        users = {name for name, secrets in seen.items() if f"broker-url-{role}" in secrets}
        assert users == ({"cpu", "cuda"} if role == "worker" else {role})
    assert {name for name, secrets in seen.items() if "server.key" in secrets} == {"redis", "s3"}
    assert set().union(*seen.values()) == set(COMPOSE["secrets"])


def test_workers_have_no_way_out_and_are_told_of_no_place_outside() -> None:
    assert COMPOSE["networks"] == {"inside": {"internal": True}, "front": {}}
    outside = {name for name, service in COMPOSE["services"].items() if "front" in service["networks"]}
    assert outside == {"flower", "grafana"}
    asked = set(COMPOSE["x-settings"])
    assert asked & {f"NSS_TRAIN_{name}" for name in ("OTLP_ENDPOINT", "WEBHOOK_HOSTS", "ALLOW_HUB")} == set()


def test_a_worker_sees_the_other_workers_of_its_machine() -> None:
    """Workers keep their memory private, and ``invisible`` hides every process that does."""
    unit = (DEPLOY / "systemd/nss-train-worker@.service").read_text()
    assert re.findall(r"^ProtectProc=(\w+)$", unit, re.MULTILINE) == ["default"]


def test_a_device_s_worker_may_do_what_any_worker_may() -> None:
    """The unit of a device differs from that of a queue in what it starts, and stops where it is refused."""
    any_worker, of_device = (
        [line for line in (DEPLOY / "systemd" / unit).read_text().splitlines() if not line.startswith("#")]
        for unit in ("nss-train-worker@.service", "nss-train-worker-cuda@.service")
    )
    own = [line for line in of_device if line not in any_worker]
    assert [line.partition("=")[0] for line in own] == [
        "Description",
        "Environment",
        "Environment",
        "ExecStart",
        "RestartPreventExitStatus",
    ]
    assert own[1] == "Environment=CUDA_VISIBLE_DEVICES=%i"
    assert {line.partition("=")[0] for line in any_worker if line not in of_device} == {
        "Description",
        "ExecStart",
    }


def test_a_mig_instance_is_one_for_a_pod() -> None:
    """A process sees a single instance, so a pod with two would leave one idle."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    shapes = schema["properties"]["cuda"]["properties"]["shapes"]["items"]
    shape = load("helm/nss-train/values.yaml")["cuda"]["shapes"][0]
    valid = jsonschema.Draft7Validator(shapes).is_valid
    for resource, gpus, fits in (
        ("nvidia.com/gpu", 8, True),
        ("nvidia.com/mig-1g.10gb", 1, True),
        ("nvidia.com/mig-1g.10gb", 2, False),
        ("example.com/gpu", 1, False),
    ):
        assert valid(shape | {"gpuResource": resource, "gpus": gpus}) is fits


def test_everyone_waits_longer_than_a_drain_takes() -> None:
    grace_s = Settings.model_fields["drain_grace_s"].default
    assert float(COMPOSE["x-settings"]["NSS_TRAIN_DRAIN_GRACE_S"]) == grace_s
    for name in ("cpu", "cuda"):
        assert int(COMPOSE["services"][name]["stop_grace_period"].removesuffix("s")) > grace_s
    unit = (DEPLOY / "systemd/nss-train-worker@.service").read_text()
    assert int(re.findall(r"TimeoutStopSec=(\d+)", unit)[0]) > grace_s
    assert "KillMode=mixed" in unit
    drain = load("helm/nss-train/values.yaml")["drain"]
    assert (drain["graceSeconds"], drain["marginSeconds"] > 0) == (grace_s, True)


def test_the_broker_keeps_what_it_is_given() -> None:
    lines = dict(
        line.split(" ", 1) for line in (DEPLOY / "redis.conf").read_text().splitlines() if line[:1] > "#"
    )
    assert (lines["port"], lines["maxmemory-policy"], lines["appendonly"]) == ("0", "noeviction", "yes")


def test_alerts_and_dashboard_ask_for_metrics_that_exist() -> None:
    asked = (DEPLOY / "prometheus/rules.yaml").read_text() + (DEPLOY / "grafana/dashboard.json").read_text()
    asked += (CHART / "templates/cuda.yaml").read_text()
    assert set(re.findall(r"nss_train_\w+", asked)) <= METRICS
    assert set(re.findall(r'action="(\w+)"', asked)) <= ACTIONS


def test_each_alert_is_fired_in_a_test_and_has_a_section_of_its_own() -> None:
    tests = load("prometheus/rules.test.yaml")["tests"]
    cases = [case for one in tests for case in one.get("alert_rule_test", [])]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == set(ALERTS)
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == set(ALERTS)
    for name, rule in ALERTS.items():
        anchor = re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()
        assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{anchor}"
        assert anchor in SECTIONS


def test_the_chart_carries_the_same_alerts_and_dashboard() -> None:
    for name, original in (
        ("rules.yaml", "prometheus/rules.yaml"),
        ("dashboard.json", "grafana/dashboard.json"),
    ):
        assert (CHART / "files" / name).resolve() == DEPLOY / original


SECRETS = [name.upper() for name, field in Settings.model_fields.items() if field.annotation is SecretStr]


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_in_the_charts_settings_is_refused(name: str) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = load("helm/nss-train/values.yaml")
    jsonschema.validate(values, schema)
    values["settings"][name] = "x"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, schema)


@pytest.mark.parametrize(
    "given",
    [
        COMPOSE["x-settings"],
        {
            f"NSS_TRAIN_{name}": value
            for name, value in load("helm/nss-train/values.yaml")["settings"].items()
        },
        environment(),
    ],
    ids=["compose", "Helm", "environment"],
)
def test_strangers_are_kept_within_bounds(given: dict[str, str]) -> None:
    settings = {
        name.removeprefix("NSS_TRAIN_").lower(): value for name, value in given.items() if "NSS_" in name
    }
    listed = {name: json.loads(value) for name, value in settings.items() if value.startswith("[")}
    read = Settings.model_validate(settings | listed | {"broker_url": "redis://127.0.0.1:6379/0"})
    assert not read.allow_model_paths
    assert read.prepare_memory_bytes == 8 * 2**30
    assert all(uri.startswith("s3://") for uri in read.allowed_table_uris)


DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
EXTRAS_OF = {"client": "otel", "flower": "flower,otel", "metrics": "metrics"}
"""Image → the extras installed in it beside the light client."""


@pytest.mark.parametrize("target", EXTRAS_OF)
def test_an_image_has_the_extras_of_its_command_and_no_more(target: str) -> None:
    stage = DOCKERFILE.split(f"AS build-{target}\n")[1].split("\nFROM")[0]
    assert re.findall(r"install '\.\[(.+)\]'", stage) == [EXTRAS_OF[target]]
    assert (
        f"COPY --from=build-{target} " in DOCKERFILE.split(f"FROM runtime AS {target}\n")[1].split("FROM")[0]
    )


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_the_image_of_a_worker_has_no_servers_of_one_machine(target: str) -> None:
    stage = DOCKERFILE.split(f"AS build-{target}\n")[1].split("\nFROM")[0]
    assert "ARG EXTRAS=train,private,otel\n" in stage
    assert 'install ".[${EXTRAS}]"' in stage


@pytest.mark.parametrize("name", ["flower", "metrics", "cpu", "cuda"])
def test_compose_and_the_chart_run_a_service_in_its_own_image(name: str) -> None:
    service = COMPOSE["services"][name]
    assert (service["image"], service["build"]["target"]) == (f"nss-train:{name}", name)
    assert load("helm/nss-train/values.yaml")["image"][name]["tag"] == name
    if name in EXTRAS_OF:
        template = (CHART / "templates" / f"{name}.yaml").read_text()
        assert f'"nss-train.image" (dict "root" $ "target" "{name}")' in template
