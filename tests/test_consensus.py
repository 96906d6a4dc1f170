"""The choice by consensus: chrF as sacreBLEU counts it, and the candidate that agrees with most."""

from __future__ import annotations

import random

import pytest
from sacrebleu.metrics.chrf import CHRF

from nmt.consensus import chrf, ranked

TEXTS = ["Ein Hund läuft.", "ein  Hund rennt .", "Ein Hund läuft.", "", "a", "Zwei Katzen", "日本 語", "  "]


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_chrf_of_sacrebleu(seed: int) -> None:
    draw = random.Random(seed)
    texts = TEXTS + ["".join(draw.choices("abc d", k=draw.randint(0, 30))) for _ in range(8)]
    found, metric = chrf(texts), CHRF()
    for row, one in enumerate(texts):
        for column, other in enumerate(texts):
            expected = metric.sentence_score(one, [other]).score / 100
            assert found[row, column] == pytest.approx(expected, abs=1e-6), (one, other)


def test_what_agrees_with_most_comes_before_what_is_likeliest() -> None:
    texts = ["Alles andere als das.", "Der Hund läuft schnell.", "Der Hund läuft.", "Ein Hund läuft schnell."]
    scores = [-0.50, -0.55, -0.6, -0.6]
    assert ranked(texts, scores, 1.0)[0] == 1
    assert ranked(texts, scores, 1.0)[-1] == 0
    assert ranked(texts, scores, 1e6)[0] == 0  # so sharp that nothing but the likeliest counts
    assert sorted(ranked(texts, scores, 3.0)) == [0, 1, 2, 3]


def test_among_equals_the_likelier_comes_first() -> None:
    assert ranked(["gleich", "gleich", "gleich"], [-3.0, -1.0, -2.0], 2.0) == [1, 2, 0]
    assert ranked(["", ""], [-3.0, -1.0], 2.0) == [1, 0]
    assert ranked(["x"], [-3.0], 2.0) == [0]
