"""The encoder: embedded source pieces through a recurrent stack to a `Context`.

    forward        reads left to right
    reversed       reads right to left (Sutskever et al. 2014, section 3.3)
    bidirectional  both, side by side (Bahdanau et al. 2015, section 3.2)

The summary, which is all that a decoder without attention gets, is the last state, or the mean or maximum of the
outputs over the source (Conneau et al. 2017, section 3.2): a long way back to the first word is then a short one.

With a shortcut the memory holds each piece's embedding beside its state (Kuang et al. 2018, section 3.1): attention
finds the words sooner, and what it brings to the decoder is near a translation from the first update on.

Letters: B batch, S source length, D width of the states, M = D, or D + E with a shortcut, width of the memory.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nmt.cells import NO_DROPOUT, Dropout, Embedding, Recurrent, Shares, reorder, reversal
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
        dropout: Shares = NO_DROPOUT,
        shortcut: bool = False,
    ) -> None:
        """`dropout`: its output is the memory. `shortcut`: embeddings are part of the memory."""
        super().__init__()
        if direction not in DIRECTIONS:
            raise ValueError(f"no direction '{direction}': choose one of {', '.join(DIRECTIONS)}")
        if summary not in SUMMARIES:
            raise ValueError(f"no summary '{summary}': choose one of {', '.join(SUMMARIES)}")
        self.summary, self.shortcut = summary, shortcut
        self.embedding = Embedding(vocab, embed)
        both = direction == "bidirectional"
        self.stack = Recurrent(cell, embed, hidden, layers, dropout.layers, both, residual, dropout.recurrent)
        self.reversed = direction == "reversed"
        self.drop_embedding = Dropout(dropout.embedding)
        self.drop_memory = Dropout(dropout.output)

    @property
    def width(self) -> int:
        """The width of the memory, M."""
        return self.final_width + (self.embedding.embedding_dim if self.shortcut else 0)

    @property
    def final_width(self) -> int:
        """The width of the summary, D."""
        return self.stack.width

    def forward(self, tokens: Tensor, lengths: Tensor) -> Context:
        """Encode tokens (B, S), of which the first `lengths` (B,) of each row are real."""
        words = self.drop_embedding(self.embedding(tokens))  # (B, S, E)
        mask, back = reversal(lengths, tokens.size(1))  # (B, S)
        states, final = self.stack(reorder(words, back) if self.reversed else words, lengths=lengths)  # (B, S, D)
        if self.reversed:
            states = reorder(states, back)
        if self.summary != "last":
            pooled = self._pool(states, mask).unsqueeze(0)  # (1, B, D)
            final = (torch.cat([final[0][:-1], pooled]), *final[1:])
        memory = torch.cat([states, words.to(states.dtype)], dim=2) if self.shortcut else states  # (B, S, M)
        return Context(self.drop_memory(memory), mask, final)

    def _pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """The mean or maximum (B, D) of states (B, S, D) over the real positions."""
        away = ~mask.unsqueeze(2)
        if self.summary == "max":
            return states.masked_fill(away, -torch.inf).amax(1)
        return states.masked_fill(away, 0.0).sum(1) / mask.sum(1, keepdim=True)
