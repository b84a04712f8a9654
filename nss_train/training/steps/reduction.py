"""What the ranks of a group do together in a step: its rows dealt, its gradients added in one flat buffer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from nss_train.training.ranks.group import group_state
from nss_train.training.steps.micro_batches import Room


def dealt(lengths: Sequence[int], ranks: int) -> list[list[int]]:
    """Return the numbers of each rank's rows: the longest first, each to the rank with the fewest tokens.

    This is the longest-processing-time rule of scheduling (Graham 1969): no rank has more than 4/3 of the
    tokens that the best division would give it.
    """
    shares: list[list[int]] = [[] for _ in range(ranks)]
    tokens = [0] * ranks
    for number in sorted(range(len(lengths)), key=lambda one: -lengths[one]):
        rank = min(range(ranks), key=tokens.__getitem__)
        shares[rank].append(number)
        tokens[rank] += lengths[number]
    return shares


def trained(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are trained, in an order that is the same on every rank."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@torch.no_grad()
def add_over_ranks(parameters: Sequence[nn.Parameter]) -> None:
    """Make each parameter's gradient the sum of those of all ranks, exchanged once and in float32.

    A rank without rows in this step has no gradients and adds zeros.
    """
    if group_state().num_processes == 1 or not parameters:
        return
    total = _flat([torch.zeros_like(one) if one.grad is None else one.grad for one in parameters])
    torch.distributed.all_reduce(total)
    for parameter, part in zip(parameters, _parts(total, parameters), strict=True):
        parameter.grad = part.to(parameter.dtype)


@torch.no_grad()
def begin_alike(parameters: Sequence[nn.Parameter]) -> None:
    """Give every rank the first one's parameters."""
    if group_state().num_processes == 1 or not parameters:
        return
    values = _flat(list(parameters))
    torch.distributed.broadcast(values, src=0)
    for parameter, part in zip(parameters, _parts(values, parameters), strict=True):
        parameter.copy_(part)


def smallest(room: Room) -> Room:
    """Return the room that every rank has."""
    state = group_state()
    if state.num_processes == 1:
        return room
    least = torch.tensor([room.rows, room.tokens], device=state.device)
    torch.distributed.all_reduce(least, op=torch.distributed.ReduceOp.MIN)
    rows, tokens = least.tolist()
    return replace(room, rows=rows, tokens=tokens)


def _flat(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([one.detach().flatten().float() for one in tensors])


def _parts(flat: torch.Tensor, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the buffer's parts, shaped as the tensors that it was made of."""
    parts = flat.split([one.numel() for one in like])
    return [part.view_as(one) for part, one in zip(parts, like, strict=True)]
