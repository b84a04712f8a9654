"""Texts are refused if no document can hold them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nss_train.contract import Frozen
from nss_train.errors import ParameterError
from tasks.jobs.texts import check_texts, problems_of_texts


class Note(Frozen):
    """A document with one text."""

    text: str


@given(st.text(st.characters()) | st.text(st.characters(categories=["Cs", "Ll"])))
def test_just_the_texts_that_a_document_can_hold_are_allowed(text: str) -> None:
    if list(problems_of_texts(text=text)):
        with pytest.raises(ValueError, match="surrogates"):
            Note(text=text).model_dump_json()
    else:
        Note(text=text).model_dump_json()


def test_every_text_that_is_none_is_named_at_once() -> None:
    with pytest.raises(ParameterError) as caught:
        check_texts(reason="a\udcff", by="\ud800", note="ä", key=None)
    assert [problem.field for problem in caught.value.problems] == ["reason", "by"]
    assert all("UTF-8" in problem.remedy for problem in caught.value.problems)
