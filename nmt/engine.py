"""What computes a translator, behind one face: torch here, onnxruntime in `nmt.portable`.

Letters: B sources, N = B·K rows, S source length, T target length, V vocabulary.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from nmt.data import Batch
from nmt.model import Seq2Seq
from nmt.search import SearchState
from nmt.stepper import Place, Stepper


class Engine(Protocol):
    """A translation model as search and scoring want it; called, it is the step of `nmt.search`."""

    @property
    def workers(self) -> int:
        """How many batches are best searched at once, sharing the cores."""

    def start(self, source: Tensor, lengths: Tensor) -> SearchState:
        """Where search stands before the first piece, for sources (B, S) of so many pieces (B,)."""

    def __call__(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """log p (N, V) of the pieces that follow `tokens` (N,), and the state after them."""

    def log_probs(self, batch: Batch) -> Tensor:
        """log p of each target piece by forced decoding, (B, T), 0 on padding."""


class Native:
    """A network as trained. `precision` is that of the decoder's products in search; scoring is in float32."""

    def __init__(self, model: Seq2Seq, precision: str = "float32") -> None:
        self.model = model
        self.stepper = Stepper(model.decoder, precision)

    @property
    def workers(self) -> int:
        return torch.get_num_threads() if self.model.decoder.output.weight.device.type == "cpu" else 1

    @torch.no_grad()
    def start(self, source: Tensor, lengths: Tensor) -> Place:
        context = self.model.encoder(source, lengths)
        return self.stepper.start(self.model.bridge(context.final), context)

    def __call__(self, tokens: Tensor, state: Place) -> tuple[Tensor, Place]:
        return self.stepper(tokens, state)

    @torch.no_grad()
    def log_probs(self, batch: Batch) -> Tensor:
        return self.model.log_probs(batch)
