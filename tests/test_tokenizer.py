"""The tokenizer: text comes back from its ids, and what cannot be is said with the number that can."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from functools import cache
from itertools import accumulate
from pathlib import Path

import pytest
import sentencepiece

import nmt
from nmt.errors import CheckpointError, DataError
from nmt.tokenizer import BOS, EOS, PAD, PART, SPACE, UNK, Tokenizer, altered, train

LINES = [
    "the cat sat on the mat and the dog sat on the cat",
    "a small dog runs fast, faster than the other dogs run",
    "Über die Brücke gehen wir heute nicht; morgen gehen wir über die Brücken",
    "naïve café - 12 % of the “quoted” words are (never) read again",
    "it's the best of times; it was the worst of times",
] * 4

MODELS = ("unigram", "bpe", "char")
models = pytest.mark.parametrize("model", MODELS)
subwords = pytest.mark.parametrize("model", ["unigram", "bpe"])


@cache
def trained(
    model: str, byte_fallback: bool = False, symbols: tuple[str, ...] = (), normalization: str = "nmt_nfkc"
) -> Tokenizer:
    size = (320 if byte_fallback else 60) + len(symbols)
    return train(LINES, model, size, 1.0, byte_fallback, normalization, symbols, threads=1)


def normalised(text: str) -> str:
    """What the standard rule, nmt_nfkc, makes of ordinary text."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


SEEN = [*LINES[:5], "", "the", "  the   cat  ", "dog\tdog", "Ü", "mat mat mat", "ｔｈｅ ｃａｔ"]
UNSEEN = [
    "日本語のテキスト",
    "emoji 😀 and 👩‍👩‍👧",
    "a\u2028b\u2029c",
    "ﬁne ½ №",
    "U\u0308ber",
    "русский язык",
    "\U0010ffff",
    "<s> </s> <pad> <unk>",
    "soft\u00adhyphen",
]


@models
@pytest.mark.parametrize("text", SEEN)
def test_text_comes_back(model: str, text: str) -> None:
    tokenizer = trained(model)
    assert tokenizer.decode(tokenizer.encode([text])) == [normalised(text)]


@models
@pytest.mark.parametrize("text", [*SEEN, *UNSEEN])
def test_any_text_comes_back_with_byte_fallback(model: str, text: str) -> None:
    tokenizer = trained(model, byte_fallback=True)
    (ids,) = tokenizer.encode([text])
    assert tokenizer.decode([ids]) == [normalised(text)]
    assert UNK not in ids


@pytest.mark.parametrize("text", ["ﬁne ½ Ａ", "U\u0308ber", "zero\u200bwidth", "nul\0nul", "one\u2028two"])
def test_identity_leaves_characters_as_they_are(text: str) -> None:
    tokenizer = trained("bpe", byte_fallback=True, normalization="identity")
    assert tokenizer.decode(tokenizer.encode([text])) == [text]


def test_case_folding() -> None:
    tokenizer = trained("unigram", normalization="nmt_nfkc_cf")
    assert tokenizer.decode(tokenizer.encode(["The CAT"])) == ["the cat"]


@models
def test_unknown_characters_without_byte_fallback(model: str) -> None:
    tokenizer = trained(model)
    (ids,) = tokenizer.encode(["the 日本 cat"])
    assert UNK in ids
    (text,) = tokenizer.decode([ids])
    assert text.startswith("the ")
    assert text.endswith(" cat")


def test_the_name_of_a_byte_is_no_beginning() -> None:
    tokenizer = train(["fish a<b and c<d", *LINES], "unigram", 320, byte_fallback=True, threads=1)
    ids, (*_, following) = tokenizer.beginning("fish a<")
    assert following
    (before,) = tokenizer.encode(["fish a"])
    assert before[: len(ids)] == ids
    assert {tokenizer.decode([[*before, i]])[0] for i in following} == {"fish a<"}


@models
@pytest.mark.parametrize("byte_fallback", [False, True])
def test_special_ids(model: str, byte_fallback: bool) -> None:
    tokenizer = trained(model, byte_fallback)
    assert (PAD, BOS, EOS, UNK) == (0, 1, 2, 3)
    ids = {i for line in tokenizer.encode([*SEEN, *UNSEEN, "<pad> <s> </s>"]) for i in line}
    assert not ids & {PAD, BOS, EOS}, "text never becomes a special piece"
    assert max(ids) < tokenizer.vocab
    (line,) = tokenizer.encode(["the cat"])
    assert tokenizer.decode([[BOS, *line, EOS, PAD, PAD]]) == ["the cat"], "special pieces leave no trace"


