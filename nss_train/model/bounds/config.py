"""Bounds on a model's ``config.json``, checked before any library builds a model from it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from nss_train.config.sections.training import ATTENTIONS
from nss_train.model.footprint import Shape, text_part

DEPTH = 8
"""Most levels of nested lists and objects; published configs have four."""
NODES = 20_000
MOST_LAYER_EXPERTS = 2**16
"""Most layers times experts; a published model of a trillion parameters has 23,424."""
_MOST: tuple[tuple[re.Pattern[str], int], ...] = tuple(
    (re.compile(words), most)
    for words, most in (
        ("theta|base|token_i|_id$|seed", 2**40),
        ("vocab", 2**21),
        ("position|context|length|window|block_size|chunk|n_ctx", 2**25),
        ("layer|depth|stage|stack|block", 1_024),
        ("expert.*(size|dim)", 2**20),
        ("expert", 4_096),
        ("head|^num_", 2**14),
        ("", 2**20),
    )
)
"""Largest values of whole numbers, by the first pattern that the name matches."""
_COUNTS_EXPERTS = re.compile(r"expert(?!.*(size|dim))")
_WHOLE = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
)
"""Fields whose value, if present, is a positive whole number."""
_NUMBERS = ("rope_theta", "theta", "rms_norm_eps")
"""Fields whose value, if present in any part, is a number."""
_OBJECTS = ("rope_scaling", "rope_parameters", "text_config", "quantization_config")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")
MOST_LABELS = 128
"""Most labels of a config; a causal model has none, and keeps the two that transformers invents."""
_LABELS = ("num_labels", "id2label", "label2id")
_QUANTIZATION = ("quantization_config", "compression_config")
MOST_QUANTIZATION_TEXTS = 256
"""Most texts of a quantization. Layers are matched with each of them by two regular expressions, and Python
keeps 512 compiled."""
_PLAIN = re.compile(r"[A-Za-z0-9_.:/ -]{0,200}")
"""Texts of a quantization, which transformers and other libraries take for regular expressions: names of
layers and data types, and the versions and addresses of tools. None repeats anything."""
_ELSEWHERE = ("configuration_files", "transformers_weights", "base_model_name_or_path", "fusion_config")
"""Fields that make a reader of the config open other files, or exchange the model's layers."""
_ATTENTION = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")
_EXPERTS = ("experts_implementation", "_experts_implementation", "_experts_implementation_internal")
_BY_LAYER = ("gemma3n", "gemma3n_text", "openelm", "nemotron-nas")
"""Types of models whose layers differ in size, so that a list has a number for each."""
LEAST_BYTES = 0.25
"""Least bytes of a parameter in a file, however it is quantized."""
SLACK_BYTES = 2**20


def config_faults(config: Mapping[str, object]) -> list[str]:
    """Return every reason to refuse a ``config.json``."""
    found = list(_faults(config, "config.json", 0)) + list(_counted(config))
    parts = (config, config.get("text_config"))
    for part in (part for part in parts if isinstance(part, Mapping)):
        found += _wrong_kinds(part)
    return found


def _faults(value: object, where: str, depth: int) -> Iterator[str]:
    if depth > DEPTH:
        yield f"{where} is nested more than {DEPTH} deep"
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from _named(name, one, where)
            yield from _faults(one, f"{where}: {name}"[:100], depth + 1)
    elif isinstance(value, list):
        for one in value:
            yield from _faults(one, where, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{where} must be a finite number"
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) > (most := _most(where)):
        yield f"{where} is {value if abs(value) < 2**64 else 'huge'}; at most {most:,} is allowed"


def _most(where: str) -> int:
    name = where.rpartition(": ")[2]
    return next(most for words, most in _MOST if words.search(name))


