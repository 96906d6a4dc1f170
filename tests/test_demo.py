"""The page: its handlers with toy models, and the server as a visitor and a program meet it."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from toy import Served, Toy, call, pairs

from nmt import checkpoint, serve
from nmt.errors import CallError, DataError
from nmt.explain import explain
from nmt.recipe import changed
from nmt.search import lp
from nmt.service import BusyError, Service
from nmt.translate import Translator

gr = pytest.importorskip("gradio", reason="the page needs gradio: pip install -e .[demo]")
app = serve.page()
page_module = sys.modules["nmt_demo.page"]
view = sys.modules["nmt_demo.view"]

LINES = [source for source, _ in pairs(8, seed=9)]
FIRST, SECOND = "English → German · attention", "English → German · fixed"


@pytest.fixture(scope="module")
def models(toy: Toy, back: Path) -> Iterator[list[Any]]:
    loaded = [page_module.Model.load(str(folder)) for folder in (toy.attention, toy.fixed, back)]
    yield loaded
    for model in loaded:
        model.service.close()


@pytest.fixture
def page(models: list[Any], tmp_path: Path) -> Any:
    (tmp_path / "scratch").mkdir()
    return page_module.Page(models, tmp_path / "corrections", tmp_path / "scratch")


def asked(
    page: Any,
    text: str,
    label: str = FIRST,
    beam: int = 3,
    length: float = 1.0,
    nbest: int = 1,
    sampling: bool = False,
    temperature: float = 1.0,
    turn: Any = None,
) -> Iterator[Any]:
    """What a visitor sees who asks for a translation, one after the other."""
    turn = turn or page_module.Turn()
    return page.translate(text, label, turn, beam, length, nbest, sampling, temperature)  # type: ignore[no-any-return]


def translated(page: Any, text: str, label: str = FIRST, nbest: int = 1) -> Any:
    """The work that is left when a text was translated."""
    *_, (whole, _, work, _) = asked(page, text, label, nbest=nbest)
    assert work is None or whole == work.text
    return work


def press(page: Any, work: Any, sentence: Any, word: Any) -> Any:
    return page.pressed(work, SimpleNamespace(_data={"sentence": sentence, "word": word}))


def where(work: Any) -> tuple[str, tuple[int, str]]:
    """What the page shows of a sentence beside what can be done with it: its source, and which it is."""
    return work.source, work.place


def words_of(html: str) -> list[str]:
    return re.findall(r"<button[^>]*>([^<]*)</button>", html)


# -- translate


def test_the_translation_appears_as_it_comes_and_keeps_its_lines(page: Any, toy: Toy) -> None:
    text = f"{LINES[0]}. {LINES[1]}.\n\n  {LINES[2]}"
    steps = list(asked(page, text))
    shown = [html.count('class="sentence') for _, html, *_ in steps]
    assert (shown[0], shown[-1]) == (0, 3)
    assert shown == sorted(set(shown))
    assert "3 more to translate" in steps[0][1]
    whole, html, work, _ = steps[-1]
    alone = Translator.load(toy.attention, threads=1).translate([f"{LINES[0]}.", f"{LINES[1]}.", LINES[2]])
    assert whole == f"{alone[0].text} {alone[1].text}\n\n  {alone[2].text}"
    assert "".join(words_of(html)) == "".join(one.text.replace(" ", "") for one in alone)
    assert len(work.done) == 3


def test_sentences_that_come_one_by_one_are_shown_one_by_one_those_that_come_at_once_at_once(
    page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = page.models[FIRST].service.translator.translate(LINES[:4])
    replies: list[Future[Any]] = [Future() for _ in found]
    monkeypatch.setattr(page.models[FIRST].service, "translate", lambda *_: replies)
    steps = asked(page, ". ".join(LINES[:4]))
    shown = [len(next(steps)[1].split('class="sentence')) - 1]
    for group in ([0], [1], [2, 3]):
        for place in group:
            replies[place].set_result(found[place])
        shown.append(len(next(steps)[1].split('class="sentence')) - 1)
    assert shown == [0, 1, 2, 4]
    assert list(steps) == []


def test_nothing_can_be_changed_before_all_is_there_and_a_long_text_leaves_room(page: Any, models: list[Any]) -> None:
    service = Service(models[0].service.translator, room=8)
    page.models[FIRST] = replace(models[0], service=service)
    try:
        steps = list(asked(page, ". ".join(LINES[:10]), beam=1, nbest=3))
    finally:
        service.close()
    assert len(steps) >= 5, "two sentences at a time"
    assert [work is not None for _, _, work, _ in steps] == [False] * (len(steps) - 1) + [True]
    work = steps[-1][2]
    assert len(work.done) == len(work.document.sentences) == 8, "some of the lines go on in the next"
    greedy = models[0].service.translator.adjusted(["search.method=greedy"])
    assert [one.text for one in work.done] == [one.text for one in greedy.translate(work.document.sentences)]
    assert not any(one.alternatives for one in work.done), "1 is greedy, whatever the alternatives"


def test_what_another_model_is_writing_ends_where_it_is_no_longer_wanted(
    page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = page.models[FIRST].service.translator.translate(LINES[:4])
    leaves: dict[Any, bool] = {
        lambda turn: page.cleared(SECOND, turn): True,
        lambda turn: page.swap(FIRST, "", "", turn): True,
        lambda turn: next(asked(page, LINES[4], SECOND, turn=turn)): False,
    }
    for leave, cleared in leaves.items():
        replies: list[Future[Any]] = [Future() for _ in found]
        monkeypatch.setattr(page.models[FIRST].service, "translate", lambda *_, replies=replies: replies)
        steps = asked(page, ". ".join(LINES[:4]), turn=(turn := page_module.Turn()))
        next(steps)
        replies[0].set_result(found[0])
        assert next(steps)[0], "a first sentence is there"
        leave(turn)
        replies[1].set_result(found[1])
        assert next(steps) == (page.nothing(FIRST) if cleared else (gr.skip(),) * 4)
        assert list(steps) == []
        assert [one.cancelled() for one in replies] == [False, False, True, True]


def test_work_that_has_begun_waits_for_room(page: Any, models: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "PAUSE", 0.01)
    service = page.models[FIRST].service
    real, calls = service.translate, iter(range(1000))

    def busy(*given: Any) -> Any:
        if next(calls) % 3:
            raise BusyError("busy: try again")
        return real(*given)

    monkeypatch.setattr(service, "translate", busy)
    monkeypatch.setattr(service, "room", 8)
    monkeypatch.setattr(service, "batch", 2)
    expected = [one.text for one in models[0].service.translator.translate(LINES)]
    assert translated(page, "\n".join(LINES)).text == "\n".join(expected)
    assert page_module.all_of(page.models[FIRST], LINES, lambda *_, **__: None) == expected
    monkeypatch.setattr(page_module, "PATIENCE", 0.05)
    calls = iter([0, *[1] * 1000])
    steps, seen = asked(page, "\n".join(LINES)), list[Any]()
    with pytest.raises(gr.Error, match="busy: try again"):
        seen.extend(steps)
    assert seen[-1][0].strip() == "\n".join(expected[:2])
    assert "6 more" in seen[-2][1]
    assert "more to translate" not in seen[-1][1]


def test_what_another_model_wrote_does_not_stay_under_its_name(page: Any) -> None:
    target, words, work, others = page.cleared(list(page.models)[1], page_module.Turn())
    assert (target, work, others["choices"]) == ("", None, [])
    assert 'class="sentence' not in words


def test_what_was_made_a_day_ago_is_removed(page: Any) -> None:
    old, new = page.new("old.png"), page.new("new.png")
    for path in (old, new):
        path.write_bytes(b"")
    os.utime(old.parent, (time.time() - 2 * page_module.DAY,) * 2)
    page.new("third.png")
    assert (old.exists(), new.exists()) == (False, True)


def test_nothing_to_translate_is_no_error(page: Any) -> None:
    assert list(asked(page, " \n"))[-1][2] is None
    assert page.chosen(None, False)[:2] == ("", "")
    with pytest.raises(gr.Error, match="Translate something first"):
        page.complete(None, "x", "", None)


def test_within_a_sentence_that_was_cut_into_parts_the_model_cannot_go_on(
    page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = translated(page, LINES[0])
    translator = page.models[FIRST].service.translator
    monkeypatch.setattr(translator, "settings", translator.settings.model_copy(update={"max_source": 1}))
    with pytest.raises(gr.Error, match="too long to be read at once"):
        page.complete(work, work.translation.text, *where(work))


def test_texts_from_outside_are_escaped(page: Any) -> None:
    html = list(asked(page, "<img src=x onerror=alert(1)>"))[-1][1]
    assert "<img" not in html
    assert "&lt;" in html


def test_words_of_unknown_letters_are_marked(page: Any) -> None:
    html = list(asked(page, "kala собака"))[-1][1]
    assert re.search(r"<span[^>]*never saw[^>]*>собака</span>", html)
    assert re.search(r'<span data-word="0">kala</span>', html)


def test_a_text_that_is_too_long_is_refused(page: Any) -> None:
    with pytest.raises(gr.Error, match="at most 20,000"):
        list(asked(page, "x" * 20_001))


def test_options_reach_the_search(page: Any, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = iter([1, 1, 2, 3])
    monkeypatch.setattr(page_module.random, "randrange", lambda below: next(seeds))
    assert len(translated(page, LINES[0], nbest=3).translation.alternatives) == 2
    changes = ["search.method=sample", "search.temperature=2.0", "search.beam=7", "search.length_penalty=0.5"]
    translator = Translator.load(toy.attention, threads=1).adjusted(changes)
    assert page_module.settings(page.models[FIRST], 7, 0.5, True, 2.0) == translator.settings
    work = list(asked(page, LINES[0], FIRST, 7, 0.5, 5, True, 2.0))[-1][2]
    assert work.translation.text == translator.translate(LINES[:1], nbest=5)[0].text
    others = [list(asked(page, LINES[0], FIRST, 7, 0.5, 1, True, 2.0))[-1][2].translation.text for _ in range(2)]
    assert len({work.translation.text, *others}) > 1, "at random is not always the same"


def test_options_begin_as_the_recipe_has_them(toy: Toy) -> None:
    changes = ["search.method=sample", "search.temperature=0.7", "search.beam=7", "search.length_penalty=0.5"]
    sampled = Translator.load(toy.attention, threads=1).adjusted(changes).settings
    assert page_module.options(sampled) == (7, 0.5, True, 0.7)
    assert page_module.options(sampled.model_copy(update={"method": "greedy"})) == (1, 0.5, False, 0.7)


def test_models_of_one_name_are_told_apart(models: list[Any], tmp_path: Path) -> None:
    longer = replace(models[0], name="attention-longer")
    page = page_module.Page([longer, models[0], models[0]], tmp_path, tmp_path)
    assert list(page.models) == [f"{FIRST}-longer", FIRST, f"{FIRST} (2)"]


def test_the_pair_can_be_swapped_where_the_opposite_is_loaded(page: Any) -> None:
    back = page.opposite(FIRST)
    assert back == "German → English · back"
    other, text, target, html, work, _ = page.swap(FIRST, "kala", "Fisch", page_module.Turn())
    assert (other, text, target, work) == (back, "Fisch", "", None)
    assert "data-word" not in html, "nothing of the other direction stays"
    source, target, swap, legend, *search = page.picked(back)
    assert (source["label"], target["label"], swap["visible"], search[0]) == ("German", "English", True, 3)
    assert "where in the source the model looked" in legend
    assert "has no attention" in page.picked(SECOND)[3]


def test_where_no_opposite_is_loaded_nothing_can_be_swapped(models: list[Any], tmp_path: Path) -> None:
    assert not page_module.Page(models[:1], tmp_path, tmp_path).picked(FIRST)[2]["visible"]


def test_languages_have_names() -> None:
    assert view.pair(("en", "sw")) == "English → Swahili"
    assert view.pair(("zh-Hant", "xx-unknown")) == "Chinese (Traditional) → xx-unknown"


def test_texts_are_shown_from_where_they_differ() -> None:
    assert view.from_where_they_differ(["ein Hund rennt", "ein Hase rennt"]) == ["… Hund rennt", "… Hase rennt"]
    assert view.from_where_they_differ(["Hund", "Hund rennt"]) == ["… (end)", "… rennt"]
    assert view.from_where_they_differ(["Hund", "Hase"]) == ["Hund", "Hase"]
    assert view.short("x " * 50) == "x " * 19 + "x…"


def test_a_sentence_that_is_cut_is_told_of(page: Any, monkeypatch: Any) -> None:
    told: list[str] = []
    monkeypatch.setattr(gr, "Warning", told.append)
    translated(page, LINES[0])
    assert not told
    translated(page, " ".join([LINES[0]] * 100))
    assert len(told) == 1
    assert "Longer than this model can read at once: 1 of " in told[0]


# -- see why, work with it


def test_words_say_how_sure_the_model_was_and_where_it_looked(page: Any) -> None:
    html = list(asked(page, LINES[0]))[-1][1]
    looks = [json.loads(found) for found in re.findall(r'data-looks="([^"]*)"', html)]
    assert len(looks) == len(words_of(html))
    assert all(len(row) == html.count("<span data-word=") for row in looks)
    assert len(re.findall(r"probability \d+%", html)) == len(looks)
    fixed = list(asked(page, LINES[0], SECOND))[-1][1]
    assert set(re.findall(r'data-looks="([^"]*)"', fixed)) == {""}


def test_a_chosen_sentence_shows_its_best_translations_and_a_picture(page: Any) -> None:
    source, text, best, picture, frame, place = page.chosen(translated(page, LINES[0], nbest=3), True)
    assert (source, place) == (LINES[0], (0, LINES[0]))
    assert [place for _, place in best["choices"]] == [0, 1, 2]
    assert best["choices"][0][0].startswith(text)
    assert Path(picture).read_bytes().startswith(b"\x89PNG")
    assert page.chosen(translated(page, LINES[0]), False)[3] is None, "nobody looks at it"
    assert page.picture(None) is None
    assert frame["visible"]
    assert not page.chosen(translated(page, LINES[0], SECOND), True)[4]["visible"], "without attention there is none"


def test_a_pressed_word_offers_others_and_one_can_be_taken(page: Any) -> None:
    text = f"{LINES[0]}. {LINES[1]}."
    work, html, others = press(page, translated(page, text), 1, 1)
    assert re.search(r'chosen" data-sentence="1"', html)
    assert len(others["choices"]) > 2
    assert len({other.text for other in work.others}) == len(work.others), "each text once"
    assert (work.others[0].text, others["value"]) == (work.translation.text, 0), "the first is what stands there"
    word = explain(work.translation).target[1]
    chances = [page_module.chance(other, word.first) for other in work.others]
    assert chances[0] == pytest.approx(word.probability)
    assert chances[1:] == sorted(chances[1:], reverse=True)
    assert all(
        f"({view.share(share)})" in choice for share, (choice, _) in zip(chances, others["choices"], strict=True)
    )
    before = work.translation.text.split()[0]
    assert all(other.text.split()[0] == before for other in work.others), "none goes on with the word before"
    assert all(choice.startswith("… ") for choice, _ in others["choices"])
    wanted = work.others[2].text
    work, whole, html = page.replaced(work, 2)
    assert work.translation.text == wanted
    assert whole == work.text
    assert whole.endswith(wanted)
    assert page.replaced(work, 1)[0].translation.text == work.others[1].text, "one may choose again"
    assert len(page.chosen(work, False)[2]["choices"]) > 1, "those that stood there before stay among the best"
    assert page.replaced(work, 99)[0] is work


@pytest.mark.parametrize(("sentence", "word"), [(0, None), (0, 99), (9, 0), (None, None), ("x", 0), (0, "0"), (-1, 0)])
def test_pressing_what_is_no_word_offers_nothing(page: Any, sentence: Any, word: Any) -> None:
    work, _, others = press(page, translated(page, LINES[0]), sentence, word)
    assert others["choices"] == []
    assert work.chosen == 0


def test_a_sentence_whose_words_cannot_be_looked_at_is_chosen_all_the_same(
    page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = translated(page, f"{LINES[0]}. {LINES[1]}")
    translator = page.models[FIRST].service.translator
    warned: list[str] = []
    monkeypatch.setattr(page_module.gr, "Warning", warned.append)
    monkeypatch.setattr(translator, "settings", translator.settings.model_copy(update={"max_source": 1}))
    work, words, others = press(page, work, 1, 0)
    assert (work.chosen, others["choices"]) == (1, [])
    assert words == work.shown()
    assert "pieces: give one of 1 to 1" in warned[0]
    assert press(page, None, 0, 0)[2]["choices"] == []


def test_another_of_the_best_can_be_taken(page: Any) -> None:
    work = translated(page, LINES[0], nbest=3)
    first, second = work.translation, work.translation.alternatives[1]
    work, whole, _ = page.ranked(work, 2, *where(work))
    assert whole == second.text == work.translation.text
    assert first.text in [one.text for one in work.translation.alternatives]
    assert page.ranked(work, 0, *where(work))[0] is work


def test_of_two_equal_sentences_the_chosen_one_is_worked_at(page: Any) -> None:
    work = translated(page, f"{LINES[0]}.\n{LINES[0]}.", nbest=3)
    work = page.accept(work, "tämä on oikein", *where(work))[0]
    before = where(work)
    work, _, _ = press(page, work, 1, None)
    assert work.source == before[0]
    shown = page.turned(work, False, before[1])
    assert shown[1] == work.done[1].text != "tämä on oikein"
    assert shown == page.chosen(work, False)
    assert all(one == gr.skip() for one in page.turned(work, False, work.place)), "what is being written stays"
    for handler, given in ((page.accept, "x"), (page.complete, "x"), (page.ranked, 1)):
        with pytest.raises(gr.Error, match="Another sentence was chosen a moment ago"):
            handler(work, given, *before)
    assert page.ranked(work, 3, *where(work))[0] is work, "of a list that is no longer there"


def test_what_is_not_searched_for_is_rated_like_what_is(page: Any) -> None:
    """By the length penalty that the visitor chose, not by the model's."""
    *_, (_, _, work, _) = asked(page, LINES[0], length=3.0)
    one = work.translation
    assert page.models[FIRST].service.translator.settings.length_penalty != 3.0
    assert work.rated(one).score == pytest.approx(one.score)
    accepted = page.accept(work, f"{one.text} x", *where(work))[0].translation
    assert accepted.score == pytest.approx(sum(accepted.log_probs) / lp(len(accepted.log_probs), 3.0))
    completed = page.complete(work, one.text.split()[0], *where(work))[0].translation
    assert completed.score == pytest.approx(one.score)
    pressed, _, _ = press(page, work, 0, 0)
    assert pressed.others[0].score == pytest.approx(one.score)


