"""Recurrent layers: `rnn`, `lstm` and `gru`, stacked. And what lies around them: embeddings, dropout.

    rnn   h' = tanh(W x + U h + b)                                           (Elman 1990)
    lstm  i, f, o = sigma(W x + U h + b);  g = tanh(...)
          c' = f*c + i*g;  h' = o*tanh(c')                                   (Hochreiter and Schmidhuber 1997)
    gru   r, z = sigma(W x + U h + b);  n = tanh(W x + b + r*(U h + b'))
          h' = (1 - z)*n + z*h                                               (Cho et al. 2014)

The state of a stack is always a tuple of (L, B, D) tensors: (h, c) for an LSTM, (h,) for the others.
Padding never changes a state. Instead of packed sequences, which run step by step on a CPU, each row is reversed by
its own length, and a cell that has to stop at a row's end is frozen there by its own gates: an extra input, 1 on
padding, has weights so large that the LSTM keeps c (i = 0, f = 1) and the GRU keeps h (z = 1), exactly.

Letters: B batch, T steps, L layers, D width, I input width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CELLS: dict[str, type[nn.RNN] | type[nn.LSTM] | type[nn.GRU]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
_CALLS: dict[str, Callable[..., tuple[Tensor, ...]]] = {"rnn": torch.rnn_tanh, "lstm": torch.lstm, "gru": torch.gru}
EVEN = 16  # inputs come in multiples of it: with one more the bf16 kernel is four times as slow
_SHUT = 1e4  # sigmoid(+-1e4) is exactly 1 or 0 in float32, bfloat16 and float16

States = tuple[Tensor, ...]


class Shares(NamedTuple):
    """What dropout takes of embeddings, between layers, of outputs, and of the recurrent weights."""

    embedding: float = 0.0
    layers: float = 0.0
    output: float = 0.0
    recurrent: float = 0.0


NO_DROPOUT = Shares()


class Embedding(nn.Embedding):
    """Embeddings that reach the recurrent layers with unit variance and serve, tied, as output weights."""

    def __init__(self, vocab: int, width: int) -> None:
        super().__init__(vocab, width)
        nn.init.normal_(self.weight, std=width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.mul(super().forward(tokens), self.embedding_dim**0.5)


class Dropout(nn.Module):
    """Dropout with one mask for all steps of a sequence (Gal and Ghahramani 2016, section 4)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def mask(self, like: Tensor, width: int) -> Tensor | None:
        """A fresh mask (B, 1, width) for the rows of `like` (B, ...); None where nothing is dropped."""
        if not self.training or not self.p:
            return None
        keep = 1 - self.p
        return torch.empty(like.size(0), 1, width, device=like.device).bernoulli_(keep).div_(keep)

    def forward(self, x: Tensor) -> Tensor:
        return masked(x, self.mask(x, x.size(-1)))


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask.to(x.dtype)


