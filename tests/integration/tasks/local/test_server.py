"""A server is a child process that leaves nothing behind, however it or its parent ends."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from nss_train.errors import BrokerUnavailable
from tasks.local import server as servers
from tasks.local.valkey import Valkey

_START = """
import sys, time
from pathlib import Path
from tasks.local.valkey import Valkey
server = Valkey(Path(sys.argv[1])).start()
print(server.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as other:
        other.bind((servers.LOOPBACK, 0))
        other.listen()
        yield int(other.getsockname()[1])


def is_gone(pid: int, deadline_s: float = 10.0) -> bool:
    deadline = time.monotonic() + deadline_s
    while _lives(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not _lives(pid)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_server_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _START, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    assert is_gone(pid)


def test_a_port_that_somebody_took_is_given_up_for_another(
    tmp_path: Path, taken_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    offers = iter([(taken_port,), servers.free_ports(1)])
    monkeypatch.setattr(servers, "free_ports", lambda _count: next(offers))
    with Valkey(tmp_path) as server:
        assert server.running
        assert server.ports != (taken_port,)


def test_a_server_that_does_not_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(BrokerUnavailable, match=r"ended with exit code 1[\s\S]*no-such-option"):
        Misconfigured(tmp_path).start()


class Misconfigured(Valkey):
    def _stdin(self) -> bytes:
        return b"no-such-option 1\n"


def test_what_a_dead_server_left_running_is_ended(tmp_path: Path) -> None:
    server = Forking(tmp_path).start()
    assert server.pid is not None
    assert is_gone(server.pid)
    orphan = int((tmp_path / "orphan").read_text())
    server.kill()
    assert is_gone(orphan)


class Forking(Valkey):
    """A server whose first process ends and leaves another one running."""

    def _command(self) -> list[str]:
        return ["/bin/sh", "-c", "sleep 60 & echo $! > new; mv new orphan"]

    def _answers(self) -> bool:
        return (self.folder / "orphan").is_file()


def test_the_password_is_in_no_command_line(tmp_path: Path) -> None:
    with Valkey(tmp_path) as server:
        assert server.password not in " ".join(psutil.Process(server.pid).cmdline())


def test_a_server_gets_no_variable_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody's")
    with Telling(tmp_path) as server:
        assert "AWS" not in (server.folder / "environment").read_text()


class Telling(Valkey):
    """A server that writes its environment down."""

    def _command(self) -> list[str]:
        return ["/bin/sh", "-c", "env > new; mv new environment; sleep 60"]

    def _answers(self) -> bool:
        return (self.folder / "environment").is_file()
