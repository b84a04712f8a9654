"""Commands about a dataset's budget: what its private jobs may cost together, and what they have cost."""

from __future__ import annotations

import getpass
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from nss_train import errors
from nss_train.errors import ParameterError, Problem
from nss_train.privacy.accounting.dataset_budget import Budget, Composition
from tasks.cli import display, subprograms
from tasks.cli.options import AsJson

if TYPE_CHECKING:
    from nss_train.privacy.accounting.ledger import Entry, Ledger
    from tasks.client import Client
    from tasks.jobs.privacy.ledger import DatasetLedger

budget = typer.Typer(no_args_is_help=True, help="What the private jobs on a dataset may cost in all.")
Dataset = Annotated[str, typer.Argument(help="As guarantee.dataset names it.")]
Epsilon = Annotated[float, typer.Option(help="The ε that may be spent.")]
Delta = Annotated[float, typer.Option(help="The δ at which ε is stated.")]


@budget.command("show", epilog="Example: nss-train budget show patients")
def show(dataset: Dataset, *, as_json: AsJson = False) -> None:
    """Show the budget in force, and what all jobs cost together."""
    ledger = _ledger(dataset)
    found = _describe(ledger.read()) | {"same_data": ledger.same_data()}
    display.show(found, as_json=as_json, text=_as_text(found))


