"""Cross-entropy with label smoothing, as a sum and a count.

    L = -(1 - ε) log p(y) - ε/V Σ_v log p(v)                       (Szegedy et al. 2016, section 7)

The two are kept apart so that a batch may be split in any way: sums and counts add up, and dividing once at the end
gives the same mean and the same gradient.

Over a vocabulary the logits are the largest numbers of a net, and passing over them costs more than making them.
`linear_cross_entropy` takes a few rows at a time, that stay in the cache, and turns logits into their gradient at once:
dL/dz_v = p(v) - (1 - ε) [v = y] - ε/V. So nothing of that size is made in float32 or read again.

Letters: N positions, E features, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROWS = 32  # of logits at a time, on a CPU


@dataclass(frozen=True)
class Loss:
    """`total`: the sum over `count` real target tokens, in nats. `nll`: the same without smoothing, no gradient."""

    total: Tensor
    count: int
    nll: Tensor

    def __add__(self, other: Loss) -> Loss:
        return Loss(self.total + other.total, self.count + other.count, self.nll + other.nll)


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Loss:
    """The loss of logits (N, V) against targets (N,), none of them padding."""
    log_probs = F.log_softmax(logits.float(), dim=1)  # (N, V)
    nll = F.nll_loss(log_probs, targets, reduction="sum")
    if not smoothing:
        return Loss(nll, targets.numel(), nll.detach())
    uniform = -log_probs.sum() / logits.size(1)
    return Loss((1 - smoothing) * nll + smoothing * uniform, targets.numel(), nll.detach())


def linear_cross_entropy(features: Tensor, layer: nn.Linear, targets: Tensor, smoothing: float = 0.0) -> Loss:
    """`cross_entropy(layer(features), targets, smoothing)` for features (N, E), the same up to rounding and faster."""
    if not torch.is_grad_enabled() or torch.get_autocast_dtype(features.device.type) == torch.float16:
        return cross_entropy(layer(features), targets, smoothing)  # no gradient, or one that has to be scaled first
    lowered = _lowered(features, layer.weight, layer.bias)
    total, nll = _LinearCrossEntropy.apply(*lowered, targets, smoothing)  # type: ignore[no-untyped-call]
    return Loss(total, targets.numel(), nll.detach())


def _lowered(*tensors: Tensor) -> list[Tensor]:
    """In the precision of autocast, where that is on."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return list(tensors)
    return [tensor.to(torch.get_autocast_dtype(kind)) for tensor in tensors]


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        gradient = F.linear(features, weight, bias)  # (N, V): logits, and row by row what replaces them
        vocab, rows = weight.size(0), ROWS if features.device.type == "cpu" else len(features)
        total, nll = torch.zeros((), device=features.device), torch.zeros((), device=features.device)
        for start in range(0, len(features), rows):
            part, gold = gradient[start : start + rows], targets[start : start + rows].unsqueeze(1)
            logits = part.to(torch.float32, copy=True)
            norm = logits.logsumexp(1, keepdim=True)
            surprise = (norm - logits.gather(1, gold)).sum()
            nll += surprise
            total += (1 - smoothing) * surprise + smoothing * (norm.sum() - logits.sum() / vocab)
            logits.sub_(norm).exp_().sub_(smoothing / vocab)
            part.copy_(logits.scatter_add_(1, gold, torch.full_like(logits[:, :1], smoothing - 1)))
        ctx.save_for_backward(features, weight, gradient)
        return total, nll

    @staticmethod
    def backward(ctx: Any, outer: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, gradient = ctx.saved_tensors
        outer = outer.to(gradient.dtype)
        return outer * (gradient @ weight), outer * (gradient.t() @ features), outer * gradient.sum(0), None, None
