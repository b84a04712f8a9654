"""The status of a job, read from the store alone."""

from __future__ import annotations

import json
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from nss_train.contract import Frozen, Stage
from nss_train.cost.cost import Cost
from tasks.jobs.documents import JobState, OutcomeRecord, StageCommit, warnings_among
from tasks.jobs.repository import JobRepository
from tasks.jobs.submission import DEFAULT_PRIORITY, DEFAULT_TENANT
from tasks.scheduling.admission import Place


class StageState(StrEnum):
    """The state of one stage of a job."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    """The stage had begun, and the job ended before the stage was done."""


class StageStatus(Frozen):
    """The status of one stage of a job."""

    stage: Stage
    state: StageState
    attempt: int = 0
    retries: tuple[str, ...] = ()
    """Reasons why earlier attempts ended."""
    seconds: float | None = None
    progress: dict[str, Any] | None = None
    """Fields of the last progress event: step, total_steps, loss, tokens_per_s, eta_s."""
    figures: dict[str, Any] = Field(default_factory=dict)


class JobStatus(Frozen):
    """The status of a job, as `status` shows it."""

    job_id: str
    state: JobState
    table: str
    submitted_at: datetime
    stages: tuple[StageStatus, ...]
    priority: int = DEFAULT_PRIORITY
    tenant: str = DEFAULT_TENANT
    place: Place | None = None
    """Place of a queued job in line, if the broker reports it."""
    outcome: OutcomeRecord | None = None
    error: dict[str, Any] | None = None
    reason: str | None = None
    read_as: str | None = None
    """Format, encoding and size of the table as prepare_data detected them; not of a private table."""
    warnings: tuple[str, ...] = ()
    """Warnings about the job, known once prepare_data is done."""
    cost: Cost | None = None
    """Cost of the training: without its time once prepare_data is done, with it once load_model is done."""

    @property
    def is_training(self) -> bool:
        """Tell whether the training has begun; this stays true once it is over."""
        train = next((stage for stage in self.stages if stage.stage is Stage.TRAIN), None)
        return train is not None and train.state is not StageState.PENDING

    @property
    def ended(self) -> bool:
        return self.outcome is not None


def read_status(records: JobRepository) -> JobStatus:
    """Return the job's status; raise :class:`~nss_train.errors.ParameterError` for an unknown job."""
    request = records.request()
    outcome = records.outcome()
    stages = tuple(_stages(records, ended=outcome is not None))
    return JobStatus(
        job_id=request.job_id,
        state=_state(outcome, stages),
        table=request.table.name,
        submitted_at=request.submitted_at,
        priority=request.priority,
        tenant=request.tenant,
        stages=stages,
        outcome=outcome,
        error=None if outcome is None else outcome.error,
        reason=None if outcome is None else outcome.reason,
        read_as=stages[0].figures.get("read_as"),
        warnings=warnings_among(stages[0].figures),
        cost=_cost(stages),
    )


def _cost(stages: tuple[StageStatus, ...]) -> Cost | None:
    found = (Cost.among(stage.figures) for stage in reversed(stages) if stage.figures)
    return next((cost for cost in found if cost is not None), None)


def _state(outcome: OutcomeRecord | None, stages: tuple[StageStatus, ...]) -> JobState:
    if outcome is not None:
        return JobState(outcome.outcome.value)
    started = any(stage.state is not StageState.PENDING for stage in stages)
    return JobState.RUNNING if started else JobState.QUEUED


def _stages(records: JobRepository, *, ended: bool) -> list[StageStatus]:
    found: list[StageStatus] = []
    for stage in Stage:
        reached = not found or found[-1].state is StageState.DONE
        marker = records.marker(stage) if reached else None
        if marker is not None:
            found.append(_done(marker))
        else:
            pending = StageStatus(stage=stage, state=StageState.PENDING)
            found.append(_unfinished(records, stage, ended=ended) if reached else pending)
    return found


def _done(marker: StageCommit) -> StageStatus:
    seconds = (marker.finished_at - marker.started_at).total_seconds()
    return StageStatus(
        stage=marker.stage,
        state=StageState.DONE,
        attempt=marker.attempt,
        seconds=seconds,
        figures=marker.figures,
    )


def _unfinished(records: JobRepository, stage: Stage, *, ended: bool) -> StageStatus:
    attempt = max(records.attempts(stage), default=0)
    if attempt == 0:
        return StageStatus(stage=stage, state=StageState.PENDING)
    try:
        progress = json.loads(records.store.read(records.keys.progress(stage, attempt)))
    except KeyError:
        progress = None
    retries = tuple(str(ending) for ending in records.told_endings(stage))
    state = StageState.STOPPED if ended else StageState.RUNNING
    return StageStatus(stage=stage, state=state, attempt=attempt, retries=retries, progress=progress)
