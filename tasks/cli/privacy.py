"""Commands about privacy: a dataset's budget, and what a training would cost. None of them trains."""

from __future__ import annotations

import getpass
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from nss_train.errors import ParameterError, Problem
from tasks import library
from tasks.charges import ACCOUNTANT
from tasks.cli import display
from tasks.cli.options import AsJson

if TYPE_CHECKING:
    from nss_train.privacy.ledger import Entry, Ledger
    from tasks.ledger import DatasetLedger

budget = typer.Typer(no_args_is_help=True, help="What the private jobs on a dataset may cost in all.")
privacy = typer.Typer(no_args_is_help=True, help="What a private training costs; nothing is trained.")

Dataset = Annotated[str, typer.Argument(help="As guarantee.dataset names it.")]
Epsilon = Annotated[float, typer.Option(help="The ε that may be spent.")]
Delta = Annotated[float, typer.Option(help="The δ that ε is told at.")]
Rate = Annotated[float, typer.Option(help="q: each unit's probability to take part in a step.")]
Steps = Annotated[int, typer.Option(help="Number of steps.")]


@budget.command("show")
def show(dataset: Dataset, *, as_json: AsJson = False) -> None:
    """The budget in force, and what all jobs cost together."""
    found = _describe(_ledger(dataset).read())
    display.show(found, as_json=as_json, text=_as_text(found))


@budget.command("set")
def set_(
    dataset: Dataset,
    *,
    epsilon: Epsilon,
    delta: Delta,
    reason: Annotated[str, typer.Option(help="Kept in the history.")],
    as_json: AsJson = False,
) -> None:
    """Put a budget in force in place of the one before; the history stays."""
    made = _ledger(dataset).set_budget(epsilon=epsilon, delta=delta, by=getpass.getuser(), reason=reason)
    text = f"{dataset}: ε ≤ {made.epsilon:g} at δ = {made.delta:g}"
    display.show({"dataset": dataset} | made.model_dump(mode="json"), as_json=as_json, text=text)


@budget.command("history")
def history(dataset: Dataset, *, as_json: AsJson = False) -> None:
    """Every budget, reservation and settlement, oldest first."""
    entries = _ledger(dataset).read().entries
    if as_json:
        documents = [
            {"number": number} | entry.model_dump(mode="json") for number, entry in enumerate(entries, 1)
        ]
        display.show({"dataset": dataset, "entries": documents}, as_json=True)
    else:
        display.console.print(_history_table(entries))


@privacy.command("epsilon")
def epsilon_of(
    *,
    sigma: Annotated[float, typer.Option(help="σ: the noise in units of the clipping norm.")],
    rate: Rate,
    steps: Steps,
    delta: Delta,
    as_json: AsJson = False,
) -> None:
    """The ε of a training with this noise."""
    _check(sigma=sigma, rate=rate, steps=steps, delta=delta)
    found = _epsilons(sigma=sigma, rate=rate, steps=steps, delta=delta)
    text = f"epsilon = {found['pld']:.4f} (PLD; by RDP {found['rdp']:.4f})"
    display.show({"epsilon": found}, as_json=as_json, text=text)


@privacy.command("sigma")
def sigma_of(*, epsilon: Epsilon, delta: Delta, rate: Rate, steps: Steps, as_json: AsJson = False) -> None:
    """The least noise that keeps a training within ε and δ."""
    _check(epsilon=epsilon, rate=rate, steps=steps, delta=delta)
    library.require(ACCOUNTANT)
    from nss_train.privacy.accountant import noise_multiplier

    sigma = noise_multiplier(epsilon=epsilon, delta=delta, sampling_rate=rate, steps=steps)
    if math.isinf(sigma):
        problem = Problem(field="epsilon", value=epsilon, remedy="raise it, or take fewer steps")
        raise ParameterError("More noise would be needed than anything can be learned from.", [problem])
    found = _epsilons(sigma=sigma, rate=rate, steps=steps, delta=delta)
    text = f"sigma = {sigma:.5f}, with epsilon = {found['pld']:.4f} (PLD; by RDP {found['rdp']:.4f})"
    display.show({"sigma": sigma, "epsilon": found}, as_json=as_json, text=text)


def estimate(
    table: str,
    *,
    config: Annotated[Path, typer.Option(help="NSS config with privacy.dp_enabled, YAML or JSON.")],
    as_json: AsJson = False,
) -> None:
    """What a private training of a table would do and cost; nothing is trained."""
    library.require(ACCOUNTANT, "pandas")
    options = [table, "--config", str(config), *(["--json"] if as_json else [])]
    raise typer.Exit(library.run("nss_train.privacy", "estimate", *options))