def _named(name: str, value: object, where: str) -> Iterator[str]:
    if name in _ELSEWHERE:
        yield f"{where}: {name} leads to other files or layers; remove it"
    if name in _ATTENTION and value not in (*ATTENTIONS, None):
        yield f"{where}: {name} must be one of {', '.join(ATTENTIONS)}"
    if name in _EXPERTS and (not isinstance(value, str | None) or "/" in str(value)):
        yield f"{where}: {name} must name none of the hub's kernels"
    if name in _NUMBERS and value is not None and type(value) not in (int, float):
        yield f"{where}: {name} must be a number"
    if name in _LABELS and _size(value) > MOST_LABELS:
        yield f"{where}: {name} has more than the {MOST_LABELS} labels that are allowed"
    if name in _QUANTIZATION:
        yield from (f"{where}: {name} {fault}" for fault in _quantization_faults(value))


def _size(value: object) -> int:
    if isinstance(value, Mapping | list):
        return len(value)
    return value if type(value) is int else 0


def _quantization_faults(value: object) -> Iterator[str]:
    """Yield why the texts of a quantization, which are regular expressions to some, are refused."""
    texts = list(_texts(value, 0))
    if len(texts) > MOST_QUANTIZATION_TEXTS:
        yield f"has {len(texts):,} texts; {MOST_QUANTIZATION_TEXTS} are allowed"
    strange = next((text for text in texts if not _PLAIN.fullmatch(text)), None)
    if strange is not None:
        yield f"has {strange[:60]!r}; names are of letters, digits, '_', '.' and '-', up to 200"


def _texts(value: object, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list) and depth <= DEPTH:
        for one in [*value, *value.values()] if isinstance(value, Mapping) else value:
            yield from _texts(one, depth + 1)


def _counted(config: Mapping[str, object]) -> Iterator[str]:
    counted = layers = experts = 0
    waiting: list[Any] = [config]
    while waiting and counted <= NODES:
        one = waiting.pop()
        counted += 1
        if isinstance(one, Mapping):
            waiting += one.values()
            layers = max(layers, layers_of(one))
            experts = max(
                [experts, *(v for k, v in one.items() if _COUNTS_EXPERTS.search(k) and type(v) is int)]
            )
        elif isinstance(one, list):
            waiting += one
    if counted > NODES:
        yield f"config.json has more than {NODES:,} values"
    if layers * experts > MOST_LAYER_EXPERTS:
        yield f"config.json asks for {layers * experts:,} experts; {MOST_LAYER_EXPERTS:,} are allowed"


def layers_of(config: Mapping[str, Any]) -> int:
    """Return the number of layers that a config, or a part of one, asks for under any name."""
    return max((config[name] for name in _LAYERS if type(config.get(name)) is int), default=0)


def _wrong_kinds(config: Mapping[str, Any]) -> Iterator[str]:
    given = {name: value for name, value in config.items() if value is not None}
    for name in _WHOLE:
        if name in given and (type(given[name]) is not int or given[name] < 1):
            yield f"config.json: {name} must be a whole number from 1 on"
    for name in _OBJECTS:
        if name in given and not isinstance(given[name], Mapping):
            yield f"config.json: {name} must be an object"
    yield from _wrong_sizes(given)
    if not isinstance(given.get("model_type", ""), str):
        yield "config.json: model_type must be a text"


def _wrong_sizes(given: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with sizes that some models give layer by layer."""
    for name in ("num_key_value_heads", "intermediate_size"):
        value = given.get(name, 1)
        if not all(type(one) is int and one >= 1 for one in (value if isinstance(value, list) else [value])):
            yield f"config.json: {name} must be a whole number from 1 on, or a list of such for the layers"
        elif isinstance(value, list) and given.get("model_type") not in _BY_LAYER:
            yield f"config.json: {name} must be one number for a model of this type"


def against_weights(config: Mapping[str, Any], *, tensors: int, bytes_there: int) -> Iterator[str]:
    """Yield why a config cannot belong to weights of this many tensors and bytes."""
    layers = layers_of(text_part(config))
    if layers > tensors:
        yield f"config.json means {layers:,} layers; the weights have {tensors:,} tensors"
    shape = Shape.of(config)
    if shape is None:
        return
    least = LEAST_BYTES * (shape.embedding_parameters + shape.layer_parameters)
    if least > bytes_there + SLACK_BYTES:
        yield f"config.json means at least {least:,.0f} bytes of weights; there are {bytes_there:,}"
