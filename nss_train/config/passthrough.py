"""Sections that belong to other parts of NSS, passed through with their names and defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from nss_train.config.bounds import AtMost, Names, Rows, Share, Within, Word
from nss_train.config.sections.section import Section

_PATIENCE = Within(1, 10**6, "it is a number of attempts")
_MANY = Within(1, 10**6, "it is a number of records in a sequence, or of groups")
_FACTOR = Within(0, 1_000, "it is a factor")
_SECTIONS = AtMost(1_000, "NSS has no more settings of it")


class StructuredGeneration(Section):
    """Whether generation is constrained to the schema, and by which backend."""

    enabled: bool = False
    backend: Literal["auto", "xgrammar", "guidance", "outlines", "lm-format-enforcer"] = "auto"
    schema_method: Literal["auto", "regex", "json_schema", "structural_tag"] = "auto"
    use_single_sequence: bool = False
    max_records_per_sequence: Annotated[int, Field(ge=1), _MANY] | None = None


class RecordValidation(Section):
    """The handling of invalid records during generation."""

    group_by_accept_no_delineator: bool = False
    group_by_ignore_invalid_records: bool = False
    group_by_fix_non_unique_value: bool = False
    group_by_fix_unordered_records: bool = False
    enforce_numeric_range: bool = True


class GenerateParameters(Section):
    """Parameters of generation; the preview sampler uses them too."""

    num_records: Rows = 1000
    temperature: Annotated[float, _FACTOR] = 0.9
    repetition_penalty: Annotated[float, Field(gt=0), _FACTOR] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    patience: Annotated[int, Field(ge=1), _PATIENCE] = 3
    invalid_fraction_threshold: Share = 0.8
    max_tokens_multiplier: Annotated[float, Field(gt=0, allow_inf_nan=False), _FACTOR] = 1.2
    structured_generation: StructuredGeneration = StructuredGeneration()
    enforce_timeseries_fidelity: bool = False
    validation: RecordValidation = RecordValidation()
    attention_backend: Word | None = "auto"


class Autocorrelation(Section):
    """Parameters of the autocorrelation in the evaluation of time series."""

    value_columns: Names | None = None
    max_lag: Annotated[int, Field(ge=1), _MANY] = 20
    min_points: Annotated[int, Field(ge=4), _MANY] = 4
    max_groups: Annotated[int, Field(ge=1), _MANY] = 128


class TimeSeriesEvaluation(Section):
    """Parameters of the evaluation of time series."""

    enabled: bool | None = None
    autocorrelation: Autocorrelation = Autocorrelation()


class EvaluationParameters(Section):
    """Parameters of the evaluation after generation."""

    mia_enabled: bool = True
    mia_excluded_columns: Names | None = None
    aia_enabled: bool = True
    sqs_report_columns: Rows = 250
    sqs_report_rows: Rows = 5000
    mandatory_columns: Rows | None = None
    enabled: bool = True
    quasi_identifier_count: Rows = 3
    pii_replay_enabled: bool = True
    pii_replay_entities: Names | None = None
    pii_replay_columns: Names | None = None
    time_series: TimeSeriesEvaluation = TimeSeriesEvaluation()


class PreflightParameters(Section):
    """Preflight checks that the user has disabled."""

    disabled_checks: Names = Field(default_factory=list)


ReplacePII = Annotated[dict[Word, Any], _SECTIONS] | None
"""PII is replaced before a table reaches this service; the section is passed through, with a warning."""
