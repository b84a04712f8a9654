"""YAML as people write it: no YAML, no value, or a name that is there twice is a ``yaml.YAMLError``."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

_MERGE = "<<"
_MERGE_TAG = "tag:yaml.org,2002:merge"
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
MOST_DIGITS = 1_000
"""Most characters of a number; those of one in sixties (``1:30:00``) cost the square of their count."""
MOST_MERGED = 100_000
"""Most names that all merges of a text add up to; each level of merges of merges may multiply them."""


def parse_yaml(text: str | bytes) -> Any:
    """Return the value of a YAML text; bytes may be UTF-8, or UTF-16 with its byte-order mark."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without three surprises: equal names, values that are none, endless merges."""

    def __init__(self, text: str | bytes) -> None:
        super().__init__(text)
        self._merged = 0
        self._open: list[MappingNode] = []

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        node: MappingNode = super().compose_mapping_node(anchor)
        seen = set[tuple[str, str]]()
        for key, _ in node.value:
            if not isinstance(key, ScalarNode) or key.value == _MERGE:
                continue
            if (key.tag, key.value) in seen:
                raise ComposerError(None, None, f"{key.value!r} is there twice", key.start_mark)
            seen.add((key.tag, key.value))
        return node

    def flatten_mapping(self, node: MappingNode) -> None:
        for key, value in node.value:
            if key.tag == _MERGE_TAG:
                self._count(value.value if isinstance(value, SequenceNode) else [value])
        super().flatten_mapping(node)

    def _count(self, merged: list[Node]) -> None:
        """Count what is merged before PyYAML copies it; each part is merged into first."""
        for part in merged:
            if not isinstance(part, MappingNode):
                continue  # PyYAML refuses it
            if part in self._open:
                raise ConstructorError(None, None, "found a merge of itself", part.start_mark)
            self._open.append(part)
            self.flatten_mapping(part)
            self._open.pop()
            self._merged += len(part.value)
            if self._merged > MOST_MERGED:
                problem = f"found merges of more than {MOST_MERGED:,} names"
                raise ConstructorError(None, None, problem, part.start_mark)

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        if node.tag in _NUMBERS and len(node.value) > MOST_DIGITS:
            problem = f"found a number of more than {MOST_DIGITS:,} characters"
            raise ConstructorError(None, None, problem, node.start_mark)
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError) as error:
            # Such as a date that does not exist, or an integer of 5,000 digits.
            raise ConstructorError(None, None, "found what is no value", node.start_mark) from error
