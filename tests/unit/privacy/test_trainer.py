"""A private training from its plan to what it leaves."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from transformers.models.llama.modeling_llama import LlamaMLP

from nss_train.contract import CHECKPOINT_SAVED, CHECKPOINTS, CheckpointPolicy, Kernels
from nss_train.errors import BudgetExceeded, ParameterError
from nss_train.privacy.accounting import accountant
from nss_train.privacy.accounting.result import Coupling
from nss_train.privacy.coupling import trial
from nss_train.privacy.dpsgd.gradients.clipping import Noise
from nss_train.privacy.dpsgd.gradients.micro_batches import Shapes
from nss_train.privacy.dpsgd.randomness import KEY_BYTES
from nss_train.training import stage
from tests.unit.training.conftest import load, read

from .conftest import MOST_SLACK, PrivateRun, private_request

Make = Callable[..., PrivateRun]
ADAPTER = "adapter/adapter_model.safetensors"
EVERY_STEP = CheckpointPolicy(every_s=None, every_steps=1)


def adapter(folder: Path) -> dict[str, Any]:
    return dict(load_file(folder / ADAPTER))


def test_it_takes_the_planned_steps_and_says_what_they_cost(private_run: Make) -> None:
    run = private_run()
    result, plan = run.start(), run.plan
    assert [fields["step"] for fields in run.steps] == [plan.steps]
    spent = read(run.folder / "out" / "privacy_result.json")
    event = accountant.training(
        noise_multiplier=plan.noise_multiplier, sampling_rate=plan.sampling_rate, steps=plan.steps
    )
    (count,) = plan.by_products
    assert spent["epsilon_spent"] == pytest.approx(count.epsilon + accountant.spent(event, 1e-5), rel=1e-9)
    assert 7.9 < spent["epsilon_spent"] <= 8.0
    assert spent["steps_applied"] == plan.steps == result.figures["steps"]
    assert spent["audit"] is None
    assert 7.9 < run.steps[-1]["epsilon"] <= 8.0
    assert spent["slack"] == result.figures["slack"]
    assert 0 <= spent["coupling"]["change"] <= spent["slack"] <= MOST_SLACK


def test_nothing_that_was_not_paid_for_is_told(private_run: Make) -> None:
    run = private_run()
    result = run.start()
    allowed = {"step", "total_steps", "epsilon", "learning_rate", "eta_s"}
    assert all(set(fields) <= allowed for fields in run.steps)
    history = read(run.folder / "out" / "log_history.json")
    assert all(set(entry) <= {"step", "epoch", "epsilon", "learning_rate"} for entry in history)
    assert [entry["step"] for entry in history] == [run.plan.steps]
    assert not {"tokens", "tokens_per_s", "final_loss", "units_per_s"} & set(result.figures)
    assert result.figures["seconds"] == 60


def test_what_recomputes_activations_is_one_row_and_whether_is_not_told(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = []
    monkeypatch.setattr(stage, "choose_checkpointing", lambda found: bool(needed.append(found)))
    for name, rows in {"one": 1, "many": 6}.items():
        request = private_request(tiny_model, batch_size=rows, gradient_accumulation_steps=6 // rows)
        result = PrivateRun(load(tmp_path / name, request), request).start()
        assert "gradient_checkpointing" not in result.figures
        assert "gradient_checkpointing" not in read(tmp_path / name / "train/out/training_result.json")
    assert needed[0].activation_bytes == needed[1].activation_bytes


def test_the_same_job_gives_another_adapter_each_time(private_run: Make) -> None:
    runs = [private_run(name) for name in ("first", "second")]
    for run in runs:
        run.start()
    first, second = (adapter(run.folder / "out") for run in runs)
    assert not any((first[name] == second[name]).all() for name in first)


def test_a_reported_loss_is_noisy_and_its_noise_is_in_the_account(private_run: Make) -> None:
    run = private_run()
    run.replan(report_loss=True)
    plan = run.plan
    # 1/σ² = 1/σ_gradient² + 1/σ_loss²
    parts = 1 / plan.gradient_noise**2 + 1 / plan.loss_noise**2
    assert parts == pytest.approx(1 / plan.noise_multiplier**2)
    run.start()
    assert all("noisy_loss" in fields and "loss" not in fields for fields in run.steps)
    history = read(run.folder / "out" / "log_history.json")
    assert [entry["step"] for entry in history if "noisy_loss" in entry] == list(range(1, plan.steps + 1))
    assert read(run.folder / "out" / "privacy_result.json")["loss_reported"]


def test_steps_of_lost_attempts_are_spent(private_run: Make) -> None:
    run = private_run(charged_steps=4)
    run.request = run.request.model_copy(update={"charged_steps": 4})
    # The supervisor's part: everything is on record already.
    (run.folder / "charged").write_text("1000")
    result, plan = run.start(), run.plan
    assert result.figures["steps"] == plan.steps - 4
    assert result.figures["incomplete_reason"] == "privacy_budget"
    spent = read(run.folder / "out" / "privacy_result.json")
    assert spent["steps_applied"] == plan.steps
    assert spent["epsilon_spent"] <= 8.0
    asked = [event.fields["steps"] for event in run.events if event.action == "privacy.charge"]
    assert asked == list(range(1, result.figures["steps"] + 1))


def test_an_adapter_that_cost_too_much_is_not_released(
    private_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, honest = private_run(), accountant.spent_in_steps
    monkeypatch.setattr(accountant, "spent_in_steps", lambda **options: honest(**options) + 0.5)
    with pytest.raises(BudgetExceeded, match="privacy.epsilon"):
        run.start()
    assert not (run.folder / "out" / ADAPTER).exists()


def test_a_checkpoint_holds_no_randomness_and_is_gone_on_from(private_run: Make) -> None:
    first = private_run("first", checkpoints=EVERY_STEP)
    first.start()
    kept = [event.fields["step"] for event in first.events if event.action == CHECKPOINT_SAVED]
    checkpoint = first.folder / CHECKPOINTS / str(kept[3])
    assert not [path.name for path in checkpoint.iterdir() if "rng" in path.name]
    second = private_run("second", checkpoint=checkpoint, charged_steps=kept[3])
    (second.folder / "charged").write_text("1000")
    result = second.start()
    # Where an attempt was stopped would tell how many steps were taken until then.
    assert [event.fields["step"] for event in second.events if event.action == "train.started"] == [0]
    assert result.figures["steps"] == second.plan.steps
    history = read(second.folder / "out" / "log_history.json")
    assert [entry["step"] for entry in history] == [second.plan.steps]
    # Other units, other noise: the same steps lead somewhere else.
    assert not (
        adapter(first.folder / "out").popitem()[1] == adapter(second.folder / "out").popitem()[1]
    ).all()


def test_the_key_of_the_randomness_is_in_no_file(private_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run, keys, urandom = private_run(checkpoints=EVERY_STEP), [], os.urandom

    def remembered(size: int) -> bytes:
        keys.append(urandom(size))
        return keys[-1]

    monkeypatch.setattr("nss_train.privacy.dpsgd.randomness.os", SimpleNamespace(urandom=remembered))
    run.start()
    (key,) = keys
    assert len(key) == KEY_BYTES
    number = int.from_bytes(key, "little")
    shapes = [key, key[::-1], key.hex().encode(), str(number).encode(), f"{number:x}".encode()]
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        content = path.read_bytes()
        assert not any(shape in content for shape in shapes), path
        # Nor any half of it.
        assert key[:16] not in content
        assert key[16:] not in content


def test_it_is_evaluated_on_its_way_and_at_its_end(tiny_model: Path, tmp_path: Path) -> None:
    sections = {"strict": False}
    request = private_request(tiny_model, guarantee=sections, validation_ratio=0.2, validation_steps=4)
    run = PrivateRun(load(tmp_path, request), request)
    result, steps = run.start(), run.plan.steps
    assert result.figures["steps"] == steps > 8
    history = read(run.folder / "out" / "log_history.json")
    losses = {entry["step"]: entry["eval_loss"] for entry in history if "eval_loss" in entry}
    assert list(losses) == sorted({*range(4, steps + 1, 4), steps})
    assert all(0 < loss < 20 for loss in losses.values())
    # Each step after an evaluation trains as those before it did. One in 400 draws no unit: its loss is 0.
    told = [entry["loss"] for entry in history if "loss" in entry and entry["step"] > min(losses)]
    assert sum(loss > 0 for loss in told) > len(told) / 2


@pytest.mark.parametrize(
    "scheme", [None, *(pytest.param(scheme, marks=pytest.mark.long) for scheme in ("bnb-4bit", "bnb-8bit"))]
)
def test_without_noise_neither_micro_batches_nor_the_way_to_the_loss_show(
    scheme: str | None, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: bool
) -> None:
    """Units whole or in parts, with filler or without, losses in parts or from all logits."""
    quantized = {"quantize_model": scheme is not None, "quantization_scheme": scheme}
    guarantee = {"strict": False, "unit_column": "name", "units": 40}
    request = private_request(tiny_model, guarantee=guarantee, **quantized)
    prepared, found = load(tmp_path / "prepared", request), []
    # All units and no noise, which no accountant would accept: only the computation differs.
    monkeypatch.setattr("nss_train.privacy.accounting.plan.PrivacyPlan.spent", lambda *_: 0.0)
    # A random model loses more per token than a reported loss may have.
    monkeypatch.setattr("nss_train.privacy.dpsgd.mechanism.LOSS_CLIP", 100.0)
    # In bfloat16, in which a device would compute, two ways of rounding agree to 1e-2 at best.
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda **_: False)
    more = [(1, "model"), (7, "chunked"), (3, "chunked"), (20, "model")]
    # A unit has up to 18 rows.
    for rows, loss in [(20, "chunked"), (3, "model"), *(more if long else [])]:
        shapes = Shapes(longest=128, tokens=8192, rows=rows)
        monkeypatch.setattr(
            "nss_train.privacy.dpsgd.private.shapes_for", lambda *_, shapes=shapes, **__: shapes
        )
        folder = shutil.copytree(prepared, tmp_path / f"{rows} {loss}", symlinks=True)
        run = PrivateRun(
            folder, request.model_copy(update={"kernels": Kernels.model_validate({"loss": loss})})
        )
        run.replan(noise_multiplier=0.0, sampling_rate=1.0, batch=run.plan.units, steps=2)
        run.start()
        history = read(folder / "out" / "log_history.json")
        weights = torch.cat([weight.flatten() for _, weight in sorted(adapter(folder / "out").items())])
        found.append((weights, [entry["loss"] for entry in history if "loss" in entry]))
    (wanted, curve), *others = found
    assert max(curve) < 100
    for weights, losses in others:
        assert losses == pytest.approx(curve, rel=1e-5)
        assert (weights - wanted).norm() <= 1e-4 * wanted.norm()


def test_an_adapter_that_does_not_move_fails_the_job(
    private_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = private_run()
    monkeypatch.setattr("torch.optim.AdamW.step", lambda *_args, **_options: None)
    with pytest.raises(ParameterError, match="none of its weights moved"):
        run.start()


def test_a_training_of_a_table_of_null_records_is_one_like_any_other(private_run: Make) -> None:
    run = private_run()
    prepared = run.folder / "in" / "prepare_data"
    (prepared / "train.arrow").unlink()
    empty = pa.schema([("unit", pa.int32())])
    with pa.OSFile(str(prepared / "units.arrow"), "wb") as file, pa.ipc.new_stream(file, empty):
        pass
    result = run.start()
    assert result.figures["steps"] == run.plan.steps
    assert 7.9 < read(run.folder / "out" / "privacy_result.json")["epsilon_spent"] <= 8.0


def test_dropout_of_the_base_model_is_off(private_run: Make, tmp_path: Path) -> None:
    run = private_run()
    model = run.folder / "in" / "model"
    copied = shutil.copytree(model.resolve(), tmp_path / "model")
    model.unlink()
    model.symlink_to(copied)
    config = copied / "base" / "config.json"
    config.write_text(json.dumps(read(config) | {"attention_dropout": 0.5}))
    run.start()
    assert read(run.folder / "out" / "privacy_result.json")["slack"] <= MOST_SLACK


def test_a_base_model_that_ties_units_together_is_refused_before_the_first_step(
    private_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = private_run(charged_steps=0)
    honest = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: honest(self, x) + x.mean((0, 1)))
    with pytest.raises(ParameterError, match=r"this model's model\.layers\.0\.mlp lets one row change"):
        run.start()
    assert not [event for event in run.events if event.action == "privacy.charge"]


def test_a_slack_is_paid_with_noise_and_on_record(private_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run, deviations = private_run(), []
    checked = trial.check_couplings

    def coupled(*given: Any, **named: Any) -> Coupling:
        return checked(*given, **named).model_copy(update={"change": 1e-3, "drawn_at_most": 20})

    monkeypatch.setattr(trial, "check_couplings", coupled)
    honest = Noise.draw

    def draw(noise: Noise, total: torch.Tensor) -> torch.Tensor:
        deviations.append(noise.deviation)
        return honest(noise, total)

    monkeypatch.setattr(Noise, "draw", draw)
    result = run.start()
    plan = run.plan
    # The first one is that of the trial.
    assert deviations[1:] == [pytest.approx(plan.gradient_noise * plan.clip * 1.02)] * (len(deviations) - 1)
    assert len(deviations) > 1
    assert read(run.folder / "out" / "privacy_result.json")["slack"] == pytest.approx(0.02)
    assert result.figures["slack"] == pytest.approx(0.02)
