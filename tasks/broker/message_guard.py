"""The checks that a message must pass before kombu parses it, and before the pool gets it.

A worker reads what it needs of a valid message and nothing else. Any other message is refused here, at a cost
that is bounded by its size.
"""

from __future__ import annotations

import binascii
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from nss_train import documents
from tasks.broker.task_names import STAMP, TASK_NAMES

MESSAGE_MAX_BYTES = 2**19
"""Size limit of a message: twice a submission that declares 4,000 columns; a table goes by its key, never by
value."""
PREFIX = "nss_train."
SUBMIT = f"{PREFIX}submit"
SMALL_MAX_BYTES = 2**14
"""Size limit of the body of any message but a submission: ids, and the links of a chain."""
SMALL_LINE_MAX_BYTES = 2 * SMALL_MAX_BYTES
"""Size limit of any message but a submission: body in Base64, and headers of a few thousand bytes."""
MOST_KEYWORDS = 64
"""Most arguments of a message: four times those of a submission, so that one with a wrong field is answered,
not dropped."""
NAME_CHARS = 200
"""Most characters of an id, a task, a host or a queue."""
REPR_CHARS = 1024
"""Most characters of the arguments as a dashboard shows them; Celery's senders write no more."""
MOST_RETRIES = 10**7
"""Most retries: a submission handed back every 5 s while the store is down gets there after over a year."""
MOST_LINKS = len(TASK_NAMES) - 1
LINK_MAX_BYTES = 4096
_LINK = {"task", "args", "kwargs", "options", "subtask_type", "immutable"}
_CHAINED_OPTIONS = {STAMP, "stamped_headers", "task_id", "reply_to", "root_id", "parent_id", "priority"}
"""Options that :mod:`tasks.scheduling.chain` writes. Others would let a message's writer send a worker's
messages anywhere."""
_EMBEDDED = {"callbacks", "errbacks", "chain", "chord"}
_OF_CELERY = "celery."
_HIDDEN = "{…}"
"""Placeholder for a submission's arguments in events, and so in Flower; a config or URL may hold secrets."""


class Refused(Exception):
    """A message is refused; the text says why and quotes nothing of it."""


def _is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= NAME_CHARS


def _is_optional_name(value: object) -> bool:
    return value is None or _is_name(value)


def _is_stamp(value: object) -> bool:
    """Tell whether a value is a stamp; Celery makes a list of a stamp that it passes on."""
    return all(map(_is_name, value)) if isinstance(value, list) else _is_optional_name(value)


