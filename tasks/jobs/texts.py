"""Texts that people give with a job and that its documents keep: each can be written as UTF-8.

A byte of the command line or the environment that is not UTF-8 arrives as half a character, a lone surrogate.
"""

from __future__ import annotations

from collections.abc import Iterator

from nss_train.documents import is_unicode
from nss_train.errors import ParameterError, Problem

_REMEDY = "it has half a character, which no document can keep; write it in UTF-8"


def problems_of_texts(**given: str | None) -> Iterator[Problem]:
    """Yield a problem for each text that cannot be written; it is named by its keyword."""
    for field, text in given.items():
        if isinstance(text, str) and not is_unicode(text):
            yield Problem(field=field, value=text, remedy=_REMEDY)


def check_texts(**given: str | None) -> None:
    """Raise one :class:`ParameterError` with every text that cannot be written."""
    problems = list(problems_of_texts(**given))
    if problems:
        raise ParameterError("Not a text in UTF-8.", problems)
