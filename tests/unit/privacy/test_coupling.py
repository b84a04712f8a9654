"""A model in which one unit changes another's gradient is refused, and the layer that does it is named."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM, PreTrainedModel

from nss_train.config.sections.guarantee import Clock
from nss_train.errors import ParameterError
from nss_train.model.layers.dropout import config_without_dropout, model_without_dropout
from nss_train.privacy.accounting.plan import COUNT, ByProduct, PrivacyPlan, Source
from nss_train.privacy.accounting.result import Coupling
from nss_train.privacy.coupling import coupling, trial
from nss_train.privacy.coupling.coupling import (
    MOST_SLACK,
    Subject,
    check_couplings,
    check_declared,
    most_drawn,
)
from nss_train.privacy.coupling.invented import Invented
from nss_train.privacy.coupling.probe import Probe
from nss_train.privacy.dpsgd.gradients.micro_batches import Shapes
from nss_train.privacy.dpsgd.gradients.passes import Passes
from nss_train.privacy.dpsgd.gradients.repeatable import repeatable_kernels
from nss_train.privacy.dpsgd.randomness import SecretRandomness

from .plans import plan

SMALL: dict[str, Any] = {
    "vocab_size": 90,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 2,
    "use_cache": False,
}
SHAPES = Shapes(longest=64, tokens=256, rows=4)
CLAIM: PrivacyPlan = plan(units=200, batch=10, sampling_rate=0.05)
PROMPT = 6


def llama(**options: Any) -> PreTrainedModel:
    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(**(SMALL | options)))


def mixtral(**options: Any) -> PreTrainedModel:
    torch.manual_seed(1)
    return MixtralForCausalLM(MixtralConfig(**(SMALL | {"num_local_experts": 4} | options)))


def adapted(base: PreTrainedModel, **options: Any) -> PeftModel:
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj", "o_proj"], **options)
    found = get_peft_model(base, config)
    assert isinstance(found, PeftModel)
    return found.train()


def check(model: PeftModel, *, dtype: torch.dtype = torch.float32, shapes: Shapes = SHAPES) -> Coupling:
    passes = Passes(model, device=model.device, autocast=contextlib.nullcontext)
    invented = Invented.of(shapes, prompt=PROMPT, vocabulary=SMALL["vocab_size"], pad_id=2)
    probe = Probe(passes, shapes)
    subject = Subject(passes=passes, probe=probe, invented=invented, name="small", dtype=dtype)
    try:
        return check_couplings(subject, drawn=most_drawn(CLAIM))
    finally:
        passes.close()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_honest_model_needs_no_slack(dtype: torch.dtype, attention: str) -> None:
    model = adapted(llama(attn_implementation=attention).to(dtype))
    assert check(model, dtype=dtype).slack == 0


def test_experts_need_hardly_any_slack() -> None:
    """An expert's product has as many rows as chose it, and some processors round by that number."""
    assert check(adapted(mixtral())).slack < 1e-4


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_device_rows_of_several_blocks_need_no_slack(dtype: torch.dtype) -> None:
    model = adapted(llama(hidden_size=256, max_position_embeddings=1024, attn_implementation="sdpa"))
    with repeatable_kernels(torch.device("cuda")):
        found = check(model.to("cuda", dtype), dtype=dtype, shapes=Shapes(longest=1024, tokens=4096, rows=4))
    assert found.slack == 0


def test_afterwards_model_and_generators_are_as_they_were() -> None:
    model = adapted(llama())
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    state = torch.get_rng_state()
    check(model)
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert all(weight.grad is None for weight in model.parameters())


class OfTheBatch(nn.Module):
    """A module that changes a layer's output."""

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self._change = change

    def forward(self, found: torch.Tensor) -> torch.Tensor:
        return self._change(found)


def behind_the_first_layers_mlp(change: Callable[[torch.Tensor], torch.Tensor]) -> PeftModel:
    base = llama()
    layer = base.model.layers[0]
    layer.mlp = nn.Sequential(layer.mlp, OfTheBatch(change))
    return adapted(base)


def attention_dropout() -> PeftModel:
    return adapted(llama(attention_dropout=0.1))


def adapter_dropout() -> PeftModel:
    return adapted(llama(), lora_dropout=0.1)


