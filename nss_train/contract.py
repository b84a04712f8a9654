"""The documents exchanged between a stage and its supervisor. Imports neither torch nor pandas."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Literal

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
    """The base models that the operator of a worker allows."""

    models_dir: str
    """Folder in which a bare name such as ``SmolLM2-135M-Instruct`` is looked up."""
    allow_paths: bool = True
    """``True`` if a config may name a folder outside ``models_dir``."""
    allow_hub: bool = False
    trust_remote_code: tuple[str, ...] = ()
    """Model names (exactly as in the config) whose own code may run."""


class CheckpointPolicy(Frozen):
    """How often a training saves its state: at the end of a step, whichever interval is due first."""

    every_s: float | None = 300.0
    every_steps: int | None = None


class TableLimits(Frozen):
    """How large a table may be. It is measured before it is decoded; a refusal names every limit exceeded."""

    file_bytes: int = 4 * 2**30
    rows: int = 50_000_000
    columns: int = 4_000
    cell_chars: int = 200_000
    decoded_bytes: int = 16 * 2**30
    """Size in memory: each text written out, each other cell as 8 bytes."""
    expansion: int = 200
    """Most that a table may grow when decoded, as a multiple of its file's size; small tables are exempt."""
    small_bytes: int = 256 * 2**20
    depth: int = 32
    """Nesting depth of lists and objects in JSON."""


DATASET_NAME = "data"
"""Default name of a table."""


class Kernels(Frozen):
    """How a training computes on its device. Each choice falls back by itself where it cannot work."""

    layers: Literal["auto", "compiled", "eager"] = "auto"
    """``auto`` compiles the decoder's layers on a CUDA device, for a training that is long enough."""
    loss: Literal["auto", "chunked", "model"] = "auto"
    """``auto`` computes the logits of learned tokens in parts, where the model's family is known."""
    rooms: str = ""
    """Folder of the micro-batch sizes that trials found on this machine; empty: none is remembered."""


class Request(Frozen):
    """A request to run a stage; its input files lie in ``folder/in``."""

    job_id: str
    table: str | None = None
    """File name of the table inside ``folder/in`` (prepare_data only)."""
    dataset_name: str = DATASET_NAME
    budget_name: str = ""
    """The ledger that a private job is charged to; empty: a random, unique name."""
    config: SafeSynthesizerParameters
    """As submitted for prepare_data; later stages read the resolved one from ``in/prepare_data``."""
    family: str = ""
    """The base model's family, if neither its name nor its ``config.json`` shows it."""
    seed: int
    """Seed of shuffles, validation split, LoRA initialisation and training (never of privacy noise)."""
    policy: ModelPolicy
    limits: TableLimits = TableLimits()
    memory_bytes: int | None = None
    """Memory limit of the process that reads the table (prepare_data only); ``None``: no limit."""
    cpu_s: int | None = None
    """CPU time, in seconds, that the same process may take; ``None``: no limit."""
    halvings: int = 0
    """How often the micro-batch is halved because memory ran out; accumulation makes up for it."""
    max_train_s: float | None = None
    """Seconds after which a training ends early; what it has learned so far is saved."""
    reporters: tuple[str, ...] = ()
    """Experiment trackers to report to: wandb, mlflow, tensorboard."""
    ranks: int = 0
    """Processes that train together; 0 leaves the choice to the worker."""
    max_ranks: int = 0
    """Processes that the worker has room for; 0 means one for each visible CUDA device, or one."""
    fsdp: bool = False
    """``True`` if the ranks share the base model's weights instead of each holding all of them."""
    kernels: Kernels = Kernels()
    checkpoints: CheckpointPolicy | None = None
    """When to save checkpoints; ``None``: the training saves none."""
    charged_steps: int | None = None
    """Private steps of other attempts, which count as spent; ``None``: they are not recorded."""
    keep_draw: bool = False
    """``True`` if the supervisor records prepare_data's random draw before it is used."""
    known: str | None = None
    """Folder of what this machine knows of base models; ``None``: nothing is remembered."""
    paces: str | None = None
    """Folder of this machine's measured speeds (load_model only); ``None``: no cost estimate."""
    prepared: tuple[str, ...] = ()
    """Digests of prepared models that exist already: load_model skips those."""


class Event(Frozen):
    """One thing that a stage reports while it runs."""

    action: str
    """Stable name for machines, such as ``train.step``."""
    message: str = ""
    """The event, worded for people."""
    fields: dict[str, Any] = Field(default_factory=dict)
    """Plain JSON: step, total_steps, loss, tokens_per_s, eta_s, …"""


class StageResult(Frozen):
    """A stage's report on its work; its files are in ``folder/out``."""

    stage: Stage
    figures: dict[str, Any] = Field(default_factory=dict)
    """Plain JSON: counts, seconds, reasons of automatic choices."""
    model_digest: str | None = None
    """Content address of ``out/model`` (load_model only), which is absent when it was prepared already."""


class StageDrained(Exception):
    """The stage was asked to stop, saved its state and did so."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped after step {step}")
        self.step = step


DRAIN = "drain"
"""A file of this name in the stage's folder asks the stage to save its state and stop."""
TRAIN_STEP = "train.step"
"""Action of the event that an optimizer step is done."""
CHECKPOINT_SAVED = "checkpoint.saved"
"""Action of the event that hands over the complete checkpoint of the field ``step``."""
CHECKPOINTS = "checkpoints"
"""Folder in the stage's folder; what is in ``checkpoints/<step>`` belongs to the receiver of its event."""
CHECKPOINT_MANIFEST = "manifest.json"

CHARGE = "privacy.charge"
"""Action of the event that asks to record ``steps``: this attempt's private steps, the next one included.

The step is taken once :data:`CHARGED` confirms it, so that no step is lost with its machine."""
CHARGED = "charged"
"""A file of this name in the stage's folder holds the recorded number of private steps."""

HOLDOUT_KEY = "private/key"
"""File in ``in``, 32 bytes, from which prepare_data derives the held-out units; absent: drawn for this run.

It belongs to a dataset, not to a job, so that all its jobs hold out the same units."""
SKETCH_KEY = "private/sketch-key"
"""File in ``in``, 32 bytes, with which :data:`SKETCH` is made; absent: none is made."""
SKETCH = "sketch.json"
"""File in the stage's folder, not among its outputs, which recognises the same rows under another name."""
DRAW = "privacy.draw"
"""Action of the event that asks to record :data:`PROPOSED_DRAW`.

The field ``price`` is the plan of its by-products alone, which is reserved first."""
PROPOSED_DRAW = "draw.proposed.json"
"""File in the stage's folder: noisy counts and schema, drawn in memory and not used yet."""
KEPT_DRAW = "draw.json"
"""File in the stage's folder: the recorded draw, an earlier attempt's if there was one."""

Report = Callable[[Event], None]
