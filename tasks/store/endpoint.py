"""The address of the S3 service, as the settings give it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import SplitResult, urlsplit

from nss_train.errors import ParameterError, Problem
from tasks.settings import Settings

ENDPOINT = "NSS_TRAIN_S3_ENDPOINT"
_NAME = re.compile(r"[\w.-]+|[0-9a-f:.]+")
"""Name of a host, or an IPv6 address."""


def checked_endpoint(settings: Settings) -> str:
    """Return ``host:port`` of the S3 service; raise :class:`ParameterError` for more than that, or less."""
    given = settings.s3_endpoint.strip()
    problems = [Problem(field=ENDPOINT, value=_shown(given), remedy=remedy) for remedy in _faults(given)]
    if problems:
        raise ParameterError("The S3 service's address is not one.", problems)
    return given.rstrip("/")


def _faults(given: str) -> Iterator[str]:
    if not given:
        yield "is not set; give host:port of the S3 service, such as minio:9000"
        return
    has_scheme = "://" in given
    try:
        parts = urlsplit(given if has_scheme else f"//{given}")
        host = _host(parts)
    except ValueError as error:
        yield f"is no host:port, such as minio:9000: {error}"
        return
    if parts.username is not None or parts.password is not None:
        yield "keys go into NSS_TRAIN_S3_ACCESS_KEY and NSS_TRAIN_S3_SECRET_KEY; write host:port alone"
    elif has_scheme and parts.scheme == "http":
        yield f"is host:port without http://; write {host}, and NSS_TRAIN_S3_SECURE=false for http"
    elif has_scheme:
        yield f"is host:port without {parts.scheme}://; write {host} (https is the default)"
    if parts.path.strip("/") or parts.query or parts.fragment:
        yield f"is host:port without a path; write {host}, and s3://bucket/folder in NSS_TRAIN_STORE_URL"
    if _NAME.fullmatch(parts.hostname or "") is None:
        yield "names no host; write host:port, such as minio:9000"


def _host(parts: SplitResult) -> str:
    port = parts.port  # raises what is wrong with it
    host = parts.hostname or "host"
    host = f"[{host}]" if ":" in host else host
    return host if port is None else f"{host}:{port}"


def _shown(given: str) -> str:
    """Return the setting without credentials that it may contain."""
    before, at, after = given.rpartition("@")
    return f"…@{after}" if at and before else given
