"""The page in a real browser, as a visitor meets it. Needs Playwright and a Chromium, else all of this is skipped."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from toy import Served, Toy, pairs

from nmt.translate import Translator

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e .[dev]")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium: apt install chromium, or set $CHROMIUM")

LINES = [source for source, _ in pairs(8, seed=9)]
FIRST = "English → German · toy-en-de"
FIXED = "English → German · toy-en-de-fixed"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, served: Served, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page as it opens; it must contact no other host and write no error to the console."""
    width, theme = getattr(request, "param", (1280, "light"))
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(30_000)
    errors: list[str] = []
    hosts: set[str] = set()
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]) if request.url[:4] == "http" else None)
    page.goto(f"{served.address}?__theme={theme}")
    page.wait_for_selector("#source textarea")
    yield page
    page.close()
    assert not errors
    assert hosts == {served.address.split("/")[2]}


@pytest.fixture(scope="module")
def translator(toy: Toy) -> Translator:
    return Translator.load(toy.attention, threads=1)


def translate(page: Any, text: str, sentences: int) -> str:
    """Translate a text of so many sentences; the translation."""
    page.fill("#source textarea", text)
    page.click("#go")
    page.wait_for_function(
        f"document.querySelectorAll('#words .sentence').length == {sentences}"
        " && document.querySelector('#correction textarea').value"
    )
    return str(page.input_value("#target textarea"))


def choose(page: Any, label: str) -> None:
    page.click("#pair input")
    page.get_by_role("option", name=label, exact=True).click()


def words(page: Any, sentence: int = 0) -> Any:
    return page.locator("#words .sentence").nth(sentence).locator(".target button")


def looked_at(page: Any) -> list[float]:
    """How much each source word of the first sentence is highlighted."""
    found: list[float] = page.eval_on_selector_all(
        "#words .sentence:first-child .source [data-word]",
        "words => words.map(word => Number(getComputedStyle(word).getPropertyValue('--look') || 0))",
    )
    return found


def toast(page: Any) -> str:
    return str(page.locator(".toast-body").first.inner_text())


def test_a_text_is_translated_and_keeps_its_lines(page: Any, translator: Translator) -> None:
    text = translate(page, f"{LINES[0]}\n\n{LINES[1]}", 2)
    expected = [one.text for one in translator.translate(LINES[:2])]
    assert text == "\n\n".join(expected)
    assert [len(words(page, place).all()) for place in (0, 1)] == [len(one.split()) for one in expected]


def test_the_direction_is_swapped(page: Any) -> None:
    text = translate(page, LINES[0], 1)
    page.get_by_role("button", name="Swap").click()
    page.wait_for_function("document.querySelector('#source').innerText.includes('German')")
    assert page.input_value("#source textarea") == text
    assert "English" in page.inner_text("#target")
    assert "toy-de-en" in page.input_value("#pair input")
    assert page.get_by_role("textbox", name="English").count() == 1, "the box has the name that it shows"
    # Nothing of the other direction stays: the words go first, what could be corrected follows.
    page.wait_for_function("!document.querySelector('#words [data-word]')")
    page.wait_for_function("document.querySelector('#correction textarea').value == ''")


def test_control_and_enter_translate(page: Any) -> None:
    translate(page, LINES[1], 1)
    page.fill("#source textarea", f"{LINES[0]}\n{LINES[1]}")
    page.press("#source textarea", "Control+Enter")
    page.wait_for_function("document.querySelectorAll('#words .sentence').length == 2")
    assert page.input_value("#source textarea") == f"{LINES[0]}\n{LINES[1]}", "and write nothing"


def test_pointing_at_a_word_shows_where_the_model_looked(page: Any) -> None:
    translate(page, LINES[0], 1)
    assert not any(looked_at(page))
    words(page).nth(0).hover()
    first = looked_at(page)
    assert 0 < sum(first) <= 1.01
    words(page).nth(1).focus()  # by keyboard it is the same
    assert sum(looked_at(page)) > 0
    assert looked_at(page) != first
    page.locator("#source textarea").hover()
    page.locator("#source textarea").focus()
    assert not any(looked_at(page))


