"""The gradient of each unit is what it would be on its own."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from nss_train.config import parse_config
from nss_train.errors import ParameterError
from nss_train.model.adapter import initial_adapter, ready_for_training
from nss_train.model.loading import FLOAT32, load_base
from nss_train.model.quantization import quantization_config
from nss_train.model.scheme import Scheme
from nss_train.privacy.dpsgd.gradients.clipping import ClippedSum, Noise
from nss_train.privacy.dpsgd.gradients.micro_batches import MicroBatch
from nss_train.privacy.dpsgd.gradients.passes import row_losses
from nss_train.privacy.dpsgd.gradients.per_sample_gradients import RowGradients
from nss_train.privacy.dpsgd.randomness import SecretRandomness

PROMPT, LENGTHS = 6, (20, 14, 17, 9)
SILENT = Noise(deviation=0.0, randomness=SecretRandomness())


def model_of(folder: Path, *, quantized: bool = False, checkpointing: bool = False) -> PeftModel:
    scheme = quantization_config(Scheme("bnb-4bit"), torch.float32) if quantized else None
    base = load_base(folder, FLOAT32, attention="sdpa", trust_remote_code=False, quantization=scheme)
    base = ready_for_training(base, checkpointing=checkpointing)
    training = parse_config({"training": {"lora_r": 4, "quantize_model": quantized}}).training
    model = initial_adapter(base, training, seed=3)
    generator = torch.Generator().manual_seed(4)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            # At its beginning half of the factors have no gradient.
            weight.data.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def batch_of(lengths: tuple[int, ...], places: list[int]) -> MicroBatch:
    """Return rows of random tokens behind the same prompt, padded to the longest."""
    generator = torch.Generator().manual_seed(5)
    width = max(LENGTHS)
    ids = torch.randint(10, 2000, (len(LENGTHS), width), generator=generator)
    mask = torch.arange(width) < torch.tensor(LENGTHS)[:, None]
    labels = ids.masked_fill(~mask, -100)
    labels[:, :PROMPT] = -100
    chosen = [LENGTHS.index(length) for length in lengths]
    longest = max(lengths)
    return MicroBatch(
        input_ids=ids[chosen, :longest],
        labels=labels[chosen, :longest],
        places=torch.tensor(places),
        units=np.asarray(places),
        learned=(labels[chosen] != -100).sum(1),
        tokens=sum(lengths),
        prompt=PROMPT,
    )


def gradients(model: PeftModel, batch: MicroBatch) -> list[torch.Tensor]:
    """Return the gradients of the sum of all losses, by plain backpropagation."""
    model.zero_grad()
    row_losses(model, batch.to(model.device)).sum().backward()
    found = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    model.zero_grad()
    return found


def row_gradients(model: PeftModel, batch: MicroBatch) -> list[torch.Tensor]:
    rows = RowGradients(model)
    rows.begin(len(batch.input_ids))
    row_losses(model, batch.to(model.device)).sum().backward()
    found = rows.take()
    rows.close()
    return found


def opacus_gradients(model: PeftModel, batch: MicroBatch) -> list[torch.Tensor]:
    """Return the gradients of rows as Opacus' hooks compute them, without recomputation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the import of Opacus warns of is not ours
        from opacus.grad_sample.grad_sample_module import GradSampleHooks
    model.gradient_checkpointing_disable()
    model.enable_input_require_grads()
    hooks = GradSampleHooks(model, loss_reduction="sum")
    row_losses(model, batch.to(model.device)).sum().backward()
    trained: list[Any] = [weight for weight in model.parameters() if weight.requires_grad]
    found = [weight.grad_sample.clone() for weight in trained]
    hooks.cleanup()
    model.zero_grad()
    return found


every_kind = pytest.mark.parametrize(
    "options",
    [{}, {"checkpointing": True}, {"quantized": True}, {"quantized": True, "checkpointing": True}],
    ids=["fp32", "recomputed", "4-bit", "4-bit recomputed"],
)


@every_kind
def test_each_row_has_the_gradient_that_opacus_finds(tiny_model: Path, options: dict[str, Any]) -> None:
    model, batch = model_of(tiny_model, **options), batch_of(LENGTHS, [0, 1, 2, 3])
    found = row_gradients(model, batch)
    wanted = opacus_gradients(model, batch)
    assert sum(weight.requires_grad for weight in model.parameters()) == len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        # Equal bits were measured; matrix products of another machine may add in another order.
        assert (one - other).norm() <= 1e-6 * other.norm()


@every_kind
def test_each_row_has_the_gradient_that_it_has_alone(tiny_model: Path, options: dict[str, Any]) -> None:
    model = model_of(tiny_model, **options)
    alone = [gradients(model, batch_of((length,), [0])) for length in LENGTHS]
    found = row_gradients(model, batch_of(LENGTHS, [0, 1, 2, 3]))
    for row, wanted in enumerate(alone):
        whole = torch.cat([one.flatten() for one in wanted])
        difference = torch.cat([gradient[row].flatten() for gradient in found]) - whole
        # What float32 leaves: between 0.3e-5 and 1.02e-5 with 28 pairs of base and initial adapter.
        assert difference.norm() <= 2e-5 * whole.norm()


