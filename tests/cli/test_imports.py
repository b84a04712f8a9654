"""The client imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys


def test_the_client_imports_neither_torch_nor_pandas() -> None:
    script = (
        "import sys, tasks.client; "
        "print([m for m in ('torch','transformers','pandas','numpy','dp_accounting') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_ledger_imports_neither_torch_nor_pandas() -> None:
    heavy = "('torch', 'transformers', 'pandas')"
    script = f"import sys, tasks.jobs.privacy.ledger; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_preparing_data_imports_no_torch() -> None:
    heavy = "[m for m in ('torch', 'transformers') if m in sys.modules]"
    script = f"import sys, nss_train.stages.preparation; print({heavy})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