def test_a_model_without_attention_says_so(page: Any) -> None:
    choose(page, FIXED)
    page.wait_for_function("document.body.innerText.includes('has no attention')")
    translate(page, LINES[0], 1)
    words(page).nth(0).hover()
    assert not any(looked_at(page))
    assert re.fullmatch(r"\d+%", words(page).nth(0).get_attribute("title"))


def test_a_pressed_word_can_be_exchanged_by_keyboard(page: Any) -> None:
    before = translate(page, LINES[0], 1)
    words(page).nth(1).focus()
    page.keyboard.press("Enter")
    others = page.locator("#others input")
    others.nth(2).wait_for()
    others.nth(2).check()
    page.wait_for_function("text => document.querySelector('#target textarea').value != text", arg=before)
    after = page.input_value("#target textarea")
    assert after.split()[0] == before.split()[0]
    page.wait_for_function("text => document.querySelector('#correction textarea').value == text", arg=after)


def test_another_of_the_best_translations_leaves_no_choice_at_a_word(page: Any) -> None:
    before = translate(page, LINES[0], 1)
    words(page).nth(1).click()
    page.locator("#others input").nth(1).wait_for()
    page.get_by_role("radio", name=re.compile(r"\(-")).nth(1).check()
    page.wait_for_function("text => document.querySelector('#target textarea').value != text", arg=before)
    page.locator("#others input").first.wait_for(state="hidden")


def test_what_is_being_written_stays_while_words_are_looked_at(page: Any) -> None:
    translate(page, f"{LINES[0]}\n{LINES[1]}", 2)
    page.fill("#correction textarea", "half written")
    words(page, 0).nth(1).click()
    page.locator("#others input").nth(1).wait_for()
    page.wait_for_timeout(500)
    assert page.input_value("#correction textarea") == "half written"
    words(page, 1).nth(0).click()  # of another sentence
    page.wait_for_function("document.querySelector('#correction textarea').value != 'half written'")
    assert page.input_value("#sentence textarea") == LINES[1]


def test_what_is_pressed_while_another_text_is_translated_comes_after_it(page: Any) -> None:
    page.fill("#source textarea", "\n".join(LINES * 30))
    page.click("#go")
    page.wait_for_selector("#words .sentence")
    page.fill("#source textarea", LINES[1])
    page.click("#go")
    page.wait_for_function("document.querySelectorAll('#words .sentence').length == 1")
    page.wait_for_function(
        "line => document.querySelector('#sentence textarea').value == line"
        " && document.querySelector('#target textarea').value",
        arg=LINES[1],
    )


@pytest.mark.parametrize("how", ["model", "swap"])
def test_what_is_being_translated_does_not_come_into_the_page_of_another_model(page: Any, how: str) -> None:
    page.fill("#source textarea", "\n".join(LINES * 100))
    page.click("#go")
    page.wait_for_selector("#words .sentence")
    choose(page, FIXED) if how == "model" else page.get_by_role("button", name="Swap").click()
    page.wait_for_function("!document.querySelector('#words .sentence')")
    page.wait_for_timeout(3000)
    assert page.locator("#words .sentence").count() == 0
    assert page.input_value("#target textarea") == ""
    assert translate(page, LINES[0], 1)


def test_the_list_of_models_closes_when_the_keyboard_moves_on(page: Any) -> None:
    page.locator("#pair input").focus()
    page.get_by_role("option").first.wait_for()
    page.keyboard.press("Tab")
    page.wait_for_timeout(500)
    assert not page.get_by_role("option").first.is_visible()


def test_words_are_one_stop_of_tab_and_the_arrow_keys_go_on(page: Any) -> None:
    translate(page, f"{LINES[0]}\n{LINES[1]}", 2)

    def here() -> list[int]:
        found: list[int] = page.evaluate(
            "[document.activeElement.closest('.sentence')?.dataset.sentence, document.activeElement.dataset.word]"
            ".map(Number)"
        )
        return found

    stops = "document.querySelectorAll('#words [data-word][tabindex=\"0\"]').length"
    words(page).nth(0).focus()
    for key, place in (("ArrowRight", [0, 1]), ("ArrowLeft", [0, 0]), ("ArrowDown", [1, 0]), ("Home", [0, 0])):
        page.keyboard.press(key)
        assert here() == place
        assert page.evaluate(stops) == 1
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")  # the words are drawn anew, and the keyboard stays where it is
    page.wait_for_selector(".sentence.chosen[data-sentence='1']")
    page.locator("#others input").first.wait_for()
    assert here() == [1, 0]
    page.keyboard.press("Tab")
    assert not page.evaluate("document.querySelector('#words').contains(document.activeElement)")


