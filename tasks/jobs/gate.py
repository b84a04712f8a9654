"""The one gate for everything that is seen of a job; a strictly private one shows only what is listed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nss_train.config import SafeSynthesizerParameters
from nss_train.contract import Event, Stage
from nss_train.errors import NSSTrainError
from nss_train.privacy import observables
from nss_train.privacy.observables import Kind, Published
from tasks.settings import Settings

logger = logging.getLogger(__name__)


class Unlisted(NSSTrainError):
    """A strictly private job was about to show something that is not listed as public."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """The filter of what may be seen of one job. A job that is not strictly private shows everything."""

    strict: bool = False
    raises: bool = False
    """Whether an unlisted field is an error; otherwise it is dropped, and named in the log."""

    @classmethod
    def of(cls, config: SafeSynthesizerParameters, settings: Settings) -> Gate:
        """Return the gate of a job."""
        return cls(strict=config.strictly_private, raises=settings.unlisted_raises)

    def event(self, event: Event) -> Event | None:
        """Return the event as it may be published; ``None`` when nothing of it may be."""
        if not self.strict:
            return event
        found = self._passed(Kind.EVENT, event.action, event.fields)
        if found is None:
            return None
        words = observables.in_words(event.action, found.fields)
        return Event(action=event.action, message=words, fields=dict(found.fields))

    def figures(self, stage: Stage, figures: dict[str, Any]) -> dict[str, Any]:
        """Return a stage's figures as its marker and `status` show them."""
        if not self.strict:
            return figures
        found = self._passed(Kind.FIGURES, stage, figures)
        return {} if found is None else dict(found.fields)

    def seconds(self, histogram: str, seconds: float) -> float | None:
        """Return a measured time as it may be counted; ``None`` when it may not."""
        if not self.strict:
            return seconds
        found = self._passed(Kind.METRIC, histogram, {"seconds": seconds})
        return None if found is None else float(found.fields["seconds"])

    def error(self, error: NSSTrainError, stage: Stage | None, *, reason: str) -> NSSTrainError:
        """Return an error as it may be published; the operator finds the original under ``reason``."""
        return observables.published_error(error, stage, reason=reason) if self.strict else error

    def is_published(self, stage: Stage, path: str) -> bool:
        """Tell whether a stage's output lies among the results. A file with the table's rows never does."""
        if not self.strict and stage is not Stage.PREPARE_DATA:
            return True
        return observables.is_published_file(stage, path)

    def began(self, moment: datetime) -> datetime:
        """Return when something began, as it may be published."""
        return observables.minute_before(moment) if self.strict else moment

    def ended(self, moment: datetime) -> datetime:
        """Return when something ended, as it may be published."""
        return observables.minute_after(moment) if self.strict else moment

    def _passed(self, kind: Kind, name: str, fields: dict[str, Any]) -> Published | None:
        found = observables.published(kind, name, fields)
        unlisted = (name,) if found is None else found.unlisted
        if unlisted:
            what = f"{kind} {name}: {', '.join(unlisted)} is not listed as public"
            if self.raises:
                raise Unlisted(f"{what}; list it in nss_train/privacy/observables.py, or leave it out.")
            logger.warning("%s, and is left out", what, extra={"action": "privacy.unlisted"})
        return found


OPEN = Gate()
"""Gate of a job that is not strictly private."""
