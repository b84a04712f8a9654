"""A wrong setting is reported with its remedy and exit code 2, by every command that needs it."""

from __future__ import annotations

import http.server
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from nss_train.errors import ParameterError
from tasks import cli
from tasks.local.seaweedfs import SeaweedFS
from tasks.local.valkey import Valkey
from tasks.settings import Settings, unknown_settings
from tasks.store.endpoint import checked_endpoint
from tasks.store.open import open_store
from tasks.worker.process import warn_of_unknown_settings

S3 = {
    "NSS_TRAIN_STORE_URL": "s3://bucket",
    "NSS_TRAIN_S3_ACCESS_KEY": "planted-access",
    "NSS_TRAIN_S3_SECRET_KEY": "planted-secret",
}
ENDPOINTS = {
    "http://127.0.0.1:9999": ("write 127.0.0.1:9999, and NSS_TRAIN_S3_SECURE=false for http",),
    "https://127.0.0.1:9999/": ("without https://", "write 127.0.0.1:9999"),
    "127.0.0.1:9999/minio": ("without a path", "write 127.0.0.1:9999"),
    "http://minio:9000/folder": ("NSS_TRAIN_S3_SECURE=false", "without a path"),
    "": ("is not set", "minio:9000"),
    "minio:port": ("is no host:port",),
    "me:planted-secret@minio:9000": ("NSS_TRAIN_S3_ACCESS_KEY",),
    "host name:9": ("names no host",),
}
COMMANDS = {
    "list": ["list"],
    "status": ["status", "20990101-000000-abcdef01"],
    "watch": ["watch", "20990101-000000-abcdef01"],
    "submit": ["submit", "t.csv"],
    "run": ["run", "t.csv"],
    "reconcile": ["reconcile"],
    "doctor": ["doctor"],
    "worker": ["worker", "--queues", "cpu"],
    "metrics": ["metrics", "--port", "0"],
}


@pytest.fixture
def said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, valkey: Valkey, capsys: pytest.CaptureFixture[str]
) -> Said:
    (tmp_path / "t.csv").write_text("a,b\n1,x\n2,y\n3,z\n")
    (tmp_path / "home" / "models" / "only").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NSS_TRAIN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NSS_TRAIN_BROKER_URL", valkey.url)
    return Said(monkeypatch, capsys)


class Said:
    """A runner of commands in an environment, which returns what they say."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def by(self, command: list[str], environment: dict[str, str]) -> tuple[int, str]:
        for name, value in environment.items():
            self._monkeypatch.setenv(name, value)
        code = cli.run(command)
        out = self._capsys.readouterr()
        assert "planted-" not in out.out + out.err
        assert "Traceback" not in out.out + out.err
        return code, out.out + out.err


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("command", ["list", "doctor"])
def test_an_endpoint_that_is_none_is_told_with_its_remedy(command: str, endpoint: str, said: Said) -> None:
    code, text = said.by(COMMANDS[command], S3 | {"NSS_TRAIN_S3_ENDPOINT": endpoint})
    assert code == 2
    assert "NSS_TRAIN_S3_ENDPOINT" in text
    assert all(words in text for words in ENDPOINTS[endpoint]), text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_needs_the_store_says_so(command: str, said: Said) -> None:
    code, text = said.by(COMMANDS[command], S3 | {"NSS_TRAIN_S3_ENDPOINT": "http://127.0.0.1:9999"})
    assert code == 2
    assert "NSS_TRAIN_S3_SECURE=false" in text


@pytest.mark.parametrize(
    "right", ["minio:9000", "minio", "127.0.0.1:9999/", "[::1]:9000", "s3.amazonaws.com"]
)
def test_an_endpoint_that_is_right_is_taken(right: str) -> None:
    assert checked_endpoint(Settings.model_validate({"s3_endpoint": right})) == right.rstrip("/")


OTHERS = {
    "a number that is none": ({"NSS_TRAIN_RANKS": "two"}, "NSS_TRAIN_RANKS = 'two'"),
    "a list that is no JSON": ({"NSS_TRAIN_ALLOWED_TABLE_URIS": "s3://a/"}, "ALLOWED_TABLE_URIS = 's3://a/'"),
    "a time below zero": ({"NSS_TRAIN_TICK_S": "-1"}, "NSS_TRAIN_TICK_S = '-1': Input should be greater"),
    "a time that is no number": ({"NSS_TRAIN_LEASE_TTL_S": "nan"}, "NSS_TRAIN_LEASE_TTL_S"),
    "no attempt at all": ({"NSS_TRAIN_MAX_ATTEMPTS": "0"}, "NSS_TRAIN_MAX_ATTEMPTS"),
    "a home that is empty": ({"NSS_TRAIN_HOME": ""}, "give a folder, or unset it"),
    "a home that is a file": ({"NSS_TRAIN_HOME": "/etc/passwd"}, "is a file; give a folder"),
    "a store without a place": ({"NSS_TRAIN_STORE_URL": "file://store"}, "file:///folder"),
    "a store that is a file": ({"NSS_TRAIN_STORE_URL": "file:///etc/passwd"}, "is a file; name a folder"),
    "a broker without a scheme": ({"NSS_TRAIN_BROKER_URL": "127.0.0.1:6379"}, "redis://host:port/0"),
    "a broker of another kind": (
        {"NSS_TRAIN_BROKER_URL": "amqp://me:planted-password@rabbit"},
        "redis://host:port/0",
    ),
    "a broker's port": ({"NSS_TRAIN_BROKER_URL": "redis://localhost:port/0"}, "redis://host:port/0"),
    "a bucket that has no name": (
        {"NSS_TRAIN_STORE_URL": "s3://", "NSS_TRAIN_S3_ENDPOINT": "m:9"},
        "bucket name",
    ),
    "a store of another kind": ({"NSS_TRAIN_STORE_URL": "gs://bucket"}, "s3://bucket[/prefix]"),
}


def test_the_home_may_begin_with_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSS_TRAIN_HOME", "~/models here")
    assert Settings().home == Path.home() / "models here"


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("command", ["submit", "doctor"])
def test_other_settings_are_told_too(command: str, name: str, said: Said) -> None:
    environment, says = OTHERS[name]
    code, text = said.by(COMMANDS[command], environment)
    assert code == 2
    assert says in text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a self-signed certificate, with its key beside it."""
    folder = tmp_path_factory.mktemp("tls")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, *files]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "cert.pem"