def _is_optional_text(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MOST_RETRIES


def _is_optional_count(value: object) -> bool:
    return value is None or _is_count(value)


def _is_optional_flag(value: object) -> bool:
    return value is None or isinstance(value, bool)


_HEADERS: Mapping[str, Callable[[Any], bool]] = {
    "id": _is_name,
    "task": _is_name,
    "lang": _is_optional_name,
    "origin": _is_optional_name,
    "root_id": _is_optional_name,
    "parent_id": _is_optional_name,
    "retries": _is_optional_count,
    "ignore_result": _is_optional_flag,
    "argsrepr": _is_optional_text,
    "kwargsrepr": _is_optional_text,
}
"""Headers that a worker may read of a message. Any other would be part of a task's request: an ``expires``
that cancels a job, a ``chain`` that is sent with the worker's rights."""
_PROPERTIES: Mapping[str, Callable[[Any], bool]] = {
    "body_encoding": _is_name,
    "correlation_id": _is_optional_name,
    "reply_to": _is_optional_name,
    "delivery_mode": _is_optional_count,
    "priority": _is_optional_count,
    "delivery_tag": _is_name,
}
_ADDRESS: Mapping[str, Callable[[Any], bool]] = {
    "exchange": _is_optional_name,
    "routing_key": _is_name,
    "priority": _is_optional_count,
    "redelivered": _is_optional_flag,
}


def read_line(line: bytes) -> Any:
    """Return what a line of a queue holds; raise :class:`Refused` for one that must not be parsed further."""
    if len(line) > MESSAGE_MAX_BYTES:
        raise Refused(f"more than {MESSAGE_MAX_BYTES} bytes")
    if len(line) > SMALL_LINE_MAX_BYTES and SUBMIT.encode() not in line:
        raise Refused(f"more than {SMALL_LINE_MAX_BYTES} bytes that are no submission")
    try:
        return documents.parse(line, text_chars=MESSAGE_MAX_BYTES)
    except (ValueError, RecursionError) as error:
        raise Refused(f"not JSON, or not a small one: {_why(error)}") from None


def _why(error: Exception) -> str:
    """Return an error in words; those of a decoder would quote what was sent."""
    return type(error).__name__ if isinstance(error, UnicodeError) else str(error)[:NAME_CHARS]


def faults(message: object, queue: str) -> Iterator[str]:
    """Yield why a message is refused; nothing for a valid one. Later checks rely on the ones before."""
    if not isinstance(message, dict):
        yield "not an object"
        return
    headers, properties, body = (message.get(name) for name in ("headers", "properties", "body"))
    if not (isinstance(headers, dict) and isinstance(properties, dict) and isinstance(body, str)):
        yield "no headers, properties or body"
        return
    yield from _envelope_faults(message, headers, properties)
    yield from _header_faults(headers)
    yield from _delivery_faults(properties, queue)
    if headers["task"] != SUBMIT and len(body) > SMALL_MAX_BYTES:
        yield f"a body of more than {SMALL_MAX_BYTES} bytes that is no submission's"
    try:
        args, kwargs, embedded = arguments_of(body)
    except (ValueError, TypeError, RecursionError) as error:
        yield f"the body is not JSON of arguments, keywords and options: {_why(error)}"
        return
    if not (isinstance(args, list) and isinstance(kwargs, dict) and isinstance(embedded, dict)):
        yield "the body is not JSON of arguments, keywords and options"
        return
    if len(args) + len(kwargs) > MOST_KEYWORDS:
        yield f"more than {MOST_KEYWORDS} arguments"
    if args and headers["task"] == SUBMIT:
        yield "positional arguments; a submission's have names"
    yield from _embedded_faults(embedded, task=headers["task"])


def arguments_of(body: str) -> Any:
    """Return what a body holds; raise :class:`ValueError` or the like when a worker reads no such body."""
    return documents.parse(binascii.a2b_base64(body, strict_mode=True))


def _envelope_faults(
    message: Mapping[str, object], headers: Mapping[str, object], properties: Mapping[str, object]
) -> Iterator[str]:
    kind = (message.get("content-type"), message.get("content-encoding"), properties.get("body_encoding"))
    if kind != ("application/json", "utf-8", "base64"):
        yield "content of another kind; only JSON in UTF-8 and Base64 is read"
    if headers.get("compression") is not None:
        yield "a compressed body"
    if headers.get("eta") is not None:
        yield "an eta (countdown), for which it would wait in a worker's memory; send it when it is due"


def _header_faults(headers: Mapping[str, Any]) -> Iterator[str]:
    yield from _wrong(headers, _HEADERS, "header")
    if not all(_is_name(headers.get(name)) for name in ("id", "task")):
        yield "no task or id in its headers, as of a client with Celery's protocol 1; set task_protocol = 2"
    elif headers["task"].startswith(_OF_CELERY):
        yield "a task of Celery itself"
    stamps = headers.get("stamps")
    if isinstance(stamps, dict) and not _is_stamp(stamps.get(STAMP)):
        yield "a stamp that is no name"


def _delivery_faults(properties: Mapping[str, object], queue: str) -> Iterator[str]:
    yield from _wrong(properties, _PROPERTIES, "property")
    info = properties.get("delivery_info")
    if not isinstance(properties.get("delivery_tag"), str) or not isinstance(info, dict):
        yield "no delivery tag or address"
        return
    yield from _wrong(info, _ADDRESS, "address")
    if info.get("routing_key") != queue or info.get("exchange") not in ("", queue):
        # A worker hands a message back to the queue that the message names as its own.
        yield "addressed to another queue"


def _wrong(
    given: Mapping[str, object], known: Mapping[str, Callable[[Any], bool]], what: str
) -> Iterator[str]:
    for name, is_right in known.items():
        if name in given and not is_right(given[name]):
            yield f"{what} {name} of the wrong kind or size"


def _embedded_faults(embedded: Mapping[str, object], *, task: str) -> Iterator[str]:
    if not _EMBEDDED.issuperset(embedded):
        yield "options of its own"
    if any(embedded.get(name) for name in ("callbacks", "errbacks", "chord")):
        yield "callbacks (link, link_error, chord); watch the job, or name a webhook"
    links = _list(embedded.get("chain"))
    if len(links) > MOST_LINKS:
        yield f"a chain of more than {MOST_LINKS} links"
        return
    if links and task not in TASK_NAMES.values():
        yield "a chain behind what is no stage; watch the job, or name a webhook"
    for link in links:
        yield from _link_faults(link)


def _link_faults(link: object) -> Iterator[str]:
    """Yield why a link of a chain is refused: a worker would send it, with rights that its writer lacks."""
    if not isinstance(link, dict) or link.get("task") not in TASK_NAMES.values():
        yield "a chain to another task"
        return
    options, args, kwargs = (link.get(name) for name in ("options", "args", "kwargs"))
    if not isinstance(options, dict) or not _CHAINED_OPTIONS.issuperset(options):
        yield "a chain with options of its own"
    elif not (_LINK.issuperset(link) and args == [] and isinstance(kwargs, dict)):
        yield "a link of another shape"
    elif len(repr(link)) > LINK_MAX_BYTES:
        yield f"a link of more than {LINK_MAX_BYTES} bytes"
    elif not all(_is_stamp(value) or _is_count(value) for value in options.values()):
        yield "a chain with options of its own"


def _list(value: object) -> list[Any]:
    """Return a list; an absent one is empty, and what is no list counts as an entry that no check accepts."""
    if value is None:
        return []
    return value if isinstance(value, list) else ["not a list"]


def cleaned(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a valid message with what a worker reads of it.

    Its delivery has a tag of our own: under the tag of another message it would be counted, kept and
    acknowledged in its place.
    """
    properties = _known(message["properties"], _PROPERTIES)
    properties["delivery_info"] = _known(message["properties"]["delivery_info"], _ADDRESS)
    properties["delivery_tag"] = str(uuid.uuid4())
    return {
        "body": message["body"],
        "content-type": message["content-type"],
        "content-encoding": message["content-encoding"],
        "headers": _clean_headers(message["headers"]),
        "properties": properties,
    }


def _clean_headers(headers: Mapping[str, object]) -> dict[str, Any]:
    """Return the headers that a worker reads; a dashboard shows no submission's arguments.

    Only the tasks themselves limit their time. Of the stamps only the job's is kept.
    """
    kept = _known(headers, _HEADERS)
    stamps = headers.get("stamps")
    job = stamps.get(STAMP) if isinstance(stamps, dict) else None
    found = {} if job is None else {STAMP: job}
    kept |= {"timelimit": [None, None], "stamps": found, "stamped_headers": list(found)}
    shown = ("()", _HIDDEN) if kept["task"] == SUBMIT else (kept.get("argsrepr"), kept.get("kwargsrepr"))
    return kept | {
        name: (text or "")[:REPR_CHARS] for name, text in zip(("argsrepr", "kwargsrepr"), shown, strict=True)
    }


def _known(given: Mapping[str, object], known: Mapping[str, object]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name in known}


def id_of(message: object) -> str:
    """Return the id of a message, as far as it has one."""
    return str(named_of(message).get("id", ""))[:100]


def named_of(message: object) -> Mapping[str, Any]:
    """Return where a message names its task and id: the headers, or the body in Celery's protocol 1."""
    headers, body = _parts(message, "headers", "body")
    if isinstance(headers, dict) and headers.get("task") is not None:
        return headers
    try:
        found = arguments_of(body) if isinstance(body, str) and len(body) <= SMALL_MAX_BYTES else None
    except (ValueError, TypeError, RecursionError):
        found = None
    return found if isinstance(found, dict) else headers if isinstance(headers, dict) else {}


def _parts(message: object, *names: str) -> tuple[Any, ...]:
    return tuple(message.get(name) if isinstance(message, dict) else None for name in names)
