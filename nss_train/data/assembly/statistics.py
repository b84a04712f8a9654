"""The counts, means and extremes of prepared data."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """The statistics of a series; ``stddev`` is the sample standard deviation."""

    count: int
    min: float
    max: float
    mean: float
    stddev: float

    @classmethod
    def of(cls, series: npt.NDArray[np.int64]) -> Running:
        values = series.astype(np.float64)
        return cls(
            count=len(values),
            min=float(values.min()) if len(values) else 0.0,
            max=float(values.max()) if len(values) else 0.0,
            mean=float(values.mean()) if len(values) else 0.0,
            stddev=float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        )

    def as_json(self) -> dict[str, float]:
        return asdict(self)
