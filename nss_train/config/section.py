"""What all sections of the config have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen part of the config. Unknown keys are dealt with once, for the whole tree."""

    model_config = ConfigDict(frozen=True, extra="ignore", validate_default=True, protected_namespaces=())
