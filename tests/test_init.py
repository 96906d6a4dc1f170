"""`nmt init`: a recipe for a corpus, and what is said of one that cannot be read."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from toy import call

from nmt import corpus, init, material, recipe, spacing
from nmt.errors import CallError, DataError


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NMT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NMT_DATA", raising=False)


def lines(count: int, letters: str = "abcdefgh") -> list[str]:
    words = [one + two for one in letters for two in letters]
    return [" ".join(words[(row * 7 + n * 5) % 64] for n in range(3 + row % 5)) + f" {row}" for row in range(count)]


def write(name: str, count: int = 100, letters: str = "") -> Path:
    path, letters = Path(name), letters or ("abcdefgh" if name.endswith("en") else "hgfedcba")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines(count, letters)), encoding="utf-8")
    return path


def test_two_files_become_a_recipe_that_trains() -> None:
    write("my/pairs.en")
    write("my/pairs.no", letters="hgfedcba")  # a language that YAML takes for a truth value
    result = call("init", "--source-file", "my/pairs.en", "--target-file", "my/pairs.no", "--out", "my.yaml")
    assert result.status == 0, result.err
    assert result.out == Path("my.yaml").read_text(encoding="utf-8")
    assert "nmt train my.yaml" in result.err
    made = recipe.load("my.yaml")
    assert (made.data.source, made.data.target, made.data.hold_out) == ("en", "no", 5)
    assert [len(material.load_split(made.data, split)) for split in ("train", "valid", "test")] == [90, 5, 5]
    quick = ["--set", "training.epochs=1", "--set", "model.decoder.hidden=16", "--set", "training.threads=1"]
    done = call("train", "my.yaml", "--out", "run", *quick)
    assert done.status == 0, done.err
    assert call("evaluate", "run").status == 0


def test_few_pairs_get_a_training_that_fits_them_and_a_word_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    init.write([write("my/pairs.en"), write("my/pairs.de")], None, None, Path("my.yaml"))
    assert init.FEW in Path("my.yaml").read_text(encoding="utf-8")
    few = recipe.load("my.yaml").training
    assert few.warmup < few.validate_every == init.VALIDATE
    small = [f"--set=model.{key}=8" for key in ("embed", "encoder.hidden", "decoder.hidden")]
    done = call("train", "my.yaml", "--out", "run", "--set=training.patience=1", *small)
    assert done.status == 0, done.err
    assert "too long for so short" not in done.err
    monkeypatch.setattr(init, "FEW_PAIRS", 50)
    monkeypatch.setattr(init, "VALIDATE", 1)
    init.write([Path("my/pairs.en"), Path("my/pairs.de")], None, None, Path("other.yaml"))
    assert init.FEW not in Path("other.yaml").read_text(encoding="utf-8")
    assert recipe.load("other.yaml").training.validate_every is None


def test_valid_and_test_beside_the_corpus_are_taken() -> None:
    files = [
        write(f"my/{split}.{side}", count)
        for split, count in (("train", 80), ("valid", 7), ("test", 9))
        for side in ("en", "de")
    ]
    init.write(files[:2], None, None, Path("my.yaml"))
    made = recipe.load("my.yaml").data
    assert made.hold_out == 0
    assert [len(material.load_split(made, split)) for split in ("train", "valid", "test")] == [80, 7, 9]


def test_a_valid_set_without_a_test_set_is_not_passed_over_in_silence() -> None:
    files = [
        write(f"my/{split}.{side}", count) for split, count in (("train", 80), ("valid", 7)) for side in ("en", "de")
    ]
    result = call("init", "--source-file", files[0], "--target-file", files[1], "--out", "my.yaml")
    assert result.status == 0
    assert "warning: my has a valid set but no test set, so both are taken out of the corpus" in result.err
    assert "put test.* beside it" in result.err
    assert recipe.load("my.yaml").data.hold_out == 4


def test_the_first_pair_is_shown_so_that_sides_taken_for_each_other_are_seen() -> None:
    Path("pairs.tsv").write_text("English\tGerman\n" + "".join(f"{line}\t{line.upper()}S\n" for line in lines(60)))
    result = call("init", "--file", "pairs.tsv", "--source", "de", "--target", "en", "--out", "my.yaml")
    assert "61 pairs, de to en, first: English → German" in result.err
    assert call("data", "my.yaml").out.startswith("first  English → German\n")


def test_one_file_of_both_sides_needs_the_languages() -> None:
    rows = [("en", "de"), *((line, line.upper() + "S") for line in lines(60))]
    Path("pairs.tsv").write_text("".join(f"{one}\t{two}\n" for one, two in rows))
    with pytest.raises(CallError, match="--source and --target"):
        init.write([Path("pairs.tsv")], None, None, Path("my.yaml"))
    init.write([Path("pairs.tsv")], "de", "en", Path("my.yaml"))
    made = recipe.load("my.yaml").data
    first = material.load_split(made, "train")
    assert first.source[0].isupper()
    assert not first.target[0].isupper()


def test_columns_can_be_named() -> None:
    rows = [("id", "text", "words"), *((str(row), line, f"{line} s") for row, line in enumerate(lines(60)))]
    Path("pairs.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    flags = ["--file", "pairs.tsv", "--source", "en", "--target", "sw", "--out", "my.yaml"]
    assert call("init", *flags, "--columns", "words", "none").status != 0
    assert call("init", *flags, "--columns", "words", "text").status == 0
    made = recipe.load("my.yaml").data
    assert (made.columns, len(material.load_split(made, "train"))) == (("words", "text"), 54)


def test_what_a_normalization_would_rewrite_is_left_as_it_is() -> None:
    source, target = write("p.en", 60), write("p.fa", 60)
    init.write([source, target], None, None, Path("plain.yaml"))
    assert recipe.load("plain.yaml").tokenizer.normalization == "nmt_nfkc"
    text = target.read_text(encoding="utf-8").splitlines()
    for rows, expected in ((1, "nmt_nfkc"), (10, "identity")):
        changed = [f"می\u200cخواهم {line}" if row < rows else f"{line}\u00a0!" for row, line in enumerate(text)]
        target.write_text("".join(f"{line}\n" for line in changed), encoding="utf-8")
        init.write([source, target], None, None, Path(f"{rows}.yaml"))
        assert recipe.load(f"{rows}.yaml").tokenizer.normalization == expected
    made = recipe.load("10.yaml")
    _, tokenizer = material.train_tokenizers(made, material.load_split(made.data, "train"))
    assert tokenizer.decode(tokenizer.encode([changed[0]])) == [changed[0]]


def test_a_vocabulary_fits_a_text_that_is_left_as_it_is() -> None:
    """As many pieces as the text allows as it is, not as it would be when rewritten."""
    ligatures = str.maketrans({"a": "ﬀ", "c": "ﬁ", "e": "ﬂ", "g": "ﬃ"})
    source, target = write("p.en", 60), write("p.fa", 60)
    target.write_text(target.read_text(encoding="utf-8").translate(ligatures), encoding="utf-8")
    init.write([source, target], None, None, Path("my.yaml"))
    made = recipe.load("my.yaml")
    assert made.tokenizer.normalization == "identity"
    material.train_tokenizers(made, material.load_split(made.data, "train"))


def test_short_sentences_are_judged_by_chrf() -> None:
    for times, metric in ((1, "chrf"), (3, "bleu")):
        for side in ("en", "de"):
            text = [" ".join([line] * times) for line in ("".join(one.split()[:2]) for one in lines(3_00))]
            Path(f"p.{side}").write_text("".join(f"{row} {side} {line}\n" for row, line in enumerate(text)))
        init.write([Path("p.en"), Path("p.de")], None, None, Path(f"{times}.yaml"))
        assert recipe.load(f"{times}.yaml").training.metric == metric


def test_a_corpus_is_as_large_as_its_different_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "PLANS", (replace(init.PLANS[0], pairs=100), replace(init.PLANS[2], pairs=1e9)))
    for side in ("en", "de"):
        Path(f"p.{side}").write_text("".join(f"{line} {side}\n" for line in lines(60) * 5) + f"\n{side}\n")
    init.write([Path("p.en"), Path("p.de")], None, None, Path("my.yaml"))
    assert recipe.load("my.yaml").model.dropout.layers == init.PLANS[0].dropout
    assert "302 pairs, 61 of them different" in Path("my.yaml").read_text()


def test_of_a_large_corpus_a_part_is_looked_at_and_allows_as_many_pieces_as_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(init, "SAMPLE", 100)
    files = [write("p.en", 1_000), write("p.de", 1_000)]
    with files[1].open("a", encoding="utf-8") as german, files[0].open("a", encoding="utf-8") as english:
        english.write("".join(f"the end {row}\n" for row in range(60)))
        german.write("".join(f"{chr(0x4E00 + 5 * row)}{chr(0x5E00 + 5 * row)} {row}\n" for row in range(60)))
    init.write(files, None, None, Path("my.yaml"))
    made = recipe.load("my.yaml")
    material.train_tokenizers(made, material.load_split(made.data, "train"))


def test_sentences_that_are_long_and_short_by_turns_are_drawn_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each picture in Multi30k a long caption comes first, then a short one."""
    monkeypatch.setattr(init, "SAMPLE", 400)
    text = [f"{line} {' w' * (0 if row % 3 else 10)}" for row, line in enumerate(lines(1_200))]
    pairs = corpus.from_pairs(text, text, "captions")
    words = [fmean(spacing.words(side)) for side in init._sample(pairs)]
    assert words == pytest.approx([fmean(spacing.words(text))] * 2, abs=1)


