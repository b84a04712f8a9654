"""Questions about a job that teaches nothing, or takes hours: each is asked once, while the job runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from rich.prompt import Confirm

from nss_train.text.durations import duration
from tasks.cli import display
from tasks.status import JobStatus


class Declined(Exception):
    """The person does not want the job."""


class Asking:
    """The question whether to continue a job, once its cost is known; without a terminal only a warning."""

    def __init__(self, *, yes: bool, as_json: bool) -> None:
        self._yes = yes
        self._at_terminal = not as_json and sys.stdin.isatty() and display.console.is_terminal
        self._told: set[str] = set()

    def doubts(self, found: JobStatus) -> Iterator[str]:
        """Yield what a person should think about and has not seen yet."""
        if found.cost is None or found.ended:
            return
        doubts = {"short": next(found.cost.warnings(), None), "long": None}
        if found.cost.is_long and found.cost.seconds is not None:
            doubts["long"] = f"this takes about {duration(found.cost.seconds)} on {found.cost.device}"
        for name, doubt in doubts.items():
            if doubt is not None and name not in self._told:
                self._told.add(name)
                # What is too short is among the warnings that are shown anyway.
                if name == "long" or self.asks:
                    yield doubt

    @property
    def asks(self) -> bool:
        """Tell whether there is a question, and a person at a terminal to answer it."""
        return self._at_terminal and not self._yes

    def settle(self, doubts: Sequence[str]) -> None:
        """Ask, or warn; raise :class:`Declined` for a no, and where the terminal is closed."""
        if not self.asks:
            for doubt in doubts:
                display.stderr.print(display.plain(f"warning: {doubt}"), soft_wrap=True)
            return
        question = f"{'; '.join(doubts)}.\nGo on? The job does, until you say no"
        try:
            goes_on = Confirm.ask(display.plain(question), console=display.console)
        except EOFError:
            goes_on = False
        if not goes_on:
            raise Declined
