"""What computes a translator, behind one face: torch here, onnxruntime in `nmt.portable`.

Letters: B sources, N = B·K rows, S source length, T target length, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from nmt.data import Batch
from nmt.examples import Examples, Seen
from nmt.loss import LEAST
from nmt.model import Seq2Seq
from nmt.search import SearchState
from nmt.stepper import Place, Stepper
from nmt.tokenizer import PAD


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


@dataclass(frozen=True)
class Reminded:
    """Where a search stands that looks at examples: the network's place, and what is looked at for each source."""

    place: Place
    seen: tuple[Seen, ...]  # of the B sources

    @property
    def attention(self) -> Tensor | None:
        return self.place.attention

    def select(self, rows: Tensor) -> Reminded:
        return replace(self, place=self.place.select(rows))

    def keep(self, sources: Tensor) -> Reminded:
        return Reminded(self.place.keep(sources), tuple(self.seen[number] for number in sources.tolist()))


class Reminding:
    """A network that is reminded of what it has read, which has the share λ, `weight`, in what it says."""

    def __init__(self, native: Native, examples: Examples, weight: float) -> None:
        self.native, self.examples, self.weight = native, examples, weight
        _ = examples.index, examples.starts  # made before several workers would each make them

    @property
    def workers(self) -> int:
        return self.native.workers

    def start(self, source: Tensor, lengths: Tensor) -> Reminded:
        return Reminded(self.native.start(source, lengths), self._seen(source, lengths))

    @torch.no_grad()
    def __call__(self, tokens: Tensor, state: Reminded) -> tuple[Tensor, Reminded]:
        stepper = self.native.stepper
        features, place = stepper.features(tokens, state.place)
        own = stepper.log_probs(features)
        said = self.examples.said(features, state.seen, own.size(1))
        return self._mixed(own, said), replace(state, place=place)

    @torch.no_grad()
    def log_probs(self, batch: Batch) -> Tensor:
        model = self.native.model
        features = model.features(batch)  # (B, T, E)
        flat = features.flatten(0, 1)
        own = model.decoder.output(flat).log_softmax(1)
        said = self.examples.said(flat, self._seen(batch.source, batch.source_lengths), own.size(1))
        gold = self._mixed(own, said).gather(1, batch.target_out.view(-1, 1))
        return gold.view_as(batch.target_out).masked_fill(batch.target_out == PAD, 0.0)

    def _seen(self, source: Tensor, lengths: Tensor) -> tuple[Seen, ...]:
        """What to look at for sources (B, S), <eos> at the end of each."""
        rows = (row[: length - 1] for row, length in zip(source.tolist(), lengths.tolist(), strict=True))
        return tuple(self.examples.near(row, source.device) for row in rows)

    def _mixed(self, own: Tensor, said: Tensor) -> Tensor:
        mixture = own.exp().mul_(1 - self.weight).add_(said, alpha=self.weight)
        return mixture.clamp_min_(LEAST).log_()
