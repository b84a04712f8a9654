"""Commands about what a private training would cost. None of them trains."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from nss_train.errors import ParameterError, Problem
from tasks.cli import display, subprograms
from tasks.cli.options import AsJson, LocalTable
from tasks.jobs.privacy.charges import ACCOUNTANT

privacy = typer.Typer(no_args_is_help=True, help="What a private training costs; nothing is trained.")
Epsilon = Annotated[float, typer.Option(help="The ε that may be spent.")]
Delta = Annotated[float, typer.Option(help="The δ at which ε is stated.")]
Rate = Annotated[float, typer.Option(help="q: each unit's probability to take part in a step.")]
Steps = Annotated[int, typer.Option(help="Number of steps.")]


@privacy.command(
    "epsilon", epilog="Example: nss-train privacy epsilon --sigma 1.1 --rate 0.01 --steps 1000 --delta 1e-5"
)
def epsilon_of(
    *,
    sigma: Annotated[float, typer.Option(help="σ: the noise in units of the clipping norm.")],
    rate: Rate,
    steps: Steps,
    delta: Delta,
    as_json: AsJson = False,
) -> None:
    """Compute the ε of a training with this noise."""
    _check(sigma=sigma, rate=rate, steps=steps, delta=delta)
    found = _epsilons(sigma=sigma, rate=rate, steps=steps, delta=delta)
    text = f"epsilon = {found['pld']:.4f} (PLD; by RDP {found['rdp']:.4f})"
    display.show({"epsilon": found}, as_json=as_json, text=text)


@privacy.command(
    "sigma", epilog="Example: nss-train privacy sigma --epsilon 8 --rate 0.01 --steps 1000 --delta 1e-5"
)
def sigma_of(*, epsilon: Epsilon, delta: Delta, rate: Rate, steps: Steps, as_json: AsJson = False) -> None:
    """Compute the least noise that keeps a training within ε and δ."""
    _check(epsilon=epsilon, rate=rate, steps=steps, delta=delta)
    subprograms.require(ACCOUNTANT)
    from nss_train.privacy.accounting.accountant import noise_multiplier

    sigma = noise_multiplier(epsilon=epsilon, delta=delta, sampling_rate=rate, steps=steps)
    if math.isinf(sigma):
        problem = Problem(field="epsilon", value=epsilon, remedy="raise it, or take fewer steps")
        raise ParameterError("More noise would be needed than anything can be learned from.", [problem])
    found = _epsilons(sigma=sigma, rate=rate, steps=steps, delta=delta)
    text = f"sigma = {sigma:.5f}, with epsilon = {found['pld']:.4f} (PLD; by RDP {found['rdp']:.4f})"
    display.show({"sigma": sigma, "epsilon": found}, as_json=as_json, text=text)


def check(
    table: LocalTable,
    *,
    config: Annotated[Path | None, typer.Option(help="NSS config, YAML or JSON.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a private training would make of a table and what to declare; for its owner alone."""
    subprograms.require("pandas", "pyarrow")
    options = [
        *([] if config is None else ["--config", str(config)]),
        *(["--json"] if as_json else []),
        "--",
        table,
    ]
    raise typer.Exit(subprograms.run("nss_train.data.private", *options))


def _epsilons(*, sigma: float, rate: float, steps: int, delta: float) -> dict[str, float]:
    """Return ε by each accountant."""
    subprograms.require(ACCOUNTANT)
    from nss_train.privacy.accounting.accountant import Accountant, spent, training

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
