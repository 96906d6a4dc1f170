"""Sentence pairs out of files, strictly: what is wrong is an error with file and line, never a silent repair.

    train.en, train.de    two text files, a sentence a line, the same number of lines
    .tsv, .csv            two columns of many; TSV has no quoting, CSV the usual one; of corrections the last ones
    .jsonl, .json         an object a line, or one array of objects; also `{"translation": {"en": ..., "de": ...}}`
    .parquet              two columns of text, or a `translation` of both
    .tmx                  translation memories, read as a stream; codes of the layout are dropped, the words kept

Each but Parquet may be packed: .gz, .xz, .zst. Text is UTF-8, a byte-order mark is dropped. A line ends with LF or
CR LF and nowhere else: U+2028, U+0085, VT and FF are part of the sentence, a lone CR and a NUL byte are errors. Where
a format lets a field run over lines (CSV, JSON, Parquet, TMX), each break becomes one space.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import re
import shlex
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast
from xml.etree import ElementTree

from nmt.errors import DataError

if TYPE_CHECKING:
    import pyarrow

Pair = tuple[str, str]  # source and target: a sentence, a language, a column

PACKED = (".gz", ".xz", ".zst")
CORRECTED = ("time", "model")  # the columns that tell a table of corrections, where the last of a source counts

STDIN = "standard input"  # its name in messages
BOM = b"\xef\xbb\xbf"
_ZIP = b"PK\x03\x04"
_LOOK = 100  # lines from which the mark between the columns of a CSV is told
MARKS = ",;\t"  # what may part the cells of a CSV; those that come later stand in texts more seldom
_SAID = re.compile(r"sep=(.)", re.IGNORECASE)
_BREAK = re.compile(r"[ \t]*[\r\n][ \t\r\n]*")
_CODES = ("bpt", "ept", "ph", "it", "ut")  # TMX 1.4b, section 3.4: native codes, not words
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


class MissingColumnsError(DataError):
    """A table has no columns of the names that were looked for."""


def read_pairs(files: Sequence[Path], languages: Pair, columns: Pair | None = None) -> Iterator[Pair]:
    """The sentence pairs of two text files (source, target) or of one file of another format.

    Columns are found by `columns`, else by the names of the languages, else as `source` and `target`. Raises
    DataError for a file that is missing, unreadable, damaged, empty or not what its name says.
    """
    if len(files) == 2:
        pairs = _text(files[0], files[1])
    elif reader := READERS.get(kind(files[0].name)):
        pairs = reader(files[0], languages, columns)
    else:
        raise DataError(
            f"{files[0]}: no known format: name one of {', '.join(READERS)}, or two text files where two can be named "
            f"(`paste {files[0].name} OTHER > pairs.tsv` makes one of them)"
        )
    try:
        first = next(pairs, None)
        if first is None:
            raise DataError(f"{' and '.join(map(str, files))}: empty, no sentence pairs in it")
        yield first
        yield from pairs
    except DataError as error:
        traceback.clear_frames(error.__traceback__)  # or the files would be open as long as the error is kept
        raise


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a text file, packed or not, without their ends. Raises DataError with the file and the line."""
    with _opened(path) as stream:
        yield from decode_lines(stream, str(path))


def count_lines(path: Path) -> int:
    """The lines of a text file, without a look at what is in them. Raises DataError."""
    with _opened(path) as stream:
        return sum(1 for _ in stream)


def decode_lines(stream: Iterable[bytes], name: str) -> Iterator[str]:
    """The lines of an open binary stream, `sys.stdin.buffer` for instance, without their ends.

    Raises DataError with `name` and the line for a lone CR, a NUL byte and what is not UTF-8.
    """
    for number, raw in enumerate(stream, 1):
        line = raw[:-2] if raw.endswith(b"\r\n") else raw.removesuffix(b"\n")
        if number == 1:
            if wide := _utf_16(line):
                raise DataError(f"{name}: this is {wide}: make it UTF-8: {_converted(wide, name)}")
            if line.startswith(_ZIP):
                raise DataError(
                    f"{name}: this is a document of Word, Excel or the like: save it as plain text in UTF-8 there, a "
                    "table as CSV"
                )
            line = line.removeprefix(BOM)
        if b"\0" in line:
            raise DataError(f"{name}: line {number}: a NUL byte: this is no plain text, or it is damaged")
        if b"\r" in line:
            raise DataError(f"{name}: line {number}: a CR without LF: end lines with LF or CR LF and drop other CRs")
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{name}: line {number}: byte {error.start + 1} (0x{line[error.start]:02x}) is not UTF-8: correct it, "
                f"or convert the file: {_converted('WINDOWS-1252', name)}"
            ) from None


