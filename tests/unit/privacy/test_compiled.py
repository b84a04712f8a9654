"""A private training of compiled layers is as private, and one that cannot compile them trains without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch._dynamo.testing import CompileCounterWithBackend
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.llama.modeling_llama import LlamaMLP

from nss_train.contract import Kernels
from nss_train.errors import ParameterError
from nss_train.model.layers import compiled
from nss_train.privacy.dpsgd.gradients import passes
from nss_train.privacy.dpsgd.trainer import OpacusDPTrainer
from tests.unit.training.conftest import read

from .conftest import MOST_SLACK, PrivateRun

# A compiler's imports are none of ours.
pytestmark = pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")

COMPILED = Kernels(layers="compiled")
EAGER_BECAUSE = "layers=eager because a trial of compiled ones failed: "


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> CompileCounterWithBackend:
    """Make graphs as on a GPU, one for each shape, and run them without a compiler, which takes a minute."""
    counter = CompileCounterWithBackend("aot_eager")
    torch.compiler.reset()

    def compile_layers(model: PeftModel) -> None:
        for module in model.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.compile(dynamic=False, backend=counter)

    monkeypatch.setattr(passes, "compile_layers", compile_layers)
    return counter


@pytest.mark.long
def test_layers_are_compiled_by_the_trial_and_by_no_step_after_it(
    private_run: Callable[..., PrivateRun], graphs: CompileCounterWithBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_trial, honest = [], OpacusDPTrainer.take_steps

    def take_steps(*given: Any) -> None:
        by_trial.append(graphs.frame_count)
        honest(*given)

    monkeypatch.setattr(OpacusDPTrainer, "take_steps", take_steps)
    run = private_run(kernels=COMPILED)
    result = run.start()
    assert result.figures["steps"] == run.plan.steps
    assert read(run.folder / "out" / "privacy_result.json")["slack"] <= MOST_SLACK
    assert by_trial == [graphs.frame_count]
    assert graphs.frame_count > 0


def test_layers_that_cannot_be_compiled_are_computed_as_they_are(
    private_run: Callable[..., PrivateRun], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(
        passes, "compile_layers", lambda model: compiled.compile_layers(model, backend=broken)
    )
    torch.compiler.reset()
    run = private_run(kernels=COMPILED)
    result = run.start()
    assert EAGER_BECAUSE in caplog.text
    assert "no compiler here" in caplog.text
    assert result.figures["steps"] == run.plan.steps


@pytest.mark.long
@pytest.mark.usefixtures("graphs")
def test_a_coupling_is_found_in_compiled_layers_and_in_the_layers_as_they_are(
    private_run: Callable[..., PrivateRun], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    honest = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: honest(self, x) + x.mean((0, 1)))
    with pytest.raises(ParameterError, match=r"this model's model\.layers\.0\.mlp lets one row change"):
        private_run(kernels=COMPILED).start()
    assert EAGER_BECAUSE + "The base model cannot be trained privately." in caplog.text
