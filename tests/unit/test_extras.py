"""A missing package is reported before any work, with what to install."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from nss_train import __version__, extras
from nss_train.config import parse_config
from nss_train.errors import NotInstalled, from_json, to_json
from nss_train.model.local import source
from nss_train.stages.adapter_check import adapter_shape
from nss_train.stages.preparation import prepare

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
PRIVATE = parse_config({"privacy": {"dp_enabled": True, "delta": 1e-5}})


@pytest.fixture
def without_opacus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nss_train.extras.is_installed", lambda package: package != "opacus")


@pytest.mark.parametrize("extra", extras.PACKAGES)
def test_every_package_that_is_asked_for_comes_with_its_extra(extra: str) -> None:
    brought = {_name(one) for one in PROJECT["optional-dependencies"][extra]}
    made_by = packages_distributions()
    for package in extras.PACKAGES[extra]:
        assert {_name(one) for one in made_by[package.partition(".")[0]]} & brought, package


def test_all_extras_together_are_each_of_them() -> None:
    (everything,) = PROJECT["optional-dependencies"]["all"]
    assert set(everything.split("[")[1].rstrip("]").split(",")) == set(extras.PACKAGES) - {"train"}


def test_several_missing_packages_are_one_line_with_every_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nss_train.extras.is_installed", lambda _: False)
    with pytest.raises(NotInstalled) as caught:
        extras.require_extras(extras.PRIVATE, extras.FLOWER)
    assert str(caught.value) == (
        "dp_accounting, opacus, opendp and 3 more: not installed here; "
        "pip install 'nss-train[private,flower]'"
    )
    assert caught.value.exit_code == 2
    assert isinstance(from_json(to_json(caught.value)), NotInstalled)


@pytest.mark.usefixtures("without_opacus")
def test_a_private_table_is_not_even_read_where_nobody_could_train_it(tmp_path: Path) -> None:
    with pytest.raises(NotInstalled, match="nss-train\\[private\\]"):
        prepare(tmp_path / "no.csv", PRIVATE, model=tmp_path, seed=1)


def _name(requirement: str) -> str:
    """Return the name of a distribution as its index spells it."""
    return re.split(r"[\[<>=! ]", requirement)[0].lower().replace("_", "-").replace(".", "-")


IMPORT_ALL = """
import importlib, sys
blocked, modules = (text.split(",") for text in sys.argv[1:])

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Blocked())
for module in modules:
    importlib.import_module(module)
"""
PLAIN_TRAINING = (
    "nss_train.stages.preparation",
    "nss_train.stages.base_model",
    "nss_train.training.stage",
    "nss_train.artifacts.workdir",
    "nss_train.artifacts.preview",
    "nss_train.cost.__main__",
    "nss_train.cost.probe",
    "nss_train.data.__main__",
    "nss_train.backend",
)


def test_a_plain_training_needs_no_package_of_private_ones() -> None:
    # Scikit-learn, which a plain training needs, brings scipy.
    private = [package for package in extras.PACKAGES[extras.PRIVATE] if package != "scipy"]
    command = [sys.executable, "-W", "ignore", "-c", IMPORT_ALL, ",".join(private), ",".join(PLAIN_TRAINING)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_sources_work_where_the_package_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with ``PYTHONPATH`` on a machine that has its own torch."""
    assert metadata.version("nss-train") == __version__
    installed = metadata.distribution

    def all_but_this(name: str) -> metadata.Distribution:
        if name == "nss-train":
            raise metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(metadata, "distribution", all_but_this)
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.version("nss-train")
    assert adapter_shape(parse_config({}))
    assert f"nss-train {__version__}" in source._rules(trusted=False)
