"""A model that no device can hold is refused before it is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nss_train.config import SafeSynthesizerParameters
from nss_train.errors import ResourceError
from nss_train.model.scheme import Scheme
from nss_train.training.ranks import group, weights
from nss_train.training.ranks.group import choose_ranks, placement
from nss_train.training.ranks.weights import check_weights_fit

from .conftest import make_request

ConfigOf = Callable[[str], SafeSynthesizerParameters]
WEIGHTS = 1_000
PRIVATE: dict[str, Any] = {"privacy": {"dp_enabled": True, "epsilon": 8}}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Return the folder of a model whose bfloat16 weights take 2,000 bytes."""
    for part in (1, 2):
        (tmp_path / f"model-{part}.safetensors").write_bytes(bytes(WEIGHTS))
    (tmp_path / "config.json").write_text(json.dumps({"dtype": "bfloat16"}))
    return tmp_path


@pytest.fixture
def config_of(tiny_model: Path) -> ConfigOf:
    return lambda kind: make_request(tiny_model, sections=PRIVATE if kind == "private" else None).config


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Claim two devices of 1,000 bytes and a single rank; return what may be changed."""
    found = SimpleNamespace(total_memory=1_000, ranks=1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: found)
    state = lambda: SimpleNamespace(num_processes=found.ranks, local_process_index=1, device="cuda:1")  # noqa: E731
    monkeypatch.setattr(weights, "group_state", state)
    monkeypatch.setattr(group, "group_state", state)
    return found


@pytest.mark.parametrize(
    ("ranks", "kind", "scheme"),
    [(1, "plain", None), (2, "fsdp", None), (2, "plain", Scheme.BNB_8BIT), (1, "private", Scheme.BNB_4BIT)],
)
def test_weights_that_fit_into_the_devices_are_loaded(
    *, ranks: int, kind: str, scheme: Scheme | None, base: Path, device: SimpleNamespace, config_of: ConfigOf
) -> None:
    """A single plain rank spreads its model over both devices."""
    device.ranks = ranks
    check_weights_fit(base, config_of(kind), value_bytes=2, scheme=scheme, fsdp=kind == "fsdp")


@pytest.mark.parametrize(
    ("ranks", "kind", "remedy"),
    [
        (1, "private", "quantize it (training.quantize_model), or train where the devices are larger"),
        (2, "plain", "quantize it (training.quantize_model), let 2 ranks or more share it (fsdp), or train"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_a_way_out(
    *, ranks: int, kind: str, remedy: str, base: Path, device: SimpleNamespace, config_of: ConfigOf
) -> None:
    device.ranks = ranks
    with pytest.raises(ResourceError) as refused:
        check_weights_fit(base, config_of(kind), value_bytes=2, scheme=None, fsdp=False)
    assert refused.value.problems[0].remedy.startswith(remedy)


def test_stored_weights_are_counted_as_they_will_be_held(
    base: Path, device: SimpleNamespace, config_of: ConfigOf
) -> None:
    config, device.ranks = config_of("plain"), 2
    for stored in ({"torch_dtype": "float32"}, {"quantization_config": {}, "dtype": "float32"}):
        (base / "config.json").write_text(json.dumps(stored))
        device.total_memory = 1_000 if "torch_dtype" in stored else 2_000
        check_weights_fit(base, config, value_bytes=2, scheme=None, fsdp=False)
        device.total_memory -= 1
        with pytest.raises(ResourceError, match="and 1 device have"):
            check_weights_fit(base, config, value_bytes=2, scheme=None, fsdp=False)


def test_each_rank_has_the_device_of_its_number(device: SimpleNamespace) -> None:
    assert choose_ranks(0, effective_batch=8) == 2
    device.ranks = 2
    assert placement(fsdp=False) == {"": 1}
    device.ranks = 1
    assert placement(fsdp=False) == "auto"
