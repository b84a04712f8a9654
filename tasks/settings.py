"""The only reader of the environment."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings of a client or a worker; each is read from ``NSS_TRAIN_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="NSS_TRAIN_", frozen=True, extra="ignore")

    home: Path = Field(default_factory=lambda: Path("~/.cache/nss-train").expanduser())
    """Folder for base models, prepared models, scratch and the default store."""

    broker_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """Redis or Valkey, ``redis://`` or ``rediss://``."""
    queue_cpu: str = "cpu"
    queue_cuda: str = "cuda"

    store_url: str = ""
    """``file:///folder`` or ``s3://bucket``; empty means ``<home>/store``."""
    s3_endpoint: str = ""
    """Host and port of the S3 service, such as ``minio:9000``."""
    s3_access_key: SecretStr = SecretStr("")
    s3_secret_key: SecretStr = SecretStr("")
    s3_secure: bool = True

    allowed_table_uris: tuple[str, ...] = ()
    """Prefixes (``s3://bucket/folder/``) under which a job may name its table by URI."""
    allow_hub: bool = False
    """Whether a base model may be downloaded from the model hub."""
    trust_remote_code: tuple[str, ...] = ()
    """Base models whose own Python code may run."""

    visibility_timeout_s: float = 900.0
    """A message whose worker is dead comes again after this time; a living worker keeps renewing it."""
    visibility_heartbeat: bool = True
    """Off only to show what happens without it."""
    reconcile_every_s: float = 60.0
    """How often jobs without a message are looked for; 0 for never."""
    lease_ttl_s: float = 60.0
    tick_s: float = 0.5
    """How often a running stage is checked for cancellation; bounds the cancel delay."""
    kill_grace_s: float = 2.0
    """Between SIGTERM and SIGKILL of a child's process group."""
    max_train_s: float | None = None
    """Training of a job ends in good order after this time; ``None``: never."""
    report_to: tuple[str, ...] = ()
    """Experiment trackers: ``["wandb", "mlflow", "tensorboard"]``, their own variables apply."""
    max_attempts: int = 3
    """Claims of one stage before the job fails."""

    def as_environment(self) -> dict[str, str]:
        """Variables from which the same settings can be read."""
        return {f"NSS_TRAIN_{name.upper()}": _as_text(value) for name, value in self if value is not None}

    @property
    def models_dir(self) -> Path:
        return self.home / "models"

    @property
    def prepared_dir(self) -> Path:
        return self.home / "prepared"

    @property
    def scratch_dir(self) -> Path:
        return self.home / "scratch"

    @property
    def effective_store_url(self) -> str:
        return self.store_url or (self.home / "store").absolute().as_uri()


def _as_text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value) if isinstance(value, str | Path) else json.dumps(value)


def child_environment() -> dict[str, str]:
    """The environment for a stage's process: this one without our settings, which hold secrets."""
    return {name: value for name, value in os.environ.items() if not name.startswith("NSS_TRAIN_")}


def worker_environment(settings: Settings) -> dict[str, str]:
    """The environment for a worker that shall have these settings."""
    return child_environment() | settings.as_environment()