class Missing(http.server.BaseHTTPRequestHandler):
    """A service that knows no bucket."""

    def do_HEAD(self) -> None:
        self.send_error(404)

    do_GET = do_HEAD  # noqa: N815 (its interface)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def service(certificate: Path) -> Iterator[str]:
    """Serve TLS with that certificate, and yield the address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Missing) as server:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, certificate.with_name("key.pem"))
        server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("command", ["list", "doctor"])
def test_a_certificate_that_nobody_signed_is_told_with_its_remedy(
    command: str, service: str, certificate: Path, said: Said
) -> None:
    environment = S3 | {"NSS_TRAIN_S3_ENDPOINT": service, "NSS_TRAIN_S3_REGION": "us-east-1"}
    code, text = said.by(COMMANDS[command], environment)
    assert code == 2
    assert "certificate verify failed" in text
    assert "SSL_CERT_FILE" in text
    _, text = said.by(COMMANDS[command], environment | {"SSL_CERT_FILE": str(certificate)})
    assert "certificate verify failed" not in text


def test_a_service_without_tls_is_told_with_its_remedy(s3: SeaweedFS, said: Said) -> None:
    endpoint = str(s3.settings["s3_endpoint"])
    code, text = said.by(["list"], S3 | {"NSS_TRAIN_S3_ENDPOINT": endpoint})
    assert code == 2
    assert "NSS_TRAIN_S3_SECURE" in text


def test_keys_that_the_service_does_not_know_are_told_with_their_remedy(s3: SeaweedFS, said: Said) -> None:
    given = {f"NSS_TRAIN_{name.upper()}": str(value) for name, value in s3.settings.items()}
    code, text = said.by(
        ["list"], given | {"NSS_TRAIN_S3_ACCESS_KEY": "nobody", "NSS_TRAIN_S3_SECURE": "false"}
    )
    assert code == 2
    assert "NSS_TRAIN_S3_ACCESS_KEY" in text


def test_the_region_reaches_the_requests(s3: SeaweedFS) -> None:
    given = {**s3.settings, "s3_region": "eu-central-1"}
    store = open_store(Settings.model_validate(given))
    assert "%2Feu-central-1%2Fs3%2F" in store._client.presigned_get_object("bucket", "key")  # type: ignore[attr-defined]


def test_the_value_of_a_secret_is_told_by_no_error() -> None:
    with pytest.raises(ParameterError) as caught:
        Settings(webhook_secret=["planted"], ranks="two")
    assert "planted" not in str(caught.value)
    assert [problem.field for problem in caught.value.problems] == [
        "NSS_TRAIN_RANKS",
        "NSS_TRAIN_WEBHOOK_SECRET",
    ]


MISSPELT = {"NSS_TRAIN_BROKRE_URL": "redis://:planted-password@elsewhere/0"}
MENDED = "NSS_TRAIN_BROKRE_URL: no such setting; did you mean NSS_TRAIN_BROKER_URL?"


@pytest.mark.parametrize("command", [["list"], ["model", "list"], ["doctor"]])
def test_a_misspelt_setting_is_named_with_the_nearest_right_one(command: list[str], said: Said) -> None:
    assert MENDED in said.by(command, MISSPELT)[1]


def test_a_worker_logs_a_misspelt_setting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NSS_TRAIN_BROKRE_URL", "x")
    warn_of_unknown_settings()
    assert MENDED in caplog.messages


def test_doctor_fails_for_a_misspelt_setting(said: Said) -> None:
    code, text = said.by(["doctor"], MISSPELT)
    assert code == 2
    assert "MISSING environment: NSS_TRAIN_BROKRE_URL" in text


def test_a_variable_that_is_no_setting_of_ours_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(f"NSS_TRAIN_{name}", "")  # any case is read
    for service in ("NSS_TRAIN", "NSS_TRAIN_METRICS", "NSS_TRAIN_FLOWER"):
        for rest in ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_9464_TCP_ADDR"):
            monkeypatch.setenv(f"{service}_{rest}", "10.0.0.1")
    monkeypatch.setenv("_NSS_TRAIN_COMPLETE", "complete_bash")
    assert unknown_settings() == []
    monkeypatch.setenv("NSS_TRAIN_QQQQQQQQQQQQ", "1")
    assert [str(one) for one in unknown_settings()] == [
        "NSS_TRAIN_QQQQQQQQQQQQ = '…': no such setting; unset it"
    ]