def test_a_large_corpus_whose_part_allows_it_gets_the_pieces_of_its_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "SAMPLE", 500)
    monkeypatch.setattr(init, "PLANS", (replace(init.PLANS[0], pairs=1e9, pieces=60),))
    init.write([write("p.en", 1_000), write("p.de", 1_000)], None, None, Path("my.yaml"))
    made = recipe.load("my.yaml")
    source, _ = material.train_tokenizers(made, material.load_split(made.data, "train"))
    assert source.vocab == made.tokenizer.vocab_size == 60


def test_sets_beside_a_table_have_its_columns() -> None:
    for split, first in (("train", 0), ("valid", 60), ("test", 80)):
        rows = "".join(f"{row}\t{line}\t{line} s\n" for row, line in enumerate(lines(100)[first : first + 60]))
        Path(f"{split}.tsv").write_text(f"en\ttext\twords\n{rows}")
    init.write([Path("train.tsv")], "en", "sw", Path("my.yaml"), ("text", "words"))
    made = recipe.load("my.yaml").data
    assert (made.hold_out, len(material.load_split(made, "test"))) == (0, 20)


def test_sets_with_other_names_are_not_passed_over_in_silence() -> None:
    files = [
        write(f"my/{split}.{side}.txt", 80, letters)
        for split in ("train", "dev", "testament")
        for side, letters in (("en", "abcdefgh"), ("de", "hgfedcba"))
    ]
    made = call(
        *("init", "--source-file", files[0], "--target-file", files[1], "--source", "en", "--target", "de"),
        *("--out", "my.yaml"),
    )
    assert "warning: my has dev.de.txt, dev.en.txt, not valid.en" in made.err
    assert recipe.load("my.yaml").data.hold_out


