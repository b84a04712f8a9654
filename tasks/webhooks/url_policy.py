"""The receivers of webhooks: hosts that the operator named, at addresses that are not the operator's own."""

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
_FIRST_FREE_PORT = 1024
"""Lowest port besides the scheme's own: the ones below are mail, names, shells and the like."""
_UNICAST = ipaddress.ip_network("2000::/3")
"""All addresses that are routed in IPv6 today (RFC 4291, §2.4). Site-local, IPv4-compatible, SIIT's and
local-use NAT64 addresses lie outside."""
_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (
            "168.63.129.16/32",  # Azure's metadata
            "192.0.0.0/24",  # IETF protocols (RFC 6890), and Oracle's metadata
            "192.88.99.0/24",  # relays of 6to4, withdrawn (RFC 7526)
            "2001::/23",  # IETF protocols (RFC 2928): Teredo, ORCHID, benchmarks
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4, which leads to an IPv4 address
            "3fff::/20",  # documentation (RFC 9637)
        ),
    )
)
"""Addresses that some releases of Python call global, or that lead to another address."""
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)
"""Upper half of an interface's identifier whose lower half is an IPv4 address (RFC 5214, §6.1)."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""The prefix by which a network without IPv4 reaches public IPv4 addresses (RFC 6052, §2.1)."""


class ReceiverUnavailable(InfrastructureError):
    """The receiver was not reached, or must not be."""


def check_url(url: str, settings: Settings) -> str:
    """Return the URL itself; raise :class:`ParameterError` with every reason against sending there."""
    problems = [
        Problem(field="webhook", value=_shown(url), remedy=remedy) for remedy in _faults(url, settings)
    ]
    if problems:
        raise ParameterError("The webhook is refused.", problems)
    return url


def _faults(url: str, settings: Settings) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        yield "not a URL"
        return
    schemes = ("https", "http") if settings.webhook_http else ("https",)
    if parts.scheme not in schemes or not host:
        yield f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)} and a host"
    if parts.username is not None or "#" in url or len(url) > URL_MAX_CHARS or not _is_plain(url):
        yield f"no user, no fragment, no spaces or controls, ASCII of at most {URL_MAX_CHARS} characters"
    if parts.netloc.endswith(":") or not _may_be_called(port, parts.scheme):
        yield f"no port but the scheme's own, or one from {_FIRST_FREE_PORT} on"
    if host not in settings.webhook_hosts:
        allowed = ", ".join(settings.webhook_hosts) or "none"
        yield f"not an allowed host (allowed: {allowed}); ask the operator (NSS_TRAIN_WEBHOOK_HOSTS)"
    if not settings.webhook_secret.get_secret_value():
        yield "the operator has set no NSS_TRAIN_WEBHOOK_SECRET, and nothing is sent without a signature"


def _may_be_called(port: int | None, scheme: str) -> bool:
    return port is None or port == _PORTS.get(scheme) or port >= _FIRST_FREE_PORT


def _is_plain(url: str) -> bool:
    return all(" " < char < "\x7f" and char not in '\\"<>^`{|}' for char in url)


def _shown(url: str) -> str:
    """Return scheme and host: user, path and query may hold a token."""
    scheme, separator, rest = url[:URL_MAX_CHARS].partition("://")
    host = re.split(r"[/?#\\]", rest, maxsplit=1)[0].rpartition("@")[2]
    return f"{scheme}{separator}{host}"[:100] if separator else "not a URL"


def post(url: str, body: bytes, headers: Mapping[str, str], *, settings: Settings) -> int:
    """Send a body; return the HTTP status. Redirections are not followed, the answer is not read.

    The name is resolved once, and the very address that was checked is connected to, so that a second answer
    of its DNS server cannot lead elsewhere. Raises :class:`ReceiverUnavailable`.
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
    """Return the first address of a name, all of whose addresses may be called."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ReceiverUnavailable(f"The receiver's name is not known: {type(error).__name__}.") from error
    names = [str(entry[4][0]).partition("%")[0] for entry in found]
    if not names or not all(is_allowed(ipaddress.ip_address(name), settings) for name in names):
        raise ReceiverUnavailable(
            "The receiver's address is refused: it is not routed on the public internet "
            "(NSS_TRAIN_WEBHOOK_NETWORKS allows a network)."
        )
    return names[0]


def is_allowed(address: Address, settings: Settings) -> bool:
    """Tell whether an address is routed on the public internet, or in a network that the operator named."""
    if any(address in ipaddress.ip_network(network) for network in settings.webhook_networks):
        return True
    inner = _translated(address)
    return _is_public(address) if inner is None else is_allowed(inner, settings)


def _translated(address: Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that a system calls when it is given this IPv6 address."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF) if address in _NAT64 else address.ipv4_mapped


def _is_public(address: Address) -> bool:
    if not address.is_global or address.is_multicast or any(address in network for network in _NOT_PUBLIC):
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return not address.is_reserved
    interface = int(address) >> 32 & 0xFFFF_FFFF
    return address in _UNICAST and interface not in _ISATAP
