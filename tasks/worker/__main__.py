"""Run a worker: ``python -m tasks.worker``."""

from tasks.worker.process import main

main()
