"""A step of a training waits for its device once, to report its loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset

from nss_train.model.adapter import initial_adapter
from nss_train.model.layers.attention import WITHOUT_MASK, without_mask
from nss_train.model.layers.heads import DIVIDED_HEADS, PLAIN_HEADS
from nss_train.model.layers.loss import Head
from nss_train.model.loading import FLOAT32, load_base
from nss_train.training import arguments
from nss_train.training.trainer import load_transformers_tokenizer, make_trainer
from tests.unit.model.test_loss import model_of, rows

from .conftest import make_request, run_options
from .reads import PerStep, counted


def test_a_step_reads_its_loss_and_nothing_else(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a device: the usual optimizer of a CPU counts its steps there, and reads them.
    monkeypatch.setattr(arguments, "_optimizer", lambda **_: "adamw_torch_fused")
    config = make_request(tiny_model, batch_size=2, gradient_accumulation_steps=2, learning_rate=0.01).config
    base = load_base(tiny_model, FLOAT32, attention="sdpa", trust_remote_code=False)
    model = initial_adapter(base, config.training, seed=1)
    ids = [list(range(5, 5 + tokens)) for tokens in (9, 12, 7, 15, 8, 8, 11, 10, 9, 9, 6, 8)]
    examples = Dataset.from_dict(
        {"input_ids": ids, "attention_mask": [[1] * len(i) for i in ids], "labels": ids}
    )
    sides = {"train": examples, "validation": None}
    trainer = make_trainer(
        model, load_transformers_tokenizer(tiny_model), config, sides, run_options(tmp_path)
    )
    with counted() as reads:
        steps = PerStep(reads)
        trainer.add_callback(steps)
        trainer.train()
    assert steps.each() == [1, 1]


@pytest.mark.parametrize("kind", sorted(PLAIN_HEADS | DIVIDED_HEADS))
def test_a_pass_of_a_known_family_reads_nothing(kind: str) -> None:
    # A window of attention needs a mask, and a look for packed rows on the way to it.
    model = model_of(kind, sliding_window=None, tie_word_embeddings=False)
    model.get_output_embeddings().requires_grad_(False)
    head = Head.of(model)
    assert head is not None
    ids, _, labels = rows()
    learned = torch.arange(ids.numel() - 1)
    with counted() as reads:
        head.loss(ids, learned, ids.flatten()[1:]).backward()
        head.row_losses(ids, labels, prompt=3).sum().backward()
    assert reads.count == 0
    with counted() as reads:
        model(input_ids=ids, use_cache=False)
    assert reads.count == 1, "the model itself no longer looks for packed rows: without_mask can go"


def test_where_not_all_tokens_before_are_seen_the_mask_stays() -> None:
    config = model_of("mistral", sliding_window=4).config
    with without_mask(config):
        assert config._attn_implementation == "sdpa"
    config.sliding_window = None
    with without_mask(config):
        assert config._attn_implementation == WITHOUT_MASK
    assert config._attn_implementation == "sdpa"
    config._attn_implementation = "eager"
    with without_mask(config):
        assert config._attn_implementation == "eager"
