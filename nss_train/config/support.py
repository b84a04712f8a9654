"""What this version cannot run yet: better one clear refusal than a wrong result."""

from __future__ import annotations

from nss_train.config.parameters import SafeSynthesizerParameters
from nss_train.errors import Problem


def unsupported_training(config: SafeSynthesizerParameters) -> tuple[Problem, ...]:
    """Problems for training that this version cannot do. Preparing examples works all the same."""
    problems = []
    if config.dp_enabled:
        remedy = "training with differential privacy is not supported in this version; set it to false"
        problems.append(Problem(field="privacy.dp_enabled", value=True, remedy=remedy))
    return tuple(problems)
