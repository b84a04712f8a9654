"""Secrets stay with the processes that need them."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from nss_train.errors import ParameterError
from tasks.broker.transport import verified
from tasks.client import Client
from tasks.jobs.keys import Keys
from tasks.settings import Settings, child_environment
from tests.security.conftest import Target, wait_until
from tests.security.receiver import SECRET

CONFIG = {"training": {"pretrained_model": "no-such-model"}}


def secrets_of(target: Target) -> list[str]:
    url = target.settings.broker_url.get_secret_value()
    return [SECRET, url.rpartition("@")[0].rpartition(":")[2]]


def test_no_secret_is_in_logs_results_or_ps(target: Target, table: Path) -> None:
    job_id = Client(target.settings).submit(
        table=table, config=CONFIG, webhook="http://127.0.0.1:65535/?token=sesame"
    )
    lines: set[str] = set()
    wait_until(lambda: lines.update(command_lines()) or Client(target.settings).status(job_id).ended)
    # Its worker tidies up for a moment longer.
    wait_until(lambda: not target.app.store.exists(Keys(job_id).open))
    documents = b"".join((target.settings.home / "store" / key).read_bytes() for key in target.stored())
    for secret in secrets_of(target):
        assert secret not in target.log
        assert not [line for line in lines if secret in line]
        assert secret.encode() not in documents
    assert "sesame" not in target.log
    assert "sesame" not in Client(target.settings).status(job_id).model_dump_json()


def command_lines() -> set[str]:
    return {" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])}


def test_a_stage_does_not_inherit_the_settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings.as_environment().items():
        monkeypatch.setenv(name, value)
    assert not [name for name in child_environment() if name.startswith("NSS_TRAIN_")]


def test_a_worker_leaves_no_core_dump(target: Target) -> None:
    limits = Path(f"/proc/{target.pid}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert line.split()[4:6] == ["0", "0"]


def test_settings_are_shown_without_their_secrets(target: Target) -> None:
    shown = f"{target.settings!r} {target.settings} {target.settings.model_dump()}"
    assert not [secret for secret in secrets_of(target) if secret in shown]


@pytest.mark.parametrize("given", ["none", "optional", "CERT_NONE", ""])
def test_tls_without_a_check_of_the_certificate_is_refused(given: str) -> None:
    with pytest.raises(ParameterError, match="ssl_cert_reqs"):
        verified(f"rediss://u:p@h:6379/0?ssl_cert_reqs={given}")


def test_tls_checks_the_certificate_and_its_name_unless_told_how() -> None:
    assert verified("rediss://h/0") == "rediss://h/0?ssl_cert_reqs=required"
    assert verified("rediss://h/0?ssl_ca_certs=/ca") == "rediss://h/0?ssl_ca_certs=/ca&ssl_cert_reqs=required"
    with pytest.raises(ParameterError, match="ssl_check_hostname"):
        verified("rediss://h/0?ssl_check_hostname=False")