@models
def test_nothing_in_nothing_out(model: str) -> None:
    tokenizer = trained(model)
    assert tokenizer.encode([]) == []
    assert tokenizer.decode([]) == []
    assert tokenizer.encode(["", "   ", "the"])[:2] == [[], []]
    assert tokenizer.decode([[], [BOS, EOS]]) == ["", ""]


@models
def test_pieces_spell_the_text(model: str) -> None:
    tokenizer = trained(model)
    for line in LINES[:5]:
        (ids,) = tokenizer.encode([line])
        pieces = tokenizer.pieces(ids)
        assert "".join(pieces).replace(SPACE, " ").strip() == normalised(line)
        assert len(pieces) == len(ids)


@models
def test_threads_give_the_same_ids(model: str) -> None:
    lines = [*LINES, *SEEN, *UNSEEN, "a \ud83d"] * 20
    assert trained(model).encode(lines, threads=3) == trained(model).encode(lines)


@models
def test_lines_do_not_touch_each_other(model: str) -> None:
    tokenizer = trained(model)
    assert tokenizer.encode(LINES[:5]) == [tokenizer.encode([line])[0] for line in LINES[:5]]


# -- sizes


def number_in(error: pytest.ExceptionInfo[DataError], words: str) -> int:
    found = re.search(rf"{words}\D* (\d+)", str(error.value))
    assert found, error.value
    return int(found[1])


@subwords
@pytest.mark.parametrize("byte_fallback", [False, True])
def test_too_large_a_vocabulary_names_the_largest(model: str, byte_fallback: bool) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.vocab_size: 50000 ") as error:
        train(LINES, model, 50_000, byte_fallback=byte_fallback, threads=1)
    largest = number_in(error, "largest possible")
    assert train(LINES, model, largest, byte_fallback=byte_fallback, threads=1).vocab == largest


