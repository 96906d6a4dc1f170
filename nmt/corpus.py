"""Parallel text: where a split lies, and its sentence pairs as memory-mapped Arrow through `datasets`.

    load("train", "en", "de", path="multi30k")   files in a folder (see `nmt.formats`), else a data set of the hub
    from_pairs(sources, targets, name)           text that is already there

A split is read and checked once, then kept under `$NMT_CACHE` (`~/.cache/nmt`) until a file of it changes in size or
time, so a corpus may be larger than memory. `datasets` is imported when it is needed, without telemetry; its progress
bars go to stderr, if that is a terminal and HF_DATASETS_DISABLE_PROGRESS_BARS is not set.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from nmt.errors import DataError
from nmt.formats import (
    PACKED,
    READERS,
    Pair,
    count_lines,
    decode_lines,
    kind,
    language_of,
    one_line,
    pick,
    read_lines,
    read_pairs,
    table_pairs,
)

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

__all__ = [
    "Corpus",
    "Lines",
    "MissingCorpusError",
    "MissingSplitError",
    "Overlap",
    "cache",
    "count_lines",
    "decode_lines",
    "digest",
    "from_pairs",
    "load",
    "locate",
    "mixed",
    "overlap",
    "quiet",
    "read_lines",
    "stored",
    "unwritten",
]

VERSION = 3  # raise it when the same files would give other pairs
ALSO = {"valid": ("validation", "dev")}  # other names of a split


class MissingCorpusError(DataError):
    """There is no corpus where the recipe says."""


class MissingSplitError(DataError):
    """The corpus is there, but not this split of it."""


class Lines(Sequence[str]):
    """A column of text, read where it lies."""

    def __init__(self, column: pyarrow.ChunkedArray) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __iter__(self) -> Iterator[str]:
        for chunk in self._column.chunks:
            yield from chunk.to_pylist()

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            lines: list[str] = self._column[index].to_pylist()
            return lines
        return str(self._column[index].as_py())


def digest(*sides: Iterable[str]) -> str:
    """The same for the same lines."""
    found = hashlib.sha256()
    for line in chain(*sides):
        found.update(f"{line}\n".encode())
    return found.hexdigest()[:32]


@dataclass(frozen=True)
class Corpus:
    """The pairs of a split: an Arrow data set with the columns `source` and `target`."""

    name: str  # for messages: the files, or the hub data set
    pairs: Dataset
    fingerprint: str  # the same as long as the pairs are

    @property
    def source(self) -> Lines:
        return Lines(self.pairs.data.column("source"))

    @property
    def target(self) -> Lines:
        return Lines(self.pairs.data.column("target"))

    @property
    def digest(self) -> str:
        """The same for the same text, wherever it lies and whenever it was written."""
        return digest(self.source, self.target)

    def __len__(self) -> int:
        return len(self.pairs)


@dataclass(frozen=True)
class Overlap:
    """How many of `total` pairs occur in the training set: by their source alone, and as a pair."""

    sources: int
    pairs: int
    total: int

    def __str__(self) -> str:
        return f"{self.total:,} pairs; the source of {self.sources:,} occurs in train, of {self.pairs:,} the whole pair"


def load(
    split: str | Sequence[str],
    source: str,
    target: str,
    path: str | None = None,
    hub: str | None = None,
    hub_config: str | None = None,
    columns: tuple[str, str] | None = None,
    key: str = "data.path",
    part: str | None = None,
) -> Corpus:
    """The pairs of one split, from the cache where nothing has changed.

    `path` is a folder, looked for as it is, under $NMT_DATA and under data/, an absolute one there by its last part, so
    that a run may move to another machine; `key` is what the recipe calls it. `split` is a stem in it (`train` for
    train.en and train.de, or train.tsv, ...), the name of one file, or two names, in it or where the command runs;
    `part` is what the recipe calls that, if it is not its name. A `path` that is a file is the split `train`, its
    neighbours the others. Where there is no such folder, `split` is one of the data set `hub`.
    Raises MissingCorpusError and MissingSplitError for what is not there, DataError for what is wrong.
    """
    found = _place(path) if path else None
    named = f"data.{part or split}" if key == "data.path" else key  # the key that names the split
    if found:
        files = _files(found, split, (source, target), named)
        stamp = _fingerprint(files, source, target, columns)
        return stored(partial(read_pairs, files, (source, target), columns), " and ".join(map(str, files)), stamp)
    if hub and isinstance(split, str):
        return _from_hub(hub, hub_config, split, (source, target), columns, named)
    if not path:
        raise DataError(f"data.path: name the folder where {split} is, or a hub data set in data.hub")
    raise _missing(path, key)


def locate(path: str, key: str | None = "data.path") -> Path:
    """Where the folder or file lies that `key` names, or a command where that is None. Raises MissingCorpusError."""
    found = _place(path)
    if found is None:
        raise _missing(path, key)
    return found


def _missing(path: str, key: str | None) -> MissingCorpusError:
    looked = f"no '{path}': looked for {', '.join(map(str, _places(path)))}"
    return MissingCorpusError(
        f"{key}: {looked}: put the corpus there, or set $NMT_DATA or {key}"
        if key
        else f"{looked}: name a file that is there"
    )


def from_pairs(source: Sequence[str], target: Sequence[str], name: str) -> Corpus:
    """A corpus of text in memory. Raises DataError for sides of different length and for what is not text."""
    if len(source) != len(target):
        raise DataError(f"{name}: {len(source):,} source and {len(target):,} target sentences: they must pair up")
    sides = {
        "source": [one_line(text, f"{name}: source {n}") for n, text in enumerate(source, 1)],
        "target": [one_line(text, f"{name}: target {n}") for n, text in enumerate(target, 1)],
    }
    quiet()
    from datasets import Dataset

    return Corpus(name, Dataset.from_dict(sides, features=_features()), digest(*sides.values()))


def mixed(train: Corpus, extra: Sequence[Corpus], times: int = 1, share: float | None = None) -> Corpus:
    """The pairs of `train`, or so many of them, drawn, for each extra one; behind them the extra ones, repeated."""
    parts = [train, *(part for _ in range(times) for part in extra)]
    wanted = len(train) if share is None else min(len(train), round(share * sum(map(len, parts[1:]))))
    stamp = hashlib.sha256(repr((VERSION, [part.fingerprint for part in parts], wanted)).encode()).hexdigest()[:32]
    return stored(partial(_mixed, parts, wanted), " and ".join(part.name for part in (train, *extra)), stamp)


def _mixed(parts: Sequence[Corpus], wanted: int) -> Iterator[Pair]:
    train, *extra = parts
    chosen = np.zeros(len(train), bool)
    chosen[np.random.default_rng(1).permutation(len(train))[:wanted]] = True
    yield from compress(zip(train.source, train.target, strict=True), chosen)
    for part in extra:
        yield from zip(part.source, part.target, strict=True)


def stored(pairs: Callable[[], Iterator[Pair]], name: str, fingerprint: str) -> Corpus:
    """The pairs as an Arrow file in the cache, under their fingerprint, written if it is not there yet."""
    quiet()
    from datasets import Dataset
    from datasets.exceptions import DatasetGenerationError

    made = False

    def rows() -> Iterator[dict[str, str]]:
        nonlocal made
        made = True
        for source, target in pairs():
            yield {"source": source, "target": target}

    folder = cache("pairs")
    for again in (False, True):
        try:
            kept = Dataset.from_generator(rows, _features(), cache_dir=str(folder), fingerprint=fingerprint)
            if made:
                on_disk(kept)
            elif kept.info.splits and kept.info.splits["train"].num_examples != len(kept):
                raise ValueError("cut short")  # where a batch ends, which is no error to Arrow
        except DatasetGenerationError as error:
            if isinstance(error.__cause__, DataError):
                raise error.__cause__ from None
            raise DataError(f"{name}: cannot be kept in {folder}: {error.__cause__}") from None
        except (OSError, ValueError) as error:
            if again:
                raise unwritten(folder, error) from None
            for damaged in folder.glob(f"generator/*{fingerprint}*"):  # by a power cut, say: it is made anew
                shutil.rmtree(damaged, ignore_errors=True)
        else:
            break
    return Corpus(name, kept, fingerprint)


def overlap(train: Corpus, other: Corpus) -> Overlap:
    """How much of a validation or test set was seen in training, exactly; `train` may be of any size."""
    sources = set(other.source).intersection(train.source)
    pairs = set(zip(other.source, other.target, strict=True)).intersection(zip(train.source, train.target, strict=True))
    return Overlap(
        sum(text in sources for text in other.source),
        sum(pair in pairs for pair in zip(other.source, other.target, strict=True)),
        len(other),
    )


def cache(part: str) -> Path:
    """A folder for what was read or tokenised, in $NMT_CACHE or ~/.cache/nmt. Raises DataError if it cannot be made."""
    folder = Path(os.path.expanduser(os.environ.get("NMT_CACHE") or "~/.cache/nmt")) / part
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made: {error.strerror}: set $NMT_CACHE to another folder") from None
    return folder


def on_disk(table: Dataset) -> None:
    """Wait until the files of a table are on the disk, so that a power cut cannot shorten them. Raises OSError."""
    for file in table.cache_files:
        with open(file["filename"], "r+b") as opened:
            os.fsync(opened.fileno())


def unwritten(folder: Path, error: Exception) -> DataError:
    """What to raise where a folder of `cache` cannot be written."""
    problem = (isinstance(error, OSError) and error.strerror) or error
    return DataError(f"{folder}: cannot be written: {problem}: set $NMT_CACHE to another folder")


def quiet() -> None:
    """Import `datasets` without telemetry or warnings, with progress bars for a terminal only."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import datasets

    datasets.logging.set_verbosity_error()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if not (sys.stderr and sys.stderr.isatty()) and "HF_DATASETS_DISABLE_PROGRESS_BARS" not in os.environ:
        datasets.disable_progress_bars()


