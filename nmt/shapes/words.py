"""Whole words as a vocabulary, for text that is tokenised already: what stands between spaces is a word."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from nmt.checkpoint import read_list
from nmt.tokenizer import UNK


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
        return json.dumps(self.words, ensure_ascii=False, indent=0).encode()

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """The ids of each line."""
        return [[self._ids.get(word, UNK) for word in line.split()] for line in lines]
