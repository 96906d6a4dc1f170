"""Text in, text out: what a translation is, whatever it came with, and how a line that is too long is cut."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from toy import Toy, call, pairs, write_corpus, write_recipe

import nmt
from nmt import run, tokenizer, translate
from nmt.consensus import ranked
from nmt.data import by_length
from nmt.errors import CallError, CheckpointError, RecipeError
from nmt.recipe import Search, load
from nmt.tokenizer import Tokenizer
from nmt.translate import Translation, Translator, nbest_texts, to_json


@pytest.fixture(scope="module")
def attention(toy: Toy) -> Translator:
    return Translator.load(toy.attention, threads=1)


@pytest.fixture(scope="module")
def fixed(toy: Toy) -> Translator:
    return Translator.load(str(toy.fixed), threads=1)


@pytest.fixture(params=["attention", "fixed"])
def translator(request: pytest.FixtureRequest) -> Translator:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Translator)
    return found


LINES = [source for source, _ in pairs(30, seed=5)]


def texts(translations: Sequence[Translation]) -> list[str]:
    return [one.text for one in translations]


def silent(message: str) -> None:
    raise AssertionError(f"warned: {message}")


# ---- The same, whatever it came with ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["beam", "greedy", "sample"])
def test_alone_and_together_and_in_any_order_it_is_the_same(method: str, translator: Translator) -> None:
    translator = translator.adjusted([f"search.method={method}", "search.temperature=0.7"])
    together = translator.translate(LINES, warn=silent)
    assert len(together) == len(LINES)
    alone = [translator.translate([line])[0] for line in LINES]
    assert texts(alone) == texts(together)
    assert [one.score for one in alone] == pytest.approx([one.score for one in together], abs=1e-4)
    assert texts(translator.translate(LINES[::-1]))[::-1] == texts(together)
    small = translator.adjusted(["search.batch_tokens=40", f"search.method={method}", "search.temperature=0.7"])
    assert texts(small.translate(LINES)) == texts(together)


@pytest.mark.parametrize("tokens", [1, 10, 40, 10_000])
def test_what_is_searched_at_once_keeps_to_its_limit(tokens: int) -> None:
    lengths = [3, 9, 1, 4, 4, 9, 2, 12, 7, 7]
    groups = list(by_length(lengths, tokens))
    assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
    assert all(len(group) == 1 or len(group) * max(lengths[place] for place in group) <= tokens for group in groups)
    assert len(groups) == {1: 10, 10: 7, 40: 3, 10_000: 1}[tokens]


def test_several_batches_at_once_change_nothing(toy: Toy) -> None:
    small = ["search.batch_tokens=40"]
    alone = Translator.load(toy.attention, threads=1).adjusted(small).translate(LINES)
    try:
        together = Translator.load(toy.attention, threads=3).adjusted(small)
        assert together.engines[0].workers == 3
        assert texts(together.translate(LINES)) == texts(alone)
        assert torch.get_num_threads() == 3  # batches shared the cores, what comes next has all again
    finally:
        torch.set_num_threads(1)


def test_a_stream_is_a_translation_in_chunks(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = translator.translate(LINES, nbest=2)
    monkeypatch.setattr(translate, "CHUNK", 7)
    streamed = list(translator.stream(iter(LINES), nbest=2))
    assert texts(streamed) == texts(whole)
    assert [one.alternatives[0].text for one in streamed] == [one.alternatives[0].text for one in whole]
    assert list(translator.stream([])) == []


def test_a_stream_reads_no_further_than_it_must(fixed: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translate, "CHUNK", 4)
    lines = iter(LINES)
    stream = fixed.stream(lines)
    next(stream)
    assert len(list(lines)) == len(LINES) - 4


def test_empty_lines_stay_empty(translator: Translator) -> None:
    found = translator.translate(["", "kala", "  ", "\u200b", "\u2028", "koira"], nbest=2)
    assert [bool(one.text) for one in found] == [False, True, False, False, False, True]
    assert found[0] == Translation("", 0.0, [], [], [])
    assert translator.translate([]) == []
    assert texts(translator.translate(["", " "])) == ["", ""]


def test_it_learnt_something(attention: Translator) -> None:
    rows = pairs(100, seed=5)
    found = texts(attention.translate([source for source, _ in rows]))
    right = sum(one == target for one, (_, target) in zip(found, rows, strict=True))
    assert right > 20  # of 100: so that what is tested here is a translator, not noise


# ---- What comes with a translation -----------------------------------------------------------------------------------


def test_consensus_chooses_among_the_hypotheses_of_the_beam(translator: Translator) -> None:
    beam = translator.adjusted(["search.beam=6"]).translate(LINES, nbest=6)
    agreed = translator.adjusted(["search.beam=6", "search.mbr=0.01"]).translate(LINES, nbest=6)
    sharp = translator.adjusted(["search.beam=6", "search.mbr=1e9"]).translate(LINES)
    for one, two, three in zip(beam, agreed, sharp, strict=True):
        found = [one, *one.alternatives]
        order = ranked([each.text for each in found], [each.score for each in found], 0.01)
        assert [each.text for each in (two, *two.alternatives)] == [found[place].text for place in order]
        assert three.text == one.text
        assert not three.alternatives
    assert any(one.text != two.text for one, two in zip(beam, agreed, strict=True))
    greedy = translator.adjusted(["search.method=greedy"])
    assert texts_of(translator.adjusted(["search.method=greedy", "search.mbr=3"])) == texts_of(greedy)


@pytest.fixture(scope="module")
def reverse(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the opposite direction."""
    folder = tmp_path_factory.mktemp("reverse")
    recipe = write_recipe(folder / "back.yaml", toy.corpus, {"data.source": "de", "data.target": "en"})
    assert call("train", recipe, "--out", folder / "back").status == 0
    return folder / "back"


