"""The Redis transport with a guard at the worker's door: what is no honest message goes no further.

Whoever may write to a queue could otherwise end a worker with one line that is not JSON, or have it
send messages that the writer itself may not. A message that is refused is logged and gone: a job
whose own message is lost is sent again by reconcile.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kombu import transport
from kombu.transport.redis import Channel, Transport

from nss_train.errors import ParameterError, Problem
from tasks.pipeline import STAMP

logger = logging.getLogger(__name__)

MESSAGE_MAX_BYTES = 2**20
"""A table goes by its key, never by value; a config is a few thousand bytes."""
PREFIX = "nss_train."
SUBMIT = f"{PREFIX}submit"
_CHAINED_OPTIONS = {STAMP, "stamped_headers", "task_id", "reply_to", "root_id", "parent_id", "priority"}
"""What :mod:`tasks.pipeline` writes. Others would send the worker's messages where their writer wants."""
_HEADERS = {
    "id",
    "task",
    "lang",
    "origin",
    "root_id",
    "parent_id",
    "retries",
    "ignore_result",
    "argsrepr",
    "kwargsrepr",
}
"""What a worker may read of a message's headers. Any other would be part of a task's request: an
``expires`` that cancels a job, a ``chain`` that is sent with the worker's rights."""
_EMBEDDED = {"callbacks", "errbacks", "chain", "chord"}
_OF_CELERY = "celery."
_HIDDEN = "{…}"
"""Stands for a submission's arguments in events, and so in Flower; a config or a URL may hold secrets."""


class GuardedChannel(Channel):
    """A channel that survives what is not JSON."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (ValueError, RecursionError) as error:
            # It is off its queue already.
            _log_refusal(f"not JSON: {type(error).__name__}", queue="", task_id="")
            return True


class GuardedTransport(Transport):
    """A transport that lets honest messages of the guarded queues pass, and everything of other queues."""

    Channel = GuardedChannel

    def _deliver(self, message: Any, queue: str) -> None:
        options: Mapping[str, Any] = self.client.transport_options  # type: ignore[union-attr]
        if queue in options.get("guarded_queues", ()):
            why = next(faults(message, queue), None)
            if why is not None:
                _log_refusal(why, queue=queue, task_id=_id_of(message))
                return
            message["headers"] = _cleaned(message["headers"])
        super()._deliver(message, queue)


def install() -> None:
    """Let ``redis://`` and ``rediss://`` mean the guarded transport in this process. Idempotent."""
    for scheme in ("redis", "rediss"):
        transport.TRANSPORT_ALIASES[scheme] = f"{__name__}:{GuardedTransport.__name__}"
        transport._transport_cache.pop(scheme, None)  # noqa: SLF001 (kombu keeps what it resolved before)


def verified(url: str) -> str:
    """The broker's URL, with TLS that checks the certificate; kombu's own default is not to.

    Raises :class:`ParameterError` for one that switches the check off.
    """
    parts = urlsplit(url)
    if parts.scheme != "rediss":
        return url
    asked = parse_qs(parts.query, keep_blank_values=True)
    for name, right in (("ssl_cert_reqs", "required"), ("ssl_check_hostname", "true")):
        for value in asked.get(name, ()):
            if value.lower().removeprefix("cert_") != right:
                remedy = "TLS without this check protects nothing; leave it out, or name ssl_ca_certs"
                problem = Problem(field=name, value=value[:20], remedy=remedy)
                raise ParameterError("The broker's URL is refused.", [problem])
    if "ssl_cert_reqs" in asked:
        return url
    return f"{url}{'&' if parts.query else '?'}ssl_cert_reqs=required"


def faults(message: Any, queue: str) -> Iterator[str]:
    """Why a raw message is refused; nothing for an honest one. Later checks rely on the ones before."""
    if not isinstance(message, dict) or len(json.dumps(message)) > MESSAGE_MAX_BYTES:
        yield f"not an object of at most {MESSAGE_MAX_BYTES} bytes"
        return
    yield from _envelope_faults(message, queue)
    try:
        args, kwargs, embedded = json.loads(base64.b64decode(message["body"], validate=True))
    except (ValueError, TypeError, RecursionError, binascii.Error):
        yield "the body is not JSON of arguments, keywords and options"
        return
    if not (isinstance(args, list) and isinstance(kwargs, dict) and isinstance(embedded, dict)):
        yield "the body is not JSON of arguments, keywords and options"
        return
    yield from _embedded_faults(embedded)


def _envelope_faults(message: Mapping[str, Any], queue: str) -> Iterator[str]:
    headers, properties, body = (message.get(name) for name in ("headers", "properties", "body"))
    if not (isinstance(headers, dict) and isinstance(properties, dict) and isinstance(body, str)):
        yield "no headers, properties or body"
        return
    kind = (message.get("content-type"), message.get("content-encoding"), properties.get("body_encoding"))
    if kind != ("application/json", "utf-8", "base64"):
        yield f"content of the kind {str(kind)[:100]}; only JSON is read"
    if not all(isinstance(headers.get(name), str) for name in ("id", "task")):
        yield "no task or id"
    elif headers["task"].startswith(_OF_CELERY):
        yield "a task of Celery itself"
    if headers.get("eta") is not None:
        yield "an eta, for which it would wait in a worker's memory"
    yield from _delivery_faults(properties, queue)


def _delivery_faults(properties: Mapping[str, Any], queue: str) -> Iterator[str]:
    info = properties.get("delivery_info")
    if not isinstance(properties.get("delivery_tag"), str) or not isinstance(info, dict):
        yield "no delivery tag or address"
    elif info.get("routing_key") != queue or info.get("exchange") not in ("", queue):
        # A worker hands a message back to where it says that it came from.
        yield "addressed to another queue"


def _embedded_faults(embedded: Mapping[str, Any]) -> Iterator[str]:
    if not _EMBEDDED.issuperset(embedded):
        yield "options of its own"
    if any(embedded.get(name) for name in ("callbacks", "errbacks", "chord")):
        yield "callbacks"
    for link in _list(embedded.get("chain")):
        if not isinstance(link, dict) or not str(link.get("task", "")).startswith(PREFIX):
            yield "a chain to another task"
        elif not isinstance(link.get("options"), dict) or not _CHAINED_OPTIONS.issuperset(link["options"]):
            yield "a chain with options of its own"


def _list(value: Any) -> list[Any]:
    """An absent list is an empty one; what is none at all counts as an entry that no check accepts."""
    if value is None:
        return []
    return value if isinstance(value, list) else ["not a list"]


def _cleaned(headers: Mapping[str, Any]) -> dict[str, Any]:
    """The headers that a worker reads; a dashboard shows no submission's arguments.

    Only the tasks themselves limit their time. Of the stamps the job's means something.
    """
    kept = {name: value for name, value in headers.items() if name in _HEADERS}
    stamps = headers.get("stamps")
    job = stamps.get(STAMP) if isinstance(stamps, dict) else None
    found = {} if job is None else {STAMP: job}
    kept |= {"timelimit": [None, None], "stamps": found, "stamped_headers": list(found)}
    if kept["task"] == SUBMIT:
        kept |= {"argsrepr": "()", "kwargsrepr": _HIDDEN}
    return kept


def _id_of(message: Any) -> str:
    headers = message.get("headers") if isinstance(message, dict) else None
    return str(headers.get("id", ""))[:100] if isinstance(headers, dict) else ""


def _log_refusal(why: str, *, queue: str, task_id: str) -> None:
    fields = {"action": "message.refused", "queue": queue, "task_id": task_id}
    logger.warning("a message was refused: %s", why, extra=fields)
