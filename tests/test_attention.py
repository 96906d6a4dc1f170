"""Attention: the formulas written out with loops, weights that are a distribution, and names that all agree."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from nmt.attention import ATTENTIONS, Additive, Attention, General
from nmt.cells import CELLS
from nmt.context import BRIDGES
from nmt.decoder import POSITIONS
from nmt.encoder import DIRECTIONS, SUMMARIES
from nmt.recipe import DecoderModel, EncoderModel, Model, Section

B, T, S, Q, M = 3, 4, 5, 6, 8
MASK = torch.arange(S) < torch.tensor([5, 2, 1]).unsqueeze(1)  # (B, S)

KINDS = [(name, Q if name == "dot" else M) for name, kind in ATTENTIONS.items() if kind]
kinds = pytest.mark.parametrize(("name", "memory"), KINDS)


def make(name: str, memory: int) -> Attention:
    kind = ATTENTIONS[name]
    assert kind is not None
    attention = kind(Q, memory)
    for weight in attention.parameters():
        nn.init.uniform_(weight, -0.7, 0.7)
    return attention


def naive_score(attention: Attention, query: Tensor, vector: Tensor) -> float:
    """The score of one query (Q,) against one memory vector (M,)."""
    if isinstance(attention, Additive):
        w, u, b, v = (
            attention.queries.weight,
            attention.keys.weight,
            attention.keys.bias,
            attention.energy.weight[0],
        )
        return sum(float(v[i]) * math.tanh(float(w[i] @ query) + float(u[i] @ vector) + float(b[i])) for i in range(Q))
    if isinstance(attention, General):
        vector = attention.keys.weight @ vector
    return sum(float(q) * float(m) for q, m in zip(query, vector, strict=True)) / math.sqrt(Q)


@kinds
@torch.no_grad()
def test_equals_the_formulas(name: str, memory: int) -> None:
    attention = make(name, memory)
    queries, vectors = torch.randn(B, T, Q), torch.randn(B, S, memory)
    contexts, weights = attention(queries, attention.prepare(vectors), vectors, MASK)
    assert contexts.shape == (B, T, memory)
    for b in range(B):
        real = [s for s in range(S) if MASK[b, s]]
        for t in range(T):
            scores = {s: math.exp(naive_score(attention, queries[b, t], vectors[b, s])) for s in real}
            expected = torch.tensor([scores.get(s, 0.0) / sum(scores.values()) for s in range(S)])
            torch.testing.assert_close(weights[b, t], expected)
            context = sum((expected[s] * vectors[b, s] for s in real), torch.zeros(memory))
            torch.testing.assert_close(contexts[b, t], context, rtol=1e-4, atol=1e-5)


@kinds
def test_many_queries_score_as_few(name: str, memory: int) -> None:
    attention = make(name, memory)
    queries, keys = torch.randn(B, 40, Q), attention.prepare(torch.randn(B, S, memory))
    with torch.no_grad():
        without = attention.score(queries, keys)
    torch.testing.assert_close(without, attention.score(queries, keys))


@kinds
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_weights_are_a_distribution_over_real_positions(name: str, memory: int, size: float) -> None:
    attention = make(name, memory)
    vectors = size * torch.randn(B, S, memory)
    _, weights = attention(size * torch.randn(B, T, Q), attention.prepare(vectors), vectors, MASK)
    torch.testing.assert_close(weights.sum(2), torch.ones(B, T))
    assert (weights >= 0).all()
    assert not weights[~MASK.unsqueeze(1).expand_as(weights)].any()


@kinds
def test_padding_is_not_seen(name: str, memory: int) -> None:
    attention = make(name, memory)
    queries, vectors = torch.randn(B, T, Q), torch.randn(B, S, memory)
    contexts, weights = attention(queries, attention.prepare(vectors), vectors, MASK)
    for b in range(B):
        own = vectors[b : b + 1, : int(MASK[b].sum())]
        mask = torch.ones(own.shape[:2], dtype=torch.bool)
        alone, own_weights = attention(queries[b : b + 1], attention.prepare(own), own, mask)
        torch.testing.assert_close(contexts[b], alone[0])
        torch.testing.assert_close(weights[b, :, : own.size(1)], own_weights[0])


@pytest.mark.parametrize("name", [name for name, _ in KINDS])
def test_unequal_widths(name: str) -> None:
    kind = ATTENTIONS[name]
    assert kind is not None
    if name == "dot":
        with pytest.raises(ValueError, match=rf"not {Q} and {M}"):
            kind(Q, M)
    else:
        vectors = torch.randn(B, S, M)
        attention = kind(Q, M)
        assert attention(torch.randn(B, T, Q), attention.prepare(vectors), vectors, MASK)[0].shape == (B, T, M)


@pytest.mark.parametrize(
    ("section", "key", "owner"),
    [
        (Model, "attention", ATTENTIONS),
        (Model, "cell", CELLS),
        (Model, "bridge", BRIDGES),
        (Model, "attention_position", POSITIONS),
        (EncoderModel, "cell", CELLS),
        (EncoderModel, "direction", DIRECTIONS),
        (EncoderModel, "summary", SUMMARIES),
        (DecoderModel, "cell", CELLS),
    ],
)
def test_a_recipe_offers_what_the_modules_have(section: type[Section], key: str, owner: object) -> None:
    annotation = section.model_fields[key].annotation
    choices = get_args(annotation)
    if type(None) in choices:  # Cell | None
        choices = get_args(choices[0])
    assert set(choices) == set(owner)  # type: ignore[call-overload]
