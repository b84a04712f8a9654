"""Reconciles from time to time, beside a worker: ``python -m tasks.worker.reconciler --parent PID``.

A message would wait until a stage has ended, and the pool's stages may take hours while a job
elsewhere has nobody who works on it.
"""

from __future__ import annotations

import argparse
import logging
import time
from contextlib import suppress

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from nss_train.errors import InfrastructureError
from nss_train.process import die_with_parent
from tasks.app import make_app
from tasks.deployment import Deployment
from tasks.scheduling.reconciliation import reconcile
from tasks.settings import Settings
from tasks.telemetry import logs
from tasks.webhooks.delivery import announce_due

logger = logging.getLogger(__name__)

_TURN = "nss-train:reconcile-turn"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.worker.reconciler", description=__doc__)
    parser.add_argument("--parent", type=int, required=True, help="pid without which this process ends")
    die_with_parent(parser.parse_args().parent)
    settings = Settings()
    logs.configure(settings.log_format)
    app = make_app(settings)
    while True:
        time.sleep(settings.reconcile_every_s)
        take_turn(app)


def take_turn(app: Deployment) -> None:
    """Reconcile unless another worker did so in this interval."""
    # The expiry goes by the clock of Redis alone.
    turn = app.redis.lock(_TURN, timeout=app.settings.reconcile_every_s * 0.9)
    try:
        if turn.acquire(blocking=False):
            reconcile(app)
            announce_due(app)
    except (RedisError, OperationalError, OSError, InfrastructureError):
        logger.warning("this reconciliation failed; the next one tries again", exc_info=True)
        # Else a worker that cannot reach the store could take every turn, at the others' cost.
        with suppress(RedisError):  # it is not ours, or runs out by itself
            turn.release()


if __name__ == "__main__":
    main()
