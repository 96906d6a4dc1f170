"""A decoder made ready to go step by step: all that does not depend on the state is done beforehand.

    first layer     E W_xᵀ + b is a table (V, G·D): a piece's share of the gates is read, not computed
    other layers    [x; h] [W U]ᵀ + b: one product instead of two
    per source      keys, and a summary's share of gates and output, once
    state           one matrix (N, ·): hypotheses are reordered by one selection

`Decoder.forward` with T = 1 gives the same up to rounding, and stays the definition. The state is always float32.
A `Stepper` is for search. `unroll` is for training with input feeding, where step follows step as well: there the
gradient of a weight is one product over all steps, made when the last of them is known (`late`).

Letters: B sources, N = B·K rows, V vocabulary, S source length, G gates, D width, I input width, M memory width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nmt.cells import Layer, States, masked
from nmt.context import Context
from nmt.decoder import Decoder, Masks, State
from nmt.hardware import computed_in

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}
LARGEST = 2**26  # numbers of a table; where it would have more, the first layer computes like the others

Product = Callable[[Tensor], Tensor]  # of rows (N, I) with weights made ready: (N, O)
Maker = Callable[[Tensor, Tensor | None], Product]  # from weights (O, I) and a bias (O,)


@dataclass(frozen=True)
class Place:
    """Where a search stands: a value, as search wants it."""

    memory: Tensor  # (B, S, M)
    mask: Tensor  # (B, S), (B, 1, S) of an exported model
    keys: Tensor  # (B, S, ·)
    share: Tensor | None  # (B, G·D), the summary's part of the first layer's gates
    summary: Tensor | None  # (B, M), what a decoder without attention has at its output
    parts: Tensor  # (N, ·), the state of every layer and the feed, side by side
    attention: Tensor | None = None  # (N, 1, S), the weights of the last step

    def select(self, rows: Tensor) -> Place:
        """Hypotheses `rows` (N',), the same number for each source in order. The sources do not move."""
        return replace(self, parts=self.parts[rows], attention=None)

    def keep(self, sources: Tensor) -> Place:
        """Only these sources (B',), with all their hypotheses."""
        count = self.mask.size(0)
        fixed = (self.memory, self.mask, self.keys, self.share, self.summary)
        memory, mask, keys, share, summary = (one if one is None else one[sources] for one in fixed)
        assert memory is not None and mask is not None and keys is not None  # noqa: PT018
        parts = self.parts.view(count, -1, self.parts.size(1))[sources].flatten(0, 1)
        return replace(
            self, memory=memory, mask=mask, keys=keys, share=share, summary=summary, parts=parts, attention=None
        )


class Step:
    """One step of a decoder between its embedding and its output layer, with products as `make` makes them."""

    def __init__(self, decoder: Decoder, make: Maker) -> None:
        self.decoder, self.residual = decoder, decoder.lower.residual
        stacks = [decoder.lower, *([decoder.upper] if decoder.upper is not None else [])]
        layers = [layer for stack in stacks for layer in stack.forwards if isinstance(layer, Layer)]
        self.over = decoder.lower.layers  # attention stands over so many
        first, width = layers[0], decoder.embed
        weight = first.weights()[0]  # (G·D, E + feed + summary)
        self.feed = width if decoder.input_feeding else 0
        self.of_piece = (weight[:, :width], _gate_bias(first))  # E to G·D
        self.of_summary = weight[:, width + self.feed :].t() if decoder.context_feeding else None  # (M, G·D)
        self.passes = self.residual and weight.size(1) == first.hidden  # the first layer's input to its output
        self.cells = [_Cell(first, weight[:, width : width + self.feed], None, make)]
        self.cells += [_Cell(layer, layer.weights()[0], _gate_bias(layer), make) for layer in layers[1:]]
        self.widths = [width for cell in self.cells for width in cell.widths] + [self.feed]
        self.readout = make(decoder.readout.weight, decoder.readout.bias)

    def start(self, hidden: States, context: Context) -> Place:
        """The place before the first piece, from the bridge's `hidden`, a tuple of (L, B, D)."""
        keys = self.decoder.attention.prepare(context.memory) if self.decoder.attention else context.memory
        return self.place(context.memory, context.mask, keys, context.final[0][-1], hidden)

    def place(self, memory: Tensor, mask: Tensor, keys: Tensor, summary: Tensor, hidden: States) -> Place:
        """The same where keys (B, S, ·) and summary (B, M) are there already."""
        share = summary @ self.of_summary if self.of_summary is not None else None
        parts = [part[layer] for layer in range(len(self.cells)) for part in hidden]
        parts.append(parts[0].new_zeros(parts[0].size(0), self.feed))
        return Place(memory, mask, keys, share, None if share is None else summary, torch.cat(parts, dim=1).float())

    def __call__(
        self, gates: Tensor, words: Tensor | None, place: Place, drops: Sequence[Tensor | None] | None = None
    ) -> tuple[Tensor, Place]:
        """Features (N, E), and the place after them.

        `gates` (N, G·D) is the pieces' part of the first layer's, `words` (N, E) their embeddings, looked at where
        the step `passes` them on. `drops`: dropout masks (N, ·), after each layer and after the features.
        """
        *states, feed = torch.split(place.parts, self.widths, dim=1)
        known: Tensor | None = gates if place.share is None else gates + _each(place.share, gates)
        x = feed if self.feed else None
        passed = None if words is None else self._first(words, x, place)
        context = weights = None
        ends: list[Tensor] = []
        for number, cell in enumerate(self.cells):
            out, after = cell(x, states[len(ends) : len(ends) + len(cell.widths)], known)
            ends += after
            out = out + passed if passed is not None and passed.shape == out.shape else out
            x, known = masked(out, drops[number] if drops else None), None
            if number + 1 == self.over and self.decoder.attention is not None:
                context, weights = self._attend(out, place)
                x = torch.cat([x, context], dim=1)
            passed = x if self.residual else None
        if context is None and place.summary is not None:
            context = _each(place.summary, out)
        features = self.readout(out if context is None else torch.cat([out, context], dim=1)).tanh()  # (N, E)
        features = masked(features, drops[-1] if drops else None)
        ends += [features] if self.feed else []
        return features, replace(place, parts=torch.cat(ends, dim=1), attention=weights)

    def _first(self, words: Tensor, feed: Tensor | None, place: Place) -> Tensor:
        """The first layer's whole input (N, I)."""
        parts = [words] + ([feed] if feed is not None else [])
        return torch.cat(parts + ([_each(place.summary, words)] if place.summary is not None else []), dim=1)

    def _attend(self, query: Tensor, place: Place) -> tuple[Tensor, Tensor]:
        """Contexts (N, M) and weights (N, 1, S)."""
        assert self.decoder.attention is not None
        grouped = query.view(place.mask.size(0), -1, query.size(1))  # (B, K, D)
        context, weights = self.decoder.attention(grouped, place.keys, place.memory, place.mask)
        return context.flatten(0, 1), weights.flatten(0, 1).unsqueeze(1)


class Stepper:
    """The step of one decoder from pieces to probabilities; where its weights change it has to be made anew.

    `precision` says in what products are computed. Raises ValueError for one that is not in PRECISIONS.
    """

    @torch.no_grad()
    def __init__(self, decoder: Decoder, precision: str = "float32") -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"no precision '{precision}': choose one of {', '.join(PRECISIONS)}")
        make = partial(product, low=PRECISIONS[precision])
        self.embedding, self.step = decoder.embedding, Step(decoder, make)
        self.of_piece = product(*self.step.of_piece)  # (·, E) to (·, G·D)
        vocab, gates = self.embedding.num_embeddings, self.step.of_piece[0].size(0)
        everything = torch.arange(vocab if vocab * gates <= LARGEST else 0, device=decoder.output.weight.device)
        self.table = self.of_piece(self.embedding(everything))  # (V, G·D), or empty
        self.output = make(decoder.output.weight, decoder.output.bias)

    @torch.no_grad()
    def start(self, hidden: States, context: Context) -> Place:
        """The place before the first piece, from the bridge's `hidden`, a tuple of (L, B, D)."""
        return self.step.start(hidden, context)

    @torch.no_grad()
    def __call__(self, tokens: Tensor, place: Place) -> tuple[Tensor, Place]:
        """log p (N, V) of the pieces that follow `tokens` (N,), and the place after them."""
        features, place = self.features(tokens, place)
        return self.log_probs(features), place

    @torch.no_grad()
    def features(self, tokens: Tensor, place: Place) -> tuple[Tensor, Place]:
        """What the output layer takes, (N, E), and the place after `tokens` (N,)."""
        known = len(self.table) > 0
        gates = self.table[tokens] if known else self.of_piece(self.embedding(tokens))
        words = self.embedding(tokens) if self.step.passes else None
        return self.step(gates, words, place)

    @torch.no_grad()
    def log_probs(self, features: Tensor) -> Tensor:
        """log p (N, V) from features (N, E)."""
        return self.output(features).log_softmax(dim=1)


