"""What passes from an encoder to a decoder, and how it becomes the decoder's first state.

    copy     h₀ = final state of the encoder
    linear   h₀ = tanh(W [fwd; bwd] + b), per layer                (Bahdanau et al. 2015, appendix A.2.2)
    zero     h₀ = 0

Letters: B batch, S source length, L layers, M width of the encoder's output.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nmt.cells import States

BRIDGES = ("linear", "copy", "zero")


@dataclass(frozen=True)
class Context:
    """All a decoder may know of the source."""

    memory: Tensor  # (B, S, M), one vector per source position
    mask: Tensor  # (B, S), True on real positions
    final: States  # tuple of (L, B, M), the summary: all that a decoder without attention has


class Bridge(nn.Module):
    """From the final states of an encoder, (layers, B, width), to the first states of a decoder.

    Where the decoder is deeper or shallower, layers meet at the top: its last layer starts from the encoder's last.
    A cell state comes from the encoder's cell state, and is zero where the encoder has none.

    Raises ValueError for a kind that is not in BRIDGES, and for `copy` between unequal shapes.
    """

    def __init__(self, kind: str, cells: tuple[str, str], layers: tuple[int, int], widths: tuple[int, int]) -> None:
        """Each pair is (encoder, decoder)."""
        super().__init__()
        if kind not in BRIDGES:
            raise ValueError(f"no bridge '{kind}': choose one of {', '.join(BRIDGES)}")
        self.kind = kind
        self.parts = 2 if cells[1] == "lstm" else 1
        self.carried = 2 if cells == ("lstm", "lstm") else 1
        self.layers, self.width = layers[1], widths[1]
        self.sources = [max(0, layers[0] - layers[1] + layer) for layer in range(layers[1])]
        if kind == "copy" and (layers[0] != layers[1] or widths[0] != widths[1] or self.carried != self.parts):
            raise ValueError(
                f"bridge 'copy' needs equal shapes: the encoder has {layers[0]} layers of {widths[0]} ({cells[0]}), "
                f"the decoder {layers[1]} of {widths[1]} ({cells[1]}): make them equal or use 'linear'"
            )
        maps = self.layers * self.carried if kind == "linear" else 0
        self.maps = nn.ModuleList(nn.Linear(widths[0], widths[1]) for _ in range(maps))

    def forward(self, final: States) -> States:
        """The decoder's first state, a tuple of (L, B, D)."""
        if self.kind == "copy":
            return final[: self.parts]
        zero = final[0].new_zeros(self.layers, final[0].size(1), self.width)
        if self.kind == "zero":
            return (zero,) * self.parts
        state = [self._part(part, final[part]) for part in range(self.carried)]
        return tuple(state + [zero] * (self.parts - self.carried))

    def _part(self, part: int, final: Tensor) -> Tensor:
        maps = self.maps[part * self.layers : (part + 1) * self.layers]
        return torch.stack([torch.tanh(map(final[source])) for map, source in zip(maps, self.sources, strict=True)])
