"""Measurements on this machine, and what of a table they may depend on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nss_train import stages
from nss_train.config import parse_config
from nss_train.contract import ModelPolicy, Request
from nss_train.cost import measure, probe
from nss_train.cost.cost import COST, Cost
from nss_train.cost.pace import Pace
from nss_train.cost.work import Work
from nss_train.model import memory
from nss_train.model.local.source import find_model
from tests.unit.training.conftest import follow, make_request, silent

TABLE = "name,size\n" + "".join(f"bird {i % 7},{20 + i}\n" for i in range(120))
PRIVATE = {"privacy": {"dp_enabled": True}, "guarantee": {"schema_source": "declared"}}
"""Config of a private job whose count is public: the rows of the file."""


def request_of(model: Path, root: Path, sections: dict[str, Any]) -> Request:
    request = make_request(model, sections=sections)
    return request.model_copy(update={"paces": str(root / "paces")})


def prepared(root: Path, request: Request, table: str = TABLE) -> tuple[Path, dict[str, Any]]:
    """Make the folder of a load_model stage; return it with the figures of prepare_data."""
    source = root / "prepare_data"
    for part in ("in", "out"):
        (source / part).mkdir(parents=True)
    (source / "in" / "table.csv").write_text(table)
    figures = stages.prepare_data(source, request, report=silent).figures
    return follow(root / "load_model", source), figures


@pytest.fixture
def everything_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure even short trainings, and as if nothing else ran on this machine."""
    monkeypatch.setattr(measure, "WORTH_MEASURING_S", 0.0)
    monkeypatch.setattr(measure.os, "getloadavg", lambda: (0.0, 0.0, 0.0))


@pytest.mark.usefixtures("everything_is_worth_it")
@pytest.mark.parametrize(
    "sections",
    [pytest.param({}, id="plain"), pytest.param(PRIVATE, id="private", marks=pytest.mark.long)],
)
def test_steps_are_known_after_prepare_data_and_time_after_load_model(
    tiny_model: Path, tmp_path: Path, sections: dict[str, Any]
) -> None:
    request = request_of(tiny_model, tmp_path, sections)
    folder, figures = prepared(tmp_path, request)
    known = Cost.model_validate(figures[COST])
    assert known.seconds is None
    assert (known.memory_bytes or 0) > 2**29
    loaded = stages.load_model(folder, request, report=silent)
    measured = Cost.model_validate(loaded.figures[COST])
    assert measured.seconds is not None
    assert (measured.device or "").startswith(("cpu", "NVIDIA"))
    assert measured.model_copy(update={"seconds": None, "device": None}) == known
    (kept,) = (tmp_path / "paces").iterdir()
    assert json.loads(kept.read_text())["device"] == measured.device


