"""Text out of files and off the hub, filters, the cache, and batches (nmt.formats, nmt.corpus, nmt.data)."""

from __future__ import annotations

import errno
import gzip
import json
import lzma
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from nmt import corpus, data, disk, formats, material
from nmt.corpus import Corpus, MissingSplitError
from nmt.data import Batches, Filtered, Ragged
from nmt.errors import DataError
from nmt.recipe import Data, load
from nmt.tokenizer import BOS, EOS, PAD, Tokenizer, train

REAL = Path(os.environ.get("NMT_DATA") or "nowhere")
needs_multi30k = pytest.mark.skipif(not (REAL / "multi30k").is_dir(), reason="needs multi30k in $NMT_DATA")


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own for each test, and a current folder without any corpus."""
    monkeypatch.setenv("NMT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NMT_DATA", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


class Words:
    """A tokenizer whose pieces are the words, so that tests decide lengths; counts what it is asked for."""

    def __init__(self, fingerprint: str = "words", first: int = 4) -> None:
        self.fingerprint = fingerprint
        self.first = first
        self.lines = 0

    def encode(self, lines: Sequence[str], threads: int = 1) -> list[list[int]]:
        self.lines += len(lines)
        return [[self.first + sum(word.encode()) % 100 for word in line.split()] for line in lines]


def write(file: Path, text: str | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def pairs_of(found: Corpus) -> list[tuple[str, str]]:
    return list(zip(found.source, found.target, strict=True))


def zstandard(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())


PACK: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard}


# ---- Lines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\r\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),
        (b"a\n\n\nb\n\n", ["a", "", "", "b", ""]),
        (b"\xef\xbb\xbfa\nb\n", ["a", "b"]),
        ("a\n\ufeffb\n".encode(), ["a", "\ufeffb"]),
        ("a\u2028b\u2029c\nd\n".encode(), ["a\u2028b\u2029c", "d"]),
        ("a\u0085b\nc\n".encode(), ["a\u0085b", "c"]),
        (b"a\x0bb\x0cc\x1cd\x1de\x1ef\ng\n", ["a\x0bb\x0cc\x1cd\x1de\x1ef", "g"]),
        (b" a \t\n", [" a \t"]),
        (b"", []),
        ("ä 漢 😀\n".encode(), ["ä 漢 😀"]),
    ],
)
@pytest.mark.parametrize("packed", PACK)
def test_a_line_ends_with_lf_or_crlf_and_nowhere_else(
    tmp_path: Path, content: bytes, lines: list[str], packed: str
) -> None:
    file = write(tmp_path / f"text{packed}", PACK[packed](content))
    assert list(formats.read_lines(file)) == lines
    assert formats.count_lines(file) == len(lines)


def test_a_line_may_be_very_long(tmp_path: Path) -> None:
    long = "word " * 400_000
    assert list(formats.read_lines(write(tmp_path / "text", f"{long}\nshort\n"))) == [long, "short"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"fine\na\rb\n", "line 2: a CR without LF"),
        (b"fine\nfine\nb\r\r\n", "line 3: a CR without LF"),
        (b"fine\nat the end\r", "line 2: a CR without LF"),
        (b"old\rmac\rfile\r", "line 1: a CR without LF"),
        (b"fine\r\na\0b\r\n", "line 2: a NUL byte"),
        (b"fine\nfine\nM\xfcnchen\n", "line 3: byte 2 (0xfc) is not UTF-8"),
        (b"a\n\xed\xa0\x80\n", "line 2: byte 1 (0xed) is not UTF-8"),
        ("a\n".encode("utf-16"), "this is UTF-16: make it UTF-8: for instance iconv -f UTF-16 "),
        ("a dog\n".encode("utf-16-le"), "this is UTF-16LE: make it UTF-8: for instance iconv -f UTF-16LE "),
        ("a dog\n".encode("utf-16-be"), "this is UTF-16BE: make it UTF-8: for instance iconv -f UTF-16BE "),
    ],
)
@pytest.mark.parametrize("packed", PACK)
def test_what_is_no_plain_text_is_an_error_with_its_place(
    tmp_path: Path, content: bytes, message: str, packed: str
) -> None:
    file = write(tmp_path / f"text{packed}", PACK[packed](content))
    with pytest.raises(DataError) as error:
        list(formats.read_lines(file))
    assert str(error.value).startswith(f"{file}: {message}")


def test_standard_input_is_read_as_strictly_as_files() -> None:
    assert list(formats.decode_lines([b"a\r\n", b"b"], "standard input")) == ["a", "b"]
    with pytest.raises(
        DataError, match=r"standard input: line 1: .*: for instance \.\.\. \| iconv -f WINDOWS-1252 -t UTF-8 \|"
    ):
        list(formats.decode_lines([b"\xe9\n"], "standard input"))
    with pytest.raises(DataError, match="standard input: line 2: a NUL byte"):
        list(formats.decode_lines([b"a\n", b"\0\n"], "standard input"))


TEXT = "".join(f"line {n}\n" for n in range(10_000)).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.gz", b"this is not gzip"),
        ("text.xz", b"this is not xz"),
        ("text.zst", b"this is not zstandard"),
        ("text.gz", gzip.compress(TEXT)[:-2000]),
        ("text.xz", lzma.compress(TEXT)[:-200]),
        ("text.zst", zstandard(TEXT)[:-200]),
        ("text.gz", gzip.compress(TEXT)[:3000] + b"xxxxxxxx" + gzip.compress(TEXT)[3008:]),
    ],
)
def test_a_damaged_packed_file_is_an_error_that_names_it(tmp_path: Path, name: str, content: bytes) -> None:
    file = write(tmp_path / name, content)
    with pytest.raises(DataError, match=name):
        list(formats.read_lines(file))


def test_missing_files_and_folders_are_errors_that_name_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.en: cannot be read: No such file"):
        list(formats.read_lines(tmp_path / "missing.en"))
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        list(formats.read_lines(tmp_path))
    with pytest.raises(DataError, match=r"missing\.zst: cannot be read: No such file"):
        formats.count_lines(tmp_path / "missing.zst")


def test_a_file_that_may_not_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = write(tmp_path / "secret.en", "a\n")
    file.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root may read everything
    try:
        with pytest.raises(DataError, match=r"secret\.en: cannot be read: Permission denied"):
            list(formats.read_lines(file))
    finally:
        if root:
            os.seteuid(0)


# ---- Formats ---------------------------------------------------------------------------------------------------------

TMX = """<?xml version="1.0" encoding="{encoding}"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header srclang="en-US" datatype="html"/><body>
  <tu><prop>x</prop>
    <tuv xml:lang="en-US"><seg>
       A <bpt i="1">&lt;b&gt;</bpt>dog<ept i="1">&lt;/b&gt;</ept> &amp; a <hi>big <hi>old</hi></hi> cat<ph>\\n</ph>.
    </seg></tuv>
    <tuv xml:lang="DE"><seg>Ein Hund<!-- no --> und ein Kätzchen.</seg></tuv>
    <tuv xml:lang="fr"><seg>Un chien.</seg></tuv>
  </tu>
  <tu><tuv xml:lang="en"><seg>no German</seg></tuv><tuv xml:lang="den"><seg>no</seg></tuv></tu>
  <tu><tuv lang="en_GB"><seg>colour</seg></tuv><tuv lang="EN"><seg>color</seg></tuv><tuv lang="de_AT"><seg>Farbe
  und</seg></tuv></tu>
