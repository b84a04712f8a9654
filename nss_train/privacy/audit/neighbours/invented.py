"""A dummy base model and a dummy accountant, enough to prepare a table in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from nss_train.data.tokenization import pieces
from nss_train.privacy.accounting import accountant
from nss_train.stages import preparation as stage
from nss_train.stages import private_preparation as prepare

MODEL = "SmolLM2-invented"
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CONTEXT = 8192


def write_model(root: Path) -> Path:
    """Write a folder that is accepted as a base model; its tokens are bytes."""
    folder = root / MODEL
    folder.mkdir(parents=True)
    letters = sorted(ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({letter: number for number, letter in enumerate([*SPECIAL, *letters])}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": SPECIAL[1], "eos_token": SPECIAL[2], "pad_token": SPECIAL[2]}
    (folder / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")
    vocabulary = tokenizer.get_vocab_size()
    config = {"model_type": "llama", "max_position_embeddings": CONTEXT, "vocab_size": vocabulary}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file({}, folder / "model.safetensors")
    return folder


@contextmanager
def cheap_plans() -> Iterator[None]:
    """Replace the accountant by cheap functions of the same public numbers, and read the model once.

    The accountant takes a minute for each new plan. If a plan depended on anything else, these functions'
    results would show it, as they depend on all of their arguments.
    """

    def noise(*, epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
        return 1 + epsilon / 100 + delta + sampling_rate / 10 + steps / 1e4

    def spent(*, noise_multiplier: float, sampling_rate: float, steps: int, delta: float) -> float:
        return (noise_multiplier + sampling_rate + delta) * steps / 1e6

    with ExitStack() as planted:
        planted.enter_context(mock.patch.object(accountant, "noise_multiplier", noise))
        for name in ("spent_in_steps", "spent_in_steps_at_most"):
            planted.enter_context(mock.patch.object(accountant, name, spent))
        planted.enter_context(mock.patch.object(accountant, "spent", return_value=0.5))
        planted.enter_context(remembered_model())
        yield


@contextmanager
def remembered_plans() -> Iterator[None]:
    """Cache the accountant's results and the model."""
    with ExitStack() as planted:
        for name in ("noise_multiplier", "spent_in_steps", "spent_in_steps_at_most"):
            remembering = _remembered(getattr(accountant, name))
            planted.enter_context(mock.patch.object(accountant, name, remembering))
        planted.enter_context(remembered_model())
        yield


@contextmanager
def remembered_model() -> Iterator[None]:
    """Cache what follows from the base model alone."""
    with ExitStack() as planted:
        named = ((stage, "find_model"), (prepare, "load_tokenizer"), (pieces, "_boundaries"))
        for module, name in named:
            planted.enter_context(mock.patch.object(module, name, _remembered(getattr(module, name))))
        yield


def _remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with a cache of its results, by identity because a tokenizer has no hash."""
    found: dict[Any, tuple[Any, Any]] = {}

    def remembering(*of: object, **named: object) -> Any:
        key = (*(one if isinstance(one, Path) else id(one) for one in of), *sorted(named.items()))
        if key not in found:
            # The arguments are kept so that no other object gets their id.
            found[key] = function(*of, **named), of
        return found[key][0]

    return remembering
