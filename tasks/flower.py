"""Flower on this deployment's broker: ``python -m tasks.flower --port=5555``."""

from __future__ import annotations

import sys

from nss_train.errors import NSSTrainError
from nss_train.extras import FLOWER, require_extras
from nss_train.process import keep_files_to_itself
from tasks.app import App, make_app
from tasks.settings import Settings

UNACKED = {
    "unacked_key": "flower-unacked",
    "unacked_index_key": "flower-unacked-index",
    "unacked_mutex_key": "flower-unacked-mutex",
}
"""Flower's own lists: from the shared ones, kombu would restore workers' overdue messages here, too."""


def flower_app(settings: Settings) -> App:
    """Return the application of a dashboard, which leaves all messages to the workers."""
    app = make_app(settings)
    app.conf.broker_transport_options |= UNACKED
    app.conf.include = ()  # the stages' code, which needs what only workers have
    return app


def main() -> int:
    """Serve until SIGTERM; without Flower, print one line and return the exit code of a bad request."""
    try:
        require_extras(FLOWER)
    except NSSTrainError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    keep_files_to_itself()
    flower_app(Settings()).start(argv=["flower", *sys.argv[1:]])
    return 0


if __name__ == "__main__":
    sys.exit(main())
