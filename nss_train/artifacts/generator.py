"""The loaded base model with its adapter, which completes one prompt in batches."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    StoppingCriteria,
    StoppingCriteriaList,
)

from nss_train.artifacts.prompt import first_budget, max_new_tokens, max_seq_length, schema_prompt
from nss_train.artifacts.sampling import MAX_SEQUENCES, RECORDS_PER_SEQUENCE, Sampling, no_room
from nss_train.model.layers.rope import RopeScaling, rope_from_json
from nss_train.model.loading import choose_precision, load_base


@dataclass(frozen=True, kw_only=True, slots=True)
class Completions:
    """The result of a batch: texts without special tokens, and the number of generated tokens."""

    texts: list[str]
    tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Generator:
    """A model in memory. :meth:`load` makes it; :meth:`run` may be called any number of times."""

    model: Any
    tokenizer: Any
    prompt: torch.Tensor
    """Token ids of the prompt; shape (1, prompt tokens)."""
    limit: int
    """Most new tokens of one completion."""
    metadata: Mapping[str, Any]
    options: Sampling
    eos: tuple[int, ...]
    newlines: torch.Tensor
    """Number of line ends in the text of each token id; shape (vocabulary,)."""

    @classmethod
    def load(
        cls,
        base: Path,
        adapter: Path,
        *,
        metadata: Mapping[str, object],
        columns: tuple[str, ...],
        sampling: Sampling,
        seed: int | None,
    ) -> Generator:
        """Load base and adapter, and seed the random numbers of the process."""
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
        model = _load_model(base, adapter, rope_from_json(metadata))
        torch.manual_seed(secrets.randbits(63) if seed is None else seed)
        return cls.of(model, tokenizer, metadata=metadata, columns=columns, sampling=sampling)

    @classmethod
    def of(
        cls,
        model: Any,
        tokenizer: Any,
        *,
        metadata: Mapping[str, Any],
        columns: tuple[str, ...],
        sampling: Sampling,
    ) -> Generator:
        """Return a generator around a model that is in memory."""
        prompt = tokenizer(schema_prompt(metadata, columns), return_tensors="pt")["input_ids"]
        limit = max_new_tokens(metadata, prompt.shape[1], sampling.max_tokens_multiplier)
        if limit == 0:
            raise no_room(prompt.shape[1], max_seq_length(metadata))
        return cls(
            model=model,
            tokenizer=tokenizer,
            prompt=prompt.to(model.device),
            limit=limit,
            metadata=metadata,
            options=sampling,
            eos=_eos_ids(model, metadata),
            newlines=_newlines(tokenizer, model.config.vocab_size).to(model.device),
        )

    def run(self, rows: int, *, scale: int = 1) -> Completions:
        """Complete the prompt until about ``rows`` records are finished in the batch.

        ``scale`` multiplies the estimated length of a record.
        """
        batch = min(MAX_SEQUENCES, max(1, math.ceil(rows / RECORDS_PER_SEQUENCE)))
        each = math.ceil(rows / batch)
        budget = min(self.limit, scale * first_budget(self.metadata, self.prompt.shape[1], each, self.limit))
        enough = _EnoughLines(self.newlines, prompt_tokens=self.prompt.shape[1], lines=rows)
        with torch.inference_mode():
            output = self.model.generate(
                input_ids=self.prompt.expand(batch, -1),
                attention_mask=torch.ones_like(self.prompt).expand(batch, -1),
                generation_config=self._settings(budget),
                stopping_criteria=StoppingCriteriaList([enough]),
            )
        return self._completions(output[:, self.prompt.shape[1] :])

    def _settings(self, budget: int) -> GenerationConfig:
        shared: dict[str, Any] = {
            "max_new_tokens": budget,
            "repetition_penalty": self.options.repetition_penalty,
            "eos_token_id": list(self.eos),
            "pad_token_id": self.eos[0],
            "use_cache": True,
        }
        options = self.options
        if options.temperature > 0:
            shared |= {"temperature": options.temperature, "top_p": options.top_p, "top_k": 0}
        return GenerationConfig(do_sample=options.temperature > 0, **shared)  # type: ignore[no-untyped-call]

    def _completions(self, ids: torch.Tensor) -> Completions:
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        ended = torch.isin(ids, torch.tensor(self.eos, device=ids.device)).cumsum(dim=1)
        unfinished = (ended == 0).sum().item()
        return Completions(texts=texts, tokens=int(unfinished + (ended[:, -1] > 0).sum().item()))


class _EnoughLines(StoppingCriteria):
    """A criterion that stops the whole batch once its sequences together have finished enough lines."""

    def __init__(self, newlines: torch.Tensor, *, prompt_tokens: int, lines: int) -> None:
        self._newlines = newlines
        self._seen = prompt_tokens
        self._missing = lines

    def __call__(self, input_ids: torch.Tensor, _scores: object, **_: object) -> torch.Tensor:
        fresh = input_ids[:, self._seen :]
        self._seen = input_ids.shape[1]
        self._missing -= int(self._newlines[fresh].sum().item())
        return torch.full((input_ids.shape[0],), self._missing <= 0, device=input_ids.device)


def _load_model(base: Path, adapter: Path, rope: RopeScaling | None) -> Any:
    """Return the base as training loads it (the same precision and context), with the adapter."""
    precision = choose_precision()
    model = load_base(base, precision, attention="sdpa", trust_remote_code=False, rope=rope)
    adapted = PeftModel.from_pretrained(model, adapter).to("cuda" if torch.cuda.is_available() else "cpu")
    # Merged, a step has 8 fewer small matrix products per layer; at lower precision merging would round.
    exact = precision.dtype == torch.float32 and not getattr(model, "is_quantized", False)
    merged = adapted.merge_and_unload() if exact else adapted
    return merged.eval()


def _eos_ids(model: Any, metadata: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the end token of the training sequences, then those that the model itself names."""
    own = model.generation_config.eos_token_id
    named = own if isinstance(own, list) else [own]
    ids = [metadata["prompt_config"]["eos_token_id"], *named]
    return tuple(dict.fromkeys(i for i in ids if i is not None))


def _newlines(tokenizer: Any, vocabulary: int) -> torch.Tensor:
    texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))], skip_special_tokens=True)
    counts = torch.zeros(max(vocabulary, len(texts)), dtype=torch.int32)
    counts[: len(texts)] = torch.tensor([text.count("\n") for text in texts], dtype=torch.int32)
    return counts
