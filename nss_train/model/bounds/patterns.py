"""Regular expressions of the known families' tokenizers.

A tokenizer has its own patterns and runs them on every cell; one that backtracks may take years. This cannot
be decided for an arbitrary pattern, so only patterns made of known parts are allowed, each of which reads a
text once.
"""

from __future__ import annotations

import re

MOST_CHARS = 2_000
_LOWER, _UPPER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_EACH = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_SPLITTING = (
    # English endings: GPT-2, cl100k
    "'s|'t|'re|'ve|'m|'ll|'d",
    "'(?:[sdmt]|ll|ve|re)",
    "'(?i:[sdmt]|ll|ve|re)",
    _SHORT,
    _EACH,
    # words: GPT-2, cl100k (Llama 3, Qwen 2, SmolLM3), Qwen 3.5, and o200k's by case (Tekken, Phi-4-mini)
    r" ?\p{L}+",
    r"\p{L}+",
    _BEFORE + r"\p{L}+",
    _BEFORE + r"[\p{L}\p{M}]+",
    *(
        f"{_BEFORE}{_UPPER}*{_LOWER}+{ending}|{_BEFORE}{_UPPER}+{_LOWER}*{ending}"
        for ending in ("", f"{_SHORT}?", f"{_EACH}?")
    ),
    # numbers
    r"\p{N}",
    r"\p{N}+",
    r" ?\p{N}+",
    r"\p{N}{1,2}",
    r"\p{N}{1,3}",
    r"\d",
    r"\d{1,3}",
    r"[0-9]",
    # the rest of a line
    r" ?[^\s\p{L}\p{N}]+",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n/]*",
    # spaces; alone, those before a line break would be read again from each space on
    r"\s*[\r\n]+|\s+(?!\S)|\s+",
    r"\s*[\r\n]|\s+(?!\S)|\s+",
    r"\s+(?!\S)|\s+",
    r"\s+",
    r"[\r\n]",
)
REPLACING = frozenset((r" {2,}", r"\s+", r"\n", r"[\n\r\t]", r"\s{2,}|[\n\r\t]", r"▁+"))
"""Patterns of normalizers; each matches at least one character."""
_PART = "|".join(re.escape(part) for part in sorted(_SPLITTING, key=len, reverse=True))
_KNOWN = re.compile(rf"(?:{_PART})(?:\|(?:{_PART}))*")


def is_known(pattern: str) -> bool:
    """Tell whether a splitting pattern is made of known parts."""
    return len(pattern) <= MOST_CHARS and _KNOWN.fullmatch(pattern) is not None
