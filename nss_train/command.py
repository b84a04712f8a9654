"""The common parts of the library's programs: how they parse arguments, and how they exit."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from nss_train import errors
from nss_train.errors import NSSTrainError


class Parser(argparse.ArgumentParser):
    """A parser that reports a wrong call in one line, with the nearest existing option."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Return the arguments; exit with code 2 on the first unknown one."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(f"no such argument: {unknown[0]}{self._nearest(unknown[0])}")
        return found

    def error(self, message: str) -> NoReturn:
        """Print the message in one line, and exit with code 2."""
        line = f"{self.prog}: {message}; see {self.prog} --help"
        # The input may contain control characters of a terminal.
        self.exit(2, "".join(c if c.isprintable() else " " for c in line) + "\n")

    def _nearest(self, name: str) -> str:
        close = get_close_matches(name.partition("=")[0], list(self.known_options()), n=1)
        return f"; did you mean {close[0]}?" if close else ""

    def known_options(self) -> Iterator[str]:
        """Yield the parser's own options and those of its subcommands."""
        for action in self._actions:
            yield from action.option_strings
            for below in (action.choices or {}).values() if isinstance(action.choices, dict) else ():
                yield from below.known_options()


def run(find: Callable[[], dict[str, Any]], *, show: Callable[[dict[str, Any]], None], as_json: bool) -> int:
    """Print what ``find`` returns, as one JSON object or for people, and return the exit code."""
    try:
        found = find()
    except NSSTrainError as error:
        if as_json:
            sys.stdout.write(json.dumps({"error": errors.to_json(error)}) + "\n")
        sys.stderr.write(f"{error}\n")  # for the log of the JSON's reader
        return error.exit_code
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        show(found)
    return 0
