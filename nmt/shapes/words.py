"""Whole words as a vocabulary, for text that is tokenised already: what stands between spaces is a word.

    e(w) = (E_w + Σ_g E_g / √n) / √2,  g the n n-grams of the letters of <w>    (Bojanowski et al. 2017, section 3.2)

A word that is rare, or was never seen, still has a stem and an ending, which others share.

Letters: B lines, S length of a line, F features of a word, the word itself and its n-grams.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt.cells import Embedding
from nmt.checkpoint import list_bytes, read_list
from nmt.data import Batch, collate, pad
from nmt.tokenizer import PAD, UNK

SHORTEST = 3  # letters of an n-gram, the ends of the word among them


def dropped(ids: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
    """Ids of any shape with that share of the known ones <unk> (Gal and Ghahramani 2016; Sennrich et al. 2016)."""
    chosen = torch.rand(ids.shape, generator=generator, device=ids.device) < share
    return ids.masked_fill(chosen & (ids > UNK), UNK)  # padding and ends stay


class Words:
    """Words and their ids, <unk> for all others."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self._ids = {word: number for number, word in enumerate(self.words, start=UNK + 1)}

    @classmethod
    def of(cls, lines: Iterable[str], least: int = 1) -> Self:
        """The words that occur `least` times, the most frequent first."""
        counts = Counter(word for line in lines for word in line.split())
        kept = sorted((-count, word) for word, count in counts.items() if count >= least)
        return cls([word for _, word in kept])

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises CheckpointError."""
        return cls(read_list(path, "words"))

    @property
    def vocab(self) -> int:
        return len(self.words) + UNK + 1

    @property
    def proto(self) -> bytes:
        return list_bytes(self.words)

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """The ids of each line."""
        return [[self._ids.get(word, UNK) for word in line.split()] for line in lines]


class Spelled:
    """Words and the n-grams of their letters, as features of each position."""

    def __init__(self, words: Words, ngrams: Sequence[str]) -> None:
        self.words, self.ngrams = words, list(ngrams)
        self.longest = max(map(len, self.ngrams), default=0)
        self._ids = {ngram: number for number, ngram in enumerate(self.ngrams, start=words.vocab)}

    @classmethod
    def of(cls, lines: Sequence[str], least: int, longest: int) -> Self:
        """The words that occur `least` times, and the n-grams that so many different words have."""
        counts = Counter(
            ngram for word in {word for line in lines for word in line.split()} for ngram in spelling(word, longest)
        )
        return cls(Words.of(lines, least), sorted(ngram for ngram, count in counts.items() if count >= least))

    @property
    def vocab(self) -> int:
        return self.words.vocab + len(self.ngrams)

    def encode(self, lines: Sequence[str]) -> list[list[list[int]]]:
        """The features of each word of each line: its id, then those of its n-grams."""
        return [
            [
                [word, *(self._ids[ngram] for ngram in spelling(text, self.longest) if ngram in self._ids)]
                for word, text in zip(ids, line.split(), strict=True)
            ]
            for ids, line in zip(self.words.encode(lines), lines, strict=True)
        ]


def spelling(word: str, longest: int) -> list[str]:
    """The n-grams of a word's letters, each once, of SHORTEST to `longest`."""
    text = f"<{word}>"
    sizes = range(SHORTEST, longest + 1)
    return list(dict.fromkeys(text[at : at + size] for size in sizes for at in range(len(text) - size + 1)))


def spelled(lines: Sequence[Sequence[Sequence[int]]]) -> Batch:
    """Features of words as a batch, its source (B, S, F)."""
    words = collate([[features[0] for features in line] for line in lines], [[]] * len(lines))
    rows, steps = words.source.shape
    ngrams = pad([line[at][1:] if at < len(line) else [PAD] for line in lines for at in range(steps)])  # (B·S, F - 1)
    return replace(words, source=torch.cat([words.source.unsqueeze(2), ngrams.view(rows, steps, -1)], dim=2))


class Spelling(nn.Module):
    """The embedding of words by their features."""

    def __init__(self, embedding: Embedding) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, S, F) to (B, S, E), of unit variance as those of words alone."""
        words, ngrams = features[:, :, 0], features[:, :, 1:].flatten(0, 1)
        count = (ngrams != PAD).sum(1, keepdim=True).clamp_min(1)
        total = F.embedding_bag(ngrams, self.embedding.weight, mode="sum", padding_idx=PAD)  # (B·S, E)
        letters = total * (self.embedding.embedding_dim / count).sqrt()
        return (self.embedding(words) + letters.view(*words.shape, -1)) / math.sqrt(2)  # type: ignore[no-any-return]
