"""From sentence pairs to batches: tokenise once, leave out what would not teach, group by length, pad.

    prepare(corpus, ...) -> TrainingSet, Filtered       tokenised by all cores and filtered, both kept
    Batches(lengths, ...).plan(epoch)                   rows of each batch, from (seed, epoch) alone
    TrainingSet.batch(rows) -> Batch                    tensors

The ids stay in memory-mapped Arrow columns and are read without a copy. A batch costs its rows times its wider side,
<eos> and padding counted, and costs no more than `batch_tokens` unless it is one pair. A run stopped after n batches
of an epoch goes on with `plan(epoch)[n:]`.

Letters: B batch, S source length, T target length.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from nmt.corpus import Corpus, cache, on_disk, unwritten
from nmt.disk import clean, stale, whole
from nmt.errors import DataError
from nmt.tokenizer import BOS, EOS, PAD, Tokenizer

if TYPE_CHECKING:
    import pyarrow
    import torch

Array = NDArray[np.integer[Any]]
Rows = Sequence[Sequence[int] | Array]

VERSION = 1  # raise it when the same pairs would give other ids or other rows
SHORT = 10  # pieces; pairs with no longer side may have any ratio
AT_ONCE = 1_000  # rows that are looked up at once
JITTER = 0.25  # share of pairs that an epoch sorts as if they were a piece longer
# sides are padded in steps (limit, step), long ones in longer, and batches cut to a multiple of ROWS: a CPU's library
# makes kernels for each shape it meets, which takes longer than to run them, and freed memory then fits the next batch
STEPS, ROWS = ((24, 2), (48, 4), (np.inf, 8)), 8


@dataclass(frozen=True)
class Filtered:
    """How many pairs there were, and how many were left out for each reason; the first that holds counts."""

    total: int
    empty: int = 0  # a side has no words
    identical: int = 0  # both sides are the same
    duplicate: int = 0  # the same pair came before
    long: int = 0  # a side has more than max_length pieces
    ratio: int = 0  # one side has more than max_ratio times the pieces of the other

    @property
    def reasons(self) -> dict[str, int]:
        return {name: count for name, count in asdict(self).items() if name != "total"}

    @property
    def kept(self) -> int:
        return self.total - sum(self.reasons.values())

    def __str__(self) -> str:
        reasons = ", ".join(f"{count:,} {name}" for name, count in self.reasons.items() if count)
        return f"{self.kept:,} of {self.total:,} pairs kept" + (f", left out: {reasons}" if reasons else "")


@dataclass(frozen=True)
class Batch:
    """Padded tensors of ids, int64: target_in is <bos> y, target_out is y <eos>."""

    source: torch.Tensor  # (B, S), ending with <eos>
    source_lengths: torch.Tensor  # (B,), <eos> counted
    target_in: torch.Tensor  # (B, T)
    target_out: torch.Tensor  # (B, T)
    alignment: torch.Tensor | None = None  # (B, T, S), which source piece each target piece comes from, if wanted

    def to(self, device: torch.device | str) -> Batch:
        return Batch(**{name: part.to(device) for name, part in vars(self).items() if part is not None})


class Ragged:
    """Rows of ids of unequal length, in an Arrow column of lists."""

    def __init__(self, column: pyarrow.ChunkedArray) -> None:
        chunks = [chunk for chunk in column.chunks if len(chunk)]
        self._offsets = [chunk.offsets.to_numpy() for chunk in chunks]
        self._values = [chunk.values.to_numpy() for chunk in chunks]  # views of the mapped file
        self._starts = np.cumsum([0, *map(len, chunks)])
        self.lengths: Array = np.concatenate([np.diff(offsets).astype(np.int32) for offsets in self._offsets])

    def take(self, rows: Array) -> list[Array]:
        chunks = np.searchsorted(self._starts, rows, side="right") - 1
        inside = rows - self._starts[chunks]
        return [
            self._values[chunk][self._offsets[chunk][row] : self._offsets[chunk][row + 1]]
            for chunk, row in zip(chunks.tolist(), inside.tolist(), strict=True)
        ]


class TrainingSet:
    """Tokenised pairs, those of `rows` of a corpus."""

    def __init__(self, tokenizers: tuple[Tokenizer, Tokenizer], ids: tuple[Ragged, Ragged], rows: Array) -> None:
        self._tokenizers = tokenizers
        self._source, self._target = ids
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def source_lengths(self) -> Array:
        """The pieces of each source, <eos> counted."""
        return self._source.lengths[self.rows] + 1

    @property
    def target_lengths(self) -> Array:
        """The pieces of each target, <eos> counted."""
        return self._target.lengths[self.rows] + 1

    def pairs(self) -> Iterator[tuple[Array, Array]]:
        """The ids of all pairs, from all over the corpus in turn."""
        order = np.random.default_rng(0).permutation(self.rows)
        for start in range(0, len(order), AT_ONCE):
            rows = order[start : start + AT_ONCE]
            yield from zip(self._source.take(rows), self._target.take(rows), strict=True)

    def batch(self, indices: Sequence[int] | Array) -> Batch:
        rows = self.rows[indices]
        return collate(self._source.take(rows), self._target.take(rows))

    def sampled(self, indices: Sequence[int] | Array, seed: int, amount: float) -> Batch:
        """The batch with other segmentations of its text, drawn with `seed` (see `Tokenizer.resample`)."""
        rows = self.rows[indices]
        source, target = (
            tokenizer.resample(ids.take(rows), amount, seed + side)
            for side, (tokenizer, ids) in enumerate(zip(self._tokenizers, (self._source, self._target), strict=True))
        )
        return collate(source, target)


def by_length(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Places grouped by length, longest first, at most so many together, padding counted, or one."""
    group: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        if group and (len(group) + 1) * lengths[group[0]] > most:
            yield group
            group = []
        group.append(place)
    if group:
        yield group


