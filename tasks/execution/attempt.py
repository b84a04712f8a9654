"""One attempt at a stage: fetch, supervise the child, upload, commit."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nss_train.contract import (
    CHARGE,
    CHECKPOINT_SAVED,
    CHECKPOINTS,
    DRAW,
    PROPOSED_DRAW,
    SKETCH,
    TRAIN_STEP,
    Event,
    Stage,
    StageResult,
)
from nss_train.errors import DiskFull, NSSTrainError, Retry, StoreUnavailable
from nss_train.privacy.sketch import Sketch
from tasks.execution.checkpoints import CheckpointStore, Uploader
from tasks.execution.disk import errors_of_the_machine, remove_copies
from tasks.execution.inputs import Worker, prepare_folder
from tasks.execution.interrupts import Interrupts
from tasks.execution.processes.supervisor import Limits, StageStopped, StopReason, run_child
from tasks.execution.progress import Progress
from tasks.execution.scratch import scratch
from tasks.jobs import stage_files
from tasks.jobs.documents import PrivateFiles, StageCommit
from tasks.jobs.gate import Gate
from tasks.jobs.privacy import same_data
from tasks.jobs.privacy.charges import allow, hand_over
from tasks.jobs.repository import JobRepository
from tasks.settings import Settings, child_environment
from tasks.telemetry import tracing
from tasks.telemetry.counters import Action, count
from tasks.telemetry.histograms import TrainingMeter

logger = logging.getLogger(__name__)


class Attempt:
    """Attempt ``number`` at a stage, by the worker that holds its lease."""

    def __init__(
        self,
        stage: Stage,
        number: int,
        *,
        records: JobRepository,
        worker: Worker,
        interrupts: Interrupts,
        gate: Gate,
    ) -> None:
        self._stage = stage
        self._number = number
        self._gate = gate
        self._records = records
        self._worker = worker
        self._interrupts = interrupts
        self._attended = worker.attended(interrupts.poll_throttled)
        self._checkpoints = CheckpointStore(worker.store, records.keys, private=gate.strict)

    def run(self) -> bool:
        """Run the attempt; return whether its outputs are now those of the stage. If not, they are deleted.

        Raises the stage's error, or :class:`StageStopped`.
        """
        committed = False
        name = f"{self._records.job_id}.{self._stage}.{self._number}"
        try:
            with (
                errors_of_the_machine(self._worker.settings.scratch_dir),
                scratch(self._worker.settings.scratch_dir / name, on_left=self._worker.leave) as folder,
            ):
                committed = self._work(folder)
        except DiskFull:
            # How much was missing is unknown: the next attempt gets all that can be freed.
            remove_copies(self._worker, free_bytes=math.inf)
            raise
        finally:
            if not committed:
                self._discard()
        return committed

    def _work(self, folder: Path) -> bool:
        started_at, patiently = datetime.now(UTC), self._interrupts.retry_while_store_unavailable
        with tracing.span("fetch"):
            digest = patiently(lambda: self._fetch(folder))
        with tracing.span("run"):
            result = self._supervise(folder)
        patiently(lambda: self._reserve(folder, result))
        with tracing.span("upload"):
            figures = patiently(lambda: self._adopt_model(result, folder))
            stored = patiently(lambda: self._upload(folder))
            private = PrivateFiles(files=stored.private, input_digest=digest)
            patiently(lambda: self._records.keep_private(self._stage, self._number, private))
        if patiently(self._records.cancellation) is not None:
            raise StageStopped(StopReason.CANCELLED)
        marker = StageCommit(
            stage=self._stage,
            attempt=self._number,
            started_at=self._gate.began(started_at),
            finished_at=self._gate.ended(datetime.now(UTC)),
            files=stored.published,
            figures=self._gate.figures(self._stage, figures),
            model_digest=result.model_digest,
        )
        with tracing.span("commit"):
            return patiently(lambda: self._commit(marker))

    def _upload(self, folder: Path) -> stage_files.Uploaded:
        return stage_files.upload(
            self._attended.store,
            self._records.keys,
            self._stage,
            self._number,
            folder / "out",
            gate=self._gate,
        )

    def _fetch(self, folder: Path) -> str:
        digest = prepare_folder(
            folder, self._stage, self._number, records=self._records, worker=self._attended
        )
        if self._stage is Stage.TRAIN:
            kept = self._checkpoints.attended(self._interrupts.poll_throttled).restore(
                folder / "in" / "checkpoint"
            )
            if kept is not None:
                count(self._worker.redis, Action.RESUMED)
                fields = {"action": "stage.resumed", "step": kept.step, "kept_by": kept.attempt}
                logger.info("resuming after step %d", kept.step, extra=fields)
        return digest

    def _supervise(self, folder: Path) -> StageResult:
        settings = self._worker.settings
        progress, uploader = self._progress(), self._uploader()

        def on_event(event: Event) -> None:
            if event.action == CHARGE:
                self._charge(folder, int(event.fields["steps"]))
                return
            if event.action == DRAW:
                self._keep_draw(folder, event.fields["price"])
                return
            if event.action == CHECKPOINT_SAVED:
                step = int(event.fields["step"])
                uploader.offer(folder / CHECKPOINTS / str(step), step)
                if self._gate.strict:
                    return  # its time would tell how long the steps before it took
            if event.action != TRAIN_STEP:
                tracing.event(event.action)
            progress.report(event)

        self._interrupts.folder = folder
        try:
            return run_child(
                self._stage,
                folder,
                on_event=on_event,
                on_tick=self._interrupts.poll,
                limits=_limits(settings),
                environment=child_environment(settings),
                quiet=self._gate.strict,
                hosts=self._worker.hosts,
                watchdog=self._worker.watchdog,
            )
        except (StageStopped, NSSTrainError) as end:
            if _goes_on(end):
                self._finish_upload(uploader)
            raise
        finally:
            uploader.close(self._interrupts.poll)  # its answer is ignored: this is the fastest way out
            progress.close()
            self._interrupts.store_log(folder)
            self._interrupts.folder = None

    def _progress(self) -> Progress:
        worker = self._worker
        # Not even the steps of a strictly private training are counted as they are taken.
        meter = None if self._gate.strict else TrainingMeter(worker.redis, worker=worker.name)
        return Progress(
            redis=worker.redis,
            store=worker.store,
            job_id=self._records.job_id,
            stage=self._stage,
            attempt=self._number,
            send_event=worker.send_event,
            meter=meter,
            gate=self._gate,
        )

    def _uploader(self) -> Uploader:
        redis = self._worker.redis
        return Uploader(
            self._checkpoints,
            attempt=self._number,
            keep=self._worker.settings.keep_checkpoints,
            tick_s=self._worker.settings.tick_s,
            on_uploaded=(lambda: None) if self._gate.strict else (lambda: count(redis, Action.CHECKPOINTS)),
        )

    def _charge(self, folder: Path, steps: int) -> None:
        """Put private steps on record, however long that takes, and let the stage continue."""
        self._interrupts.retry_while_store_unavailable(
            lambda: self._records.charges.record(self._number, steps)
        )
        self._interrupts.retry_while_store_unavailable(self._look_for_seal)
        allow(folder, steps)

    def _keep_draw(self, folder: Path, price: dict[str, Any]) -> None:
        """Put on record what the stage drew, paid for, and give the stage what is on record."""
        proposed = (folder / PROPOSED_DRAW).read_bytes()
        kept = self._interrupts.retry_while_store_unavailable(
            lambda: self._records.charges.keep_draw(price, proposed)
        )
        self._interrupts.retry_while_store_unavailable(self._look_for_seal)
        hand_over(folder, kept)

    def _look_for_seal(self) -> None:
        """Stop when what was just put on record may have come too late to be counted.

        A settlement ends the job before it sums up, and a takeover claims the stage before it sums up. So
        either they have seen the record, or it is not used.
        """
        if self._records.settle() or self._records.is_fenced(self._stage, self._number):
            raise StageStopped(StopReason.LEASE_LOST)

    def _reserve(self, folder: Path, result: StageResult) -> None:
        """Set aside what a private job may cost before anything expensive.

        Raises :class:`~nss_train.errors.BudgetExceeded` when too little of its dataset's budget is left.
        """
        if result.stage is not Stage.PREPARE_DATA or "privacy" not in result.figures:
            return
        with self._compared(folder / SKETCH, str(result.figures["privacy"]["dataset"])):
            self._records.charges.reserve(result.figures["privacy"])
        if self._records.settle():
            # The job ended elsewhere, and its settlement may have come before this reservation.
            raise StageStopped(StopReason.LEASE_LOST)

    @contextmanager
    def _compared(self, file: Path, dataset: str) -> Iterator[None]:
        """Charge a table inside the block unless the settings refuse it, seen under another name before.

        That is reported to the operator in any case.
        """
        if not file.is_file():
            yield
            return
        store, sketch = self._worker.store, Sketch.model_validate_json(file.read_bytes())
        with same_data.notice(store, dataset, sketch, job_id=self._records.job_id) as found:
            if found:
                count(self._worker.redis, Action.SAME_DATA)
            if found and self._worker.settings.same_data == "refuse":
                same_data.refuse(store, dataset, found)
            if self._records.charges.draw() is not None:
                same_data.keep(store, dataset, sketch)  # something was charged, whatever follows
            yield
            same_data.keep(store, dataset, sketch)

    def _finish_upload(self, uploader: Uploader) -> None:
        try:
            uploader.finish(self._interrupts.grace_left_s, self._interrupts.poll_ignoring_drain)
        except (TimeoutError, OSError, StoreUnavailable):
            logger.warning("the last checkpoint is not in the store; the one before it counts", exc_info=True)

    def _adopt_model(self, result: StageResult, folder: Path) -> dict[str, Any]:
        """Move a freshly prepared model to the cache, or count the hit."""
        if result.model_digest is None:
            return result.figures
        made = folder / "out" / "model"
        if made.exists():
            self._attended.models.adopt(result.model_digest, made)
            shutil.rmtree(made, ignore_errors=True)  # the cache has it: it is none of the stage's outputs
            return result.figures | {"cache": "miss"}
        count(self._worker.redis, Action.MODEL_CACHE_HITS)
        fields = {"action": "model.cache_hit", "digest": result.model_digest}
        logger.info("cache hit: model %s is prepared already", result.model_digest[:12], extra=fields)
        return result.figures | {"cache": "hit"}

    def _commit(self, marker: StageCommit) -> bool:
        committed = self._records.commit(marker)
        action = "stage.committed" if committed else "stage.fenced"
        logger.info("%s, attempt %d", action, marker.attempt, extra={"action": action})
        if not committed:
            count(self._worker.redis, Action.FENCED)
        return committed

    def _discard(self) -> None:
        try:
            self._records.discard_attempt(self._stage, self._number)
            if self._records.outcome() is not None or self._records.marker(self._stage) is not None:
                self._checkpoints.discard(self._number)
        except StoreUnavailable:
            # The attempt's own error matters more; what stays is invisible, and goes when the job ends.
            logger.exception("attempt %d was not cleaned up", self._number)


def _goes_on(end: StageStopped | NSSTrainError) -> bool:
    """Tell whether another attempt takes over where this one ended."""
    if isinstance(end, StageStopped):
        return end.reason is StopReason.DRAINED
    return end.retry is not Retry.NEVER


def _limits(settings: Settings) -> Limits:
    return Limits(
        tick_s=settings.tick_s,
        kill_grace_s=settings.kill_grace_s,
        start_s=settings.start_deadline_s,
        progress_s=settings.progress_deadline_s,
        total_s=settings.stage_deadline_s,
    )
