"""The train stage, on a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from nss_train import stages
from nss_train.errors import OutOfMemory, ParameterError
from nss_train.model.adapter import initial_adapter, load_adapter, save_adapter, snapshot
from nss_train.model.loading import FLOAT32, Precision, choose_attention, choose_precision, load_base
from nss_train.model.memory import Estimate, choose_checkpointing
from nss_train.training import stage
from nss_train.training.arguments import training_arguments
from nss_train.training.steps.out_of_memory import typed_out_of_memory

from .conftest import Trained, load, make_request, read, run_options, silent

Weights = dict[str, torch.Tensor]


def drawn(model: Path, folder: Path, *, seed: int = 1, precision: Precision = FLOAT32) -> Weights:
    """Draw an initial adapter; return its weights as they are saved."""
    base = load_base(model, precision, attention="sdpa", trust_remote_code=False)
    adapter = initial_adapter(base, make_request(model).config.training, seed=seed)
    save_adapter(adapter, folder, base_name="base")
    return load_file(folder / "adapter_model.safetensors")


def same(one: Weights, other: Weights) -> bool:
    """Tell whether two adapters are equal, wherever they are: those in training may be on a device."""
    equal = (torch.equal(one[name].cpu(), other[name].cpu()) for name in one if name in other)
    return one.keys() == other.keys() and all(equal)


@pytest.fixture
def first(monkeypatch: pytest.MonkeyPatch) -> list[Weights]:
    """Return a list that receives the weights with which each training begins."""
    seen: list[Weights] = []

    def note(model: PeftModel) -> Weights:
        seen.append(snapshot(model))
        return seen[-1]

    monkeypatch.setattr(stage, "snapshot", note)
    return seen


def test_the_seed_decides_with_which_weights_a_training_begins(train: Trained, first: list[Weights]) -> None:
    for seed in (1, 1, 2):
        train(seed=seed)
    assert same(first[0], first[1])
    assert first[0].keys() == first[2].keys()
    assert not any(torch.equal(first[0][name], first[2][name]) for name in first[0] if "lora_A" in name)


def test_the_drawn_weights_do_not_depend_on_the_type_of_the_base(tiny_model: Path, tmp_path: Path) -> None:
    half = Precision(dtype=torch.bfloat16, reason="a test wants it")
    one, other = (drawn(tiny_model, tmp_path / p.name, precision=p) for p in (FLOAT32, half))
    assert same(one, other)
    assert {weight.dtype for weight in other.values()} == {torch.float32}


def test_a_drawn_adapter_trains_as_a_loaded_one_does(tiny_model: Path, tmp_path: Path) -> None:
    drawn(tiny_model, tmp_path / "adapter")
    base = load_base(tiny_model, FLOAT32, attention="sdpa", trust_remote_code=False)
    loaded = load_adapter(base, tmp_path / "adapter", trainable=True)
    base = load_base(tiny_model, FLOAT32, attention="sdpa", trust_remote_code=False)
    fresh = initial_adapter(base, make_request(tiny_model).config.training, seed=1)
    one, other = (
        [(name, p.requires_grad, p.dtype, p.device) for name, p in model.named_parameters()]
        for model in (loaded, fresh)
    )
    assert one == other
    assert same(snapshot(loaded), snapshot(fresh))
    save_adapter(loaded, tmp_path / "again", base_name="base")
    config = "adapter_config.json"
    assert read(tmp_path / "again" / config) == read(tmp_path / "adapter" / config)


def test_an_adapter_that_was_prepared_is_the_one_that_is_trained(
    tiny_model: Path, tmp_path: Path, first: list[Weights]
) -> None:
    request = make_request(tiny_model, seed=1)
    folder = load(tmp_path, request)
    # As left by releases that prepared a model for each job.
    prepared = drawn(tiny_model, folder / "in" / "model" / "adapter", seed=2)
    stages.train(folder, request, report=silent)
    begun = {name.replace(".default.", "."): weight for name, weight in first[0].items()}
    assert same(begun, prepared)


def test_the_adapter_loads_and_its_weights_moved(train: Trained, tiny_model: Path, tmp_path: Path) -> None:
    folder, result, _ = train()
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    PeftModel.from_pretrained(base, folder / "out" / "adapter")
    after = load_file(folder / "out" / "adapter" / "adapter_model.safetensors")
    before = drawn(tiny_model, tmp_path / "before")
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in after)
    assert read(folder / "out" / "training_result.json")["training_complete"]
    assert result.figures["steps"] == 3


def test_the_same_inputs_give_the_same_adapter_bytes(train: Trained) -> None:
    written = []
    for _ in range(2):
        adapter = train()[0] / "out" / "adapter"
        written.append({path.name: path.read_bytes() for path in adapter.iterdir()})
    assert written[0] == written[1]


def test_the_adapter_names_its_base_model_and_its_modules_in_order(train: Trained, tiny_model: Path) -> None:
    folder, _, _ = train(lora_target_modules=["v_proj", "down_proj", "q_proj"], lora_alpha_over_r=1.2)
    config = read(folder / "out" / "adapter" / "adapter_config.json")
    assert config["base_model_name_or_path"] == str(tiny_model)
    assert config["target_modules"] == ["down_proj", "q_proj", "v_proj"]
    assert config["use_rslora"]
    assert config["lora_alpha"] == 4  # int(1.2 × 4)


def test_each_step_is_reported_with_loss_speed_and_time_left(train: Trained) -> None:
    _, _, events = train()
    steps = [event.fields for event in events if event.action == "train.step"]
    assert [fields["step"] for fields in steps] == [1, 2, 3]
    assert {"total_steps", "loss", "learning_rate", "tokens_per_s", "eta_s"} <= steps[0].keys()
    assert steps[-1]["eta_s"] == 0


def test_training_prints_nothing(train: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    train()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "%|" not in printed.err


def test_a_validation_split_is_evaluated(train: Trained) -> None:
    folder, _, _ = train(validation_ratio=0.2)
    losses = [
        entry["eval_loss"] for entry in read(folder / "out" / "log_history.json") if "eval_loss" in entry
    ]
    assert losses
    assert all(0 < loss < 20 for loss in losses)


def test_recomputed_activations_give_the_same_weights(
    train: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = train()[0]
    monkeypatch.setattr(stage, "choose_checkpointing", lambda _: True)
    recomputed = train()[0]
    path = "out/adapter/adapter_model.safetensors"
    before, after = load_file(kept / path), load_file(recomputed / path)
    assert all(torch.allclose(before[name], after[name], atol=1e-5) for name in before)
    assert read(recomputed / "out" / "training_result.json")["gradient_checkpointing"]


def test_an_adapter_that_did_not_move_fails_the_job(train: Trained) -> None:
    with pytest.raises(ParameterError, match="did not change the adapter"):
        train(learning_rate=1e-300)


def test_an_unknown_schedule_is_a_parameter_error(tiny_model: Path, tmp_path: Path) -> None:
    training = make_request(tiny_model, learning_rate=0.1).config.training
    training = training.model_copy(update={"lr_scheduler": "zigzag"})
    with pytest.raises(ParameterError, match="cosine"):
        training_arguments(training, run_options(tmp_path), evaluate=False)


def test_an_allocation_that_fails_is_out_of_memory() -> None:
    with pytest.raises(OutOfMemory), typed_out_of_memory():
        torch.empty(2**55)


def test_another_runtime_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="shape") as caught, typed_out_of_memory():
        torch.ones(2, 3).view(7)
    assert not isinstance(caught.value, OutOfMemory)


def test_activations_are_recomputed_only_when_they_do_not_fit() -> None:
    assert choose_checkpointing(Estimate(activation_bytes=90, available_bytes=100))
    assert not choose_checkpointing(Estimate(activation_bytes=10, available_bytes=100))


def test_attention_kernels_that_are_not_installed_fall_back(caplog: pytest.LogCaptureFixture) -> None:
    assert choose_attention("kernels-community/flash-attn2") == "sdpa"
    assert "because" in caplog.text
    assert choose_attention("eager") == "eager"


def test_the_precision_comes_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        chosen = choose_precision()
    assert f"dtype={chosen.name} because {chosen.reason}" in caplog.text


def test_the_initial_adapter_changes_nothing(tiny_model: Path) -> None:
    base = load_base(tiny_model, FLOAT32, attention="sdpa", trust_remote_code=False)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        before = base(ids).logits
        training = make_request(tiny_model).config.training
        after = initial_adapter(base, training, seed=1)(ids).logits
    assert torch.equal(before, after)