</body></tmx>
"""
TMX_PAIRS = [("A dog & a big old cat.", "Ein Hund und ein Kätzchen."), ("color", "Farbe und")]


def parquet_bytes(columns: dict[str, list[object]]) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


NESTED = [{"en": "a", "de": "b"}, {"en": "c\r\nd", "de": "e"}]

READABLE = [
    # (file, content, columns, pairs)
    ("train.tsv", "a\tb\nc\td\n", None, [("a", "b"), ("c", "d")]),
    ("train.tsv", "a\tb\tCC-BY, someone\nc\td\te\n\n", None, [("a", "b"), ("c", "d")]),
    ("train.tsv", "id\tde\ten\r\n1\tb\ta\r\n2\td\tc\r\n", None, [("a", "b"), ("c", "d")]),
    ("train.tsv", "id\tx\ty\n1\tb\ta\n", ("y", "x"), [("a", "b")]),
    ("train.tsv", "a\tb\nc\td\t\t\n", None, [("a", "b"), ("c", "d")]),
    ("train.tsv", '"a\t5" b\n\'c\td\n', None, [('"a', '5" b'), ("'c", "d")]),
    ("train.tsv", "a\t\n\tb\n", None, [("a", ""), ("", "b")]),
    ("train.csv", "\ufeffen,de\na,b\n", None, [("a", "b")]),
    ("train.csv", 'source,target\r\n"a, ""b""",c\r\n', None, [('a, "b"', "c")]),
    ("train.csv", 'de,note,en\nb,"two\nlines","a\n  c"\n\nd,,e\n', None, [("a c", "b"), ("e", "d")]),
    ("train.csv", f"{'x' * 200_000},y\n", None, [("x" * 200_000, "y")]),
    ("train.jsonl", '{"en": "a", "de": "b"}\n\n{"de": "d", "en": "c"}\n', None, [("a", "b"), ("c", "d")]),
    ("train.jsonl", '{"translation": {"en": "a\u2028x", "de": "b"}}\n', None, [("a\u2028x", "b")]),
    ("train.jsonl", '{"q": "a\\nx", "r": null}\n', ("q", "r"), [("a x", "")]),
    ("train.json", '{"en": "a", "de": "b"}\n', None, [("a", "b")]),
    ("train.json", '\n\n[{"en": "a", "de": "b"}]\n', None, [("a", "b")]),
    ("train.json", json.dumps([{"translation": pair} for pair in NESTED], indent=2), None, [("a", "b"), ("c d", "e")]),
    ("train.parquet", parquet_bytes({"de": ["b"], "en": ["a\n"], "n": [1]}), None, [("a", "b")]),
    ("train.parquet", parquet_bytes({"translation": NESTED}), None, [("a", "b"), ("c d", "e")]),
    ("train.parquet", parquet_bytes({"x": ["a", None], "y": ["b", "c"]}), ("x", "y"), [("a", "b"), ("", "c")]),
    ("train.tmx", TMX.format(encoding="UTF-8"), None, TMX_PAIRS),
    ("train.tmx", TMX.format(encoding="UTF-16").encode("utf-16"), None, TMX_PAIRS),
]