class Batches:
    """Which rows make a batch, in an order that depends on the seed and the epoch alone.

    `source_lengths` and `target_lengths` count <eos>. Every row is in exactly one batch of an epoch.
    """

    def __init__(self, source_lengths: Array, target_lengths: Array, batch_tokens: int, seed: int = 1) -> None:
        self._source = source_lengths
        self._target = target_lengths
        self._longest = np.maximum(source_lengths, target_lengths)
        self._budget = batch_tokens
        self._seed = seed
        self._planned: tuple[int, list[Array]] | None = None

    def plan(self, epoch: int) -> list[Array]:
        """The batches of an epoch, shuffled; within each the rows have about the same lengths on both sides."""
        if self._planned is None or self._planned[0] != epoch:
            self._planned = epoch, self._plan(epoch)
        return self._planned[1]

    def padding(self, epoch: int) -> float:
        """The share of padding in the source and target tensors of an epoch."""
        plan = self.plan(epoch)
        padded = sum(len(rows) * (_width(self._source[rows]) + _width(self._target[rows])) for rows in plan)
        return 1 - int(self._source.sum() + self._target.sum()) / padded if padded else 0.0

    def _plan(self, epoch: int) -> list[Array]:
        random = np.random.default_rng([self._seed, epoch])
        size = len(self._longest)
        widths = _stepped(self._longest + (random.random(size) < JITTER))
        _, bucket = np.unique(widths, return_inverse=True)
        # up and down by turns, so that neighbours across two buckets are alike as well
        turned = np.where(bucket % 2, self._source - self._target, self._target - self._source)
        batches = self._cut(np.lexsort((random.random(size), turned, bucket)))
        return [batches[i] for i in random.permutation(len(batches))]

    def _cut(self, order: Array) -> list[Array]:
        """Consecutive rows of `order`, about as many as the budget allows and at least one."""
        lengths = _stepped(self._longest[order])
        batches: list[Array] = []
        start = 0
        while start < len(order):
            longest = np.maximum.accumulate(lengths[start : start + max(1, self._budget // int(lengths[start]))])
            cost = longest * np.arange(1, len(longest) + 1)  # grows with each row
            rows = max(1, int(np.searchsorted(cost, self._budget, side="right")))
            rows -= rows % ROWS if rows > 2 * ROWS else 0
            batches.append(order[start : start + rows])
            start += rows
        return batches


def _stepped(lengths: Array) -> Array:
    """Lengths rounded up to what they are padded to."""
    step: Array = np.select([lengths <= limit for limit, _ in STEPS], [step for _, step in STEPS])
    stepped: Array = -(-lengths // step) * step
    return stepped


def _width(lengths: Array) -> int:
    """The width of the tensor that holds rows of these lengths."""
    return int(_stepped(lengths).max())


def prepare(
    corpus: Corpus,
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    max_length: int = 128,
    max_ratio: float = 4.0,
    drop_duplicates: bool = True,
    drop_identical: bool = True,
) -> tuple[TrainingSet, Filtered]:
    """The pairs of a training corpus worth learning from, tokenised; both steps come from the cache if done before.

    Raises DataError when no pair is left.
    """
    ids = _tokenised(corpus, source_tokenizer, target_tokenizer)
    rules = (max_length, max_ratio, drop_duplicates, drop_identical)
    key = _key(corpus.fingerprint, source_tokenizer.fingerprint, target_tokenizer.fingerprint, *rules)
    file = cache("rows") / f"{key}.npz"
    try:
        with open(file, "rb") as stream, np.load(stream) as content:
            rows, filtered = content["rows"], Filtered(*content["filtered"].tolist())
    except (OSError, EOFError, ValueError, KeyError, BadZipFile):  # not there yet, or damaged
        rows, filtered = _filter(corpus, ids[0].lengths, ids[1].lengths, *rules)
        clean(file.parent)
        try:
            with whole(file) as temporary, open(temporary, "wb") as out:
                np.savez(out, rows=rows, filtered=np.array(list(asdict(filtered).values())))
        except OSError as error:
            raise unwritten(file.parent, error) from None
    if not filtered.kept:
        raise DataError(f"{corpus.name}: {filtered}: correct the corpus or relax data.max_length and its neighbours")
    return TrainingSet((source_tokenizer, target_tokenizer), ids, rows), filtered


def collate(source: Rows, target: Rows) -> Batch:
    """A batch of ids without special ones; a side may be empty."""
    import torch

    lengths = np.fromiter(map(len, source), np.int64, len(source))
    ends = np.fromiter(map(len, target), np.int64, len(target))
    memory = _filled(source, _width(lengths + 1))  # (B, S)
    memory[np.arange(len(source)), lengths] = EOS
    given = _filled(target, _width(ends + 1), first=BOS)  # (B, T)
    wanted = np.full_like(given, PAD)
    wanted[:, :-1] = given[:, 1:]
    wanted[np.arange(len(target)), ends] = EOS
    return Batch(
        source=torch.from_numpy(memory),
        source_lengths=torch.from_numpy(lengths + 1),
        target_in=torch.from_numpy(given),
        target_out=torch.from_numpy(wanted),
    )


def pad(rows: Rows) -> torch.Tensor:
    """Rows of ids as one tensor (B, longest), filled up with <pad>."""
    import torch

    return torch.from_numpy(_filled(rows, max(map(len, rows), default=0)))


def histogram(lengths: Array, width: int = 10) -> list[tuple[int, int, int]]:
    """How many lengths lie from ... to ..., in bins of `width`, empty ones between included."""
    counts = np.bincount(lengths // width)
    first = int(np.argmax(counts > 0)) if len(counts) else 0
    return [(i * width, i * width + width - 1, int(counts[i])) for i in range(first, len(counts))]


def _filled(rows: Rows, width: int, first: int | None = None) -> Array:
    """The rows as a matrix (B, width), each after `first` if there is one."""
    matrix = np.full((len(rows), width), PAD, np.int64)
    start = 0
    if first is not None:
        matrix[:, 0] = first
        start = 1
    for row, ids in enumerate(rows):
        matrix[row, start : start + len(ids)] = ids
    return matrix


def _key(*parts: object) -> str:
    return hashlib.sha256(repr((VERSION, *parts)).encode()).hexdigest()[:32]


def _ids(batch: dict[str, list[str]], source: Tokenizer, target: Tokenizer, threads: int) -> dict[str, list[list[int]]]:
    return {
        "source_ids": source.encode(batch["source"], threads),
        "target_ids": target.encode(batch["target"], threads),
    }


def _tokenised(corpus: Corpus, source: Tokenizer, target: Tokenizer) -> tuple[Ragged, Ragged]:
    """The ids of all pairs, in the order of the corpus, from the cache or by all cores."""
    from datasets import Features, List, Value
    from pyarrow import ArrowInvalid

    from nmt.hardware import cores  # which loads torch

    key, folder = _key(corpus.fingerprint, source.fingerprint, target.fingerprint), cache("ids")

    def mapped(cached: bool) -> Any:
        return corpus.pairs.map(
            partial(_ids, source=source, target=target, threads=cores()),
            batched=True,
            remove_columns=["source", "target"],
            features=Features({"source_ids": List(Value("int32")), "target_ids": List(Value("int32"))}),
            cache_file_name=str(folder / f"{key}.arrow"),
            load_from_cache_file=cached,
            new_fingerprint=key,
            desc="Tokenising",
        )

    _tidy(folder)
    try:
        made = not (folder / f"{key}.arrow").is_file()
        try:
            table = mapped(cached=True)
            if len(table) != len(corpus):
                raise ArrowInvalid("cut short")  # where a batch ends, which is no error to Arrow
        except (ArrowInvalid, OSError):  # damaged, or the disk is full, which is told the second time
            made, table = True, mapped(cached=False)
        if made:
            on_disk(table)
    except OSError as error:
        raise unwritten(folder, error) from None
    return Ragged(table.data.column("source_ids")), Ragged(table.data.column("target_ids"))


def _tidy(folder: Path) -> None:
    """Remove what `datasets` left half written where it was killed, a day ago or before."""
    for unfinished in folder.glob("tmp*"):
        with contextlib.suppress(OSError):
            if stale(unfinished):
                unfinished.unlink()


def _filter(
    corpus: Corpus,
    source_lengths: Array,
    target_lengths: Array,
    max_length: int,
    max_ratio: float,
    drop_duplicates: bool,
    drop_identical: bool,
) -> tuple[Array, Filtered]:
    """The rows to keep, and why the others are left out."""
    size = len(corpus)
    shorter, longer = np.minimum(source_lengths, target_lengths), np.maximum(source_lengths, target_lengths)

    def rows_where(test: Callable[[str, str], bool]) -> NDArray[np.bool_]:
        return np.fromiter(map(test, corpus.source, corpus.target), bool, size)

    nothing = np.zeros(size, bool)
    found = {
        "empty": (shorter == 0) | rows_where(lambda source, target: not (source.strip() and target.strip())),
        "identical": rows_where(lambda source, target: source == target) if drop_identical else nothing,
        "duplicate": _repeated(corpus) if drop_duplicates else nothing,
        "long": longer > max_length,
        "ratio": (longer > max_ratio * shorter) & (longer > SHORT),
    }
    kept = np.ones(size, bool)
    counts = {}
    for reason, rows in found.items():
        counts[reason] = int((kept & rows).sum())
        kept &= ~rows
    return np.flatnonzero(kept), Filtered(size, **counts)


def _repeated(corpus: Corpus) -> NDArray[np.bool_]:
    """Which pairs came before, by hashes of 64 bits: 8 bytes a pair, whatever its length."""
    hashes = np.fromiter(map(hash, zip(corpus.source, corpus.target, strict=True)), np.int64, len(corpus))
    repeated = np.ones(len(corpus), bool)
    repeated[np.unique(hashes, return_index=True)[1]] = False
    return repeated