def _utf_16(line: bytes) -> str:
    """Which UTF-16 a first line is, if it is; without a mark, that of letters whose other byte is 0."""
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    sides = {"UTF-16LE": line[1::2], "UTF-16BE": line[::2]}
    return next((name for name, side in sides.items() if len(side) > 1 and not any(side)), "")


def _converted(encoding: str, name: str) -> str:
    """A command that makes UTF-8 of a file, or of what comes in."""
    if name == STDIN:
        return f"for instance ... | iconv -f {encoding} -t UTF-8 | nmt ..."
    return f"for instance iconv -f {encoding} -t UTF-8 {shlex.quote(name)} > new.txt"


def kind(name: str) -> str:
    """The suffix of a file name that says its format, whatever packs it: `.tmx` for `corpus.tmx.gz`."""
    return Path(unpacked(name)).suffix.lower()


def language_of(name: str) -> str:
    """What a file name says of the language of its lines, whatever packs it: `en` for `train.en.gz`."""
    return Path(unpacked(name)).suffix.lstrip(".")


def unpacked(name: str) -> str:
    """A file name without the suffix of what packs it."""
    for packed in PACKED:
        name = name.removesuffix(packed)
    return name


def pick(names: Collection[str], languages: Pair, columns: Pair | None, where: str) -> Pair:
    """Which of the columns `names` hold source and target. Raises MissingColumnsError where none do."""
    found = _find(names, languages, columns)
    if found:
        return found
    wanted = columns or languages
    raise MissingColumnsError(
        f"{where}: no columns '{wanted[0]}' and '{wanted[1]}' among {', '.join(names) or 'none'}: "
        "name the two in data.columns (nmt init --columns SOURCE TARGET)"
    )


def table_pairs(tables: Iterable[pyarrow.Table], names: Pair, where: str) -> Iterator[Pair]:
    """The pairs of two columns of Arrow tables; `translation.en` is the field `en` of the column `translation`."""
    number = 0
    for table in tables:
        flat = table.flatten()
        sides = (flat.column(name).to_pylist() for name in names)
        for source, target in zip(*sides, strict=True):
            number += 1
            yield one_line(source, f"{where}: row {number}"), one_line(target, f"{where}: row {number}")


def one_line(value: object, where: str) -> str:
    """A field as one line of text: None is empty, a line break is a space. Raises DataError for what is not text."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}: {value!r:.60} is not text")
    if "\0" in value:
        raise DataError(f"{where}: a NUL character: the text is damaged")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise DataError(f"{where}: half a character (a lone surrogate): the text is damaged") from None
    return _BREAK.sub(" ", value).strip(" \t") if "\n" in value or "\r" in value else value


def _find(names: Collection[str], languages: Pair, columns: Pair | None) -> Pair | None:
    nested = (f"translation.{languages[0]}", f"translation.{languages[1]}")
    choices = [columns] if columns else [languages, nested, ("source", "target")]
    return next((choice for choice in choices if choice[0] in names and choice[1] in names), None)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A file, unpacked; whatever goes wrong in opening and reading it is a DataError."""
    try:
        with open(path, "rb") as file, _unpacked(file, path.suffix) as stream:
            yield stream
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path}: damaged or cut short: {error}") from None


def _unpacked(file: BinaryIO, suffix: str) -> IO[bytes]:
    if suffix == ".gz":
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    if suffix == ".xz":
        return lzma.LZMAFile(file)
    if suffix == ".zst":
        import pyarrow

        return io.BufferedReader(pyarrow.input_stream(file, compression="zstd"), 1 << 16)
    return file


def _text(source: Path, target: Path) -> Iterator[Pair]:
    left, right = read_lines(source), read_lines(target)
    for count, (one, two) in enumerate(zip_longest(left, right)):
        if one is None or two is None:
            more = count + 1 + sum(1 for _ in (right if one is None else left))
            counts = (count, more) if one is None else (more, count)
            raise DataError(
                f"{source} has {counts[0]:,} lines and {target} has {counts[1]:,}: line n of one must translate "
                "line n of the other"
            )
        yield one, two