@pytest.mark.parametrize(
    ("model", "byte_fallback", "symbols"),
    [
        ("unigram", False, ()),
        ("unigram", True, ()),
        ("bpe", False, ("<x>", "<y>")),
        ("bpe", True, ()),
        ("char", True, ()),
        ("char", False, ("<1>", "<2>", "<3>", "<4>", "<5>", "<6>")),
        ("char", True, ("<x>",)),
    ],
)
def test_too_small_a_vocabulary_names_the_smallest(model: str, byte_fallback: bool, symbols: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.vocab_size: 9 ") as error:
        train(LINES, model, 9, byte_fallback=byte_fallback, symbols=symbols, threads=1)
    smallest = number_in(error, "smallest")
    build = {"byte_fallback": byte_fallback, "symbols": symbols, "threads": 1}
    assert train(LINES, model, smallest, **build).vocab == smallest
    with pytest.raises(DataError):
        train(LINES, model, smallest - 1, **build)


def test_a_char_vocabulary_is_an_upper_bound() -> None:
    characters = set(normalised(" ".join(LINES)).replace(" ", SPACE))
    whole = train(LINES, "char", 1000, threads=1)
    assert whole.vocab == UNK + 1 + len(characters)
    assert train(LINES, "char", 20, threads=1).vocab == 20


@models
@pytest.mark.parametrize("lines", [[], [""], ["", "   ", "\t"], ["\u2028"]])
def test_nothing_to_train_on(model: str, lines: list[str]) -> None:
    with pytest.raises(DataError, match="no text to train on"):
        train(lines, model, 60, threads=1)


@models
def test_training_is_the_same_each_time(model: str) -> None:
    one, other = (train(iter(LINES), model, 60, threads=1) for _ in range(2))
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != train(LINES[:3], model, 30, threads=1).fingerprint


# -- sampling


def reaches(before: list[int], after: list[dict[int, int]], ids: list[int]) -> bool:
    """Whether these ids begin so."""
    place, rest = 0, ids[len(before) :]
    while place < len(after) and rest and rest[0] in after[place]:
        place, rest = after[place][rest[0]], rest[1:]
    return ids[: len(before)] == before and place == len(after)


def sampled(tokenizer: Tokenizer, lines: list[str], amount: float, seed: int) -> list[list[int]]:
    return tokenizer.resample(tokenizer.encode(lines), amount, seed)


@subwords
def test_a_text_that_ends_within_a_word_goes_on_as_the_whole_one(model: str) -> None:
    tokenizer = trained(model)
    for line in LINES[:5]:
        (ids,) = tokenizer.encode([line])
        for end in range(1, len(line)):
            assert reaches(*tokenizer.beginning(line[:end]), ids)


@subwords
def test_a_text_that_ends_with_a_word_goes_on_as_that_word(model: str) -> None:
    """Though a longer piece may begin like it."""
    tokenizer = trained(model)
    several = 0
    for line in LINES[:5]:
        for word in line.split():
            (ids,) = tokenizer.encode([word])
            before, after = tokenizer.beginning(word)
            assert not before
            assert reaches(before, after, ids)
            several += len(ids) > 1
    assert several


@subwords
def test_all_spellings_of_a_beginning_write_it(model: str) -> None:
    tokenizer = trained(model)
    for text in ("the c", "fish an", "a "):
        before, after = tokenizer.beginning(text)
        spelled = [[*before]] if not after else []
        open_ = [(list(before), 0)]
        while open_:
            ids, place = open_.pop()
            if place == len(after):
                spelled.append(ids)
                continue
            assert after[place], "nothing can follow there"
            assert all(place < then <= len(after) for then in after[place].values())
            open_ += [([*ids, piece], then) for piece, then in after[place].items()]
        assert spelled
        written = ["".join(tokenizer.pieces(ids)).replace("▁", " ").lstrip() for ids in spelled]
        assert all(one.startswith(text) for one in written)
        assert len({tuple(ids) for ids in spelled}) == len(spelled)


@subwords
def test_sampling_depends_on_the_seed_alone(model: str) -> None:
    tokenizer = trained(model)
    draws = {seed: sampled(tokenizer, LINES, 0.3, seed) for seed in range(5)}
    for seed, ids in draws.items():
        assert sampled(tokenizer, LINES, 0.3, seed) == ids
    assert len({str(ids) for ids in draws.values()}) == len(draws)
    assert sampled(tokenizer, LINES, 0.3, 2**40 + 1) != draws[1]


@subwords
def test_sampling_is_the_same_in_another_process(model: str, tmp_path: Path) -> None:
    """So that a run that is resumed goes on with the segmentations it would have had."""
    (tmp_path / "source.model").write_bytes(trained(model).proto)
    script = (
        "import sys; from pathlib import Path; from nmt.tokenizer import Tokenizer; "
        "one = Tokenizer.load(Path(sys.argv[1])); print(one.resample(one.encode(sys.argv[2:]), 0.3, 5))"
    )
    call = [sys.executable, "-c", script, str(tmp_path / "source.model"), *LINES]
    found = subprocess.run(call, capture_output=True, text=True, check=True, cwd=Path(nmt.__file__).parent.parent)
    assert found.stdout.strip() == str(sampled(trained(model), LINES, 0.3, 5))


@subwords
@pytest.mark.parametrize("alpha", [0.05, 0.3, 1.0])
def test_samples_spell_the_same_text(model: str, alpha: float) -> None:
    tokenizer = trained(model)
    for ids in (sampled(tokenizer, LINES, alpha, seed) for seed in range(5)):
        assert tokenizer.decode(ids) == [normalised(line) for line in LINES]


@subwords
def test_sampling_leaves_nothing_behind(model: str) -> None:
    tokenizer = trained(model)
    before = tokenizer.encode(LINES)
    sampled(tokenizer, LINES, 0.3, 3)
    assert tokenizer.encode(LINES) == before


def test_unigram_samples_follow_the_model() -> None:
    """p^alpha: a high alpha gives the best segmentation nearly always, a low one many."""
    tokenizer = trained("unigram")
    (best,) = tokenizer.encode(["sat"])
    drawn = {alpha: tokenizer.resample([best] * 300, alpha, 1) for alpha in (0.1, 20.0)}
    assert sum(ids == best for ids in drawn[20.0]) > 290
    assert len({tuple(ids) for ids in drawn[0.1]}) > 3


@subwords
def test_a_line_without_spaces_is_sampled_in_parts_which_are_not_kept(model: str) -> None:
    """It is one word: drawn as a whole it would seldom change, or not at all where a letter is spelled in bytes."""
    tokenizer = trained(model, byte_fallback=True)
    text = "thecatsatonthemat" * 20
    (best,) = tokenizer.encode([f"{text}日{text}"])
    drawn = tokenizer.resample([best] * 30, 0.5, 1)
    assert tokenizer.decode(drawn) == [f"{text}日{text}"] * 30
    assert len(set(map(tuple, drawn))) == 30
    assert all(len(word) < PART for word, _ in tokenizer._known)
    ends = [set(accumulate(map(len, tokenizer.pieces(ids)))) for ids in (best, *drawn)]
    alike = [len(one & ends[0]) / len(one | ends[0]) for one in ends[1:]]
    assert 0.3 < min(alike) < max(alike) < 1, "the best segmentation changes here and there"


def test_bpe_without_merges_is_characters() -> None:
    tokenizer = trained("bpe")
    (ids,) = sampled(tokenizer, ["the cat"], 1.0, 1)
    assert tokenizer.pieces(ids) == [SPACE, *"the", SPACE, *"cat"]
    everywhere = sampled(tokenizer, LINES, 1.0, 1)
    assert {len(piece) for ids in everywhere for piece in tokenizer.pieces(ids)} == {1}, "the first merge too"
    lengths = [sum(map(len, sampled(tokenizer, LINES * 9, share, 1))) for share in (0.01, 0.1, 0.5, 1.0)]
    assert lengths == sorted(lengths)
    assert len(set(lengths)) == len(lengths)


# -- symbols


@models
def test_symbols_are_never_split(model: str) -> None:
    symbols = ("<2de>", "@@NUM@@", "cat")
    tokenizer = trained(model, symbols=symbols)
    for text in ("<2de> the cat", "the<2de>dog", "@@NUM@@@@NUM@@", "concatenate"):
        for ids in (tokenizer.encode([text])[0], *(sampled(tokenizer, [text] * 9, 0.5, 4) if model != "char" else [])):
            pieces = tokenizer.pieces(ids)
            for symbol in symbols:
                assert sum(piece == symbol for piece in pieces) == text.count(symbol)


# -- files


def test_a_saved_tokenizer_is_the_same(tmp_path: Path) -> None:
    tokenizer = trained("unigram")
    (tmp_path / "source.model").write_bytes(tokenizer.proto)
    loaded = Tokenizer.load(tmp_path / "source.model")
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.encode(LINES) == tokenizer.encode(LINES)


@pytest.mark.parametrize("keep", [0, 1, 99, 100_000, -1])
def test_a_truncated_model_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "target.model"
    path.write_bytes(trained("bpe").proto[:keep])
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        Tokenizer.load(path)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.model", tmp_path):
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            Tokenizer.load(path)


@pytest.mark.parametrize(
    "ids",
    [
        {"pad_id": -1, "bos_id": 1, "eos_id": 2, "unk_id": 0},  # what SentencePiece does by itself
        {"pad_id": 3, "bos_id": 1, "eos_id": 2, "unk_id": 0},
        {"pad_id": 0, "bos_id": 2, "eos_id": 1, "unk_id": 3},
    ],
)
def test_other_special_ids_are_refused(ids: dict[str, int]) -> None:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=out, vocab_size=50, minloglevel=3, num_threads=1, **ids
    )
    with pytest.raises(CheckpointError, match="pad, bos, eos, unk") as error:
        Tokenizer(out.getvalue(), "my.model")
    assert "my.model" in str(error.value)
    assert str(tuple(ids.values())) in str(error.value)


def test_what_stops_the_reading_of_the_text_is_not_taken_for_a_failure_of_the_training() -> None:
    def text(error: BaseException) -> Iterator[str]:
        yield from ["kala juo", "koira juo"] * 50
        raise error

    for error in (KeyboardInterrupt(), DataError("corpus.en: line 101: damaged")):
        with pytest.raises(type(error)) as caught:
            train(text(error), vocab_size=16)
        assert caught.value is error


def test_what_a_normalization_alters() -> None:
    lines = ["plain  text ", "a\u00a0b", "می\u200cخواهم", "ทำ", "½ …"]
    assert altered(lines, "nmt_nfkc") == 3
    assert altered(lines, "identity") == 0
