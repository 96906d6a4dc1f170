"""A corpus to teach a student with: a translator's training pairs, and beside each what models make of it.

    x, y      as people wrote them                                      (Freitag et al. 2017, section 3)
    x, f(x)   the teacher's translations, the K best of each source     (Kim and Rush 2016, section 3.2)
    b(y), y   sources that a model of the opposite direction wrote      (Sennrich et al. 2016; Nguyen et al. 2020)

A student of a large model's beam, or of an ensemble's, says greedily nearly what that says with its beam, since a
model's translations are more regular than people's; and the more ways there are to say a thing, the less it learns by
heart. What was made is kept as it comes, so that a stopped command goes on where it was.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, repeat, takewhile
from pathlib import Path
from typing import Any, BinaryIO

from nmt import checkpoint, disk
from nmt.corpus import Corpus, MissingSplitError
from nmt.errors import CallError, CheckpointError
from nmt.formats import Pair
from nmt.material import known, lineage, load_split
from nmt.progress import Bar
from nmt.recipe import Data, Recipe, changed, dump, setting
from nmt.run import translator
from nmt.translate import Translator

RECIPE = "student.yaml"
MADE = "made.jsonl"  # by whom, then for each pair: source, target, translations of the source, of the target
# what the teacher's recipe says of its files, which are now plain ones in one folder
PLAIN = (
    "data.hub=null",
    "data.hub_config=null",
    "data.generator=null",
    "data.columns=null",
    "data.hold_out=0",
    "data.extra=[]",
    "data.extra_times=1",
    "data.known=[]",
    "data.mix=null",
)
OWN = ("training.init_from=null", "training.teacher=null")  # what the teacher learnt from
SPLITS = ("train", "valid", "test")


def distill(system: str, out: Path, reverse: str | None = None, nbest: int = 1, changes: Sequence[str] = ()) -> int:
    """Write the corpus of a teacher with its own translations into the folder `out`, and a recipe to train on it.

    The teacher searches with these `changes`, but looks nowhere at what it has read. `reverse` translates the targets
    into further sources; `nbest` of each are taken. How many pairs were added, which are those that differ from the
    given ones. What was stopped goes on when it is asked for again. Raises CallError where `out` has something else in
    it or `reverse` is of other languages, DataError where the teacher's corpus is not there, CheckpointError on a full
    disk.
    """
    alone = ["search.examples=0"]
    teacher = translator(system, [*changes, *alone])
    back = translator(reverse, alone) if reverse else None
    journal = out / MADE
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not journal.is_file()):
        raise CallError(f"{out} exists: choose another folder with --out, or remove it")
    data = known(teacher.recipe)
    languages = (data.source, data.target)
    if back and (back.recipe.data.target, back.recipe.data.source) != languages:
        other = back.recipe.data
        raise CallError(
            f"--back translates {other.source} to {other.target}, which is not the opposite of {' to '.join(languages)}"
        )
    student = _student(checkpoint.read(checkpoint.split(system)[0]).recipe, out)
    others = dict(_splits(data))
    train = others.pop("train")
    with disk.locked(out):
        disk.clean(out)
        _make(journal, teacher, train, back, nbest)
        lines = _write(out, "train", languages, _pairs(journal))
        for split, pairs in others.items():
            _write(out, split, languages, zip(pairs.source, pairs.target, strict=True))
        disk.write_text(out / RECIPE, dump(student))
        journal.unlink()
    return lines - len(train)


def _student(recipe: Recipe, out: Path) -> Recipe:
    """The recipe that made the teacher, for the files in `out`; where it was tuned, the one that it had before."""
    name = f"{recipe.name}-student"
    try:
        *_, recipe = lineage(recipe)
    except CheckpointError as error:
        raise CheckpointError(f"the student is trained as the teacher was before it was tuned, but {error}") from None
    own = {"name": name, "data.path": str(out.resolve()), **{f"data.{split}": split for split in SPLITS}}
    return changed(recipe, [*PLAIN, *OWN, *(setting(key, value) for key, value in own.items())])


def _splits(data: Data) -> Iterator[tuple[str, Corpus]]:
    """The parts of the teacher's corpus that there are; there is always a train."""
    yield "train", load_split(data, "train")
    for split in SPLITS[1:]:
        with contextlib.suppress(MissingSplitError):
            yield split, load_split(data, split)


def _make(journal: Path, teacher: Translator, train: Corpus, back: Translator | None, nbest: int) -> None:
    """Add to the journal what models make of the pairs that it does not have yet."""
    models = [one for one in (teacher, teacher.back, back) if one]
    asked = {
        "models": [[member.stamp for member in one.members] for one in models],
        "search": [one.settings.model_dump(mode="json") for one in models],
        "nbest": nbest,
    }
    try:
        with open(journal, "a+b") as file, Bar("translating", len(train)) as bar:
            done = _done(file, asked, train)
            forth = _made(teacher, islice(train.source, done, None), nbest)
            sources = _made(back, islice(train.target, done, None), nbest) if back else repeat([], len(train) - done)
            for own, others in zip(forth, sources, strict=True):
                row = _line([train.source[done], train.target[done], own, others])
                file.write(row if done else _line(asked) + row)
                file.flush()
                done += 1
                bar.update(done)
    except OSError as error:
        raise CheckpointError(f"{journal}: cannot be written: {error.strerror}: run it again to go on") from None
    finally:
        with contextlib.suppress(OSError):
            if not journal.stat().st_size:  # what cannot begin leaves nothing behind
                journal.unlink()


def _done(file: BinaryIO, asked: dict[str, Any], train: Corpus) -> int:
    """How many pairs the journal has, of the same models, settings and data; a line cut short is taken out."""
    file.seek(0)
    lines = takewhile(lambda line: line.endswith(b"\n"), file)
    first = next(lines, b"")
    if first not in (b"", _line(asked)):
        raise CallError(f"{file.name} was begun with other models or settings: use these, or choose another --out")
    count, end = 0, len(first)
    for line in lines:
        if count == len(train) or json.loads(line)[:2] != [train.source[count], train.target[count]]:
            raise CallError(
                f"{file.name} was begun with other pairs than the teacher's corpus has: choose another --out"
            )
        count, end = count + 1, end + len(line)
    file.truncate(end if count else 0)
    return count


def _line(row: object) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _pairs(journal: Path) -> Iterator[Pair]:
    """The pairs, each followed by what models make of it where that is another."""
    with open(journal, "rb") as file:
        next(file)
        for source, target, own, others in map(json.loads, file):
            yield source, target
            yield from ((source, one) for one in own if one not in ("", target))
            yield from ((one, target) for one in others if one not in ("", source))


def _made(translator: Translator, lines: Iterable[str], nbest: int) -> Iterator[list[str]]:
    """The different ones among the `nbest` translations of each line, the best first."""
    for best in translator.stream(lines, nbest):
        yield list(dict.fromkeys(one.text for one in (best, *best.alternatives)))


def _write(out: Path, split: str, languages: Pair, pairs: Iterable[Pair]) -> int:
    """Write two aligned files, both of them or none; their lines."""
    count = 0
    with contextlib.ExitStack() as stack:
        places = [stack.enter_context(disk.replacing(out / f"{split}.{language}")) for language in languages]
        files = [stack.enter_context(open(place, "w", encoding="utf-8", newline="\n")) for place in places]
        for pair in pairs:
            count += 1
            for file, line in zip(files, pair, strict=True):
                file.write(line + "\n")
    return count
