"""Words out of pieces: nothing is lost, probabilities multiply, attention keeps its mass."""

from __future__ import annotations

import math

import pytest
import torch
from toy import Toy, pairs

from nmt.explain import explain, warned, words
from nmt.translate import Translation, Translator


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["▁A", "▁dog", "s", "▁run", "."], ["A", "dogs", "run", "."]),
        (["▁", "A", "▁", "dog", "?", "!"], ["A", "dog", "?", "!"]),
        (["▁don", "'", "t"], ["don't"]),
        (["▁well", "-", "known"], ["well-known"]),
        (["▁(", "a", ")"], ["(", "a", ")"]),
        (["▁今", "日", "は", "。"], ["今", "日", "は", "。"]),
        (["▁", "<0xC3>", "<0xA4>", "h"], ["äh"]),
        (["▁x", "<0xC3>"], ["x\ufffd"]),
        ([], []),
    ],
)
def test_words(pieces: list[str], expected: list[str]) -> None:
    found = words(pieces, [-1.0] * (len(pieces) + 1))
    assert [word.text for word in found] == expected
    assert all(word.probability == pytest.approx(math.exp(word.first - word.last)) for word in found)
    assert all(0 <= word.first < word.last <= len(pieces) for word in found)


def test_the_words_of_a_translation_are_its_text(toy: Toy) -> None:
    lines = [source for source, _ in pairs(10, seed=5)]
    for one in Translator.load(toy.attention, threads=1).translate(lines, attention=True):
        found = explain(one)
        spelled = "".join(" " * word.space + word.text for word in found.target).strip()
        assert spelled == one.text
        product = math.prod(word.probability or 0.0 for word in found.target)
        assert product == pytest.approx(math.exp(sum(one.log_probs[:-1])), rel=1e-4)
        assert found.attention is not None
        assert found.attention.shape == (len(found.target), len(found.source))
        assert one.attention is not None
        real = one.attention[:-1, :-1].sum()  # of pieces; words average over their pieces
        assert 0 < float(found.attention.sum()) <= float(real) + 1e-4


def test_letters_that_the_model_never_saw_are_told(toy: Toy) -> None:
    translator = Translator.load(toy.attention, threads=1)
    (one,) = translator.translate(["kala собака koira Ж"])
    found = explain(one, translator.members[0].source.knows).source
    assert [(word.text, word.known) for word in found] == [
        ("kala", True), ("собака", False), ("koira", True), ("Ж", False),
    ]  # fmt: skip
    assert all(word.known for word in explain(one).target)


def test_lines_with_letters_that_the_model_never_saw_are_counted(toy: Toy) -> None:
    translator = Translator.load(toy.attention, threads=1)
    told: list[str] = []
    knows = translator.members[0].source.knows
    lines = ["kala", "", "iso собака", "Ж"]
    assert list(warned(translator.stream(lines), knows, told.append)) == list(translator.stream(lines))
    assert told == [
        "warning: 2 of 4 lines have letters that this model never saw and cannot read, first in line 3, at 'собака'"
    ]
    assert list(warned(translator.stream(lines[:2]), knows, told.append))
    assert len(told) == 1


def test_a_word_looks_as_its_pieces_look() -> None:
    attention = torch.tensor([[0.5, 0.25, 0.25, 0.0], [0.1, 0.2, 0.3, 0.4], [0, 0, 1.0, 0], [0, 0, 0, 1.0]])
    one = Translation("ab c", 0.0, ["▁a", "b", "▁c"], [0.0] * 4, ["▁x", "y", "▁z"], attention)
    found = explain(one).attention
    assert found is not None
    assert torch.allclose(found, torch.tensor([[0.525, 0.275], [0.0, 1.0]]))


def test_without_attention_there_is_none(toy: Toy) -> None:
    one = Translator.load(toy.fixed, threads=1).translate(["kala"], attention=True)[0]
    assert explain(one).attention is None
    assert explain(Translation("", 0.0, [], [], [])).target == []