@budget.command(
    "set",
    epilog="Example: nss-train budget set patients --epsilon 8 --delta 1e-5 --unit record --owner clinic",
)
def set_(
    dataset: Dataset,
    *,
    epsilon: Annotated[float | None, typer.Option(help="The ε that may be spent.")] = None,
    delta: Annotated[float | None, typer.Option(help="The δ at which ε is stated.")] = None,
    unit: Annotated[str | None, typer.Option(help="What it protects: record, or value of COLUMN.")] = None,
    owner: Annotated[str | None, typer.Option(help="The tenant whose jobs are charged to it.")] = None,
    reason: Annotated[str, typer.Option(help="Kept in the history.")] = "",
    composition: Annotated[
        Composition | None, typer.Option(help="adaptive: jobs may be chosen by results; fixed: none is.")
    ] = None,
    orders: Annotated[str | None, typer.Option(help="Rényi orders of the filter: 4,8,16.")] = None,
    by_products_delta: Annotated[
        float | None, typer.Option(help="Set aside of δ for schemas with noise.")
    ] = None,
    for_: Annotated[
        Path | None, typer.Option("--for", help="Config of an expected job: one order, the best for it.")
    ] = None,
    table: Annotated[str | None, typer.Option(help="The table that --for is for; only counted.")] = None,
    rotate_token: Annotated[
        bool, typer.Option("--rotate-token", help="Print a new token; the old one is of no use any more.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a budget in force in place of the one before; the history stays.

    The first one says --unit and --owner, which stay, and prints the owner's token, this once.
    """
    ledger, made, token = _ledger(dataset), None, None
    limits = _limits(epsilon, delta, for_, table, rotate_token=rotate_token)
    if limits is not None:
        chosen = _chosen_order(dataset, for_, table, **limits) if for_ is not None else _orders(orders)
        granted = ledger.set_budget(
            **limits,
            by=getpass.getuser(),
            reason=reason,
            unit=unit,
            owner=owner,
            composition=composition,
            orders=chosen,
            by_products_delta=by_products_delta,
        )
        made, token = granted.budget, granted.token
    if rotate_token:
        token = ledger.rotate_token()
    shown = {"dataset": dataset, "token": token} | ({} if made is None else made.model_dump(mode="json"))
    display.show(shown, as_json=as_json, text=_granted_text(dataset, made, token))


def _limits(
    epsilon: float | None, delta: float | None, for_: Path | None, table: str | None, *, rotate_token: bool
) -> dict[str, float] | None:
    """Return ε and δ of a new budget; ``None`` when only the token is replaced."""
    if rotate_token and epsilon is None and delta is None:
        return None
    remedy = "a budget needs it"
    given = {"epsilon": epsilon, "delta": delta}
    problems = [Problem(field=name, value=None, remedy=remedy) for name, one in given.items() if one is None]
    if (for_ is None) != (table is None):
        problems.append(Problem(field="for", value=for_, remedy="--for and --table go together"))
    if epsilon is None or delta is None or problems:
        raise ParameterError("Not a budget.", problems)
    return {"epsilon": epsilon, "delta": delta}


def _orders(given: str | None) -> tuple[float, ...] | None:
    try:
        return None if given is None else tuple(float(one) for one in given.split(","))
    except ValueError as error:
        problem = Problem(field="orders", value=given, remedy="numbers above 1 with commas: 4,8,16")
        raise ParameterError("Not a budget.", [problem]) from error


def _chosen_order(
    dataset: str, config: Path, table: str | None, *, epsilon: float, delta: float
) -> tuple[float, ...]:
    """Return the order at which most jobs like the expected one fit."""
    from nss_train.privacy.accounting.ledger import order_for
    from nss_train.privacy.accounting.plan import PrivacyPlan

    output = subprograms.output(
        "nss_train.privacy", "estimate", str(table), "--config", str(config), "--json"
    )
    shown = json.loads(output)
    if "error" in shown:
        raise errors.from_json(shown["error"])
    known = {name: value for name, value in shown.items() if name in PrivacyPlan.model_fields}
    expected = PrivacyPlan.model_validate(known | {"dataset": dataset, "curve": ()})
    return (order_for(expected, epsilon=epsilon, delta=delta),)


def _granted_text(dataset: str, made: Budget | None, token: str | None) -> str:
    lines = [] if made is None else [f"{dataset}: ε ≤ {made.epsilon:g} at δ = {made.delta:g}"]
    if token is not None:
        lines += [
            f"token: {token}",
            "It is shown only once. Give it to the owner, whose jobs need it (--dataset-token-file).",
        ]
    return "\n".join(lines)


@budget.command("rename", epilog="Example: nss-train budget rename 0f3a --to patients")
def rename_(
    dataset: Dataset,
    *,
    to: Annotated[str | None, typer.Option(help="A name to declare; drawn at random without it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Give a ledger another name: an older release's is a digest, or strangers were first to use this one."""
    name = _client().rename_ledger(dataset, to=to)
    display.show({"dataset": name}, as_json=as_json, text=name)


@budget.command("list", epilog="Example: nss-train budget list")
def list_(*, as_json: AsJson = False) -> None:
    """List the names of all ledgers; those that are a digest should be renamed."""
    names = list(_client().ledgers())
    display.show({"datasets": names}, as_json=as_json, text="\n".join(names))


@budget.command("history", epilog="Example: nss-train budget history patients")
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


def _client() -> Client:
    from tasks.client import Client

    return Client()


def _ledger(dataset: str) -> DatasetLedger:
    return _client().ledger(dataset)


def _describe(ledger: Ledger) -> dict[str, Any]:
    """Return the ledger in figures; an ε without bound is ``null``."""
    from nss_train.privacy.accounting.accountant import Accountant

    held, costs = ledger.budget, ledger.costs
    adaptive = ledger.adaptive_epsilon
    return {
        "dataset": ledger.dataset,
        "budget": None if held is None else held.model_dump(mode="json", exclude={"kind"}),
        "delta": ledger.delta,
        "epsilon": {by.value: _finite(ledger.epsilon(by)) for by in Accountant}
        | {"adaptive": None if adaptive is None else _finite(adaptive)},
        "by_products_delta": ledger.by_products_delta,
        "left": ledger.left,
        "is_promise": ledger.is_promise,
        "jobs": len(costs),
        "unfinished": sum(not cost.settled for cost in costs),
        "units": list(ledger.units),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _as_text(found: dict[str, Any]) -> str:
    held, epsilon = found["budget"], found["epsilon"]
    unfinished = (
        f", {found['unfinished']} of them unfinished and counted in full" if found["unfinished"] else ""
    )
    lines = [
        f"dataset {found['dataset']}",
        *(["no budget: jobs are recorded, none is refused"] if held is None else _budget_lines(found)),
        f"{found['jobs']} jobs{unfinished}, at δ = {found['delta']:.3g}:",
        *([] if held is None or not held["orders"] else [f"  adaptive: ε = {_told(epsilon['adaptive'])}"]),
        f"  as if fixed beforehand: ε = {_told(epsilon['pld'])} (PLD; by RDP {_told(epsilon['rdp'])})",
        *([] if held is None else [f"left: {found['left']:.4f}"]),
        *(
            f"same data: {100 * other['share']:.0f}% of {other['dataset']} or of this"
            for other in found["same_data"]
        ),
    ]
    return "\n".join(lines)


def _told(epsilon: float | None) -> str:
    return "without bound" if epsilon is None else f"{epsilon:.4f}"


def _budget_lines(found: dict[str, Any]) -> Iterator[str]:
    held = found["budget"]
    why = f": {held['reason']}" if held["reason"] else ""
    yield f"budget: ε ≤ {held['epsilon']:g} at δ = {held['delta']:g}, by {held['by']}{why}"
    if held["owner"] is not None:
        yield f"owner {held['owner']}, protects each {held['unit']}"
    if held["composition"] == Composition.FIXED:
        yield "the fixed figure decides: true if no setting, and no end, was chosen by earlier results"
    else:
        orders = ", ".join(f"{order:g}" for order in held["orders"])
        yield f"the adaptive figure decides: Rényi orders {orders}"
        aside = held["by_products_delta"]
        yield f"by-products took δ = {found['by_products_delta']:.3g} of {aside:.3g} set aside"
    if not found["is_promise"]:
        yield "a history, not a promise: the budget was set or raised after results"


def _history_table(entries: tuple[Entry, ...]) -> Table:
    table = Table("number", "when", "what", "job or person", "details")
    for number, entry in enumerate(entries, 1):
        who, details = _row(entry.model_dump())
        table.add_row(str(number), f"{entry.at:%Y-%m-%d %H:%M}", entry.kind, escape(who), escape(details))
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
