"""What a source piece becomes is learnt from pairs; a shortlist has it, and what any translation may have."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest

from nmt import lexicon
from nmt.tokenizer import EOS, PAD, UNK, Tokenizer, train

WORD = 10  # source words are 10 to 19, their translations 30 to 39


def made_up(seed: int, lines: int = 400) -> list[tuple[list[int], list[int]]]:
    """Each word becomes its own, in another order; 40 and 41 are written in every line for nothing."""
    draw = np.random.default_rng(seed)
    sources = [(WORD + draw.choice(10, size=draw.integers(2, 6), replace=False)).tolist() for _ in range(lines)]
    return [(line, [40, *(word + 20 for word in reversed(line)), 41]) for line in sources]


@pytest.mark.parametrize("count", [1, 3])
def test_the_likeliest_piece_is_the_translation(count: int) -> None:
    table = lexicon.learn(made_up(1)).likely(vocab=25, count=count)
    assert table.shape == (25, count)
    assert table[WORD : WORD + 10, 0].tolist() == list(range(30, 40))
    assert table[20:].tolist() == [[EOS] * count] * 5, "a piece that no pair has becomes nothing"
    table = lexicon.learn(made_up(1)).likely(vocab=25, count=2)
    assert table[PAD].tolist() in ([40, 41], [41, 40]), "what none is the cause of"


def test_probabilities_are_those_of_the_model() -> None:
    """Rounds by hand: a b / x y, a / x (Brown et al. 1993, with an empty word and places as Dyer et al. 2013)."""
    pairs = [([4, 5], [6, 7]), ([4], [6])]
    p = {(s, t): 1.0 for s in (0, 4, 5) for t in (6, 7) if (s, t) != (0, 0)}
    for _ in range(lexicon.ROUNDS):
        counts = dict.fromkeys(p, lexicon.RARE)
        for source, target in pairs:
            for j, t in enumerate(target):
                near = [
                    exp(-lexicon.TENSION * abs((i + 0.5) / len(source) - (j + 0.5) / len(target)))
                    for i in range(len(source))
                ]
                prior = [lexicon.NONE, *((1 - lexicon.NONE) * one / sum(near) for one in near)]
                shares = [w * p[s, t] for w, s in zip(prior, (0, *source), strict=True)]
                for s, share in zip((0, *source), shares, strict=True):
                    counts[s, t] += share / sum(shares)
        p = {(s, t): value / sum(counts[s, u] for u in (6, 7)) for (s, t), value in counts.items()}
    found = lexicon.learn(pairs)
    assert {(k // found.width, k % found.width): q for k, q in zip(found.keys, found.p, strict=True)} == {
        key: pytest.approx(value, rel=1e-5) for key, value in p.items()
    }


def test_nothing_to_learn_from_is_a_table_of_ends() -> None:
    empty = lexicon.learn([])
    assert empty.likely(vocab=3, count=2).tolist() == [[EOS, EOS]] * 3
    assert empty.alignment(np.array([[5, EOS]]), np.array([[6, EOS]])).shape == (1, 2, 2)


def test_a_large_corpus_is_learnt_from_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexicon, "ENTRIES", 5000)
    read: list[int] = []
    found = lexicon.learn(read.append(1) or one for one in made_up(2, lines=5000))  # type: ignore[func-returns-value]
    assert len(read) < 500
    assert found.likely(vocab=25, count=1)[WORD : WORD + 10, 0].tolist() == list(range(30, 40))


def test_each_piece_is_aligned_with_what_it_was_written_for() -> None:
    known = lexicon.learn(made_up(3))
    source = np.array([[11, 12, 13, EOS], [14, 19, EOS, PAD]])
    target = np.array([[40, 33, 32, 31, 41, EOS], [39, 34, 34, EOS, PAD, PAD]])
    found = known.alignment(source, target)
    assert found.shape == (2, 6, 4)
    assert found[0].argmax(1)[1:4].tolist() == [2, 1, 0]
    assert found[1].argmax(1)[:3].tolist() == [1, 0, 0]
    assert found[0, 1:4].sum(1).min() > 0.9
    assert found[0, 5].tolist() == [0, 0, 0, 1]
    assert found[1, 3].tolist() == [0, 0, 1, 0], "an end belongs to an end"
    assert not found[1, 4:].any()
    assert not found[1, :, 3].any()
    alone = known.alignment(source[1:, :3], target[1:, :4])
    np.testing.assert_allclose(alone, found[1:, :4, :3], rtol=1e-5)
    strange = known.alignment(np.array([[11, 99, EOS]]), np.array([[77, 31, EOS]]))
    assert np.isfinite(strange).all()
    assert strange[0, 1].argmax() == 0


@pytest.fixture(scope="module", params=["letters", "bytes"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    spelled = request.param == "bytes"
    lines = ["ein Hund und eine Katze", "zwei Hunde sehen die Katzen", "die Katze sieht einen Hund"] * 5
    return train(lines, "unigram", 28 + 256 * spelled, 1.0, spelled, "nmt_nfkc", (), 1)


def test_a_shortlist_begins_with_the_special_pieces_and_can_spell(tokenizer: Tokenizer) -> None:
    table = np.full((tokenizer.vocab, 2), EOS, np.int32)
    table[5], table[6] = (20, 10), (21, 10)
    common = lexicon.common([[15, 15], [15, 14]], tokenizer)
    found = lexicon.shortlist(table, common, [[5, 6], [5]])
    assert found.tolist() == sorted(set(found.tolist()))
    assert found[: UNK + 1].tolist() == list(range(UNK + 1))
    assert {10, 14, 15, 20, 21} <= set(found.tolist())
    pieces = enumerate(tokenizer.pieces(range(tokenizer.vocab)))
    letters = {i for i, piece in pieces if len(piece) == 1 or piece in {f"<0x{byte:02X}>" for byte in range(256)}}
    assert letters <= set(found.tolist())
