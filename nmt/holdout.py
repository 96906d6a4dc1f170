"""Valid and test sets held out of a corpus that has none.

    load(whole, 1000, "valid")       1,000 of its pairs; as many others are "test", what is unlike both is "train"

Which pairs are held out depends on their text alone: those with the smallest hash of both sides. So they are the same
on every machine, in whatever order the pairs lie and in both directions (what a model of the opposite direction judges
or writes is as new to it), and most of them stay, each in its part, when pairs are added. A pair that shares a side
with one held out leaves train, where sides are the same if their letters, with their marks, and digits are, however
they are composed, or their symbols where there is nothing else; so training has nothing of a test set but what
`data.extra` brings, which is counted.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmt.corpus import Corpus, stored
from nmt.errors import DataError
from nmt.formats import Pair

VERSION = 6  # raise it when the same corpus would be split in another way
PARTS = ("train", "valid", "test")
MOST = 4  # at most one in so many different pairs is held out

Rows = dict[str, NDArray[np.integer[Any]]]  # of each part


def load(whole: Corpus, count: int, split: str) -> Corpus:
    """The part `split` (train, valid or test) of a corpus of which `count` pairs each are held out for valid and test.

    Raises DataError for a corpus too small for that.
    """

    def stamp(part: str) -> str:
        return hashlib.sha256(repr((VERSION, whole.fingerprint, count, part)).encode()).hexdigest()[:32]

    rows = cache(partial(_rows, whole, count))  # all three are made at once, since hashing takes a while
    parts = {part: stored(partial(_pairs, whole, rows, part), f"{whole.name} ({part})", stamp(part)) for part in PARTS}
    return parts[split]


def different(whole: Corpus) -> tuple[int, int]:
    """How many different pairs there are, those with an empty side or two equal ones left out, and how many of them
    could be held out: of those that share a side one."""
    source, target = _hashes(whole.source), _hashes(whole.target)
    return len(_distinct(source, target)), len(_apart(source, target))


def _pairs(whole: Corpus, rows: Callable[[], Rows], part: str) -> Iterator[Pair]:
    chosen = np.zeros(len(whole), bool)
    chosen[rows()[part]] = True
    return compress(zip(whole.source, whole.target, strict=True), chosen)


def _rows(whole: Corpus, count: int) -> Rows:
    """The rows of each part."""
    source, target = _hashes(whole.source), _hashes(whole.target)
    first = _apart(source, target)
    if 2 * count * MOST > len(first):
        raise DataError(
            f"{whole.name}: data.hold_out: {count:,} pairs for valid and as many for test are too many of "
            f"{len(first):,} different ones: set it to {len(first) // (2 * MOST):,} or less"
        )
    even = (source ^ target)[first] % 2 == 0  # not every other one: where pairs are added, valid would become test
    one, other = first[even], first[~even]
    test = np.concatenate([one, other[::-1]])[:count]  # of few pairs nearly all may be even
    valid = np.concatenate([other, one[::-1]])[:count]
    held = np.concatenate([test, valid])
    rest = ~np.isin(source, source[held]) & ~np.isin(target, target[held])
    return {"train": np.flatnonzero(rest), "test": test, "valid": valid}


def _apart(source: NDArray[np.uint64], target: NDArray[np.uint64]) -> NDArray[np.integer[Any]]:
    """Rows that can be held out, no two of which share a side, in the order of their pairs' hashes."""
    rows = _distinct(source, target)
    one, other = (np.unique(side[rows], return_index=True)[1] for side in (source, target))
    found: NDArray[np.integer[Any]] = rows[np.intersect1d(one, other)]
    return found


def _distinct(source: NDArray[np.uint64], target: NDArray[np.uint64]) -> NDArray[np.integer[Any]]:
    """One row of each pair that has two sides, in the order of their hashes."""
    _, rows = np.unique(source ^ target, return_index=True)  # the same in both directions
    kept: NDArray[np.integer[Any]] = rows[
        (source[rows] != EMPTY) & (target[rows] != EMPTY) & (source[rows] != target[rows])
    ]
    return kept


class _Kept(dict[int, int | None]):
    """What `str.translate` leaves of a text."""

    def __init__(self, categories: str) -> None:
        super().__init__()
        self.categories = categories

    def __missing__(self, code: int) -> int | None:
        self[code] = code if unicodedata.category(chr(code))[0] in self.categories else None
        return self[code]


WORDS = _Kept("LMN")  # letters, digits, and marks, for a vowel sign makes another word
SYMBOLS = _Kept("S")  # what a text without these may be written in: braille, pictures


_composed = partial(unicodedata.normalize, "NFKC")


def _hash(text: str) -> int:
    plain = _composed(_composed(text).casefold())  # folding takes some letters apart, the Greek ΐ
    kept = plain.translate(WORDS) or plain.translate(SYMBOLS)
    return int.from_bytes(hashlib.blake2b(kept.encode(), digest_size=8).digest(), "little")


EMPTY = _hash("")


def _hashes(lines: Iterable[str]) -> NDArray[np.uint64]:
    return np.fromiter(map(_hash, lines), np.uint64)
