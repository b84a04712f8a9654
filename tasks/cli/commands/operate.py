"""Commands for the operators of workers."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import Annotated

import typer

from nss_train import __version__
from nss_train.extras import METRICS, TRAIN
from tasks.cli import display, subprograms
from tasks.cli.options import AsJson
from tasks.jobs.texts import check_texts
from tasks.settings import Settings
from tasks.store.open import open_store


def worker(
    queues: Annotated[
        str, typer.Option(help="Comma-separated: cpu, cuda.  [default: cpu,cuda; with --per-gpu: cuda]")
    ] = "",
    name: Annotated[
        str,
        typer.Option(help="Unique; %h is the host name.  [default: worker@%h; with --per-gpu: cuda-0@%h, …]"),
    ] = "",
    concurrency: Annotated[int, typer.Option(min=1, help="Stages at a time.")] = 1,
    max_jobs: Annotated[int | None, typer.Option(min=1, help="Leave after so many stages.")] = None,
    idle_exit_s: Annotated[
        float | None, typer.Option(min=0, help="Leave after so many seconds without a stage.")
    ] = None,
    *,
    per_gpu: Annotated[
        bool, typer.Option("--per-gpu", help="Run a worker for each visible GPU and MIG instance.")
    ] = False,
) -> None:
    """Serve queues until SIGTERM, or for a number of stages."""
    check_texts(queues=queues, name=name)
    subprograms.require_extras(TRAIN)
    from tasks.worker.per_device import run_workers
    from tasks.worker.process import run_worker

    settings = Settings()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if per_gpu:
        given = {"--concurrency": concurrency, "--max-jobs": max_jobs, "--idle-exit-s": idle_exit_s}
        options = [f"--queues={queues or ','.join(settings.cuda_queue_names)}"]
        options += [f"{option}={value}" for option, value in given.items() if value is not None]
        raise typer.Exit(run_workers(settings, name=name or "cuda@%h", options=options))
    run_worker(
        settings,
        queues or "cpu,cuda",
        name=name or "worker@%h",
        concurrency=concurrency,
        max_jobs=max_jobs,
        idle_exit_s=idle_exit_s,
    )


def metrics(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any.")] = 9464,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve /metrics for Prometheus and /scale for a scaler until SIGTERM."""
    check_texts(host=host)
    subprograms.require_extras(METRICS)
    from tasks.monitoring.exporter import make_server_on
    from tasks.telemetry import logs as log

    settings = Settings()
    open_store(settings)  # wrong settings of the store are reported before anything begins
    log.configure(settings.log_format)
    with make_server_on(settings, host=host, port=port) as server, suppress(KeyboardInterrupt):
        server.serve_forever()


def reconcile(*, as_json: AsJson = False) -> None:
    """Send jobs again that have no outcome, no worker and no message."""
    from tasks.app import make_app
    from tasks.scheduling.reconciliation import reconcile as reconcile_jobs

    sent = reconcile_jobs(make_app(Settings()), after_s=0)
    display.show({"sent": sent}, as_json=as_json, text="\n".join(sent) or "nothing to do")


def doctor(*, as_json: AsJson = False) -> None:
    """Say what is missing, and how to mend it."""
    from tasks.monitoring.doctor import examine

    findings = examine(Settings())
    if as_json:
        display.show({"findings": [f.as_json() for f in findings]}, as_json=True)
    else:
        for finding in findings:
            display.console.print(str(finding), markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(max((f.exit_code for f in findings if not f.ok), default=0))


def print_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        display.show({"version": __version__}, as_json=False, text=__version__)
        raise typer.Exit


def show_version(*, as_json: AsJson = False) -> None:
    """Print the version of nss-train."""
    display.show({"version": __version__}, as_json=as_json, text=__version__)
