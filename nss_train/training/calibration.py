"""The room for a micro-batch on a CUDA device, found by trial before the first step.

The peak of a pass grows linearly with its tokens, so two passes tell how many fit; a third one proves it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch

from nss_train.errors import OutOfMemory
from nss_train.training.micro_batches import Example, Room
from nss_train.training.out_of_memory import typed_out_of_memory

logger = logging.getLogger(__name__)

MOST_TOKENS = 16_384
"""Most tokens of a micro-batch: beyond about 7,000 more of them gain little."""
WIDTH_MULTIPLE = 64
"""Divisor of widths in tokens; blocks of ever new sizes fragment a device's memory."""
USED = 0.9
"""Share of the free memory that a micro-batch may take."""
USUAL_TOKEN = 7

Pass = Callable[[list[Example], Room], None]
"""Forward and backward of examples that fit into one micro-batch."""


def find_room(run: Pass, *, longest: int, rows: int, device: torch.device) -> Room:
    """Return the room for rows of up to ``longest`` tokens, ``rows`` of which are an effective batch.

    Raises :class:`OutOfMemory` if a single row does not fit.
    """
    width = Room(rows=1, tokens=1, multiple=WIDTH_MULTIPLE).width(longest)
    one, two = (_peak_bytes(run, count, width, device) for count in (1, 2))
    slope = max(1.0, (two - one) / width)
    base = max(0.0, one - slope * width)
    fitting = int((USED * _free_bytes(device) - base) / slope)
    tokens = max(width, min(MOST_TOKENS, rows * width, fitting))
    room = Room(rows=rows, tokens=tokens, multiple=WIDTH_MULTIPLE)
    logger.info(
        "micro-batches of up to %d tokens because a token takes %.2f MiB and %.1f GiB are free",
        tokens,
        slope / 2**20,
        _free_bytes(device) / 2**30,
        extra={"action": "train.room", "tokens": tokens},
    )
    return proved(run, room, width)


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