@pytest.mark.parametrize(("name", "content", "columns", "pairs"), READABLE)
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_formats(
    tmp_path: Path,
    name: str,
    content: str | bytes,
    columns: tuple[str, str] | None,
    pairs: list[tuple[str, str]],
    packed: str,
) -> None:
    raw = content.encode() if isinstance(content, str) else content
    write(tmp_path / "set" / f"{name}{packed}", PACK[packed](raw))
    assert pairs_of(corpus.load("train", "en", "de", str(tmp_path / "set"), columns=columns)) == pairs


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        ("train.tsv", "a\tb\nc\td\ne\n", None, "line 3 has 1 of the 2 columns needed, separated by tabs"),
        ("train.tsv", "n\ten\tde\n1\ta\tb\n2\tc\n", None, "line 3 has 2 of the 3 columns needed"),
        ("train.tsv", "a\tb\nc\td\te\n", None, "line 2 has 3 columns, line 1 has 2: a tab parts columns"),
        ("train.tsv", "en\tde\na\tb\nc\td\te\n", None, "line 3 has 3 columns, line 1 has 2"),
        ("train.csv", "en,de\nwell, a,b\n", None, "line 2 has 3 columns, line 1 has 2: quote a text with commas"),
        ("train.tsv", "id\ten\tGerman\n1\ta\tb\n", None, "'en' is the name of a language, but 'en' and 'de' are not"),
        ("train.tsv", "EN\tDE\na\tb\n", None, "are not both among EN, DE: name the two in data.columns"),
        ("train.tsv", "a\tb\nc\r\td\n", None, "line 2: a CR without LF"),
        ("train.tsv", b"a\tb\n\xe4\tc\n", None, "line 2: byte 1 (0xe4) is not UTF-8"),
        ("train.tsv", "a\tb\n", ("x", "y"), "line 1: no columns 'x' and 'y' among a, b"),
        ("train.tsv", "", None, "empty, no sentence pairs"),
        ("train.tsv", "en\tde\n", None, "empty, no sentence pairs"),
        ("train.csv", "a|b\n", None, "line 1 has 1 of the 2 columns needed, separated by commas or semicolons"),
        ("train.csv", 'a,b\n"c"d,e\n', None, "'\"': quote a whole text"),
        ("train.csv", 'sep=,\na,b\n"c"d,e\n', None, "line 3: not CSV"),
        ("train.csv", "en;de\n" + "a;b, c\n" * 3 + "only\n", None, "line 5 has 1 of the 2 columns needed"),
        (
            "train.csv",
            "ID;English;German\n7;a;b\n",
            None,
            "line 2: '7' is a number, and a sentence is looked for there",
        ),
        ("train.csv", 'a,b\nc,"d\n', None, "line 2: not CSV"),
        ("train.csv", "a,b\0\n", None, "line 1: a NUL byte"),
        ("train.jsonl", '{"en": "a", "de": "b"}\n{"en": }\n', None, "line 2: not JSON"),
        ("train.jsonl", '{"en": "a", "de": "b"}\n{"en": "c"}\n', None, "line 2: no field 'de', only en"),
        ("train.jsonl", '{"x": "a", "y": "b"}\n', None, "line 1: no columns 'en' and 'de' among x, y"),
        ("train.jsonl", '{"en": "a", "de": "b"}\n{"en": "c", "de": 5}\n', None, "line 2: 5 is not text"),
        ("train.jsonl", '{"en": "a", "de": "b\\u0000"}\n', None, "line 1: a NUL character"),
        ("train.jsonl", '{"en": "a", "de": "\\ud83d"}\n', None, "line 1: half a character"),
        ("train.jsonl", "5\n", None, "line 1: 5 is no object"),
        ("train.jsonl", '{"a":' * 100_000, None, "line 1: too deeply nested"),
        ("train.json", '[\n{"en": "a", "de": "b"},\n{"en": "a" "de"}]\n', None, "line 3: not JSON"),
        ("train.json", '[{"en": "a", "de": "b"}, 7]\n', None, "record 2: 7 is no object"),
        ("train.json", '\n["a", "b"]\n["c", "d"]\n', None, "line 3: not JSON: Extra data: an object a line is wanted"),
        ("train.jsonl", f'{{"en": {"1" * 5000}}}\n', None, "line 1: a number of thousands of digits"),
        ("train.json", "[]", None, "empty, no sentence pairs"),
        ("train.parquet", b"PAR1 not really", None, "not Parquet, or damaged"),
        ("train.parquet", parquet_bytes({"en": ["a"], "x": ["b"]}), None, "no columns 'en' and 'de' among en, x"),
        ("train.parquet", parquet_bytes({"en": ["a", "b"], "de": [1, 2]}), None, "row 1: 1 is not text"),
        ("train.parquet", parquet_bytes({"en": ["a", "b\0"], "de": ["c", "d"]}), None, "row 2: a NUL character"),
        ("train.tmx", TMX.format(encoding="UTF-8").replace("</tuv>", "", 1), None, "line 10: not XML"),
        ("train.tmx", TMX.format(encoding="UTF-8").replace(">color<", ">\0<"), None, "line 12: not XML"),
        ("train.tmx", TMX.format(encoding="klingon"), None, "not XML"),
        (
            "train.tmx",
            TMX.format(encoding="UTF-8").replace('="DE', '="nl').replace('="de', '="nl'),
            None,
            "no unit with both 'en' and 'de', only en, en-gb, en-us, fr, nl, nl-at, nln",
        ),
        ("train.tmx", "<tmx><body/></tmx>", None, "empty, no sentence pairs"),
    ],
)
def test_what_a_format_does_not_allow_is_an_error_with_its_place(
    tmp_path: Path, name: str, content: str | bytes, columns: tuple[str, str] | None, message: str
) -> None:
    file = write(tmp_path / name, content)
    with pytest.raises(DataError) as error:
        corpus.load(name, "en", "de", str(tmp_path), columns=columns)
    assert str(file) in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_an_error_that_is_kept_keeps_no_file_open(name: str, tmp_path: Path) -> None:
    file = write(tmp_path / name, "a\n" * 10_000)
    with pytest.raises(DataError) as error:
        list(formats.read_pairs([file], ("en", "de")))
    assert str(error.value).startswith(f"{file}: line 1")
    places = Path("/proc/self/fd")
    assert not places.is_dir() or str(file) not in {os.readlink(one) for one in places.iterdir() if one.is_symlink()}


def test_a_translation_memory_passes_through_in_little_memory(tmp_path: Path) -> None:
    unit = '<tu><tuv xml:lang="en"><seg>{0} a</seg></tuv><tuv xml:lang="de"><seg>{0} b</seg></tuv></tu>\n'
    body = "".join(unit.format(n) for n in range(20_000))
    file = write(tmp_path / "large.tmx", f'<tmx version="1.4"><body>{body}</body></tmx>')
    tracemalloc.start()
    try:
        count = sum(1 for _ in formats.read_pairs([file], ("en", "de")))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 20_000
    assert peak < 2_000_000  # the whole tree takes ten times as much


# ---- Where a split lies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", PACK)
def test_two_text_files(tmp_path: Path, packed: str) -> None:
    write(tmp_path / "set" / "train.en", "a\nb\r\n\n")
    write(tmp_path / "set" / f"train.de{packed}", PACK[packed](b"\xef\xbb\xbfc\r\nd\ne\n"))
    found = corpus.load("train", "en", "de", str(tmp_path / "set"))
    assert pairs_of(found) == [("a", "c"), ("b", "d"), ("", "e")]
    assert len(found) == len(found.source) == 3
    assert found.target[1] == "d"
    assert found.target[1:] == ["d", "e"]
    assert "train.en" in found.name


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        ("a\nb\nc\n", "a\n", "train.en has 3 lines and {}/train.de has 1:"),
        ("a\n", "a\nb", "train.en has 1 lines and {}/train.de has 2:"),
        ("a\nb\n", "", "train.en has 2 lines and {}/train.de has 0:"),
        ("", "", "train.de: empty"),
    ],
)
def test_sides_of_different_length(tmp_path: Path, left: str, right: str, message: str) -> None:
    write(tmp_path / "train.en", left)
    write(tmp_path / "train.de", right)
    with pytest.raises(DataError) as error:
        corpus.load("train", "en", "de", str(tmp_path))
    assert message.format(tmp_path) in str(error.value)


@pytest.mark.parametrize("place", ["here/set", "here/data/set", "shelf/set"])
def test_a_path_is_looked_for_here_under_nmt_data_and_under_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("NMT_DATA", str(tmp_path / "shelf"))
    write(tmp_path / place / "train.tsv", "a\tb\n")
    assert pairs_of(corpus.load("train", "en", "de", "set")) == [("a", "b")]


@pytest.mark.parametrize("place", ["shelf/set", "here/data/set"])
def test_a_corpus_that_lay_elsewhere_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("NMT_DATA", str(tmp_path / "shelf"))
    before = tmp_path / "before" / "set"
    write(tmp_path / "here" / "set" / "train.tsv", "x\ty\n")  # which lies where the command runs by chance
    with pytest.raises(DataError, match=rf"no '{before}': looked for {before}, {tmp_path}/shelf/set, data/set: "):
        corpus.load("train", "en", "de", str(before))
    write(tmp_path / place / "train.tsv", "a\tb\n")
    assert pairs_of(corpus.load("train", "en", "de", str(before))) == [("a", "b")]
    write(before / "train.tsv", "c\td\n")
    assert pairs_of(corpus.load("train", "en", "de", str(before))) == [("c", "d")]


def test_a_corpus_that_is_nowhere_is_an_error_that_names_the_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NMT_DATA", str(tmp_path / "shelf"))
    with pytest.raises(DataError, match=rf"'set': looked for set, {tmp_path}/shelf/set, data/set: .*NMT_DATA"):
        corpus.load("train", "en", "de", "set")
    with pytest.raises(DataError, match=r"data\.path: name the folder"):
        corpus.load("train", "en", "de")


