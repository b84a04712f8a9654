"""Budgets and costs from the command line, for people and for machines."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from nss_train.config import parse_config
from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.privacy.accounting.renyi_filter import ORDERS
from tasks.cli import main
from tasks.jobs.documents import JobRequest, Outcome, Table
from tasks.jobs.privacy.datasets import prove
from tasks.jobs.privacy.ledger import DatasetLedger, Granted
from tasks.settings import Settings, worker_environment
from tasks.store.open import open_store
from tests.unit.privacy.plans import plan, schema

OWNED = ["--unit", "value of nest", "--owner", "aviary"]
CONFIG = """
privacy: {dp_enabled: true, epsilon: 4}
data: {holdout: 0}
preflight: {disabled_checks: [dataset.size]}
training: {num_input_records_to_sample: 120, batch_size: 2, gradient_accumulation_steps: 3}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return settings whose broker is never contacted."""
    return Settings.model_validate({"home": tmp_path, "broker_url": "redis://127.0.0.1:9/0"})


def nss_train(settings: Settings, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tasks.cli", *command],
        env=worker_environment(settings) | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def as_json(settings: Settings, *command: str) -> dict[str, Any]:
    done = nss_train(settings, *command, "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


Here = Callable[..., dict[str, Any]]


@pytest.fixture
def here(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Here]:
    """Yield the command line in this process: a process of its own takes seconds to load the accountant."""
    before = signal.getsignal(signal.SIGTERM)
    for name, value in (settings.as_environment() | {"COLUMNS": "200"}).items():
        monkeypatch.setenv(name, value)

    def run(*command: str, text: bool = False) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["nss-train", *command, *([] if text else ["--json"])])
        with pytest.raises(SystemExit):
            main()
        out = capsys.readouterr().out
        return {"text": out} if text else dict(json.loads(out))

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def used(settings: Settings) -> DatasetLedger:
    """Return a ledger with a budget, a job that has ended and one that has not."""
    ledger = DatasetLedger(open_store(settings), "birds")
    granted = ledger.set_budget(
        epsilon=8, delta=1e-6, by="the board", reason="a [red] test", unit="record", owner="aviary"
    )
    ledger.reserve("job-0001", plan(by_products=schema(0.1, 1e-7)), request=asking(granted, "job-0001"))
    ledger.settle("job-0001", outcome=Outcome.CANCELLED, steps=7, by_products=True)
    ledger.reserve("job-0002", plan(), request=asking(granted, "job-0002"))
    return ledger


def asking(granted: Granted, job_id: str) -> JobRequest:
    """Return a job of the owner."""
    return JobRequest(
        job_id=job_id,
        table=Table(name="t.csv"),
        config=parse_config({"privacy": {"dp_enabled": True}, "guarantee": {"dataset": "birds"}}),
        tenant="aviary",
        seed=1,
        submitted_at=datetime.now(UTC),
        dataset_proof=prove(str(granted.token), job_id),
    )


def test_a_budget_is_set_and_shown(settings: Settings) -> None:
    before = as_json(settings, "budget", "show", "birds")
    nothing = {"pld": 0, "rdp": 0, "adaptive": None}
    assert (before["budget"], before["epsilon"], before["left"]) == (None, nothing, None)
    options = ["--epsilon", "8", "--delta", "1e-5", "--reason", "so decided"]
    made = as_json(settings, "budget", "set", "birds", *options, *OWNED)
    assert (made["epsilon"], made["owner"], made["unit"]) == (8, "aviary", "value of nest")
    assert (made["orders"], made["by_products_delta"]) == (list(ORDERS), 2.5e-6)
    assert len(made["token"]) > 40
    assert as_json(settings, "budget", "set", "birds", *options)["token"] is None
    after = as_json(settings, "budget", "show", "birds")
    assert (after["budget"]["epsilon"], after["budget"]["delta"], after["left"]) == (8, 1e-5, 8)
    assert after["budget"]["reason"] == "so decided"
    assert after["budget"]["by"]
    assert made["token"] not in json.dumps(after)


def test_a_budget_says_whose_it_is_and_for_good(here: Here) -> None:
    missing = here("budget", "set", "birds", "--epsilon", "8", "--delta", "1e-5")
    assert [problem["field"] for problem in missing["error"]["problems"]] == ["owner", "unit"]
    limits = ["--epsilon", "8", "--delta", "1e-5"]
    first = here("budget", "set", "birds", *limits, *OWNED)["token"]
    stolen = here("budget", "set", "birds", *limits, "--owner", "thief", "--unit", "record")
    assert [problem["field"] for problem in stolen["error"]["problems"]] == ["owner", "unit"]
    second = here("budget", "set", "birds", "--rotate-token")["token"]
    assert second not in (None, first)
    text = here("budget", "show", "birds", text=True)["text"]
    assert "owner aviary, protects each value of nest" in text
    assert "the adaptive figure decides: Rényi orders 2, 3, 4, 6, 8, 12, 16, 32" in text
    assert "by-products took δ = 0 of 2.5e-06 set aside" in text
    here("budget", "set", "birds", *limits, "--composition", "fixed")
    text = here("budget", "show", "birds", text=True)["text"]
    assert "true if no setting, and no end, was chosen by earlier results" in text


def test_one_order_is_chosen_for_a_job_that_is_expected(here: Here, birds: Path) -> None:
    limits = ["--epsilon", "8", "--delta", "1e-5", "--unit", "record", "--owner", "aviary"]
    config = str(birds.with_name("c.yaml"))
    expected = ["--for", config, "--table", str(birds)]
    (order,) = here("budget", "set", "birds", *limits, *expected)["orders"]
    assert 1 < order <= 128
    error = here("budget", "set", "bees", *limits, "--for", config)["error"]
    assert [problem["field"] for problem in error["problems"]] == ["for"]
    error = here("budget", "set", "bees", *limits, "--orders", "two")["error"]
    assert [problem["field"] for problem in error["problems"]] == ["orders"]


def test_a_budget_that_is_raised_after_results_is_called_a_history(here: Here, used: DatasetLedger) -> None:
    assert here("budget", "show", "birds")["is_promise"] is True
    used.set_budget(epsilon=9, delta=1e-6, by="the board", reason="more")
    assert here("budget", "show", "birds")["is_promise"] is False
    assert "a history, not a promise" in here("budget", "show", "birds", text=True)["text"]


def test_a_ledger_is_moved_to_another_name(here: Here, used: DatasetLedger) -> None:
    busy = here("budget", "rename", "birds")
    assert "wait for them" in json.dumps(busy)
    used.settle("job-0002", outcome=Outcome.FAILED, steps=0, by_products=False)
    name = here("budget", "rename", "birds")["dataset"]
    assert here("budget", "list")["datasets"] == [name]
    assert here("budget", "show", name)["jobs"] == 2


def test_what_the_jobs_cost_is_shown_by_both_accountants(settings: Settings, used: DatasetLedger) -> None:
    shown = as_json(settings, "budget", "show", "birds")
    epsilon = used.read().epsilon()
    assert shown["epsilon"]["pld"] == pytest.approx(epsilon)
    assert shown["epsilon"]["rdp"] > epsilon
    assert shown["epsilon"]["adaptive"] == pytest.approx(used.read().adaptive_epsilon)
    assert shown["left"] == pytest.approx(8 - shown["epsilon"]["adaptive"])
    assert (shown["jobs"], shown["unfinished"], shown["units"]) == (2, 1, ["record"])
    text = nss_train(settings, "budget", "show", "birds").stdout
    assert "budget: ε ≤ 8 at δ = 1e-06, by the board: a [red] test" in text
    assert "2 jobs, 1 of them unfinished and counted in full, at δ = 1e-06:" in text
    assert f"adaptive: ε = {shown['epsilon']['adaptive']:.4f}" in text
    assert f"as if fixed beforehand: ε = {epsilon:.4f} (PLD" in text


def test_a_cost_without_bound_is_null(settings: Settings, used: DatasetLedger) -> None:
    used.set_budget(epsilon=8, delta=1e-8, by="the board", reason="less than a schema takes")
    shown = as_json(settings, "budget", "show", "birds")
    assert (shown["epsilon"], shown["left"]) == ({"pld": None, "rdp": None, "adaptive": None}, 0)
    assert "ε = without bound" in nss_train(settings, "budget", "show", "birds").stdout


def test_the_history_tells_who_did_what(settings: Settings, used: DatasetLedger) -> None:
    entries = as_json(settings, "budget", "history", "birds")["entries"]
    assert [entry["number"] for entry in entries] == [1, 2, 3, 4]
    assert [entry["kind"] for entry in entries] == ["budget", "reservation", "settlement", "reservation"]
    assert PrivacyPlan.model_validate(entries[3]["plan"]) == plan()
    text = nss_train(settings, "budget", "history", "birds").stdout
    assert "a [red] test" in text
    assert "σ = 1, q = 0.01, 1000 steps" in text
    assert "cancelled after 7 private steps, by-products released" in text


def test_epsilon_is_told_by_both_accountants(settings: Settings) -> None:
    options = ["--sigma", "1", "--rate", "0.0064", "--steps", "782", "--delta", "1e-6"]
    epsilon = as_json(settings, "privacy", "epsilon", *options)["epsilon"]
    assert epsilon["pld"] == pytest.approx(1.199, rel=0.01)
    assert epsilon["rdp"] > epsilon["pld"]
    assert "epsilon = 1.19" in nss_train(settings, "privacy", "epsilon", *options).stdout


def test_sigma_is_found_for_an_epsilon(settings: Settings) -> None:
    options = ["--epsilon", "1.199", "--rate", "0.0064", "--steps", "782", "--delta", "1e-6"]
    found = as_json(settings, "privacy", "sigma", *options)
    assert found["sigma"] == pytest.approx(1.0, abs=1e-3)
    assert found["epsilon"]["pld"] <= 1.199 < found["epsilon"]["rdp"]


@pytest.mark.parametrize(
    ("command", "fields"),
    [
        ("privacy epsilon --sigma 0 --rate 1.1 --steps 0 --delta 1", ["sigma", "rate", "steps", "delta"]),
        ("privacy sigma --epsilon nan --rate 1 --steps 1 --delta 0", ["epsilon", "delta"]),
        ("privacy sigma --epsilon 1e-6 --rate 1 --steps 99 --delta 1e-9", ["epsilon"]),
        ("budget set birds --epsilon 0 --delta 2 --owner a --unit record", ["epsilon", "delta"]),
        ("budget set birds --reason x", ["epsilon", "delta"]),
        ("budget show ../../etc", ["dataset"]),
    ],
)
def test_every_number_that_makes_no_sense_is_named(
    command: str, fields: list[str], settings: Settings
) -> None:
    done = nss_train(settings, *command.split(), "--json")
    assert done.returncode == 2, done.stderr
    assert [problem["field"] for problem in json.loads(done.stdout)["error"]["problems"]] == fields
    assert not list(settings.home.rglob("*.json"))


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    table = tmp_path / "birds.csv"
    rows = [f"{'Adelie' if n % 2 else 'Gentoo'},{n % 12},{35 + n / 10}" for n in range(60)]
    table.write_text("species,nest,bill\n" + "\n".join(rows) + "\n")
    (tmp_path / "c.yaml").write_text(CONFIG)
    return table


def estimate(settings: Settings, table: Path) -> dict[str, Any]:
    return as_json(settings, "estimate", str(table), "--config", str(table.with_name("c.yaml")))


def test_an_estimate_tells_what_a_training_would_do_and_cost(settings: Settings, birds: Path) -> None:
    shown = estimate(settings, birds)
    assert (shown["units"], shown["unit"], shown["batch"]) == (60, "record", 6)
    assert (shown["sampling_rate"], shown["steps"]) == (0.1, 22)
    curve = shown["curve"]
    assert [point["step"] for point in curve] == [2, 4, 7, 9, 11, 13, 15, 18, 20, 22]
    assert [point["pld"] for point in curve] == sorted(point["pld"] for point in curve)
    assert 3.99 < curve[-1]["pld"] <= 4 < curve[-1]["rdp"]
    made = {
        name: value for name, value in shown.items() if name in PrivacyPlan.model_fields and name != "curve"
    }
    plan_ = PrivacyPlan.model_validate(made | {"dataset": "birds"})
    assert plan_.spent(22) == curve[-1]["pld"]
    assert shown["promise"] == plan_.promise()
    assert (shown["adjacency"], shown["units_source"], shown["effective"]) == ("zero-out", "rows", 60)
    done = nss_train(settings, "estimate", str(birds), "--config", str(birds.with_name("c.yaml")))
    assert f"sigma  {shown['noise_multiplier']:.6g}" in done.stdout
    assert done.stdout.startswith(shown["promise"])
    assert "n      60 units of privacy, each a record (rows of the file)" in done.stdout
    assert "Base model not found" in done.stderr  # the plan needs none, what it costs does
    assert shown["cost"] is None
    assert not list(settings.home.glob("store/**/*"))


def test_an_estimate_counts_groups_where_they_are_the_units(settings: Settings, birds: Path) -> None:
    config = birds.with_name("c.yaml")
    config.write_text(CONFIG.replace("data: {", "data: {group_training_examples_by: nest, "))
    shown = estimate(settings, birds)
    assert (shown["unit"], shown["units"], shown["sampling_rate"]) == ("value of nest", 12, 0.5)
    assert shown["units_source"] == "noisy"
    # 120 units are asked for, ten passes over the twelve: 10 · (1/q + 1).
    assert shown["steps"] == 30
    config.write_text(CONFIG + "guarantee: {unit_column: species, max_records_per_unit: 10}\n")
    assert "there are 2 units to draw from" in json.dumps(estimate(settings, birds))


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ("training: {pretrained_model: none}", "training.pretrained_model"),
        (f"{CONFIG}guarantee: {{unit_column: owner}}", "unit_column"),
    ],
)
def test_an_estimate_of_nothing_is_refused(config: str, field: str, settings: Settings, birds: Path) -> None:
    birds.with_name("c.yaml").write_text(config)
    done = nss_train(settings, "estimate", str(birds), "--config", str(birds.with_name("c.yaml")))
    assert done.returncode == 2
    assert field in done.stderr


HIDDEN = """
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.startswith("dp_accounting") else find(name, *rest)
sys.argv = ["nss-train", *sys.argv[1:]]
from tasks.cli import main
main()
"""


@pytest.mark.parametrize(
    "command",
    [
        "budget show birds",
        "privacy sigma --epsilon 1 --rate 0.1 --steps 9 --delta 1e-6",
        "privacy epsilon --sigma 1 --rate 0.1 --steps 9 --delta 1e-6",
        "estimate birds.csv --config c.yaml",
    ],
)
def test_where_the_accountant_is_not_installed_the_commands_say_so(
    command: str, settings: Settings, birds: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HIDDEN, *command.split()],
        cwd=birds.parent,
        env=worker_environment(settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["dp_accounting: not installed here; pip install 'nss-train[private]'"]
