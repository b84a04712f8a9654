"""The settings of sampling, as NSS names them, and the sizes of its rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nss_train.errors import GenerationError, Problem

RECORDS_PER_SEQUENCE = 2
"""Records requested from one sequence in a round. More sequences in a batch cost little, because every step
reads the weights anyway; longer sequences cost a whole step for each token."""
MAX_SEQUENCES = 16
"""Most sequences of a round, which bounds its key-value cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """The part of ``config.generation`` that affects a preview, with NSS's defaults."""

    temperature: float = 0.9
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    max_tokens_multiplier: float = 1.2
    patience: int = 3
    invalid_fraction_threshold: float = 0.8
    enforce_numeric_range: bool = True

    @classmethod
    def of(cls, generation: Mapping[str, Any]) -> Sampling:
        """Return the settings of a resolved config's ``generation`` section; other keys are ignored."""
        known = {name: generation[name] for name in cls.__slots__ if name in generation}
        enforce = (generation.get("validation") or {}).get("enforce_numeric_range", True)
        return cls(**known | {"enforce_numeric_range": enforce})


def no_room(prompt_tokens: int, context: int) -> GenerationError:
    """Return the error for a prompt that fills the context."""
    remedy = f"the model reads at most {context} tokens; train with fewer columns or a longer context"
    problem = Problem(field="prompt tokens", value=prompt_tokens, remedy=remedy)
    return GenerationError("The prompt leaves no room for a record.", [problem])
