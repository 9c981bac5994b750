"""What the processes that torchrun started agree on; with a single process every function returns its argument."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

T = TypeVar("T")

PATIENCE = timedelta(hours=6)
"""How long processes wait for one that still embeds or validates. NCCL's own ten minutes are too few for that."""


def join(device: torch.device) -> tuple[int, torch.device]:
    """Join the other processes, if there are any; returns this one's number and its device: of several GPUs its own."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, device
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    return distributed.get_rank(), device


def own_share(items: Sequence[T]) -> Sequence[T]:
    """This process's items: every item is one process's."""
    if not distributed.is_initialized():
        return items
    return items[distributed.get_rank() :: distributed.get_world_size()]


def wait_for_others() -> None:
    """Return when all processes have come this far."""
    if distributed.is_initialized():
        distributed.barrier()


def total(value: int, device: torch.device) -> int:
    """The sum over all processes."""
    return _reduced(value, device, distributed.ReduceOp.SUM)


def largest(value: int, device: torch.device) -> int:
    """The maximum over all processes."""
    return _reduced(value, device, distributed.ReduceOp.MAX)


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by the mean over all processes."""
    if not distributed.is_initialized():
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        distributed.all_reduce(parameter.grad)
        parameter.grad /= distributed.get_world_size()


def _reduced(value: int, device: torch.device, operation: distributed.ReduceOp.RedOpType) -> int:
    if not distributed.is_initialized():
        return value
    tensor = torch.tensor(value, device=device)
    distributed.all_reduce(tensor, op=operation)
    return int(tensor.item())
