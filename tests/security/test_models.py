"""A base model runs no code and leads to no other folder."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nss_train.config import SafeSynthesizerParameters, parse_config
from nss_train.contract import ModelPolicy
from nss_train.errors import ParameterError
from nss_train.model.loading import FLOAT32, load_base
from nss_train.model.local.source import INDEX, PICKLES, find_model
from tasks.execution.inputs import _fetch_source
from tasks.jobs.keys import RESERVED
from tasks.store.local import LocalStore
from tests.security.models import CONFIG, TOKENIZER, UNKNOWN, bpe, split, weights
from tests.unit.model.test_source import make_model, refusal


@pytest.mark.parametrize("suffix", PICKLES)
def test_a_pickle_anywhere_in_the_folder_is_refused(suffix: str, tmp_path: Path, strict: ModelPolicy) -> None:
    folder = make_model(tmp_path / "models" / "m")
    (folder / "sub").mkdir()
    (folder / "sub" / f"weights{suffix}").write_bytes(b"\x80\x04.")
    assert f"sub/weights{suffix}" in refusal("m", strict)


def test_a_model_s_own_code_needs_the_operator_s_word(tmp_path: Path, strict: ModelPolicy) -> None:
    make_model(tmp_path / "models" / "m", {"auto_map": {"AutoModelForCausalLM": "evil.Model"}})
    assert "the operator must list it" in refusal("m", strict)
    trusting = strict.model_copy(update={"trust_remote_code": ("m",)})
    assert find_model("m", trusting).trust_remote_code
    assert "the operator must list it" in refusal("./m", trusting)


def test_a_path_of_the_worker_is_refused_where_strangers_submit(tmp_path: Path, strict: ModelPolicy) -> None:
    outside = make_model(tmp_path / "outside")
    make_model(tmp_path / "models" / "m")
    assert find_model("m", strict).folder == tmp_path / "models" / "m"
    for name in (str(outside), "../outside", "m/../../outside"):
        assert "not found" in refusal(name, strict)


WEIGHTS = [["x"], "x", {"a": "../../outside.safetensors"}, {"a": "/etc/passwd"}, {"a": 1}]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_an_index_names_files_of_its_own_folder(weights: object, tmp_path: Path, strict: ModelPolicy) -> None:
    folder = make_model(tmp_path / "models" / "m")
    (folder / INDEX).write_text(json.dumps({"weight_map": weights}))
    assert "no file of the folder" in refusal("m", strict)


TAKEN = ["store:jobs", *(f"store:{one}/x" for one in RESERVED), "store:/jobs/x/", "store:../x"]


@pytest.mark.parametrize("name", TAKEN)
def test_the_files_of_jobs_are_no_models(name: str, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    for folder in RESERVED:
        store.write(f"{folder}/x/config.json", b"{}")
    with pytest.raises(ParameterError):
        _fetch_source(name, tmp_path / "in", store=store)
    assert not (tmp_path / "in").exists()


def test_an_honest_model_is_found(model: Path, strict: ModelPolicy) -> None:
    (model / "README.md").write_text("of no use")
    (model / "notes.json").symlink_to("/etc/passwd")
    names = [path.name for path in find_model("m", strict).files]
    assert names == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


CONFIGS: dict[str, Any] = {
    "num_hidden_layers is 2000000": {"num_hidden_layers": 2_000_000},
    "n_layer is 2000000": {"n_layer": 2_000_000},
    "num_stages is 2000000": {"num_stages": 2_000_000},
    "layers; the weights have 2 tensors": {"num_hidden_layers": 1_000},
    "bytes of weights": {"hidden_size": 2**16, "intermediate_size": 2**18},
    "vocab_size is 1000000000": {"vocab_size": 10**9},
    "max_position_embeddings is huge": {"max_position_embeddings": 10**30},
    "num_experts is 1000000": {"num_experts": 10**6},
    "experts; 65,536 are allowed": {"text_config": {"num_experts": 4_000, "num_layers": 1_000}},
    "decoder_layers is 5000": {"audio_config": {"decoder_layers": 5_000}},
    "head_dim is 10000000": {"head_dim": 10**7},
    "num_attention_heads must be a whole number": {"num_attention_heads": 0},
    "hidden_size must be a whole number": {"hidden_size": "many"},
    "vocab_size must be a whole number": {"vocab_size": [1]},
    "rope_scaling must be an object": {"rope_scaling": "linear"},
    "rope_theta must be a number": {"rope_theta": "x"},
    "rope_parameters: rope_theta must be a number": {"rope_parameters": {"rope_theta": []}},
    "must be a finite number": {"rms_norm_eps": 1e999},
    "nested more than": {"x": json.loads("[" * 20 + "]" * 20)},
    "more than 20,000 values": {"id2label": {str(i): i % 7 for i in range(30_000)}},
    "configuration_files leads": {"configuration_files": ["config.4.0.0.json"]},
    "transformers_weights leads": {"transformers_weights": "../../x.safetensors"},
    "_attn_implementation must be one of": {"_attn_implementation": "attacker/kernel"},
    "fusion_config leads": {"fusion_config": {"x": "y"}},
    "quantization_config has '(.*.*)*!'": {"quantization_config": {"llm_int8_skip_modules": ["(.*.*)*!"]}},
    "quantization_config has 're:(a+)+'": {"quantization_config": {"config_groups": {"x": ["re:(a+)+"]}}},
    "quantization_config has '(a|a)*'": {"text_config": {"quantization_config": {"dynamic": {"(a|a)*": {}}}}},
    "compression_config has '(a+)+'": {"compression_config": {"ignore": "(a+)+"}},
    "quantization_config has 1,000 texts": {"quantization_config": {"ignore": ["a"] * 999}},
    "quantization_config has 'aaaa": {"quantization_config": {"ignore": ["a" * 201]}},
    "num_labels has more than the 128": {"num_labels": 2**20},
    "id2label has more than the 128": {"id2label": {str(i): "x" for i in range(200)}},
    "label2id has more than the 128": {"text_config": {"label2id": {str(i): i for i in range(200)}}},
    "num_codebooks is 1000000": {"num_codebooks": 1_000_000},
    "num_query_tokens is 1000000": {"num_query_tokens": 1_000_000},
    "intermediate_size must be one number": {"intermediate_size": [176, 176]},
    "intermediate_size must be a whole number": {"intermediate_size": [176, "x"]},
    "none of the hub's kernels": {"text_config": {"experts_implementation": "attacker/kernel"}},
}


@pytest.mark.parametrize("said", CONFIGS)
def test_a_config_of_absurd_sizes_is_refused(said: str, model: Path, strict: ModelPolicy) -> None:
    document = json.dumps(CONFIG | CONFIGS[said]).replace("Infinity", "1e999")
    (model / "config.json").write_text(document)
    assert said in refusal("m", strict)


TEXTS: list[tuple[str, str, str]] = [
    ("config.json", '{"hidden_size": 1, "hidden_size": 2}', "says something twice"),
    ("config.json", '{"x": NaN}', "holds NaN"),
    ("config.json", "[" * 100_000, "is not a JSON object"),
    ("config.json", '{"x": "' + "x" * 2**20 + '"}', "are allowed"),
    ("tokenizer.json", '{"model": ' + "[" * 100_000 + "}", "is not a JSON object"),
    (
        "tokenizer.json",
        "{" + ",".join('"x":[]' for _ in range(3_000_000)) + "}",
        "more than 4,000,000 values",
    ),
    ("tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["evil.Tok", null]}}', "brings its own code"),
    ("tokenizer_config.json", '{"bos_token": 5}', "bos_token must be a text"),
    ("tokenizer_config.json", '{"eos_token": 0}', "eos_token must be a text"),
    ("tokenizer_config.json", '{"eos_token": {}}', "eos_token must be a text"),
    ("tokenizer_config.json", '{"eos_token": {"content": []}}', "eos_token must be a text"),
    ("tokenizer_config.json", '{"eos_token": "\\ud800"}', "eos_token must be a text"),
    ("tokenizer_config.json", '{"fast_tokenizer_files": ["x.json"]}', "leads to other files"),
    ("tokenizer_config.json", "[]", "is not a JSON object"),
    ("generation_config.json", "5", "is not a JSON object"),
    ("adapter_config.json", '{"base_model_name_or_path": "/"}', "leads to another base model"),
    (
        "tokenizer_config.json",
        json.dumps({"added_tokens_decoder": {str(i): {"content": "x" * 1_000} for i in range(2_000)}}),
        "added_tokens_decoder adds more than",
    ),
    ("added_tokens.json", json.dumps({f"{i:01000}": i for i in range(2_000)}), "adds more than"),
    (INDEX, json.dumps({"weight_map": {"a": "config.json"}}), "no file of the folder"),
]


@pytest.mark.parametrize(("name", "text", "said"), TEXTS)
def test_a_document_that_misleads_is_refused(
    name: str, text: str, said: str, model: Path, strict: ModelPolicy
) -> None:
    (model / name).write_text(text)
    assert said in refusal("m", strict)


@pytest.mark.parametrize("name", [*CONFIG, "text_config"])
def test_a_field_that_is_null_is_left_out(name: str, model: Path, strict: ModelPolicy) -> None:
    (model / "config.json").write_text(json.dumps(CONFIG | {name: None}))
    assert find_model("m", strict).folder == model


HEADERS: list[tuple[bytes, str]] = [
    ((2**40).to_bytes(8, "little"), "header has 1,099,511,627,776 bytes"),
    (b"\0", "no safetensors file"),
    (weights(b"[]"), "not a JSON object"),
    (weights(b'{"a": 1}'), "does not say where it is"),
    (weights({"a": {"data_offsets": [0, 10**12]}}), "the file ends before a"),
]


@pytest.mark.parametrize(("data", "said"), HEADERS)
def test_a_false_header_of_weights_is_refused(
    data: bytes, said: str, model: Path, strict: ModelPolicy
) -> None:
    (model / "model.safetensors").write_bytes(data)
    assert said in refusal("m", strict)


def test_names_of_layers_that_a_quantization_leaves_out_are_plain(model: Path, strict: ModelPolicy) -> None:
    names = ["lm_head", *(f"model.layers.{i}.mlp.gate" for i in range(94))]
    quantization = {
        "quant_method": "bitsandbytes",
        "bnb_4bit_compute_dtype": "torch.bfloat16",
        "llm_int8_skip_modules": names,
        "meta": {"quantizer": ["gptqmodel:1.9.0"], "uri": "https://github.com/modelcloud/gptqmodel"},
    }
    (model / "config.json").write_text(json.dumps(CONFIG | {"quantization_config": quantization}))
    assert find_model("m", strict).folder == model


@pytest.mark.parametrize("indexed", [False, True])
def test_weights_that_the_model_does_not_name_are_left_where_they_are(
    indexed: bool, model: Path, strict: ModelPolicy
) -> None:
    with (model / "zzz.safetensors").open("wb") as file:
        file.truncate(3 * 2**30)
    if indexed:
        (model / "model.safetensors").rename(model / "a.safetensors")
        (model / INDEX).write_text(json.dumps({"weight_map": {"x": "a.safetensors"}}))
    names = [path.name for path in find_model("m", strict).files if path.suffix == ".safetensors"]
    assert names == ["a.safetensors" if indexed else "model.safetensors"]
    (model / names[0]).rename(model / "other.safetensors")
    assert "names files that are missing" if indexed else "there is neither" in refusal("m", strict)


def _link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def _socket(path: Path) -> None:
    os.chdir(path.parent)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


ODD: dict[str, Callable[[Path], None]] = {
    "leads out of the folder": _link,
    "is no plain file": os.mkfifo,
    "no plain file; remove": _socket,
    "no plain file": lambda path: path.mkdir(),
    "or nowhere": lambda path: path.symlink_to("nothing"),
    "or nowhere; put": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("said", ODD)
@pytest.mark.parametrize("name", ["generation_config.json", "chat_template.jinja", "x.safetensors"])
def test_what_is_no_plain_file_of_the_folder_is_not_opened(
    said: str, name: str, model: Path, strict: ModelPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model)
    ODD[said](model / name)
    assert said in refusal("m", strict)


def test_the_links_of_the_hub_s_cache_lead_to_the_model_s_own_blobs(model: Path, strict: ModelPolicy) -> None:
    repository = model.parent / "models--x"
    snapshot = repository / "snapshots" / "abc"
    snapshot.parent.mkdir(parents=True)
    (repository / "blobs").mkdir()
    model.rename(snapshot)
    (snapshot / "config.json").rename(repository / "blobs" / "123")
    (snapshot / "config.json").symlink_to("../../blobs/123")
    assert find_model("models--x/snapshots/abc", strict).folder == snapshot
    (repository / "blobs" / "123").unlink()
    (repository / "blobs" / "123").symlink_to("/etc/passwd")
    assert "leads out of the folder" in refusal("models--x/snapshots/abc", strict)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_a_hard_link_to_a_file_of_another_user_is_not_opened(model: Path, strict: ModelPolicy) -> None:
    (model.parent / "secret").write_text("{}")
    os.chown(model.parent / "secret", 65534, 65534)
    os.link(model.parent / "secret", model / "generation_config.json")
    assert "hard link" in refusal("m", strict)


def test_all_that_is_wrong_with_a_model_is_told_at_once(model: Path, strict: ModelPolicy) -> None:
    (model / "config.json").write_text(json.dumps(CONFIG | {"n_layer": 10**6, "hidden_size": -1}))
    (model / "tokenizer.json").write_text(json.dumps(TOKENIZER | bpe(dropout=0.5)))
    text = refusal("m", strict)
    assert all(said in text for said in ("n_layer", "hidden_size", "dropout"))


def test_a_model_with_the_operator_s_trust_may_bring_steps_of_its_own(
    model: Path, strict: ModelPolicy
) -> None:
    (model / "tokenizer.json").write_text(json.dumps(TOKENIZER | {"pre_tokenizer": split(".{3}")}))
    (model / "code.py").write_text("")
    assert UNKNOWN in refusal("m", strict)
    trusting = strict.model_copy(update={"trust_remote_code": ("m",)})
    assert "code.py" in [path.name for path in find_model("m", trusting).files]


def test_a_fetch_from_the_store_takes_known_files_of_known_sizes(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    for name in ("config.json", "sub/config.json", "evil.py", ".hidden.json", "weights.bin"):
        store.write(f"base/m/{name}", b"{}")
    _fetch_source("store:base/m", tmp_path / "in", store=store)
    assert [path.name for path in (tmp_path / "in").rglob("*")] == ["config.json"]
    store.write("base/m/config.json", bytes(2**21))
    with pytest.raises(ParameterError, match="are allowed"):
        _fetch_source("store:base/m", tmp_path / "in", store=store)


@pytest.mark.parametrize("name", ["attacker/kernel", "paged|attacker/kernel", "kernels-community/../x", ""])
def test_an_attention_from_elsewhere_is_refused_but_stored_jobs_are_readable(
    name: str, tiny_model: Path
) -> None:
    given = {"training": {"attn_implementation": name}}
    assert SafeSynthesizerParameters.model_validate(given).training.attn_implementation == name
    with pytest.raises(ParameterError, match=r"training\.attn_implementation"):
        parse_config(given)
    with pytest.raises(ParameterError, match=r"training\.attn_implementation"):
        load_base(tiny_model, FLOAT32, attention=name, trust_remote_code=False)