def test_a_corpus_of_empty_lines_is_said_to_be_one() -> None:
    files = [write("p.en"), Path("p.de")]
    files[1].write_text("\n" * len(files[0].read_text().splitlines()))
    with pytest.raises(DataError, match=r"0 pairs are too few to learn from.* have an empty side"):
        init.write(files, None, None, Path("my.yaml"))


@pytest.mark.parametrize("count", [40, 400, 3_000])
def test_a_small_corpus_gets_no_more_pieces_than_it_allows(count: int) -> None:
    files = [write("p.en", count), write("p.de", count)]
    init.write(files, None, None, Path("my.yaml"))
    made = recipe.load("my.yaml")
    source, _ = material.train_tokenizers(made, material.load_split(made.data, "train"))
    assert 20 < source.vocab <= 1_000


def test_many_characters_are_spelled_by_their_bytes_where_they_are_rare() -> None:
    draw = random.Random(1)
    letters = [chr(0x4E00 + number) for number in range(1_500)]
    weights = [1 / (1 + number) for number in range(len(letters))]
    rows = ["".join(draw.choices(letters, weights, k=12)) for _ in range(3_000)]
    Path("p.zh").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    words = [[chr(97 + draw.randrange(26)) * draw.randint(1, 2) for _ in range(4)] for _ in range(5_000)]
    text = "".join(f"{' '.join(map(''.join, draw.choices(words, k=8)))}\n" for _ in rows)
    Path("p.en").write_text(text, encoding="utf-8")
    init.write([Path("p.en"), Path("p.zh")], None, None, Path("my.yaml"))
    made = recipe.load("my.yaml")
    assert (made.tokenizer.byte_fallback, made.tokenizer.character_coverage) == (True, 0.9995)
    assert not made.tokenizer.joint
    _, target = material.train_tokenizers(made, material.load_split(made.data, "train"))
    assert target.decode(target.encode(["龘" + rows[0]])) == ["龘" + rows[0]], "a letter that it never saw"