def dropout_by_function() -> PeftModel:
    return behind_the_first_layers_mlp(lambda found: nn.functional.dropout(found, 0.1, training=True))


def mask_of_the_batch() -> PeftModel:
    """Return a model with dropout seeded by the batch: equal for equal batches, and no seed reveals it."""

    def change(found: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(int(found.detach().abs().sum() * 1e3))
        return found * (torch.rand(found.shape, generator=generator) > 0.1)

    return behind_the_first_layers_mlp(change)


def batch_norm() -> PeftModel:
    return behind_the_first_layers_mlp(
        lambda found: (found - found.mean((0, 1))) / (found.std((0, 1)) + 1e-3)
    )


def scale_of_the_batch() -> PeftModel:
    """Return a model with a quantization by the largest value of all rows."""

    def change(found: torch.Tensor) -> torch.Tensor:
        step = found.detach().abs().max() / 16
        return found + ((found / step).round() * step - found).detach()

    return behind_the_first_layers_mlp(change)


def capacity() -> PeftModel:
    """Return a model with a router whose expert takes the first tokens of a batch, and no more."""

    def change(found: torch.Tensor) -> torch.Tensor:
        flat = found.flatten(0, 1)
        chosen = flat.detach()[:, 0] > 0
        taken = chosen & (chosen.cumsum(0) <= len(flat) // 4)
        return (flat * taken[:, None]).view_as(found)

    return behind_the_first_layers_mlp(change)


def row_number() -> PeftModel:
    return behind_the_first_layers_mlp(
        lambda found: found * (1 + 0.1 * torch.arange(len(found))[:, None, None])
    )


@pytest.mark.parametrize(
    ("plant", "layer"),
    [
        (attention_dropout, "model.layers.0.self_attn"),
        (adapter_dropout, "model.layers.0.self_attn.q_proj.lora_dropout.default"),
        (dropout_by_function, "model.layers.0.mlp.1"),
        (mask_of_the_batch, "model.layers.0.mlp.1"),
        (batch_norm, "model.layers.0.mlp.1"),
        (scale_of_the_batch, "model.layers.0.mlp.1"),
        (capacity, "model.layers.0.mlp.1"),
        (row_number, "model.layers.0.mlp.1"),
    ],
)
def test_a_coupling_is_found_and_its_layer_named(plant: Callable[[], PeftModel], layer: str) -> None:
    with pytest.raises(ParameterError) as caught:
        check(plant())
    (problem,) = caught.value.problems
    assert problem.field == "training.pretrained_model"
    assert problem.value == "small"
    assert f"this model's {layer} lets one row change another's gradient (by" in problem.remedy


def test_rotary_frequencies_that_follow_the_longest_row_are_found() -> None:
    ropes = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
    model = adapted(llama(max_position_embeddings=16, rope_parameters=ropes))
    with pytest.raises(ParameterError, match="rotary_emb"):
        check(model)


def test_a_layer_that_remembers_is_found() -> None:
    base = llama()

    class Memory(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, found: torch.Tensor) -> torch.Tensor:
            self.seen += found.detach().abs().mean()
            return found

    base.model.layers[0].mlp = nn.Sequential(base.model.layers[0].mlp, Memory())
    with pytest.raises(ParameterError, match=r"layers\.0\.mlp\.1 remembers the rows"):
        check(adapted(base))


def test_gradients_of_chance_are_told_from_a_coupling() -> None:
    def change(found: torch.Tensor) -> torch.Tensor:
        by_chance = 1 + secrets.randbelow(1000) / 1000
        found.register_hook(lambda gradient: gradient * by_chance)
        return found

    with pytest.raises(ParameterError, match="differ from one pass to the next on this device"):
        check(behind_the_first_layers_mlp(change))


def test_an_operation_without_a_repeatable_kernel_is_named() -> None:
    def change(found: torch.Tensor) -> torch.Tensor:
        place = torch.zeros(1, dtype=torch.int64)
        return found + found.detach().clone().put_(place, torch.ones(1))

    with (
        repeatable_kernels(torch.device("cuda")),
        pytest.raises(ParameterError, match="this model needs put_, whose results differ"),
    ):
        check(behind_the_first_layers_mlp(change))
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_gradient_that_is_not_what_the_rows_have_alone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Probe.norm
    monkeypatch.setattr(Probe, "norm", lambda *given: honest(*given) * 1.001)
    with pytest.raises(ParameterError, match="alone, so that it would not be clipped"):
        check(adapted(llama()))


def test_a_small_coupling_costs_noise_and_a_larger_one_the_job() -> None:
    def coupled(share: float) -> PeftModel:
        return behind_the_first_layers_mlp(lambda found: found + share * found.detach().mean((0, 1)))

    found = check(coupled(1e-5))
    assert 0 < found.slack <= MOST_SLACK
    assert found.slack == found.change * most_drawn(CLAIM)
    with pytest.raises(ParameterError, match="lets one row change another's gradient"):
        check(coupled(0.1))


def test_a_step_is_counted_on_to_draw_hardly_ever_more() -> None:
    assert most_drawn(plan(units=1000, sampling_rate=0.05)) > 50 + 5 * 7
    assert most_drawn(plan(units=100, sampling_rate=1.0)) == 100


@pytest.mark.parametrize("make", [attention_dropout, adapter_dropout])
def test_dropout_that_is_known_by_name_is_off(make: Callable[[], PeftModel]) -> None:
    model = make()
    assert model_without_dropout(model)
    assert check(model).slack == 0
    assert model_without_dropout(model) == []


def test_every_rate_of_a_config_is_set_to_0_and_nothing_else() -> None:
    inner = LlamaConfig(attention_dropout=0.2, hidden_size=64)
    config = LlamaConfig(attention_dropout=0.1, layerdrop=0.3, router_jitter_noise=0.01, drop_path_rate=0.4)
    config.text_config, config.attn_config = inner, {"attn_pdrop": 0.5, "clip_qkv": 8.0}
    config.drop_tokens = True
    assert sorted(config_without_dropout(config)) == [
        "attention_dropout",
        "attn_config.attn_pdrop",
        "drop_path_rate",
        "layerdrop",
        "router_jitter_noise",
        "text_config.attention_dropout",
    ]
    assert (inner.attention_dropout, inner.hidden_size) == (0, 64)
    assert config.attn_config == {"attn_pdrop": 0, "clip_qkv": 8.0}
    assert config.drop_tokens is True


def test_the_allowed_slack_is_told_with_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coupling, "MOST_SLACK", 0.031 * most_drawn(CLAIM))
    with pytest.raises(ParameterError, match=r"0\.031 C is allowed"):
        check(batch_norm())


def test_a_noisy_n_that_is_too_small_costs_no_privacy() -> None:
    """A step of more units than n, by chance of the count's noise, moves the sum no more than assumed."""
    counted = {"units_source": Source.NOISY, "by_products": (ByProduct(name=COUNT, epsilon=0.08),)}
    drawn = most_drawn(plan(units=100, sampling_rate=1.0, unit="value of patient", **counted))
    assert drawn >= 100 + 20 / 0.08
    assert most_drawn(plan(units=100, sampling_rate=1.0, unit="record", **counted)) >= 100 + 40 / 0.08


def test_a_slack_rests_on_no_declared_n() -> None:
    moved = Coupling(change=1e-4, drawn_at_most=30, units=20, longest_tokens=64, reason="it moved")
    with pytest.raises(ParameterError, match="guarantee.units"):
        check_declared(plan(units_source=Source.DECLARED), moved)
    check_declared(plan(units_source=Source.DECLARED), moved.model_copy(update={"change": 0.0}))
    check_declared(plan(units_source=Source.ROWS), moved)


def test_a_training_whose_slack_rests_on_a_declared_n_takes_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = Coupling(change=1e-4, drawn_at_most=30, units=20, longest_tokens=64, reason="it moved")
    monkeypatch.setattr(trial, "check_couplings", lambda *_, **__: moved)
    passes = Passes(adapted(llama()), device=torch.device("cpu"), autocast=contextlib.nullcontext)
    with pytest.raises(ParameterError, match="guarantee.units"):
        trial.Trial.of(
            passes,
            SHAPES,
            plan(units_source=Source.DECLARED),
            name="small",
            prompt=PROMPT,
            most_rows=1,
            dtype=torch.float32,
            clock=Clock.COARSE,
            randomness=SecretRandomness(),
        )