def thinned(weight: Tensor, share: float) -> Tensor:
    """Dropout of single weights, with a byte of randomness for each: on a CPU in a quarter of `F.dropout`'s time.

    So the share is rounded to 256ths.
    """
    cut = min(round(256 * share), 255)
    words = torch.empty(-(-weight.numel() // 8), dtype=torch.int64, device=weight.device)
    drawn = words.random_(-(2**63), None).view(torch.uint8)[: weight.numel()].view_as(weight)
    return weight * ((drawn >= cut) * (256 / (256 - cut)))


class Layer(nn.Module):
    """One recurrent layer in one direction: (B, T, I) and a state of (1, B, D) tensors to (B, T, D) and a state.

    In training `drop` of the recurrent weights are left out of all steps of a call (Merity et al. 2018, section 2).
    """

    def __init__(self, cell: str, inputs: int, hidden: int, drop: float = 0.0) -> None:
        super().__init__()
        self.cell = cell
        self.inputs = inputs
        self.hidden = hidden
        self.drop = drop
        self.rnn = CELLS[cell](inputs, hidden, batch_first=True)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot for inputs, orthogonal for each recurrent gate, forget gate open (Jozefowicz et al. 2015)."""
        inputs, recurrent, *biases = self.weights()
        nn.init.xavier_uniform_(inputs)
        for gate in torch.split(recurrent.data, self.hidden):
            nn.init.orthogonal_(gate)
        for bias in biases:
            nn.init.zeros_(bias)
        if self.cell == "lstm":
            biases[0].data[self.hidden : 2 * self.hidden] = 1.0

    def weights(self) -> list[Tensor]:
        """W (G·D, I), U (G·D, D) and their biases (G·D,), the gates in the order of torch.nn."""
        return list(self.rnn.all_weights[0])

    def dropped(self) -> list[Tensor]:
        """The same, without what is left out in training."""
        inputs, recurrent, *biases = self.weights()
        if self.training and self.drop:
            recurrent = thinned(recurrent, self.drop)
        return [inputs, recurrent, *biases]

    def start(self, x: Tensor) -> States:
        """The zero state for the rows of x."""
        zero = torch.zeros(1, x.size(0), self.hidden, dtype=x.dtype, device=x.device)
        return (zero, zero) if self.cell == "lstm" else (zero,)

    def forward(self, x: Tensor, state: States, real: Tensor | None = None) -> tuple[Tensor, States]:
        """Run over all steps. Where `real` (B, T) is False the state stands still and the output means nothing."""
        weights = self.dropped()
        if real is not None:
            spare = EVEN - x.size(2) % EVEN  # columns, of which the first says "this step is padding"
            x = torch.cat([x, F.pad((~real).to(x.dtype).unsqueeze(2), (0, spare - 1))], dim=2)  # (B, T, I + spare)
            weights[0] = torch.cat([weights[0], self._freeze(weights[0], spare)], dim=1)  # (G·D, I + spare)
        start = tuple(part.to(x.dtype) for part in state)
        hidden = start if self.cell == "lstm" else start[0]
        out, *end = _CALLS[self.cell](x, hidden, weights, True, 1, 0.0, self.training, False, True)
        if real is not None:
            last = (real.sum(1) - 1).view(-1, 1, 1).expand(-1, 1, self.hidden)  # (B, 1, D)
            end[0] = out.gather(1, last).transpose(0, 1)  # the tanh cell and the LSTM's h have no gate to hold them
        return out, tuple(end)

    def _freeze(self, like: Tensor, spare: int) -> Tensor:
        """The weights (G·D, spare) of the spare columns, in the gate order of torch.nn."""
        columns = like.new_zeros(like.size(0) // self.hidden, self.hidden, spare)
        if self.cell == "lstm":  # i, f, g, o
            columns[0, :, 0], columns[1, :, 0] = -_SHUT, _SHUT
        elif self.cell == "gru":  # r, z, n
            columns[1, :, 0] = _SHUT
        return columns.flatten(0, 1)


class Recurrent(nn.Module):
    """A stack of L layers, in one direction or both.

    With `both` every layer reads the sequence forwards and backwards and gives the two outputs side by side; its
    width is then 2 D and so is that of its final state. `residual` adds a layer's input to its output where the
    widths agree (He et al. 2016; Wu et al. 2016, section 3.1).
    """

    def __init__(
        self,
        cell: str,
        inputs: int,
        hidden: int,
        layers: int = 1,
        dropout: float = 0.0,
        both: bool = False,
        residual: bool = False,
        drop_recurrent: float = 0.0,
    ) -> None:
        super().__init__()
        self.cell = cell
        self.width = hidden * (2 if both else 1)
        self.residual = residual
        widths = [inputs] + [self.width] * (layers - 1)
        each = [nn.ModuleList(Layer(cell, i, hidden, drop_recurrent) for i in widths) for _ in range(2 if both else 1)]
        self.forwards, self.backwards = each[0], each[1] if both else None
        self.dropout = Dropout(dropout)

    @property
    def layers(self) -> int:
        return len(self.forwards)

    def masks(self, like: Tensor) -> tuple[Tensor | None, ...]:
        """Dropout masks between the layers for the rows of `like`, to be held over several calls."""
        return tuple(self.dropout.mask(like, self.width) for _ in range(self.layers - 1))

    def forward(
        self,
        x: Tensor,
        state: States | None = None,
        lengths: Tensor | None = None,
        masks: tuple[Tensor | None, ...] | None = None,
    ) -> tuple[Tensor, States]:
        """Outputs (B, T, width) and the final state, a tuple of (L, B, width) tensors.

        `lengths` (B,) says how many steps of each row are real; without it all are. `state` is for one direction.
        """
        masks = self.masks(x) if masks is None else masks
        real = back = None
        if lengths is not None:
            real, back = reversal(lengths, x.size(1))
            real = None if bool(real.all()) else real
        ends: list[States] = []
        for number in range(self.layers):
            start = None if state is None else tuple(part[number : number + 1] for part in state)
            x_in = masked(x, masks[number - 1]) if number else x
            out, end = self._layer(number, x_in, start, real, back)
            x = x_in + out if self.residual and out.shape == x_in.shape else out
            ends.append(end)
        return x, tuple(torch.cat(parts) for parts in zip(*ends, strict=True))

    def _layer(
        self, number: int, x: Tensor, start: States | None, real: Tensor | None, back: Tensor | None
    ) -> tuple[Tensor, States]:
        forwards = self.forwards[number]
        assert isinstance(forwards, Layer)
        start = forwards.start(x) if start is None else start
        out, end = forwards(x, start, real)
        if self.backwards is None:
            return out, end
        backwards = self.backwards[number]
        reversed_x = reorder(x, back)
        out_back, end_back = backwards(reversed_x, start, real)
        out = torch.cat([out, reorder(out_back, back)], dim=2)  # (B, T, 2 D)
        return out, tuple(torch.cat(pair, dim=2) for pair in zip(end, end_back, strict=True))


def reversal(lengths: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Which of the steps are real, and the order that turns each row round by its own length; both (B, T)."""
    places = torch.arange(steps, device=lengths.device)  # (T,)
    real = places < lengths.unsqueeze(1)
    return real, torch.where(real, lengths.unsqueeze(1) - 1 - places, places)


def reorder(x: Tensor, order: Tensor | None) -> Tensor:
    """The steps of x (B, T, D) in each row's own order (B, T), which is its own inverse; all backwards without one."""
    return x.flip(1) if order is None else _Reorder.apply(x, order)  # type: ignore[no-untyped-call]


class _Reorder(torch.autograd.Function):
    """Whole steps are copied, and the order is its own inverse in the gradient too: five times as fast as gather."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor) -> Tensor:
        rows = torch.arange(order.size(0), device=order.device).unsqueeze(1)
        ctx.places = (order + rows * order.size(1)).flatten()  # (B·T,)
        return _selected(x, ctx.places)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None]:
        return _selected(outer, ctx.places), None


def _selected(x: Tensor, places: Tensor) -> Tensor:
    return x.flatten(0, 1).index_select(0, places).view_as(x)