def _places(path: str) -> list[Path]:
    """Where a corpus may lie, in the order of looking."""
    folders = [Path(), Path(os.environ["NMT_DATA"])] if os.environ.get("NMT_DATA") else [Path()]
    place = Path(os.path.expanduser(path))  # where there is no such user, as it stands
    by_name = [Path(place.name)] if place.is_absolute() else []
    found = [folder / one for one in [place, *by_name] for folder in [*folders, Path("data")]]
    return [one for one in dict.fromkeys(found) if one not in by_name]


def _place(path: str) -> Path | None:
    return next((place for place in _places(path) if os.path.exists(place)), None)


def _files(place: Path, split: str | Sequence[str], languages: Pair, key: str) -> list[Path]:
    """The file of a split, or the two of its sides, that `key` can name instead."""
    folder = place if os.path.isdir(place) else place.parent
    if not isinstance(split, str):
        if tuple(map(language_of, split)) == languages[::-1]:
            raise DataError(
                f"{split[0]} is read as {languages[0]}, {split[1]} as {languages[1]}, and their names say the "
                f"opposite: exchange them in {key}, or rename them"
            )
        return [_named(folder, name) for name in split]
    if kind(split) in READERS:
        return [_named(folder, split)]
    if folder != place and split == "train":
        return [place]
    for stem in (split, *ALSO.get(split, ())):
        source, target = (_packed(folder / f"{stem}.{language}") for language in languages)
        if source and target:
            return [source, target]
        if whole := [file for suffix in READERS if (file := _packed(folder / f"{stem}{suffix}"))]:
            return whole[:1]
        if source or target:
            other = languages[1 if source else 0]
            raise DataError(
                f"{source or target}: no {stem}.{other} beside it: both sides are needed: add it, or move this one "
                "to another folder"
            )
    raise MissingSplitError(
        f"{folder}: no split '{split}': looked for {split}.{languages[0]} and {split}.{languages[1]}, and for {split} "
        f"with one of {', '.join(READERS)} (also {', '.join(PACKED)}): put it there, or name its file in {key}"
        + _or_held_out(key)
    )


