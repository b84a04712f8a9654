"""Flower on this deployment's broker: ``python -m tasks.flower --port=5555``."""

from __future__ import annotations

import sys

from tasks.app import make_app
from tasks.settings import Settings

if __name__ == "__main__":
    make_app(Settings()).start(argv=["flower", *sys.argv[1:]])
