"""The metadata of a model that NSS needs for training and generation: prompt, special tokens, lengths."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nss_train.config import SafeSynthesizerParameters
from nss_train.errors import ParameterError, Problem
from nss_train.model.family import Family, family_warnings, find_family
from nss_train.model.layers.rope import RopeScaling, rope_scaling
from nss_train.model.tokenizer import ModelTokenizer, load_tokenizer

logger = logging.getLogger(__name__)

INSTRUCTION = "Generate a JSONL dataset with the following columns: "
"""Instruction of the prompt; it ends with a space, so that two spaces precede the schema."""
MAX_CONTEXT_TOKENS = 12_288
DEFAULT_CONTEXT_TOKENS = 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelMetadata:
    """The content of ``metadata_v2.json``."""

    model_name_or_path: str
    family: Family
    bos_token: str
    bos_token_id: int
    eos_token: str
    eos_token_id: int
    base_max_seq_length: int
    rope: RopeScaling | None
    max_sequences_per_example: int | None
    max_tokens_per_example: int | None = None
    max_records_per_group: int | None = None
    timeseries_group_values: tuple[Any, ...] | None = None
    timeseries: Mapping[str, Any] | None = None
    """Source columns and controls of a time series."""

    @property
    def max_seq_length(self) -> int:
        """Return the context in tokens, stretched by RoPE scaling."""
        return int(self.base_max_seq_length * (1.0 if self.rope is None else self.rope.factor))

    @classmethod
    def from_config(cls, config: SafeSynthesizerParameters, workdir: object = None) -> ModelMetadata:
        """Return metadata for a resolved config with a local model, as in NSS; ``workdir`` is ignored."""
        model = Path(config.training.pretrained_model)
        return read_metadata(config, model=model, tokenizer=load_tokenizer(model))

    @classmethod
    def from_metadata_json(cls, path: Path | str, workdir: object = None) -> ModelMetadata:
        """Read the metadata in a file of any version, as in NSS; ``workdir`` is ignored."""
        document: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        return metadata_from_json(document)

    def prompt(self, columns: list[str]) -> str:
        """Return the schema prompt of an example."""
        schema = ",".join(f'"{column}":<unk>' for column in columns)
        return self.family.template.format(instruction=INSTRUCTION, schema=schema, prefill="")

    def as_json(self, *, dataset_name: str, run_name: str, base_path: str = ".") -> dict[str, Any]:
        """Return ``metadata_v2.json``, with NSS's keys in NSS's order."""
        groups = self.timeseries_group_values
        return {
            "model_name_or_path": self.model_name_or_path,
            "prompt_config": {
                "template": self.family.template,
                "add_bos_token_to_prompt": self.family.bos_in_prompt,
                "add_eos_token_to_prompt": self.family.eos_in_prompt,
                "bos_token": self.bos_token,
                "bos_token_id": self.bos_token_id,
                "eos_token": self.eos_token,
                "eos_token_id": self.eos_token_id,
            },
            "base_max_seq_length": self.base_max_seq_length,
            "rope_scaling": None if self.rope is None else self.rope.as_json(),
            "max_sequences_per_example": self.max_sequences_per_example,
            "workdir": {
                "base_path": base_path,
                "config_name": "default",
                "dataset_name": dataset_name,
                "run_name": run_name,
                "_run_name_obj": {"_value": run_name, "_timestamp": None},
                "_current_phase": "unknown",
                "_parent_workdir": None,
                "_explicit_run_path": None,
            },
            "is_adapter": False,
            "instruction": INSTRUCTION,
            "rope_parameters_location": "autoconfig",
            "timeseries_group_values": None if groups is None else list(groups),
            "timeseries_metadata": self.timeseries,
            "max_tokens_per_example": self.max_tokens_per_example,
            "max_records_per_group": self.max_records_per_group,
        }


def family_of(name: str, model: Path, *, stated: str = "") -> Family:
    """Return the family of the model in a folder."""
    return find_family(name, _model_config(model), stated=stated)


def warnings_of_family(name: str, model: Path, *, stated: str = "") -> Iterator[str]:
    """Yield a warning if the family of the model in a folder is in doubt."""
    return family_warnings(name, _model_config(model), stated=stated)


def metadata_from_json(document: Mapping[str, Any]) -> ModelMetadata:
    """Return metadata from a document of any NSS version; unknown keys are ignored.

    Raises :class:`ParameterError` naming every key that is missing.
    """
    prompt = document.get("prompt_config") or {}
    needed = ("template", "bos_token", "bos_token_id", "eos_token", "eos_token_id")
    missing = [f"prompt_config.{key}" for key in needed if key not in prompt]
    missing += [] if "model_name_or_path" in document else ["model_name_or_path"]
    if missing:
        problems = [Problem(field=key, value=None, remedy="the file lacks it") for key in missing]
        raise ParameterError("These are no metadata of a trained model.", problems)
    rope, groups = document.get("rope_scaling"), document.get("timeseries_group_values")
    series = document.get("timeseries_metadata") or document.get("timeseries_source_columns")
    if isinstance(series, list):  # the older key holds only the columns
        series = {"source_columns": series, "flexible": None}
    return ModelMetadata(
        model_name_or_path=document["model_name_or_path"],
        family=Family(
            name="stored",
            template=prompt["template"],
            bos_in_prompt=bool(prompt.get("add_bos_token_to_prompt", True)),
            eos_in_prompt=bool(prompt.get("add_eos_token_to_prompt", True)),
        ),
        bos_token=prompt["bos_token"],
        bos_token_id=prompt["bos_token_id"],
        eos_token=prompt["eos_token"],
        eos_token_id=prompt["eos_token_id"],
        base_max_seq_length=document.get("base_max_seq_length") or DEFAULT_CONTEXT_TOKENS,
        rope=None if rope is None else RopeScaling(**rope),
        max_sequences_per_example=document.get("max_sequences_per_example"),
        max_tokens_per_example=document.get("max_tokens_per_example"),
        max_records_per_group=document.get("max_records_per_group"),
        timeseries_group_values=None if groups is None else tuple(groups),
        timeseries=series,
    )


def _model_config(model: Path) -> dict[str, Any]:
    try:
        found: object = json.loads((model / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _no_model(
            model, "its config.json cannot be read" if model.is_dir() else "no such folder"
        ) from error
    if not isinstance(found, dict):
        raise _no_model(model, "its config.json holds no object")
    return found


def _no_model(model: Path, why: str) -> ParameterError:
    problem = Problem(
        field="training.pretrained_model", value=str(model), remedy=f"{why}; name a model's folder"
    )
    return ParameterError(f"Could not load model metadata for '{model}'", [problem])


def read_metadata(
    config: SafeSynthesizerParameters, *, model: Path, tokenizer: ModelTokenizer, family: Family | None = None
) -> ModelMetadata:
    """Return the metadata of the model in a folder, for a config whose automatic values are resolved."""
    name = config.training.pretrained_model
    model_config = _model_config(model)
    family = family or find_family(name, model_config)
    bos, eos = _special_tokens(family, tokenizer, name)
    return ModelMetadata(
        model_name_or_path=name,
        family=family,
        bos_token=bos[0],
        bos_token_id=bos[1],
        eos_token=eos[0],
        eos_token_id=eos[1],
        base_max_seq_length=_base_length(model_config),
        rope=_rope(config, family, model_config),
        max_sequences_per_example=_max_sequences(config),
    )


def _special_tokens(
    family: Family, tokenizer: ModelTokenizer, name: str
) -> tuple[tuple[str, int], tuple[str, int]]:
    bos_name, eos_name = family.bos_token or tokenizer.bos_token, tokenizer.eos_token
    bos_id = family.bos_token_id if family.bos_token_id is not None else _id(tokenizer, bos_name)
    eos_id = _id(tokenizer, eos_name)
    missing = [kind for kind, found in (("begin", bos_id), ("end", eos_id)) if found is None]
    if bos_name is None or eos_name is None or bos_id is None or eos_id is None:
        remedy = (
            f"its tokenizer has no {' and no '.join(missing)} token; use a model whose tokenizer has both"
        )
        problem = Problem(field="training.pretrained_model", value=name, remedy=remedy)
        raise ParameterError(f"Could not load model metadata for '{name}'", [problem])
    return (bos_name, bos_id), (eos_name, eos_id)


def _id(tokenizer: ModelTokenizer, token: str | None) -> int | None:
    return None if token is None else tokenizer.id_of(token)


def _base_length(model_config: dict[str, Any]) -> int:
    own = int(model_config.get("max_position_embeddings") or DEFAULT_CONTEXT_TOKENS)
    if own > MAX_CONTEXT_TOKENS:
        logger.warning("base_max_seq_length=%d because NSS uses no more of %d", MAX_CONTEXT_TOKENS, own)
    return min(own, MAX_CONTEXT_TOKENS)


def _rope(
    config: SafeSynthesizerParameters, family: Family, model_config: dict[str, Any]
) -> RopeScaling | None:
    factor = config.training.rope_scaling_factor
    if factor == "auto":
        raise ValueError("rope_scaling_factor must be resolved before metadata are read")
    if not family.uses_rope_factor:
        if factor != 1:
            logger.warning(
                "rope_scaling_factor=%s is ignored because %s models do not use it", factor, family.name
            )
        return None
    return rope_scaling(factor, model_config)


def _max_sequences(config: SafeSynthesizerParameters) -> int | None:
    value = config.data.max_sequences_per_example
    if value == "auto":
        raise ValueError("max_sequences_per_example must be resolved before metadata are read")
    return value
