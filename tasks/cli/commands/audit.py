"""``nss-train audit``: attacks on the private step or on a table's way to it, and a job's own audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nss_train.contract import Stage
from nss_train.errors import ParameterError, Problem
from nss_train.extras import PRIVATE, TRAIN
from nss_train.privacy.accounting.result import AuditBound, PrivacyResult
from tasks.cli import display, subprograms
from tasks.cli.commands.jobs import client_and_id
from tasks.cli.options import AsJson, ConfigFile
from tasks.jobs.repository import JobRepository

RESULT = "privacy_result.json"
"""Result file of the train stage."""


def audit(
    job_id: Annotated[
        str | None,
        typer.Argument(help="Show what the audit of this job found; its id, or the beginning of it."),
    ] = None,
    *,
    faults: Annotated[bool, typer.Option("--faults", help="Audit planted faults too.")] = False,
    from_file: Annotated[Path | None, typer.Option(help="Compare this table with neighbours of it.")] = None,
    config: ConfigFile = None,
    pairs: Annotated[int, typer.Option(min=1, help="Neighbours of the table.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Attack the private step, or a table's way to it; exit code 1 when what is claimed does not hold."""
    if job_id is not None:
        _show_job(job_id, as_json=as_json)
        return
    subprograms.require_extras(TRAIN, PRIVATE)
    options = [*(["--faults"] if faults else []), *(["--json"] if as_json else [])]
    if from_file is not None:
        options += _of_table(from_file, config, pairs)
    raise typer.Exit(subprograms.run("nss_train.privacy.audit", *options))


def _of_table(table: Path, config: Path | None, pairs: int) -> list[str]:
    from tasks.settings import Settings

    named = [] if config is None else ["--config", str(config)]
    models = str(Settings().models_dir)
    return ["--from-file", str(table), "--pairs", str(pairs), "--models", models, *named]


def _show_job(job_id: str, *, as_json: bool) -> None:
    client, job_id = client_and_id(job_id)
    result = read_result(client.records(job_id))
    if result.audit is None:
        remedy = "its config had guarantee.audit_canaries = 0; ask for some, best many hundreds"
        problem = Problem(field="job_id", value=job_id, remedy=remedy)
        raise ParameterError("The job's training was not audited.", [problem])
    spent: dict[str, Any] = {"job_id": job_id, "epsilon_spent": result.epsilon_spent, "delta": result.delta}
    document = spent | {"audit": result.audit.model_dump(mode="json")}
    display.show(document, as_json=as_json, text=_as_text(result, result.audit))


def read_result(records: JobRepository) -> PrivacyResult:
    """Return what a job's private training spent; raise :class:`ParameterError` when there is none yet."""
    records.request()
    marker = records.marker(Stage.TRAIN)
    keys = [] if marker is None else [file.key for file in marker.files if file.path == RESULT]
    if not keys:
        remedy = "it has not trained yet" if marker is None else "it trains without differential privacy"
        problem = Problem(field="job_id", value=records.job_id, remedy=remedy)
        raise ParameterError("The job has no private training to show.", [problem])
    return PrivacyResult.model_validate_json(records.store.read(keys[0]))


def _as_text(result: PrivacyResult, audit: AuditBound) -> str:
    weak = "" if audit.weak_because is None else f"\nweak: {audit.weak_because}"
    return (
        f"claimed  ε = {result.epsilon_spent:.4f} at δ = {result.delta:.3g}\n"
        f"audited  ε ≥ {audit.epsilon_lower_bound:.4f} with {audit.confidence:.0%} confidence:"
        f" {audit.correct} of {audit.guesses} guesses about {audit.canaries} canaries were right,"
        f" in {audit.steps} steps{weak}"
    )
