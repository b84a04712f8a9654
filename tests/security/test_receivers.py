"""Destinations of a webhook: never the operator's own machines, and only the owner of the name."""

from __future__ import annotations

import ipaddress
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nss_train.errors import ParameterError
from tasks.settings import Settings
from tasks.webhooks.url_policy import ReceiverUnavailable, check_url, is_allowed, post
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
    "192.88.99.1",
    "198.18.0.1",
    "fec0::1",
    "5f00::1",
    "100::1",
    "2001:db8::1",
    "2001:2::1",
    "2001:20::1",
    "3fff::1",
    "2002:5db8:d70e::",
    "2606:4700::5efe:5db8:d70e",
    "4000::1",
]


@pytest.mark.parametrize("address", FORBIDDEN)
def test_addresses_of_the_operator_s_own_are_refused(address: str, settings: Settings) -> None:
    assert not is_allowed(ipaddress.ip_address(address), settings)


_LOCAL_NAT64 = int(ipaddress.IPv6Address("64:ff9b:1::"))
WRITTEN: dict[str, Any] = {
    "mapped": lambda inner: int(ipaddress.IPv6Address("::ffff:0:0")) | inner,
    "compatible": lambda inner: inner,
    "translated by SIIT": lambda inner: int(ipaddress.IPv6Address("::ffff:0:0:0")) | inner,
    "6to4": lambda inner: int(ipaddress.IPv6Address("2002::")) | inner << 80,
    "Teredo's client": lambda inner: int(ipaddress.IPv6Address("2001::")) | inner ^ 0xFFFF_FFFF,
    "Teredo's server": lambda inner: int(ipaddress.IPv6Address("2001::")) | inner << 64,
    "ISATAP": lambda inner: int(ipaddress.IPv6Address("2606:4700::5efe:0:0")) | inner,
    "ISATAP, unique": lambda inner: int(ipaddress.IPv6Address("2606:4700::200:5efe:0:0")) | inner,
    "NAT64": lambda inner: _LOCAL_NAT64 ^ 1 << 80 | inner,
    # RFC 6052, §2.2, for prefixes of several lengths; bits 64 to 71 stay empty.
    "local NAT64 of 48 bits": lambda inner: _LOCAL_NAT64 | inner >> 16 << 64 | (inner & 0xFFFF) << 40,
    "local NAT64 of 56 bits": lambda inner: _LOCAL_NAT64 | inner >> 24 << 64 | (inner & 0xFFFFFF) << 32,
    "local NAT64 of 64 bits": lambda inner: _LOCAL_NAT64 | inner << 24,
    "local NAT64 of 96 bits": lambda inner: _LOCAL_NAT64 | inner,
    "site-local": lambda inner: int(ipaddress.IPv6Address("fec0::")) | inner,
    "link-local": lambda inner: int(ipaddress.IPv6Address("fe80::5efe:0:0")) | inner,
    "unique local": lambda inner: int(ipaddress.IPv6Address("fd00::")) | inner,
}
"""Every known way to write an IPv4 address as one of IPv6."""


@given(st.ip_addresses(v=4), st.sampled_from(sorted(WRITTEN)))
def test_no_way_to_write_it_hides_an_inner_address(inner: ipaddress.IPv4Address, way: str) -> None:
    assume(not inner.is_global)
    settings = Settings()
    assert not is_allowed(inner, settings)
    assert not is_allowed(ipaddress.IPv6Address(WRITTEN[way](int(inner))), settings)


@given(st.ip_addresses(v=6))
def test_ipv6_is_called_only_where_it_is_routed(address: ipaddress.IPv6Address) -> None:
    allowed = is_allowed(address, Settings())
    led_to_ipv4 = address.ipv4_mapped or address in ipaddress.ip_network("64:ff9b::/96")
    assert not allowed or led_to_ipv4 or address in ipaddress.ip_network("2000::/3")


def test_a_named_network_is_allowed_also_behind_a_mapped_address(settings: Settings) -> None:
    near = Settings.model_validate(webhook_settings(settings, webhook_networks=["10.1.0.0/16"]))
    for address, allowed in {"10.1.2.3": 1, "::ffff:10.1.2.3": 1, "10.2.0.1": 0, "::10.1.2.3": 0}.items():
        assert is_allowed(ipaddress.ip_address(address), near) is bool(allowed), address


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
    "https://hooks.example/x#",
    "https://@hooks.example/x",
    "https://hooks.example:/x",
    "https://hooks.example:0/x",
    "https://hooks.example:22/x",
    "https://hooks.example:80/x",
    "https://hooks.example:65536/x",
    "https://hooks.example:443:443/x",
    "https://hooks.example./x",
    "https://hooks.example%00/x",
    "https://hooks\u3002example/x",
    "https://h\u043eoks.example/x",
    "https://xn--hoks-1nd.example/x",
    "https://[hooks.example]/x",
    "https://[::ffff:127.0.0.1%25eth0]/x",
    "https://2130706433/x",
    "https://0177.0.0.1/x",
    "https://127.1/x",
    "https://hooks.example/\\evil.test",
    "//hooks.example/x",
]


ACCEPTED = [
    "https://hooks.example",
    "https://HOOKS.example:443/x?y=z",
    "HTTPS://hooks.example:8443/a/b;c%20d",
]


@pytest.mark.parametrize("url", ACCEPTED)
def test_a_plain_url_of_an_allowed_host_is_accepted(url: str, settings: Settings) -> None:
    strict = Settings.model_validate(webhook_settings(settings, webhook_http=False))
    assert check_url(url, strict) == url


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
    """A resolver that answers look-ups of one name, each with the next addresses."""

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
    """Return a self-signed certificate of hooks.example."""
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
