"""Held-out sets: fixed, apart from train, and the same however the pairs lie."""

from __future__ import annotations

import random
import unicodedata

import pytest

from nmt import corpus, holdout
from nmt.corpus import Corpus
from nmt.errors import DataError


@pytest.fixture(autouse=True)
def _cache(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NMT_CACHE", str(tmp_path))


def pairs(count: int = 200) -> list[tuple[str, str]]:
    return [(f"the word {number}", f"das Wort {number}") for number in range(count)]


def whole(of: list[tuple[str, str]]) -> Corpus:
    return corpus.from_pairs([one for one, _ in of], [two for _, two in of], "toy")


def parts(of: list[tuple[str, str]], count: int = 10) -> dict[str, set[tuple[str, str]]]:
    found = {}
    for split in ("train", "valid", "test"):
        part = holdout.load(whole(of), count, split)
        found[split] = set(zip(part.source, part.target, strict=True))
        assert len(part) == len(found[split])
    return found


def test_every_pair_is_in_one_part() -> None:
    found = parts(pairs())
    assert {split: len(part) for split, part in found.items()} == {"train": 180, "valid": 10, "test": 10}
    assert set.union(*found.values()) == set(pairs())


def test_neither_order_nor_company_changes_what_is_held_out() -> None:
    first, shuffled = parts(pairs()), pairs()
    random.Random(3).shuffle(shuffled)
    assert parts(shuffled) == first
    more = parts(pairs(240))
    held, still = first["valid"] | first["test"], more["valid"] | more["test"]
    assert len(held & still) >= 14  # of 20, and a sixth of the pairs is new
    assert not (first["valid"] & more["test"]), "what choices were made on does not become what is judged by"
    assert not (first["test"] & more["valid"])


def test_of_the_fewest_pairs_each_part_has_its_own() -> None:
    for start in range(0, 800, 8):
        found = parts(pairs(start + 8)[start:], 1)
        assert [len(found[split]) for split in ("train", "valid", "test")] == [6, 1, 1]


def test_the_opposite_direction_holds_out_the_same_pairs() -> None:
    some = [*pairs(), *[(f"the word {number}", f"ein Wort {number}") for number in range(0, 200, 2)]]
    back = parts([(target, source) for source, target in some])
    assert {split: {(one, two) for two, one in part} for split, part in back.items()} == parts(some)


def test_no_side_is_held_out_twice() -> None:
    found = parts([(source, f"das {number % 100}") for number, (source, _) in enumerate(pairs())])
    held = [*found["valid"], *found["test"]]
    assert len({target for _, target in held}) == len(held)


def test_what_shares_a_side_with_one_held_out_is_in_no_part() -> None:
    still = 0
    for source, target in sorted(parts(pairs())["test"]):
        like = [(source.upper() + "!", "anders"), ("other", f"  {target}."), (source, target)]
        found = parts([*pairs(), *like])
        if (source, target) in found["valid"] | found["test"]:  # unless one of the new ones is in its place
            still += 1
            assert not found["train"] & set(like)
        texts = {side for split in ("valid", "test") for pair in found[split] for side in pair}
        assert not any(side in texts for pair in found["train"] for side in pair)
    assert still > 5


def test_empty_and_copied_sentences_are_not_held_out() -> None:
    odd = [("", "leer"), ("empty", "..."), ("same", "Same")]
    assert holdout.different(whole([*pairs(), *odd])) == (200, 200)
    held = parts([*pairs(), *[(f"name {number}", f"Name {number}") for number in range(2000)]])
    assert len(held["valid"] | held["test"]) == 20
    assert held["valid"] | held["test"] < set(pairs())


def test_a_side_is_its_letters_with_their_marks() -> None:
    """A vowel sign makes another word, as another letter does; case and punctuation make none."""
    same, other = [("Kala!", "kala"), ("kala", "Kala.")], [("की", "ki"), ("को", "ko"), ("क", "k")]
    assert holdout.different(whole([*pairs(), *same]))[1] == 200
    assert holdout.different(whole([*pairs(), ("kala", "hal"), ("Kala!", "Hal")])) == (201, 201)
    assert holdout.different(whole([*pairs(), ("kala", "hal"), ("Kala!", "fisk")])) == (202, 201)
    assert holdout.different(whole([*pairs(), *other]))[1] == 203
    composed = [("Tiếng Việt", "one"), (unicodedata.normalize("NFD", "Tiếng Việt"), "two")]
    assert holdout.different(whole([*pairs(), *composed]))[1] == 201, "however its letters are composed"
    capital = [("\N{GREEK CAPITAL LETTER IOTA WITH DIALYTIKA}\u0301", "one"), ("\u0390", "two")]
    assert holdout.different(whole([*pairs(), *capital]))[1] == 201, "whatever their case"
    assert holdout.different(whole([*pairs(), ("⠁⠃", "one"), ("⠃⠁", "two"), ("⠃⠁!", "three")]))[1] == 202, "symbols"


def test_too_many_is_an_error_that_says_how_many_are_possible() -> None:
    with pytest.raises(
        DataError, match=r"toy: data\.hold_out: 26 pairs .* of 200 different ones: set it to 25 or less"
    ):
        holdout.load(whole(pairs()), 26, "train")
    holdout.load(whole(pairs()), 25, "train")