@pytest.mark.parametrize("count", [60, 300, 900])
def test_many_characters_on_one_side_get_a_number_of_pieces_that_both_allow(count: int) -> None:
    draw = random.Random(1)
    letters = [chr(0x4E00 + number) for number in range(600)]
    words = ["".join(draw.choices("abcdefgh", k=5)) for _ in range(50)]
    for name, units, space in (("p.en", words, " "), ("p.zh", letters, "")):
        rows = (space.join(draw.choices(units, k=8)) for _ in range(count))
        Path(name).write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    init.write([Path("p.en"), Path("p.zh")], None, None, Path("my.yaml"))
    made = recipe.load("my.yaml")
    source, target = material.train_tokenizers(made, material.load_split(made.data, "train"))
    assert source.vocab == target.vocab == made.tokenizer.vocab_size


def test_what_is_held_out_counts_neither_for_pieces_nor_for_repetitions() -> None:
    draw = random.Random(1)
    words = [["".join(draw.choices("abcdefgh", k=6)) for _ in range(8)] for _ in range(60)]
    for name in ("p.en", "p.de"):
        Path(name).write_text("".join(" ".join(sorted(line, reverse=name == "p.de")) + "\n" for line in words * 20))
    init.write([Path("p.en"), Path("p.de")], None, None, Path("my.yaml"))
    made = recipe.load("my.yaml")
    assert made.data.hold_out == 3  # of 60 different pairs, not of 1,200
    material.train_tokenizers(made, material.load_split(made.data, "train"))


def test_sides_without_common_letters_have_vocabularies_of_their_own() -> None:
    init.write([write("p.en"), write("p.ru", letters="абвгдежз")], None, None, Path("my.yaml"))
    made = recipe.load("my.yaml")
    assert (made.tokenizer.joint, made.model.tie) == (False, "target")
    init.write([write("p.en"), write("p.de", letters="efghijkl")], None, None, Path("other.yaml"))
    assert recipe.load("other.yaml").tokenizer.joint


def test_a_corpus_gets_the_plan_of_its_size_and_the_more_words_the_fewer_epochs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small, large = replace(init.PLANS[0], pairs=60), replace(init.PLANS[3], pairs=float("inf"))
    monkeypatch.setattr(init, "PLANS", (small, large))
    monkeypatch.setattr(init, "SEEN", 10_000)
    made = []
    for count in (60, 61, 300):
        init.write([write(f"p{count}.en", count), write(f"p{count}.de", count)], None, None, Path(f"{count}.yaml"))
        made.append(recipe.load(f"{count}.yaml"))
    assert [one.model.decoder.hidden for one in made] == [small.hidden, large.hidden, large.hidden]
    assert made[1].training.epochs > made[2].training.epochs


def test_larger_corpora_get_larger_models() -> None:
    for one, two in zip(init.PLANS, init.PLANS[1:], strict=False):
        assert one.pairs < two.pairs
        assert (one.pieces, -one.dropout) < (two.pieces, -two.dropout)
        assert one.hidden <= two.hidden
        assert one.batch_tokens <= two.batch_tokens


def test_few_pairs_are_shown_where_the_words_are_and_bear_more_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    few, more = init.PLANS[0], init.PLANS[2]
    made = []
    for name, plan in (("few", few), ("more", more)):
        monkeypatch.setattr(init, "PLANS", (plan,))
        init.write([write("p.en"), write("p.de")], None, None, Path(f"{name}.yaml"))
        made.append(recipe.load(f"{name}.yaml"))
    assert made[0].model.dropout.layers > made[1].model.dropout.layers
    assert made[0].training.guided_attention > made[1].training.guided_attention == 0
    assert made[1].training.subword_sampling > made[0].training.subword_sampling == 0


