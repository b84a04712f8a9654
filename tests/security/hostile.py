"""Every kind of message that may harm only its sender, as lines for a queue."""

from __future__ import annotations

import base64
import json
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tasks.broker.message_guard import MESSAGE_MAX_BYTES
from tests.security.messages import body, envelope, raw, stage

PREPARE = "nss_train.prepare_data"
SUBMIT = "nss_train.submit"
DEPTHS = (33, 100, 200, 300, 400, 450, 480, 500, 700, 1_000)
BIG = 200_000


def nest(depth: int) -> Any:
    inner: Any = 0
    for _ in range(depth):
        inner = {"a": inner}
    return inner


def submission(config: Any, **more: Any) -> dict[str, Any]:
    return {"table": "s3://elsewhere/x.csv", "config": config} | more


def chain(count: int, **link: Any) -> dict[str, Any]:
    one = {
        "task": "nss_train.save_model",
        "args": [],
        "kwargs": stage(name="save_model"),
        "options": {},
        "subtask_type": None,
        "immutable": True,
    }
    return envelope(PREPARE, {}, body=body(stage(), embedded={"chain": [one | link] * count}))


def _text(text: str, task: str = SUBMIT) -> dict[str, Any]:
    """Return a message whose body is a text that no serializer writes."""
    return envelope(task, {}, body=base64.b64encode(text.encode()).decode())


def _typed(kind: object, value: object, name: str = "__type__") -> bytes:
    return f'{{"{name}":{json.dumps(kind)},"__value__":{json.dumps(value)}}}'.encode()


TYPED_LINES = tuple(
    _typed(kind, value, name)
    for kind, value in (
        ("decimal", "x"),
        ("decimal", {}),
        ("bytes", 1),
        ("base64", 1),
        ("bytes", None),
        ("datetime", 7),
        ("date", None),
        ("time", []),
        ("uuid", "x"),
        ("uuid", {"int": None}),
        (["decimal"], "x"),
        ({"a": 1}, "x"),
        ("x", "x"),
    )
    for name in ("__type__", "\\u005f_type__")
)
"""Lines of which kombu's own reader makes a date, a decimal or bytes, and fails."""

Maker = Callable[[random.Random], Any]

