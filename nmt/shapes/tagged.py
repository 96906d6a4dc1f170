"""Words and their tags: three files, line for line, or frames that are drawn. And what can be said without a net.

    train.src   The red dog .           what the words were translated from, where there is such
    train.mt    Der rote Katze .        words, a space between two
    train.tags  OK BAD BAD OK           a tag for each; or for each gap as well: gap, word, gap, ..., word, gap

Letters: T frames, n words, C tags.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from nmt import corpus
from nmt.corpus import locate, read_lines
from nmt.errors import DataError
from nmt.recipe import Field, Section, model_validator
from nmt.shapes import frames, scores


class TaggedData(Section):
    path: str | None = Field(None, description="folder with the files, from here, or under $NMT_DATA or data/")
    generator: Literal["frames"] | None = Field(None, description="sequences that nmt draws itself")
    train: str = Field("train", description="stem of the files of a split")
    valid: str = "valid"
    test: str = "test"
    text: str = Field("text", description="suffix of the lines whose words are tagged; a space ends a word")
    source: str | None = Field(None, description="suffix of the lines they were translated from; null: there are none")
    tags: str = Field("tags", description="suffix of the lines with their tags")
    gaps: bool = Field(False, description="tags are of gap, word, gap, ..., word, gap: those of the words are learnt")
    labels: tuple[str, ...] = Field(frames.KINDS, description="the tags there are", min_length=2)

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if bool(self.generator) == bool(self.path):
            raise ValueError("data needs a path or a generator, one of them: for instance `path: my-corpus`")
        if self.generator and (self.source or self.labels != frames.KINDS):
            raise ValueError("data.generator draws sequences and their tags: leave out data.source and data.labels")
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"data.labels names a tag twice: {', '.join(self.labels)}")
        return self


@dataclass(frozen=True)
class Example:
    """A row to tag: its words as they are written, or the numbers of its frames, and their tags where known."""

    words: Sequence[str]
    frames: NDArray[np.float32] | None
    source: str
    tags: Sequence[int]


def read(data: TaggedData, split: str) -> list[Example]:
    """A split of a recipe; rows without words are left out. Raises DataError with the file and the line."""
    if data.generator:
        return [Example(frames.cells(seen), seen, "", kinds) for seen, kinds in frames.draw(split)]
    assert data.path is not None
    stem = {"train": data.train, "valid": data.valid, "test": data.test}[split]
    folder = locate(data.path)
    names = [f"{stem}.{suffix}" for suffix in (data.text, data.tags, data.source) if suffix]
    texts, tags, *sources = (list(read_lines(folder / name)) for name in names)
    for name, found in zip(names[1:], (tags, *sources), strict=True):
        if len(found) != len(texts):
            raise DataError(
                f"{folder / name}: {len(found):,} lines, {names[0]} has {len(texts):,}: "
                "line by line they must belong together"
            )
    known = {label: number for number, label in enumerate(data.labels)}
    examples = []
    for number, (text, line) in enumerate(zip(texts, tags, strict=True)):
        words = words_of(text)
        ids = _tags(line.split(), len(words), known, data.gaps, f"{folder / names[1]}: line {number + 1}")
        if words:
            examples.append(Example(words, None, sources[0][number] if sources else "", ids))
    if not examples:
        raise DataError(f"{folder / names[0]}: no words in it")
    return examples


def words_of(line: str) -> list[str]:
    """What stands between spaces; one that does not break a line, as in a number, is a letter of a word."""
    return [word for word in line.replace("\t", " ").split(" ") if word]


def _tags(given: Sequence[str], words: int, known: dict[str, int], gaps: bool, where: str) -> list[int]:
    """The ids of the tags of a line."""
    wanted = 2 * words + 1 if gaps else words
    if len(given) != wanted:
        also = f", {wanted} with the gaps," if gaps else ""
        hint = "" if gaps or len(given) != 2 * words + 1 else "; for tags of gaps as well set data.gaps to true"
        raise DataError(f"{where}: {len(given)} tags for {words} words{also}: correct the line{hint}")
    for tag in given:
        if tag not in known:
            raise DataError(f"{where}: unknown tag '{tag}': data.labels has {', '.join(known)}")
    return [known[tag] for tag in (given[1::2] if gaps else given)]


def digest(examples: Iterable[Example]) -> str:
    """The same for the same words, sources and tags."""
    return corpus.digest(part for one in examples for part in (*one.words, one.source, str(one.tags)))


def gold(examples: Sequence[Example]) -> scores.Ids:
    """The tags of all words, one after the other."""
    return np.concatenate([np.asarray(one.tags, np.int64) for one in examples])


def baselines(data: TaggedData, test: Sequence[Example]) -> dict[str, dict[str, float]]:
    """Figures of the most frequent tag, and of the tags that a word, or a place of a frame, had in training."""
    train, valid = read(data, "train"), read(data, "valid")
    true, tags = gold(train), len(data.labels)
    prior = np.bincount(true, minlength=tags) / len(true)
    seen: dict[str, NDArray[np.float64]] = {}
    for word, tag in zip((word for one in train for word in one.words), true, strict=True):
        seen.setdefault(word, prior.copy())[tag] += 1

    def shares(examples: Sequence[Example]) -> scores.Shares:
        rows: scores.Shares = np.stack([seen.get(word, prior) for one in examples for word in one.words])
        return np.asarray(rows / rows.sum(1, keepdims=True))

    majority = np.full(len(gold(test)), int(prior.argmax()))
    at = scores.threshold(shares(valid), gold(valid))
    chosen = {
        f"always {data.labels[int(prior.argmax())]}": majority,
        "one frame alone" if data.generator else "one word alone": scores.choose(shares(test), at),
    }
    return {name: scores.figures(scores.confusion(gold(test), ids, tags), data.labels) for name, ids in chosen.items()}
