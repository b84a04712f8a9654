"""A run folder of a byte-level toy model that has learned the form of one table's rows, made in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROWS = [{"kind": "a", "size": 1}, {"kind": "b", "size": 2}]
SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["a", "b"]}, "size": {"type": "integer", "minimum": 1.0, "maximum": 2.0}},
    "required": ["kind", "size"],
}
METADATA: dict[str, Any] = {
    "model_name_or_path": "toy-smollm2",
    "prompt_config": {
        "template": "user\n {instruction} {schema} \n assistant\n{prefill}",
        "add_bos_token_to_prompt": False,
        "add_eos_token_to_prompt": False,
        "bos_token": "<s>",
        "bos_token_id": 1,
        "eos_token": "</s>",
        "eos_token_id": 2,
    },
    "base_max_seq_length": 256,
    "rope_scaling": None,
    "max_sequences_per_example": 2,
    "instruction": "Columns: ",
    "max_tokens_per_example": 100,
    "max_records_per_group": None,
}


@pytest.fixture(scope="session")
def toy_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a tiny Llama with a byte-level tokenizer on ``ROWS`` until it writes rows of that form.

    It learns each column's values, not which of them go together.
    """
    folder = tmp_path_factory.mktemp("toy-smollm2")
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    _trained_model(tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def toy_run(toy_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the run folder of an untrained adapter of ``toy_base``: it knows what the base knows."""
    return make_run(toy_base, tmp_path_factory.mktemp("run"), noise=0.0)


def make_run(base: Path, run: Path, *, noise: float) -> Path:
    """Make a run folder whose LoRA B matrices are normal with standard deviation ``noise``."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from nss_train.config import SafeSynthesizerParameters

    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    lora = LoraConfig(r=4, lora_alpha=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    adapted = get_peft_model(model, lora)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=noise)
    adapter = run / "train/adapter"
    adapted.save_pretrained(adapter)
    (adapter / "metadata_v2.json").write_text(json.dumps(METADATA))
    (adapter / "dataset_schema.json").write_text(json.dumps(SCHEMA))
    config = SafeSynthesizerParameters.model_validate({"generation": {"temperature": 0.5}})
    (run / "train/safe-synthesizer-config.json").write_text(config.model_dump_json())
    return run


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def _trained_model(tokenizer: Any) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from nss_train.artifacts.prompt import schema_prompt

    torch.manual_seed(3)
    size: dict[str, Any] = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    ends: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, **size, **ends)
    )
    prompt = tokenizer(schema_prompt(METADATA, ["kind", "size"]))["input_ids"]
    lines = [json.dumps(row, separators=(",", ":")) + "\n" for row in ROWS]
    answers = [[1, *tokenizer(a + b)["input_ids"], 2] for a in lines for b in lines]
    ids = torch.tensor([prompt + answer for answer in answers])
    labels = ids.clone()
    labels[:, : len(prompt)] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(300):
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model