def _table(path: Path, languages: Pair, columns: Pair | None) -> Iterator[Pair]:
    """TSV and CSV. Without `columns` and without a header that names the languages: the first two columns."""
    tabs = kind(path.name) == ".tsv"
    rows = _tab_separated(path) if tabs else _comma_separated(path)
    head = next(rows, None)
    if head is None:
        return
    left, right = 0, 1
    first = list(islice(rows, 1))  # of the pairs
    if columns or _find(head[1], languages, None):
        names = pick(head[1], languages, columns, f"{path}: line {head[0]}")
        left, right = head[1].index(names[0]), head[1].index(names[1])
    elif half := {name.strip().lower() for name in head[1]} & {language.lower() for language in languages}:
        raise MissingColumnsError(
            f"{path}: line {head[0]}: '{min(half)}' is the name of a language, but '{languages[0]}' and "
            f"'{languages[1]}' are not both among {', '.join(head[1])}: name the two in data.columns (nmt init "
            "--columns SOURCE TARGET); if this is a pair of sentences, put a line above it that names the columns"
        )
    else:
        cells = [(number, cell) for number, row in (head, *first) for cell in row[:2] if cell.strip().isdigit()]
        if cells and len(head[1]) > 2:
            number, odd = cells[0]
            raise MissingColumnsError(
                f"{path}: line {number}: '{odd}' is a number, and a sentence is looked for there: begin with a line "
                f"that names the {len(head[1])} columns, '{languages[0]}' and '{languages[1]}' among them, or name two "
                "of that line in data.columns (nmt init --columns SOURCE TARGET)"
            )
        first.insert(0, head)
    rows = chain(first, rows)
    if set(CORRECTED) <= set(head[1][2:]):
        rows = iter({row[0]: (number, row) for number, row in rows}.values())
    needed = max(left, right) + 1
    for number, row in rows:
        if len(row) < needed:
            mark = "tabs" if tabs else "commas or semicolons"
            raise DataError(f"{path}: line {number} has {len(row)} of the {needed} columns needed, separated by {mark}")
        if any(row[len(head[1]) :]):
            why = "a tab parts columns, and none may be in a text" if tabs else "quote a text with commas in it"
            raise DataError(f"{path}: line {number} has {len(row)} columns, line {head[0]} has {len(head[1])}: {why}")
        yield one_line(row[left], f"{path}: line {number}"), one_line(row[right], f"{path}: line {number}")


