"""A decoder made ready for search: its step, with all that does not depend on the state done beforehand.

    first layer     E W_xᵀ + b is a table (V, G·D): a piece's share of the gates is read, not computed
    other layers    [x; h] [W U]ᵀ + b: one product instead of two
    per source      keys, and a summary's share of gates and output, once
    state           one matrix (N, ·): hypotheses are reordered by one selection

`Decoder.forward` with T = 1 gives the same up to rounding, and stays the definition. `precision` says in what products
are computed; the state is always float32.

Letters: B sources, N = B·K rows, V vocabulary, S source length, G gates, D width, I input width, M memory width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from nmt.cells import Layer, States
from nmt.context import Context
from nmt.decoder import Decoder

PRECISIONS = ("float32", "bf16")
LARGEST = 2**26  # numbers of a table; where it would have more, the first layer computes like the others

Product = Callable[[Tensor], Tensor]  # of rows (N, I) with weights made ready: (N, O)


@dataclass(frozen=True)
class Place:
    """Where a search stands: a value, as search wants it."""

    memory: Tensor  # (B, S, M)
    mask: Tensor  # (B, S)
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
        return Place(memory, mask, keys, share, summary, parts)


class Stepper:
    """The step of one decoder, with its weights as they are now.

    Raises ValueError for a precision that is not in PRECISIONS.
    """

    @torch.no_grad()
    def __init__(self, decoder: Decoder, precision: str = "float32") -> None:
        self.decoder, self.residual = decoder, decoder.lower.residual
        stacks = [decoder.lower, *([decoder.upper] if decoder.upper is not None else [])]
        layers = [layer for stack in stacks for layer in stack.forwards if isinstance(layer, Layer)]
        self.over = decoder.lower.layers  # attention stands over so many
        first, width = layers[0], decoder.embed
        weight = first.weights()[0]  # (G·D, E + feed + summary)
        self.feed = width if decoder.input_feeding else 0
        self.of_piece = product(weight[:, :width], _gate_bias(first))  # (·, E) to (·, G·D)
        vocab = decoder.embedding.num_embeddings
        everything = torch.arange(vocab if vocab * weight.size(0) <= LARGEST else 0, device=weight.device)
        self.table = self.of_piece(decoder.embedding(everything))  # (V, G·D), or empty
        self.of_summary = weight[:, width + self.feed :].t() if decoder.context_feeding else None  # (M, G·D)
        self.passes = self.residual and weight.size(1) == first.hidden  # the first layer's input to its output
        self.cells = [_Cell(first, weight[:, width : width + self.feed], None, precision)]
        self.cells += [_Cell(layer, layer.weights()[0], _gate_bias(layer), precision) for layer in layers[1:]]
        self.widths = [width for cell in self.cells for width in cell.widths] + [self.feed]
        self.readout = product(decoder.readout.weight, decoder.readout.bias, precision)
        self.output = product(decoder.output.weight, decoder.output.bias, precision)

    @torch.no_grad()
    def start(self, hidden: States, context: Context) -> Place:
        """The place before the first piece, from the bridge's `hidden`, a tuple of (L, B, D)."""
        decoder = self.decoder
        keys = decoder.attention.prepare(context.memory) if decoder.attention else context.memory
        summary = context.final[0][-1] if decoder.context_feeding else None  # (B, M)
        share = summary @ self.of_summary if summary is not None and self.of_summary is not None else None
        parts = [part[layer] for layer in range(len(self.cells)) for part in hidden]
        parts.append(parts[0].new_zeros(parts[0].size(0), self.feed))
        return Place(context.memory, context.mask, keys, share, summary, torch.cat(parts, dim=1))

    @torch.no_grad()
    def __call__(self, tokens: Tensor, place: Place) -> tuple[Tensor, Place]:
        """log p (N, V) of the pieces that follow `tokens` (N,), and the place after them."""
        *states, feed = torch.split(place.parts, self.widths, dim=1)
        gates: Tensor | None = self._ready(tokens, place)
        x = feed if self.feed else None
        passed = self._first(tokens, x, place) if self.passes else None
        context = weights = None
        ends: list[Tensor] = []
        for number, cell in enumerate(self.cells):
            out, after = cell(x, states[len(ends) : len(ends) + len(cell.widths)], gates)
            ends += after
            out = out + passed if passed is not None and passed.shape == out.shape else out
            x, gates = out, None
            if number + 1 == self.over and self.decoder.attention is not None:
                context, weights = self._attend(out, place)
                x = torch.cat([out, context], dim=1)
            passed = x if self.residual else None
        if context is None and place.summary is not None:
            context = _each(place.summary, out)
        features = self.readout(out if context is None else torch.cat([out, context], dim=1)).tanh()  # (N, E)
        ends += [features] if self.feed else []
        log_probs = self.output(features).log_softmax(dim=1)
        return log_probs, replace(place, parts=torch.cat(ends, dim=1), attention=weights)

    def _ready(self, tokens: Tensor, place: Place) -> Tensor:
        """The first layer's gates (N, G·D), as far as they are known without its state."""
        known = len(self.table) > 0
        gates = self.table[tokens] if known else self.of_piece(self.decoder.embedding(tokens))
        return gates if place.share is None else gates + _each(place.share, gates)

    def _first(self, tokens: Tensor, feed: Tensor | None, place: Place) -> Tensor:
        """The first layer's whole input (N, I)."""
        parts = [self.decoder.embedding(tokens)] + ([feed] if feed is not None else [])
        return torch.cat(parts + ([_each(place.summary, parts[0])] if place.summary is not None else []), dim=1)

    def _attend(self, query: Tensor, place: Place) -> tuple[Tensor, Tensor]:
        """Contexts (N, M) and weights (N, 1, S)."""
        assert self.decoder.attention is not None
        grouped = query.view(place.mask.size(0), -1, query.size(1))  # (B, K, D)
        context, weights = self.decoder.attention(grouped, place.keys, place.memory, place.mask)
        return context.flatten(0, 1), weights.flatten(0, 1).unsqueeze(1)