def unroll(decoder: Decoder, tokens: Tensor, state: State) -> tuple[Tensor, Tensor | None]:
    """`Decoder.features` of tokens (N, T) where each step waits for the one before, with gradients.

    The features (N, T, E), and the weights of attention (N, T, S) where there is one.
    """
    words = masked(decoder.embedding(tokens), state.masks.embedding)  # (N, T, E)
    step = Step(decoder, late)
    gates = F.linear(words, *step.of_piece).unbind(1)
    source = state.source
    hidden = (
        tuple(torch.cat(parts) for parts in zip(state.lower, state.upper, strict=True)) if state.upper else state.lower
    )
    place = step.place(source.memory, source.mask, source.keys, source.summary.squeeze(1), hidden)
    passed = words.unbind(1) if step.passes else [None] * len(gates)
    drops = _drops(state.masks, decoder.upper is not None)
    outs, weights = [], []
    for now, word in zip(gates, passed, strict=True):
        features, place = step(now, word, place, drops)
        outs.append(features)
        weights += [] if place.attention is None else [place.attention]
    return torch.stack(outs, dim=1), torch.cat(weights, dim=1) if weights else None


def _drops(masks: Masks, upper: bool) -> list[Tensor | None]:
    """The masks (N, ·) after each layer, of which the last has none, and after the features."""
    layers = [*masks.lower, *([masks.between, *masks.upper] if upper else [])]
    return [None if mask is None else mask.squeeze(1) for mask in (*layers, None, masks.output)]


