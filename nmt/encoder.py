"""The encoder: embedded source pieces through a recurrent stack to a `Context`.

    forward        reads left to right
    reversed       reads right to left (Sutskever et al. 2014, section 3.3)
    bidirectional  both, side by side (Bahdanau et al. 2015, section 3.2)

The summary, which is all that a decoder without attention gets, is the last state, or the mean or maximum of the
outputs over the source (Conneau et al. 2017, section 3.2): a long way back to the first word is then a short one.

Letters: B batch, S source length, M = width of the memory.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nmt.cells import Dropout, Embedding, Recurrent, reorder, reversal
from nmt.context import Context

DIRECTIONS = ("forward", "reversed", "bidirectional")
SUMMARIES = ("last", "mean", "max")


class Encoder(nn.Module):
    """Owns its weights: an embedding and a recurrent stack. `hidden` is the width of one direction."""

    def __init__(
        self,
        vocab: int,
        embed: int,
        hidden: int,
        layers: int = 1,
        cell: str = "lstm",
        direction: str = "bidirectional",
        summary: str = "last",
        residual: bool = False,
        dropout: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> None:
        """`dropout`: on embeddings, between layers, on the memory."""
        super().__init__()
        if direction not in DIRECTIONS:
            raise ValueError(f"no direction '{direction}': choose one of {', '.join(DIRECTIONS)}")
        if summary not in SUMMARIES:
            raise ValueError(f"no summary '{summary}': choose one of {', '.join(SUMMARIES)}")
        self.summary = summary
        self.embedding = Embedding(vocab, embed)
        self.stack = Recurrent(cell, embed, hidden, layers, dropout[1], direction == "bidirectional", residual)
        self.reversed = direction == "reversed"
        self.drop_embedding = Dropout(dropout[0])
        self.drop_memory = Dropout(dropout[2])

    @property
    def width(self) -> int:
        return self.stack.width

    def forward(self, tokens: Tensor, lengths: Tensor) -> Context:
        """Encode tokens (B, S), of which the first `lengths` (B,) of each row are real."""
        x = self.drop_embedding(self.embedding(tokens))  # (B, S, E)
        mask, back = reversal(lengths, tokens.size(1))  # (B, S)
        if self.reversed:
            x = reorder(x, back)
        memory, final = self.stack(x, lengths=lengths)  # (B, S, M)
        if self.reversed:
            memory = reorder(memory, back)
        if self.summary != "last":
            pooled = self._pool(memory, mask).unsqueeze(0)  # (1, B, M)
            final = (torch.cat([final[0][:-1], pooled]), *final[1:])
        return Context(self.drop_memory(memory), mask, final)

    def _pool(self, memory: Tensor, mask: Tensor) -> Tensor:
        """The mean or maximum (B, M) of a memory (B, S, M) over its real positions."""
        away = ~mask.unsqueeze(2)
        if self.summary == "max":
            return memory.masked_fill(away, -torch.inf).amax(1)
        return memory.masked_fill(away, 0.0).sum(1) / mask.sum(1, keepdim=True)
