"""Settings of a config that have no effect, as warnings for the person who gave them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from nss_train.config.parameters import SafeSynthesizerParameters

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def ignored(config: SafeSynthesizerParameters, given: Mapping[str, Any] = _NOTHING) -> Iterator[str]:
    """Yield a warning for each setting without effect; ``given`` is the config before it was parsed."""
    if config.replace_pii is not None:
        # This is no error: every config that NSS writes has the section, even after NSS has replaced the PII.
        yield (
            "replace_pii has no effect because only training is done here: values are trained as they are. "
            "Replace PII before you submit, and set replace_pii: null"
        )
    # A parsed config always has a random_state: it is drawn.
    if config.dp_enabled and (given.get("data") or {}).get("random_state") is not None:
        yield "data.random_state has no effect under privacy: who is held out is secret. Leave it out"
