"""Which target pieces a source piece becomes, learnt from pairs; alignments and shortlists are made from it.

    p(place i | j) ∝ exp(-τ |i/S - j/T|), or ν for none             (Dyer et al. 2013, section 2)
    p(t | s) by expectation maximisation: each target piece was written because of one of the source pieces, or of
    none (IBM Model 1, Brown et al. 1993, section 4.2), of which those near its own place are likelier.

With it a decoder's attention can be shown where to look (Chen et al. 2016), and a decoder that may only write the
likeliest pieces of its own source, and the most frequent ones, computes a fraction of its output layer (Jean et al.
2015, section 3.3).

Letters: B pairs, S and T pieces of their sides, V pieces of a vocabulary, P pairs of pieces, K likeliest, L pieces of a
shortlist.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nmt.tokenizer import EOS, PAD, UNK, Tokenizer

FREQUENT = 100  # pieces of the target side that any translation may have
LEAST = 1e-9  # of a sum that is divided by
ENTRIES = 8_000_000  # places of a source beside places of its target that are learnt from, at most: some seconds
ROUNDS = 5
TENSION, NONE = 4.0, 0.08  # τ and ν
RARE = 1e-4  # added to each count, so that what occurs once is not certain
UNSEEN = 1e-7  # p(t | s) of what no pair has
Ids = Sequence[int] | NDArray[np.integer]
Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Lexicon:
    """p(t | s) of the pieces that stand in the same pair somewhere; <pad> is the source of what has none."""

    keys: NDArray[np.int64]  # (P,), s · width + t, in order
    p: Floats  # (P,)
    width: int

    def likely(self, vocab: int, count: int) -> NDArray[np.int32]:
        """The `count` likeliest target pieces of each source piece, (V, K); the end of a sentence where fewer are."""
        order = np.lexsort((-self.p, self.keys // self.width))
        of, pieces = self.keys[order] // self.width, self.keys[order] % self.width
        rank = np.arange(len(of)) - np.searchsorted(of, of)
        table = np.full((vocab, count), EOS, np.int32)
        best = rank < count
        table[of[best], rank[best]] = pieces[best]
        return table

    def alignment(self, source: NDArray[np.int64], target: NDArray[np.int64]) -> Floats:
        """p(i | j), (B, T, S): how probable it is that each target piece was written because of each of the source.

        The sides (B, S) and (B, T) end with <eos>, which belong together, and are padded. What is missing to 1 is the
        probability of none.
        """
        lengths, ends = (np.count_nonzero(side != PAD, axis=1) - 1 for side in (source, target))
        near = _near(_places(ends, target.shape[1]), _places(lengths, source.shape[1]))  # (B, T, S)
        near[np.broadcast_to(np.arange(source.shape[1]) >= lengths[:, None, None], near.shape)] = 0
        near *= (1 - NONE) / np.maximum(near.sum(axis=2, keepdims=True), LEAST)
        found = self._look(source[:, None, :], target[:, :, None]) * near
        none = self._look(np.full_like(target, PAD), target) * NONE  # (B, T)
        found /= found.sum(axis=2, keepdims=True) + none[:, :, None]
        found[np.arange(target.shape[1]) >= ends[:, None]] = 0
        found[np.arange(len(source)), ends, lengths] = 1
        return found

    def _look(self, source: NDArray[np.int64], target: NDArray[np.int64]) -> Floats:
        wanted = source * self.width + target
        if not len(self.keys):
            return np.full(wanted.shape, UNSEEN, np.float32)
        places = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        known = (self.keys[places] == wanted) & (target < self.width)
        return np.where(known, self.p[places], np.float32(UNSEEN))


def learn(pairs: Iterable[tuple[Ids, Ids]]) -> Lexicon:
    """What source pieces become in these pairs, or in the first of them if they are many."""
    source, target, prior, sizes = _entries(pairs)
    width = int(target.max(initial=0)) + 1
    keys, entries = np.unique(source.astype(np.int64) * width + target, return_inverse=True)
    of = keys // width
    starts = np.cumsum(sizes) - sizes
    p = np.ones(len(keys))
    for _ in range(ROUNDS if len(keys) else 0):
        share = p[entries] * prior
        share /= np.repeat(np.add.reduceat(share, starts), sizes)
        counts = np.bincount(entries, share) + RARE
        p = counts / np.bincount(of, counts)[of]
    return Lexicon(keys, p.astype(np.float32), width)


def _entries(pairs: Iterable[tuple[Ids, Ids]]) -> tuple[Ints, Ints, Floats, Ints]:
    """For each place of a target all source pieces, and none (<pad>): the two sides, p(i | j), how many there are."""
    none = np.empty(0, np.int32)
    sources, targets, priors, sizes = [none], [none], [none.astype(np.float32)], [none]
    total = 0
    for source, target in pairs:
        size, count = len(source) + 1, len(target)
        total += size * count
        if total > ENTRIES:
            break
        prior = np.full((count, size), NONE, np.float32)
        near = _near(*(_places(np.array([length]), length) for length in (count, size - 1)))[0]  # (T, S)
        prior[:, :-1] = (1 - NONE) * near / near.sum(axis=1, keepdims=True)
        sources.append(np.tile(np.array([*source, PAD], np.int32), count))
        targets.append(np.repeat(np.array(target, np.int32), size))
        priors.append(prior.ravel())
        sizes.append(np.full(count, size, np.int32))
    return np.concatenate(sources), np.concatenate(targets), np.concatenate(priors), np.concatenate(sizes)


def _places(lengths: NDArray[np.integer], width: int) -> Floats:
    """Where each of `width` places is in sides of these lengths (B,), from 0 to 1: (B, width)."""
    places: Floats = ((np.arange(width) + 0.5) / np.maximum(lengths, 1)[:, None]).astype(np.float32)
    return places


def _near(target: Floats, source: Floats) -> Floats:
    """exp(-τ |i/S - j/T|), (B, T, S)."""
    near: Floats = np.exp(-TENSION * np.abs(target[:, :, None] - source[:, None, :]))
    return near


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
