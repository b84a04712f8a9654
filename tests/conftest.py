"""Real servers and real models for every test that needs them, each started or made once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tasks.local.seaweedfs import SeaweedFS
from tasks.local.valkey import Valkey
from tasks.settings import Settings

REPOSITORY = Path(__file__).parents[1]
# No test is timed: machines are shared, and a first call imports.
settings.register_profile("untimed", parent=settings(), deadline=None)
settings.load_profile("untimed")
NO_DEVICE = "not run: no device"
MODELS = REPOSITORY / ".nss-train" / "models"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="Do in full what is done in part otherwise.")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests that take long and whose parts are tested elsewhere; mark those that load a model.

    With ``--long`` no test is stopped: what is done in full may take an hour.
    """
    long = config.getoption("--long")
    for item in items:
        if long:
            item.add_marker(pytest.mark.timeout(0))
        if "base_model" in getattr(item, "fixturenames", ()):
            item.add_marker("heavy")
    left_out = [item for item in items if item.get_closest_marker("long")]
    if not long:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out the tests of a CUDA device where there is none."""
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip(NO_DEVICE)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count the tests of a CUDA device that were left out, lest their silence be taken for success."""
    skipped = terminalreporter.stats.get("skipped", [])
    left_out = sum(NO_DEVICE in str(report.longrepr) for report in skipped)
    if left_out:
        terminalreporter.write_line(f"{left_out} tests of a CUDA device: {NO_DEVICE}")


@pytest.fixture(scope="session")
def long(pytestconfig: pytest.Config) -> bool:
    """Tell whether the long tests run too."""
    return bool(pytestconfig.getoption("--long"))


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    with SeaweedFS(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def s3_settings(valkey: Valkey, s3: SeaweedFS, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Return the settings of a deployment on real Valkey and real S3."""
    return Settings.model_validate(
        {
            "home": tmp_path_factory.mktemp("home"),
            "broker_url": valkey.url,
            "unlisted_raises": True,
            **s3.settings,
            "allowed_table_uris": [f"{s3.url}/shared/"],
        }
    )


@pytest.fixture
def settings(valkey: Valkey, tmp_path: Path) -> Settings:
    """Return the settings of a deployment on real Valkey and a folder.

    Its workers run few stages: they start without hosts, whose imports would take both cores for a while.
    """
    return Settings.model_validate(
        {
            "home": tmp_path / "home",
            "broker_url": valkey.url,
            "unlisted_raises": True,
            "warm_hosts": "lazily",
        }
    )


@pytest.fixture(scope="session")
def base_model() -> Path:
    """Return SmolLM2-135M-Instruct, converted from its wheel once for this checkout."""
    command = [sys.executable, "-m", "nss_train.model.local.smollm2", str(MODELS)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return MODELS / "SmolLM2-135M-Instruct"


@pytest.fixture(scope="session")
def tiny_model(base_model: Path) -> Path:
    """Return a random Llama of 4 layers with the tokenizer and the context of SmolLM2."""
    folder = MODELS / "SmolLM2-tiny"
    if not folder.is_dir():
        command = [sys.executable, str(REPOSITORY / "tests" / "make_tiny.py"), str(base_model), str(folder)]
        subprocess.run(command, check=True)
    return folder