def _or_held_out(key: str) -> str:
    return "" if key in ("data.train", "data.extra") else ", or have it taken out of train: data.hold_out"


def _named(folder: Path, name: str) -> Path:
    """A file that the recipe names: in the corpus's folder, else where the command runs."""
    return Path(name) if os.path.exists(name) and not os.path.exists(folder / name) else folder / name


def _packed(file: Path) -> Path | None:
    names = (file.with_name(file.name + packed) for packed in ("", *PACKED))
    return next((name for name in names if os.path.exists(name)), None)


def _from_hub(hub: str, config: str | None, split: str, languages: Pair, columns: Pair | None, key: str) -> Corpus:
    table = _fetched(hub, config, split, key)
    name = f"hub data set '{hub}', split '{split}'"
    names = pick(table.data.slice(0, 0).flatten().column_names, languages, columns, name)
    batches = table.with_format("arrow").iter(batch_size=1000)
    # a slice lies in the file of the whole split
    stamp = _fingerprint([Path(file["filename"]) for file in table.cache_files], *names, hub, config, split)
    return stored(partial(table_pairs, batches, names, name), name, stamp)


def _fetched(hub: str, config: str | None, split: str, key: str) -> Any:
    """The split of a hub data set. It goes to $NMT_CACHE where that is set, else to the cache all of `datasets` use."""
    quiet()
    from datasets import load_dataset

    folder = str(cache("hub")) if os.environ.get("NMT_CACHE") else None
    for name in (split, *ALSO.get(split, ())):
        try:
            return load_dataset(hub, config, split=name, cache_dir=folder)
        except Exception as error:  # `datasets` lets through what each of its parts may raise
            if not (isinstance(error, ValueError) and "nknown split" in str(error)):
                raise MissingCorpusError(_refusal(hub, error)) from None
            available = str(error)
    raise MissingSplitError(f"hub data set '{hub}': {' '.join(available.split())}{_or_held_out(key)}")


def _refusal(hub: str, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    if "scripts are no longer supported" in reason:
        reason = f"it needs a loading script, which `datasets` no longer runs ({reason})"
    elif "config" in reason.lower() and isinstance(error, ValueError):
        return f"hub data set '{hub}': {reason}: set data.hub_config"
    elif isinstance(error, ConnectionError):
        reason = f"it cannot be reached ({reason})"
    return (
        f"hub data set '{hub}': {reason}: get the corpus as files and name their folder in data.path "
        "(absolute, or under $NMT_DATA or data/)"
    )


def _fingerprint(files: Iterable[Path], *options: object) -> str:
    """A hash of where files lie, how large they are, when they changed and how they are read."""
    facts: list[object] = [VERSION, *options]
    for file in files:
        try:
            status = file.stat()
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {error.strerror}") from None
        facts.append((os.path.realpath(file), status.st_size, status.st_mtime_ns))
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def _features() -> Any:
    from datasets import Features, Value

    return Features({"source": Value("string"), "target": Value("string")})
