"""The keys of the store: one job's documents and files, and the prepared base models."""

from __future__ import annotations

from nss_train.contract import Stage
from tasks.jobs.ids import check_job_id

RESERVED = ("jobs", "models", "open", "privacy", "webhooks")
"""Folders of the store that this service writes itself."""


class Keys:
    """Store keys of one job."""

    def __init__(self, job_id: str) -> None:
        self.root = f"jobs/{check_job_id(job_id)}"
        self.private = f"{self.root}/private/"
        """Folder for workers and operators alone: the table, and what reveals more of it than was paid
        for."""
        self.request = f"{self.root}/request.json"
        self.cancel = f"{self.root}/cancel.json"
        self.outcome = f"{self.root}/outcome.json"
        self.checkpoints = f"{self.root}/checkpoints/"
        self.private_checkpoints = f"{self.private}checkpoints/"
        """Folder of a strictly private job's checkpoints: the time of each tells how long steps took."""
        self.privacy_plan = f"{self.root}/privacy.json"
        self.charges = f"{self.private}charges/"
        """Folder of the payments for private steps: the time of each tells how long steps took."""
        self.old_charges = f"{self.root}/privacy/"
        """Folder where versions 1 to 5 paid."""
        self.holdout_key = f"{self.private}key"
        self.draw = f"{self.private}draw.json"
        self.open = f"open/{job_id}"
        """Key that is written before the request, and removed when the job has ended and is tidied up."""
        self.webhook_pending = f"webhooks/{job_id}"
        """Key that exists until all of the job's notices are delivered or given up."""

    def table(self, name: str) -> str:
        return f"{self.private}input/{name}"

    def table_file(self, name: str) -> str:
        return f"{self.table(name)}.json"

    def old_table(self, sha256: str) -> str:
        """Return the key of a table that releases 1 to 3 stored."""
        return f"{self.root}/input/{sha256}"

    def marker(self, stage: Stage) -> str:
        return f"{self.root}/stages/{stage}.json"

    def attempts(self, stage: Stage) -> str:
        return f"{self.root}/attempts/{stage}/"

    def attempt(self, stage: Stage, number: int) -> str:
        return f"{self.attempts(stage)}{number}"

    def charge(self, attempt: int) -> str:
        return f"{self.charges}{attempt}.json"

    def old_charge(self, attempt: int) -> str:
        return f"{self.old_charges}{attempt}.json"

    def webhooks(self, notice: str) -> str:
        return f"{self.root}/webhooks/{notice}/"

    def webhook(self, notice: str, attempt: int) -> str:
        return f"{self.webhooks(notice)}{attempt}.json"

    def claim(self, stage: Stage, number: int) -> str:
        return f"{self.attempt(stage, number)}/claim.json"

    def ending(self, stage: Stage, number: int) -> str:
        return f"{self.attempt(stage, number)}/ending.json"

    def log(self, stage: Stage, number: int) -> str:
        return f"{self.attempt(stage, number)}/log.txt"

    def progress(self, stage: Stage, number: int) -> str:
        return f"{self.attempt(stage, number)}/progress.json"

    def output(self, stage: Stage, number: int, path: str) -> str:
        return f"{self.attempt(stage, number)}/out/{path}"

    def private_attempt(self, stage: Stage, number: int) -> str:
        return f"{self.private}attempts/{stage}/{number}"

    def private_files(self, stage: Stage, number: int) -> str:
        return f"{self.private_attempt(stage, number)}/files.json"

    def private_ending(self, stage: Stage, number: int) -> str:
        return f"{self.private_attempt(stage, number)}/ending.json"

    def private_log(self, stage: Stage, number: int) -> str:
        return f"{self.private_attempt(stage, number)}/log.txt"

    def private_output(self, stage: Stage, number: int, path: str) -> str:
        return f"{self.private_attempt(stage, number)}/out/{path}"


def model_prefix(digest: str) -> str:
    """Return the store folder of a prepared base model; its ``manifest.json`` is written last."""
    return f"models/{digest}"
