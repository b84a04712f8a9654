"""Decoder layers compiled one by one, which fuses the many small operations between matrix products."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from nss_train.model.layers.loss import Head


def compile_layers(model: nn.Module, *, backend: str = "inductor") -> int:
    """Compile each decoder layer in place, for any number of rows and tokens; return their number.

    Names, hooks and the state dict stay. Nothing is compiled before a layer's first call.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        layer.compile(dynamic=True, backend=backend)
    return len(layers)


def compiled_head(head: Head, *, backend: str = "inductor") -> Head:
    """Return the head with its scores compiled: they are elementwise operations on the largest tensors."""
    return dataclasses.replace(head, scores=torch.compile(head.scores, dynamic=True, backend=backend))


def uncompiled(model: nn.Module) -> None:
    """Take back :func:`compile_layers`: torch has no public way."""
    for module in model.modules():
        module._compiled_call_impl = None  # noqa: SLF001


@contextmanager
def eagerly_where_not_compiled() -> Iterator[None]:
    """Compile nothing from here on: what needs another graph than there are runs as it was written."""
    with torch.compiler.set_stance("eager_on_recompile"):
        yield


@contextmanager
def eagerly() -> Iterator[None]:
    """Run compiled code as it was written, as an evaluation does: its shapes would be compiled anew."""
    with torch.compiler.set_stance("force_eager"):
        yield
