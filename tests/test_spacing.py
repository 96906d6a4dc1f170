"""Words of a text, with spaces between them and without."""

from __future__ import annotations

import pytest

from nmt.spacing import letters_a_word, words


def test_spaces_part_words() -> None:
    assert words(["a small dog runs", "two dogs", ""]) == [4, 2, 0]
    assert words(["Donaudampfschifffahrtsgesellschaft ist lang"]) == [3]
    assert words(["나는 오늘 아침 시장에서 사과 세 개를 샀다."]) == [8], "in Korean too"
    assert words([]) == []
    assert letters_a_word(["a small dog runs"]) is None


def test_where_there_are_no_spaces_letters_tell_how_many_words_there_are() -> None:
    text = "我 今天 早上 在 市场 买 了 三 个 苹果"
    assert words([text.replace(" ", "") + "。"]) == pytest.approx([len(text.split())], abs=1)
    assert words(["วันนี้ฉันไปตลาดกับแม่ของฉันเพื่อซื้อผลไม้"]) == pytest.approx([10], abs=2)
    short, long = words(["我今天", "我今天早上在市场买了三个苹果。" * 3])
    assert long > 10 * short > 10, "of the text, not of each line"
