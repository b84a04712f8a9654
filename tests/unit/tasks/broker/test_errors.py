"""An error of the broker says what helps, and never its password."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from kombu.exceptions import OperationalError
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.exceptions import ConnectionError as LostConnection

from nss_train.errors import BrokerUnavailable
from tasks.broker.errors import BrokerRefuses, broker_errors, reach
from tasks.settings import Settings

APP: Any = SimpleNamespace(settings=Settings(broker_url="redis://me:secret@broker.example:6379/0"))


def raised(error: Exception) -> BrokerUnavailable:
    with pytest.raises(BrokerUnavailable) as caught, broker_errors(APP):
        raise error
    return caught.value


@pytest.mark.parametrize(
    "error", [LostConnection("secret"), OperationalError("secret"), OSError("secret"), TimeoutError("secret")]
)
def test_a_broker_that_does_not_answer_is_named_without_its_password(error: Exception) -> None:
    found = raised(error)
    assert type(found) is BrokerUnavailable
    assert "broker.example:6379" in str(found)
    assert "nss-train doctor" in str(found)
    assert "secret" not in str(found)


@pytest.mark.parametrize("refusal", [AuthenticationError("x"), NoPermissionError("x")])
def test_a_broker_that_refuses_its_user_asks_for_another_one(refusal: Exception) -> None:
    wrapped = OperationalError("x")
    wrapped.__cause__ = refusal
    for error in (refusal, wrapped):
        found = raised(error)
        assert type(found) is BrokerRefuses
        assert "name a user that may do this" in str(found)
        assert "secret" not in str(found)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(ValueError, match="mine"), broker_errors(APP):
        raise ValueError("mine")


class Connection:
    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)

    def ping(self) -> None:
        if (answer := self.answers.pop(0)) is not None:
            raise answer


def test_a_connection_that_died_while_idle_is_opened_again_once() -> None:
    dead: Any = Connection(LostConnection(), None)
    reach(dead)
    assert dead.answers == []
    gone: Any = Connection(LostConnection(), LostConnection(), None)
    with pytest.raises(LostConnection):
        reach(gone)