KINDS: dict[str, Maker] = {
    "a deep config": lambda r: envelope(SUBMIT, submission({"replace_pii": nest(r.choice(DEPTHS))})),
    "a deep list": lambda r: _text(f'[[],{{"config":{"[" * r.choice(DEPTHS)}{"]" * 1_000}}},{{}}]'),
    "deep headers": lambda r: envelope(PREPARE, stage(), headers__origin=nest(r.choice(DEPTHS))),
    "a deep stamp": lambda r: envelope(PREPARE, stage(), headers__stamps={"job_id": nest(r.choice(DEPTHS))}),
    "a deep unknown header": lambda r: envelope(PREPARE, stage(), headers__x=nest(r.choice(DEPTHS))),
    "a deep property": lambda r: envelope(PREPARE, stage(), properties__reply_to=nest(r.choice(DEPTHS))),
    "a deep address": lambda r: envelope(
        PREPARE, stage(), properties__delivery_info={"routing_key": "cpu", "exchange": nest(r.choice(DEPTHS))}
    ),
    "a deep argument": lambda r: envelope(PREPARE, {}, body=body(stage(), args=[nest(r.choice(DEPTHS))])),
    "a deep link": lambda r: chain(1, kwargs={"message": nest(r.choice(DEPTHS))}),
    "a deep option of a link": lambda r: chain(1, options={"task_id": nest(r.choice(DEPTHS))}),
    "a deep version": lambda r: envelope(PREPARE, stage(version=nest(r.choice(DEPTHS)))),
    "four thousand links": lambda _: chain(4_000),
    "a link of another task": lambda _: chain(2, task="nss_train.submit"),
    "a large link": lambda _: chain(2, kwargs={"message": "x" * 10_000}),
    "a chain behind a submission": lambda _: envelope(
        SUBMIT, {}, body=body(submission({}), embedded={"chain": chain(1)})
    ),
    "a hundred thousand values": lambda _: envelope(
        SUBMIT, submission({"replace_pii": {"x": [0] * 100_000}})
    ),
    "many unknown names": lambda r: envelope(
        SUBMIT, submission({"training": {f"k{i:05d}": 0 for i in range(r.choice([51, 4_000, 55_000]))}})
    ),
    "many unknown fields": lambda _: envelope(SUBMIT, submission({}, **{f"f{i}": 0 for i in range(4_000)})),
    "a long text": lambda _: envelope(SUBMIT, submission({"training": {"pretrained_model": "x" * BIG}})),
    "a long address": lambda _: envelope(SUBMIT, submission({}) | {"table": f"s3://b/{'a' * BIG}.csv"}),
    "a long id": lambda _: envelope(PREPARE, stage(), headers__id="x" * BIG),
    "a long representation": lambda _: envelope(PREPARE, stage(), headers__argsrepr="<" * BIG),
    "a huge message": lambda _: envelope(SUBMIT, submission({"x": "x" * MESSAGE_MAX_BYTES})),
    "a huge integer": lambda r: _text(
        f'[[],{{"table":"","config":{{"a":{"9" * r.choice([30, 4_000])}}}}},{{}}]'
    ),
    "a huge number of retries": lambda _: envelope(PREPARE, stage(), headers__retries=10**9),
    "no number": lambda r: _text(
        f'[[],{{"table":"","config":{{"a":{r.choice(["NaN", "-Infinity", "1e999"])}}}}},{{}}]'
    ),
    "half a character": lambda _: envelope(
        SUBMIT, submission({"data": {"group_training_examples_by": "\ud800"}})
    ),
    "half a character as an id": lambda _: envelope(PREPARE, stage(), headers__id="\ud800"),
    "half a character as a tag": lambda _: envelope(PREPARE, stage(), properties__delivery_tag="\ud800"),
    "a type of kombu's": lambda _: envelope(
        SUBMIT, submission({"x": {"__type__": "decimal", "__value__": "1e9"}})
    ),
    "a line of a type of kombu's": lambda r: r.choice(TYPED_LINES),
    "UTF-16": lambda _: envelope(PREPARE, {}, body=base64.b64encode("[[],{},{}]".encode("utf-16")).decode()),
    "a tag of another message": lambda _: envelope(PREPARE, stage(), properties__delivery_tag="taken"),
    "a bomb of escapes": lambda _: b'"\\' + b'"' * (MESSAGE_MAX_BYTES - 2),
    "absurd numbers": lambda _: envelope(
        SUBMIT, submission({"training": {"lora_r": 10**9}, "privacy": {"dp_enabled": True, "epsilon": 1e6}})
    ),
    "a compressed body": lambda _: envelope(PREPARE, stage(), headers__compression="zlib"),
    "a webhook of no job": lambda _: envelope("nss_train.webhook", {"job_id": "../../x"}),
    "a webhook of a deep job": lambda r: envelope("nss_train.webhook", {"job_id": nest(r.choice(DEPTHS))}),
    "an admission of no job": lambda _: envelope("nss_train.admit", {"job_id": "20260101-000000-abcdef01"}),
    "an unknown task": lambda _: envelope("nss_train.reconcile", {}),
    "garbage": lambda r: r.randbytes(200),
    "half a message": lambda r: raw(envelope(PREPARE, stage()))[: r.randrange(10, 300)],
}


def lines(count: int, *, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield this many lines, each kind as often as the others, with the name of its kind."""
    chance, names = random.Random(seed), list(KINDS)
    for number in range(count):
        name = names[number % len(names)]
        yield name, line(name, chance)


def line(name: str, chance: random.Random) -> bytes:
    """Return one line of a kind."""
    with _deep_enough():
        made = KINDS[name](chance)
        return made if isinstance(made, bytes) else json.dumps(made).encode()


@contextmanager
def _deep_enough() -> Iterator[None]:
    """Raise the recursion limit: a sender does not have the worker's limits."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10 * max(DEPTHS))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
