"""Which target pieces a source piece may become, learnt from pairs, and a shortlist of the vocabulary from it.

    p(t | s) by expectation maximisation: each target piece was written because of one of the source pieces, or of
    none (IBM Model 1, Brown et al. 1993, section 4.2). A decoder that may only write the likeliest of its own source's
    pieces, and the most frequent ones, computes a fraction of its output layer (Jean et al. 2015, section 3.3).

Letters: V pieces of a side, K likeliest, L pieces of a shortlist.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from nmt.tokenizer import EOS, PAD, UNK, Tokenizer

FREQUENT = 100  # pieces of the target side that any translation may have
ENTRIES = 20_000_000  # places of a source beside places of its target that are learnt from, at most: some seconds
ROUNDS = 5
Ids = Sequence[int]


def likely(sources: Iterable[Ids], targets: Iterable[Ids], vocab: int, count: int) -> NDArray[np.int32]:
    """The `count` likeliest target pieces of each source piece, (V, K); the end of a sentence where there are fewer."""
    source, target, sizes = _entries(sources, targets)
    width = int(target.max(initial=0)) + 1
    pairs, entries = np.unique(source.astype(np.int64) * width + target, return_inverse=True)
    starts = np.cumsum(sizes) - sizes
    p = np.ones(len(pairs))
    for _ in range(ROUNDS if len(pairs) else 0):
        share = p[entries]
        share /= np.repeat(np.add.reduceat(share, starts), sizes)
        counts = np.bincount(entries, share)
        p = counts / np.bincount(pairs // width, counts)[pairs // width]
    order = np.lexsort((-p, pairs // width))
    of, pieces = pairs[order] // width, pairs[order] % width
    rank = np.arange(len(of)) - np.searchsorted(of, of)
    table = np.full((vocab, count), EOS, np.int32)
    best = rank < count
    table[of[best], rank[best]] = pieces[best]
    return table


def _entries(sources: Iterable[Ids], targets: Iterable[Ids]) -> tuple[NDArray[np.int32], ...]:
    """For each place of a target all source pieces, and none (PAD): the two sides, and how many of each place."""
    sides: tuple[list[NDArray[np.int32]], ...] = ([], [], [])
    total = 0
    for source, target in zip(sources, targets, strict=True):
        with_none = np.array([*source, PAD], np.int32)
        total += len(with_none) * len(target)
        if total > ENTRIES:
            break
        sides[0].append(np.tile(with_none, len(target)))
        sides[1].append(np.repeat(np.array(target, np.int32), len(with_none)))
        sides[2].append(np.full(len(target), len(with_none), np.int32))
    return tuple(np.concatenate([np.empty(0, np.int32), *side]) for side in sides)


def common(targets: Iterable[Ids], tokenizer: Tokenizer) -> NDArray[np.int32]:
    """What any translation may have: special pieces, the most frequent ones, and all that words are spelled with."""
    counts = np.bincount(np.concatenate([np.empty(0, np.int64), *targets]), minlength=tokenizer.vocab)
    frequent = np.argsort(-counts, kind="stable")[:FREQUENT]
    letters = [
        i for i, piece in enumerate(tokenizer.pieces(range(tokenizer.vocab))) if len(piece) == 1 or piece[:3] == "<0x"
    ]
    return np.unique(np.concatenate([np.arange(UNK + 1), frequent, letters])).astype(np.int32)


def shortlist(table: NDArray[np.int32], common: NDArray[np.int32], pieces: Iterable[Ids]) -> NDArray[np.int64]:
    """The pieces (L,) that translations of these sources may have, in order; the special ones stay the first."""
    seen = np.unique(np.concatenate([np.array(one, np.int64) for one in pieces]))
    return np.unique(np.concatenate([common, table[seen].ravel()])).astype(np.int64)
