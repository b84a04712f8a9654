"""The files of a base model are those of a list: nothing else is read or copied."""

from __future__ import annotations

import pytest

from nss_train.model_files import DOCUMENT_BYTES, is_read

CODE = "modeling_new.py"


@pytest.mark.parametrize("name", [*DOCUMENT_BYTES, "model.safetensors", "model-00001-of-00002.safetensors"])
def test_documents_and_weights_are_read(name: str) -> None:
    assert is_read(name)


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin",
        "model.SAFETENSORS",
        "README.md",
        ".config.json",
        ".x.safetensors",
        "config.json.py~",
    ],
)
def test_other_files_are_not_even_of_a_trusted_model(name: str) -> None:
    assert not is_read(name, trusted=True)


@pytest.mark.parametrize("name", ["onnx/model.safetensors", "original/config.json", f"sub/{CODE}"])
def test_a_file_of_a_folder_below_is_not_part_of_the_model(name: str) -> None:
    assert not is_read(name, trusted=True)


def test_code_is_read_of_trusted_models_alone() -> None:
    assert is_read(CODE, trusted=True)
    assert not is_read(CODE)
