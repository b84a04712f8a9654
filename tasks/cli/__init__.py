"""The command line: ``nss-train --help``."""

from __future__ import annotations

import signal
import sys

import click
import typer

from nss_train.errors import NSSTrainError
from tasks.cli import audit, display, jobs, local, operate, privacy

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Fine-tune a language model on a table.")
for command in (
    local.run,
    local.up,
    jobs.submit,
    jobs.status,
    jobs.watch,
    jobs.cancel,
    jobs.logs,
    jobs.fetch,
    jobs.sample,
    local.examples,
    privacy.estimate,
    privacy.check,
    audit.audit,
    operate.worker,
    operate.metrics,
    operate.reconcile,
    operate.doctor,
):
    app.command()(command)
app.command("list")(jobs.list_jobs)
app.command("version")(operate.show_version)
app.add_typer(local.models, name="model")
app.add_typer(privacy.budget, name="budget")
app.add_typer(privacy.privacy, name="privacy")


def main() -> None:
    """Run a command; an error is one message and an exit code: 2 bad request, 3 missing service."""
    as_json = "--json" in sys.argv
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        # Outside its standalone mode click returns the code of an Exit instead of leaving.
        sys.exit(app(standalone_mode=False) or 0)
    except NSSTrainError as error:
        display.fail(error, as_json=as_json)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        display.stderr.print("interrupted; everything is taken down")
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