class _Cell:
    """One layer's step. `weight` (G·D, I) and `bias` are for the inputs that are not in the table."""

    def __init__(self, layer: Layer, weight: Tensor, bias: Tensor | None, precision: str) -> None:
        _, recurrent, _, hidden_bias = layer.weights()
        self.kind, self.width = layer.cell, layer.hidden
        self.widths = [layer.hidden] * (2 if layer.cell == "lstm" else 1)
        if layer.cell == "gru":  # what the reset gate scales stands apart
            self.inputs = product(weight, bias, precision) if weight.size(1) else None
            self.recurrent = product(recurrent, hidden_bias, precision)
        else:
            self.both = product(torch.cat([weight, recurrent], dim=1), bias, precision)

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


def product(weight: Tensor, bias: Tensor | None, precision: str = "float32") -> Product:
    """x Wᵀ + b for weights (O, I) that do not change any more."""
    if precision == "float32":
        turned = weight.t().contiguous()  # few rows are multiplied faster along the columns
        if bias is None:
            return lambda x: x @ turned
        return lambda x: torch.addmm(bias, x, turned)
    if precision != "bf16":
        raise ValueError(f"no precision '{precision}': choose one of {', '.join(PRECISIONS)}")
    weight = weight.bfloat16()
    low = None if bias is None else bias.bfloat16()
    if weight.device.type == "cpu" and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        pack, linear = torch.ops.mkldnn._reorder_linear_weight, torch.ops.mkldnn._linear_pointwise
        packed = pack(weight)
        return lambda x: linear(x.bfloat16(), packed, low, "none", [], "").float()
    return lambda x: F.linear(x.bfloat16(), weight, low).float()
