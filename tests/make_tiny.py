"""Program that makes a small random Llama with another model's tokenizer: ``make_tiny.py BASE FOLDER``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def main(base: Path, folder: Path) -> None:
    torch.manual_seed(20240607)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        rope_theta=100000.0,
    )
    aside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    LlamaForCausalLM(config).save_pretrained(aside)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(base / name, aside / name)
    aside.rename(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
