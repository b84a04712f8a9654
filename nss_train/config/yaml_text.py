"""YAML as people write it: no YAML, no value, or a name that is there twice is a ``yaml.YAMLError``."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode

_MERGE = "<<"


def parse_yaml(text: str | bytes) -> Any:
    """Return the value of a YAML text; bytes may be UTF-8, or UTF-16 with its byte-order mark."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, without its two surprises: the last of two equal names wins, odd values crash."""

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

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError) as error:
            # Such as a date that does not exist, or an integer of 5,000 digits.
            raise ConstructorError(None, None, "found what is no value", node.start_mark) from error