def test_files_named_one_by_one(tmp_path: Path) -> None:
    write(tmp_path / "OpenSubtitles.de-en.en", "a\n")
    write(tmp_path / "OpenSubtitles.de-en.de.gz", gzip.compress(b"b\n"))
    write(tmp_path / "memory.tmx", TMX.format(encoding="UTF-8"))
    write(tmp_path / "valid.tsv", "c\td\n")
    folder = str(tmp_path)
    two = ["OpenSubtitles.de-en.en", "OpenSubtitles.de-en.de.gz"]
    assert pairs_of(corpus.load(two, "en", "de", folder)) == [("a", "b")]
    assert pairs_of(corpus.load("OpenSubtitles.de-en", "en", "de", folder)) == [("a", "b")]
    assert pairs_of(corpus.load("memory.tmx", "en", "de", folder)) == TMX_PAIRS
    assert pairs_of(corpus.load("train", "en", "de", str(tmp_path / "memory.tmx"))) == TMX_PAIRS
    assert pairs_of(corpus.load("valid", "en", "de", str(tmp_path / "memory.tmx"))) == [("c", "d")]
    with pytest.raises(DataError, match=r"other\.tmx: cannot be read: No such file"):
        corpus.load("other.tmx", "en", "de", folder)
    with pytest.raises(DataError, match="notes: no known format"):
        corpus.load("train", "en", "de", str(write(tmp_path / "notes", "a\tb\n")))


@pytest.mark.parametrize(("share", "kept"), [(None, 6), (2.0, 4), (0.0, 0), (100.0, 6)])
def test_extra_pairs_come_behind_a_share_of_the_others(share: float | None, kept: int) -> None:
    train = corpus.from_pairs([f"a{n}" for n in range(6)], [f"b{n}" for n in range(6)], "train")
    extra = [corpus.from_pairs([f"x{n}"], [f"y{n}"], f"extra{n}") for n in range(2)]
    found = corpus.mixed(train, extra, share=share)
    pairs = list(zip(found.source, found.target, strict=True))
    assert pairs[kept:] == [("x0", "y0"), ("x1", "y1")]
    assert len(set(pairs[:kept])) == kept
    assert pairs[:kept] == sorted(pairs[:kept]), "in the order of the corpus"
    assert all(source[0] == "a" and target == f"b{source[1]}" for source, target in pairs[:kept])
    assert corpus.mixed(train, extra, share=share).fingerprint == found.fingerprint
    assert corpus.mixed(train, extra[:1], share=share).fingerprint != found.fingerprint


def test_extra_pairs_may_be_there_several_times() -> None:
    train = corpus.from_pairs([f"a{n}" for n in range(20)], [f"b{n}" for n in range(20)], "train")
    extra = corpus.from_pairs(["x", "y"], ["u", "v"], "extra")
    found = corpus.mixed(train, [extra], 3, 2.0)
    assert found.source[:][12:] == ["x", "y"] * 3
    assert found.name == "train and extra"


def test_extra_pairs_have_the_columns_of_the_others_or_those_of_corrections(tmp_path: Path) -> None:
    write(tmp_path / "set" / "train.tsv", "German\tEnglish\na\tb\n")
    write(tmp_path / "same.tsv", "German\tEnglish\nc\td\n")
    write(tmp_path / "corrections.tsv", "de\ten\te\nf\tg\th\n")
    write(tmp_path / "plain.en", "i\n")
    write(tmp_path / "plain.de", "j\n")
    (tmp_path / "both").mkdir()
    for language in ("en", "de"):
        (tmp_path / f"plain.{language}").rename(tmp_path / "both" / f"train.{language}")
    files = [str(tmp_path / name) for name in ("same.tsv", "corrections.tsv", "both")]
    found = Data(
        source="en", target="de", path=str(tmp_path / "set"), columns=("English", "German"), extra=tuple(files)
    )
    assert pairs_of(material.load_split(found, "train")) == [("b", "a"), ("d", "c"), ("g", "f"), ("i", "j")]
    missing = found.model_copy(update={"extra": ("nowhere.tsv",)})
    with pytest.raises(DataError, match=r"data\.extra: no 'nowhere\.tsv': looked for .*: put .* or set .* data\.extra"):
        material.load_split(missing, "train")


@pytest.mark.parametrize("name", ["valid", "validation", "dev"])
def test_the_validation_set_has_three_names(tmp_path: Path, name: str) -> None:
    write(tmp_path / f"{name}.en", "a\n")
    write(tmp_path / f"{name}.de", "b\n")
    assert pairs_of(corpus.load("valid", "en", "de", str(tmp_path))) == [("a", "b")]


def test_a_split_that_is_not_there_is_told_from_one_that_is_wrong(tmp_path: Path) -> None:
    write(tmp_path / "train.en", "a\n")
    with pytest.raises(MissingSplitError, match=r"no split 'test': looked for test\.en and test\.de"):
        corpus.load("test", "en", "de", str(tmp_path))
    (tmp_path / "more").mkdir()
    with pytest.raises(MissingSplitError, match=r"no split 'train'.* or name its file in data\.extra"):
        corpus.load("train", "en", "de", str(tmp_path / "more"), key="data.extra")
    with pytest.raises(DataError, match=r"train\.en: no train\.de beside it") as error:
        corpus.load("train", "en", "de", str(tmp_path))
    assert not isinstance(error.value, MissingSplitError)
    (tmp_path / "train.de").mkdir()
    with pytest.raises(DataError, match=r"train\.de: cannot be read: Is a directory"):
        corpus.load("train", "en", "de", str(tmp_path))


def test_text_in_memory() -> None:
    found = corpus.from_pairs(["a", "b\nc"], ["d", "e"], "starter")
    assert pairs_of(found) == [("a", "d"), ("b c", "e")]
    assert found.fingerprint == corpus.from_pairs(["a", "b\nc"], ["d", "e"], "other").fingerprint
    assert found.fingerprint != corpus.from_pairs(["a", "b"], ["d", "e"], "starter").fingerprint
    with pytest.raises(DataError, match="starter: 2 source and 1 target"):
        corpus.from_pairs(["a", "b"], ["c"], "starter")


# ---- The hub ---------------------------------------------------------------------------------------------------------


def hub_folder(folder: Path) -> str:
    rows = [json.dumps({"translation": pair}) for pair in NESTED]
    write(folder / "train.jsonl", "\n".join(rows))
    write(folder / "validation.jsonl", rows[0])
    return str(folder)


