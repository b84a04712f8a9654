"""A program ``nvidia-smi`` that lists devices as the driver does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

WHOLE = "GPU-5f1c1d2e-0a3b-4c5d-8e9f-000000000000"
DIVIDED = "GPU-5f1c1d2e-0a3b-4c5d-8e9f-111111111111"
OTHER = "GPU-77aa1d2e-0a3b-4c5d-8e9f-222222222222"
INSTANCES = ("MIG-c7384736-a75d-5afc-978f-000000000000", "MIG-c7384736-a75d-5afc-978f-111111111111")
LISTING = f"""\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: {WHOLE})
GPU 1: NVIDIA A100-SXM4-40GB (UUID: {DIVIDED})
  MIG 3g.20gb     Device  0: (UUID: {INSTANCES[0]})
  MIG 1c.3g.20gb  Device  1: (UUID: {INSTANCES[1]})
GPU 2: NVIDIA H100 80GB HBM3 (UUID: {OTHER})
"""


def install(folder: Path, patch: pytest.MonkeyPatch, listing: str = LISTING) -> None:
    """Put a program that prints the listing before all others on the PATH."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n[ $1 = -L ] || exit 1\ncat <<'END'\n{listing}END\n")
    program.chmod(0o755)
    patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
