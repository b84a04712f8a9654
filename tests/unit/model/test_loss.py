"""The loss in parts is the model's own loss, for each family whose head is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from nss_train.model.layers import loss
from nss_train.model.layers.heads import DIVIDED_HEADS, PLAIN_HEADS
from nss_train.model.layers.loss import Head

LENGTHS, WIDTH, PROMPT, VOCABULARY = (19, 11, 5), 19, 3, 97
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def model_of(kind: str, **sizes: Any) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = AutoConfig.for_model(kind, **SIZES | sizes)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    return model.train()


def rows() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids, mask and labels of rows of different lengths, padded on the right."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(3, VOCABULARY, (len(LENGTHS), WIDTH), generator=generator)
    mask = (torch.arange(WIDTH) < torch.tensor(LENGTHS)[:, None]).long()
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :PROMPT] = -100
    return ids.masked_fill(mask == 0, 0), mask, labels


def gradients(model: PreTrainedModel) -> torch.Tensor:
    """Return and reset the gradients of all weights below the head."""
    head = model.get_output_embeddings().weight
    kept = [w.grad.flatten() for w in model.parameters() if w.grad is not None and w is not head]
    found = torch.cat(kept)
    model.zero_grad()
    return found


@pytest.mark.parametrize("chunk", [1, 4, 1000])
@pytest.mark.parametrize("kind", sorted(PLAIN_HEADS | DIVIDED_HEADS))
def test_it_is_the_models_own_whatever_the_chunk(
    kind: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(loss.CHUNK_TOKENS, "cpu", chunk)
    extra = {"logits_scaling": 4.0} if kind in DIVIDED_HEADS else {}
    # An untied head: its own gradient is not computed in parts, as it is frozen in a training.
    model = model_of(kind, tie_word_embeddings=False, **extra)
    model.get_output_embeddings().requires_grad_(False)
    ids, mask, labels = rows()
    learned = int((labels[:, 1:] != -100).sum())
    own = model(input_ids=ids, attention_mask=mask, labels=labels, num_items_in_batch=learned).loss
    own.backward()
    wanted = gradients(model)
    head = Head.of(model)
    assert head is not None
    row, before = (labels[:, 1:] != -100).nonzero(as_tuple=True)
    # No mask is given: no learned token sees the padding behind it.
    found = head.loss(ids, row * WIDTH + before, labels[row, before + 1]) / learned
    found.backward()
    assert found.item() == pytest.approx(own.item(), rel=1e-6)
    assert (gradients(model) - wanted).norm() <= 1e-5 * wanted.norm()


@pytest.mark.parametrize("kind", sorted(PLAIN_HEADS | DIVIDED_HEADS))
def test_each_rows_loss_is_the_models_own_whatever_the_chunk(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"logits_scaling": 4.0} if kind in DIVIDED_HEADS else {}
    model = model_of(kind, tie_word_embeddings=False, **extra)
    model.get_output_embeddings().requires_grad_(False)
    ids, mask, labels = rows()
    weights = torch.tensor([0.5, 2.0, -1.0])
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")
    (each.sum(1) * weights).sum().backward()
    wanted = gradients(model)
    head = Head.of(model)
    assert head is not None
    for chunk in (1, 7, 1000):
        monkeypatch.setitem(loss.CHUNK_TOKENS, "cpu", chunk)
        found = head.row_losses(ids, labels, prompt=PROMPT)
        (found * weights).sum().backward()
        assert torch.allclose(found, each.sum(1), rtol=1e-5)
        assert (gradients(model) - wanted).norm() <= 1e-5 * wanted.norm()


def test_the_losses_gradient_is_that_of_cross_entropy_in_double_precision() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = 8 * torch.randn(7, VOCABULARY, generator=generator, dtype=torch.float64)
    targets = torch.randint(VOCABULARY, (7,), generator=generator)
    exact = logits.clone().requires_grad_()
    whole = torch.nn.functional.cross_entropy(exact / 3, targets, reduction="none")
    whole.sum().backward()
    losses, slopes = loss.scores(logits.float(), targets, 3.0)
    assert exact.grad is not None
    assert torch.allclose(losses.double(), whole.detach(), rtol=1e-5, atol=1e-6)
    assert torch.allclose(slopes.double(), exact.grad, rtol=1e-4, atol=1e-7)


def test_a_step_without_learned_tokens_has_no_loss_and_no_gradient() -> None:
    model = model_of("llama")
    head = Head.of(model)
    assert head is not None
    nothing = torch.zeros(0, dtype=torch.int64)
    found = head.loss(rows()[0], nothing, nothing)
    found.backward()
    assert found.item() == 0
    assert float(gradients(model).abs().sum()) == 0


@pytest.mark.parametrize("kind", ["gemma2", "gpt2", "mixtral"])
def test_a_family_whose_logits_are_made_in_another_way_keeps_its_own_loss(kind: str) -> None:
    assert Head.of(model_of(kind)) is None


def test_a_head_with_a_bias_keeps_the_models_own_loss() -> None:
    model = model_of("llama")
    model.lm_head = torch.nn.Linear(32, VOCABULARY, bias=True)
    assert Head.of(model) is None
