"""The load_model stage of a base model that its machine knows."""

from __future__ import annotations

import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nss_train import stages
from nss_train.artifacts.manifest import verify_manifest
from nss_train.contract import Request, StageResult
from nss_train.errors import ParameterError
from nss_train.model import loading
from nss_train.model.local import snapshot, source

from .conftest import follow, make_request, prepare, silent


@pytest.fixture(scope="module")
def prepared_data(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    root = tmp_path_factory.mktemp("data")
    prepare(root, make_request(tiny_model))
    return root / "prepare_data"


@pytest.fixture
def model(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a base model that may be known from the moment it is there."""
    monkeypatch.setattr(snapshot, "SETTLED_NS", 0)
    return Path(shutil.copytree(tiny_model, tmp_path / "SmolLM2-mine"))


class Machine:
    """A machine whose workers run load_model, each job in a folder of its own."""

    def __init__(self, root: Path, data: Path) -> None:
        self._root, self._data = root, data
        self.known = root / "known"
        self.prepared: tuple[str, ...] = ()

    def load(self, job: str, model: Path, **training: object) -> StageResult:
        folder = follow(self._root / job, self._data)
        return stages.load_model(folder, self._request(folder, model, training), report=silent)

    def files(self, job: str) -> dict[str, dict[str, object]]:
        """Return the files of a model as its manifest has them, each read and compared."""
        found: dict[str, dict[str, object]] = verify_manifest(self._root / job / "out" / "model")["files"]
        return found

    def _request(self, folder: Path, model: Path, training: dict[str, object]) -> Request:
        request = make_request(model, **training)
        stored = folder / "in" / "prepare_data" / "config.json"
        resolved = json.loads(stored.read_text())
        resolved["training"] |= {"pretrained_model": str(model)} | training
        stored.write_text(json.dumps(resolved))
        return request.model_copy(update={"known": str(self.known), "prepared": self.prepared})


@pytest.fixture
def machine(tmp_path: Path, prepared_data: Path) -> Machine:
    return Machine(tmp_path / "machine", prepared_data)


def bytes_read() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar:")).split()[1])


def test_a_second_job_reads_no_weights_and_builds_no_layers(
    machine: Machine, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = machine.load("first", model)
    machine.prepared = (str(first.model_digest),)
    monkeypatch.setattr(loading, "load_skeleton", None)
    before = bytes_read()
    second = machine.load("second", model)
    assert bytes_read() - before < 2**20 < (model / "model.safetensors").stat().st_size
    assert (second.model_digest, second.figures) == (first.model_digest, first.figures)


def test_a_known_model_is_copied_with_the_digests_that_are_known(machine: Machine, model: Path) -> None:
    first, second = machine.load("first", model), machine.load("second", model)
    assert machine.files("first") == machine.files("second")
    assert first.model_digest == second.model_digest


def test_a_digest_means_what_it_did_in_earlier_releases(machine: Machine, model: Path) -> None:
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in model.iterdir()}
    parts = {"format": 3, "files": files, "dtype": "float32", "quantization": None}
    expected = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    assert [machine.load(job, model).model_digest for job in ("new", "known")] == [expected] * 2


def test_an_adapter_that_does_not_fit_is_refused_each_time(machine: Machine, model: Path) -> None:
    machine.load("fits", model)
    for job in ("first", "second"):
        with pytest.raises(ParameterError, match="wq"):
            machine.load(job, model, lora_target_modules=["q_proj", "wq"])


def test_adapters_of_other_shapes_are_counted_each_for_itself(machine: Machine, model: Path) -> None:
    counts = [machine.load(str(n), model, lora_r=r).figures for n, r in enumerate([4, 8, 4])]
    small, large, again = (figures["parameters_trainable"] for figures in counts)
    assert (large, again) == (2 * small, small)


def test_weights_that_are_changed_in_place_are_another_model_and_the_copy_stays(
    machine: Machine, model: Path
) -> None:
    first = machine.load("first", model)
    kept = machine.files("first")
    with (model / "model.safetensors").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\x01\x02\x03\x04")
    second = machine.load("second", model)
    assert second.model_digest != first.model_digest
    assert machine.files("first") == kept
    assert machine.files("second") != kept


def test_a_known_model_is_quantized_as_an_unknown_one(machine: Machine, model: Path) -> None:
    options = {"quantize_model": True, "quantization_scheme": "bnb-4bit"}
    first, second = machine.load("first", model, **options), machine.load("second", model, **options)
    assert first.model_digest == second.model_digest
    assert machine.files("first") == machine.files("second")


def test_workers_that_load_one_model_at_once_find_the_same(machine: Machine, model: Path) -> None:
    jobs = ["a", "b", "c"]
    with ThreadPoolExecutor(len(jobs)) as workers:
        results = list(workers.map(lambda job: machine.load(job, model), jobs))
    assert len({result.model_digest for result in results}) == 1
    assert machine.files("a") == machine.files("b") == machine.files("c")
    assert [file.suffix for file in machine.known.iterdir()] == [".json"]


def test_prepare_data_does_not_read_the_contents_of_a_known_model_again(
    machine: Machine, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.load("first", model)
    monkeypatch.setattr(source, "_content_faults", None)
    request = make_request(model).model_copy(update={"known": str(machine.known)})
    assert (prepare(tmp_path / "again", request) / "in" / "prepare_data" / "config.json").is_file()