def test_a_long_text_leaves_the_correction_beside_its_words(page: Any) -> None:
    translate(page, "\n".join(LINES * 6), 6 * len(LINES))
    words_box, correction = (page.locator(name).bounding_box() for name in ("#words", "#correction"))
    assert abs(correction["y"] - words_box["y"]) < 600
    assert correction["x"] >= words_box["x"] + words_box["width"]


def test_a_beginning_is_completed_from_the_cursor_and_kept(page: Any, served: Served, translator: Translator) -> None:
    translate(page, LINES[0], 1)
    begun = translator.translate(LINES[1:2])[0].text.split()[0]
    page.fill("#correction textarea", f"{begun} XXXX")
    page.evaluate(
        "end => { const box = document.querySelector('#correction textarea');"
        " box.focus(); box.setSelectionRange(end, end); }",
        len(begun),
    )
    page.click("#complete")
    page.wait_for_function("!document.querySelector('#correction textarea').value.includes('XXXX')")
    text = page.input_value("#correction textarea")
    assert text.startswith(begun)
    assert text == page.input_value("#target textarea")
    page.fill("#correction textarea", f"{text} {begun}")
    page.click("#accept")
    assert "Kept in en-de.tsv" in toast(page)
    page.wait_for_function("document.querySelector('#words').innerText.includes('kept to train on')")
    text = f"{text} {begun}"
    assert page.input_value("#target textarea") == text, "what was accepted stands in the translation"
    head, *rows = (served.folder / "corrections" / "en-de.tsv").read_text().splitlines()
    assert head == "en\tde\ttime\tmodel"
    assert rows[-1].split("\t")[:2] == [LINES[0], text]
    assert rows[-1].split("\t")[3] == "toy-en-de"


def test_where_the_model_looked_is_drawn_when_somebody_looks(page: Any) -> None:
    translate(page, f"{LINES[0]}\n{LINES[1]}", 2)
    picture = page.locator("#looked img")
    assert picture.count() == 0
    page.get_by_role("button", name="Where the model looked").click()
    picture.first.wait_for()
    before = picture.first.get_attribute("src")
    words(page, 1).nth(0).click()  # another sentence
    another = "before => { const one = document.querySelector('#looked img'); return one && one.src != before; }"
    page.wait_for_function(another, arg=before)


