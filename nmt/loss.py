"""Cross-entropy with label smoothing, as a sum and a count.

    L = -(1 - ε) log p(y) - ε/V Σ_v log p(v)                       (Szegedy et al. 2016, section 7)

The two are kept apart so that a batch may be split in any way: sums and counts add up, and dividing once at the end
gives the same mean and the same gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


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
