"""Where the decoder looks in the source: scores, softmax, weighted sum.

    dot       score(q, m) = qᵀ m                                   (Luong et al. 2015, section 3.1)
    general   score(q, m) = qᵀ W m
    additive  score(q, m) = vᵀ tanh(W q + U m)                     (Bahdanau et al. 2015, appendix A.1.2)
    weights = softmax(score over the real source positions);  context = Σ weights · m

Dot and general scores are divided by √Q, so that they start soft at any width (Vaswani et al. 2017, section 3.2.1).
What depends on the memory alone is computed once, by `prepare`.

Letters: B batch, T queries per source, S source length, Q query width, M memory width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEPS = 16  # queries of a source scored at once by a net, where no gradient is wanted


class Attention(nn.Module):
    """The common part; a kind of attention says what its keys and scores are."""

    def prepare(self, memory: Tensor) -> Tensor:
        """Keys for the memory (B, S, M)."""
        raise NotImplementedError

    def score(self, query: Tensor, keys: Tensor) -> Tensor:
        """Scores (B, T, S) of queries (B, T, Q) against keys."""
        raise NotImplementedError

    def forward(self, query: Tensor, keys: Tensor, memory: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Contexts (B, T, M) and weights (B, T, S); `mask` (B, S) is True on real source positions."""
        scores = self.score(query, keys).float().masked_fill(~mask.unsqueeze(1), -torch.inf)  # (B, T, S)
        weights = scores.softmax(dim=2)
        return weights.to(memory.dtype) @ memory, weights


class Dot(Attention):
    def __init__(self, query: int, memory: int) -> None:
        super().__init__()
        if query != memory:
            raise ValueError(f"dot attention needs queries as wide as the memory, not {query} and {memory}")
        self.scale = query**-0.5

    def prepare(self, memory: Tensor) -> Tensor:
        return memory

    def score(self, query: Tensor, keys: Tensor) -> Tensor:
        return torch.matmul(query * self.scale, keys.transpose(1, 2).to(query.dtype))


class General(Attention):
    def __init__(self, query: int, memory: int) -> None:
        super().__init__()
        self.keys = nn.Linear(memory, query, bias=False)
        self.scale = query**-0.5

    def prepare(self, memory: Tensor) -> Tensor:
        return self.keys(memory)  # type: ignore[no-any-return]  # (B, S, Q)

    def score(self, query: Tensor, keys: Tensor) -> Tensor:
        return torch.matmul(query * self.scale, keys.transpose(1, 2).to(query.dtype))


class Additive(Attention):
    def __init__(self, query: int, memory: int) -> None:
        super().__init__()
        self.queries = nn.Linear(query, query, bias=False)
        self.keys = nn.Linear(memory, query)
        self.energy = nn.Linear(query, 1, bias=False)

    def prepare(self, memory: Tensor) -> Tensor:
        return self.keys(memory)  # type: ignore[no-any-return]  # (B, S, Q)

    def score(self, query: Tensor, keys: Tensor) -> Tensor:
        queries = self.queries(query)
        if torch.is_grad_enabled():
            return self._energies(queries, keys)
        return torch.cat([self._energies(one, keys) for one in queries.split(STEPS, dim=1)], dim=1)

    def _energies(self, queries: Tensor, keys: Tensor) -> Tensor:
        sums = queries.unsqueeze(2) + keys.unsqueeze(1)  # (B, T, S, Q)
        return self.energy(torch.tanh(sums)).squeeze(3)  # type: ignore[no-any-return]


ATTENTIONS: dict[str, type[Dot] | type[General] | type[Additive] | None] = {
    "none": None,
    "dot": Dot,
    "general": General,
    "additive": Additive,
}
