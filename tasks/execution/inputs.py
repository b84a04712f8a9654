"""The inputs that a stage's child process finds in its folder when it starts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from redis import Redis

from nss_train.contract import DATASET_NAME, CheckpointPolicy, Kernels, Request, Stage
from nss_train.errors import ParameterError, Problem, Retry, StoreUnavailable
from nss_train.model_files import DOCUMENT_BYTES, is_read
from tasks.execution.drain_flag import DrainFlag
from tasks.execution.model_cache import ModelCache
from tasks.execution.processes.hosts import Hosts
from tasks.execution.processes.watchdog import Watchdog
from tasks.execution.read_ahead import read_ahead
from tasks.execution.unseen import Unseen
from tasks.jobs import stage_files
from tasks.jobs.documents import JobRequest, StageCommit
from tasks.jobs.keys import RESERVED
from tasks.jobs.privacy.datasets import check_access
from tasks.jobs.privacy.private_keys import budget_name, write_keys
from tasks.jobs.repository import JobRepository
from tasks.jobs.table import fetch_table
from tasks.settings import Settings
from tasks.store.base import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Worker:
    """The parts of a worker's process that a delivery needs."""

    name: str
    store: Store
    redis: Redis
    settings: Settings
    send_event: Callable[..., Any]
    queue: str = ""
    """Queue that the delivery came from."""
    drain: DrainFlag = field(default_factory=DrainFlag)
    """Flag that is set when the worker is about to leave."""
    unseen: Unseen = field(default_factory=Unseen)
    """Flag that is set while a strictly private stage runs: the worker reports no memory meanwhile."""
    hosts: Hosts | None = None
    """Warm hosts of this process, which fork the processes of its stages; without them each is a new one."""
    watchdog: Watchdog | None = None
    """Watchdog of this process, which ends its stages if it dies; without it each stage has its own."""
    leave: Callable[[str], None] = logger.error
    """Callback for what the worker could not release: it should not take another stage."""

    done: Callable[[], None] = lambda: None
    """Callback for the end of a stage that this worker worked on."""
    announce: Callable[[str], None] = logger.debug
    """Callback for a job that has a notice for its webhook."""

    look: Callable[[], None] = lambda: None
    """Callback between the pieces of a long transfer; may raise to end it."""

    def attended(self, look: Callable[[], None]) -> Worker:
        """Return the same worker with ``look`` called during transfers."""
        return replace(self, store=self.store.attended(look), look=look)

    @property
    def models(self) -> ModelCache:
        return ModelCache(self.settings.prepared_dir, self.store)


def prepare_folder(
    folder: Path, stage: Stage, attempt: int, *, records: JobRepository, worker: Worker
) -> str:
    """Fill ``in`` and ``request.json``; return the digest of all inputs."""
    job = records.request()
    made = {
        earlier: records.committed(_marker(records, earlier, needed_by=stage))
        for earlier in stage_files.NEEDED[stage]
    }
    if stage is Stage.TRAIN:
        # First: while examples and checkpoint come, the disk can read it.
        _provide_model(folder / "in" / "model", str(made[Stage.LOAD_MODEL].model_digest), worker)
    for earlier, patterns in stage_files.NEEDED[stage].items():
        stage_files.download(worker.store, made[earlier].files, folder / "in" / earlier, patterns)
    stored = records.table_file(job)
    table = None
    if stage is Stage.PREPARE_DATA:
        check_access(worker.store, job, known_only=worker.settings.datasets == "known")
        table = fetch_table(
            job, stored, folder / "in", store=worker.store, settings=worker.settings, look=worker.look
        )
        if job.config.dp_enabled:
            write_keys(folder / "in", job, store=worker.store)
    if stage in (Stage.PREPARE_DATA, Stage.LOAD_MODEL):
        name = job.config.training.pretrained_model
        trusted = name in worker.settings.trust_remote_code
        _fetch_source(name, folder / "in" / "source", store=worker.store, trusted=trusted)
    prepared = tuple(records.prepared_models()) if stage is Stage.LOAD_MODEL else ()
    halvings = sum(ending.retry is Retry.SMALLER_BATCH for ending in records.endings(stage))
    request = _request(job, table=table, prepared=prepared, settings=worker.settings)
    charged = records.charges.begin(attempt) if _takes_private_steps(job, stage) else None
    request = request.model_copy(
        update={
            "halvings": halvings,
            "charged_steps": charged,
            "budget_name": budget_name(worker.store, job),
            "keep_draw": stage is Stage.PREPARE_DATA and job.config.dp_enabled,
        }
    )
    (folder / "request.json").write_text(request.model_dump_json(), encoding="utf-8")
    return stage_files.input_digest(job, stored, made)


