"""The Redis transport looks at each line of a queue before anything parses it, and drops what is refused.

Otherwise a writer to a queue could end a worker with one line that is not JSON, or have it send messages that
the writer itself may not. What is parsed then is JSON and no more: kombu's own reader makes dates, decimals
and bytes of objects that ask for it, and the worker ends where that fails.

A message that is refused is logged and gone: a job whose own message is lost is sent again by reconcile, and
:mod:`tasks.submission.answers` informs the sender of a submission. The checks are in
:mod:`tasks.broker.message_guard`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from kombu import serialization, transport
from kombu.transport import redis
from kombu.transport.redis import Channel, Transport
from kombu.transport.virtual import Empty
from kombu.utils.json import dumps, loads
from redis import Redis

from nss_train.errors import ParameterError, Problem
from tasks.broker.message_guard import Refused, cleaned, faults, id_of, read_line
from tasks.broker.queues import of_list

logger = logging.getLogger(__name__)


class GuardedRedis(Redis):
    """A connection that looks at each line of a guarded queue before it is parsed."""

    def __init__(self, *args: Any, guarded: frozenset[str], **options: Any) -> None:
        super().__init__(*args, **options)
        self._guarded = guarded

    def parse_response(self, connection: object, command_name: object, **options: object) -> Any:
        answer = super().parse_response(connection, command_name, **options)
        if command_name == "BRPOP" and answer and of_list(answer[0].decode()) in self._guarded:
            read_line(answer[1])
        return answer


class GuardedChannel(Channel):
    """A channel that survives whatever line is in a queue."""

    def _get_client(self) -> Any:
        options = self.connection.client.transport_options
        return partial(GuardedRedis, guarded=frozenset(options.get("guarded_queues", ())))

    def _brpop_read(self, **options: object) -> Any:
        return self._surviving(partial(super()._brpop_read, **options))

    def _receive_one(self, connection: object) -> Any:
        return self._surviving(partial(super()._receive_one, connection))

    def _surviving(self, receive: Callable[[], Any]) -> Any:
        """Return whether there was a message; drop one that cannot be read, which has left its queue."""
        try:
            return receive()
        except Refused as refused:
            log_refusal(str(refused))
        except Exception as error:
            if isinstance(error, Empty) or _is_of_a_connection(error):
                raise
            # It was in a queue or a channel without a guard.
            logger.exception(
                "a message was refused: %s", type(error).__name__, extra={"action": "message.refused"}
            )
        return True


class GuardedTransport(Transport):
    """A transport that lets valid messages of the guarded queues pass, and everything of other queues."""

    Channel = GuardedChannel

    def _deliver(self, message: Any, queue: str) -> None:
        options: Mapping[str, Any] = self.client.transport_options  # type: ignore[union-attr]
        if queue not in options.get("guarded_queues", ()):
            super()._deliver(message, queue)
            return
        why = next(faults(message, queue), None)
        if why is not None:
            log_refusal(why, queue=queue, task_id=id_of(message))
            if (tell := options.get("tell_refused")) is not None:
                tell(message, why)
            return
        self._hand_in(cleaned(message), queue)

    def _hand_in(self, message: dict[str, Any], queue: str) -> None:
        """Give a message to the consumer, and refuse for good one that cannot be handed on.

        By then it is listed as delivered: without an end it would count as unfinished work forever, and the
        worker would wait for it instead of taking others.
        """
        try:
            super()._deliver(message, queue)
        except (*self.connection_errors, *self.channel_errors):
            raise
        except Exception as error:
            fields = {"action": "message.refused", "queue": queue, "task_id": id_of(message)}
            logger.exception("a message was refused: %s on its way in", type(error).__name__, extra=fields)
            self._forget(message["properties"]["delivery_tag"])

    def _forget(self, tag: str) -> None:
        for channel in self.channels:
            if channel is not None and tag in channel.qos._delivered:  # noqa: SLF001 (kombu offers no other view)
                channel.basic_reject(tag, requeue=False)


def install() -> None:
    """Let ``redis://`` and ``rediss://`` mean the guarded transport in this process, and JSON only JSON.

    Idempotent.
    """
    redis.loads = _plain_json  # type: ignore[attr-defined]
    serialization.register(
        "json", dumps, _plain_json, content_type="application/json", content_encoding="utf-8"
    )
    for scheme in ("redis", "rediss"):
        transport.TRANSPORT_ALIASES[scheme] = f"{__name__}:{GuardedTransport.__name__}"
        transport._transport_cache.pop(scheme, None)  # noqa: SLF001 (kombu keeps what it resolved before)


def _is_of_a_connection(error: Exception) -> bool:
    """Tell whether kombu takes an error for a connection's; a name that a message lacks is none."""
    kinds = (*Transport.connection_errors, *Transport.channel_errors)
    return isinstance(error, kinds) and not isinstance(error, KeyError)


_plain_json = partial(loads, object_hook=None)
"""Kombu's reader of JSON without its own types."""


def verified(url: str) -> str:
    """Return the broker's URL, with TLS that checks the certificate, unlike kombu's own default.

    Raises :class:`ParameterError` for a URL that switches the check off, or that is no broker's.
    """
    parts = urlsplit(url)
    if not _is_of_a_broker(parts):
        remedy = "use redis://host:port/0, or rediss:// with TLS"
        problem = Problem(field="NSS_TRAIN_BROKER_URL", value=url.rpartition("@")[2], remedy=remedy)
        raise ParameterError("The broker's URL is none.", [problem])
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


def _is_of_a_broker(parts: SplitResult) -> bool:
    try:
        return parts.scheme in {"redis", "rediss"} and parts.port != 0
    except ValueError:  # a port that is no number
        return False


def log_refusal(why: str, *, queue: str = "", task_id: str = "") -> None:
    """Log that a message is dropped. Its sender chose the id, so that it is printed as a literal."""
    shown = ascii(task_id)[1:-1]
    fields = {"action": "message.refused", "queue": queue, "task_id": shown}
    logger.warning("a message was refused: %s (id: %s)", why, shown or "none", extra=fields)
