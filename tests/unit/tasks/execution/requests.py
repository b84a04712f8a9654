"""The request of a stage that stands in for a real one."""

from __future__ import annotations

from pathlib import Path

from nss_train.config import parse_config
from nss_train.contract import ModelPolicy, Request


def write_request(folder: Path, behaviour: str) -> None:
    """Write a request whose dataset is named after what the stage shall do."""
    request = Request(
        job_id="test-0001",
        dataset_name=behaviour,
        config=parse_config({}),
        seed=1,
        policy=ModelPolicy(models_dir=str(folder)),
    )
    (folder / "request.json").write_text(request.model_dump_json())
