"""Examples: where a model has read what, so that it can look there while it writes.

    p'(y) = (1 - λ) p(y) + λ Σ_i a_i [y_i = y]
    a = softmax_i(-|W f - k_i|² / (τ v) + β cos(x, x_i))

f are the decoder's features before its output layer, k_i = W f_i what they were at position i of a pair that it read,
y_i the piece that followed there (Khandelwal et al. 2021, section 2). W leads to their principal components, v is the
variance of f. Looked at are the positions of those pairs alone whose sources x_i are most like x (Deguchi et al. 2023,
section 3), all of them: so this is attention over sentences. cos compares the pieces of two sources, the rare ones
having more weight: log (pairs / pairs that have it).

Letters: P positions, N rows, E width of features, C components, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmt.checkpoint import read_notes, read_shapes, read_tensors, write_tensors
from nmt.errors import CheckpointError

FILE = "examples.safetensors"
COMPONENTS = 64  # C, at most
PAIRS = 512  # that are looked at, those most like the source
TEMPERATURE, LIKENESS = 0.1, 10.0  # τ and β
STEPS = 127  # from 0 to the largest number that a key can have


class Seen(NamedTuple):
    """What is looked at for one source."""

    keys: Tensor  # (P, C), int8: most of what a search holds, and a quarter of what float32 would be
    bias: Tensor  # (P,), all that does not depend on the features
    pieces: Tensor  # (P,)


@dataclass(frozen=True)
class Examples:
    """The pairs that a model has read, and its features there. Of the targets <eos> is a position as well."""

    keys: Tensor  # (P, C), int8
    pieces: Tensor  # (P,), int32
    sizes: Tensor  # positions of each pair, int32
    sources: Tensor  # the pieces of all sources, int32
    source_sizes: Tensor  # pieces of each source, int32
    basis: Tensor  # (E, C), W
    step: Tensor  # (), what 1 is in the keys
    variance: Tensor  # (), v
    stamp: Tensor  # of the model, uint8

    @cached_property
    def index(self) -> Index:
        return Index(self.sources.numpy(), self.source_sizes.numpy())

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The first position of each pair."""
        sizes = self.sizes.numpy().astype(np.int64)
        return np.cumsum(sizes) - sizes

    @property
    def _sharpness(self) -> Tensor:
        return 1 / (TEMPERATURE * self.variance)

    @cached_property
    def _turned(self) -> Tensor:
        """(E, C), from features to what is multiplied with keys: W in their steps, times 2 / (τ v)."""
        return 2 * self._sharpness * self.step * self.basis

    def __len__(self) -> int:
        return len(self.sizes)

    def near(self, source: Sequence[int], device: torch.device) -> Seen:
        """What to look at for a source."""
        pairs, likeness = self.index.likest(source, PAIRS)
        sizes = self.sizes.numpy()[pairs]
        before = np.cumsum(sizes) - sizes
        places = torch.from_numpy(np.repeat(self.starts[pairs] - before, sizes) + np.arange(sizes.sum()))
        keys = self.keys[places]
        alike = torch.from_numpy(np.repeat(likeness, sizes).astype(np.float32))
        bias = LIKENESS * alike - self._sharpness * (keys.float() * self.step).square().sum(1)
        return Seen(keys.to(device), bias.to(device), self.pieces[places].long().to(device))

    def said(self, features: Tensor, seen: Sequence[Seen], vocab: int) -> Tensor:
        """Σ_i a_i [y_i = y], (N, V), for features (N, E), the same number of rows for each source in order."""
        found = features.new_zeros(len(features), vocab)
        queries = features @ self._turned.to(features.device)  # (N, C)
        rows = len(features) // len(seen)
        for number, one in enumerate(seen):
            own = slice(number * rows, (number + 1) * rows)
            weights = torch.addmm(one.bias, queries[own], one.keys.float().t()).softmax(1)  # (rows, P)
            found[own].scatter_add_(1, one.pieces.expand_as(weights), weights)
        return found

    def write(self, folder: Path, files: Sequence[str] = ()) -> None:
        """`files` are those that were read besides what the recipe names."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        write_tensors(folder / FILE, tensors, {"files": json.dumps(files)})

    @classmethod
    def read(cls, folder: Path, stamp: str) -> Examples | None:
        """Those of a model folder, if it has any. Raises CheckpointError where they are of another model."""
        path = folder / FILE
        if not path.exists():
            return None
        tensors = read_tensors(path)
        if tensors.keys() != {field.name for field in fields(cls)}:
            raise CheckpointError(f"{path}: not what nmt writes there: remove it, or run `nmt remember {folder}` again")
        found = cls(**tensors)
        if not torch.equal(found.stamp, stamped(stamp)):
            raise CheckpointError(
                f"{path}: read by another model, or before this one was trained on: "
                f"run `nmt remember {folder}` again, or remove it"
            )
        return found


def count(folder: Path) -> int:
    """How many pairs a model folder has examples of. Raises CheckpointError where the file is not what it should be."""
    path = folder / FILE
    return read_shapes(path).get("sizes", (0,))[0] if path.exists() else 0


def files(folder: Path) -> list[str]:
    """Which files the examples of a model folder come from, besides those that its recipe names."""
    path = folder / FILE
    return list(json.loads(read_notes(path).get("files", "[]"))) if path.exists() else []


class Index:
    """Which sources have which pieces: `flat` are those of all sources, `sizes` how many each has."""

    def __init__(self, flat: NDArray[np.int32], sizes: NDArray[np.int32]) -> None:
        self.count, width = len(sizes), int(flat.max(initial=0)) + 1
        of = np.repeat(np.arange(self.count, dtype=np.int64), sizes)
        of, pieces = np.divmod(np.unique(of * width + flat), width)  # each piece of a source once
        have = np.bincount(pieces, minlength=width)
        self.weights = np.log(self.count / np.maximum(have, 1))  # of the pieces
        norms = np.sqrt(np.bincount(of, self.weights[pieces] ** 2, self.count))
        order = np.argsort(pieces, kind="stable")
        self.sources = of[order].astype(np.int32)  # of the first piece, of the second, ...
        self.shares = (self.weights[pieces] / np.maximum(norms[of], 1e-9))[order].astype(np.float32)
        self.starts = np.cumsum([0, *have])

    def likest(self, source: Sequence[int], count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The `count` sources most like this one, and the cosines."""
        known = [piece for piece in set(source) if piece < len(self.weights)]
        norm = max(1e-9, float(np.sqrt((self.weights[known] ** 2).sum())))
        alike = np.zeros(self.count, np.float32)
        for piece in known:
            own = slice(self.starts[piece], self.starts[piece + 1])
            alike[self.sources[own]] += self.shares[own] * np.float32(self.weights[piece] / norm)
        best = np.argpartition(-alike, min(count, self.count) - 1)[:count]
        return best, alike[best]


class Compressed:
    """Keys in few bytes: made for features like those of a sample (P, E), of any of which it makes keys."""

    def __init__(self, sample: Tensor) -> None:
        centred = (sample - sample.mean(0)).double()
        values, vectors = torch.linalg.eigh(centred.t() @ centred / max(1, len(sample)))
        self.variance = values.sum().clamp_min(1e-9).float()
        self.basis = vectors.flip(1)[:, :COMPONENTS].float().contiguous()  # the largest first
        self.step = ((sample @ self.basis).abs().max() / STEPS).clamp_min(1e-9)

    def __call__(self, features: Tensor) -> Tensor:
        """Keys (P, C), int8, of features (P, E)."""
        keys: Tensor = (features @ self.basis) / self.step
        return keys.round().clamp(-STEPS, STEPS).to(torch.int8)


def stamped(stamp: str) -> Tensor:
    return torch.frombuffer(bytearray(stamp.encode()), dtype=torch.uint8).clone()
