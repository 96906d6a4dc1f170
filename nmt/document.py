"""Documents: texts, tables and subtitles, taken apart into sentences to translate and put together again.

    text        paragraphs into sentences (sentencex); line breaks, indents and empty lines stay
    .tsv, .csv  the first column is translated, and put behind the others as a new one; a heading stays
    .srt, .vtt  the words of each subtitle, without their markup; all else stays

A `Document` has the sentences in order; `joined` gives the whole document with a translation in place of each.
"""

from __future__ import annotations

import csv
import html
import io
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import PurePath

from nmt.errors import DataError
from nmt.formats import BOM, decode_lines, delimiter

SUBTITLES = (".srt", ".vtt")
SUFFIXES = (".txt", ".tsv", ".csv", *SUBTITLES)
HEADINGS = ("source", "text", "sentence")  # of a first column, beside the code of its language
HEADING = "translation"
STRETCH = 20_000  # letters cut at once: where quotes are not closed the time for it grows with their square

_SOLID = ("CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "FULLWIDTH")  # beginnings of the names of their letters
_DENSE = ("THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")  # no spaces between words; between sentences they may stand
_OTHER_SPACES = re.compile(r"[^\S ]")
_AROUND = re.compile(r"(\s*)(.*?)(\s*)", re.DOTALL)
_TIMES = r"[ \t]*(?:\d+:)?\d+:\d+[.,]\d+[ \t]*-->.*"
# The line of times, and the words: the lines before an empty one or the next subtitle.
_SUBTITLE = re.compile(rf"^({_TIMES}\n)((?:(?![ \t]*$|(?:[ \t]*\d+[ \t]*\n)?{_TIMES}$).*\n?)+)", re.MULTILINE)
# <i>, </v Ann>, <00:01.000>, {\an8}, but not what lies between `a < b` and `c > d`; linear in what is never closed
_MARKUP = re.compile(r"</?[A-Za-z][^<>]*>|<[\d:.]+>|\{\\[^{}]*\}")


@dataclass(frozen=True)
class Document:
    """The sentences of a document and the way back."""

    sentences: list[str]
    _join: Callable[[Iterator[str]], str]

    def joined(self, translations: Sequence[str]) -> str:
        """The document with a translation in place of each sentence, as many as there are sentences."""
        if len(translations) != len(self.sentences):
            raise ValueError(f"{len(translations)} translations for {len(self.sentences)} sentences")
        return self._join(iter(translations))


def from_text(text: str, language: str) -> Document:
    """Running text: each line is a paragraph of sentences. `language` says how sentences end there."""
    lines = text.split("\n")
    parts = [_cut(line, language) for line in lines]

    def join(translations: Iterator[str]) -> str:
        return "\n".join(_line(line, [next(translations) if words else "" for _, words, _ in line]) for line in parts)

    return Document([words for line in parts for _, words, _ in line if words], join)


def gap(text: str, more: str) -> str:
    """What stands between two sentences: a space, but in Chinese and Japanese nothing, as beside an empty one."""
    if not (text and more):
        return ""
    return "" if _joint(text, more, _SOLID) else " "


def _joint(text: str, more: str, scripts: tuple[str, ...]) -> bool:
    """Whether the last letter of one and the first of the other, whatever quotes stand there, are of such scripts."""

    def first(letters: Iterable[str]) -> bool:
        kinds = ((letter.isalnum(), unicodedata.name(letter, "").startswith(scripts)) for letter in letters)
        return next((such for spoken, such in kinds if spoken or such), False)

    return first(reversed(text)) and first(more)


def _line(parts: Sequence[tuple[str, str, str]], texts: Sequence[str]) -> str:
    """A line with `texts` for its sentences, spaced as these were, but where one of the two languages has no spaces."""
    line = parts[0][0] + texts[0]
    for ((_, old, after), (before, following, _)), (text, more) in zip(pairwise(parts), pairwise(texts), strict=True):
        space = after + before
        usual = space == gap(old, following) or (not space and _joint(old, following, _DENSE))
        if text and more and usual:
            space = gap(text, more)
        line += space + more
    return line + parts[-1][2]


def _cut(line: str, language: str) -> list[tuple[str, str, str]]:
    """The sentences of a line, each with the space before and after it."""
    sizes = _sizes(line, language) if line.strip() else [len(line)]
    found = []
    for start, end in pairwise(accumulate(sizes, initial=0)):
        match = _AROUND.fullmatch(line[start:end])
        assert match is not None
        found.append((match[1], match[2], match[3]))
    return found


def _sizes(line: str, language: str) -> Iterator[int]:
    """The letters of each sentence, with the space around it."""
    import sentencex  # type: ignore[import-untyped]

    # other spaces than the plain one can make it panic: `Plan B\u00a0.`
    plain, start = _OTHER_SPACES.sub(" ", line), 0
    while start < len(plain):
        found = sentencex.segment(language, plain[start : start + STRETCH])
        if start + STRETCH < len(plain):
            found = found[:-1] or found  # the last may go on
        yield from map(len, found)
        start += sum(map(len, found))


def from_table(text: str, language: str) -> Document:
    """Tab-separated lines: the first column is the text."""
    rows = text.split("\n")
    firsts = _first_column([row.partition("\t")[0] for row in rows], language)
    tabs = max(row.count("\t") for row in rows)  # shorter rows are filled up

    def join(translations: Iterator[str]) -> str:
        return "\n".join(
            row + "\t" * (1 + tabs - row.count("\t")) + first._join(translations) if row.strip() else row
            for row, first in zip(rows, firsts, strict=True)
        )

    return Document([sentence for first in firsts for sentence in first.sentences], join)


def _first_column(cells: Sequence[str], language: str) -> list[Document]:
    """Each cell as a document; a heading has nothing to translate, and one of its own for the new column."""
    named = (language.lower(), *HEADINGS)
    heading = [Document([], lambda _: HEADING) for cell in cells[:1] if cell.strip().lower() in named]
    return heading + [from_text(cell, language) for cell in cells[len(heading) :]]


def from_csv(text: str, language: str, name: str) -> Document:
    """Cells of commas, semicolons or tabs, quoted where need be: the first of a row is the text. Raises DataError."""
    lines = list(io.StringIO(text, newline=""))
    mark, said = delimiter(lines)
    try:
        rows = list(csv.reader(lines[said:], delimiter=mark, strict=True))
    except csv.Error as error:
        raise DataError(f"{name}: this is no CSV: {error}: quote a whole text, and double the quotes in it") from None
    width = max(map(len, rows), default=0)  # shorter rows are filled up
    firsts = _first_column([row[0] if row else "" for row in rows], language)

    def join(translations: Iterator[str]) -> str:
        out = io.StringIO(newline="")
        out.writelines(lines[:said])
        write = csv.writer(out, delimiter=mark, lineterminator="\n").writerow
        for row, first in zip(rows, firsts, strict=True):
            write([*row, *[""] * (width - len(row)), first._join(translations)] if row else row)
        return out.getvalue()

    return Document([sentence for first in firsts for sentence in first.sentences], join)


def from_subtitles(text: str, kind: str, name: str) -> Document:
    """Subtitles of `kind`, `.srt` or `.vtt`, each one sentence, its lines joined. Raises DataError."""
    parts = _SUBTITLE.split(text)  # what stays, times, words, what stays, times, words, ..., what stays
    if len(parts) == 1:
        raise DataError(f"{name}: no subtitles in it: {kind} begins with a number, a line of times, then the words")
    web = kind == ".vtt"  # has &amp; and &lt;
    plain = (_MARKUP.sub("", words) for words in parts[2::3])
    sentences = [" ".join((html.unescape(words) if web else words).split()) for words in plain]

    def join(translations: Iterator[str]) -> str:
        new = list(parts)
        for number, sentence in enumerate(sentences):
            if sentence:
                words = next(translations)
                end = "\n" * parts[3 * number + 2].endswith("\n")
                new[3 * number + 2] = (html.escape(words, quote=False) if web else words) + end
        return "".join(new)

    return Document([sentence for sentence in sentences if sentence], join)


def read(name: str, content: bytes, language: str) -> Document:
    """The document in a file called `name`, with its byte-order mark and its line ends.

    Raises DataError for another kind, and for what is not its kind.
    """
    suffix = PurePath(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{name}: of files, {', '.join(SUFFIXES)} can be translated: save it as one of these")
    text = "\n".join(decode_lines(io.BytesIO(content), name)) + "\n" * content.endswith(b"\n")
    if suffix in SUBTITLES:
        found = from_subtitles(text, suffix, name)
    elif suffix == ".csv":
        found = from_csv(text, language, name)
    else:
        found = (from_table if suffix == ".tsv" else from_text)(text, language)
    mark = "\ufeff" * content.startswith(BOM)
    end = "\r\n" if content.count(b"\r\n") * 2 > content.count(b"\n") else "\n"  # as most lines end
    return Document(found.sentences, lambda translations: mark + found._join(translations).replace("\n", end))
