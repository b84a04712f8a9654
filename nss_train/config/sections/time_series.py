"""The ``time_series`` section."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from nss_train.config.bounds import Integer64, Name, Within, Word
from nss_train.config.sections.section import Section

_INTERVAL = Within(1, 10**10, "three centuries lie between two of them")


class TimeSeriesParameters(Section):
    """Whether the table is a time series, and the format of its timestamps."""

    is_timeseries: bool = False
    timestamp_column: Name | None = None
    timestamp_interval_seconds: Annotated[int, Field(gt=0), _INTERVAL] | None = None
    timestamp_format: Word | None = None
    start_timestamp: Word | Integer64 | None = None
    stop_timestamp: Word | Integer64 | None = None

    @field_validator("timestamp_format")
    @classmethod
    def _is_a_format(cls, given: str | None) -> str | None:
        if given is not None and given != "elapsed_seconds":
            datetime.now(UTC).strftime(given)
        return given

    @model_validator(mode="after")
    def _timestamps_belong_to_series(self) -> TimeSeriesParameters:
        given = self.timestamp_column is not None or self.timestamp_interval_seconds is not None
        if self.is_timeseries and not given:
            raise ValueError(
                "At least one of timestamp_column or timestamp_interval_seconds must be provided"
            )
        if given and not self.is_timeseries:
            raise ValueError(
                "timestamp_column and timestamp_interval_seconds can only be set when is_timeseries is True."
            )
        return self
