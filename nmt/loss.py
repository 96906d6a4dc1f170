"""Cross-entropy with label smoothing, as a sum and a count.

    L = -(1 - ε) log p(y) - ε/V Σ_v log p(v)                       (Szegedy et al. 2016, section 7)

The two are kept apart so that a batch may be split in any way: sums and counts add up, and dividing once at the end
gives the same mean and the same gradient.

A teacher says what else it would have written, t (Hinton et al. 2015; Kim and Rush 2016, section 3.1), with a share λ
of the loss:

    L' = (1 - λ) L - λ Σ_v t(v) log p(v)

Over a vocabulary the logits are the largest numbers of a net, and passing over them costs more than making them. Their
gradient is dL/dz_v = p(v) - (1 - ε) [v = y] - ε/V, and dL'/dz_v = p(v) - (1 - λ) ((1 - ε) [v = y] + ε/V) - λ t(v). So
`linear_cross_entropy` passes over them once, from z to p in the precision of the products, and for the rest needs no
more than sums: the bias is one more column of the weights, Σ_v z_v is a product with Σ_v w_v, the ε/V of the gradient
is the same for all rows and columns.

Letters: N positions, E features, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt.hardware import computed_in

BLOCK = 64  # rows come in multiples of it: the library makes a kernel for each number of them, and that takes time
TOGETHER = 1 << 22  # about so many logits are made at a time: in bf16 8 MB, which are still in the cache when p is made
SPARE = 32  # columns beside the features, of which the first is 1, for the bias; with one alone products are slower
LEAST = 1e-38  # of a probability, so that its logarithm is finite


@dataclass(frozen=True)
class Loss:
    """`total`: the sum over `count` real target tokens, in nats. `nll`: the same without smoothing, no gradient."""

    total: Tensor
    count: int
    nll: Tensor

    def __add__(self, other: Loss) -> Loss:
        return Loss(self.total + other.total, self.count + other.count, self.nll + other.nll)


@dataclass(frozen=True)
class Taught:
    """What a teacher would write at each position, t, and the share λ of the loss that it has."""

    probabilities: Tensor  # (N, V)
    share: float


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0, taught: Taught | None = None) -> Loss:
    """The loss of logits (N, V) against targets (N,), none of them padding, and against what was `taught`."""
    log_p = F.log_softmax(logits.float(), dim=1)  # (N, V)
    total = nll = -log_p.gather(1, targets.unsqueeze(1)).sum()
    if smoothing:
        total = (1 - smoothing) * nll - smoothing * log_p.sum() / logits.size(1)
    if taught is not None:
        learnt = -(taught.probabilities * log_p).sum()
        total = (1 - taught.share) * total + taught.share * learnt
    return Loss(total, targets.numel(), nll.detach())


def linear_cross_entropy(
    features: Tensor, layer: nn.Linear, targets: Tensor, smoothing: float = 0.0, taught: Taught | None = None
) -> Loss:
    """`cross_entropy(layer(features), ...)` for features (N, E): the same up to rounding, and faster.

    Of a piece that costs more than 87 nats, about as many as float32 can hold, it says 87; its gradient is right.
    """
    low = computed_in(features)
    if not torch.is_grad_enabled() or low == torch.float16:  # no gradient, or one that has to be scaled first
        return cross_entropy(layer(features), targets, smoothing, taught)
    total, nll = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        features, layer.weight, layer.bias, targets, smoothing, taught, low
    )
    return Loss(total, targets.numel(), nll.detach())


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        smoothing: float,
        taught: Taught | None,
        low: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        (vocab, width), count = weight.shape, len(features)
        given = 1 - taught.share if taught else 1.0  # the share of the gold pieces
        ctx.dtype, ctx.share, ctx.count = features.dtype, given * smoothing / vocab, count
        wide = F.pad(features.to(low), (0, SPARE, 0, -count % BLOCK))  # (N + padding, E + SPARE)
        wide[:count, width] = 1
        weights = weight.new_zeros(vocab, width + SPARE, dtype=low)
        weights[:, :width], weights[:, width] = weight, bias
        p = wide.new_empty(len(wide), vocab)
        gold_logits = wide.new_empty(count)
        rows = max(1, TOGETHER // vocab // BLOCK) * BLOCK
        places = torch.arange(count, device=p.device)
        meant = wide.new_zeros((), dtype=torch.float32)  # Σ t(v) z_v
        for start in range(0, count, rows):
            part, some = p[start : start + rows], places[start : start + rows]
            torch.mm(wide[start : start + rows], weights.t(), out=part)
            gold_logits[some] = p[some, targets[some]]
            if taught:
                meant += (part[: len(some)] * taught.probabilities[some]).sum(dtype=torch.float32)
            torch.softmax(part, 1, out=part)
        p[count:] = 0
        gold = p[places, targets]  # (N,)
        log_gold = gold.float().clamp_min(LEAST).log()
        nll = -log_gold.sum()
        # Σ_v log p(v) = Σ_v z_v - V log Z
        every = (wide.float() @ weights.sum(0, dtype=torch.float32)).sum() - vocab * (gold_logits - log_gold).sum()
        total = given * ((1 - smoothing) * nll - smoothing / vocab * every)
        to_gold = gold - given * (1 - smoothing)
        if taught:
            to_gold -= (taught.share * taught.probabilities[places, targets]).to(low)
            p[:count].sub_(taught.probabilities, alpha=taught.share)
            total = total - taught.share * (meant - (gold_logits - log_gold).sum())
        p[places, targets] = to_gold
        ctx.save_for_backward(wide, weights, p)
        return total, nll

    @staticmethod
    def backward(ctx: Any, outer: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        wide, weights, p = ctx.saved_tensors
        width, share = wide.size(1) - SPARE, ctx.share * outer
        low = outer.to(p.dtype)
        to_features = low * (p @ weights)[: ctx.count, :width] - share * weights[:, :width].sum(0, dtype=torch.float32)
        to_weights = ((low * wide).t().contiguous() @ p).t()  # (V, E + SPARE); the other way round it takes longer
        same = share * wide.sum(0, dtype=torch.float32)  # (E + SPARE,)
        to_weight = to_weights[:, :width].to(torch.float32, memory_format=torch.contiguous_format).sub_(same[:width])
        to_bias = to_weights[:, width].float() - same[width]
        return to_features.to(ctx.dtype), to_weight, to_bias, None, None, None, None
