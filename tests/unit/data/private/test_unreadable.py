"""A record with a text that the base model cannot read has no effect; the others keep their ids."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from nss_train.data.tokenization.records import BEYOND, Records, tokenize_each
from nss_train.model.tokenizer import ModelTokenizer
from tests.unit.privacy.tables import private_table

CHARACTERS = [*map(chr, range(32, 127)), "\n", "▁"]
"""No letter beyond ASCII, and no token that stands for one."""
LETTERS = dict(zip(CHARACTERS, range(len(CHARACTERS)), strict=True))
VOCABULARY = len(LETTERS)
UNKNOWN = {
    "no token for the unknown": models.Unigram([(letter, -1.0) for letter in LETTERS]),
    "the token for the unknown is missing": models.BPE(LETTERS, [], unk_token="<unk>"),
}
OTHERS = ["Ann", "Bo", "Cy"]


def tokenized(backend: Tokenizer, names: list[str]) -> Records:
    table = private_table({"name": names, "day": list(range(len(names)))})
    tokenizer = ModelTokenizer(backend=backend, bos_token=None, eos_token=None)
    return tokenize_each(table.columns, tokenizer, vocabulary=VOCABULARY)


def ids(records: Records) -> list[list[int]]:
    return [records.record(row).tolist() for row in range(len(records))]


@pytest.mark.parametrize("kind", UNKNOWN)
def test_a_character_that_no_token_stands_for_ends_no_job(kind: str) -> None:
    backend = Tokenizer(UNKNOWN[kind])
    found, without = tokenized(backend, ["Zoë", *OTHERS]), tokenized(backend, ["Zoe", *OTHERS])
    assert found.lengths[0] == BEYOND
    assert found.lengths[1:].tolist() == without.lengths[1:].tolist()
    assert ids(found)[1:] == ids(without)[1:]


def test_a_token_beyond_the_model_s_vocabulary_is_in_no_example() -> None:
    backend = Tokenizer(models.BPE(LETTERS, []))
    backend.add_tokens(["zebra"])  # gets the first id that the model has no embedding of
    found = tokenized(backend, ["zebra", "zeb", *OTHERS])
    assert found.lengths.tolist()[0] == BEYOND
    assert max(found.lengths.tolist()[1:]) < BEYOND


def test_a_token_that_spans_a_cut_moves_no_id_of_another_record() -> None:
    backend = Tokenizer(models.BPE(LETTERS, []))
    # Texts begin with a token of their own, so that each is read behind the column's name.
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.Metaspace(prepend_scheme="first")]
    )
    backend.add_tokens([AddedToken(',"note":"zebra', normalized=False)])
    others = [ids(_with_notes(backend, note))[1:] for note in ("zebra", "zebro")]
    assert others[0] == others[1]


def _with_notes(backend: Tokenizer, note: str) -> Records:
    table = private_table({"name": ["x", *OTHERS], "note": [note, *OTHERS]})
    return tokenize_each(
        table.columns, ModelTokenizer(backend=backend, bos_token=None, eos_token=None), vocabulary=10**6
    )