class _Cell:
    """One layer's step. `weight` (G·D, I) and `bias` are for the inputs that are not in the table."""

    def __init__(self, layer: Layer, weight: Tensor, bias: Tensor | None, make: Maker) -> None:
        _, recurrent, _, hidden_bias = layer.dropped()
        self.kind, self.width = layer.cell, layer.hidden
        self.widths = [layer.hidden] * (2 if layer.cell == "lstm" else 1)
        if layer.cell == "gru":  # what the reset gate scales stands apart
            self.inputs = make(weight, bias) if weight.size(1) else None
            self.recurrent = make(recurrent, hidden_bias)
        else:
            self.both = make(torch.cat([weight, recurrent], dim=1), bias)

    def __call__(self, x: Tensor | None, state: Sequence[Tensor], gates: Tensor | None) -> tuple[Tensor, States]:
        """Output and state (N, D) from inputs (N, I), ready-made gates (N, G·D), or both."""
        h = state[0]
        if self.kind == "gru":
            return self._gru(x, h, gates)
        own = self.both(h if x is None else torch.cat([x, h], dim=1))
        gates = own if gates is None else own + gates
        if self.kind == "rnn":
            h = gates.tanh()
            return h, (h,)
        i, f, g, o = torch.split(gates, self.width, dim=1)
        c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return h, (h, c)

    def _gru(self, x: Tensor | None, h: Tensor, gates: Tensor | None) -> tuple[Tensor, States]:
        if self.inputs is not None and x is not None:
            gates = self.inputs(x) if gates is None else gates + self.inputs(x)
        assert gates is not None
        own = self.recurrent(h)
        two = 2 * self.width
        r, z = torch.split((gates[:, :two] + own[:, :two]).sigmoid(), self.width, dim=1)
        n = (gates[:, two:] + r * own[:, two:]).tanh()
        h = torch.lerp(n, h, z)
        return h, (h,)