def test_a_file_is_translated_and_downloaded(page: Any, translator: Translator, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text(f"{LINES[0]}\n\n{LINES[1]}\n")
    page.get_by_role("tab", name="Files").click()
    page.locator("#upload input[type=file]").set_input_files(tmp_path / "mine.txt")
    page.wait_for_function("document.querySelector('#upload').innerText.includes('mine')")
    page.get_by_role("button", name="Translate the file").click()
    link = page.locator("#download a").first
    with page.expect_download() as download:
        link.click()
    expected = [one.text for one in translator.translate(LINES[:2])]
    assert Path(download.value.path()).read_text() == f"{expected[0]}\n\n{expected[1]}\n"
    assert download.value.suggested_filename == "mine.de.txt"


def test_two_files_are_evaluated(page: Any, toy: Toy) -> None:
    page.get_by_role("tab", name="Evaluate").click()
    page.locator("#evaluate-source input[type=file]").set_input_files(toy.corpus / "test.en")
    page.locator("#evaluate-reference input[type=file]").set_input_files(toy.corpus / "test.de")
    page.wait_for_function("document.querySelector('#evaluate-reference').innerText.includes('test')")
    page.get_by_role("button", name="Evaluate").click()
    page.wait_for_function("document.body.innerText.includes('nrefs:1')")
    assert page.locator("#scores dl").inner_text().count("nrefs:1|") == 4
    page.wait_for_selector(".worst dl")
    page.wait_for_function("document.querySelector('#by-length img')?.naturalWidth > 100")
    choose(page, FIXED)  # of which these are not the scores
    page.wait_for_function("!document.body.innerText.includes('nrefs:1')")


def test_a_text_that_is_too_long_is_refused(page: Any) -> None:
    page.fill("#source textarea", "x" * 20_001)
    page.click("#go")
    assert "at most 20,000 are translated at once" in toast(page)


def test_an_empty_text_is_no_error(page: Any) -> None:
    translate(page, LINES[0], 1)
    page.fill("#source textarea", " \n ")
    page.click("#go")
    page.wait_for_function("document.querySelectorAll('#words .sentence').length == 0")
    assert "no text to translate" in toast(page)


def test_code_in_a_text_is_shown_as_text(page: Any) -> None:
    page.on("dialog", lambda dialog: pytest.fail("code of a visitor ran"))
    text = "<img src=x onerror=alert(1)> <script>alert(2)</script> ${alert(3)} {{value}}"
    translate(page, text, 1)
    assert page.inner_text("#words .source").replace(" ", "") == text.replace(" ", "")
    assert page.locator("#words img, #words script").count() == 0


def test_a_model_whose_folder_vanished_still_translates(page: Any, served: Served) -> None:
    moved = (served.folder / "toy-en-de").rename(served.folder / "elsewhere")
    try:
        choose(page, FIXED)
        page.wait_for_function("document.body.innerText.includes('has no attention')")
        choose(page, FIRST)
        page.wait_for_function("!document.body.innerText.includes('has no attention')")
        page.get_by_role("tab", name="About").click()
        page.wait_for_function("document.body.innerText.includes('gone or changed')")
        assert str(served.folder) not in page.content()
        page.get_by_role("tab", name="Translate").click()
        assert translate(page, LINES[0], 1)
    finally:
        moved.rename(served.folder / "toy-en-de")


@pytest.mark.parametrize("page", [(360, "light")], indirect=True)
def test_what_else_may_stand_at_a_word_comes_into_sight(page: Any) -> None:
    translate(page, "\n".join(LINES), len(LINES))
    words(page).nth(1).click()
    page.locator("#others input").first.wait_for()
    page.wait_for_timeout(500)
    box = page.locator("#others").bounding_box()
    assert box["y"] < 900 - 100
    assert box["y"] + box["height"] > 100


@pytest.mark.parametrize("page", [(360, "light"), (360, "dark")], indirect=True)
def test_scores_can_be_read_in_a_narrow_window(page: Any, toy: Toy) -> None:
    page.get_by_role("tab", name="Evaluate").click()  # all tabs are in sight
    page.locator("#evaluate-source input[type=file]").set_input_files(toy.corpus / "test.en")
    page.locator("#evaluate-reference input[type=file]").set_input_files(toy.corpus / "test.de")
    page.wait_for_function("document.querySelector('#evaluate-reference').innerText.includes('test')")
    page.get_by_role("button", name="Evaluate").click()
    page.wait_for_function("document.body.innerText.includes('nrefs:1')")
    value = page.locator("#scores strong").first.bounding_box()
    assert value["height"] < 40, "a number stays on its line"
    assert page.locator("#scores code").first.bounding_box()["width"] > 200
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_about_shows_the_address_of_this_page(page: Any, served: Served) -> None:
    page.get_by_role("tab", name="About").click()
    page.wait_for_function("address => document.body.innerText.includes(address)", arg=served.address.rstrip("/"))


def test_an_error_is_told_once(page: Any) -> None:
    page.get_by_role("tab", name="Evaluate").click()
    page.get_by_role("button", name="Evaluate").click()
    assert "Choose two files" in toast(page)
    page.wait_for_timeout(300)
    assert page.get_by_text("Error", exact=True).count() <= 2, "the toast and its place, not every output"


@pytest.mark.parametrize("page", [(360, "light"), (360, "dark")], indirect=True)
def test_it_fits_a_narrow_window(page: Any) -> None:
    translate(page, f"{LINES[0]}. {LINES[1]}.", 2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