def test_the_unit_of_several_rows_has_the_gradient_of_their_sum(tiny_model: Path) -> None:
    model = model_of(tiny_model)
    units = [(20, 9), (14, 17)]
    total = ClippedSum([w for w in model.parameters() if w.requires_grad], clip=0.5)
    wanted = None
    for unit in units:
        flat = torch.cat([g.flatten() for g in gradients(model, batch_of(unit, [0, 0]))])
        clipped = flat * min(1.0, 0.5 / float(flat.norm()))
        wanted = clipped if wanted is None else wanted + clipped
    batch = batch_of((20, 9, 14, 17), [0, 0, 1, 1])
    total.add(row_gradients(model, batch), batch.places)
    released = torch.cat([g.flatten() for g in total.release(SILENT, batch=1)])
    assert wanted is not None
    assert (released - wanted).norm() <= 1e-5 * wanted.norm()


def test_a_unit_that_overflows_weighs_nothing_and_changes_no_other(tiny_model: Path) -> None:
    model = model_of(tiny_model)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    batch, sums = batch_of(LENGTHS, [0, 1, 2, 2]), [ClippedSum(trained, clip=0.5) for _ in range(2)]
    sums[0].add([torch.stack(one) for one in _alone(model, [LENGTHS[:1], LENGTHS[1:2]])], torch.arange(2))
    overflow = model.get_input_embeddings().register_forward_hook(_overflow_in_row_3)
    sums[1].add(row_gradients(model, batch), batch.places)
    overflow.remove()
    without, with_it = (torch.cat([g.flatten() for g in total.release(SILENT, batch=1)]) for total in sums)
    assert (with_it - without).norm() <= 1e-5 * without.norm()


def _alone(model: PeftModel, units: list[tuple[int, ...]]) -> list[tuple[torch.Tensor, ...]]:
    """Return the gradients of single units, for each weight."""
    return list(zip(*(gradients(model, batch_of(unit, [0] * len(unit))) for unit in units), strict=True))


def _overflow_in_row_3(_module: Any, _ids: Any, found: torch.Tensor) -> torch.Tensor:
    """Overflow in row 3, as one row's activations do in half precision."""
    return torch.where(
        torch.arange(len(found), device=found.device)[:, None, None] == 3, found * float("inf"), found
    )


def test_gradients_under_autocast_are_of_rows_and_in_float32(tiny_model: Path) -> None:
    model, batch = model_of(tiny_model), batch_of(LENGTHS, [0, 1, 2, 3])
    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        found = row_gradients(model, batch)
    exact = row_gradients(model, batch)
    for one, other in zip(found, exact, strict=True):
        assert one.dtype == torch.float32
        assert 0 < (one - other).norm() <= 0.1 * other.norm()


def test_a_pass_whose_rows_were_not_told_apart_is_refused(tiny_model: Path) -> None:
    model = model_of(tiny_model)
    rows = RowGradients(model)
    row_losses(model, batch_of((20, 9), [0, 1]).to(model.device)).sum().backward()
    with pytest.raises(RuntimeError, match="the guarantee would not hold"):
        rows.take()
    rows.begin(2)
    row_losses(model, batch_of((20, 9), [0, 1]).to(model.device)).sum().backward()
    rows.take()
    with pytest.raises(RuntimeError, match="the guarantee would not hold"):
        rows.take()
    rows.close()


@pytest.mark.parametrize("shape", [(8, 4), (1, 8, 4), (2, 2, 2, 4)])
def test_a_layer_that_sees_tokens_and_not_rows_is_refused(shape: tuple[int, ...]) -> None:
    config = LoraConfig(r=2, target_modules=["0"])
    model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(4, 4)), config)
    rows = RowGradients(model)
    rows.begin(2)
    assert model(torch.ones(2, 3, 4)).shape == (2, 3, 4)
    with pytest.raises(ParameterError, match=r"0\.lora_A\.default gets an input of shape"):
        model(torch.ones(shape))


def test_a_trained_weight_outside_a_linear_layer_is_refused() -> None:
    base = torch.nn.Sequential(torch.nn.Embedding(9, 4), torch.nn.Linear(4, 4))
    for config in (
        LoraConfig(r=2, target_modules=["0", "1"]),
        LoraConfig(r=2, target_modules=["1"], bias="all"),
        LoraConfig(r=2, target_modules=["1"], modules_to_save=["0"]),
    ):
        with pytest.raises(ParameterError, match="is no weight of a linear layer of its own"):
            RowGradients(get_peft_model(copy.deepcopy(base), config))


def test_afterwards_the_model_is_as_it_was(tiny_model: Path) -> None:
    model = model_of(tiny_model)
    batch = batch_of((20, 9), [0, 1])
    before, names, kinds = gradients(model, batch), list(model.state_dict()), _kinds(model)
    rows = RowGradients(model)
    assert list(model.state_dict()) == names
    # Between passes it computes as ever.
    for one, other in zip(before, gradients(model, batch), strict=True):
        assert torch.equal(one, other)
    for _ in range(2):
        rows.close()
        assert _kinds(model) == kinds
    for one, other in zip(before, gradients(model, batch), strict=True):
        assert torch.equal(one, other)
    RowGradients(model).close()


def _kinds(model: PeftModel) -> list[type]:
    return [type(module) for module in model.modules()]