def check(
    table: str,
    *,
    config: Annotated[Path | None, typer.Option(help="NSS config, YAML or JSON.")] = None,
    as_json: AsJson = False,
) -> None:
    """What a private training would make of a table, exactly, and what to declare; for its owner alone."""
    library.require("pandas", "pyarrow")
    options = [
        table,
        *([] if config is None else ["--config", str(config)]),
        *(["--json"] if as_json else []),
    ]
    raise typer.Exit(library.run("nss_train.data.private", *options))


def _ledger(dataset: str) -> DatasetLedger:
    from tasks.client import Client

    return Client().ledger(dataset)


def _epsilons(*, sigma: float, rate: float, steps: int, delta: float) -> dict[str, float]:
    """ε by each accountant."""
    library.require(ACCOUNTANT)
    from nss_train.privacy.accountant import Accountant, spent, training

    event = training(noise_multiplier=sigma, sampling_rate=rate, steps=steps)
    return {by.value: spent(event, delta, by) for by in Accountant}


def _check(**given: float) -> None:
    """Raise :class:`ParameterError` with every number that is out of its range."""
    problems = list(_problems(given))
    if problems:
        raise ParameterError("These numbers describe no training.", problems)


def _problems(given: dict[str, float]) -> Iterator[Problem]:
    most = {"delta": 1.0, "rate": 1.0}
    for name, value in given.items():
        high = most.get(name, math.inf)
        if not (0 < value < high or (name == "rate" and value == high)):
            end = {"delta": " and below 1", "rate": " and at most 1"}.get(name, "")
            yield Problem(field=name, value=value, remedy=f"must be a number above 0{end}")


def _describe(ledger: Ledger) -> dict[str, Any]:
    """The ledger in figures; an ε without bound is ``null``."""
    from nss_train.privacy.accountant import Accountant

    held, costs = ledger.budget, ledger.costs
    epsilon = {by.value: _finite(ledger.epsilon(by)) for by in Accountant}
    pld = epsilon[Accountant.PLD.value]
    return {
        "dataset": ledger.dataset,
        "budget": None if held is None else held.model_dump(mode="json", exclude={"kind"}),
        "delta": ledger.delta,
        "epsilon": epsilon,
        "left": None if held is None else max(0.0, held.epsilon - pld) if pld is not None else 0.0,
        "jobs": len(costs),
        "unfinished": sum(not cost.settled for cost in costs),
        "units": list(ledger.units),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _as_text(found: dict[str, Any]) -> str:
    held, epsilon = found["budget"], found["epsilon"]
    pld, rdp = ("without bound" if e is None else f"{e:.4f}" for e in (epsilon["pld"], epsilon["rdp"]))
    limit = (
        "no budget: jobs are recorded, none is refused"
        if held is None
        else f"budget: ε ≤ {held['epsilon']:g} at δ = {held['delta']:g}, by {held['by']}: {held['reason']}"
    )
    unfinished = (
        f", {found['unfinished']} of them unfinished and counted in full" if found["unfinished"] else ""
    )
    lines = [
        f"dataset {found['dataset']}",
        limit,
        f"{found['jobs']} jobs{unfinished}: ε = {pld} at δ = {found['delta']:.3g} (PLD; by RDP {rdp})",
        *([] if held is None else [f"left: {found['left']:.4f}"]),
    ]
    return "\n".join(lines)


def _history_table(entries: tuple[Entry, ...]) -> Table:
    table = Table("number", "when", "what", "job or person", "details")
    for number, entry in enumerate(entries, 1):
        who, details = _row(entry.model_dump())
        table.add_row(str(number), f"{entry.at:%Y-%m-%d %H:%M:%S}", entry.kind, escape(who), escape(details))
    return table


def _row(entry: dict[str, Any]) -> tuple[str, str]:
    if entry["kind"] == "budget":
        return entry["by"], f"ε ≤ {entry['epsilon']:g} at δ = {entry['delta']:g}: {entry['reason']}"
    if entry["kind"] == "reservation":
        plan = entry["plan"]
        mechanism = f"σ = {plan['noise_multiplier']:.4g}, q = {plan['sampling_rate']:.4g}"
        return entry["job_id"], f"{mechanism}, {plan['steps']} steps: ε ≤ {plan['epsilon']:g}"
    products = ", by-products released" if entry["by_products"] else ""
    return entry["job_id"], f"{entry['outcome']} after {entry['steps']} private steps{products}"
