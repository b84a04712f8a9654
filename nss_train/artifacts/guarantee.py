"""The privacy section of a model card: what is promised, what it cost, and what is left out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nss_train.artifacts.files import read_json
from nss_train.config import SafeSynthesizerParameters, parse_resolved
from nss_train.config.guarantee import SchemaSource
from nss_train.errors import StageLost
from nss_train.privacy.result import PrivacyResult, check_release

if TYPE_CHECKING:
    from nss_train.privacy.plan import PrivacyPlan

NO_PRIVACY = "trained without differential privacy; no formal privacy guarantee"


@dataclass(frozen=True, kw_only=True, slots=True)
class Guarantee:
    """Plan and result of a private training."""

    config: SafeSynthesizerParameters
    plan: PrivacyPlan
    result: PrivacyResult

    @property
    def strict(self) -> bool:
        return self.config.strictly_private

    def as_json(self) -> dict[str, Any]:
        """``train/privacy.json``: the plan and what became of it."""
        return {"plan": self.plan.model_dump(mode="json"), "result": self.result.model_dump(mode="json")}


def read_guarantee(inputs: Path) -> Guarantee | None:
    """The guarantee of the stages' outputs in a folder; ``None`` when no privacy was asked for.

    Raises:
        BudgetExceeded: more was spent than the job may spend.
        StageLost: privacy was asked for, and there is no record of what was spent.
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
    from nss_train.privacy.plan import PrivacyPlan  # the accountant takes a second to load

    found = Guarantee(
        config=config,
        plan=PrivacyPlan.model_validate(read_json(plan)),
        result=PrivacyResult.model_validate(read_json(result)),
    )
    check_release(found.plan, found.result)
    return found


def privacy_section(guarantee: Guarantee | None) -> str:
    """The section's Markdown, without its heading."""
    if guarantee is None:
        return f"This adapter was {NO_PRIVACY}."
    parts = [
        _promise(guarantee),
        _list(f"{name}: {value}" for name, value in _figures(guarantee)),
        "### Covered by the guarantee",
        _list(_covered(guarantee)),
        "### Not covered by the guarantee",
        _list(_not_covered(guarantee)),
        "### Files that are not here" if guarantee.strict else "",
        _left_out() if guarantee.strict else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _promise(guarantee: Guarantee) -> str:
    plan, result = guarantee.plan, guarantee.result
    return (
        f"What is covered below is ({_up(result.epsilon_spent)}, {plan.delta:.3g})-differentially private, "
        f"and the unit of privacy is one {plan.unit}: whether the records of one unit take part makes every "
        "outcome at most exp(ε) times as likely, but for a chance of δ. Its place is counted all the same, "
        "because the number of units is public."
    )


def _up(epsilon: float) -> str:
    """Four digits behind the point, never less than what was spent."""
    return f"{math.ceil(epsilon * 1e4 - 1e-6) / 1e4:g}"


def _figures(guarantee: Guarantee) -> Iterator[tuple[str, str]]:
    plan, result = guarantee.plan, guarantee.result
    yield "unit of privacy", f"{plan.unit}, {plan.units:,} of them"
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
    yield "budget", f"charged to `{plan.dataset}`"
    if result.audit is not None:
        yield "audit", _audit(guarantee)


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
    SchemaSource.PRIVATE: "the schema: columns as declared, from noisy counts, or by their type alone",
    SchemaSource.DECLARED: "the schema: columns as declared, or by their type alone",
}


def _covered(guarantee: Guarantee) -> Iterator[str]:
    yield "the adapter's weights, and so every row that is generated from it"
    schema = _SCHEMAS.get(guarantee.config.guarantee.schema_source)
    if schema is not None:
        yield schema
    if guarantee.result.loss_reported:
        yield "the reported losses, which hold noise"
    if guarantee.strict:
        yield "the metadata: their limits are the model's, not the table's"


def _not_covered(guarantee: Guarantee) -> Iterator[str]:
    yield "the number of units, and the names, order and types of the columns: they count as public"
    yield "the config, and what it declares of columns"
    yield "whether a job fails, and its error messages"
    yield "how long anything takes"
    if not guarantee.strict:
        yield from _published_raw(guarantee)


def _published_raw(guarantee: Guarantee) -> Sequence[str]:
    """What a job that is not strict publishes besides."""
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
