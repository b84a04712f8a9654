"""Other users of the machine see nothing of what is stored here."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nss_train.process import PRIVATE_UMASK
from tasks.execution.scratch import scratch
from tasks.local.valkey import Valkey
from tasks.monitoring.doctor import examine
from tasks.permissions import make_folder, open_folders, private_file, warn_of_open_folders
from tasks.settings import Settings, worker_environment
from tasks.store.local import LocalStore

NOBODY = 65534


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Set the umask of most shells and services, which lets everyone read."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def open_to_others(folder: Path) -> list[str]:
    """List a folder and all below it that others have any right to."""
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, *sorted(folder.rglob("*")))}
    return [f"{mode:04o} {path.relative_to(folder)}" for path, mode in modes.items() if mode & 0o077]


@pytest.mark.usefixtures("open_umask")
def test_a_store_in_a_folder_is_its_own_user_s_alone(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("name\nAnn\n")
    store = LocalStore(tmp_path / "home" / "store")
    store.upload("jobs/x/input/table.csv", tmp_path / "table.csv")
    store.write("jobs/x/job.json", b"{}")
    store.put_if_absent("jobs/x/marker.json", b"{}")
    store.download("jobs/x/input/table.csv", tmp_path / "home" / "fetched" / "table.csv")
    assert len(store.read("jobs/x/input/table.csv")) > 0
    assert open_to_others(tmp_path / "home") == []


@pytest.mark.usefixtures("open_umask")
def test_the_folder_of_a_stage_is_its_own_user_s_alone(tmp_path: Path) -> None:
    with scratch(tmp_path / "scratch" / "x") as folder:
        assert not any("in" in found or "out" in found for found in open_to_others(folder))
        assert stat.S_IMODE((tmp_path / "scratch").stat().st_mode) == 0o700


@pytest.mark.usefixtures("open_umask")
def test_the_data_of_a_server_is_its_own_user_s_alone(tmp_path: Path) -> None:
    with Valkey(tmp_path / "valkey", append_only=True):
        assert any((tmp_path / "valkey").rglob("*.aof"))
        assert open_to_others(tmp_path / "valkey") == []


def test_a_file_that_was_open_before_is_closed_when_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "environment").write_text("")
    (tmp_path / "environment").chmod(0o644)
    with private_file(tmp_path / "environment", "wb") as file:
        file.write(b"export PASSWORD=x")
    assert stat.S_IMODE((tmp_path / "environment").stat().st_mode) == 0o600


PROGRAMS = {
    "a command": "import sys; sys.argv = ['nss-train', 'version']; from tasks.cli import main; main()",
    "a stage": "import sys; sys.argv = ['child', 'prepare_data', {folder!r}, '--events-fd', '1', '--parent',"
    " str(__import__('os').getppid())]; from nss_train.child import main; main()",
}


@pytest.mark.usefixtures("open_umask")
@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_each_program_creates_files_for_its_own_user(program: str, tmp_path: Path) -> None:
    said = "import atexit, os; atexit.register(lambda: open({mask!r}, 'w').write(oct(os.umask(0))))\n"
    code = (said + PROGRAMS[program]).format(folder=str(tmp_path), mask=str(tmp_path / "mask"))
    subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert (tmp_path / "mask").read_text() == oct(PRIVATE_UMASK)


@pytest.mark.usefixtures("open_umask")
def test_a_worker_closes_its_files_and_warns_of_an_open_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    # Without a broker it says so, and goes no further than the arguments of Celery.
    settings = Settings.model_validate({"home": home, "broker_url": "redis://127.0.0.1:1/0"})
    code = "import os; from tasks.worker.process import run_worker; from tasks.settings import Settings\n"
    code += "try: run_worker(Settings(), 'cpu', name='', concurrency=-1)\n"
    code += "finally: print('umask', oct(os.umask(0)))"
    command = [sys.executable, "-c", code]
    environment = worker_environment(settings) | {"CELERY_CONFIG_MODULE": "none"}
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert f"umask {oct(PRIVATE_UMASK)}" in done.stdout
    assert f"{home} has mode 0755" in done.stderr


def test_an_open_home_and_what_is_in_it_are_told_with_their_remedy(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    make_folder(settings.home / "store" / "jobs")
    assert open_folders(settings) == []
    settings.home.chmod(0o755)
    (settings.home / "store").chmod(0o750)
    faults = [finding for finding in examine(settings) if finding.name == "permissions"]
    assert [fault.ok for fault in faults] == [False, False]
    assert f"{settings.home} has mode 0755 and belongs to uid {os.getuid()}" in faults[0].found
    assert faults[1].remedy == f"chmod -R go= {settings.home / 'store'}"
    with caplog.at_level(logging.WARNING):
        warn_of_open_folders(settings)
    assert "has mode 0750" in caplog.text


def test_an_open_store_elsewhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o755)
    (tmp_path / "shared").chmod(0o755)
    given = {"home": tmp_path / "home", "store_url": (tmp_path / "shared").as_uri()}
    assert [found.path for found in open_folders(Settings.model_validate(given))] == [tmp_path / "shared"]


@pytest.fixture
def shared() -> Iterator[Path]:
    """Yield a folder that every user of the machine may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.usefixtures("open_umask")
def test_another_user_of_the_machine_reads_no_table(shared: Path) -> None:
    (shared / "table.csv").write_text("name\nAnn\n")
    LocalStore(shared / "home" / "store").upload("jobs/x/input/table.csv", shared / "table.csv")
    (shared / "home").chmod(0o755)
    (stored,) = (shared / "home" / "store").rglob("table.csv")
    other = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "cat"]
    given = subprocess.run([*other, shared / "table.csv"], check=False, capture_output=True)
    kept = subprocess.run([*other, stored], check=False, capture_output=True)
    assert (given.stdout, kept.stdout, kept.returncode) == (b"name\nAnn\n", b"", 1)