def test_a_hub_data_set_stands_in_for_a_folder_that_is_not_there(tmp_path: Path) -> None:
    hub = hub_folder(tmp_path / "org-set")
    found = corpus.load("train", "en", "de", path="set", hub=hub)
    assert pairs_of(found) == [("a", "b"), ("c d", "e")]
    assert pairs_of(corpus.load("train", "de", "en", hub=hub)) == [("b", "a"), ("e", "c d")]
    assert pairs_of(corpus.load("valid", "en", "de", hub=hub)) == [("a", "b")]
    with pytest.raises(MissingSplitError, match=r"org-set.*test.*train.*data\.hold_out"):
        corpus.load("test", "en", "de", hub=hub)
    with pytest.raises(DataError, match=r"no columns 'en' and 'fr' among translation\.\w\w.*data\.columns"):
        corpus.load("train", "en", "fr", hub=hub)
    with pytest.raises(DataError, match=r"data\.hub_config"):
        corpus.load("train", "en", "de", hub=hub, hub_config="klingon")


def test_a_hub_data_set_with_columns(tmp_path: Path) -> None:
    write(tmp_path / "set" / "train.parquet", parquet_bytes({"q": ["a", None], "n": [1, 2], "r": ["b", "c"]}))
    found = corpus.load("train", "en", "de", hub=str(tmp_path / "set"), columns=("q", "r"))
    assert pairs_of(found) == [("a", "b"), ("", "c")]


def test_slices_of_a_hub_split_are_told_apart(tmp_path: Path) -> None:
    hub = hub_folder(tmp_path / "org-set")
    one, two = (corpus.load(part, "en", "de", hub=hub) for part in ("train[:1]", "train[1:]"))
    assert (pairs_of(one), pairs_of(two)) == ([("a", "b")], [("c d", "e")])


def test_files_go_before_the_hub(tmp_path: Path) -> None:
    write(tmp_path / "here" / "set" / "train.tsv", "x\ty\n")
    assert pairs_of(corpus.load("train", "en", "de", path="set", hub=hub_folder(tmp_path / "hub"))) == [("x", "y")]


