"""The ``time_series`` section."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from nss_train.config.section import Section


class TimeSeriesParameters(Section):
    """Whether the table is a time series, and how its time is written."""

    is_timeseries: bool = False
    timestamp_column: str | None = None
    timestamp_interval_seconds: Annotated[int, Field(gt=0)] | None = None
    timestamp_format: str | None = None
    start_timestamp: str | int | None = None
    stop_timestamp: str | int | None = None

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
