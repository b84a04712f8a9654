"""The errors of a broker that is unreachable, or that refuses its user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.exceptions import ConnectionError as LostConnection

from nss_train.errors import BrokerUnavailable, Problem
from tasks.deployment import Deployment

REFUSALS = (AuthenticationError, NoPermissionError)
UNANSWERED = "start Redis or Valkey, or set NSS_TRAIN_BROKER_URL; `nss-train doctor` checks it"
REFUSED = "name a user that may do this, and its password, in NSS_TRAIN_BROKER_URL"


class BrokerRefuses(BrokerUnavailable):
    """The broker answers, and does not let this user do what was asked."""


@contextmanager
def broker_errors(app: Deployment) -> Iterator[None]:
    """Raise Redis errors as :class:`BrokerUnavailable`, without the password."""
    try:
        yield
    except (RedisError, OperationalError, OSError) as error:
        refused = isinstance(error, REFUSALS) or isinstance(error.__cause__, REFUSALS)
        address = app.settings.broker_url.get_secret_value().rpartition("@")[2]
        problem = Problem(field="broker_url", value=address, remedy=REFUSED if refused else UNANSWERED)
        if refused:
            message = f"The broker refuses this user: {type(error).__name__}."
            raise BrokerRefuses(message, [problem]) from error
        raise BrokerUnavailable(f"The broker does not answer: {type(error).__name__}.", [problem]) from error


def reach(redis: Redis) -> None:
    """Raise what the connection raises, unless it only died while idle: then a new one answers."""
    try:
        redis.ping()
    except LostConnection:
        redis.ping()
