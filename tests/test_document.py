"""A document is taken apart and put together again: what is not translated stays as it was."""

from __future__ import annotations

import errno
import os
import sys
import threading
from pathlib import Path

import pytest

from nmt import corrections, document
from nmt.document import from_text, read
from nmt.errors import DataError
from nmt.formats import read_pairs

TEXT = "  Dr. Smith came.  He left!\tAgain.\n\n\nDid he? Yes.\n \n"
SRT = """1
00:00:01,000 --> 00:00:02,500
A dog
runs.

2
00:00:03,000 --> 00:00:04,000
<i>It sleeps.</i>

"""


def upper(found: document.Document) -> str:
    return found.joined([sentence.upper() for sentence in found.sentences])


@pytest.mark.parametrize("text", [TEXT, "", "\n", "one", "a\n\nb", "a. b.\r\n", "今日は。元気ですか？\n", "x" * 5000])
def test_joined_with_its_own_sentences_a_text_is_itself(text: str) -> None:
    found = from_text(text, "en")
    assert found.joined(found.sentences) == text
    assert upper(found) == text.upper()
    assert all(sentence == sentence.strip() != "" for sentence in found.sentences)


def test_sentences_end_where_the_language_ends_them() -> None:
    assert from_text(TEXT, "en").sentences == ["Dr. Smith came.", "He left!", "Again.", "Did he?", "Yes."]
    assert from_text("Das ist z. B. gut. Ja.", "de").sentences == ["Das ist z. B. gut.", "Ja."]
    assert from_text("今日は。元気ですか？", "ja").sentences == ["今日は。", "元気ですか？"]
    assert from_text("One. Two.", "no-such-language").sentences == ["One.", "Two."]


@pytest.mark.parametrize("space", ["\u00a0", "\u202f", "\u2009", "\u3000", "\t", "\u2028"])
def test_sentences_with_other_spaces(space: str) -> None:
    """Of which the segmenter would panic: `Plan B .`"""
    line = f"It is plan B{space}. It rains."
    found = from_text(line, "en")
    assert found.joined(found.sentences) == line
    assert "".join(found.sentences).replace(" ", "") == line.replace(" ", "")


