"""The work of a private table, from public facts: its plan, and the names and types of its columns."""

from __future__ import annotations

from nss_train.cost.work import Work, private_work, typical_record
from nss_train.data.examples import Prompt
from nss_train.model.local.source import ModelSource
from nss_train.model.metadata import family_of, read_metadata
from nss_train.model.tokenizer import load_tokenizer
from nss_train.privacy.__main__ import Estimate


def private_work_of(planned: Estimate, source: ModelSource, *, stated_family: str = "") -> Work:
    """Return the work of a plan. Unlike prepare_data, it may use how many rows the table has."""
    config, tokenizer = planned.config, load_tokenizer(source.folder)
    family = family_of(config.training.pretrained_model, source.folder, stated=stated_family)
    metadata = read_metadata(config, model=source.folder, tokenizer=tokenizer, family=family)
    schema = tokenizer.encode(metadata.prompt(list(planned.types)))
    return private_work(
        planned.plan,
        config,
        prompt_tokens=len(Prompt.of(schema, metadata).ids),
        record_tokens=typical_record(planned.types, tokenizer),
        context=metadata.max_seq_length,
        records_per_unit=planned.places / planned.plan.units,
    )