def test_a_hub_that_cannot_be_reached_is_one_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def offline(*arguments: object, split: str, cache_dir: str) -> None:
        raise ConnectionError("Couldn't reach 'org/set'\non the Hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(DataError) as error:
        corpus.load("train", "en", "de", path="set", hub="org/set")
    message = str(error.value)
    assert "'org/set': it cannot be reached" in message
    assert "data.path" in message
    assert "$NMT_DATA" in message
    assert "\n" not in message


def test_a_data_set_that_needs_a_script_says_so(tmp_path: Path) -> None:
    write(tmp_path / "scripted" / "scripted.py", "raise SystemExit('this must never run')\n")
    with pytest.raises(DataError, match=r"needs a loading script, which `datasets` no longer runs.*data\.path"):
        corpus.load("train", "en", "de", hub=str(tmp_path / "scripted"))


# ---- The cache -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Path:
    write(tmp_path / "small" / "train.en", "a\nb\n")
    write(tmp_path / "small" / "train.de", "c\nd\n")
    return tmp_path / "small"


def reads(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows by one each time that files are read for pairs."""
    calls: list[object] = []

    def counted(*arguments: object) -> Iterator[tuple[str, str]]:
        calls.append(arguments)
        return formats.read_pairs(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(corpus, "read_pairs", counted)
    return calls


def test_files_are_read_once(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = reads(monkeypatch)
    one = corpus.load("train", "en", "de", str(small))
    two = corpus.load("train", "en", "de", str(small))
    assert len(calls) == 1
    assert pairs_of(one) == pairs_of(two)
    assert one.fingerprint == two.fingerprint
    assert two.pairs.cache_files  # on disk, not in memory


def test_a_file_that_changed_is_read_again(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = reads(monkeypatch)
    prints = set()
    # at first; another size at the same time; another time with the same size
    for text, changed in (("d", 1), ("longer", 1), ("larger", 2)):
        write(small / "train.de", f"c\n{text}\n")
        os.utime(small / "train.de", ns=(changed, changed))
        found = corpus.load("train", "en", "de", str(small))
        assert pairs_of(found) == [("a", "c"), ("b", text)]
        prints.add(found.fingerprint)
    assert len(calls) == len(prints) == 3


def test_an_error_is_not_kept(small: Path) -> None:
    write(small / "train.de", "c\n")
    for _ in range(2):
        with pytest.raises(DataError, match="has 2 lines"):
            corpus.load("train", "en", "de", str(small))
    write(small / "train.de", "c\nd\n")
    assert len(corpus.load("train", "en", "de", str(small))) == 2


@pytest.mark.parametrize(
    ("content", "pairs"),
    [
        ("\ufeffen;de\r\nHello, you;Hallo, du\r\n", [("Hello, you", "Hallo, du")]),
        ("Hello, you;Hallo, du\nYes;Ja\n", [("Hello, you", "Hallo, du"), ("Yes", "Ja")]),
        ('"a;b";c\nd;"e, f\ng"\n', [("a;b", "c"), ("d", "e, f g")]),
        ("a;b,c\nd;e,f\n", [("a", "b,c"), ("d", "e,f")]),
        ("Yes, a;Ja, a\nNo, b;Nein, b\n", [("Yes, a", "Ja, a"), ("No, b", "Nein, b")]),
        ('"Hello, a";"Hallo, a"\n"Yes, b";"Ja, b"\n', [("Hello, a", "Hallo, a"), ("Yes, b", "Ja, b")]),
        ("a,b\nc;d,e\nf;g;h,i\n", [("a", "b"), ("c;d", "e"), ("f;g;h", "i")]),
        ("sep=;\nde;en\nb, c;a\n", [("a", "b, c")]),
        ("Yes, a; b\tJa, a; b\nNo, c; d\tNein, c; d\n", [("Yes, a; b", "Ja, a; b"), ("No, c; d", "Nein, c; d")]),
        ("\ufeffSEP=|\r\na;b|c,d\r\n", [("a;b", "c,d")]),
        ("x,y\n" * 150 + '"p;q",z\n', [("x", "y")] * 150 + [("p;q", "z")]),
        ("x;y\n" * 150, [("x", "y")] * 150),
    ],
)
def test_a_csv_between_semicolons(content: str, pairs: list[tuple[str, str]], tmp_path: Path) -> None:
    write(tmp_path / "a.csv", content)
    assert list(formats.read_pairs([tmp_path / "a.csv"], ("en", "de"))) == pairs


def test_numbers_are_not_taken_for_sentences(tmp_path: Path) -> None:
    rows = "1276\tLet's try something.\t77\tLassen Sie uns etwas versuchen!\n"
    write(tmp_path / "a.tsv", rows)
    with pytest.raises(
        DataError, match=r"line 1: '1276' is a number, .* that names the 4 columns, 'en' and 'de' among"
    ):
        list(formats.read_pairs([tmp_path / "a.tsv"], ("en", "de")))
    write(tmp_path / "a.tsv", "one\ten\ttwo\tde\n" + rows)
    assert len(list(formats.read_pairs([tmp_path / "a.tsv"], ("en", "de")))) == 1


def test_a_document_of_an_office_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"PK\x03\x04\x14\x00\x06\x00")
    with pytest.raises(
        DataError, match=r"a\.txt: this is a document of Word, Excel or the like: save it as plain text"
    ):
        list(formats.read_lines(tmp_path / "a.txt"))
    (tmp_path / "my text.txt").write_bytes(b"M\xe4dchen\n")
    with pytest.raises(DataError, match=r"iconv -f WINDOWS-1252 -t UTF-8 '.*my text\.txt' > new\.txt"):
        list(formats.read_lines(tmp_path / "my text.txt"))


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
def test_a_damaged_cache_is_made_anew(
    small: Path, keep: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NMT_CACHE", str(tmp_path / "cache"))

    def prepared() -> tuple[list[tuple[str, str]], Filtered, list[int]]:
        pairs = corpus.load("train", "en", "de", str(small))
        found, filtered = data.prepare(pairs, Words(), Words())
        return pairs_of(pairs), filtered, found.source_lengths.tolist()

    first = prepared()
    files = [file for file in (tmp_path / "cache").rglob("*") if file.suffix in (".arrow", ".npz", ".json")]
    assert {file.suffix for file in files} == {".arrow", ".npz", ".json"}
    for file in files:
        whole = file.read_bytes()
        other = file.with_name("new")
        other.write_bytes(whole[: int(keep * len(whole))])
        other.replace(file)  # what is mapped of the old one stays
        assert prepared() == first, file.name


def test_a_cache_that_cannot_be_written_is_an_error(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NMT_CACHE", str(small / "train.en" / "cache"))
    with pytest.raises(DataError, match=r"cannot be made: .*NMT_CACHE"):
        corpus.load("train", "en", "de", str(small))


def test_reading_and_tokenising_print_nothing(small: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data.prepare(corpus.load("train", "en", "de", str(small)), Words(), Words())
    assert capfd.readouterr() == ("", "")


def test_importing_costs_little() -> None:
    heavy = ["datasets", "torch", "pyarrow", "pandas"]
    code = f"import sys, nmt.data; print([name for name in {heavy} if name in sys.modules])"
    root = Path(data.__file__).parents[1]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


# ---- Filters and overlap ---------------------------------------------------------------------------------------------

W = "w " * 11
GOOD = [("a", "b"), ("c", "d")]


@pytest.mark.parametrize(
    ("pairs", "rules", "counts", "kept"),
    [
        (GOOD, {}, {}, GOOD),
        ([*GOOD, ("", "b"), ("a", " \t"), ("\u2003", "b")], {}, {"empty": 3}, GOOD),
        ([*GOOD, ("e", "e")], {}, {"identical": 1}, GOOD),
        ([*GOOD, ("e", "e")], {"drop_identical": False}, {}, [*GOOD, ("e", "e")]),
        ([*GOOD, ("a", "b"), ("a", "x"), ("a", "b")], {}, {"duplicate": 2}, [*GOOD, ("a", "x")]),
        ([*GOOD, ("a", "b")], {"drop_duplicates": False}, {}, [*GOOD, ("a", "b")]),
        ([*GOOD, ("x y z", "a"), ("a", "x y z")], {"max_length": 2}, {"long": 2}, GOOD),
        ([*GOOD, ("x y z", "a")], {"max_length": 3}, {}, [*GOOD, ("x y z", "a")]),
        ([*GOOD, (W, "a b"), ("a b", W)], {}, {"ratio": 2}, GOOD),
        ([*GOOD, (W, "a b c")], {}, {}, [*GOOD, (W, "a b c")]),  # 11 : 3 is less than 4
        ([*GOOD, ("w " * 10, "a")], {}, {}, [*GOOD, ("w " * 10, "a")]),  # short: any ratio
        # the first reason counts: empty, identical, duplicate, long, ratio
        (
            [*GOOD, ("", ""), ("", ""), ("e", "e"), ("e", "e"), (W, "b"), (W, "b"), (f"{W} w w", "b")],
            {"max_length": 12},
            {"empty": 2, "identical": 2, "duplicate": 1, "long": 1, "ratio": 1},
            GOOD,
        ),
    ],
)
def test_filters_leave_out_and_count(
    pairs: list[tuple[str, str]], rules: dict[str, int], counts: dict[str, int], kept: list[tuple[str, str]]
) -> None:
    source, target = map(list, zip(*pairs, strict=True))
    for _ in range(2):  # computed, then from the cache
        found, filtered = data.prepare(corpus.from_pairs(source, target, "x"), Words(), Words(), **rules)
        assert filtered == Filtered(len(pairs), **counts)
        assert filtered.kept == len(found) == len(kept)
        assert [pairs[row] for row in found.rows] == kept


def test_blanks_are_empty_even_where_they_have_pieces() -> None:
    class Letters(Words):
        def encode(self, lines: Sequence[str], threads: int = 1) -> list[list[int]]:
            return [[self.first + ord(letter) % 100 for letter in line] for line in lines]

    _, filtered = data.prepare(corpus.from_pairs(["a", " ", "b"], ["b", "c", "\u3000"], "x"), Letters(), Letters())
    assert filtered == Filtered(3, empty=2)


def test_a_report_of_the_filters_names_what_was_left_out() -> None:
    assert str(Filtered(29_000, duplicate=3, ratio=1_200)) == "27,797 of 29,000 pairs kept, left out: " + (
        "3 duplicate, 1,200 ratio"
    )
    assert str(Filtered(5)) == "5 of 5 pairs kept"


def test_a_corpus_of_which_nothing_is_left_is_an_error_that_says_why() -> None:
    nothing = corpus.from_pairs(["a", "", "b b"], ["a", "x", "c c"], "mine")
    with pytest.raises(DataError, match=r"mine: 0 of 3 pairs kept, left out: 1 empty, 1 identical, 1 long.*max_length"):
        data.prepare(nothing, Words(), Words(), max_length=1)


def test_overlap_counts_test_sentences_seen_in_training() -> None:
    seen = corpus.from_pairs(["a", "b", "c", "c"], ["A", "B", "C", "D"], "train")
    test = corpus.from_pairs(["a", "a", "b", "x", "A"], ["A", "Z", "B", "B", "a"], "test")
    assert corpus.overlap(seen, test) == corpus.Overlap(sources=3, pairs=2, total=5)
    assert corpus.overlap(test, seen) == corpus.Overlap(sources=2, pairs=2, total=4)


def test_histogram() -> None:
    lengths = np.array([3, 9, 10, 35, 35])
    assert data.histogram(lengths) == [(0, 9, 2), (10, 19, 1), (20, 29, 0), (30, 39, 2)]
    assert data.histogram(lengths + 20, width=20) == [(20, 39, 3), (40, 59, 2)]


# ---- Tokenised once --------------------------------------------------------------------------------------------------


def many(count: int = 2_500) -> Corpus:
    """More pairs than Arrow keeps in one chunk, of many lengths, none twice."""
    source = [" ".join(f"s{(n * k) % 97}" for k in range(n % 13)) + f" {n}" for n in range(count)]
    target = [" ".join(f"t{(n * k) % 89}" for k in range(n % 17)) + f" {n}" for n in range(count)]
    return corpus.from_pairs(source, target, "many")


def test_rows_give_the_ids_of_their_text() -> None:
    words, other = Words(), Words("other", first=200)
    pairs = many()
    found, filtered = data.prepare(pairs, words, other, max_length=15)
    assert 0 < filtered.long < filtered.total
    for rows in ([0], [2, 1, 0], np.random.default_rng(1).permutation(len(found))[:300]):
        source, target = ([side[int(row)] for row in found.rows[rows]] for side in (pairs.source, pairs.target))
        batch, wanted = found.batch(rows), data.collate(words.encode(source), other.encode(target))
        for name in ("source", "source_lengths", "target_in", "target_out"):
            assert getattr(batch, name).tolist() == getattr(wanted, name).tolist()
        assert batch.source_lengths.tolist() == found.source_lengths[rows].tolist()
        assert found.target_lengths[rows].sum() == (batch.target_out != PAD).sum()
        assert len(batch.source) == len(rows)


def test_ids_are_read_where_they_lie(tmp_path: Path) -> None:
    column = pa.chunked_array([pa.array([[1, 2], []], pa.list_(pa.int32())), pa.array([[3]], pa.list_(pa.int32()))])
    ragged = Ragged(column)
    assert [ids.tolist() for ids in ragged.take(np.array([2, 0, 1]))] == [[3], [1, 2], []]
    assert ragged.lengths.tolist() == [2, 0, 1]
    assert ragged.take(np.array([0]))[0].ctypes.data == column.chunk(0).values.buffers()[1].address
    sliced = Ragged(column.slice(1))
    assert [ids.tolist() for ids in sliced.take(np.array([0, 1]))] == [[], [3]]


def test_a_corpus_is_tokenised_once() -> None:
    first = Words()
    found, filtered = data.prepare(many(), first, first)
    assert first.lines == 2 * 2_500
    again = Words()
    same, same_filtered = data.prepare(many(), again, again)
    stricter, _ = data.prepare(many(), again, again, max_length=5)
    assert again.lines == 0
    assert same_filtered == filtered
    assert same.batch(range(50)).source.tolist() == found.batch(range(50)).source.tolist()
    assert len(stricter) < len(same)


def test_another_tokenizer_or_corpus_is_tokenised_anew() -> None:
    data.prepare(many(), Words(), Words())
    other = Words("other", first=1000)
    found, _ = data.prepare(many(), Words(), other)
    assert other.lines == 2_500
    assert found.batch([0]).target_in.max() >= 1000
    fewer = Words()
    data.prepare(many(100), fewer, fewer)
    assert fewer.lines == 200


def test_what_killed_processes_left_in_the_cache_is_removed() -> None:
    ids, rows = corpus.cache("ids"), corpus.cache("rows")
    for age, file in ((2 * disk.DAY, ids / "tmpold"), (60, ids / "tmpnew"), (60, rows / ".abc.npz.0a1b2c3d.part")):
        write(file, "x")
        os.utime(file, (time.time() - age, time.time() - age))
    data.prepare(many(), Words(), Words())
    assert {file.name for file in (*ids.glob("tmp*"), *rows.glob(".*"))} == {"tmpnew"}, "this may be under way"


def test_rows_that_cannot_be_kept_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(DataError, match=r"rows: cannot be written: No space left on device: set \$NMT_CACHE"):
        data.prepare(many(), Words(), Words())


def shorten(file: Path) -> None:
    """The first rows of a table, as a power cut may leave it: an Arrow file that ends where a batch ends."""
    with pa.memory_map(str(file)) as opened:
        table = pa.ipc.open_stream(opened).read_all().slice(0, 2)
        whole = table.combine_chunks().to_batches()
        lines = pa.BufferOutputStream()
        with pa.ipc.new_stream(lines, table.schema) as out:
            for batch in whole:
                out.write_batch(batch)
    file.write_bytes(lines.getvalue().to_pybytes())


def test_a_cache_that_was_cut_short_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NMT_CACHE", str(tmp_path / "cache"))
    rows = [(f"one {n}", f"eins {n}") for n in range(9)]

    def read() -> Corpus:
        return corpus.stored(lambda: iter(rows), "pairs", "f" * 32)

    assert len(read()) == 9
    (file,) = (tmp_path / "cache").rglob("generator-train.arrow")
    shorten(file)
    found = read()
    assert list(zip(found.source, found.target, strict=True)) == rows
    words = train([text for row in rows for text in row], "unigram", 20, threads=1)
    before = [side.lengths.tolist() for side in data._tokenised(found, words, words)]
    (file,) = (tmp_path / "cache" / "ids").glob("*.arrow")
    shorten(file)
    assert [side.lengths.tolist() for side in data._tokenised(found, words, words)] == before


# ---- Tensors ---------------------------------------------------------------------------------------------------------


def test_a_batch_is_padded_after_the_end() -> None:
    batch = data.collate([[5, 6, 7], [], [8]], [[9], [10, 11], []])
    assert batch.source.tolist() == [[5, 6, 7, EOS], [EOS, PAD, PAD, PAD], [8, EOS, PAD, PAD]]
    assert batch.source_lengths.tolist() == [4, 1, 2]
    # both sides to an even number of steps, and longer ones to a multiple of 4 or 8
    assert batch.target_in.tolist() == [[BOS, 9, PAD, PAD], [BOS, 10, 11, PAD], [BOS, PAD, PAD, PAD]]
    assert batch.target_out.tolist() == [[9, EOS, PAD, PAD], [10, 11, EOS, PAD], [EOS, PAD, PAD, PAD]]
    moved = batch.to("meta")
    assert {moved.source.device.type, moved.source_lengths.device.type} == {"meta"}
    assert {moved.target_in.device.type, moved.target_out.device.type} == {"meta"}
    assert moved.alignment is None
    assert str(batch.source.dtype) == str(batch.target_in.dtype) == str(batch.target_out.dtype) == "torch.int64"


def test_pad() -> None:
    assert data.pad([[4], [], [5, 6]]).tolist() == [[4, PAD], [PAD, PAD], [5, 6]]
    assert data.pad([]).shape == (0, 0)
    assert str(data.pad([[4]]).dtype) == "torch.int64"


def test_other_segmentations_of_the_same_text() -> None:
    lines = [f"the {word} dogs run over the {word} hills" for word in ("old", "young", "small", "large", "green")]
    real: Tokenizer = train(lines, model="bpe", vocab_size=40)
    loud = [line.upper() for line in lines]
    other: Tokenizer = train(loud, model="bpe", vocab_size=44)
    found, _ = data.prepare(corpus.from_pairs(lines, loud, "x"), real, other)
    rows = [4, 0, 2]
    plain, one = found.batch(rows), found.sampled(rows, 7, 0.1)
    assert one.source.tolist() == found.sampled(rows, 7, 0.1).source.tolist()
    assert one.source.tolist() != found.sampled(rows, 8, 0.1).source.tolist()
    assert real.decode(one.source.tolist()) == real.decode(plain.source.tolist()) == [lines[row] for row in rows]
    assert one.target_out.tolist() != plain.target_out.tolist()
    assert other.decode(one.target_out.tolist()) == [loud[row] for row in rows]


# ---- Batches ---------------------------------------------------------------------------------------------------------


def lengths(count: int = 5_000, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Sides whose lengths go together, as those of translations do."""
    random = np.random.default_rng(seed)
    source = random.gamma(4, 4, count).astype(int) + 1
    target = np.maximum(1, source + random.normal(0, 3, count)).astype(int)
    return source, target


def flat(plan: list[np.ndarray]) -> list[list[int]]:
    return [rows.tolist() for rows in plan]


@pytest.mark.parametrize("budget", [1, 60, 500, 2_500, 1_000_000])
@pytest.mark.parametrize("count", [1, 7, 5_000])
def test_every_pair_is_in_one_batch_and_no_batch_exceeds_the_budget(budget: int, count: int) -> None:
    source, target = lengths(count)
    for epoch in range(3):
        plan = Batches(source, target, budget, seed=5).plan(epoch)
        assert np.sort(np.concatenate(plan)).tolist() == list(range(count))
        for rows in plan:
            assert len(rows) == 1 or len(rows) * max(source[rows].max(), target[rows].max()) <= budget


def test_a_batch_takes_all_that_the_budget_allows() -> None:
    same = np.full(100, 10)
    assert [len(rows) for rows in Batches(same, same, 100).plan(0)] == [10] * 10


def test_large_batches_have_a_round_number_of_rows() -> None:
    same = np.full(100, 10)
    assert sorted(len(rows) for rows in Batches(same, same, 300).plan(0)) == [4, 24, 24, 24, 24]


def test_both_sides_of_a_batch_are_of_like_length() -> None:
    # 0.086; were the longer side alone sorted 0.120, were the other always sorted upwards 0.088
    assert Batches(*lengths(), 500).padding(0) < 0.087


def test_the_order_follows_from_seed_and_epoch_alone() -> None:
    batches, again = Batches(*lengths(), 500, seed=5), Batches(*lengths(), 500, seed=5)
    later = flat(again.plan(4))
    plans = [flat(batches.plan(epoch)) for epoch in range(5)]
    assert later == plans[4]
    for one, two in pairwise(plans):
        assert one != two
        assert {frozenset(rows) for rows in one} != {frozenset(rows) for rows in two}
    assert plans[0] != flat(Batches(*lengths(), 500, seed=6).plan(0))


def test_a_run_that_stopped_goes_on_with_the_rest() -> None:
    before = Batches(*lengths(), 500).plan(2)
    done = [before[number] for number in range(20)]
    rest = Batches(*lengths(), 500).plan(2)[20:]
    assert sorted(np.concatenate([*done, *rest]).tolist()) == list(range(5_000))
    assert flat([*done, *rest]) == flat(before)


def test_batches_are_full_alike_and_shuffled() -> None:
    source, target = lengths()
    batches = Batches(source, target, 1_000)
    sizes = [len(batches.plan(epoch)) for epoch in range(10)]
    assert max(sizes) - min(sizes) <= 0.02 * max(sizes)
    costs = [len(rows) * max(source[rows].max(), target[rows].max()) for rows in batches.plan(0)]
    assert np.mean(costs) > 870
    longest = np.array([max(source[rows].max(), target[rows].max()) for rows in batches.plan(0)])
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3  # no curriculum by length


def test_batchmates_change_from_epoch_to_epoch() -> None:
    batches = Batches(*lengths(), 1_000)
    mates = [{(a, b) for rows in flat(batches.plan(epoch)) for a in rows for b in rows} for epoch in range(2)]
    assert len(mates[0] & mates[1]) < 0.6 * len(mates[0])


def test_padding_is_the_share_of_pads_in_the_tensors() -> None:
    found, _ = data.prepare(many(400), Words(), Words())
    batches = Batches(found.source_lengths, found.target_lengths, 200)
    made = [found.batch(rows) for rows in batches.plan(1)]
    pads = sum(int((tensor == PAD).sum()) for batch in made for tensor in (batch.source, batch.target_out))
    total = sum(tensor.numel() for batch in made for tensor in (batch.source, batch.target_out))
    assert batches.padding(1) == pytest.approx(pads / total)
    assert Batches(np.array([4]), np.array([4]), 10).padding(0) == 0


# ---- A real corpus ---------------------------------------------------------------------------------------------------


@needs_multi30k
def test_multi30k(tmp_path: Path) -> None:
    path = str(REAL / "multi30k")
    found = corpus.load("train", "en", "de", path)
    assert len(found) == 29_000
    real = train([*found.source[:5000], *found.target[:5000]], model="char", vocab_size=120)
    _, filtered = data.prepare(found, Words(), Words())
    assert filtered.kept + filtered.duplicate + filtered.ratio + filtered.identical == 29_000
    words = Words()
    again, cached = data.prepare(corpus.load("train", "en", "de", path), words, words)
    assert (words.lines, cached) == (0, filtered), "it is kept"
    batches = Batches(again.source_lengths, again.target_lengths, 2_500)
    assert max(batches.padding(epoch) for epoch in range(3)) < 0.1
    assert corpus.overlap(found, corpus.load("test", "en", "de", path)).pairs == 0
    longest, _ = data.prepare(corpus.load("valid", "en", "de", path), real, real, 1000, 1000)
    assert len(longest) == 1_014


# ---- Tokenizers of a corpus ------------------------------------------------------------------------------------------


def test_a_tokenizer_is_trained_once_for_a_corpus_and_a_specification(
    corpus: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NMT_CACHE", str(tmp_path / "cache"))

    def trained(*changes: str) -> tuple[bool, bytes, bytes]:
        spec = load(recipe, changes)
        source, target = material.train_tokenizers(spec, material.load_split(spec.data, "train"))
        return "training the tokenizer" in capsys.readouterr().err, source.proto, target.proto

    first = trained()
    assert first[0]
    assert trained() == (False, *first[1:])
    apart = ("tokenizer.joint=false", "model.tie=target", "tokenizer.vocab_size=30")
    one = trained(*apart)
    assert one[0]
    assert one[1] != one[2]
    assert trained(*apart) == (False, *one[1:])
    for file in (tmp_path / "cache" / "tokenizers").iterdir():
        file.write_bytes(file.read_bytes()[:99])
    assert trained() == first
