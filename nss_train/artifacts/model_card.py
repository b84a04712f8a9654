"""The model card: what a person should know about an adapter, equal for equal inputs.

It does not depend on the clock or the machine, and quotes no cell of the table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nss_train.artifacts.guarantee import Guarantee, privacy_section
from nss_train.text.counted import counted

_SHOWN = ("data", "training", "privacy", "time_series", "generation")
"""Sections of the config that shaped the adapter or affect its use."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CardFacts:
    """The facts on the card; all of them come from the files of earlier stages."""

    config: Mapping[str, Any]
    choices: Sequence[Mapping[str, Any]]
    schema: Mapping[str, Any]
    metadata: Mapping[str, Any]
    training_rows: int
    test_rows: int
    log_history: Sequence[Mapping[str, Any]]
    training: Mapping[str, Any]
    adapter: Mapping[str, Any]
    guarantee: Guarantee | None = None
    warnings: Sequence[str] = ()
    """Changes that reading made to the table; empty for a private table."""

    @property
    def strict(self) -> bool:
        """Return whether the card may state only what the guarantee covers."""
        return self.guarantee is not None and self.guarantee.strict


def model_card(facts: CardFacts) -> str:
    """Return the card as Markdown, with the front matter that PEFT and the model hub read."""
    parts = [
        _front_matter(facts),
        "# LoRA adapter for one table",
        _purpose(facts),
        "## Privacy",
        privacy_section(facts.guarantee),
        "## Table",
        _table(facts),
        *_warnings(facts),
        "## Training",
        _training(facts),
        "## Automatic choices",
        _choices(facts),
        "## Configuration",
        _config(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: CardFacts) -> str:
    lines = [
        "---",
        f"base_model: {json.dumps(facts.metadata['model_name_or_path'])}",
        "library_name: peft",
        "license: unknown",
        "pipeline_tag: text-generation",
        "tags:",
        "- lora",
        "- synthetic-data",
        "- tabular",
        "---",
    ]
    return "\n".join(lines)


def _purpose(facts: CardFacts) -> str:
    return (
        f"This adapter of `{facts.metadata['model_name_or_path']}` writes rows of the table below as JSON "
        "lines. It is of no use for anything else. The rows that it writes are invented, but they can "
        "repeat values, and whole rows, of the table. No licence is stated: that of the base model and "
        "the rights in the table decide."
    )


def _table(facts: CardFacts) -> str:
    required = set(facts.schema.get("required", ()))
    rows = [
        f"{_size(facts)}, {counted(len(facts.schema['properties']), 'column')}.",
        "",
        "| column | kind | may be missing |",
        "|---|---|---|",
    ]
    for name, column in facts.schema["properties"].items():
        rows.append(f"| {_cell(name)} | {_kind(column)} | {'no' if name in required else 'yes'} |")
    return "\n".join(rows)


def _warnings(facts: CardFacts) -> list[str]:
    """Return the differences between the training data and the table's file, as a section."""
    if not facts.warnings or facts.guarantee is not None:
        return []
    return ["## Warnings", "\n".join(f"- {_cell(warning)}" for warning in facts.warnings)]


def _size(facts: CardFacts) -> str:
    if facts.guarantee is not None and facts.strict:
        return f"n = {facts.guarantee.plan.units:,} units of privacy"
    return f"{counted(facts.training_rows, 'row')} for training, {facts.test_rows:,} held out"


def _kind(column: Mapping[str, Any]) -> str:
    if "enum" in column:
        return f"one of {len(column['enum'])} values"
    kind = column.get("type", "any")
    return kind if isinstance(kind, str) else " or ".join(kind)


def _training(facts: CardFacts) -> str:
    losses = _losses(facts)
    figures = {
        "optimizer steps": facts.training.get("steps"),
        "tokens": None if facts.strict else facts.training.get("tokens"),
        "dtype": facts.training.get("dtype"),
        "first loss": losses[0] if losses else None,
        "last loss": losses[-1] if losses else None,
        "mean loss": round(sum(losses) / len(losses), 6) if losses else None,
        "adapter parameters": facts.adapter.get("adapter_parameters"),
        "adapter SHA-256": facts.adapter.get("adapter_sha256"),
    }
    return "\n".join(f"- {name}: {value}" for name, value in figures.items() if value is not None)


def _losses(facts: CardFacts) -> list[float]:
    """Return the losses; for a strictly private training, only those with noise."""
    if facts.guarantee is not None and facts.strict and not facts.guarantee.result.loss_reported:
        return []
    return [entry["loss"] for entry in facts.log_history if "loss" in entry]


def _choices(facts: CardFacts) -> str:
    if not facts.choices:
        return "None: every value was given."
    rows = ["| value | set to | because |", "|---|---|---|"]
    for choice in facts.choices:
        cells = (_cell(choice[key]) for key in ("name", "value", "reason"))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _config(facts: CardFacts) -> str:
    sections = (*_SHOWN, "guarantee") if facts.guarantee is not None else _SHOWN
    shown = {name: facts.config[name] for name in sections if name in facts.config}
    return f"```json\n{json.dumps(shown, indent=2)}\n```"


def _cell(value: object) -> str:
    """Escape text so that it stays inside its cell of a Markdown table."""
    text = value if isinstance(value, str) else json.dumps(value)
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("`", "\\`").split())
