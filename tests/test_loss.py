"""The loss: torch's cross-entropy, and the same however a batch is split."""

from __future__ import annotations

import random
from functools import reduce
from itertools import pairwise
from operator import add

import pytest
import torch
from torch.nn import functional as F

from nmt import loss as loss_module
from nmt.loss import BLOCK, Loss, Taught, cross_entropy, linear_cross_entropy

N, V = 13, 9

smoothings = pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])


@smoothings
def test_equals_torch(smoothing: float) -> None:
    logits = torch.randn(N, V, requires_grad=True)
    targets = torch.randint(V, (N,))
    loss = cross_entropy(logits, targets, smoothing)
    expected = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="sum")
    torch.testing.assert_close(loss.total, expected)
    one, other = (torch.autograd.grad(total, logits)[0] for total in (loss.total, expected))
    torch.testing.assert_close(one, other)
    assert loss.count == N


@smoothings
def test_nll_is_without_smoothing_and_without_gradient(smoothing: float) -> None:
    logits = torch.randn(N, V, requires_grad=True)
    targets = torch.randint(V, (N,))
    nll = cross_entropy(logits, targets, smoothing).nll
    torch.testing.assert_close(nll, -logits.detach().log_softmax(1)[torch.arange(N), targets].sum())
    assert not nll.requires_grad


@smoothings
@pytest.mark.parametrize("seed", range(4))
def test_any_split_gives_the_same_total_and_gradient(smoothing: float, seed: int) -> None:
    logits = torch.randn(N, V, requires_grad=True)
    targets = torch.randint(V, (N,))
    draw = random.Random(seed)
    cuts = [0, *sorted(draw.sample(range(1, N), draw.randint(1, N - 1))), N]
    parts = [cross_entropy(logits[a:b], targets[a:b], smoothing) for a, b in pairwise(cuts)]
    split: Loss = reduce(add, parts)
    whole = cross_entropy(logits, targets, smoothing)
    assert split.count == whole.count
    torch.testing.assert_close(split.total, whole.total)
    torch.testing.assert_close(split.nll, whole.nll)
    one, other = (torch.autograd.grad(loss.total, logits)[0] for loss in (split, whole))
    torch.testing.assert_close(one, other)


def test_nothing_to_learn_from_is_zero() -> None:
    loss = cross_entropy(torch.randn(0, V), torch.zeros(0, dtype=torch.long), 0.1)
    assert (float(loss.total), loss.count, float(loss.nll)) == (0.0, 0, 0.0)


def test_low_precision_logits_are_summed_in_float32() -> None:
    logits, targets = torch.randn(2000, V), torch.randint(V, (2000,))
    low = cross_entropy(logits.bfloat16(), targets, 0.1)
    assert low.total.dtype == torch.float32
    torch.testing.assert_close(low.total, cross_entropy(logits.bfloat16().float(), targets, 0.1).total)


@smoothings
def test_a_teacher_has_its_share(smoothing: float) -> None:
    logits, targets = torch.randn(N, V), torch.randint(V, (N,))
    teacher = torch.randn(N, V).softmax(1)
    own = cross_entropy(logits, targets, smoothing)
    loss = cross_entropy(logits, targets, smoothing, Taught(teacher, 0.3))
    meant = F.cross_entropy(logits, teacher, reduction="sum")
    torch.testing.assert_close(loss.total, 0.7 * own.total + 0.3 * meant)
    torch.testing.assert_close(loss.nll, own.nll)
    sure = cross_entropy(logits, targets, smoothing, Taught(F.one_hot(targets, V).float(), 1.0))
    torch.testing.assert_close(sure.total, own.nll)


@smoothings
@pytest.mark.parametrize("share", [None, 0.4])
@pytest.mark.parametrize("count", [0, 1, BLOCK, 2 * BLOCK + 3])
@pytest.mark.parametrize("low", [False, True])
def test_with_its_layer_it_is_the_same(
    smoothing: float, share: float | None, count: int, low: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_module, "TOGETHER", BLOCK * V)  # so that rows are taken in several parts
    torch.manual_seed(1)
    layer = torch.nn.Linear(5, V)
    targets = torch.randint(V, (count,))
    features = torch.randn(count, 5, requires_grad=True)
    taught = None if share is None else Taught(torch.randn(count, V).softmax(1), share)
    found = []
    for fused in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            if fused:
                loss = linear_cross_entropy(features, layer, targets, smoothing, taught)
            else:
                loss = cross_entropy(layer(features), targets, smoothing, taught)
        assert loss.count == count
        assert loss.total.dtype == torch.float32
        gradients = torch.autograd.grad(3 * loss.total, (features, *layer.parameters()))
        found.append((loss.total, loss.nll, *gradients))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, **({"rtol": 0.03, "atol": 0.1} if low else {"rtol": 1e-5, "atol": 1e-4}))


def test_without_gradient_it_is_the_same() -> None:
    layer, features, targets = torch.nn.Linear(5, V), torch.randn(N, 5), torch.randint(V, (N,))
    with torch.no_grad():
        loss = linear_cross_entropy(features, layer, targets, 0.1)
    torch.testing.assert_close(loss.total, cross_entropy(layer(features), targets, 0.1).total.detach())
