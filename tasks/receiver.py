"""Whom a webhook may call: hosts that the operator named, at addresses that are not the operator's own."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterator, Mapping
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

import urllib3

from nss_train.errors import InfrastructureError, ParameterError, Problem
from tasks.settings import Settings

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

URL_MAX_CHARS = 2000
_PORTS = {"https": 443, "http": 80}
_METADATA = tuple(map(ipaddress.ip_network, ("168.63.129.16/32", "192.0.0.0/24")))
"""Of clouds, where Python does not count it as private: Azure's, and Oracle's 192.0.0.192."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class ReceiverUnavailable(InfrastructureError):
    """The receiver was not reached, or must not be."""


def check_url(url: str, settings: Settings) -> str:
    """The URL itself; :class:`ParameterError` with every reason why nothing may be sent there."""
    problems = [
        Problem(field="webhook", value=_shown(url), remedy=remedy) for remedy in _faults(url, settings)
    ]
    if problems:
        raise ParameterError("The webhook is refused.", problems)
    return url


def _faults(url: str, settings: Settings) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        yield "not a URL"
        return
    schemes = ("https", "http") if settings.webhook_http else ("https",)
    if parts.scheme not in schemes or not host:
        yield f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)} and a host"
    if parts.username is not None or parts.fragment or len(url) > URL_MAX_CHARS or not _is_plain(url):
        yield f"no user, no fragment, no spaces or controls, ASCII of at most {URL_MAX_CHARS} characters"
    if host not in settings.webhook_hosts:
        allowed = ", ".join(settings.webhook_hosts) or "none"
        yield f"not an allowed host (allowed: {allowed}); ask the operator (NSS_TRAIN_WEBHOOK_HOSTS)"
    if not settings.webhook_secret.get_secret_value():
        yield "the operator has set no NSS_TRAIN_WEBHOOK_SECRET, and nothing is sent without a signature"


def _is_plain(url: str) -> bool:
    return all(" " < char < "\x7f" for char in url)


def _shown(url: str) -> str:
    """Scheme and host: user, path and query may hold a token."""
    scheme, separator, rest = url[:URL_MAX_CHARS].partition("://")
    host = re.split(r"[/?#\\]", rest, maxsplit=1)[0].rpartition("@")[2]
    return f"{scheme}{separator}{host}"[:100] if separator else "not a URL"


def post(url: str, body: bytes, headers: Mapping[str, str], *, settings: Settings) -> int:
    """Send a body; return the HTTP status. Redirections are not followed, the answer is not read.

    The name is looked up once and the very address that was checked is connected to, so that a second
    answer of the name's owner cannot lead elsewhere. Raises :class:`ReceiverUnavailable`.
    """
    parts = urlsplit(check_url(url, settings))
    port = parts.port or _PORTS[parts.scheme]
    pool = _pool(parts, _resolve(str(parts.hostname), port, settings), port, settings)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        answer = pool.urlopen(
            "POST",
            target,
            body=body,
            headers={**headers, "Host": parts.netloc},
            redirect=False,
            retries=False,
            preload_content=False,
            assert_same_host=False,
        )
        answer.close()
    except (urllib3.exceptions.HTTPError, OSError) as error:
        # Without its text, which holds the address and maybe the URL.
        raise ReceiverUnavailable(f"The receiver does not answer: {type(error).__name__}.") from error
    finally:
        pool.close()
    return int(answer.status)


def _pool(parts: SplitResult, address: str, port: int, settings: Settings) -> urllib3.HTTPConnectionPool:
    timeout = urllib3.Timeout(connect=settings.webhook_timeout_s / 2, read=settings.webhook_timeout_s)
    if parts.scheme == "http":
        return urllib3.HTTPConnectionPool(address, port, timeout=timeout, maxsize=1)
    return urllib3.HTTPSConnectionPool(
        address,
        port,
        timeout=timeout,
        maxsize=1,
        cert_reqs="CERT_REQUIRED",
        server_hostname=parts.hostname,
        assert_hostname=parts.hostname,
    )


def _resolve(host: str, port: int, settings: Settings) -> str:
    """The first address of a name all of whose addresses may be called."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ReceiverUnavailable(f"The receiver's name is not known: {type(error).__name__}.") from error
    names = [str(entry[4][0]).partition("%")[0] for entry in found]
    if not names or not all(is_allowed(ipaddress.ip_address(name), settings) for name in names):
        raise ReceiverUnavailable(
            "The receiver's address is refused: loopback, private, link-local or a cloud's metadata "
            "(NSS_TRAIN_WEBHOOK_NETWORKS allows a network)."
        )
    return names[0]


def is_allowed(address: Address, settings: Settings) -> bool:
    """Whether an address is a public one, also behind every way to write an IPv4 address in IPv6."""
    if any(address in ipaddress.ip_network(network) for network in settings.webhook_networks):
        return True
    inner = _embedded(address)
    if inner is not None:
        return is_allowed(inner, settings)
    return (
        address.is_global
        and not address.is_multicast
        and not any(address in network for network in _METADATA)
    )


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)
