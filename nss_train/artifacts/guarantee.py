"""The privacy section of a model card: the guarantee, its cost, and what it does not cover."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nss_train.artifacts.files import read_json
from nss_train.config import SafeSynthesizerParameters, parse_resolved
from nss_train.config.sections.guarantee import SchemaSource
from nss_train.errors import StageLost
from nss_train.privacy.accounting.result import PrivacyResult, check_release

if TYPE_CHECKING:
    from nss_train.privacy.accounting.plan import PrivacyPlan

NO_PRIVACY = "trained without differential privacy; no formal privacy guarantee"


@dataclass(frozen=True, kw_only=True, slots=True)
class Guarantee:
    """The plan and result of a private training."""

    config: SafeSynthesizerParameters
    plan: PrivacyPlan
    result: PrivacyResult

    @property
    def strict(self) -> bool:
        return self.config.strictly_private

    def as_json(self) -> dict[str, Any]:
        """Return the content of ``train/privacy.json``: the plan and its result."""
        return {"plan": self.plan.model_dump(mode="json"), "result": self.result.model_dump(mode="json")}


def read_guarantee(inputs: Path) -> Guarantee | None:
    """Return the guarantee of the stages' outputs in a folder; ``None`` if no privacy was requested.

    Raises:
        BudgetExceeded: more was spent than the job may spend.
        StageLost: privacy was requested, but there is no record of what was spent.
    """
    config = parse_resolved(read_json(inputs / "prepare_data/config.json"))
    if not config.dp_enabled:
        return None
    plan, result = inputs / "prepare_data/privacy.json", inputs / "train/privacy_result.json"
    missing = [path.name for path in (plan, result) if not path.is_file()]
    if missing:
        raise StageLost(
            f"A private training left no {' and no '.join(missing)}: nothing can be promised of it."
        )
    from nss_train.privacy.accounting.plan import PrivacyPlan  # the accountant takes a second to load

    found = Guarantee(
        config=config,
        plan=PrivacyPlan.model_validate(read_json(plan)),
        result=PrivacyResult.model_validate(read_json(result)),
    )
    check_release(found.plan, found.result)
    return found


def privacy_section(guarantee: Guarantee | None) -> str:
    """Return the section's Markdown, without its heading."""
    if guarantee is None:
        return f"This adapter was {NO_PRIVACY}."
    parts = [
        _promise(guarantee),
        _list(f"{name}: {value}" for name, value in _figures(guarantee)),
        "### Covered by the guarantee",
        _list(_covered(guarantee)),
        "### Public by definition",
        _list(_public(guarantee)),
        "### Made harder, not proved" if guarantee.strict else "",
        _list(_made_harder()) if guarantee.strict else "",
        "### Not covered by the guarantee",
        _list(_not_covered(guarantee)),
        "### Files that are not here" if guarantee.strict else "",
        _left_out() if guarantee.strict else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _promise(guarantee: Guarantee) -> str:
    """Return the guarantee's sentence, and what it means for replaced records and for people with several."""
    return f"{guarantee.plan.promise()} {_REPLACED} {_several(guarantee)}"


_REPLACED = "Other records in the place of a unit's own are two such steps: about (2ε, (1 + exp(ε))·δ)."


def _several(guarantee: Guarantee) -> str:
    """Return who the unit of privacy protects, and who it protects less."""
    if guarantee.plan.unit == "record":
        return (
            "A person with k records has the privacy of a group of k only; `guarantee.unit_column` makes all"
            " records of a person one unit."
        )
    return "All records that share the value are one unit."


def _up(epsilon: float) -> str:
    """Return ε with four decimals, rounded up."""
    return f"{math.ceil(epsilon * 1e4 - 1e-6) / 1e4:g}"


def _figures(guarantee: Guarantee) -> Iterator[tuple[str, str]]:
    plan, result = guarantee.plan, guarantee.result
    yield "unit of privacy", plan.unit
    yield "n", f"{plan.units:,} places, {_KNOWN.get(plan.units_source, plan.units_source)}"
    yield "neighbouring tables", plan.adjacency
    yield "ε", f"{_up(result.epsilon_spent)} spent of {plan.epsilon:g}"
    yield "δ", f"{plan.delta:.3g}"
    yield (
        "accountants",
        "privacy loss distributions (PLD) decide, Rényi (RDP) is the cross-check; Google's dp-accounting",
    )
    yield "sampler", "Poisson: each unit joins each step by itself; randomness of the operating system"
    yield "sampling rate q", f"{plan.sampling_rate:.6g}"
    yield "noise multiplier σ", f"{plan.noise_multiplier:.6g}"
    yield "expected batch", f"{plan.batch} units"
    yield "steps", f"{result.steps_applied:,} of {plan.steps:,} planned"
    yield "clipping", f"the gradient of each unit to an ℓ2 norm of {plan.clip:g}"
    yield "by-products", _prices(guarantee)
    yield "budget", f"charged to `{plan.dataset}`; {_HISTORY}"
    if result.audit is not None:
        yield "audit", _audit(guarantee)


_HISTORY = (
    "where that has no budget, or one that was set or raised after results, its sum is a history, not a"
    " promise (`nss-train budget show`)"
)
_KNOWN = {"rows": "the rows of the file", "declared": "declared", "noisy": "counted with noise"}


def _prices(guarantee: Guarantee) -> str:
    prices = [
        f"{product.name} for ε = {product.epsilon:.4g} and δ = {product.delta:.3g}"
        for product in guarantee.plan.by_products
    ]
    if guarantee.result.loss_reported:
        prices.append("losses with noise, within the steps' price")
    return "; ".join(prices) or "none that cost anything"


def _audit(guarantee: Guarantee) -> str:
    audit = guarantee.result.audit
    if audit is None:
        return "none"
    return (
        f"an attack with {audit.canaries} invented units shows ε ≥ {audit.epsilon_lower_bound:.4g}"
        f" with {audit.confidence:.0%} confidence"
    )


_SCHEMAS = {
    SchemaSource.PRIVATE: "the schema: columns as declared, by noisy counts and votes, or by type alone",
    SchemaSource.DECLARED: "the schema: columns as declared, or by their type alone",
}


def _covered(guarantee: Guarantee) -> Iterator[str]:
    yield "the adapter's weights, and so every row that is generated from it"
    yield "the checkpoints of the training, its history, and the ε that it reported on the way"
    schema = _SCHEMAS.get(guarantee.config.guarantee.schema_source)
    if schema is not None:
        yield schema
    if guarantee.plan.units_source == "noisy":
        yield "n, which was counted with noise"
    if guarantee.result.loss_reported:
        yield "the reported losses, which hold noise"
    if guarantee.strict:
        yield "the metadata: their limits are the model's, not the table's"
        yield "names, sizes and digests of published files: they follow from shapes and from released values"


def _public(guarantee: Guarantee) -> Iterator[str]:
    yield "the config, the base model, the seed, and what the config declares of columns and of the dataset"
    yield "names and order of the columns, and types that the config or the file's own schema declares"
    if guarantee.plan.units_source != "noisy":
        yield "n"
    yield "what follows from these alone: q, σ, the steps, the expected batch, the clipping norm"


def _made_harder() -> Iterator[str]:
    yield "single steps: progress is reported in public numbers at few marks, a hundred steps apart at least"
    yield "memory and shapes: each unit's rows have shapes of their own, whichever units are drawn with them"
    yield "how an attempt ended: what follows from the table is shown to the operator alone"


def _not_covered(guarantee: Guarantee) -> Iterator[str]:
    yield "time: anyone with a stop-watch sees how long the job took; its status shows whole minutes"
    yield "refusals: that a file is a table and within the operator's limits is a precondition, no secret"
    yield "what the machines give away to others on them: caches, power, swap"
    yield "who may read `private/` of the job in the store: the table, its records as tokens, the whole log"
    if guarantee.config.guarantee.multiline_cells:
        yield "tables that no correct program wrote: cells may break lines, and a stray quote joins records"
    if not guarantee.strict:
        yield from _published_raw(guarantee)


def _published_raw(guarantee: Guarantee) -> Sequence[str]:
    """Return what a job that is not strict publishes in addition."""
    raw = guarantee.config.guarantee.schema_source is SchemaSource.RAW
    found = ["the schema: it holds the table's own bounds, categories and text lengths"] if raw else []
    return [
        *found,
        "the tables in dataset/",
        "the longest example and the largest group in the metadata",
        "automatic choices that look at the table, such as the RoPE scaling factor",
        "numbers of rows, examples and tokens",
        "losses that hold no noise, those of a validation included",
    ]


def _left_out() -> str:
    return (
        "`dataset/training.csv` and `dataset/test.csv` hold private records and are not published. NSS's "
        "generation asks for a data source when the first is missing: give it the table that you submitted. "
        "It compares what it generates with it, and its report is outside the guarantee."
    )


def _list(lines: Iterator[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
