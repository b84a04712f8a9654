"""The only reader of the environment."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from nss_train.contract import ModelPolicy, TableLimits
from nss_train.errors import ParameterError, Problem

_Duration = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Interval = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0)]
_Several = Annotated[int, Field(ge=1)]


_PREFIX = "NSS_TRAIN_"
DEVICES = f"{_PREFIX}DEVICES"
VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
_OF_A_SERVICE = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)$")
"""Variables that Kubernetes sets for a service whose name begins with ``nss-train``."""


class Settings(BaseSettings):
    """Settings of a client or a worker; each is read from ``NSS_TRAIN_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="ignore")

    home: Path = Field(default_factory=lambda: Path("~/.cache/nss-train").expanduser())
    """Folder for base models, prepared models, scratch and the default store."""

    broker_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """URL of Redis or Valkey, ``redis://`` or ``rediss://``."""
    queue_cpu: str = "cpu"
    queue_cuda: str = "cuda"
    """Queue of trainings, unless ``cuda_queues`` names several."""
    cuda_queues: dict[str, float] = Field(default_factory=dict)
    """Queues of trainings and the GiB of device memory that their workers have: ``{"cuda-24g": 24}``.

    A training goes to the smallest queue that has enough memory for it."""

    store_url: str = ""
    """URL of the store, ``file:///folder`` or ``s3://bucket``; empty means ``<home>/store``."""
    s3_endpoint: str = ""
    """Host and port of the S3 service, such as ``minio:9000``."""
    s3_region: str = ""
    """Region of the bucket, such as ``eu-central-1``; empty: the service is asked."""
    s3_access_key: SecretStr = SecretStr("")
    s3_secret_key: SecretStr = SecretStr("")
    s3_secure: bool = True
    """Whether the S3 service uses TLS. ``SSL_CERT_FILE`` names a PEM file for a private certificate."""

    allowed_table_uris: tuple[str, ...] = ()
    """Prefixes (``s3://bucket/folder/``) under which a job may name its table by URI."""
    allow_model_paths: bool = True
    """Whether a job may name a base model by any path on the worker; turn it off for untrusted users."""
    allow_hub: bool = False
    """Whether a base model may be downloaded from the model hub."""
    trust_remote_code: tuple[str, ...] = ()
    """Base models whose own Python code may run."""

    visibility_timeout_s: _Interval = 900.0
    """Time after which a dead worker's message is delivered again; a live worker keeps renewing it."""
    visibility_heartbeat: bool = True
    """Whether workers renew their messages; off only to show what happens without it."""
    reconcile_every_s: _Duration = 60.0
    """Interval at which jobs without a message are looked for; 0: never."""
    tenant_quota: _Count = 0
    """Jobs of one tenant that may run at a time; 0: as many as there is room for."""
    admission_window: _Several = 8
    """Stages that may wait in each queue; other jobs wait outside for their tenant's turn."""
    lease_ttl_s: _Interval = 60.0
    """Time for which a silent worker keeps its lease of a stage."""
    tick_s: _Interval = 0.5
    """Interval at which a running stage is checked for cancellation; bounds the cancel delay."""
    kill_grace_s: _Duration = 2.0
    """Time between SIGTERM and SIGKILL of a child's process group."""
    start_deadline_s: _Interval = 120.0
    """Time within which a stage's process must be up."""
    progress_deadline_s: _Interval = 900.0
    """Longest silence of a stage before it counts as stalled."""
    stage_deadline_s: _Interval | None = None
    """Longest run of a stage, which then fails its job; ``None``: as long as it makes progress."""
    warm_hosts: Literal["ahead", "lazily", "never"] = "ahead"
    """When a worker starts the processes that have torch imported, from which it forks its stages: with its
    own start, with the first stage that needs one, or never. They hold 0.8 GB for each stage at a time."""
    drain_grace_s: _Duration = 120.0
    """Time that a stage has after the first SIGTERM to save its state, or to end."""
    store_patience_s: _Duration = 600.0
    """Time that a finished stage waits for an unavailable store before the stage is repeated."""
    prepared_max_bytes: _Count | None = None
    """Size limit of this machine's copies of prepared base models; the least recently used go first.
    ``None``: as much as leaves ``scratch_free_bytes`` on the disk."""
    scratch_free_bytes: _Count = 64 * 2**20
    """Free disk space below which a worker takes no stage."""
    checkpoint_every_s: _Interval | None = 300.0
    """Interval of a training's checkpoints, in seconds and in optimizer steps; whichever is due first."""
    checkpoint_every_steps: _Several | None = None
    keep_checkpoints: _Several = 2
    ranks: _Count = 0
    """Processes that a training may use; 0: one for each CUDA device, or one."""
    train_layers: Literal["auto", "compiled", "eager"] = "auto"
    """Whether trainings compile the model's layers; ``auto``: long ones on a CUDA device do."""
    train_loss: Literal["auto", "chunked", "model"] = "auto"
    """Whether a training's loss is computed in parts; ``auto``: where the model's family is known."""
    devices: tuple[str, ...] = ()
    """CUDA devices of this worker, as in CUDA_VISIBLE_DEVICES; empty: those of the environment."""
    log_format: Literal["text", "json"] = "text"
    unlisted_raises: bool = False
    """Whether a field that is not listed as public ends a strictly private job (for tests) or is left out."""
    otlp_endpoint: str = ""
    """Endpoint of traces, such as ``http://collector:4318/v1/traces``; empty: nothing is traced."""
    max_train_s: _Interval | None = None
    """Time after which a job's training ends gracefully; ``None``: never."""
    report_to: tuple[str, ...] = ()
    """Experiment trackers: ``["wandb", "mlflow", "tensorboard"]``, their own variables apply."""
    max_attempts: _Several = 3
    """Claims of one stage without any progress before the job fails."""

    table_max_bytes: _Several = 4 * 2**30
    table_max_rows: _Several = 50_000_000
    table_max_columns: _Several = 4_000
    table_max_cell_chars: _Several = 200_000
    table_max_decoded_bytes: _Several = 16 * 2**30
    """Size of a table in memory: each text written out, each other cell as 8 bytes."""
    table_max_expansion: _Several = 200
    """Decoded bytes for each byte of a table's file, unless the decoded bytes are few."""
    table_max_depth: _Several = 32
    """Nesting depth of lists and objects in JSON Lines."""
    prepare_memory_bytes: _Several | None = None
    """Memory of the process that reads a table (RLIMIT_DATA); ``None``: as much as there is."""

    prepare_cpu_s: _Several | None = 800
    """CPU time of the process that reads a table (RLIMIT_CPU); ``None``: no limit.

    Fifty million rows of a usual table take 300 s. The limit lies below ``progress_deadline_s``, to
    distinguish endless computing from waiting for a disk."""

    datasets: Literal["any", "known"] = "any"
    """Datasets that private jobs may name: any, or only those with a budget (``nss-train budget set``).

    With ``known`` a private job that names none is refused, too."""
    same_data: Literal["warn", "refuse"] = "warn"
    """Response to a private job whose table was seen under another dataset's name: the operator is warned (in
    the log, by a counter and by ``budget show``), or the job is refused as well."""
    dataset_token: SecretStr = SecretStr("")
    """Token that ``budget set`` printed for the dataset of a client's jobs."""

    webhook_hosts: tuple[str, ...] = ()
    """Hosts that a job may name as a webhook's receiver; empty: no webhooks."""
    webhook_secret: SecretStr = SecretStr("")
    """Signing secret, ``whsec_`` and Base64 (standardwebhooks.com); several, with spaces, to replace one."""
    webhook_http: bool = False
    """Whether ``http://`` is allowed as well."""
    webhook_networks: tuple[str, ...] = ()
    """Networks (``10.1.0.0/16``) whose addresses may be called though they are not public."""
    webhook_timeout_s: _Interval = 10.0
    webhook_attempts: _Several = 8
    """Attempts to deliver a notice before it is given up."""
    webhook_backoff_s: _Duration = 30.0
    """Pause between the first and the second attempt; each further pause is four times as long."""

    @field_validator("home", mode="before")
    @classmethod
    def _is_a_folder(cls, home: Any) -> Any:
        """Refuse what is no folder, and expand ``~``: no shell expands it in quotes or in a unit's file."""
        if home == "":
            raise ValueError("is empty; give a folder, or unset it")
        expanded = os.path.expanduser(home)  # noqa: PTH111 - Path's fails for a user without a home
        if os.path.isfile(expanded):  # noqa: PTH113 - Path's fails where it may not look
            raise ValueError("is a file; give a folder")
        return expanded

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            # The cause is left out: it holds the values of secrets.
            raise ParameterError("The settings are wrong.", list(_problems(error))) from None
        except SettingsError as error:
            field = re.search(r'field "(\w+)"', str(error))
            name = f"NSS_TRAIN_{field[1].upper()}" if field else "NSS_TRAIN_…"
            remedy = 'is no JSON; write a list as ["a", "b"] and a map as {"a": 1}'
            problem = Problem(field=name, value=os.environ.get(name), remedy=remedy)
            raise ParameterError("The settings are wrong.", [problem]) from None

    def as_environment(self) -> dict[str, str]:
        """Return environment variables from which the same settings can be read."""
        return {f"NSS_TRAIN_{name.upper()}": _as_text(value) for name, value in self if value is not None}

    @property
    def table_limits(self) -> TableLimits:
        return TableLimits(
            file_bytes=self.table_max_bytes,
            rows=self.table_max_rows,
            columns=self.table_max_columns,
            cell_chars=self.table_max_cell_chars,
            decoded_bytes=self.table_max_decoded_bytes,
            expansion=self.table_max_expansion,
            depth=self.table_max_depth,
        )

    @property
    def model_policy(self) -> ModelPolicy:
        return ModelPolicy(
            models_dir=str(self.models_dir.absolute()),
            allow_paths=self.allow_model_paths,
            allow_hub=self.allow_hub,
            trust_remote_code=self.trust_remote_code,
        )

    @property
    def models_dir(self) -> Path:
        return self.home / "models"

    @property
    def prepared_dir(self) -> Path:
        return self.home / "prepared"

    @property
    def known_dir(self) -> Path:
        """Return the folder of what this machine knows of base models: their digests, what fits them."""
        return self.home / "known"

    @property
    def paces_dir(self) -> Path:
        """Return the folder of the speeds that were measured on this machine."""
        return self.home / "paces"

    @property
    def kernels_dir(self) -> Path:
        """Return the folder of compiled kernels, and of the micro-batches that fit this machine's devices."""
        return self.home / "kernels"

    @property
    def scratch_dir(self) -> Path:
        return self.home / "scratch"

    @property
    def cuda_queue_names(self) -> tuple[str, ...]:
        """Return the queues that trainings may go to, the smallest first."""
        return tuple(sorted(self.cuda_queues, key=lambda name: self.cuda_queues[name])) or (self.queue_cuda,)

    @property
    def heartbeats_dir(self) -> Path:
        return self.home / "heartbeats"

    @property
    def devices_dir(self) -> Path:
        """Return the folder of this machine's claims of devices."""
        return self.home / "devices"

    @property
    def wanted_devices(self) -> tuple[str, ...] | None:
        """Return the devices that these settings or CUDA_VISIBLE_DEVICES name; ``None``: all there are."""
        if self.devices:
            return self.devices
        named = os.environ.get(VISIBLE_DEVICES)
        return None if named is None else tuple(filter(None, map(str.strip, named.split(","))))

    @property
    def effective_store_url(self) -> str:
        return self.store_url or (self.home / "store").absolute().as_uri()


