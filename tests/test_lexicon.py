"""What a source piece becomes is learnt from pairs; a shortlist has it, and what any translation may have."""

from __future__ import annotations

import numpy as np
import pytest

from nmt import lexicon
from nmt.tokenizer import EOS, UNK, Tokenizer, train

WORD = 10  # source words are 10 to 19, their translations 30 to 39


def made_up(seed: int, lines: int = 400) -> tuple[list[list[int]], list[list[int]]]:
    """Each word becomes its own, in another order; 40 and 41 are written in every line for nothing."""
    draw = np.random.default_rng(seed)
    sources = [(WORD + draw.choice(10, size=draw.integers(2, 6), replace=False)).tolist() for _ in range(lines)]
    return sources, [[40, *(word + 20 for word in reversed(line)), 41] for line in sources]


@pytest.mark.parametrize("count", [1, 3])
def test_the_likeliest_piece_is_the_translation(count: int) -> None:
    table = lexicon.likely(*made_up(1), vocab=25, count=count)
    assert table.shape == (25, count)
    assert table[WORD : WORD + 10, 0].tolist() == list(range(30, 40))
    assert table[20:].tolist() == [[EOS] * count] * 5, "a piece that no pair has becomes nothing"
    assert lexicon.likely(*made_up(1), vocab=25, count=2)[0].tolist() in ([40, 41], [41, 40]), (
        "what none is the cause of"
    )


def test_probabilities_are_those_of_model_1() -> None:
    """Two rounds by hand: a b / x y, a / x (Brown et al. 1993, with an empty word)."""
    sources, targets = [[4, 5], [4]], [[6, 7], [6]]
    p = {(s, t): 1.0 for s in (0, 4, 5) for t in (6, 7)}
    for _ in range(lexicon.ROUNDS):
        counts = dict.fromkeys(p, 0.0)
        for source, target in zip(sources, targets, strict=True):
            for t in target:
                total = sum(p[s, t] for s in (0, *source))
                for s in (0, *source):
                    counts[s, t] += p[s, t] / total
        p = {(s, t): value / sum(counts[s, u] for u in (6, 7)) for (s, t), value in counts.items()}
    table = lexicon.likely(sources, targets, vocab=6, count=2)
    for s in (0, 4, 5):
        assert table[s].tolist() == sorted((6, 7), key=lambda t: -p[s, t])


def test_nothing_to_learn_from_is_a_table_of_ends() -> None:
    assert lexicon.likely([], [], vocab=3, count=2).tolist() == [[EOS, EOS]] * 3


def test_a_large_corpus_is_learnt_from_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexicon, "ENTRIES", 5000)
    sources, targets = made_up(2, lines=5000)
    read: list[int] = []
    table = lexicon.likely((read.append(1) or one for one in sources), targets, vocab=25, count=1)  # type: ignore[func-returns-value]
    assert len(read) < 500
    assert table[WORD : WORD + 10, 0].tolist() == list(range(30, 40))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    lines = ["ein Hund und eine Katze", "zwei Hunde sehen die Katzen", "die Katze sieht einen Hund"] * 5
    return train(lines, "unigram", 28, 1.0, False, "nmt_nfkc", (), 1)


def test_a_shortlist_begins_with_the_special_pieces_and_can_spell(tokenizer: Tokenizer) -> None:
    table = np.full((tokenizer.vocab, 2), EOS, np.int32)
    table[5], table[6] = (20, 10), (21, 10)
    common = lexicon.common([[15, 15], [15, 14]], tokenizer)
    found = lexicon.shortlist(table, common, [[5, 6], [5]])
    assert found.tolist() == sorted(set(found.tolist()))
    assert found[: UNK + 1].tolist() == list(range(UNK + 1))
    assert {10, 14, 15, 20, 21} <= set(found.tolist())
    letters = {i for i, piece in enumerate(tokenizer.pieces(range(tokenizer.vocab))) if len(piece) == 1}
    assert letters <= set(found.tolist())
