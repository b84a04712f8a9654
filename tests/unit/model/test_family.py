"""NSS's families with their prompts and defaults, and how a model's family is found."""

from __future__ import annotations

import pytest

from nss_train.data.examples import Prompt
from nss_train.errors import ParameterError
from nss_train.model.family import FAMILIES, family_warnings, find_family
from nss_train.model.metadata import ModelMetadata, metadata_from_json

CHAT = 'user\n Generate a JSONL dataset with the following columns:  "id":<unk>,"name":<unk> \n assistant\n'
PLAIN = '[INST] Generate a JSONL dataset with the following columns:  "id":<unk>,"name":<unk> [/INST]'
SPACED = '[INST] Generate a JSONL dataset with the following columns:  \n\n "id":<unk>,"name":<unk> [/INST]'
SMOLLM3 = CHAT.replace(" \n assistant", " <|im_end|> \n assistant")
TABLE = {
    # family: prompt, begin in prompt, end in prompt, learning rate, uses the RoPE factor, own begin id
    "TinyLlama": (PLAIN, True, True, 5e-4, True, None),
    "Qwen": (CHAT, True, False, 5e-4, True, None),
    "Llama32": (CHAT, False, False, 5e-4, True, 151644),
    "SmolLM2": (CHAT, False, False, 5e-4, False, None),
    "SmolLM3": (SMOLLM3, True, False, 5e-4, False, 128011),
    "Mistral": (SPACED, True, True, 1e-4, False, None),
    "Nemotron": (SPACED, True, True, 5e-4, True, None),
    "Granite": (CHAT, False, True, 5e-4, True, None),
}


def metadata(name: str) -> ModelMetadata:
    family = find_family("", stated=name)
    return ModelMetadata(
        model_name_or_path=name,
        family=family,
        bos_token="<s>",
        bos_token_id=family.bos_token_id or 1,
        eos_token="</s>",
        eos_token_id=2,
        base_max_seq_length=2048,
        rope=None,
        max_sequences_per_example=10,
    )


@pytest.mark.parametrize("name", TABLE)
def test_every_family(name: str) -> None:
    prompt, begin, end, learning_rate, uses_rope, own_begin = TABLE[name]
    found = metadata(name)
    assert found.prompt(["id", "name"]) == prompt
    assert found.family.learning_rate == learning_rate
    assert found.family.uses_rope_factor is uses_rope
    assert found.family.bos_token_id == own_begin
    ids = Prompt.of([7, 8], found).ids.tolist()
    assert ids == [*([found.bos_token_id] if begin else []), 7, 8, *([2] if end else [])]


def test_the_table_is_complete() -> None:
    assert [family.name for family in FAMILIES] == list(TABLE)


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("HuggingFaceTB/SmolLM3-3B", {}, "SmolLM3"),
        ("nvidia/Mistral-NeMo-Nemotron", {}, "Mistral"),
        ("nvidia/Llama-3.1-Nemotron-Nano", {}, "Nemotron"),
        ("/models/mine", {"model_type": "qwen2"}, "Qwen"),
        ("/models/mine", {"model_type": "llama", "vocab_size": 49152}, "SmolLM2"),
        ("meta-llama/Llama-3.2-1B", {"model_type": "llama", "vocab_size": 128256}, "Llama32"),
    ],
)
def test_the_family_is_in_the_name_or_in_the_config(
    name: str, config: dict[str, object], expected: str
) -> None:
    assert find_family(name, config).name == expected


def test_a_stated_family_wins_and_an_unknown_one_is_refused() -> None:
    assert find_family("/models/qwen-like", stated="granite").name == "Granite"
    for config in ({"model_type": "gpt2"}, {"model_type": "llama", "vocab_size": None}):
        with pytest.raises(ParameterError, match="state one of TinyLlama"):
            find_family("/models/mine", config)
    with pytest.raises(ParameterError, match="Unknown family"):
        find_family("x", stated="gpt")


GRANITE_IN_A_FOLDER = "/home/mistral/models/granite-3.3-2b"


def test_a_path_of_another_family_than_the_config_is_told_with_both() -> None:
    assert find_family(GRANITE_IN_A_FOLDER, {"model_type": "granite"}).name == "Mistral"  # as in NSS
    (told,) = family_warnings(GRANITE_IN_A_FOLDER, {"model_type": "granite"})
    assert "trained as Mistral" in told
    assert "config.json names Granite" in told
    assert "--family Granite" in told


@pytest.mark.parametrize(
    ("name", "config", "stated"),
    [
        (GRANITE_IN_A_FOLDER, {"model_type": "granite"}, "granite"),
        (GRANITE_IN_A_FOLDER, {"model_type": "gpt2"}, ""),
        ("/models/granite", {"model_type": "granite"}, ""),
        ("/models/mine", {"model_type": "granite"}, ""),
        ("/models/mine", {}, "Qwen"),
    ],
    ids=["stated", "config of no family", "both agree", "path of no family", "neither"],
)
def test_a_family_without_a_doubt_is_not_told(name: str, config: dict[str, object], stated: str) -> None:
    assert not list(family_warnings(name, config, stated=stated))


def test_metadata_are_read_as_they_are_written() -> None:
    written = metadata("Granite").as_json(dataset_name="d", run_name="r")
    assert metadata_from_json(written).as_json(dataset_name="d", run_name="r") == written


def test_older_metadata_are_read() -> None:
    older = metadata("Qwen").as_json(dataset_name="d", run_name="r")
    for key in (
        "timeseries_group_values",
        "timeseries_metadata",
        "max_tokens_per_example",
        "max_records_per_group",
    ):
        del older[key]
    older |= {"initial_prefill": {"a": " x\n"}, "timeseries_source_columns": ["a", "b"]}
    found = metadata_from_json(older)
    assert found.timeseries == {"source_columns": ["a", "b"], "flexible": None}
    assert found.max_seq_length == 2048


def test_what_is_missing_in_metadata_is_named() -> None:
    with pytest.raises(ParameterError) as caught:
        metadata_from_json({"prompt_config": {"template": "x"}})
    fields = [problem.field for problem in caught.value.problems]
    assert "model_name_or_path" in fields
    assert "prompt_config.eos_token_id" in fields
