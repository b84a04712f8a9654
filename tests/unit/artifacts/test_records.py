"""Validity of sampled records by NSS's rules, consequence by consequence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nss_train.artifacts.records import Records, parse_completion, relax_numeric_bounds, schema_validator

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["a", "b", None]},
        "count": {"type": "integer", "minimum": 0.0, "maximum": 19.0},
        "size": {"type": "number", "minimum": 0.0, "maximum": 2.5},
        "name": {"type": "string", "minLength": 1, "maxLength": 5},
        "flag": {"type": ["boolean"]},
    },
    "required": ["count"],
}


def parse(text: str, schema: dict[str, Any] = SCHEMA) -> Records:
    return parse_completion(text, schema_validator(schema))


def reasons(text: str, schema: dict[str, Any] = SCHEMA) -> list[str]:
    return [invalid.reason for invalid in parse(text, schema).invalid]


def test_each_line_with_a_record_is_a_row() -> None:
    assert parse('{"count":1}\n{"count":2}\n').valid == ({"count": 1}, {"count": 2})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"count":1,}', "Invalid JSON"),
        ("{'count':1}", "Invalid JSON"),
        ('{"count":1}{"count":2}', "Invalid JSON"),
        ('{"count":NaN}', "Invalid JSON value"),
        ('{"count":1,"size":Infinity}', "Invalid JSON value"),
        ('{"count":1,"size":-Infinity}', "Invalid JSON value"),
        ('{"count":1,"size":1e400}', "Invalid JSON value"),
        ('{"count":1,"extra":{"deep":[1,NaN]}}', "Invalid JSON value"),
        ('{"count":"1"}', "type"),
        ('{"count":true}', "type"),
        ('{"count":1.5}', "type"),
        ('{"count":1,"kind":"c"}', "enum"),
        ('{"count":20}', "maximum"),
        ('{"count":-1}', "minimum"),
        ('{"count":1,"name":""}', "minLength"),
        ('{"count":1,"name":"abcdef"}', "maxLength"),
        ('{"size":1}', "required"),
    ],
)
def test_a_bad_record_gets_the_class_of_the_first_check_that_fails(text: str, reason: str) -> None:
    found = parse(text)
    assert ([invalid.reason for invalid in found.invalid], found.valid) == ([reason], ())


def test_a_number_of_too_many_digits_for_python_is_invalid_json() -> None:
    assert reasons('{"count":' + "9" * 5000 + "}") == ["Invalid JSON"]


def test_nesting_too_deep_for_python_is_invalid_json() -> None:
    assert reasons('{"count":' + "[" * 100_000 + "]" * 100_000 + "}") == ["Invalid JSON"]


def test_an_integer_too_large_for_a_float_is_rejected_with_its_field() -> None:
    (invalid,) = parse('{"count":1,"extra":' + "9" * 400 + "}").invalid
    assert (invalid.reason, "'extra' is too large to convert to float64" in invalid.message) == (
        "Float Conversion",
        True,
    )


def test_a_large_integer_that_fits_a_float_is_kept_exactly() -> None:
    assert parse('{"count":1,"extra":9007199254740993}').valid[0]["extra"] == 9007199254740993


def test_keys_in_another_order_and_extra_keys_are_accepted() -> None:
    assert parse('{"extra":1,"size":1,"count":2}').valid == ({"extra": 1, "size": 1, "count": 2},)


def test_a_whole_float_is_a_valid_integer() -> None:
    assert parse('{"count":3.0}').valid == ({"count": 3.0},)


def test_an_integer_is_a_valid_number() -> None:
    assert parse('{"count":3,"size":2}').invalid == ()


def test_of_duplicate_keys_the_last_counts() -> None:
    assert parse('{"count":99,"count":1}').valid == ({"count": 1},)


def test_null_is_valid_where_the_enum_has_it_and_nowhere_else() -> None:
    assert reasons('{"count":1,"kind":null}\n{"count":1,"size":null}') == ["type"]


def test_true_is_not_the_enum_value_one() -> None:
    schema = {"type": "object", "properties": {"x": {"enum": [1]}}, "required": []}
    assert reasons('{"x":true}', schema) == ["enum"]


@pytest.mark.parametrize(
    "text",
    ["", "no record", '{"count":1', '{"count":1} and more', "{}", '["count"]', '{"count":\n1} trailing'],
)
def test_text_without_a_candidate_is_neither_valid_nor_invalid(text: str) -> None:
    assert parse(text) == Records(valid=(), invalid=())


def test_text_before_the_brace_is_ignored() -> None:
    assert parse('assistant: {"count":1}').valid == ({"count": 1},)


def test_an_unfinished_last_line_does_not_spoil_the_lines_before() -> None:
    assert parse('{"count":1}\n{"count":2}\n{"cou').valid == ({"count": 1}, {"count": 2})


def test_a_nested_object_ends_with_the_line_not_with_its_first_brace() -> None:
    assert parse('{"count":1,"extra":{"a":1}}').valid == ({"count": 1, "extra": {"a": 1}},)


def test_a_brace_at_the_end_of_a_string_inside_a_line_does_not_end_the_record() -> None:
    assert parse('{"count":1,"name":"{x}"}').valid == ({"count": 1, "name": "{x}"},)


def test_text_that_is_not_utf8_loses_only_the_bad_characters() -> None:
    assert parse('{"count":1,"name":"a\ud800b"}').valid == ({"count": 1, "name": "ab"},)


def test_a_line_separator_inside_a_string_does_not_end_the_record() -> None:
    assert parse('{"count":1,"name":"a\u2028b"}').valid == ({"count": 1, "name": "a\u2028b"},)


def test_an_object_check_precedes_the_schema_and_lists_never_reach_it() -> None:
    assert reasons('[{"count":1}]') == []


def test_the_best_matching_schema_error_names_the_class() -> None:
    assert reasons('{"count":"x","kind":"z","name":5}')[0] in {"type", "enum"}


def test_relaxing_bounds_touches_only_columns_that_are_purely_numbers() -> None:
    relaxed = relax_numeric_bounds(SCHEMA)
    assert relaxed["properties"]["size"] == {"type": "number"}
    assert relaxed["properties"]["count"] == SCHEMA["properties"]["count"]
    assert SCHEMA["properties"]["size"]["maximum"] == 2.5


ROW = st.fixed_dictionaries(
    {"count": st.integers(0, 19)},
    optional={
        "kind": st.sampled_from(["a", "b", None]),
        "size": st.floats(0, 2.5),
        "name": st.text('abc{}\n"é,: \\', min_size=1, max_size=5),
        "flag": st.booleans(),
    },
)


@given(st.lists(ROW))
def test_rows_that_fit_the_schema_come_back_as_they_went(rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    assert parse(text) == Records(valid=tuple(rows), invalid=())


@given(st.text())
def test_no_text_makes_the_parser_fail(text: str) -> None:
    parse(text)
