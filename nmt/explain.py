"""Why a translation is what it is, word by word: how sure the model was of each, and where it looked.

    p(word) = Π p(piece)
    a(word, source word) = mean over the pieces of the word, Σ over those of the source word

Words are what people see; pieces are what the model writes. A word begins at a space or at a mark of punctuation; in
scripts written without spaces every piece stands for itself.

Letters: T target words, S source words.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from nmt.tokenizer import SPACE
from nmt.translate import Translation

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


@dataclass(frozen=True)
class Word:
    """A word of a translation or its source: its pieces are `first` to `last` - 1, a space stands before it or not.

    One that is not `known` has letters that the model never saw, in whose place it reads <unk>.
    """

    text: str
    first: int
    last: int
    space: bool
    probability: float | None = None
    known: bool = True


@dataclass(frozen=True)
class Explanation:
    """The words of both sides; `attention` (T, S) is None for a model without."""

    source: list[Word]
    target: list[Word]
    attention: Tensor | None


def explain(translation: Translation, knows: Callable[[str], bool] = bool) -> Explanation:
    """The words of a translation; `knows` tells known pieces of its source. Attention is there if it was asked for."""
    source = words(translation.source_tokens, knows=knows)
    target = words(translation.tokens, translation.log_probs)
    if translation.attention is None or not source or not target:
        return Explanation(source, target, None)
    columns = torch.stack([translation.attention[:, word.first : word.last].sum(1) for word in source], dim=1)
    rows = torch.stack([columns[word.first : word.last].mean(0) for word in target])
    return Explanation(source, target, rows)


def warned(
    translations: Iterable[Translation], knows: Callable[[str], bool], warn: Callable[[str], None]
) -> Iterator[Translation]:
    """The translations as they come, and in the end a warning of the lines with letters that the model never saw."""
    count = number = 0
    where = ""
    for number, translation in enumerate(translations, start=1):
        strange = next((piece for piece in translation.source_tokens if not knows(piece)), None)
        if strange is not None:
            where = where or f"in line {number}, at '{strange[:20]}'"
            count += 1
        yield translation
    if count:
        of = f"{count:,} of {number:,} lines have letters"
        warn(f"warning: {of} that this model never saw and cannot read, first {where}")


def words(
    pieces: Sequence[str], log_probs: Sequence[float] | None = None, knows: Callable[[str], bool] = bool
) -> list[Word]:
    """Pieces as words, with the probability of each where that of the pieces is given."""
    cuts = [place for place, piece in enumerate(pieces) if place == 0 or _begins(pieces[place - 1], piece)]
    found = []
    for first, last in pairwise([*cuts, len(pieces)]):
        text = _text(pieces[first:last])
        sure = math.exp(sum(log_probs[first:last])) if log_probs is not None else None
        known = all(map(knows, pieces[first:last]))
        found.append(Word(text.strip(), first, last, text.startswith(" "), sure, known))
    return [word for word in found if word.text]


def _begins(before: str, piece: str) -> bool:
    """Whether `piece` begins a word, after `before`."""
    if piece.startswith(SPACE):
        return True
    if before == SPACE or _BYTE.fullmatch(piece):
        return False
    return _punctuation(piece) or _punctuation(before.lstrip(SPACE)) or _unspaced(piece) or _unspaced(before)


def _punctuation(piece: str) -> bool:
    """Whether there are only marks in it; an apostrophe or a hyphen belongs to its word."""
    return bool(piece) and all(unicodedata.category(mark)[0] == "P" and mark not in "'’-" for mark in piece)


def _unspaced(piece: str) -> bool:
    return any(unicodedata.name(letter, "").startswith(_UNSPACED) for letter in piece)


def _text(pieces: Sequence[str]) -> str:
    """What pieces spell, those that stand for bytes too."""
    raw = bytearray()
    for piece in pieces:
        byte = _BYTE.fullmatch(piece)
        raw += bytes([int(byte[1], 16)]) if byte else piece.replace(SPACE, " ").encode()
    return raw.decode(errors="replace")
