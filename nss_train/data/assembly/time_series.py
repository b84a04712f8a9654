"""Time series: their order, the choice of a route, and the columns that are added for training."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from nss_train.config import SafeSynthesizerParameters
from nss_train.config.sections.time_series import TimeSeriesParameters
from nss_train.data import columns
from nss_train.data.assembly.timestamps import ELAPSED, read_times
from nss_train.errors import DataError, ParameterError, Problem

logger = logging.getLogger(__name__)

PSEUDO_GROUP = "__nss_sequence_id"
"""Name of the group column of an ungrouped series; never part of prompt or records."""
INTERVAL_TOLERANCE_S = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Flexible:
    """The numbering of a series of unequal groups; part of the metadata."""

    index_column: str
    marker_column: str
    max_records: int
    source_timestamp_column: str | None
    source_timestamp_format: str | None
    source_interval_seconds: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SeriesMetadata:
    """The facts about a series that generation needs."""

    source_columns: tuple[str, ...]
    flexible: Flexible | None

    def as_json(self) -> dict[str, Any]:
        return {
            "source_columns": list(self.source_columns),
            "flexible": None if self.flexible is None else asdict(self.flexible),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """A table ready for windows, the config that describes it, and its metadata."""

    frame: pd.DataFrame
    config: SafeSynthesizerParameters
    metadata: SeriesMetadata


@dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    """The table sorted by group and time, with times as datetimes or seconds."""

    frame: pd.DataFrame
    group: str
    timestamp: str
    format: str
    times: pd.Series


@dataclass(frozen=True, kw_only=True, slots=True)
class _GroupShape:
    name: Hashable
    records: int
    start: Any
    stop: Any
    interval_s: int | None


def process(frame: pd.DataFrame, config: SafeSynthesizerParameters) -> Series:
    """Prepare a time series; raise :class:`DataError` or :class:`ParameterError` if it cannot be one.

    Groups of equal shape keep their timestamps (NSS's deterministic route); otherwise each record
    gets a number within its group, and the last record of a group a mark (the flexible route).
    """
    _check_frame(frame)
    given = _with_timestamp(config)
    source = _source(frame, given)
    shapes = [
        _shape(name, times) for name, times in source.times.groupby(source.frame[source.group], sort=False)
    ]
    _check_interval(shapes, given.time_series, source)
    reasons = _unequal(shapes, given.time_series.timestamp_interval_seconds)
    names = tuple(str(column) for column in frame.columns)
    if reasons:
        logger.info("flexible time series because of different %s", ", ".join(reasons))
        return _flexible(frame, given, source, shapes, names)
    logger.info("deterministic time series because all groups have one shape")
    return _deterministic(given, source, shapes, names)


def _check_frame(frame: pd.DataFrame) -> None:
    if frame.columns.has_duplicates:
        repeated = frame.columns[frame.columns.duplicated()].unique().tolist()
        problem = Problem(
            field="columns", value=repeated, remedy="these names appear more than once; rename them"
        )
        raise DataError("Input dataset contains duplicate column names.", [problem])
    if frame.empty:
        raise DataError("Time-series data must contain at least one record.")


def _with_timestamp(config: SafeSynthesizerParameters) -> SafeSynthesizerParameters:
    """Use the order column as the timestamp if there is none, otherwise order by the timestamp."""
    order, series = config.data.order_training_examples_by, config.time_series
    if series.timestamp_column is None and order is not None:
        series = series.model_copy(update={"timestamp_column": order})
    elif series.timestamp_column is not None:
        order = series.timestamp_column
    data = config.data.model_copy(update={"order_training_examples_by": order})
    return config.model_copy(update={"data": data, "time_series": series})


def _source(frame: pd.DataFrame, config: SafeSynthesizerParameters) -> _Source:
    working, group = _with_group(frame, config.data.group_training_examples_by)
    timestamp, written = config.time_series.timestamp_column, ELAPSED
    if timestamp is None:
        working, timestamp = _with_elapsed(
            working, group, int(config.time_series.timestamp_interval_seconds or 1)
        )
        times = working[timestamp]
    else:
        columns.check_present(working, timestamp, role="Timestamp")
        columns.check_no_nulls(working, timestamp, role="Timestamp")
        times, written = read_times(working[timestamp], config.time_series)
    _check_identity(working, group, timestamp)
    order = np.lexsort(
        (np.arange(len(working)), times.to_numpy(), pd.factorize(working[group], sort=True)[0])
    )
    return _Source(
        frame=working.iloc[order].reset_index(drop=True),
        group=group,
        timestamp=timestamp,
        format=written,
        times=times.iloc[order].reset_index(drop=True),
    )


def _with_group(frame: pd.DataFrame, group: str | None) -> tuple[pd.DataFrame, str]:
    if group is not None:
        columns.check_groupby_column(frame, group)
        return frame, group
    if PSEUDO_GROUP in frame.columns:
        problem = Problem(field="columns", value=PSEUDO_GROUP, remedy="rename the column")
        raise DataError(f"Column '{PSEUDO_GROUP}' is reserved for internal use.", [problem])
    return frame.assign(**{PSEUDO_GROUP: 0}), PSEUDO_GROUP


def _with_elapsed(frame: pd.DataFrame, group: str, interval_s: int) -> tuple[pd.DataFrame, str]:
    name = ELAPSED if ELAPSED not in frame.columns else unused(f"_{ELAPSED}", frame.columns)
    elapsed = frame.groupby(group).cumcount() * interval_s
    working = frame.copy()
    working.insert(0, name, elapsed)
    return working, name


def _check_identity(frame: pd.DataFrame, group: str, timestamp: str) -> None:
    if group == timestamp:
        problem = Problem(field="data.group_training_examples_by", value=group, remedy="use another column")
        raise ParameterError("The group and timestamp columns must be different columns.", [problem])
    if set(frame.columns) <= {group, timestamp}:
        raise DataError(
            "Time-series data must contain a value column besides the group and timestamp columns."
        )


def _shape(name: Hashable, times: pd.Series) -> _GroupShape:
    return _GroupShape(
        name=name, records=len(times), start=times.iloc[0], stop=times.iloc[-1], interval_s=_interval(times)
    )


def _interval(times: pd.Series) -> int | None:
    """Return the common whole number of seconds between neighbours, or ``None``."""
    steps = times.diff().dropna()
    if steps.empty:
        return None
    values = steps.to_numpy()
    seconds = (
        values.astype("timedelta64[ns]").astype(float) / 1e9
        if values.dtype.kind == "m"
        else values.astype(float)
    )
    whole = np.round(seconds)
    regular = (whole > 0).all() and (abs(seconds - whole) <= INTERVAL_TOLERANCE_S).all()
    return int(whole[0]) if regular and (whole == whole[0]).all() else None


def _check_interval(shapes: list[_GroupShape], config: TimeSeriesParameters, source: _Source) -> None:
    wanted = config.timestamp_interval_seconds
    if wanted is None or config.timestamp_column is None:
        return
    wrong = [shape for shape in shapes if shape.records > 1 and shape.interval_s != wanted]
    if wrong:
        message = (
            f"timestamp_interval_seconds={wanted} does not match the spacing of timestamp column "
            f"'{source.timestamp}' in group '{wrong[0].name}'."
        )
        remedy = "unset time_series.timestamp_interval_seconds, or correct these timestamps"
        raise DataError(
            message, [Problem(field="group", value=str(s.name), remedy=remedy) for s in wrong[:10]]
        )


def _unequal(shapes: list[_GroupShape], interval_s: int | None) -> list[str]:
    """Return the ways in which the groups differ; none for the deterministic route."""
    intervals = {shape.interval_s for shape in shapes if shape.records > 1}
    different = {
        "lengths": len({shape.records for shape in shapes}) > 1,
        "starts": len({shape.start for shape in shapes}) > 1,
        "stops": len({shape.stop for shape in shapes}) > 1,
        # A declared interval has been checked already.
        "intervals": interval_s is None and (len(intervals) > 1 or None in intervals),
    }
    return [name for name, found in different.items() if found]


def _deterministic(
    config: SafeSynthesizerParameters, source: _Source, shapes: list[_GroupShape], names: tuple[str, ...]
) -> Series:
    frame = source.frame.copy()
    if source.format != ELAPSED:
        frame[source.timestamp] = source.times.dt.strftime(source.format)
        _warn_of_order(frame[source.timestamp], source)
    rest = [column for column in frame.columns if column not in (source.group, source.timestamp)]
    interval_s = config.time_series.timestamp_interval_seconds or next((s.interval_s for s in shapes), None)
    update = {
        "timestamp_column": source.timestamp,
        "timestamp_format": source.format,
        "timestamp_interval_seconds": interval_s,
        "start_timestamp": str(shapes[0].start),
        "stop_timestamp": str(shapes[0].stop),
    }
    return Series(
        frame=frame.loc[:, [source.group, source.timestamp, *rest]],
        config=_resolved(config, source.group, source.timestamp, update),
        metadata=SeriesMetadata(source_columns=names, flexible=None),
    )


def _warn_of_order(written: pd.Series, source: _Source) -> None:
    """Warn if text order differs from time order: NSS orders windows by the timestamps as text."""
    by_group = written.groupby(source.frame[source.group], sort=False)
    if not all(times.is_monotonic_increasing for _, times in by_group):
        logger.warning(
            "timestamps written as %s are not in order as text, and are trained in the order of the text;"
            " use a format such as %%Y-%%m-%%d",
            source.format,
            extra={"action": "data.text_order"},
        )


def _flexible(
    frame: pd.DataFrame,
    config: SafeSynthesizerParameters,
    source: _Source,
    shapes: list[_GroupShape],
    names: tuple[str, ...],
) -> Series:
    taken = [*names, source.group]
    index = unused("_time_idx", taken)
    marker = unused("_is_last_row", [*taken, index])
    series = config.time_series
    original = series.timestamp_column
    longest = max(shape.records for shape in shapes)
    flexible = Flexible(
        index_column=index,
        marker_column=marker,
        max_records=longest,
        source_timestamp_column=original,
        source_timestamp_format=source.format if original is not None else None,
        source_interval_seconds=series.timestamp_interval_seconds if original is not None else None,
    )
    by_group = source.frame.groupby(source.group, sort=False)
    numbered = source.frame.copy()
    numbered[index] = by_group.cumcount()
    numbered[marker] = by_group.cumcount(ascending=False) == 0
    payload = [column for column in frame.columns if column != source.group]
    update = {
        "timestamp_column": index,
        "timestamp_format": ELAPSED,
        "timestamp_interval_seconds": 1,
        "start_timestamp": 0,
        "stop_timestamp": longest - 1,
    }
    return Series(
        frame=numbered.loc[:, [source.group, index, *payload, marker]],
        config=_resolved(config, source.group, index, update),
        metadata=SeriesMetadata(source_columns=names, flexible=flexible),
    )


def _resolved(
    config: SafeSynthesizerParameters, group: str, order: str, update: Mapping[str, object]
) -> SafeSynthesizerParameters:
    data = {"group_training_examples_by": group, "order_training_examples_by": order}
    return config.model_copy(
        update={
            "data": config.data.model_copy(update=data),
            "time_series": config.time_series.model_copy(update=dict(update)),
        }
    )


def unused(name: str, taken: Any) -> str:
    """Return the name, or the name with the first number that makes it new."""
    names = [name, *(f"{name}_{number}" for number in range(1, len(taken) + 2))]
    return next(candidate for candidate in names if candidate not in set(taken))
