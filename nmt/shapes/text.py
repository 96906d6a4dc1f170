"""Running text: where it comes from, and its characters as a vocabulary.

path             files train.txt, valid.txt, test.txt (or others by name) in a folder
generator        python: the sources of the standard library of the Python that runs this, nothing to download
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

from nmt.checkpoint import list_bytes, read_list
from nmt.corpus import locate, read_lines
from nmt.errors import CheckpointError, DataError
from nmt.recipe import Field, Section, model_validator
from nmt.tokenizer import EOS, UNK


class TextData(Section):
    """Where a text is."""

    path: str | None = Field(None, description="folder with the files, from here, or under $NMT_DATA or data/")
    generator: Literal["python"] | None = Field(None, description="a text that is already on the machine")
    train: str = "train.txt"
    valid: str = "valid.txt"
    test: str = "test.txt"

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if bool(self.generator) == bool(self.path):
            raise ValueError(
                "data needs a path or a generator, one of them: for instance `path: my-text`, with `generator: null` "
                "where a recipe has another"
            )
        return self


def lines(data: TextData, split: str) -> list[str]:
    """The lines of a split, without their ends. Raises DataError."""
    if data.generator is not None:
        return _python(split)
    assert data.path is not None
    file = {"train": data.train, "valid": data.valid, "test": data.test}[split]
    found = list(read_lines(locate(data.path) / file))
    if not any(map(str.strip, found)):
        raise DataError(f"{data.path}/{file}: no text in it")
    return found


def _python(split: str) -> list[str]:
    """The modules of the standard library, one after the other; about one in twenty is for valid, one for test."""
    chosen: list[str] = []
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        part = int(hashlib.sha256(file.name.encode()).hexdigest(), 16) % 20
        if split == {0: "valid", 1: "test"}.get(part, "train"):
            chosen += [*file.read_text(encoding="utf-8").expandtabs(4).split("\n"), ""]
    return chosen


class Characters:
    """Every character of a text is a piece, the end of a line too: text and ids are the same thing."""

    def __init__(self, letters: Sequence[str]) -> None:
        self.letters = list(letters)
        self._ids = {letter: number for number, letter in enumerate(self.letters, start=UNK + 1)}

    @classmethod
    def of(cls, text: str) -> Self:
        """All characters of a text."""
        return cls(sorted(set(text)))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises CheckpointError."""
        letters = read_list(path, "characters")
        if any(len(letter) != 1 for letter in letters):
            raise CheckpointError(f"{path}: no list of characters: copy it again")
        return cls(letters)

    @cached_property
    def vocab(self) -> int:
        return len(self.letters) + UNK + 1

    @property
    def proto(self) -> bytes:
        return list_bytes(self.letters)

    def encode(self, text: str) -> list[int]:
        return [self._ids.get(letter, UNK) for letter in text]

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(
            self.letters[i - UNK - 1] if i > UNK else "" if i <= EOS else "\N{REPLACEMENT CHARACTER}" for i in ids
        )
