"""What crosses the border between a stage and whoever runs it. Light: no torch, no pandas."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from nss_train.config import SafeSynthesizerParameters


class Stage(StrEnum):
    """The four stages of a job, in order."""

    PREPARE_DATA = "prepare_data"
    LOAD_MODEL = "load_model"
    TRAIN = "train"
    SAVE_MODEL = "save_model"


class Frozen(BaseModel):
    """A JSON document that does not change and has no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelPolicy(Frozen):
    """What the operator of a worker allows as a base model."""

    models_dir: str
    """Folder in which a bare name such as ``SmolLM2-135M-Instruct`` is looked up."""
    allow_paths: bool = True
    """Whether a config may name a folder outside of it."""
    allow_hub: bool = False
    trust_remote_code: tuple[str, ...] = ()
    """Model names (exactly as in the config) whose own code may run."""


class CheckpointPolicy(Frozen):
    """How often a training keeps its state; at the end of a step, whichever is due first."""

    every_s: float | None = 300.0
    every_steps: int | None = None


class TableLimits(Frozen):
    """How large a table may be. It is measured before it is decoded; a refusal names every limit passed."""

    file_bytes: int = 4 * 2**30
    rows: int = 50_000_000
    columns: int = 4_000
    cell_chars: int = 200_000
    decoded_bytes: int = 16 * 2**30
    """In memory: each text written out, each other cell as 8 bytes."""
    expansion: int = 200
    """Times its file's size, of what is not small when decoded."""
    small_bytes: int = 256 * 2**20
    depth: int = 32
    """Of lists and objects in JSON."""


DATASET_NAME = "data"
"""What a table is called whose name is not told."""


class Request(Frozen):
    """What a stage is asked to do. The files it works on lie in ``folder/in``."""

    job_id: str
    table: str | None = None
    """File name of the table inside ``folder/in`` (prepare_data only)."""
    dataset_name: str = DATASET_NAME
    budget_name: str = ""
    """The ledger that a private job is charged to; empty: a random name that nobody else has."""
    config: SafeSynthesizerParameters
    """As submitted for prepare_data; later stages read the resolved one from ``in/prepare_data``."""
    family: str = ""
    """The base model's family, if neither its name nor its ``config.json`` tells it."""
    seed: int
    """Of shuffles, validation split, LoRA initialisation and training (never of privacy noise)."""
    policy: ModelPolicy
    limits: TableLimits = TableLimits()
    memory_bytes: int | None = None
    """Of the process that reads the table (prepare_data only); ``None``: as much as there is."""
    cpu_s: int | None = None
    """Time of its processors that the same process may take; ``None``: as much as it wants."""
    halvings: int = 0
    """How often the micro-batch is halved because memory ran out; accumulation makes up for it."""
    max_train_s: float | None = None
    """Training ends in good order after this time."""
    reporters: tuple[str, ...] = ()
    """Experiment trackers to report to: wandb, mlflow, tensorboard."""
    ranks: int = 0
    """Processes that shall train together; 0 leaves it to the worker."""
    max_ranks: int = 0
    """Processes that the worker has room for; 0 means one for each visible CUDA device, or one."""
    fsdp: bool = False
    """Whether the ranks share the base model's weights instead of each holding all of them."""
    checkpoints: CheckpointPolicy | None = None
    """``None``: the training keeps nothing on the way."""
    charged_steps: int | None = None
    """Private steps of other attempts, which count as spent; ``None``: nobody keeps a record of them."""
    keep_draw: bool = False
    """Whether what prepare_data draws at random is put on record by the supervisor, before it is used."""
    paces: str | None = None
    """Folder of what this machine's speed was found to be (load_model only); ``None``: nobody asks for it."""
    prepared: tuple[str, ...] = ()
    """Digests of prepared models that exist already: load_model skips those."""


class Event(Frozen):
    """One thing that a stage reports while it runs."""

    action: str
    """Stable name for machines, such as ``train.step``."""
    message: str = ""
    """The same for people."""
    fields: dict[str, Any] = Field(default_factory=dict)
    """Plain JSON: step, total_steps, loss, tokens_per_s, eta_s, …"""


class StageResult(Frozen):
    """What a stage says of its work; the files are in ``folder/out``."""

    stage: Stage
    figures: dict[str, Any] = Field(default_factory=dict)
    """Plain JSON: counts, seconds, reasons of automatic choices."""
    model_digest: str | None = None
    """load_model: the content address of ``out/model``, which is absent when it was prepared already."""


class StageDrained(Exception):
    """The stage was asked to leave its machine, kept its state and stopped."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped after step {step}")
        self.step = step


DRAIN = "drain"
"""A file of this name in the stage's folder asks the stage to keep its state and stop."""
TRAIN_STEP = "train.step"
"""An optimizer step is done."""
CHECKPOINT_SAVED = "checkpoint.saved"
"""Action of the event that hands over the complete checkpoint of the field ``step``."""
CHECKPOINTS = "checkpoints"
"""Folder in the stage's folder; what is in ``checkpoints/<step>`` belongs to whoever got its event."""
CHECKPOINT_MANIFEST = "manifest.json"

CHARGE = "privacy.charge"
"""Action of the event that asks to put ``steps`` on record: private ones of this attempt, the next included.

It is taken once :data:`CHARGED` says so, so that no step is lost with its machine."""
CHARGED = "charged"
"""A file of this name in the stage's folder holds the number of private steps that is on record."""

HOLDOUT_KEY = "private/key"
"""File in ``in``, 32 bytes, from which prepare_data derives who is held out; absent: drawn for this run.

It belongs to a dataset, not to a job, so that all its jobs hold out the same units."""
SKETCH_KEY = "private/sketch-key"
"""File in ``in``, 32 bytes, that :data:`SKETCH` is made with; absent: none is made."""
SKETCH = "sketch.json"
"""File in the stage's folder, and none of its outputs: by it the same rows are known under another name."""
DRAW = "privacy.draw"
"""Action of the event that asks to put :data:`PROPOSED_DRAW` on record.

The field ``price`` is the plan of its by-products alone, which is reserved first."""
PROPOSED_DRAW = "draw.proposed.json"
"""File in the stage's folder: noisy counts and schema, drawn in memory and not looked at yet."""
KEPT_DRAW = "draw.json"
"""File in the stage's folder: the draw that is on record, an earlier attempt's if there was one."""

Report = Callable[[Event], None]
