"""The whole config: NSS's parameter tree with its rules across sections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import ValidationInfo, model_validator

from nss_train.config.passthrough import (
    EvaluationParameters,
    GenerateParameters,
    PreflightParameters,
    ReplacePII,
)
from nss_train.config.sections.data import DataParameters
from nss_train.config.sections.guarantee import GuaranteeParameters
from nss_train.config.sections.privacy import DifferentialPrivacyParameters
from nss_train.config.sections.reading import ReadingParameters
from nss_train.config.sections.section import Section, is_submitted
from nss_train.config.sections.time_series import TimeSeriesParameters
from nss_train.config.sections.training import TrainingHyperparams
from nss_train.config.support import out_of_range, unsupported_training
from nss_train.errors import ParameterError, Problem

DEFAULT_MAX_SEQUENCES = 10


class SafeSynthesizerParameters(Section):
    """An NSS config. Build it with :func:`nss_train.config.parse_config`, which reports every problem."""

    data: DataParameters = DataParameters()
    evaluation: EvaluationParameters = EvaluationParameters()
    training: TrainingHyperparams = TrainingHyperparams()
    generation: GenerateParameters = GenerateParameters()
    privacy: DifferentialPrivacyParameters | None = DifferentialPrivacyParameters()
    time_series: TimeSeriesParameters = TimeSeriesParameters()
    replace_pii: ReplacePII = None
    preflight: PreflightParameters = PreflightParameters()
    guarantee: GuaranteeParameters = GuaranteeParameters()
    reading: ReadingParameters = ReadingParameters()
    emit_telemetry: bool = False
    unknown_fields: Literal["reject", "ignore"] = "reject"

    def as_nss(self) -> dict[str, Any]:
        """Return the config as NSS reads it, without the sections that NSS does not know."""
        return self.model_dump(mode="json", exclude={"guarantee", "reading"})

    @property
    def dp_enabled(self) -> bool:
        return self.privacy is not None and self.privacy.dp_enabled

    @property
    def unit(self) -> str:
        """Return what a private job protects: ``record`` or ``value of <column>``.

        The column is always named: jobs on one dataset add up only if it is the same.
        """
        column = self.guarantee.unit_column or self.data.group_training_examples_by
        return "record" if column is None else f"value of {column}"

    @property
    def strictly_private(self) -> bool:
        """Return whether nothing that the guarantee does not cover may leave the job."""
        return self.dp_enabled and self.guarantee.strict

    @model_validator(mode="before")
    @classmethod
    def _draw_random_state(cls, given: object) -> Any:
        # A default section object would give every config the same holdout split.
        return {"data": {}} | given if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _sections_agree(self, info: ValidationInfo) -> SafeSynthesizerParameters:
        if self.dp_enabled:
            self._check_privacy(submitted=is_submitted(info))
        if self.time_series.is_timeseries:
            self._check_time_series()
        elif self.evaluation.enabled and self.evaluation.time_series.enabled:
            raise ValueError("evaluation.time_series.enabled needs time_series.is_timeseries")
        return self._with_max_sequences(self._max_sequences())

    def _check_privacy(self, *, submitted: bool) -> None:
        """Check NSS's own rules and our ranges; if one is broken, report all other reasons too."""
        problems = list(self._against_privacy())
        if problems or (submitted and any(out_of_range(self))):
            raise ParameterError("The config is not valid.", [*problems, *unsupported_training(self)])

    def _against_privacy(self) -> Iterator[Problem]:
        if self.time_series.is_timeseries:
            remedy = "Differential privacy is not supported in time-series mode."
            yield Problem(field="time_series.is_timeseries", value=True, remedy=remedy)
        for field in ("types", "columns"):
            if value := getattr(self.reading, field):
                remedy = "a private table is read as guarantee.columns and its file declare; leave it out"
                yield Problem(field=f"reading.{field}", value=value, remedy=remedy)
        given = self.data.max_sequences_per_example
        if given not in ("auto", None, 1):
            rule = "When enabling DP, data.max_sequences_per_example must be 1, 'auto', or None."
            remedy = f"{rule} Received: {given}"
            yield Problem(field="data.max_sequences_per_example", value=given, remedy=remedy)

    def _check_time_series(self) -> None:
        order, timestamp = self.data.order_training_examples_by, self.time_series.timestamp_column
        if order is not None and timestamp is not None and order != timestamp:
            raise ValueError(
                "data.order_training_examples_by and time_series.timestamp_column must be the same"
            )

    def _max_sequences(self) -> int | None:
        given = self.data.max_sequences_per_example
        if self.dp_enabled:
            return 1
        if given == "auto":
            return None if self.time_series.is_timeseries else DEFAULT_MAX_SEQUENCES
        return given

    def _with_max_sequences(self, value: int | None) -> SafeSynthesizerParameters:
        if value != self.data.max_sequences_per_example:
            data = self.data.model_copy(update={"max_sequences_per_example": value})
            # Pydantic expects the validated instance itself, so the frozen field is set once here.
            object.__setattr__(self, "data", data)
        return self
