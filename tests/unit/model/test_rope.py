"""RoPE scaling is in effect, not only written down."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from nss_train.model.layers.rope import rope_scaling
from nss_train.model.loading import FLOAT32, load_base


@pytest.mark.parametrize("factor", [2, 3])
def test_the_angles_are_divided_by_the_factor(factor: int, tiny_model: Path) -> None:
    own = AutoConfig.from_pretrained(tiny_model)
    rope = rope_scaling(factor, own.to_dict())
    plain, stretched = (
        load_base(tiny_model, FLOAT32, attention="sdpa", trust_remote_code=False, rope=r)
        for r in (None, rope)
    )
    hidden, positions = torch.zeros(1, 8, 4), torch.arange(8)[None] * factor
    expected = plain.model.rotary_emb(hidden, torch.arange(8)[None])
    found = stretched.model.rotary_emb(hidden, positions)
    assert torch.allclose(expected[0], found[0], atol=1e-6)
    assert torch.allclose(expected[1], found[1], atol=1e-6)
    assert stretched.config.max_position_embeddings == factor * own.max_position_embeddings


def test_a_theta_that_is_null_is_left_out() -> None:
    rope = rope_scaling(2, {"rope_parameters": {"rope_theta": None}, "rope_theta": 7})
    assert rope is not None
    assert rope.theta == 7