@pytest.mark.parametrize("folder", ["attention", "fixed"])
def test_a_reversed_model_has_a_say_in_the_choice(
    folder: str, toy: Toy, reverse: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    system = str(getattr(toy, folder))
    settings = ["search.beam=6", "search.length_penalty=1.5"]
    judged = [*settings, f"search.reverse={reverse}", "search.reverse_weight=0.7"]
    lines = ["", *LINES]
    beam, back = run.translator(system, settings).translate(lines, nbest=6), Translator.load(reverse)
    found = run.translator(system, judged).translate(lines, nbest=6)
    assert found[0].text == ""
    for line, before, after in zip(lines[1:], beam[1:], found[1:], strict=True):
        expected = {}
        for one in (before, *before.alternatives):
            (scored,) = back.score([one.text], [line])
            lengths = ((5 + len(one.log_probs)) / 6) ** 1.5
            expected[one.text] = (sum(one.log_probs) + 0.7 * scored.log_prob) / lengths
        order = [after, *after.alternatives]
        assert {one.text: one.score for one in order} == pytest.approx(expected, rel=1e-4)
        assert [one.score for one in order] == sorted((one.score for one in order), reverse=True)
    assert any(one.text != two.text for one, two in zip(beam, found, strict=True))
    greedy = run.translator(system, [*judged, "search.method=greedy"])
    assert "with search.method=greedy they are in vain" in capsys.readouterr().err
    assert texts_of(greedy) == texts_of(run.translator(system, ["search.method=greedy"]))
    assert "in vain" not in capsys.readouterr().err


def test_a_model_that_does_not_lead_back_is_refused(toy: Toy) -> None:
    wrong = call("translate", toy.fixed, "--set", f"search.reverse={toy.attention}", stdin="kala\n")
    assert f"{toy.attention} translates en to de, {toy.fixed} needs one from de to en" in wrong.error
    assert "nowhere: no such" in call("translate", toy.fixed, "--set", "search.reverse=nowhere", stdin="kala\n").error
    with pytest.raises(CallError, match=r"nmt\.run\.translator"):
        Translator.load(toy.fixed).adjusted([f"search.reverse={toy.fixed}"]).translate(["kala"])


def texts_of(translator: Translator) -> list[str]:
    return [one.text for one in translator.translate(LINES)]


def test_a_text_in_several_spellings_is_there_once(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what was drawn all stays: how often a text comes says how likely it is."""
    monkeypatch.setattr(translator.members[0].target, "decode", lambda ids: ["xy"[sum(one) % 2] for one in ids])
    found = translator.adjusted(["search.beam=8"]).translate(LINES, nbest=8)
    whole = translator.adjusted(["search.method=sample"]).translate(LINES, nbest=8)
    for one, drawn in zip(found, whole, strict=True):
        assert len(one.alternatives) < 2
        assert len({each.text for each in (one, *one.alternatives)}) == 1 + len(one.alternatives)
        assert all(one.score >= other.score for other in one.alternatives)
        assert len(drawn.alternatives) == 7


def test_nbest_is_sorted_and_begins_with_the_best(translator: Translator) -> None:
    best = translator.translate(LINES)
    several = translator.translate(LINES, nbest=3)
    assert texts(several) == texts(best)
    for one in several:
        assert len(one.alternatives) == 2
        scores = [one.score, *(other.score for other in one.alternatives)]
        assert scores == sorted(scores, reverse=True)
        assert len({str(each.tokens) for each in (one, *one.alternatives)}) == 3
        assert not any(other.alternatives for other in one.alternatives)
        assert all(other.source_tokens == one.source_tokens for other in one.alternatives)


def test_the_score_is_the_log_probability_over_the_length_penalty(translator: Translator) -> None:
    for power in (0.0, 1.0):
        for one in translator.adjusted([f"search.length_penalty={power}"]).translate(LINES):
            length = len(one.tokens) + 1
            assert one.score == pytest.approx(sum(one.log_probs) / ((5 + length) / 6) ** power, abs=1e-4)


def test_log_probs_are_those_of_forced_decoding(translator: Translator) -> None:
    found = translator.translate(LINES)
    target = translator.members[0].target
    again = [target.pieces(ids) == one.tokens for ids, one in zip(target.encode(texts(found)), found, strict=True)]
    assert sum(again) > 15
    for same, one, scored in zip(again, found, translator.score(LINES, texts(found)), strict=True):
        if same:
            assert scored.tokens == one.tokens
            assert scored.log_probs == pytest.approx(one.log_probs, abs=1e-3)
            assert scored.log_prob == pytest.approx(sum(one.log_probs), abs=1e-3)


def test_pieces_make_the_text(translator: Translator) -> None:
    for one in translator.translate(LINES):
        assert "".join(one.tokens).replace(tokenizer.SPACE, " ").strip() == one.text
        assert "".join(one.source_tokens).replace(tokenizer.SPACE, " ").strip() in LINES


def test_attention_has_a_row_per_piece_and_a_column_per_source_piece(attention: Translator, fixed: Translator) -> None:
    found = attention.translate([*LINES, ""], nbest=2, attention=True)
    for one in found[:-1]:
        for each in (one, *one.alternatives):
            assert each.attention is not None
            assert each.attention.shape == (len(each.tokens) + 1, len(each.source_tokens) + 1)
            assert torch.allclose(each.attention.sum(1), torch.ones(len(each.tokens) + 1), atol=1e-5)
    assert found[-1].attention is None
    assert all(one.attention is None for one in attention.translate(LINES))
    assert all(one.attention is None for one in fixed.translate(LINES, attention=True))
    alone = attention.translate(LINES[:1], attention=True)[0].attention
    assert alone is not None
    assert found[0].attention is not None
    assert torch.allclose(alone, found[0].attention, atol=1e-5)


def test_as_plain_values(attention: Translator) -> None:
    one = attention.translate(["kala puu"], nbest=2, attention=True)[0]
    plain = to_json(one)
    assert list(plain) == ["text", "score", "tokens", "log_probs", "source_tokens", "alternatives"]
    assert plain["alternatives"] == [to_json(one.alternatives[0])]
    assert nbest_texts(one, 1) == [one.text]
    assert nbest_texts(one, 4) == [one.text, *[one.alternatives[0].text] * 3]


# ---- How it searches -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["hund", "fisch baum", "kat", "jetzt jetzt jetzt jetzt jetzt jetzt jetzt jetzt"])
def test_a_prefix_begins_the_translation(prefix: str, translator: Translator) -> None:
    prefixes = [prefix if number % 2 else "" for number in range(len(LINES))]
    found = translator.translate(LINES, prefixes=prefixes, nbest=2)
    free = translator.translate(LINES)
    for number, one in enumerate(found):
        if number % 2:
            assert one.text.startswith(prefix)
            assert all(other.text.startswith(prefix) for other in one.alternatives)
        else:
            assert one.text == free[number].text


def test_a_translation_goes_on_from_any_of_its_beginnings(translator: Translator) -> None:
    """Within a word too, whose pieces are not known then; and after a space a new word begins."""
    line = LINES[1]
    text = translator.translate([line])[0].text
    begun = [text[:end] for end in range(len(text) + 1)]
    for prefix, one in zip(begun, translator.translate([line] * len(begun), prefixes=begun), strict=True):
        assert one.text.startswith(prefix.rstrip())
        if prefix.endswith(" "):
            assert one.text.startswith(prefix)


def test_a_prefix_that_the_model_cannot_write(attention: Translator) -> None:
    with pytest.raises(CallError, match="the prefix '🐙 hund' has characters that this model cannot write"):
        attention.translate(["kala"], prefixes=["🐙 hund"])
    with pytest.raises(CallError, match="1 prefixes for 2 lines"):
        attention.translate(["kala", "puu"], prefixes=["hund"])


def test_sampling_repeats_with_its_seed(translator: Translator) -> None:
    def drawn(seed: int, nbest: int = 3) -> list[str]:
        settings = ["search.method=sample", f"search.seed={seed}", "search.temperature=1.5"]
        return [text for one in translator.adjusted(settings).translate(LINES, nbest) for text in nbest_texts(one, 3)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert len(set(drawn(1))) > 30


def test_sampling_at_temperature_0_is_greedy(translator: Translator) -> None:
    greedy = translator.adjusted(["search.method=greedy"]).translate(LINES)
    cold = translator.adjusted(["search.method=sample", "search.temperature=0"]).translate(LINES)
    only = translator.adjusted(["search.method=sample", "search.top_k=1"]).translate(LINES)
    assert texts(greedy) == texts(cold) == texts(only)


def test_lengths_keep_to_their_limits(translator: Translator) -> None:
    short = translator.adjusted(["search.max_ratio=0.4", "search.max_extra=0"]).translate(LINES)
    for one in short:
        assert len(one.tokens) <= max(1, int(0.4 * len(one.source_tokens)))
    long = translator.adjusted(["search.min_ratio=2", "search.max_ratio=3"]).translate(LINES)
    for one in long:
        assert len(one.tokens) >= 2 * len(one.source_tokens)


def test_settings_of_a_call_go_before_those_of_the_model(attention: Translator) -> None:
    greedy = attention.adjusted(["search.method=greedy"])
    assert texts(attention.translate(LINES, settings=Search(method="greedy"))) == texts(greedy.translate(LINES))
    assert attention.adjusted([]) is attention
    with pytest.raises(RecipeError, match=r"search\.beam: 'wide' is not allowed"):
        attention.adjusted(["search.beam=wide"])


@pytest.mark.parametrize(
    ("lines", "nbest", "said"),
    [("kala puu", 1, "translate takes a list of lines, not one string"), (["kala"], 0, "nbest is 0")],
)
def test_a_call_that_cannot_be_answered(lines: Sequence[str], nbest: int, said: str, attention: Translator) -> None:
    with pytest.raises(CallError, match=said):
        attention.translate(lines, nbest)


def test_a_translation_is_one_line_whatever_the_model_spells(bytewise: Tokenizer, attention: Translator) -> None:
    ids = bytewise.encode(["kala"])[0]
    newline, zero = (
        next(i for i in range(bytewise.vocab) if bytewise.pieces([i]) == [f"<0x{n:02X}>"]) for n in (10, 0)
    )
    assert "\n" in bytewise.decode([[*ids, newline, *ids]])[0]
    member = translate.Member(attention.members[0].model, bytewise, bytewise)
    speller = Translator([member], attention.settings, attention.device, attention.recipe)
    hypothesis = translate.Hypothesis([*ids, newline, zero, *ids], 0.0, [0.0] * 9)
    joined = speller._joined([(translate._Part(0, "kala", (ids,)), [hypothesis])], 0)
    assert joined.text.split(" ") == ["kala", "", "", "kala"]


def test_the_source_is_shown_as_it_stands(translator: Translator) -> None:
    one = translator.translate(["kala 🐙 puu"], attention=True)[0]
    assert "".join(one.source_tokens) == "▁kala▁🐙▁puu"
    if one.attention is not None:
        assert one.attention.shape == (len(one.tokens) + 1, len(one.source_tokens) + 1)


def test_a_change_to_the_search_comes_on_top_of_those_before(toy: Toy) -> None:
    before = Translator.load(toy.attention, threads=1, changes=["search.beam=2"])
    before.back = Translator.load(toy.fixed, threads=1)
    after = before.adjusted(["search.length_penalty=0.3"])
    assert (before.settings.beam, after.settings.beam, after.settings.length_penalty) == (2, 2, 0.3)
    assert after.back is before.back
    other = before.adjusted([f"search.reverse={toy.attention}"])
    with pytest.raises(CallError, match=r"nmt\.run\.translator"):
        other.translate(["kala"])


def test_what_was_not_opened_cannot_be_asked_for(toy: Toy, attention: Translator) -> None:
    with pytest.raises(CallError, match=r"search\.examples=0\.5: open the model with it"):
        Translator.load(toy.attention, changes=["search.examples=0"]).adjusted(["search.examples=0.5"])
    for given in (Search(precision="bf16"), Search(examples=0.1), Search(reverse="runs/a"), Search(language_model="b")):
        (key,) = given.model_fields_set
        with pytest.raises(CallError, match=rf"search\.{key} is .* in this translator, not {getattr(given, key)}"):
            attention.translate(["kala"], settings=given)


def test_half_a_letter_is_read_as_an_unknown_one(translator: Translator) -> None:
    """JSON text that was cut within an emoji holds such a half."""
    (found,) = translator.translate(["kala \ud83d juo"], prefixes=[""])
    assert found.text == translator.translate(["kala ? juo"])[0].text
    assert found.source_tokens == translator.members[0].source.split("kala ? juo")


# ---- Several models --------------------------------------------------------------------------------------------------


def test_an_ensemble_of_a_run_with_itself_is_the_run(toy: Toy, translator: Translator) -> None:
    folder = toy.attention if translator.translate(LINES[:1], attention=True)[0].attention is not None else toy.fixed
    twice = Translator.load(f"{folder}+{folder}", threads=1)
    assert len(twice.members) == 2
    one, two = translator.translate(LINES, nbest=2), twice.translate(LINES, nbest=2)
    assert texts(one) == texts(two)
    assert [each.score for each in one] == pytest.approx([each.score for each in two], abs=1e-4)
    scores = [each.score(LINES, texts(one)) for each in (translator, twice)]
    assert [x.log_prob for x in scores[0]] == pytest.approx([x.log_prob for x in scores[1]], abs=1e-4)


def test_an_ensemble_has_no_order(toy: Toy) -> None:
    folders, changes = (toy.attention, toy.fixed), ["search.coverage_penalty=0.5"]
    one, two = (
        Translator.load("+".join(map(str, order)), threads=1, changes=changes) for order in (folders, folders[::-1])
    )
    found, other = one.translate(LINES, attention=True), two.translate(LINES, attention=True)
    assert texts(found) == texts(other)
    assert all(each.attention is not None for each in other)


def test_an_ensemble_of_different_models_that_write_the_same_pieces(toy: Toy, attention: Translator) -> None:
    both = Translator.load(f"{toy.attention}+{toy.fixed}", threads=1)
    found = both.translate(LINES, attention=True, nbest=2)
    assert all(one.attention is not None for one in found)
    assert texts(found) != texts(attention.translate(LINES))
    mean = both.score(LINES[:3], texts(found)[:3])
    each = [
        Translator.load(folder, threads=1).score(LINES[:3], texts(found)[:3]) for folder in (toy.attention, toy.fixed)
    ]
    for place in range(3):
        probs = torch.tensor([scored[place].log_probs for scored in each]).exp().mean(0)
        assert mean[place].log_probs == pytest.approx(probs.log().tolist(), abs=1e-4)


def test_models_that_read_other_pieces_have_no_attention_to_show(attention: Translator) -> None:
    own = attention.members[0]
    lines = [line for pair in LINES for line in pair.split()]
    other = dataclasses.replace(own, source=tokenizer.train(lines, "bpe", own.source.vocab))
    both = Translator([own, other], attention.settings, attention.device, attention.recipe)
    assert both.translate(LINES[:2], attention=True)[0].attention is None, "its columns would not be the pieces"
    assert both.alternatives(LINES[0], [])[0].translation.attention is None
    assert attention.alternatives(LINES[0], [])[0].translation.attention is not None


def test_a_folder_with_a_plus_in_its_name_is_one_run(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "a+b").symlink_to(toy.fixed)
    assert len(Translator.load(tmp_path / "a+b", threads=1).members) == 1
    with pytest.raises(CheckpointError, match=r"a: no such model folder"):
        Translator.load(tmp_path / "a+c")


def test_the_front_door(toy: Toy, attention: Translator) -> None:
    assert nmt.Translator is Translator
    assert nmt.Translation is Translation
    assert {"Translator", "Translation", "__version__"} == set(nmt.__all__)
    with pytest.raises(AttributeError, match="module 'nmt' has no attribute 'Transducer'"):
        nmt.Transducer  # noqa: B018
    assert dataclasses.is_dataclass(nmt.Translation)


# ---- Lines that are too long -----------------------------------------------------------------------------------------


def test_a_long_line_is_translated_in_parts(translator: Translator) -> None:
    limit = 10
    small = translator.adjusted([f"search.max_source={limit}"])
    said: list[str] = []
    line = " ".join(LINES[:6])
    found = small.translate(["kala", line, "puu"], nbest=2, warn=said.append, first_line=41, attention=True)
    parts = translate._cut(line, [translator.members[0].source], limit)
    assert said == [
        f"line 42 has {len(translator.members[0].source.encode([line])[0])} pieces, more than search.max_source=10: "
        f"translated in {len(parts)} parts"
    ]
    assert found[1].text == " ".join(texts(translator.translate(parts)))
    assert found[1].attention is None
    assert len(found[1].alternatives) == 1
    assert texts(found)[::2] == texts(translator.translate(["kala", "puu"]))
    alone = [one.log_probs for one in translator.translate(parts)]
    assert len(found[1].log_probs) == len(found[1].tokens) + 1
    assert sum(found[1].log_probs) == pytest.approx(sum(map(sum, alone)), abs=1e-3)
    assert found[1].log_probs[len(alone[0]) - 1] == pytest.approx(alone[1][0], abs=1e-3), "each stands at its piece"


def test_a_line_is_cut_for_every_model_of_an_ensemble(attention: Translator, bytewise: Tokenizer) -> None:
    own = attention.members[0]
    more = Translator(
        [own, dataclasses.replace(own, source=bytewise)], attention.settings, attention.device, attention.recipe
    )
    parts = more._parts([" ".join(LINES[:6])], None, more.settings.model_copy(update={"max_source": 10}), str, 1)
    assert all(len(ids) <= 10 for part in parts for ids in part.ids)
    with pytest.raises(CallError, match=r"pieces: give one of 1 to"):
        more.alternatives("kala " * 60, [])


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        (("It rains.", "He sleeps."), "It rains. He sleeps."),
        (("今天下雨。", "他睡了。"), "今天下雨。他睡了。"),
        (("雨が", "カサにふる？", "うん"), "雨がカサにふる？うん"),
        (("他说：", "Hello"), "他说： Hello"),
        (("", "It rains.", "", "雨。", ""), "It rains. 雨。"),  # of a part, nothing may be written
        (("비가 온다.", "그는 잔다."), "비가 온다. 그는 잔다."),
        (("ฝนตก", "เขานอน"), "ฝนตก เขานอน"),  # its sentences have spaces between them
    ],
)
def test_parts_meet_as_their_script_wants(parts: tuple[str, ...], line: str) -> None:
    assert functools.reduce(translate._together, parts) == line


def test_a_prefix_belongs_to_the_first_part(attention: Translator) -> None:
    small = attention.adjusted(["search.max_source=10"])
    line = " ".join(LINES[:6])
    found = small.translate([line], prefixes=["hund hund"], warn=lambda message: None)[0]
    assert found.text.startswith("hund hund")
    assert found.text.count("hund hund") < 6


@pytest.fixture(scope="module")
def bytewise() -> Tokenizer:
    return tokenizer.train([line for pair in pairs(80) for line in pair], vocab_size=300, byte_fallback=True)


@pytest.mark.parametrize(
    "line",
    [
        " ".join(LINES[:12]),
        ". ".join(LINES[:12]) + ".",
        "kala puu. " + "koira " * 30,
        "kala" * 200,
        "漢字" * 100,
        "漢字。" * 40 + "漢" * 90,
        "🐙🐙 " * 40,
        "\u2028".join(LINES[:12]),
        " kala" + " " * 300 + "puu" + " " * 300 + "koira" * 30,
    ],
)
@pytest.mark.parametrize("limit", [1, 7, 24])
def test_cutting_loses_nothing_and_keeps_to_the_limit(line: str, limit: int, bytewise: Tokenizer) -> None:
    parts = translate._cut(line, [bytewise], limit)
    assert "".join(parts) == line.lstrip()
    lengths = [len(ids) for ids in bytewise.encode(parts)]
    assert max(lengths) <= max(limit, 5)  # a character alone is at most 4 bytes, after a space
    assert limit == 1 or all(part.strip() for part in parts)


def test_a_line_is_cut_after_a_sentence_where_one_ends(bytewise: Tokenizer) -> None:
    line = "kala juo. puu talo ja koira! iso kissa ei juo nyt ja pieni koira syö"
    parts = translate._cut(line, [bytewise], 30)
    assert len(parts) > 1
    assert all(part.rstrip()[-1] in ".!" for part in parts[:-1])


@pytest.mark.parametrize(
    "line", ["kala juo। puu talo ja koira॥ iso kissa ja puu", "“kala juo.” «puu talo ja koira!» iso kissa ja puu"]
)
def test_a_sentence_ends_as_its_script_and_its_quotes_have_it(line: str, bytewise: Tokenizer) -> None:
    parts = translate._cut(line, [bytewise], 20)
    assert len(parts) > 1
    assert all(part.rstrip()[-1] in "।॥”»" for part in parts[:-1])


@pytest.mark.parametrize(
    "parts", [[[-3.0], [-1.0, -0.5]], [[-1.0, -0.5], [-3.0]], [[-1.0], [-2.0]], [[-1.0, -2.0, -3.0]]]
)
def test_parts_of_a_line_lose_no_log_p_of_an_end(parts: list[list[float]]) -> None:
    together = functools.reduce(translate._one_end, parts)
    assert sum(together) == sum(map(sum, parts))
    assert len(together) == sum(len(part) - 1 for part in parts) + 1


def test_scores_need_a_translation_for_each_source(fixed: Translator) -> None:
    with pytest.raises(CallError, match="2 sources and 1 translations"):
        fixed.score(["kala", "puu"], ["fisch"])


def test_the_work_of_cutting_grows_with_the_line_not_with_its_square(
    fixed: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters, encode = [0], Tokenizer.encode

    def counted(self: Tokenizer, lines: Sequence[str]) -> list[list[int]]:
        letters[0] += sum(map(len, lines))
        return encode(self, lines)

    monkeypatch.setattr(Tokenizer, "encode", counted)
    work = []
    for times in (1, 4):
        letters[0] = 0
        line = "kala " * 1_000 * times + "x" * 5_000 * times
        assert "".join(translate._cut(line, [fixed.members[0].source], 256)) == line
        work.append(letters[0])
    assert 0 < work[1] < 6 * work[0]


# ---- Source and target in their own alphabets ------------------------------------------------------------------------


def test_a_tokenizer_per_side(tmp_path: Path, toy_cache: Path) -> None:
    from nmt import run

    corpus = write_corpus(tmp_path / "corpus", train=60)
    settings = {"tokenizer": {"vocab_size": 32, "joint": False}, "model.tie": "target", "training.epochs": 1}
    folder = run.train(load(write_recipe(tmp_path / "toy.yaml", corpus, settings)), tmp_path / "run")
    found = Translator.load(folder, threads=1)
    member = found.members[0]
    assert member.source.fingerprint != member.target.fingerprint
    assert "".join(found.translate(["koira"])[0].source_tokens).strip(tokenizer.SPACE) == "koira"
    assert found.score(["koira"], ["hund"])[0].tokens == member.target.pieces(member.target.encode(["hund"])[0])


# ---- What may come next ----------------------------------------------------------------------------------------------


def test_alternatives_are_the_likeliest_pieces_and_lead_on(translator: Translator) -> None:
    line = LINES[0]
    best = translator.translate([line])[0]
    for place in range(len(best.tokens) + 1):
        found = translator.alternatives(line, best.tokens[:place], 5)
        assert len({one.piece for one in found}) == 5
        shares = [one.probability for one in found]
        assert shares == sorted(shares, reverse=True)
        assert 0 < sum(shares) <= 1 + 1e-5
        for one in found:
            ends = one.piece == ""
            assert one.translation.tokens[: place + 1] == best.tokens[:place] + [one.piece] * (not ends)
        written = [*best.tokens, ""][place]
        here = {one.piece: one.probability for one in found}
        assert here.get(written, 0.0) == pytest.approx(math.exp(best.log_probs[place]), abs=1e-4) or written not in here


def test_alternatives_of_what_is_not_there_are_refused(translator: Translator) -> None:
    with pytest.raises(CallError, match="this model has no piece 'zzz'"):
        translator.alternatives(LINES[0], ["zzz"])
    with pytest.raises(CallError, match="this model has no piece '</s>'"):
        translator.alternatives(LINES[0], ["</s>"])
    with pytest.raises(CallError, match="the line has 0 pieces"):
        translator.alternatives("", [])
