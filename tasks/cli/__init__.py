"""The command line: ``nss-train --help``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated, Any

import typer

from nss_train.errors import InfrastructureError, NSSTrainError
from nss_train.process import keep_files_to_itself
from tasks.cli import display, interrupt, streams, usage
from tasks.cli.commands import audit, budget, config, jobs, local, models, operate, privacy
from tasks.cli.nss_options import ConfigCommand
from tasks.settings import unknown_settings

app = typer.Typer(
    no_args_is_help=True,
    help="Fine-tune a language model on a table.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
PROGRAM = "nss-train"
COMMANDS: tuple[tuple[str, Callable[..., Any], str], ...] = (
    ("run", local.run, "run table.csv --rows 20 --out artifacts --set training.lora_r=16"),
    ("up", local.up, "up"),
    ("submit", jobs.submit, "submit s3://tables/patients.parquet --config job.yaml --key 2026-11"),
    ("status", jobs.status, "status 20261126-0938"),
    ("watch", jobs.watch, "watch 20261126-0938 --json"),
    ("cancel", jobs.cancel, "cancel 20261126-0938 --reason 'wrong table'"),
    ("logs", jobs.logs, "logs 20261126-0938 --stage train"),
    ("fetch", jobs.fetch, "fetch 20261126-0938 artifacts"),
    ("sample", jobs.sample, "sample 20261126-0938 --rows 100 --format csv"),
    ("list", jobs.list_jobs, "list"),
    ("examples", local.examples, "examples table.csv --model .nss-train/models/SmolLM2-135M-Instruct"),
    ("estimate", local.estimate, "estimate table.csv --config job.yaml"),
    ("check", privacy.check, "check table.csv --config job.yaml"),
    ("audit", audit.audit, "audit --faults"),
    ("worker", operate.worker, "worker --queues cpu"),
    ("metrics", operate.metrics, "metrics --port 9464"),
    ("reconcile", operate.reconcile, "reconcile"),
    ("doctor", operate.doctor, "doctor"),
    ("version", operate.show_version, "version"),
)
"""Commands, each with an example of its use."""
WITH_CONFIG = {"run", "submit", "examples", "estimate"}
"""Commands that take ``--set``, and NSS's options for it."""

TELLS_ITSELF = {"doctor", "worker"}
"""Commands that tell unknown settings among their findings, or in their log."""

for _name, _command, _example in COMMANDS:
    _class = ConfigCommand if _name in WITH_CONFIG else None
    app.command(_name, cls=_class, epilog=f"Example: {PROGRAM} {_example}")(_command)
app.add_typer(config.app, name="config")
app.add_typer(models.app, name="model")
app.add_typer(budget.budget, name="budget")
app.add_typer(privacy.privacy, name="privacy")


@app.callback()
def _root(
    context: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001 - its callback leaves
        bool,
        typer.Option("--version", is_eager=True, help="Print the version.", callback=operate.print_version),
    ] = False,
) -> None:
    if context.invoked_subcommand not in TELLS_ITSELF:
        display.show_warnings([f"{one.field}: {one.remedy}" for one in unknown_settings()])


def main() -> None:
    """Run a command and leave with its exit code."""
    streams.prepare()
    signal.signal(signal.SIGTERM, _interrupt)
    keep_files_to_itself()
    sys.exit(written(sys.argv[1:]))


def written(arguments: Sequence[str]) -> int:
    """Run a command whose output must be taken: a full disk is told, a reader that has gone is not."""
    try:
        code = run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        streams.discard()
        return 1
    except OSError as error:
        streams.discard()
        failure = InfrastructureError(f"The command could not read or write: {error}")
        display.fail(failure, as_json=False)
        return failure.exit_code
    return code


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; an error is one message: 2 bad request, 3 missing service."""
    as_json = "--json" in arguments
    try:
        # Outside its standalone mode typer returns the code of an Exit instead of leaving.
        code: int = _command_line()(list(arguments), standalone_mode=False, prog_name=PROGRAM) or 0
    except NSSTrainError as error:
        display.fail(error, as_json=as_json)
        return error.exit_code
    except interrupt.Interrupted as error:
        display.stderr.print(display.plain(error), soft_wrap=True)
        return interrupt.EXIT_CODE
    except typer.TyperException as error:
        refusal = usage.refusal(error)
        if not usage.is_call_for_help(error):
            display.fail(refusal, as_json=as_json)
        return refusal.exit_code
    # Typer makes this code of a KeyboardInterrupt that no command has explained.
    if code == interrupt.EXIT_CODE:
        display.stderr.print("interrupted")
    return code


@cache
def _command_line() -> Callable[..., Any]:
    """Return the app as typer runs it, put together once."""
    return typer.main.get_command(app)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