def test_what_was_drawn_several_times_is_there_once(page: Any) -> None:
    *_, (_, _, work, _) = asked(page, LINES[0], nbest=5, sampling=True, temperature=0.0)
    assert work.translation.alternatives == []
    assert not page.chosen(work, False)[2]["visible"]


def test_the_model_goes_on_from_a_corrected_beginning(page: Any) -> None:
    work = translated(page, LINES[0])
    beginning = translated(page, LINES[3]).translation.text.split()[0]
    work, whole, _ = page.complete(work, beginning, *where(work))
    assert whole.startswith(beginning)
    with pytest.raises(gr.Error, match="characters that this model cannot write"):
        page.complete(work, "日本", *where(work))


def test_an_accepted_sentence_is_kept_and_can_be_trained_on(page: Any, toy: Toy, monkeypatch: Any) -> None:
    told: list[str] = []
    monkeypatch.setattr(gr, "Info", told.append)
    work = translated(page, LINES[0])
    file = page.folder / "en-de.tsv"
    kept, whole, html = page.accept(work, "tämä on oikein", *where(work))
    assert whole == kept.translation.text == "tämä on oikein", "it stands where the other stood"
    assert len(kept.translation.log_probs) == len(kept.translation.tokens) + 1
    assert html.count("kept to train on") == 1
    assert "kept to train on" not in page.ranked(kept, 1, *where(kept))[2], "what is changed is another sentence"
    assert words_of(page.accept(work, "iso 日本", *where(work))[2])[1] == "日本", "also where the model cannot write it"
    del told[1:]
    file.write_text("\n".join(file.read_text().splitlines()[:2]) + "\n")
    assert file.read_text().splitlines()[1].split("\t")[:2] == [LINES[0], "tämä on oikein"]
    assert told == [f"Kept in en-de.tsv to train on: {LINES[0]} – tämä on oikein"]
    assert str(page.folder) not in told[0]
    page.accept(work, "tämä on  oikein", *where(work))
    assert told[1] == f"en-de.tsv has it already: {LINES[0]} – tämä on oikein"
    assert len(file.read_text().splitlines()) == 2
    page.accept(work, "<b>tämä</b>", *where(work))
    assert told[2].endswith(f"{LINES[0]} – &lt;b&gt;tämä&lt;/b&gt;"), "a message is taken for HTML"
    for handler in (page.accept, page.complete):
        with pytest.raises(gr.Error, match="Another sentence was chosen a moment ago"):
            handler(work, "x", LINES[1], work.place)
        with pytest.raises(gr.Error, match="Another sentence was chosen a moment ago"):
            handler(work, "x", work.source, (1, work.source))
    with pytest.raises(gr.Error, match="no translation to keep"):
        page.accept(work, " ", *where(work))
    with pytest.raises(gr.Error, match="Translate something first"):
        page.accept(None, "x", "", None)
    shutil.rmtree(page.folder)
    page.folder.write_text("in the way")
    with pytest.raises(gr.Error, match=r"^'This could not be kept: tell whoever runs this page'$"):
        page.accept(work, "x", *where(work))


