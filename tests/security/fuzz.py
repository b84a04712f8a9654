"""Hypothesis strategies: JSON of every shape; configs, documents and messages that are almost right."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from nss_train.config import SafeSynthesizerParameters
from nss_train.contract import Stage
from tests.security.messages import JOB, body, envelope

NASTY = ["", "../../x", "\0", "=1+1", "9" * 300, "NaN", "1e999", "\x1b[2J", "\u2028"]
"""Texts beside those that hypothesis makes by itself."""

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([*NASTY, 2**70, -1, 0, 1e308, "auto", JOB, *Stage])
)
names = st.text(max_size=8)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=20,
)


def run(check: Any, *strategies: Any, examples: int) -> None:
    """Call a check with this many made-up examples; the smallest that fails is shown."""
    limits = settings(max_examples=examples, database=None, suppress_health_check=list(HealthCheck))
    limits(given(*strategies)(check))()


def configs() -> st.SearchStrategy[dict[str, Any]]:
    """Make sections and fields with their real names and any values, and some that are unknown."""
    return st.dictionaries(
        st.sampled_from([*SafeSynthesizerParameters.model_fields, "unknown_fields", "bogus"]),
        values | _section(SafeSynthesizerParameters),
        max_size=5,
    )


def _section(model: type[BaseModel]) -> st.SearchStrategy[Any]:
    names = sorted({name for section in _sections(model) for name in section.model_fields})
    return st.dictionaries(st.sampled_from(names), values, max_size=6)


def _sections(model: type[BaseModel]) -> list[type[BaseModel]]:
    found = [field.annotation for field in model.model_fields.values()]
    return [one for one in found if isinstance(one, type) and issubclass(one, BaseModel)]


@st.composite
def changed(draw: Any, document: Any) -> Any:
    """Draw a JSON document in which one to three places are replaced, removed or added."""
    made = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        _change(made, draw)
    return made


def _change(document: Any, draw: Any) -> None:
    place = document
    while isinstance(place, dict) and place:
        name = draw(st.sampled_from(sorted(place)))
        if isinstance(place[name], dict) and place[name] and draw(st.booleans()):
            place = place[name]
            continue
        what = draw(st.sampled_from(["replace", "remove", "add"]))
        if what == "remove":
            del place[name]
        else:
            place[name if what == "replace" else draw(st.text(max_size=8))] = draw(values)
        return


def stage_messages() -> st.SearchStrategy[Any]:
    honest = {"job_id": JOB, "stage": "train", "version": 2}
    return changed(honest) | values


def submissions() -> st.SearchStrategy[Any]:
    honest = {"table": "s3://elsewhere/x.csv", "config": {}, "idempotency_key": "k", "seed": 1}
    return changed(honest) | values | configs().map(lambda config: honest | {"config": config})


def nested(depth: int) -> Any:
    inner: Any = 0
    for _ in range(depth):
        inner = {"a": inner}
    return inner


deep = st.integers(100, 400).map(nested)
"""Values deeper than any honest message; :mod:`tests.security.hostile` goes up to 1,000."""


TASKS = ["nss_train.submit", *(f"nss_train.{stage}" for stage in Stage), "celery.map", "x"]


HEADERS = ["stamps", "stamped_headers", "origin", "root_id", "retries", "argsrepr", "shadow", "eta", "x"]


def links() -> st.SearchStrategy[Any]:
    """Make a chain of honest links, some of them changed, and more of them than there are stages."""
    honest = {"task": "nss_train.train", "args": [], "kwargs": {}, "options": {}, "immutable": True}
    return st.lists(changed(honest) | st.just(honest), max_size=6)


@st.composite
def envelopes(draw: Any) -> bytes:
    """Draw a line of a queue: an honest message around made-up arguments, changed outside, or cut short."""
    name = draw(st.sampled_from(TASKS))
    kwargs = draw(submissions()) if name.endswith("submit") else {"message": draw(stage_messages() | deep)}
    embedded = draw(st.just({}) | values | st.fixed_dictionaries({"chain": values | links() | deep}))
    message = envelope(name, {}, body=body(kwargs, embedded=embedded))
    message["headers"]["id"] = f"fuzz-{draw(st.uuids())}"
    message["properties"]["delivery_tag"] = str(draw(st.uuids()))
    if draw(st.booleans()):
        message = draw(changed(message))
    if draw(st.booleans()) and isinstance(message.get("headers"), dict):
        message["headers"][draw(st.sampled_from(HEADERS))] = draw(values | deep)
    line = json.dumps(message).encode()
    shape = draw(st.sampled_from(["whole", "whole", "whole", "cut", "garbage"]))
    if shape == "garbage":
        return draw(st.binary(max_size=200))
    return line if shape == "whole" else line[: draw(st.integers(0, 3000))]
