"""The processes that train one model together, as `torchrun` starts them, or this one alone.

    torchrun --nproc-per-node 2 -m nmt train my.yaml

Each reads its share of the rows of every batch. Gradients are summed over the processes and divided by the tokens of
all (Li et al. 2020, section 3, but with token counts), so that an update is that of one process with the whole batch,
to rounding; only what is drawn differs (dropout, other segmentations, scheduled sampling). The first process
validates, writes and speaks; the others wait.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

from nmt.errors import CallError, TrainingError

T = TypeVar("T")
PATIENCE = timedelta(days=1)  # with the first process, which fetches, tokenises and validates while the others wait


@dataclass(frozen=True)
class Group:
    """`rank` of `size` processes."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def same(self, value: T) -> T:
        """The first process's value, which may be anything that can be pickled, in all."""
        if self.size == 1:
            return value
        box = [value]
        with _connected():
            distributed.broadcast_object_list(box, src=0)
        return box[0]

    def sums(self, *values: float) -> list[float]:
        """The sum of each number over the processes."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        with _connected():
            distributed.all_reduce(total)
        return total.tolist()

    def gather(self, weights: Sequence[Tensor]) -> None:
        """Sum the gradients of these weights over the processes, in place; a process without any has zeros."""
        if self.size == 1:
            return
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        grads = [weight.grad for weight in weights if weight.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads])  # one message for all
        with _connected():
            distributed.all_reduce(flat)
        parts = torch.split(flat, [grad.numel() for grad in grads])
        torch._foreach_copy_(grads, [part.view_as(grad) for part, grad in zip(parts, grads, strict=True)])

    def draw(self, seed: int, updates: int) -> None:
        """Set what dropout draws in this update: other masks in each process, the same after a resume."""
        if self.size > 1:
            torch.manual_seed(zlib.crc32(f"{seed} {updates} {self.rank}".encode()))


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError:
        raise TrainingError("another of the processes that train together has ended: see what it said") from None


ALONE = Group()


def join() -> Group:
    """The group that this process was started in."""
    size = int(os.environ.get("WORLD_SIZE") or 1)
    if size == 1:
        return ALONE
    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise CallError(f"WORLD_SIZE={size} without {missing[0]}: start with torchrun, or unset WORLD_SIZE")
    if not distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        kinds = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(kinds, timeout=PATIENCE)
    return Group(distributed.get_rank(), size)
