"""A model's metadata are read from its folder, or the error says what the folder lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from nss_train.errors import ParameterError
from nss_train.model.metadata import family_of


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such folder"),
        ("", "its config.json cannot be read"),
        ("{", "its config.json cannot be read"),
        ("[1]", "its config.json holds no object"),
    ],
)
def test_a_folder_that_is_no_model_is_refused(content: str | None, said: str, tmp_path: Path) -> None:
    model = tmp_path / "some-model"
    if content is not None:
        model.mkdir()
        (model / "config.json").write_text(content)
    with pytest.raises(ParameterError, match=said):
        family_of("some-model", model)
