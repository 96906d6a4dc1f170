"""The baseline of a classifier: a line as a bag of unigrams and bigrams, and logistic regression.

    p(y | x) = softmax(W x + b),  x_f = 1 where the line has the feature f, else 0
    W, b = argmin  Σ -log p(y | x) + λ/2 ‖W‖²,  λ chosen by accuracy on the valid split

Letters: N lines, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)
STEPS = 100  # of L-BFGS


class Bag:
    """The features of a training split."""

    def __init__(self, lines: Sequence[str]) -> None:
        found = dict.fromkeys(feature for line in lines for feature in sorted(_features(line)))
        self.ids = {feature: number for number, feature in enumerate(found)}

    def table(self, lines: Sequence[str]) -> Tensor:
        """Which line has which feature, sparse (N, F); features that are not known count for nothing."""
        places = [
            (row, self.ids[feature])
            for row, line in enumerate(lines)
            for feature in sorted(_features(line))
            if feature in self.ids
        ]
        index = torch.tensor(places, dtype=torch.long).view(-1, 2).t()
        size = (len(lines), len(self.ids))
        return torch.sparse_coo_tensor(index, torch.ones(index.size(1)), size, check_invariants=True).coalesce()


def _features(line: str) -> set[tuple[str, ...]]:
    words = line.split()
    return {*((word,) for word in words), *pairwise(words)}


def fit(table: Tensor, labels: Tensor, classes: int, penalty: float) -> tuple[Tensor, Tensor]:
    """W (F, C) and b (C,), from zero."""
    weight = torch.zeros(table.size(1), classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = torch.sparse.mm(table, weight) + bias  # (N, C)
        loss = F.cross_entropy(logits, labels, reduction="sum") + penalty / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def guesses(
    train: tuple[Sequence[str], Tensor], valid: tuple[Sequence[str], Tensor], test: Sequence[str], classes: int
) -> tuple[Tensor, float]:
    """The classes (N,) that the regression gives to the lines of `test`, and its penalty λ, chosen on `valid`."""
    bag = Bag(train[0])
    table, other = bag.table(train[0]), bag.table(valid[0])
    best, chosen, found = -1.0, PENALTIES[0], None
    for penalty in PENALTIES:
        weight, bias = fit(table, train[1], classes, penalty)
        right = float(((torch.sparse.mm(other, weight) + bias).argmax(1) == valid[1]).float().mean())
        if right > best:
            best, chosen, found = right, penalty, (weight, bias)
    assert found is not None
    return (torch.sparse.mm(bag.table(test), found[0]) + found[1]).argmax(1), chosen
