"""Where a webhook may go: never to the operator's own machines, and only to whom the name belongs."""

from __future__ import annotations

import ipaddress
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nss_train.errors import ParameterError
from tasks.receiver import ReceiverUnavailable, check_url, is_allowed, post
from tasks.settings import Settings
from tests.security.receiver import receiver, webhook_settings

FORBIDDEN = [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",  # noqa: S104
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
]


@pytest.mark.parametrize("address", FORBIDDEN)
def test_addresses_of_the_operator_s_own_are_refused(address: str, settings: Settings) -> None:
    assert not is_allowed(ipaddress.ip_address(address), settings)


PUBLIC = ["93.184.215.14", "2606:4700::1111", "::ffff:93.184.215.14", "64:ff9b::5db8:d70e"]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str, settings: Settings) -> None:
    assert is_allowed(ipaddress.ip_address(address), settings)


REFUSED = [
    "http://hooks.example/x",
    "ftp://hooks.example/x",
    "file:///etc/passwd",
    "https://elsewhere.example/x",
    "https://hooks.example.evil.test/x",
    "https://hooks.example@evil.test/x",
    "https://evil.test\\@hooks.example/x",
    "https://hooks.example:evil/x",
    "https://user:password@hooks.example/x",
    "https://hooks.example/x#y",
    "https://hooks.example/x\r\nHost: evil",
    "https://hooks.example/x y",
    "https://[::1/x",
    "https://0x7f000001/x",
    "https:///x",
    "",
    "https://hooks.example/" + "x" * 3000,
]


@pytest.mark.parametrize("url", REFUSED)
def test_a_url_that_is_not_plainly_allowed_is_refused(url: str, settings: Settings) -> None:
    strict = Settings.model_validate(webhook_settings(settings, webhook_http=False))
    with pytest.raises(ParameterError, match="webhook"):
        check_url(url, strict)


def test_without_a_secret_or_an_allowed_host_there_are_no_webhooks(settings: Settings) -> None:
    with pytest.raises(ParameterError) as caught:
        check_url("https://hooks.example/?token=sesame", settings)
    assert "NSS_TRAIN_WEBHOOK_SECRET" in str(caught.value)
    assert "allowed: none" in str(caught.value)
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.example/services/sesame/x",
        "https://elsewhere.example?token=sesame",
        "https://user:sesame@elsewhere.example/x",
        "https://elsewhere.example\\sesame",
        "sesame",
    ],
)
def test_a_refusal_shows_the_host_alone(url: str, allowing: Settings) -> None:
    with pytest.raises(ParameterError) as caught:
        check_url(url, allowing)
    assert "sesame" not in str(caught.value)
    assert ("elsewhere.example" in str(caught.value)) is (url != "sesame")


class Names:
    """Answers look-ups of one name, each with the next addresses."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self._real = socket.getaddrinfo
        self.asked = 0

    def __call__(self, host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host != "hooks.example":
            return self._real(host, port, *arguments, **options)
        self.asked += 1
        found = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]


def send(url: str, settings: Settings) -> int:
    return post(url, b"{}", {}, settings=settings)


def test_one_forbidden_address_among_public_ones_is_enough(settings: Settings, monkeypatch: Any) -> None:
    strict = Settings.model_validate(webhook_settings(settings, webhook_networks=[]))
    monkeypatch.setattr(socket, "getaddrinfo", Names(["93.184.215.14", "169.254.169.254"]))
    with pytest.raises(ReceiverUnavailable, match="address is refused"):
        send("https://hooks.example/", strict)


def test_a_name_that_changes_its_address_after_the_check_gains_nothing(
    settings: Settings, monkeypatch: Any
) -> None:
    near = Settings.model_validate(webhook_settings(settings, webhook_networks=["127.0.0.1/32"]))
    with receiver() as honest, receiver(address="127.0.0.9", port=honest.port) as trap:
        names = Names(["127.0.0.1"], ["127.0.0.9"])
        monkeypatch.setattr(socket, "getaddrinfo", names)
        assert send(honest.url("hooks.example"), near) == 204
        assert (len(honest.bodies), len(trap.bodies), names.asked) == (1, 0, 1)
        assert honest.headers[0]["host"] == f"hooks.example:{honest.port}"
        with pytest.raises(ReceiverUnavailable, match="address is refused"):
            send(honest.url("hooks.example"), near)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of hooks.example, signed by itself."""
    path = tmp_path_factory.mktemp("tls") / "hooks.crt"
    names = ["-subj", "/CN=hooks.example", "-addext", "subjectAltName=DNS:hooks.example"]
    files = ["-keyout", str(path.with_suffix(".key")), "-out", str(path)]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, *files]
    subprocess.run(command, check=True, capture_output=True)
    return path


def test_a_certificate_must_be_trusted_and_of_the_name(
    allowing: Settings, certificate: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", Names(["127.0.0.1"]))
    with receiver(certificate=certificate) as listening:
        with pytest.raises(ReceiverUnavailable, match="SSLError"):
            send(listening.url("hooks.example", "https"), allowing)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert send(listening.url("hooks.example", "https"), allowing) == 204
        with pytest.raises(ReceiverUnavailable, match="SSLError"):
            send(listening.url("127.0.0.1", "https"), allowing)