@pytest.mark.parametrize("text", ["«He came. " * 60, "x" * 500, "He came. It left. " * 30])
def test_a_long_line_is_cut_a_stretch_at_a_time(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = from_text(text, "en").sentences
    monkeypatch.setattr(document, "STRETCH", 100)
    found = from_text(text, "en")
    assert found.joined(found.sentences) == text
    assert found.sentences == (whole if " " in text else ["x" * 100] * 5)


@pytest.mark.parametrize("name", ["a.txt", "a.tsv", "a.csv", "a.srt"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_file_keeps_its_byte_order_mark_and_its_line_ends(name: str, mark: bytes, end: bytes) -> None:
    text = SRT if name == "a.srt" else "A dog runs.\nIt sleeps.\n"
    found = read(name, mark + text.encode().replace(b"\n", end), "en")
    assert found.sentences == ["A dog runs.", "It sleeps."]
    written = found.joined(["Ein Hund rennt.", "Er schläft."]).encode()
    assert written.startswith(mark)
    assert written.count(b"\xef\xbb\xbf") == len(mark) // 3
    assert written.count(end) == written.count(b"\n") >= 2
    assert written.count(b"\r") == (written.count(b"\n") if end == b"\r\n" else 0)
    assert all(line in written.decode() for line in ("Ein Hund rennt.", "Er schläft."))


def test_a_translation_for_each_sentence() -> None:
    with pytest.raises(ValueError, match="1 translations for 2 sentences"):
        from_text("One. Two.", "en").joined(["Eins."])


@pytest.mark.parametrize(
    ("text", "language", "texts", "expected"),
    [
        ("今日は。元気ですか？", "ja", ["Hello.", "How are you?"], "Hello. How are you?"),
        ("今日は。 元気ですか？\nはい。", "ja", ["Hello.", "How are you?", "Yes."], "Hello. How are you?\nYes."),
        ("Hello. How are you?", "en", ["今日は。", "元気ですか？"], "今日は。元気ですか？"),
        ("Hello.\tHow are you?", "en", ["今日は。", "元気ですか？"], "今日は。\t元気ですか？"),
        ("今日は。元気ですか？", "ja", ["你好。", "你好吗？"], "你好。你好吗？"),
        ("今日は。元気ですか？", "ja", ["Hello.", ""], "Hello."),
        ("Hello. How are you?", "en", ["Hallo.", "Wie geht's?"], "Hallo. Wie geht's?"),
        ("你好!再见!", "zh", ["Hello!", "Goodbye!"], "Hello! Goodbye!"),
        ("你好!再见!", "zh", ["今日は!", "さようなら!"], "今日は!さようなら!"),
        ("他说:“走吧。”她走了。", "zh", ['"Go."', "She left."], '"Go." She left.'),
        ("「行け。」彼は去った。", "ja", ['"Go."', "She left."], '"Go." She left.'),
        ('"Go." She left.', "en", ["「行け。」", "彼は去った。"], "「行け。」彼は去った。"),
        ("သွားတယ်။လာတယ်။", "my", ["He goes.", "He comes."], "He goes. He comes."),
    ],
)
def test_sentences_are_spaced_as_their_language_spaces_them(
    text: str, language: str, texts: list[str], expected: str
) -> None:
    assert from_text(text, language).joined(texts) == expected


def test_a_table_gets_a_column() -> None:
    found = read("a.tsv", b"One. Two.\tnote\n\nThree\tx\ty\n", "en")
    assert found.sentences == ["One.", "Two.", "Three"]
    assert upper(found) == "One. Two.\tnote\t\tONE. TWO.\n\nThree\tx\ty\tTHREE\n"


@pytest.mark.parametrize("mark", [",", ";"])
def test_a_table_of_cells_gets_a_column(mark: str) -> None:
    table = f'"One{mark} ""two"".\nThree."{mark}note\n\nFour{mark}"a\nb"\n'
    found = read("a.csv", table.encode(), "en")
    assert found.sentences == [f'One{mark} "two".', "Three.", "Four"]
    expected = table.replace("note\n", f'note{mark}"ONE{mark} ""TWO"".\nTHREE."\n').replace('b"', f'b"{mark}FOUR')
    assert upper(found) == expected


@pytest.mark.parametrize(
    ("table", "sentences"),
    [
        ("Yes, the dog sees.;Ja\nThe king, who is old, sleeps.;x\nHello.;y\n", ["Yes, the dog sees.", "Hello."]),
        ('"Yes, he, she.";"a"\nNo, he.;b\n', ["Yes, he, she.", "No, he."]),
        ('"Yes; no.",a\nNo.,b\n', ["Yes; no.", "No."]),
        ("Yes, no.;a,b\nNo, yes.;c\n", ["Yes, no.", "No, yes."]),
        ("One.\nTwo.\n", ["One.", "Two."]),
    ],
)
def test_what_parts_the_cells_is_what_all_rows_have_as_often(table: str, sentences: list[str]) -> None:
    found = read("a.csv", table.encode(), "en").sentences
    assert [one for one in found if one in sentences] == sentences


@pytest.mark.parametrize(("name", "mark"), [("a.tsv", "\t"), ("a.csv", ",")])
def test_a_translation_of_a_short_row_stands_with_the_others(name: str, mark: str) -> None:
    rows = [["text", "id", "note"], ["One.", "1", "z"], ["Two."], ["Three.", "3"], ["Four.", "4", "z", "z"]]
    found = read(name, "".join(f"{mark.join(row)}\n" for row in rows).encode(), "en")
    new = [row.split(mark) for row in found.joined(["Eins.", "Zwei.", "Drei.", "Vier."]).splitlines()]
    assert {len(row) for row in new} == {5}
    assert [row[4] for row in new] == ["translation", "Eins.", "Zwei.", "Drei.", "Vier."]


@pytest.mark.parametrize(("table", "mark"), [("text\nOne.\n", ","), ("text\tid\nOne.\t1\n", "\t"), ("One.;1\n", ";")])
def test_cells_are_parted_as_they_were_or_by_commas(table: str, mark: str) -> None:
    found = read("a.csv", table.encode(), "en")
    assert found.sentences == ["One."]
    assert found.joined(["Eins."]).splitlines()[-1] == mark.join([*table.splitlines()[-1].split(mark), "Eins."])


def test_a_line_that_says_what_parts_the_cells_stays() -> None:
    found = read("a.csv", b"sep=;\r\ntext;id\r\nYes, no.;1\r\n", "en")
    assert found.sentences == ["Yes, no."]
    assert found.joined(["Ja, nein."]) == "sep=;\r\ntext;id;translation\r\nYes, no.;1;Ja, nein.\r\n"


@pytest.mark.parametrize(("name", "mark"), [("a.tsv", "\t"), ("a.csv", ",")])
def test_a_heading_is_not_translated(name: str, mark: str) -> None:
    for head in ("en", "Source"):
        found = read(name, f"{head}{mark}note\nOne.{mark}x\n".encode(), "en")
        assert found.sentences == ["One."]
        assert found.joined(["Eins."]) == f"{head}{mark}note{mark}translation\nOne.{mark}x{mark}Eins.\n"
    assert read(name, f"The end.{mark}note\n".encode(), "en").sentences == ["The end."]
    assert read(name, b"", "en").sentences == []


@pytest.mark.parametrize("kind", [".srt", ".vtt"])
def test_subtitles_keep_their_times(kind: str) -> None:
    text = SRT if kind == ".srt" else "WEBVTT\n\n" + SRT.replace(",", ".")
    found = read("Film" + kind.upper(), text.encode(), "en")
    assert found.sentences == ["A dog runs.", "It sleeps."]
    lines = upper(found).splitlines()
    assert [line.replace(".", ",") for line in lines if "-->" in line] == [
        "00:00:01,000 --> 00:00:02,500",
        "00:00:03,000 --> 00:00:04,000",
    ]
    assert "A DOG RUNS." in lines
    assert "IT SLEEPS." in lines


def test_markup_that_is_never_closed_takes_no_time() -> None:
    words = "<" * 400_000 + "{\\" * 400_000  # as many squared would be hours
    assert read("a.srt", f"1\n0:00:01,000 --> 0:00:02,500\n{words}\n".encode(), "en").sentences == [words]


def test_what_stands_between_two_signs_is_no_markup() -> None:
    words = b"a < b and c > d\nI <3 <i>you</i><00:01.500>\n"
    found = read("a.srt", b"1\n0:00:01,000 --> 0:00:02,500\n" + words, "en")
    assert found.sentences == ["a < b and c > d I <3 you"]


def test_of_subtitles_all_but_the_words_stays() -> None:
    web = (
        "WEBVTT - a film\n\nSTYLE\n::cue { color: red }\n\nNOTE by hand\n\n"
        "intro\n00:01.000 --> 00:02.500 align:start\n<v Ann>Fish &amp;\n<i>chips</i>.\n\n"
        "2\n00:00:03.000 --> 00:00:04.000\n\n"
        "00:00:05.000 --> 00:00:06.000\nNot &lt;b&gt;.\n\nNOTE the end"
    )
    found = read("a.vtt", web.encode(), "en")
    assert found.sentences == ["Fish & chips.", "Not <b>."]
    shown = web.replace("<v Ann>Fish &amp;\n<i>chips</i>.", "FISH &amp; CHIPS.").replace(
        "Not &lt;b&gt;", "NOT &lt;B&gt;"
    )
    assert upper(found) == shown
    text = "1\n0:00:01,000 --> 0:00:02,500\n{\\an8}He {laughs} & goes.\n2\n0:00:03,000 --> 0:00:04,000\n<i>3</i>\n4"
    found = read("a.srt", text.encode(), "en")
    assert found.sentences == ["He {laughs} & goes.", "3 4"]
    assert upper(found) == text.replace("{\\an8}He {laughs} & goes.", "HE {LAUGHS} & GOES.").replace(
        "<i>3</i>\n4", "3 4"
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pdf", b"x", "a.pdf: of files, .txt, .tsv, .csv, .srt, .vtt can be translated"),
        ("a.txt", b"ok\n\xff", "a.txt: line 2: byte 1"),
        ("a.txt", b"a\rb", "a CR without LF"),
        ("a.srt", b"nothing of the kind", "a.srt: no subtitles in it"),
        ("a.csv", b'a,"b', "a.csv: this is no CSV"),
        ("a.vtt", b"", "a.vtt: no subtitles in it"),
    ],
)
def test_what_is_no_document_is_refused(name: str, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message.replace(".", r"\.")):
        read(name, content, "en")


# -- corrections


def test_corrections_are_a_table_that_can_be_trained_on(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    for number in range(3):
        file, new = corrections.append(folder, ("en", "de"), f"One\t{number}.", "Eins\n zwei.", "my model")
        assert new
    assert corrections.append(folder, ("en", "de"), "One 1.", "Eins zwei.", "another") == (file, False)
    assert file == folder / "en-de.tsv"
    assert file.read_text().splitlines()[0] == "en\tde\ttime\tmodel"
    assert list(read_pairs([file], ("en", "de"))) == [(f"One {number}.", "Eins zwei.") for number in range(3)]
    assert corrections.append(folder, ("de", "en"), "Eins", "One", "m")[0].name == "de-en.tsv"
    edited = folder / "de-en.tsv"
    edited.write_bytes("de\ten\nGrün\tGreen\told\tm".encode("latin-1"))  # by a program of other habits
    corrections.append(folder, ("de", "en"), "Zwei", "Two", "a\tname\nof a folder \udcff")
    assert edited.read_bytes().endswith(b"\ta name of a folder ?\n")
    lines = edited.read_bytes().splitlines()
    assert lines[1] == "Grün\tGreen\told\tm".encode("latin-1")
    assert lines[2].startswith(b"Zwei\tTwo\t")
    with pytest.raises(DataError, match="one of them is empty"):
        corrections.append(folder, ("en", "de"), "One", " ", "m")
    for odd in ("a\0b", "a \ud83d"):
        with pytest.raises(DataError, match="a correction: "):
            corrections.append(folder, ("en", "de"), "One", odd, "m")
    (folder / "fr-en.tsv").mkdir()
    with pytest.raises(DataError, match=r"fr-en.tsv: cannot be written: .*nothing was kept"):
        corrections.append(folder, ("fr", "en"), "Un", "One", "m")


def test_of_a_source_the_last_correction_counts(tmp_path: Path) -> None:
    for target in ("Eins.", "Ein.", "Eins.", "Eins."):  # and that is one that was there before
        corrections.append(tmp_path, ("en", "de"), "One.", target, "m")
        file, _ = corrections.append(tmp_path, ("en", "de"), "Two.", "Zwei.", "m")
        assert dict(read_pairs([file], ("en", "de"))) == {"One.": target, "Two.": "Zwei."}
    assert [line.split("\t")[1] for line in file.read_text().splitlines()] == ["de", "Eins.", "Zwei.", "Ein.", "Eins."]
    assert list(read_pairs([file], ("de", "en"))) == [("Eins.", "One."), ("Zwei.", "Two.")], "in both directions"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")
def test_a_correction_waits_for_another_that_is_being_kept(tmp_path: Path) -> None:
    import fcntl

    path, _ = corrections.append(tmp_path, ("en", "de"), "one", "eins", "m")
    adding = threading.Thread(target=corrections.append, args=(tmp_path, ("en", "de"), "two", "zwei", "m"))
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        adding.start()
        adding.join(0.3)
        assert adding.is_alive()
        assert "zwei" not in path.read_text()
    adding.join(30)
    assert "two\tzwei\t" in path.read_text()


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_correction_is_kept_whole_or_not_at_all(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _ = corrections.append(tmp_path, ("en", "de"), "One.", "Eins.", "m")
    before = file.read_bytes()
    with monkeypatch.context() as full:
        real = os.write
        if call == "write":
            full.setattr(os, "write", lambda handle, content: real(handle, content[:5]))
        else:
            full.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
        with pytest.raises(DataError, match=r"No space left.*: nothing was kept"):
            corrections.append(tmp_path, ("en", "de"), "Two.", "Zwei.", "m")
    assert file.read_bytes() == before
    assert corrections.append(tmp_path, ("en", "de"), "Two.", "Zwei.", "m")[1]