def _problems(error: ValidationError) -> Iterator[Problem]:
    for one in error.errors(include_url=False, include_context=False):
        name = str(one["loc"][0]) if one["loc"] else ""
        field = Settings.model_fields.get(name)
        is_secret = field is None or field.annotation is SecretStr
        value = None if is_secret else one["input"]
        yield Problem(
            field=f"NSS_TRAIN_{name.upper()}", value=value, remedy=one["msg"].removeprefix("Value error, ")
        )


def unknown_settings() -> list[Problem]:
    """Return a problem for each variable that looks like a setting and is none; its value is not shown."""
    known = {f"{_PREFIX}{name.upper()}" for name in Settings.model_fields}
    strange = sorted(name for name in os.environ if name.upper().startswith(_PREFIX))
    return [
        Problem(field=name, value="…", remedy=_nearest(name.upper(), known))
        for name in strange
        if name.upper() not in known and not _OF_A_SERVICE.search(name)
    ]


def _nearest(name: str, known: set[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"no such setting; did you mean {near[0]}?" if near else "no such setting; unset it"


def _as_text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value) if isinstance(value, str | Path) else json.dumps(value)


def child_environment(settings: Settings | None = None) -> dict[str, str]:
    """Return the environment for a child process: this one without our settings, which hold secrets.

    With a worker's ``settings`` it names the worker's devices, and the folder of the kernels that all
    workers of this machine share: each is compiled once.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NSS_TRAIN_")}
    if settings is None:
        return kept
    caches = {
        "TORCHINDUCTOR_CACHE_DIR": str(settings.kernels_dir / "inductor"),
        "TRITON_CACHE_DIR": str(settings.kernels_dir / "triton"),
    }
    return caches | kept | ({VISIBLE_DEVICES: ",".join(settings.devices)} if settings.devices else {})


def worker_environment(settings: Settings) -> dict[str, str]:
    """Return the environment for a worker with these settings."""
    return child_environment() | settings.as_environment()
