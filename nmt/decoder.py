"""The decoder: its own weights, one forward for teacher forcing and for decoding.

    x_t = [E y_{t-1}; feed; summary]            feed: last attentional state (Luong et al. 2015, section 3.3)
    s_t = lower(x_t, s_{t-1})                   summary: for a fixed context (Cho et al. 2014, section 2.2)
    c_t = attention(s_t, memory)
    u_t = upper([s_t; c_t], u_{t-1})            position `between`; with `after` there is no upper part
    a_t = tanh(W [u_t; c_t]);  p(y_t) = softmax(E' a_t + b)

With attention between the two parts the upper part recurs over what was attended, and still the whole target runs
in one fused call per part. Only input feeding loops over T. A step of decoding is T = 1.

Letters: B sources, N rows (N = B·K when K hypotheses of each source are open), T steps, S source length, D width,
E embedding width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nmt.attention import ATTENTIONS
from nmt.cells import NO_DROPOUT, Dropout, Embedding, Recurrent, Shares, States, masked
from nmt.context import Context

POSITIONS = ("after", "between")


@dataclass(frozen=True)
class Source:
    """The part of the state that stays: what is known of each of the B sources."""

    memory: Tensor  # (B, S, M)
    mask: Tensor  # (B, S)
    keys: Tensor  # attention keys, prepared once
    summary: Tensor  # (B, 1, M)

    def select(self, sources: Tensor) -> Source:
        return Source(self.memory[sources], self.mask[sources], self.keys[sources], self.summary[sources])


@dataclass(frozen=True)
class Masks:
    """Dropout masks of one sequence, drawn when it starts and held over its steps."""

    embedding: Tensor | None
    lower: tuple[Tensor | None, ...]
    between: Tensor | None
    upper: tuple[Tensor | None, ...]
    output: Tensor | None


@dataclass(frozen=True)
class State:
    """A value: passed in, returned, never kept. `source` has B rows, all else N = B·K, grouped by source."""

    source: Source
    lower: States  # tuple of (L, N, D)
    upper: States
    feed: Tensor | None  # (N, 1, E), input feeding
    masks: Masks
    attention: Tensor | None = None  # (N, T, S), the weights of the last call

    def select(self, rows: Tensor) -> State:
        """Hypotheses `rows` (N',), the same number K' for each source in order. The sources do not move."""
        return replace(
            self,
            lower=tuple(part[:, rows] for part in self.lower),
            upper=tuple(part[:, rows] for part in self.upper),
            feed=None if self.feed is None else self.feed[rows],
            attention=None if self.attention is None else self.attention[rows],
        )

    def keep(self, sources: Tensor) -> State:
        """Only these sources (B',), with all their hypotheses."""
        count = self.source.mask.size(0)
        rows = torch.arange(self.lower[0].size(1), device=sources.device).view(count, -1)[sources].flatten()
        return replace(self.select(rows), source=self.source.select(sources))


class Decoder(nn.Module):
    """Owns its weights: embedding, recurrent stack, attention, output. `memory` is the width of the encoder's output.

    Raises ValueError for choices that do not go together.
    """

    def __init__(
        self,
        vocab: int,
        embed: int,
        hidden: int,
        layers: int = 1,
        cell: str = "lstm",
        memory: int = 0,
        attention: str = "none",
        position: str = "after",
        input_feeding: bool = False,
        context_feeding: bool = False,
        residual: bool = False,
        tied: bool = False,
        dropout: Shares = NO_DROPOUT,
    ) -> None:
        """`tied`: the output weights are the embedding. Between attention and what follows it is as between layers."""
        super().__init__()
        kind = ATTENTIONS[attention]
        if position not in POSITIONS:
            raise ValueError(f"no attention position '{position}': choose one of {', '.join(POSITIONS)}")
        if kind and position == "between" and layers < 2:
            raise ValueError("attention between decoder layers needs at least 2 of them")
        if input_feeding and not kind:
            raise ValueError("input feeding needs attention")
        over = 1 if kind and position == "between" else layers
        seen = memory if kind or context_feeding else 0  # what is known of the source at the output
        first = embed + (embed if input_feeding else 0) + (memory if context_feeding else 0)
        self.embed, self.input_feeding, self.context_feeding = embed, input_feeding, context_feeding
        self.embedding = Embedding(vocab, embed)

        def stack(inputs: int, layers: int) -> Recurrent:
            return Recurrent(cell, inputs, hidden, layers, dropout.layers, False, residual, dropout.recurrent)

        self.lower = stack(first, over)
        self.attention = kind(hidden, memory) if kind else None
        rest = layers - over
        self.upper = stack(hidden + memory, rest) if rest else None
        self.readout = nn.Linear(hidden + seen, embed)
        self.output = nn.Linear(embed, vocab)
        if tied:
            self.output.weight = self.embedding.weight
        else:
            nn.init.normal_(self.output.weight, std=embed**-0.5)
        nn.init.zeros_(self.output.bias)
        self.drop_embedding, self.drop_between, self.drop_output = (Dropout(p) for p in dropout[:3])

    def start(self, hidden: States, context: Context) -> State:
        """The state before the first piece, from the bridge's `hidden`, a tuple of (L, B, D)."""
        keys = self.attention.prepare(context.memory) if self.attention else context.memory
        summary = context.final[0][-1].unsqueeze(1)  # (B, 1, M), the top layer's
        feed = summary.new_zeros(summary.size(0), 1, self.embed) if self.input_feeding else None
        lower = tuple(part[: self.lower.layers] for part in hidden)
        upper = tuple(part[self.lower.layers :] for part in hidden) if self.upper else ()
        source = Source(context.memory, context.mask, keys, summary)
        return State(source, lower, upper, feed, self._masks(summary))

    def _masks(self, like: Tensor) -> Masks:
        return Masks(
            self.drop_embedding.mask(like, self.embed),
            self.lower.masks(like),
            self.drop_between.mask(like, self.lower.width) if self.upper else None,
            self.upper.masks(like) if self.upper else (),
            self.drop_output.mask(like, self.embed),
        )

    def forward(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits (N, T, V) of the pieces that follow `tokens` (N, T), and the state after them."""
        features, state = self.features(tokens, state)
        return self.output(features), state

    def features(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """The same without the output layer, (N, T, E), for those who need logits at some positions only."""
        x = masked(self.embedding(tokens), state.masks.embedding)  # (N, T, E)
        if not self.input_feeding:
            return self._run(x, state)
        outs, weights = [], []
        for step in torch.split(x, 1, dim=1):
            out, state = self._run(step, state)
            outs.append(out)
            assert state.attention is not None
            weights.append(state.attention)
        return torch.cat(outs, dim=1), replace(state, attention=torch.cat(weights, dim=1))

    def _run(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """All of x (N, T, E) at once; with input feeding, one step of it."""
        source, masks = state.source, state.masks
        summary = None
        if state.feed is not None:
            x = torch.cat([x, state.feed.to(x.dtype)], dim=2)
        if self.context_feeding:
            summary = _each(source.summary, x)
            x = torch.cat([x, summary.to(x.dtype)], dim=2)
        out, lower = self.lower(x, state.lower, masks=masks.lower)  # (N, T, D)
        upper, weights = state.upper, None
        if self.attention is not None:
            summary, weights = self._attend(out, source)
        if self.upper is not None and summary is not None:
            out = torch.cat([masked(out, masks.between), summary], dim=2)
            out, upper = self.upper(out, state.upper, masks=masks.upper)
        if summary is not None:
            out = torch.cat([out, summary.to(out.dtype)], dim=2)
        features = masked(torch.tanh(self.readout(out)), masks.output)  # (N, T, E)
        feed = features if self.input_feeding else None
        return features, replace(state, lower=lower, upper=upper, feed=feed, attention=weights)

    def _attend(self, query: Tensor, source: Source) -> tuple[Tensor, Tensor]:
        """Contexts (N, T, M) and weights (N, T, S); the hypotheses of a source share its one copy of the memory."""
        assert self.attention is not None
        rows, steps = query.shape[:2]
        grouped = query.reshape(source.mask.size(0), -1, query.size(2))  # (B, K·T, D)
        context, weights = self.attention(grouped, source.keys, source.memory, source.mask)
        return context.view(rows, steps, -1), weights.view(rows, steps, -1)


def _each(summary: Tensor, x: Tensor) -> Tensor:
    """The summaries (B, 1, M) for every row and step of x (N, T, ·): (N, T, M)."""
    return summary.repeat_interleave(x.size(0) // summary.size(0), dim=0).expand(-1, x.size(1), -1)
