"""What is wrong with a config is said field by field, with the nearest name that exists."""

from __future__ import annotations

import pytest
import yaml

from nss_train.config import SafeSynthesizerParameters, parse_config
from nss_train.config.problems import unknown_keys, without_unknown_keys
from nss_train.config.sections.section import SUBMITTED
from nss_train.config.sections.training import TrainingHyperparams
from nss_train.config.yaml_text import parse_yaml
from nss_train.errors import MOST_PROBLEMS, ParameterError


def test_an_unknown_name_says_which_was_meant_with_its_section() -> None:
    given = {"training": {"lerning_rate": 1, "batch_size": 2}, "dat": {}}
    found = {problem.field: problem.remedy for problem in unknown_keys(given, SafeSynthesizerParameters)}
    assert set(found) == {"training.lerning_rate", "dat"}
    assert found["training.lerning_rate"].endswith("did you mean training.learning_rate?")
    assert found["dat"].endswith("did you mean data?")


def test_a_name_like_none_lists_those_of_its_section() -> None:
    (problem,) = unknown_keys({"qqqqqq": 1}, SafeSynthesizerParameters)
    assert "known are data, evaluation, training" in problem.remedy


def test_a_mapping_of_sections_is_looked_at_name_by_name() -> None:
    columns = {"size": {"minimun": 1, "type": "number"}, "sex": {"type": "text"}, "kind": {"type": "txt"}}
    guarantee = {"guarantee": {"columns": columns}}
    (problem,) = unknown_keys(guarantee, SafeSynthesizerParameters)
    assert problem.field == "guarantee.columns.size.minimun"
    assert problem.remedy.endswith("did you mean guarantee.columns.size.minimum?")
    left = without_unknown_keys(guarantee, SafeSynthesizerParameters)
    assert left["guarantee"]["columns"]["size"] == {"type": "number"}
    with pytest.raises(ParameterError) as caught:
        parse_config({"guarantee": {"columns": {name: columns[name] for name in ("sex", "kind")}}})
    assert {problem.field: problem.value for problem in caught.value.problems} == {
        "guarantee.columns.sex.type": "text",
        "guarantee.columns.kind.type": "txt",
    }


def test_of_thousands_of_unknown_names_a_bounded_number_is_listed_and_the_rest_counted() -> None:
    given = {f"x{number}": 1 for number in range(5_000)}
    found = list(unknown_keys(given, SafeSynthesizerParameters))
    assert len(found) == MOST_PROBLEMS + 1
    assert f"{5_000 - MOST_PROBLEMS:,}" in str(found[-1])


def test_known_names_are_kept_where_unknown_ones_are_ignored() -> None:
    given = {"training": {"lerning_rate": 1, "batch_size": 2}, "dat": {}, "replace_pii": {"any": {"x": 1}}}
    assert without_unknown_keys(given, SafeSynthesizerParameters) == {
        "training": {"batch_size": 2},
        "replace_pii": {"any": {"x": 1}},
    }


def test_a_yes_where_a_number_belongs_is_refused_in_submissions_and_read_from_stored_jobs() -> None:
    with pytest.raises(ValueError, match="true is no number"):
        TrainingHyperparams.model_validate({"batch_size": True}, context=SUBMITTED)
    assert TrainingHyperparams.model_validate({"batch_size": True}).batch_size == 1


LEVELS = "a0: &a0 {k: v}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 9)
)
REPEATED = (
    f"a: &a {{{', '.join(f'k{n}: 0' for n in range(1_000))}}}\nb: {{<<: [{', '.join(['*a'] * 10_000)}]}}\n"
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", "'a' is there twice"),
        ("s:\n  a: 1\n  a: 1\n", "'a' is there twice"),
        ("a: 2024-02-31\n", "found what is no value"),
        ("a: " + "1" * 5_000 + "\n", "found a number of more than 1,000 characters"),
        ("a: " + "1:" * 300_000 + "1\n", "found a number of more than 1,000 characters"),
        ("a: " + "1:" * 300_000 + "1.5\n", "found a number of more than 1,000 characters"),
        ("a: !!int x\n", "found what is no value"),
        ("a: [1\n", "expected ',' or ']'"),
        ("a: &a\n  b: &b {<<: *a}\n  <<: *b\n", "found a merge of itself"),
        (LEVELS, "found merges of more than 100,000 names"),
        (REPEATED, "found merges of more than 100,000 names"),
        ("a: {<<: 5}\n", "expected a mapping or list of mappings"),
    ],
)
def test_yaml_that_misleads_is_no_yaml(text: str, says: str) -> None:
    with pytest.raises(yaml.YAMLError, match=says):
        parse_yaml(text)


def test_merged_sections_and_names_of_other_types_may_repeat() -> None:
    assert parse_yaml("a: &x {n: 1}\nb: &y {m: 2}\nc:\n  <<: *x\n  <<: *y\n  n: 5\n")["c"] == {"n": 5, "m": 2}
    assert parse_yaml("1: a\n'1': b\n") == {1: "a", "1": "b"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_bytes_are_text_in_the_encodings_that_yaml_knows(encoding: str) -> None:
    assert parse_yaml("größe: ü\n".encode(encoding)) == {"größe": "ü"}
