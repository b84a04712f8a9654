"""Sections of other parts of NSS, carried through with their names and defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from nss_train.config.section import Section

Share = Annotated[float, Field(ge=0, le=1)]


class StructuredGeneration(Section):
    """Whether generation is held to the schema, and by what."""

    enabled: bool = False
    backend: Literal["auto", "xgrammar", "guidance", "outlines", "lm-format-enforcer"] = "auto"
    schema_method: Literal["auto", "regex", "json_schema", "structural_tag"] = "auto"
    use_single_sequence: bool = False
    max_records_per_sequence: Annotated[int, Field(ge=1)] | None = None


class RecordValidation(Section):
    """What generation does about invalid records."""

    group_by_accept_no_delineator: bool = False
    group_by_ignore_invalid_records: bool = False
    group_by_fix_non_unique_value: bool = False
    group_by_fix_unordered_records: bool = False
    enforce_numeric_range: bool = True


class GenerateParameters(Section):
    """How records are generated; the preview sampler reads it too."""

    num_records: int = 1000
    temperature: float = 0.9
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    patience: Annotated[int, Field(ge=1)] = 3
    invalid_fraction_threshold: Share = 0.8
    max_tokens_multiplier: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.2
    structured_generation: StructuredGeneration = StructuredGeneration()
    enforce_timeseries_fidelity: bool = False
    validation: RecordValidation = RecordValidation()
    attention_backend: str | None = "auto"


class Autocorrelation(Section):
    """Autocorrelation in the evaluation of time series."""

    value_columns: list[str] | None = None
    max_lag: Annotated[int, Field(ge=1)] = 20
    min_points: Annotated[int, Field(ge=4)] = 4
    max_groups: Annotated[int, Field(ge=1)] = 128


class TimeSeriesEvaluation(Section):
    """Evaluation of time series."""

    enabled: bool | None = None
    autocorrelation: Autocorrelation = Autocorrelation()


class EvaluationParameters(Section):
    """What is evaluated after generation."""

    mia_enabled: bool = True
    mia_excluded_columns: list[str] | None = None
    aia_enabled: bool = True
    sqs_report_columns: int = 250
    sqs_report_rows: int = 5000
    mandatory_columns: int | None = None
    enabled: bool = True
    quasi_identifier_count: int = 3
    pii_replay_enabled: bool = True
    pii_replay_entities: list[str] | None = None
    pii_replay_columns: list[str] | None = None
    time_series: TimeSeriesEvaluation = TimeSeriesEvaluation()


class PreflightParameters(Section):
    """Checks that the user switches off."""

    disabled_checks: list[str] = Field(default_factory=list)


ReplacePII = dict[str, Any] | None
"""PII is replaced before a table reaches this service, so the section is carried as it is, with a warning."""
