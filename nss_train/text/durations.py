"""Durations in words."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Return a duration in its two largest units: ``45 s``, ``3 min 20 s``, ``3 h 35 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for largest, smaller in ((3_600, 60), (86_400, 3_600)):
        whole = round(whole / smaller) * smaller if whole >= largest else whole
    told = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, whole = divmod(whole, size)
        told += [f"{count} {unit}"] if count else []
    return " ".join(told)
