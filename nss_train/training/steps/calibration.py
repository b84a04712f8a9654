"""The room for a micro-batch on a CUDA device, found by trial before the first step.

The peak of a pass grows linearly with its tokens, so two passes tell how many fit; a third one proves it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch

from nss_train.errors import OutOfMemory
from nss_train.training.steps.micro_batches import Example, Room
from nss_train.training.steps.out_of_memory import typed_out_of_memory

logger = logging.getLogger(__name__)

MOST_TOKENS = 16_384
"""Most tokens of a micro-batch: beyond about 7,000 more of them gain little."""
WIDTH_MULTIPLE = 64
"""Divisor of widths in tokens; blocks of ever new sizes fragment a device's memory."""
TRIED_ROWS = (2, 4)
"""Rows of the trials. A single row would be compiled apart from several."""
USED = 0.9
"""Share of the free memory that a micro-batch may take."""
USUAL_TOKEN = 7

Pass = Callable[[list[Example], Room], object]
"""Forward and backward of examples that fit into one micro-batch."""


def find_room(run: Pass, *, longest: int, rows: int, device: torch.device) -> Room:
    """Return the room for rows of up to ``longest`` tokens, ``rows`` of which are a rank's share of a step.

    Raises :class:`OutOfMemory` if a single row does not fit.
    """
    width = Room(rows=1, tokens=1, multiple=WIDTH_MULTIPLE).width(longest)
    peaks = _peaks(run, [count for count in TRIED_ROWS if count <= rows], width, device)
    if not peaks:
        return proved(run, Room(rows=1, tokens=width, multiple=WIDTH_MULTIPLE), width)
    token_bytes, pass_bytes = _line(peaks, width)
    free = _free_bytes(device)
    tokens = max(width, min(MOST_TOKENS, rows * width, int((USED * free - pass_bytes) / token_bytes)))
    logger.info(
        "micro-batches of up to %d tokens because a token takes %.2f MiB and %.1f GiB are free",
        tokens,
        token_bytes / 2**20,
        free / 2**30,
        extra={"action": "train.room", "tokens": tokens},
    )
    return proved(run, Room(rows=rows, tokens=tokens, multiple=WIDTH_MULTIPLE), width)


def _peaks(run: Pass, counts: list[int], width: int, device: torch.device) -> dict[int, int]:
    """Return the peak bytes of passes of so many rows, as far as they fit."""
    found = {}
    for count in counts:
        try:
            with typed_out_of_memory():
                found[count] = _peak_bytes(run, count, width, device)
        except OutOfMemory:
            torch.cuda.empty_cache()
            break
    return found


def _line(peaks: dict[int, int], width: int) -> tuple[float, float]:
    """Return the bytes of a token, and those of a pass without any, from peaks by their number of rows."""
    (few, least), (many, most) = min(peaks.items()), max(peaks.items())
    if few == many:
        return max(1.0, least / (few * width)), 0.0
    slope = max(1.0, (most - least) / ((many - few) * width))
    return slope, max(0.0, least - slope * few * width)


def proved(run: Pass, room: Room, width: int) -> Room:
    """Return the room, halved until a full micro-batch of this width fits."""
    count = max(1, min(room.rows, room.tokens // width))
    try:
        with typed_out_of_memory():
            run(_rows(count, width), room)
    except OutOfMemory:
        smaller = room.halved()
        if smaller is None or count == 1:
            raise
        torch.cuda.empty_cache()
        return proved(run, smaller, width)
    return room


def _peak_bytes(run: Pass, rows: int, width: int, device: torch.device) -> int:
    """Return the bytes that a pass takes at its peak; the first one, which compiles, is not counted."""
    room = Room(rows=rows, tokens=rows * width, multiple=WIDTH_MULTIPLE)
    run(_rows(rows, width), room)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run(_rows(rows, width), room)
    return int(torch.cuda.max_memory_allocated(device) - before)


def _free_bytes(device: torch.device) -> int:
    """Return the bytes that are free for tensors, those that the allocator holds in reserve included."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def _rows(count: int, width: int) -> list[Example]:
    ids = np.full(width, USUAL_TOKEN)
    return [Example(input_ids=ids, labels=ids)] * count