def _tab_separated(path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(read_lines(path), 1):
        if line:
            yield number, line.split("\t")


def _comma_separated(path: Path) -> Iterator[tuple[int, list[str]]]:
    lines = (f"{line}\n" for line in read_lines(path))
    first = list(islice(lines, _LOOK))
    mark, said = delimiter(first)
    reader = csv.reader(chain(first[said:], lines), delimiter=mark, strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num + said, row
    except csv.Error as error:
        where = f"{path}: line {reader.line_num + said}"
        raise DataError(f"{where}: not CSV: {error}: quote a whole text, and double the quotes in it") from None


def delimiter(lines: Sequence[str]) -> tuple[str, int]:
    """What parts the cells of a CSV, a comma or, as Excel has it, a semicolon or tab; how many lines say so, 0 or 1.

    Told by a first line `sep=;`, else by the first lines: the mark by which all have as many cells, or most have.
    """
    csv.field_size_limit(2**31 - 1)  # the default refuses long fields
    if lines and (match := _SAID.fullmatch(lines[0].strip("\r\n"))):
        return match[1], 1
    return max(MARKS, key=partial(_parted, lines)), 0


def _parted(lines: Sequence[str], mark: str) -> tuple[bool, int, int]:
    """Whether a mark parts all lines into as many cells, more than one each; how many it parts so at most; then which
    is rarer in a text, or, if it parts none, how often it is there."""
    counts: Counter[int] = Counter()
    reader, right = csv.reader(lines, delimiter=mark, strict=True), True
    try:
        counts.update(len(row) for row in reader if row)
    except csv.Error:
        right = reader.line_num == len(lines)  # a cell that goes on behind them
    most = max((count for cells, count in counts.items() if cells > 1), default=0)
    return (
        right and 0 < most == counts.total(),
        most,
        MARKS.index(mark) if most else sum(line.count(mark) for line in lines),
    )


def _json(path: Path, languages: Pair, columns: Pair | None) -> Iterator[Pair]:
    names: Pair | None = None
    for where, record in _records(path):
        if not isinstance(record, dict):
            raise DataError(f"{where}: {record!r:.60} is no object with named fields")
        flat = {
            (f"{key}.{inner}" if inner else key): field
            for key, value in record.items()
            for inner, field in (value.items() if isinstance(value, dict) else [("", value)])
        }
        names = names or pick(flat, languages, columns, where)
        missing = [name for name in names if name not in flat]
        if missing:
            raise DataError(f"{where}: no field '{missing[0]}', only {', '.join(flat) or 'none'}")
        yield one_line(flat[names[0]], where), one_line(flat[names[1]], where)


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    """The values of a JSON file, each with where it was: one array (read at once), or a value a line."""
    lines = enumerate(read_lines(path), 1)
    head = next((one for one in lines if one[1].strip()), (1, ""))
    if head[1].lstrip().startswith("["):
        content = _value("\n".join(line for _, line in chain([head], lines)), path, head[0])
        yield from ((f"{path}: record {number}", record) for number, record in enumerate(content, 1))
        return
    for number, line in chain([head], lines):
        if line.strip():
            yield f"{path}: line {number}", _value(line, path, number)


_WANTED = "an object a line is wanted, or one array of objects"


def _value(text: str, path: Path, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: line {line + error.lineno - 1}: not JSON: {error.msg}: {_WANTED}") from None
    except RecursionError:
        raise DataError(f"{path}: line {line}: too deeply nested") from None
    except ValueError:
        raise DataError(f"{path}: line {line}: a number of thousands of digits") from None


def _parquet(path: Path, languages: Pair, columns: Pair | None) -> Iterator[Pair]:
    import pyarrow
    from pyarrow import parquet

    with _opened(path) as stream:
        try:
            file = parquet.ParquetFile(stream)
            present = file.schema_arrow.empty_table().flatten().column_names
            names = pick(present, languages, columns, str(path))
            tables = (pyarrow.Table.from_batches([batch]) for batch in file.iter_batches(columns=list(names)))
            yield from table_pairs(tables, names, str(path))
        except (pyarrow.ArrowException, UnicodeDecodeError) as error:
            raise DataError(f"{path}: not Parquet, or damaged: {error}") from None


def _tmx(path: Path, languages: Pair, columns: Pair | None) -> Iterator[Pair]:
    """Translation units with both languages; `en` stands also for `en-US`, an exact match goes first."""
    found: set[str] = set()
    matched = False
    try:
        with _opened(path) as stream:
            for number, unit in enumerate(_units(stream), 1):
                sides = _sides(unit)
                found.update(sides)
                source, target = (_side(sides, language) for language in languages)
                if source is not None and target is not None:
                    matched = True
                    yield one_line(source, f"{path}: unit {number}"), one_line(target, f"{path}: unit {number}")
    except ElementTree.ParseError as error:
        raise DataError(f"{path}: line {error.position[0]}: not XML: {error}") from None
    except (ValueError, LookupError) as error:
        raise DataError(f"{path}: not XML: {error}") from None
    if found and not matched:
        raise DataError(
            f"{path}: no unit with both '{languages[0]}' and '{languages[1]}', only {', '.join(sorted(found))}"
        )


def _units(stream: IO[bytes]) -> Iterator[ElementTree.Element]:
    """The `tu` elements, one at a time: what was read is dropped, so that a file of any size passes through."""
    body: ElementTree.Element | None = None
    for event, element in ElementTree.iterparse(stream, events=("start", "end")):
        if event == "start" and _tag(element) == "body":
            body = element
        elif event == "end" and _tag(element) == "tu":
            yield element
            if body is not None:
                body.clear()


def _sides(unit: ElementTree.Element) -> dict[str, str]:
    """The text of a unit by language, written like `en-us`; the first of each language counts."""
    sides: dict[str, str] = {}
    for variant in unit:
        language = variant.get(_LANGUAGE) or variant.get("lang")  # TMX 1.4, 1.1
        if _tag(variant) == "tuv" and language:
            text = "".join(_words(part) for part in variant if _tag(part) == "seg")
            sides.setdefault(language.lower().replace("_", "-"), text)
    return sides


def _side(sides: dict[str, str], language: str) -> str | None:
    wanted = language.lower().replace("_", "-")
    if wanted in sides:
        return sides[wanted]
    return next((text for name, text in sides.items() if name.startswith(f"{wanted}-")), None)


def _words(segment: ElementTree.Element) -> str:
    text = segment.text or ""
    for part in segment:
        text += ("" if _tag(part) in _CODES else _words(part)) + (part.tail or "")
    return text


def _tag(element: ElementTree.Element) -> str:
    # comments and processing instructions have a function for a tag
    return element.tag.rpartition("}")[2] if isinstance(cast(object, element.tag), str) else ""


Reader = Callable[[Path, Pair, Pair | None], Iterator[Pair]]
READERS: dict[str, Reader] = {
    ".tsv": _table,
    ".csv": _table,
    ".jsonl": _json,
    ".json": _json,
    ".parquet": _parquet,
    ".tmx": _tmx,
}
