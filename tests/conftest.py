from pathlib import Path
import pytest
@pytest.fixture(scope="session")
def base_model():
    return Path("/tmp/models/SmolLM2-135M-Instruct")