# -- files, evaluation, about


def test_a_file_comes_back_translated(page: Any, tmp_path: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = tmp_path / "my text.txt"
    upload.write_text("\n".join([LINES[0], "", LINES[1], ""]))
    nothing, found = page.file(str(upload), FIRST, gr.Progress())
    assert nothing is None, "what was there before is no longer offered"
    done = Path(found)
    expected = [one.text for one in Translator.load(toy.attention, threads=1).translate(LINES[:2])]
    assert done.read_text() == f"{expected[0]}\n\n{expected[1]}\n"
    assert done.name == "my text.de.txt"
    monkeypatch.setattr(page_module, "LONGEST", 20)
    upload.write_text(f"kala\n{'kala ' * 9}\n")
    with pytest.raises(gr.Error, match="sentence 2 has 44 letters, at most 20 are allowed: break it in two"):
        list(page.file(str(upload), FIRST, gr.Progress()))
    upload.write_bytes(b"\xff")
    tagged = upload.rename(upload.with_name("a <b>.txt"))
    with pytest.raises(gr.Error, match=r"a &lt;b&gt;.txt: line 1"):
        list(page.file(str(tagged), FIRST, gr.Progress()))
    with pytest.raises(gr.Error, match="Choose a file first"):
        list(page.file(None, FIRST, gr.Progress()))


def test_two_files_are_evaluated(page: Any, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, reference = toy.corpus / "test.en", toy.corpus / "test.de"
    nothing, (scores, picture, worst) = page.evaluate(str(source), str(reference), FIRST, gr.Progress())
    assert (nothing[0], nothing[1]["visible"], nothing[2]) == ("", False, "")
    folder = shutil.copytree(toy.attention, tmp_path / "run")  # to write to
    expected = call("evaluate", folder, "--source", source, "--reference", reference).out
    bleu = re.search(r"^BLEU ([\d.]+)", expected, re.MULTILINE)
    assert bleu is not None
    assert f"<dt>BLEU</dt><dd><strong>{bleu[1]}</strong>" in scores
    assert scores.count("nrefs:1|") == 4
    assert Path(picture["value"]).is_file()
    assert worst.count("<li>") == 10
    (tmp_path / "short.de").write_text("one\n")
    with pytest.raises(gr.Error, match="line n of one must be the translation"):
        list(page.evaluate(str(source), str(tmp_path / "short.de"), FIRST, gr.Progress()))
    with pytest.raises(gr.Error, match="Choose two files"):
        list(page.evaluate(str(source), None, FIRST, gr.Progress()))
    monkeypatch.setattr(page_module, "MOST_EVALUATED", 39)
    with pytest.raises(gr.Error, match=r"test\.en has 40 lines, at most 39 are evaluated here"):
        list(page.evaluate(str(source), str(reference), FIRST, gr.Progress()))


def test_about_a_model_whose_folder_vanished(models: list[Any], page: Any, tmp_path: Path) -> None:
    page.models[FIRST] = replace(models[0], folders=[tmp_path / "gone"])
    text, _, recipe, _ = page.about(FIRST)
    assert "gone: its files are gone or changed" in text
    assert str(tmp_path) not in text + recipe


def test_about_a_model_without_paths_of_the_machine(page: Any, toy: Toy) -> None:
    text, picture, recipe, use = page.about(FIRST)
    assert "parameters: encoder" in text
    assert "cell: gru" in recipe
    assert '"en-de", api_name="/translate"' in use
    assert "auth" not in use
    assert """auth=("ana", "…"))""" in view.use("http://localhost", ("en", "de"), "ana")
    assert "nrefs:1" in text
    assert Path(picture["value"]).is_file()
    assert str(toy.corpus.parent) not in text + recipe


def test_programs_find_each_of_two_models_of_one_name(models: list[Any], tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    twice = page_module.Page([models[0], replace(models[0]), models[1], models[2]], tmp_path, tmp_path / "scratch")
    for label, name in ((FIRST, "en-de"), (f"{FIRST} (2)", f"{FIRST} (2)"), (SECOND, "fixed")):
        assert f"{json.dumps(name, ensure_ascii=False)}, api_name" in twice.about(label)[3]
        assert twice.named(name) is twice.models[label]
    with pytest.raises(DataError, match="no model for 'zz': there are en-de, de-en, attention, fixed, back"):
        twice.named("zz")


def test_about_an_evaluated_model_names_the_files_not_where_they_lie(toy: Toy, tmp_path: Path) -> None:
    run = shutil.copytree(toy.attention, tmp_path / "run")
    assert call("evaluate", run).status == 0
    evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    text = view.about("run", checkpoint.read(run).info, evaluation)
    assert "On test.en and test.de (40 sentences):" in text or "On test.de and test.en (40 sentences):" in text
    assert str(toy.corpus.parent) not in text
    assert str(tmp_path) not in text


def test_about_a_model_that_remembers(models: list[Any], page: Any, toy: Toy, tmp_path: Path) -> None:
    run = shutil.copytree(toy.attention, tmp_path / "run")
    page.models[FIRST] = replace(models[0], folders=[run])
    assert call("remember", run).status == 0
    assert "remembers" not in page.about(FIRST)[0], "it was loaded before"
    for changes, said in (([], True), (["search.examples=0"], False)):
        page.models[FIRST] = model = page_module.Model.load(str(run), changes)
        assert ("It remembers 200 pairs" in page.about(FIRST)[0]) == said
        model.service.close()


# -- the server


def test_a_recipe_is_shown_without_places_of_the_machine(toy: Toy) -> None:
    changes = ["data.extra=[/home/me+you/a.tsv, b.tsv]", "data.train=[/x/train.en, /x/train.de]"]
    changes += ["training.init_from=/home/me/run", "training.teacher=/x/a+/y/b", "search.reverse=/home/me/back"]
    shown = yaml.safe_load(view.recipe(changed(checkpoint.read(toy.attention).recipe, changes)))
    assert shown["data"]["extra"] == ["a.tsv", "b.tsv"]
    assert shown["data"]["train"] == ["train.en", "train.de"]
    assert (shown["training"]["init_from"], shown["search"]["reverse"]) == ("run", "back")
    assert shown["training"]["teacher"] == "a+b"
    assert shown["search"]["language_model"] is None


def get(url: str) -> Any:
    return urllib.request.urlopen(url, timeout=30)


def test_programs_ask_for_translations_and_scores(served: Served, toy: Toy) -> None:
    from gradio_client import Client

    client = Client(served.address, verbose=False)
    translator = Translator.load(toy.attention, threads=1)
    text = client.predict(LINES[0], "en-de", api_name="/translate")
    assert text == translator.translate(LINES[:1])[0].text
    assert client.predict(LINES[0], "", api_name="/translate") == text
    score = client.predict(LINES[0], text, "en-de", api_name="/score")
    assert score == pytest.approx(translator.score(LINES[:1], [text])[0].log_prob, abs=1e-3)
    with pytest.raises(Exception, match="no model for 'fi-et': there are en-de, de-en"):
        client.predict(LINES[0], "fi-et", api_name="/translate")
    with pytest.raises(Exception, match="at most 20,000"):
        client.predict("x" * 30_000, "en-de", api_name="/translate")
    with pytest.raises(Exception, match="no model for 'a <b> & c'"):  # a program's text is no HTML
        client.predict(LINES[0], "a <b> & c", api_name="/translate")
    with pytest.raises(DataError, match="half a character"):
        page_module.limited("a\ud800")
    client.close()


def test_the_browser_is_kept_from_other_hosts(served: Served) -> None:
    with get(served.address) as answer:
        policy = answer.headers["content-security-policy"]
        html = answer.read().decode()
    assert "default-src 'self'" in policy
    assert not re.search(r"https?://(?!127|localhost)[^\"' ]*\.(css|woff2?)", html)
    with get(served.address + "config") as answer:
        assert json.load(answer)["analytics_enabled"] is False


def test_files_of_the_machine_are_not_served(served: Served, toy: Toy) -> None:
    for path in ("/etc/passwd", str(toy.attention / "model.json"), str(Path.cwd() / "pyproject.toml")):
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(f"{served.address}gradio_api/file={path}")
        assert refused.value.code in (403, 404)
        refused.value.close()


# -- opening it


def test_logins_come_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "logins"
    file.write_text("ann:one:two\n\n bob:three\u2028\n")
    assert serve.read_logins(file) == [("ann", "one:two"), ("bob", "three")]
    file.write_text("ann:one\n\nsecret\n")
    with pytest.raises(CallError, match="line 3 is not `user:password`"):
        serve.read_logins(file)
    assert serve.read_logins(None) == []
    monkeypatch.setenv(serve.LOGINS, "eve:x")
    assert serve.read_logins(None) == [("eve", "x")]
    monkeypatch.setenv(serve.LOGINS, "secret")
    with pytest.raises(CallError, match="line 1 is not `user:password`") as caught:
        serve.read_logins(None)
    assert "secret" not in str(caught.value)
    monkeypatch.setenv(serve.LOGINS, " ")  # of a file that is not there, say: the page must not stand open for it
    with pytest.raises(CallError, match=rf"\${serve.LOGINS}: empty"):
        serve.read_logins(None)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["runs/nothing"], 1, "runs/nothing: no such model folder"),
        (["x", "--share"], 2, "set logins with --auth FILE or $NMT_DEMO_AUTH as well"),
        (["x", "--auth", "nowhere"], 2, "--auth nowhere: cannot be read"),
        (["x", "--auth", "empty"], 2, "--auth empty: empty"),
        (["x", "--port", "99999"], 2, "65535"),
        (["x", "--set", "model.cell=gru"], 2, "only search.* can be changed"),
    ],
)
def test_what_cannot_be_opened(
    arguments: list[str], status: int, message: str, tmp_path: Path, toy_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").write_text("")
    result = call("demo", *arguments)
    assert result.status == status
    assert message in result.err


def test_a_port_that_is_taken_is_said(served: Served, toy: Toy) -> None:
    port = served.address.rstrip("/").rpartition(":")[2]
    result = call("demo", toy.attention, "--port", port)
    assert result.status == 2
    assert f"--host 127.0.0.1 --port {port}: something listens there already" in result.error
    assert "--host no.such.host.invalid: " in call("demo", toy.attention, "--host", "no.such.host.invalid").error


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_addresses_of_the_sixth_version(host: str, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    page = SimpleNamespace(serve=lambda *arguments: given.append(arguments[3]))
    monkeypatch.setattr(serve, "page", lambda: page)
    monkeypatch.setattr(serve, "_listen", lambda host, port: given.append(host))
    assert call("demo", toy.attention, "--host", host).status == 0
    assert given == ["::1", "[::1]"]


def test_without_gradio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    for name in ("nmt_demo.app", "nmt_demo.page"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(CallError, match=r"needs gradio.*recurrent-nmt\[demo\]"):
        serve.page()
