"""No partition of a step's rows changes its gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from nss_train.model.loss import Head
from nss_train.training.micro_batches import IGNORED_LABEL, Example, Room, micro_batches
from tests.unit.model.test_loss import VOCABULARY, gradients, model_of

CPU = torch.device("cpu")
KIND = "llama"
LONGEST = 24


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


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    found = model_of(KIND, tie_word_embeddings=False)
    found.get_output_embeddings().requires_grad_(False)
    return found


@given(examples=steps(), room=rooms)
@settings(max_examples=25, deadline=None)
def test_no_partition_into_micro_batches_changes_the_loss_or_its_gradient(
    model: PreTrainedModel, examples: list[Example], room: Room
) -> None:
    head = Head.of(model)
    assert head is not None
    learned = max(1, sum(example.learned for example in examples))
    loss, wanted = alone(model, examples, learned)
    found = torch.zeros(())
    for batch in micro_batches(examples, room, pad_id=0, device=CPU):
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