def test_long_sentences_get_the_shortcut_and_fewer_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    (plan,) = (plan for plan in init.PLANS if not plan.hard and plan.pairs < 100_000)
    monkeypatch.setattr(init, "PLANS", (plan,))
    monkeypatch.setattr(init, "SEEN", 100 * 60 * 5)
    made = []
    for name, times in (("short", 1), ("long", 5)):
        files = [write(f"{name}.{side}") for side in ("en", "de")]
        for file in files:
            text = [" ".join([line] * times) for line in file.read_text(encoding="utf-8").splitlines()]
            file.write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
        init.write(files, None, None, Path(f"{name}.yaml"))
        made.append(recipe.load(f"{name}.yaml"))
    assert [one.model.encoder.shortcut for one in made] == [False, True]
    assert made[0].search.length_penalty > made[1].search.length_penalty
    assert made[0].training.epochs == 50
    assert made[1].training.epochs == 10


def test_names_that_say_the_opposite_are_refused() -> None:
    files = [write("p.de"), write("p.en")]
    with pytest.raises(DataError, match=r"p\.de is read as en, p\.en as de, and their names say the opposite"):
        init.write(files, "en", "de", Path("my.yaml"))
    init.write(files, None, None, Path("other.yaml"))
    init.write(files, "deu", "eng", Path("third.yaml"))
    there = recipe.load("other.yaml", ["data.source=en", "data.target=de"])
    with pytest.raises(DataError, match=r"exchange them in data\.train"):
        material.load_split(there.data, "train")


def test_a_file_that_cannot_be_read_twice_is_refused() -> None:
    os.mkfifo("p.en")
    with pytest.raises(CallError, match=r"p\.en: this is no plain file: save it as one"):
        init.write([Path("p.en"), write("p.de")], None, None, Path("my.yaml"))


def test_a_memory_has_languages_not_columns() -> None:
    Path("a.tmx").write_text("<tmx/>")
    with pytest.raises(CallError, match=r"--columns: a\.tmx has none but languages"):
        init.write([Path("a.tmx")], "en", "de", Path("my.yaml"), ("one", "two"))


def test_symbols_are_a_language_too() -> None:
    files = [write("p.en"), Path("p.emo")]
    letters = str.maketrans("abcdefgh", "⠁⠃⠉⠙⠑⠋⠛⠓")
    files[1].write_text(files[0].read_text().translate(letters))
    init.write(files, None, None, Path("my.yaml"))
    assert recipe.load("my.yaml").data.hold_out


def test_what_is_wrong_is_said_and_nothing_is_written() -> None:
    english, german, plain, few = write("p.en"), write("p.de"), write("plain"), write("few.en", 9)
    taken = Path("taken.yaml")
    taken.write_text("mine")
    calls: list[tuple[list[Path], str, type[Exception]]] = [
        ([english, Path("none.de")], "none.de: there is no such file", CallError),
        ([english, plain], "do not end with two languages", CallError),
        ([english, english], "do not end with two languages", CallError),
        ([english], "no known format", CallError),
        ([few, write("few.de", 9)], "9 pairs are too few", DataError),
        ([english, Path("few.de")], "100", DataError),
    ]
    for files, message, kind in calls:
        with pytest.raises(kind, match=message):
            init.write(files, None, None, Path("my.yaml"))
    assert not Path("my.yaml").exists()
    with pytest.raises(CallError, match="--columns: two text files have none"):
        init.write([english, german], None, None, Path("my.yaml"), ("a", "b"))
    with pytest.raises(CallError, match="--source and --target are both 'en'"):
        init.write([english, german], "en", "en", Path("my.yaml"))
    with pytest.raises(CallError, match=r"taken\.yaml: it is there already"):
        init.write([english, german], None, None, taken)
    assert taken.read_text() == "mine"
    for flags in ([], ["--file", "p.tsv", "--source-file", "p.en"], ["--source-file", "p.en"]):
        result = call("init", "--out", "my.yaml", *flags)
        assert result.status == 2
        assert "--target-file" in result.err
