"""Inputs of benchmarks.gpu, made on the spot: a random Llama and a table like that of New York's flights.

``python -m benchmarks.gpu_inputs FOLDER TOKENIZER`` makes the model.
"""

from __future__ import annotations

import argparse
import csv
import random
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

SEED = 20240607
LARGE = {
    "vocab_size": 128_256,
    "hidden_size": 2048,
    "intermediate_size": 11_008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
}
"""Shape of SmolLM3-3B, 3.08 G parameters."""
SMALL = {
    "vocab_size": 49_152,
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
"""Shape of a dry run's model."""
_HEADER = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,"
    "origin,dest,air_time,distance,hour,minute,time_hour\n"
)
_CARRIERS = ("UA", "B6", "EV", "DL", "AA", "MQ", "US", "9E", "WN", "VX")
_ORIGINS = ("EWR", "JFK", "LGA")
_DISTANCES = {
    "ATL": 760,
    "ORD": 731,
    "LAX": 2469,
    "BOS": 190,
    "MCO": 941,
    "CLT": 541,
    "SFO": 2579,
    "IAH": 1411,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    make_model(given.folder, given.tokenizer, small=given.small)


def make_model(folder: Path, tokenizer: Path, *, small: bool) -> None:
    """Write a Llama of random weights, drawn on the device where there is one, with another's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    cuda = torch.cuda.is_available()
    shape: dict[str, Any] = SMALL if small else LARGE
    config = LlamaConfig(
        **shape,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        rope_theta=100_000.0,
    )
    torch.manual_seed(SEED)
    torch.set_default_dtype(torch.bfloat16 if cuda else torch.float32)
    with torch.device("cuda" if cuda else "cpu"):
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer / name, folder / name)


def make_table(file: Path, rows: int) -> None:
    """Write a CSV file of made-up flights, the same each time."""
    drawn = random.Random(SEED)  # noqa: S311 (no secret)
    with file.open("w", newline="", encoding="utf-8") as out:
        out.write(_HEADER)
        csv.writer(out, lineterminator="\n").writerows(_flight(drawn) for _ in range(rows))


def _flight(drawn: random.Random) -> list[object]:
    planned = datetime(2013, 1, 1, 5, tzinfo=UTC) + timedelta(minutes=5 * drawn.randrange(365 * 288))
    late = round(drawn.gauss(3, 18))
    dest, distance = drawn.choice(list(_DISTANCES.items()))
    air_time = round(distance / 7.5 + drawn.gauss(20, 6))
    arrival = planned + timedelta(minutes=air_time + 30)
    later = late + round(drawn.gauss(-4, 10))
    return [
        planned.year,
        planned.month,
        planned.day,
        _clock(planned + timedelta(minutes=late)),
        _clock(planned),
        late,
        _clock(arrival + timedelta(minutes=later)),
        _clock(arrival),
        later,
        drawn.choice(_CARRIERS),
        drawn.randrange(1, 6000),
        f"N{drawn.randrange(10_000, 99_999)}",
        drawn.choice(_ORIGINS),
        dest,
        air_time,
        distance,
        planned.hour,
        planned.minute,
        planned.strftime("%Y-%m-%dT%H:00:00Z"),
    ]


def _clock(when: datetime) -> int:
    """Return a time of day as the table writes it: 17:05 is 1705."""
    return when.hour * 100 + when.minute


if __name__ == "__main__":
    main()
