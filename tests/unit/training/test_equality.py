"""No partition of a step's rows changes its gradient, nor the clipped sum of a private step."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from transformers import PreTrainedModel

from nss_train.config import parse_config
from nss_train.model.adapter import initial_adapter
from nss_train.model.layers.loss import Head
from nss_train.privacy.dpsgd.gradients.clipping import ClippedSum
from nss_train.privacy.dpsgd.gradients.micro_batches import MicroBatch, Shapes, UnitExamples
from nss_train.privacy.dpsgd.gradients.passes import Passes, row_losses
from nss_train.training.steps.kernels import base_of
from nss_train.training.steps.micro_batches import IGNORED_LABEL, Example, Room, micro_batches
from tests.unit.model.test_loss import VOCABULARY, gradients, model_of

CPU = torch.device("cpu")
KIND = "llama"
LONGEST = 24
CLIP = 0.5
"""Between the norms of the units' gradients: some are clipped."""


@st.composite
def steps(draw: st.DrawFn) -> list[Example]:
    """Draw the examples of a step: any lengths and prompts, some without learned tokens."""
    found = []
    for length in draw(st.lists(st.integers(1, LONGEST), min_size=1, max_size=6)):
        seed, prompt = draw(st.integers(0, 2**16)), draw(st.integers(0, length))
        ids = np.random.default_rng(seed).integers(3, VOCABULARY, length)
        labels = ids.copy()
        labels[:prompt] = IGNORED_LABEL
        found.append(Example(input_ids=ids, labels=labels))
    return found


rooms = st.builds(
    Room, rows=st.integers(1, 6), tokens=st.integers(1, 6 * LONGEST), multiple=st.sampled_from([1, 8, 64])
)

shapes = st.builds(Shapes, longest=st.just(LONGEST), tokens=st.integers(1, 200), rows=st.integers(1, 6))


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    found = model_of(KIND, tie_word_embeddings=False)
    found.get_output_embeddings().requires_grad_(False)
    return found


@pytest.fixture(scope="module")
def private_model() -> PeftModel:
    found = model_of(KIND, tie_word_embeddings=False)
    adapted = initial_adapter(found, parse_config({"training": {"lora_r": 4}}).training, seed=3)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            # While it is zero, half of the factors have no gradient.
            weight.data.copy_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(4)))
    return adapted.train()


@given(examples=steps(), room=rooms)
@settings(max_examples=25)
def test_no_partition_into_micro_batches_changes_the_loss_or_its_gradient(
    model: PreTrainedModel, examples: list[Example], room: Room
) -> None:
    head = Head.of(model)
    assert head is not None
    learned = max(1, sum(example.learned for example in examples))
    loss, wanted = alone(model, examples, learned)
    found = torch.zeros(())
    for batch in micro_batches(examples, room, device=CPU):
        part = head.loss(batch.input_ids, batch.learned, batch.targets) / learned
        part.backward()
        found += part.detach()
    assert float(found) == pytest.approx(loss, rel=1e-5)
    assert (gradients(model) - wanted).norm() <= 1e-5 * wanted.norm() + 1e-9


def alone(model: PreTrainedModel, examples: list[Example], learned: int) -> tuple[float, torch.Tensor]:
    """Return the loss and its gradient, each row computed alone by the model itself."""
    total = 0.0
    for example in examples:
        logits = model(input_ids=torch.from_numpy(example.input_ids)[None]).logits[0]
        whole = torch.nn.functional.cross_entropy(
            logits[:-1], torch.from_numpy(example.labels)[1:], reduction="sum", ignore_index=IGNORED_LABEL
        )
        (whole / learned).backward()
        total += float(whole.detach()) / learned
    return total, gradients(model)


@given(examples=steps(), owners=st.lists(st.integers(0, 3), min_size=6, max_size=6), shape=shapes)
@settings(max_examples=25)
def test_no_micro_batch_and_no_way_to_the_loss_changes_a_private_sum(
    private_model: PeftModel, examples: list[Example], owners: list[int], shape: Shapes
) -> None:
    rows = [{"input_ids": one.input_ids, "labels": one.labels} for one in examples]
    unit_of = np.sort(owners[: len(rows)])
    units = UnitExamples(Dataset.from_list(rows), unit_of, pad_id=0, prompt=0)
    trained = [weight for weight in private_model.parameters() if weight.requires_grad]
    alone = ClippedSum(trained, clip=CLIP)
    for unit in range(len(units)):
        parts = [private_gradient(private_model, batch) for batch in units.rows_alone(unit)]
        for part in parts[:-1]:
            alone.hold(part)
        alone.add(parts[-1], torch.zeros(1, dtype=torch.int64))
    wanted = alone.steps().double()
    for head in (None, Head.of(base_of(private_model))):
        total = ClippedSum(trained, clip=CLIP)
        passes = Passes(private_model, device=CPU, autocast=nullcontext, head=head)
        for batch in units.micro_batches(np.arange(len(units)), shape):
            passes.gradients(batch).add_gradients_to(total)
        passes.close()
        # Rounding to the grid moves each of the values of a unit by half a step at most.
        rounding = len(units) * len(wanted) ** 0.5
        assert (total.steps().double() - wanted).norm() <= 1e-5 * wanted.norm() + rounding


def private_gradient(model: PeftModel, batch: MicroBatch) -> list[torch.Tensor]:
    """Return the gradient of a single row, as of a micro-batch of one, by plain backpropagation."""
    model.zero_grad()
    row_losses(model, batch).sum().backward()
    found = [weight.grad[None].clone() for weight in model.parameters() if weight.grad is not None]
    model.zero_grad()
    return found
