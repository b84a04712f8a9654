"""The entry point ``nss-train``: it answers Ctrl-C while it is still importing the command line."""

from __future__ import annotations

import sys

_EXIT_CODE = 130
"""Exit code of :mod:`tasks.cli.interrupt`, which is not imported yet."""


def main() -> None:
    """Import the command line, which takes half a second, and run it."""
    try:
        from tasks.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(_EXIT_CODE)