def _gate_bias(layer: Layer) -> Tensor:
    """The bias of a layer's gates (G·D,); a GRU's recurrent one stays with its product."""
    _, _, bias, hidden_bias = layer.weights()
    return bias if layer.cell == "gru" else bias + hidden_bias


def _each(summary: Tensor, rows: Tensor) -> Tensor:
    """What is known of each source (B, ·), for every row (N, ·)."""
    return summary.repeat_interleave(rows.size(0) // summary.size(0), dim=0)


def product(weight: Tensor, bias: Tensor | None, low: torch.dtype = torch.float32) -> Product:
    """x Wᵀ + b for weights (O, I) that do not change any more, computed in `low`."""
    if low == torch.float32:
        turned = weight.t().contiguous()  # few rows are multiplied faster along the columns
        if bias is None:
            return lambda x: x @ turned
        return lambda x: torch.addmm(bias, x, turned)
    weight, low_bias = weight.to(low), None if bias is None else bias.to(low)
    if low == torch.bfloat16 and weight.device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pack, linear = torch.ops.mkldnn._reorder_linear_weight, torch.ops.mkldnn._linear_pointwise
        packed = pack(weight)
        return lambda x: linear(x.to(low), packed, low_bias, "none", [], "").float()
    return lambda x: F.linear(x.to(low), weight, low_bias).float()


def late(weight: Tensor, bias: Tensor | None) -> Product:
    """x Wᵀ + b with gradients: for x at once, for the weights when all steps are known, in one product."""
    steps = _Steps(weight.detach(), None if bias is None else bias.detach(), computed_in(weight))
    anchor = _Anchor.apply(weight, bias, steps)  # type: ignore[no-untyped-call]
    return lambda x: _Late.apply(x, anchor, steps)  # type: ignore[no-untyped-call]


class _Steps:
    """What goes in at each step and comes back, of one product."""

    def __init__(self, weight: Tensor, bias: Tensor | None, low: torch.dtype) -> None:
        self.low = low
        self.forward, self.backward = product(weight, bias, low), product(weight.t(), None, low)
        self.inputs: list[Tensor] = []
        self.outer: dict[int, Tensor] = {}  # by step


class _Anchor(torch.autograd.Function):
    """What every step depends on, so that its gradient comes last."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, steps: _Steps) -> Tensor:
        ctx.steps, ctx.biased = steps, bias is not None
        return weight.new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, Tensor | None, None]:
        steps = ctx.steps
        outer = torch.cat([steps.outer[number] for number in range(len(steps.inputs))])  # (T·N, O)
        to_weight = outer.t() @ torch.cat(steps.inputs)
        return to_weight.float(), outer.sum(0, dtype=torch.float32) if ctx.biased else None, None


class _Late(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, steps: _Steps) -> Tensor:
        ctx.steps, ctx.number = steps, len(steps.inputs)
        low = x.to(steps.low)
        steps.inputs.append(low)
        return steps.forward(low)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor, None]:
        low = outer.to(ctx.steps.low)
        ctx.steps.outer[ctx.number] = low
        return ctx.steps.backward(low), outer.new_zeros(()), None
