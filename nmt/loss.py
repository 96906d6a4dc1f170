"""Cross-entropy with label smoothing, as a sum and a count.

    L = -(1 - ε) log p(y) - ε/V Σ_v log p(v)                       (Szegedy et al. 2016, section 7)

The two are kept apart so that a batch may be split in any way: sums and counts add up, and dividing once at the end
gives the same mean and the same gradient.

R-Drop (Liang et al. 2021) reads a batch twice, under two draws of dropout that should agree, p and q:

    L = ½ (L_p + L_q) + α/4 (KL(p ‖ q) + KL(q ‖ p))

Over a vocabulary the logits are the largest numbers of a net, and passing over them costs more than making them.
`linear_cross_entropy` takes a few rows at a time, that stay in the cache, and turns logits into their gradient at once:
dL_p/dz_v = p(v) - (1 - ε) [v = y] - ε/V, and of the two divergences p(v) (log p(v)/q(v) - KL(p ‖ q)) + p(v) - q(v).
So nothing of that size is made in float32 or read again.

Letters: P passes (1, or 2 with R-Drop), N positions, E features, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CACHED = 1 << 17  # logits at a time on a CPU: as float32 half a megabyte
BLOCK = 64  # rows come in multiples of it: the library makes a kernel for each number of them, and that takes time


@dataclass(frozen=True)
class Loss:
    """`total`: the sum over `count` real target tokens, in nats. `nll`: the same without smoothing, no gradient."""

    total: Tensor
    count: int
    nll: Tensor

    def __add__(self, other: Loss) -> Loss:
        return Loss(self.total + other.total, self.count + other.count, self.nll + other.nll)


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0, agreement: float = 0.0) -> Loss:
    """The loss of logits (N, V) against targets (N,), none of them padding.

    With `agreement`, the α of R-Drop, logits are (2 N, V): the first pass over the N positions, then the second.
    """
    passes, count, vocab = 2 if agreement else 1, targets.numel(), logits.size(1)
    log_p = F.log_softmax(logits.float().view(passes, count, vocab), dim=2)  # (P, N, V)
    nll = -log_p.gather(2, targets.expand(passes, -1).unsqueeze(2)).sum() / passes
    total = nll
    if smoothing:
        total = (1 - smoothing) * nll - smoothing * log_p.sum() / (passes * vocab)
    if agreement:
        total = total + agreement / 4 * _divergences(log_p.exp(), log_p)[1].sum()
    return Loss(total, count, nll.detach())


def linear_cross_entropy(
    features: Tensor, layer: nn.Linear, targets: Tensor, smoothing: float = 0.0, agreement: float = 0.0
) -> Loss:
    """`cross_entropy(layer(features), ...)` for features (P N, E), the same up to rounding and faster."""
    low = _precision(features)
    if not torch.is_grad_enabled() or low == torch.float16:  # no gradient, or one that has to be scaled first
        return cross_entropy(layer(features), targets, smoothing, agreement)
    total, nll = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        features, layer.weight, layer.bias, targets, smoothing, agreement, low
    )
    return Loss(total, targets.numel(), nll.detach())


def _precision(features: Tensor) -> torch.dtype:
    """What autocast computes products in, where it is on."""
    kind = features.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else features.dtype


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        smoothing: float,
        agreement: float,
        low: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        vocab, count, device = weight.size(0), len(targets), features.device
        passes, ctx.rows, ctx.kinds = 2 if agreement else 1, len(features), (features.dtype, weight.dtype)
        features = F.pad(features.to(low), (0, 0, 0, -len(features) % BLOCK))
        weight = weight.to(low)
        gradient = features @ weight.t()  # (P N + padding, V): logits without bias, and row by row what replaces them
        gradient[ctx.rows :] = 0
        passed = gradient[: ctx.rows].view(passes, count, vocab)
        total, nll = torch.zeros((), device=device), torch.zeros((), device=device)
        bias_gradient = torch.zeros(vocab, device=device)
        rows = max(1, CACHED // (passes * vocab)) if device.type == "cpu" else max(1, count)
        for start in range(0, count, rows):
            part = passed[:, start : start + rows]  # (P, rows, V)
            log_p = part.to(torch.float32, copy=True).add_(bias).log_softmax(2)
            gold = targets[start : start + rows].expand(passes, -1).unsqueeze(2)
            surprise = -log_p.gather(2, gold).sum()
            nll += surprise
            total += (1 - smoothing) * surprise - smoothing / vocab * log_p.sum()
            p = log_p.exp() if agreement else log_p.exp_()
            if agreement:
                pull, divergence = _divergences(p, log_p)
                total += agreement / 2 * divergence.sum()
                p = p.add_(pull, alpha=agreement / 2)
            p.sub_(smoothing / vocab).scatter_add_(2, gold, torch.full_like(p[:, :, :1], smoothing - 1))
            bias_gradient += p.sum((0, 1))
            part.copy_(p)
        ctx.save_for_backward(features, weight, gradient, bias_gradient)
        ctx.passes = passes
        return total / passes, nll / passes

    @staticmethod
    def backward(ctx: Any, outer: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, gradient, bias_gradient = ctx.saved_tensors
        outer = outer / ctx.passes
        low = outer.to(gradient.dtype)
        to_features = low * (gradient @ weight)[: ctx.rows]  # (P N, E)
        to_weight = ((low * features).t().contiguous() @ gradient).t()  # (V, E); the other way round it takes longer
        to_weight = to_weight.to(ctx.kinds[1], memory_format=torch.contiguous_format)
        return to_features.to(ctx.kinds[0]), to_weight, outer * bias_gradient, None, None, None, None


def _divergences(p: Tensor, log_p: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient (2, N, V) of KL(p ‖ q) + KL(q ‖ p) of two passes, and the two as (2, N, 1)."""
    apart = log_p - log_p.flip(0)
    divergence = (p * apart).sum(2, keepdim=True)
    return p * (apart - divergence) + p - p.flip(0), divergence