@pytest.mark.usefixtures("everything_is_worth_it")
def test_a_pace_is_measured_once_and_a_model_that_cannot_be_tried_costs_the_job_nothing(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_of(tiny_model, tmp_path, {})
    folder, _ = prepared(tmp_path, request)
    first = stages.load_model(folder, request, report=silent).figures[COST]

    def broken(*_: object) -> None:
        raise RuntimeError("no such layer")

    monkeypatch.setattr(probe, "pace_of", broken)
    assert stages.load_model(folder, request, report=silent).figures[COST] == first
    (kept,) = (tmp_path / "paces").iterdir()
    kept.write_text("of another release")
    assert stages.load_model(folder, request, report=silent).figures[COST]["seconds"] is None


@pytest.mark.usefixtures("everything_is_worth_it")
def test_a_pace_of_a_busy_machine_says_so_and_is_measured_again_on_an_idle_one(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_of(tiny_model, tmp_path, {})
    folder, _ = prepared(tmp_path, request)
    paces = iter([100.0, 1.0])

    def pace_of(*_: object) -> Pace:
        return Pace(before_s=0.0, step_s=next(paces), token_s=0.0, width=8)

    def device_and_seconds(*, load: float) -> tuple[str, float]:
        monkeypatch.setattr(measure.os, "getloadavg", lambda: (load, load, load))
        cost = Cost.model_validate(stages.load_model(folder, request, report=silent).figures[COST])
        return str(cost.device), cost.seconds or 0.0

    monkeypatch.setattr(probe, "pace_of", pace_of)
    slow = device_and_seconds(load=99.0)
    assert slow[0].endswith("busy with other work")
    assert device_and_seconds(load=99.0) == slow
    device, seconds = device_and_seconds(load=0.0)
    assert not device.endswith("busy with other work")
    assert seconds < slow[1] / 2
    assert device_and_seconds(load=99.0) == (device, seconds)


def test_a_short_training_begins_without_a_measurement(tiny_model: Path, tmp_path: Path) -> None:
    folder, known = prepared(tmp_path, request_of(tiny_model, tmp_path, {}))
    loaded = stages.load_model(folder, request_of(tiny_model, tmp_path, {}), report=silent)
    assert loaded.figures[COST] == known[COST]
    assert not (tmp_path / "paces").exists()


@pytest.mark.parametrize("private", [False, True])
def test_no_config_makes_a_measurement_long(
    private: bool, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure.os, "sched_getaffinity", lambda _: {0})
    model = json.loads((tiny_model / "config.json").read_text())
    work = Work.model_construct(private=private)
    usual, absurd = (parse_config({"training": {"lora_r": rank}}).training for rank in (32, 4_096))
    large = model | {"hidden_size": 4_096, "intermediate_size": 14_336, "num_hidden_layers": 32}
    assert measure.is_bearable(model, usual, work, on_cpu=True)
    assert not measure.is_bearable(large, absurd, work, on_cpu=False)
    assert not measure.is_bearable(large, usual, work, on_cpu=True)
    assert measure.is_bearable(large, usual, work, on_cpu=False)


@pytest.mark.usefixtures("everything_is_worth_it")
def test_a_measurement_that_would_take_long_is_left_out(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "MOST_MEASURING_S", 0.0)
    request = request_of(tiny_model, tmp_path, {})
    folder, _ = prepared(tmp_path, request)
    cost = Cost.model_validate(stages.load_model(folder, request, report=silent).figures[COST])
    assert cost.seconds is None
    assert not (tmp_path / "paces").exists()


def test_nothing_is_measured_unasked(tiny_model: Path, tmp_path: Path) -> None:
    request = make_request(tiny_model)
    folder, _ = prepared(tmp_path, request)
    assert COST not in stages.load_model(folder, request, report=silent).figures


def test_neighbouring_private_tables_cost_the_same(tiny_model: Path, tmp_path: Path) -> None:
    request = request_of(tiny_model, tmp_path, PRIVATE)
    lines = TABLE.splitlines()
    longer = [*lines[:5], f"{'a bird of many words ' * 20},7", *lines[6:]]
    null = [*lines[:5], ",", *lines[6:]]
    tables = {"longer": "\n".join(longer) + "\n", "null": "\n".join(null) + "\n"}
    told = {}
    for name, table in tables.items():
        folder, figures = prepared(tmp_path / name, request, table)
        work = (folder / "in" / "prepare_data" / "work.json").read_text()
        told[name] = figures[COST], work
        assert Work.model_validate_json(work).private
    assert told["longer"] == told["null"]


@pytest.mark.parametrize("strictly", [False, True])
def test_a_measurement_recomputes_activations_where_its_training_does(
    strictly: bool, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 2**29)
    source = find_model(str(tiny_model), ModelPolicy(models_dir=str(tiny_model.parent)))
    config = parse_config(PRIVATE if strictly else {})
    work = Work.model_construct(private=strictly, longest_tokens=50, context_tokens=8_192, rows_at_once=1)
    reduced = probe.reduced(source, config, work, 1)
    assert bool(reduced.get_base_model().is_gradient_checkpointing) is strictly