def _provide_model(link: Path, digest: str, worker: Worker) -> None:
    """Lead to this machine's copy of a prepared model, and begin to read its weights."""
    link.unlink(missing_ok=True)
    model = worker.models.fetch(digest).absolute()
    link.symlink_to(model)
    read_ahead(model)


def _takes_private_steps(job: JobRequest, stage: Stage) -> bool:
    return stage is Stage.TRAIN and job.config.dp_enabled


def _marker(records: JobRepository, stage: Stage, *, needed_by: Stage) -> StageCommit:
    marker = records.marker(stage)
    if marker is None:
        raise StoreUnavailable(f"Stage {needed_by} was delivered, but {stage} is not committed.")
    return marker


def _fetch_source(name: str, folder: Path, *, store: Store, trusted: bool = False) -> None:
    """Download a base model that the config names as ``store:<prefix>``."""
    if name.startswith("store:"):
        prefix = name.removeprefix("store:").strip("/") + "/"
        if prefix.split("/")[0] in RESERVED:
            remedy = f"what is below {', '.join(RESERVED)} belongs to jobs; put base models elsewhere"
            problem = Problem(field="training.pretrained_model", value=name[:200], remedy=remedy)
            raise ParameterError("The base model is refused.", [problem])
        for key in store.list(prefix):
            file = key.removeprefix(prefix)
            if is_read(file, trusted=trusted):
                _check_size(name, file, store.size(key))
                store.download(key, folder / file)


def _check_size(name: str, file: str, size: int) -> None:
    most = DOCUMENT_BYTES.get(file)
    if most is not None and size > most:
        remedy = f"{file} has {size:,} bytes; {most:,} are allowed"
        problem = Problem(field="training.pretrained_model", value=name[:200], remedy=remedy)
        raise ParameterError("The base model is refused.", [problem])


def _dataset_name(job: JobRequest) -> str:
    """Return the table's name in the metadata: its file's, or for a strictly private job the declared one."""
    if job.config.strictly_private:
        return job.config.guarantee.dataset or DATASET_NAME
    return Path(job.table.name).stem


def _request(job: JobRequest, *, table: str | None, prepared: tuple[str, ...], settings: Settings) -> Request:
    return Request(
        job_id=job.job_id,
        table=table,
        dataset_name=_dataset_name(job),
        config=job.config,
        family=job.family,
        seed=job.seed,
        policy=settings.model_policy,
        limits=settings.table_limits,
        memory_bytes=settings.prepare_memory_bytes,
        cpu_s=settings.prepare_cpu_s,
        max_train_s=settings.max_train_s,
        reporters=settings.report_to,
        ranks=job.ranks,
        max_ranks=settings.ranks,
        fsdp=job.fsdp,
        kernels=Kernels(
            layers=settings.train_layers,
            loss=settings.train_loss,
            rooms=str((settings.kernels_dir / "rooms").absolute()),
        ),
        checkpoints=CheckpointPolicy(
            every_s=settings.checkpoint_every_s, every_steps=settings.checkpoint_every_steps
        ),
        prepared=prepared,
        known=str(settings.known_dir.absolute()),
        paces=str(settings.paces_dir.absolute()),
    )
