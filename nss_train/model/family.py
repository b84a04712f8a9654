"""Model families: the prompt format and the training defaults of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nss_train.errors import ParameterError, Problem

DEFAULT_LEARNING_RATE = 5e-4
_CHAT = "user\n {instruction} {schema} \n assistant\n{prefill}"
_INST = "[INST] {instruction} \n\n {schema} [/INST]{prefill}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """A model family. To add one, append it to :data:`FAMILIES`; the order matters."""

    name: str
    """Name as NSS spells it. A model belongs to the first family whose name is anywhere in what
    ``training.pretrained_model`` says, folders included, in upper or lower case."""
    template: str
    bos_in_prompt: bool
    eos_in_prompt: bool
    learning_rate: float = DEFAULT_LEARNING_RATE
    uses_rope_factor: bool = True
    bos_token: str | None = None
    """Begin token; ``None``: the tokenizer's own."""
    bos_token_id: int | None = None
    """Id of the begin token; ``None``: looked up in the tokenizer."""


FAMILIES: tuple[Family, ...] = (
    Family(
        name="TinyLlama",
        template="[INST] {instruction} {schema} [/INST]{prefill}",
        bos_in_prompt=True,
        eos_in_prompt=True,
    ),
    Family(name="Qwen", template=_CHAT, bos_in_prompt=True, eos_in_prompt=False),
    Family(
        name="Llama32",
        template=_CHAT,
        bos_in_prompt=False,
        eos_in_prompt=False,
        bos_token="<|im_start|>",
        bos_token_id=151644,
    ),
    Family(
        name="SmolLM2",
        template=_CHAT,
        bos_in_prompt=False,
        eos_in_prompt=False,
        uses_rope_factor=False,
        bos_token="<|im_start|>",
    ),
    Family(
        name="SmolLM3",
        template="user\n {instruction} {schema} <|im_end|> \n assistant\n{prefill}",
        bos_in_prompt=True,
        eos_in_prompt=False,
        uses_rope_factor=False,
        bos_token="<|im_start|>",
        bos_token_id=128011,
    ),
    Family(
        name="Mistral",
        template=_INST,
        bos_in_prompt=True,
        eos_in_prompt=True,
        learning_rate=1e-4,
        uses_rope_factor=False,
    ),
    Family(name="Nemotron", template=_INST, bos_in_prompt=True, eos_in_prompt=True),
    Family(name="Granite", template=_CHAT, bos_in_prompt=False, eos_in_prompt=True),
)


_BY_MODEL_TYPE: Mapping[str, str] = {
    "qwen2": "Qwen",
    "qwen3": "Qwen",
    "smollm3": "SmolLM3",
    "mistral": "Mistral",
    "nemotron": "Nemotron",
    "granite": "Granite",
}
_LLAMA_BY_VOCABULARY: Mapping[int, str] = {32_000: "TinyLlama", 49_152: "SmolLM2", 128_256: "Llama32"}
"""Families of the Llama architecture by vocabulary size, as in their published tokenizers."""


def find_family(
    model_name: str, model_config: Mapping[str, Any] | None = None, *, stated: str = ""
) -> Family:
    """Return the family that is stated, or else found in the model's name or path, or in its ``config.json``.

    Raises :class:`ParameterError` when none of these gives it.
    """
    if stated:
        return _named(stated)
    found = _in_path(model_name) or _told(model_config or {})
    if found is not None:
        return found
    known = ", ".join(family.name for family in FAMILIES)
    remedy = f"neither its name nor its config.json names its family; state one of {known}"
    problem = Problem(field="training.pretrained_model", value=model_name, remedy=remedy)
    raise ParameterError(f"Unknown model name or path: {model_name}", [problem])


def family_warnings(model_name: str, model_config: Mapping[str, Any], *, stated: str = "") -> Iterator[str]:
    """Yield a warning if a model's path names one family and its ``config.json`` another, and none is stated.

    NSS looks at the path alone, folders included.
    """
    in_path, told = _in_path(model_name), _told(model_config)
    if not stated and in_path is not None and told is not None and told != in_path:
        yield (
            f"{model_name}: trained as {in_path.name}, which its path names, as NSS does;"
            f" its config.json names {told.name}. State which it is"
            f" (--family {told.name}, or --family {in_path.name})"
        )


def _in_path(model_name: str) -> Family | None:
    return next((one for one in FAMILIES if one.name.lower() in model_name.lower()), None)


def _named(name: str) -> Family:
    found = next((family for family in FAMILIES if family.name.lower() == name.lower()), None)
    if found is None:
        known = ", ".join(family.name for family in FAMILIES)
        raise ParameterError(
            "Unknown family.", [Problem(field="family", value=name, remedy=f"one of {known}")]
        )
    return found


def _told(model_config: Mapping[str, Any]) -> Family | None:
    kind = str(model_config.get("model_type", ""))
    if kind == "llama":
        vocabulary = model_config.get("vocab_size")
        told = _LLAMA_BY_VOCABULARY.get(vocabulary) if isinstance(vocabulary, int) else None
    else:
        told = _BY_MODEL_TYPE.get(kind)
    return None if told is None else _named(told)
