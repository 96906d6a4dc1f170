"""A corpus to teach a student with: a translator's training pairs, and beside each what models make of it.

    x, y      as people wrote them                                      (Freitag et al. 2017, section 3)
    x, f(x)   the teacher's translation                                 (Kim and Rush 2016, section 3.2)
    b(y), y   a source that a model of the opposite direction wrote     (Sennrich et al. 2016; Nguyen et al. 2020)

A student of a large model's beam, or of an ensemble's, says greedily nearly what that says with its beam, since a
model's translations are more regular than people's; and the more ways there are to say a thing, the less it learns by
heart.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from itertools import repeat
from pathlib import Path

from nmt import checkpoint
from nmt.corpus import Corpus, MissingSplitError
from nmt.errors import CallError
from nmt.formats import Pair
from nmt.material import load_split
from nmt.progress import Bar
from nmt.recipe import changed, dump
from nmt.translate import Translator

RECIPE = "student.yaml"
# what the teacher's recipe says of its files, which are now plain ones in one folder
PLAIN = (
    "hub=null",
    "hub_config=null",
    "generator=null",
    "columns=null",
    "hold_out=0",
    "extra=[]",
    "extra_times=1",
    "mix=null",
)
SPLITS = ("train", "valid", "test")


def distill(teacher: Translator, out: Path, back: Translator | None = None) -> int:
    """Write the teacher's corpus with its own translations into the new folder `out`, and a recipe to train on it.

    `back` translates the targets into further sources. How many pairs were added, which are those that differ from the
    given ones. Raises CallError where `out` is there or `back` is of other languages, DataError where the teacher's
    corpus is not there.
    """
    if out.exists():
        raise CallError(f"{out} exists: choose another folder with --out, or remove it")
    data = teacher.recipe.data
    languages = (data.source, data.target)
    if back and (back.recipe.data.target, back.recipe.data.source) != languages:
        other = back.recipe.data
        raise CallError(
            f"--back translates {other.source} to {other.target}, which is not the opposite of {' to '.join(languages)}"
        )
    train = load_split(data, "train")
    lines = _write(out, "train", languages, _taught(teacher, train, back))
    for split in ("valid", "test"):
        with contextlib.suppress(MissingSplitError):
            pairs = load_split(data, split)
            _write(out, split, languages, zip(pairs.source, pairs.target, strict=True))
    files = [f"data.path={out.resolve()}", *(f"data.{one}" for one in PLAIN), *(f"data.{one}={one}" for one in SPLITS)]
    student = changed(teacher.recipe, [*files, "training.init_from=null", f"name={teacher.recipe.name}-student"])
    checkpoint.write_text(out / RECIPE, dump(student))
    return lines - len(train)


def _taught(teacher: Translator, train: Corpus, back: Translator | None) -> Iterator[Pair]:
    """The pairs, each followed by what models make of it where that is another."""
    with Bar("translating", len(train)) as bar:
        forth = (one.text for one in teacher.stream(train.source))
        sources = (one.text for one in back.stream(train.target)) if back else repeat("", len(train))
        for number, made in enumerate(zip(train.source, train.target, forth, sources, strict=True), 1):
            source, target, own, other = made
            yield source, target
            if own not in ("", target):
                yield source, own
            if other not in ("", source):
                yield other, target
            bar.update(number)


def _write(out: Path, split: str, languages: Pair, pairs: Iterable[Pair]) -> int:
    """Write two aligned files, both of them or none; their lines."""
    count = 0
    with contextlib.ExitStack() as stack:
        places = [stack.enter_context(checkpoint.replacing(out / f"{split}.{language}")) for language in languages]
        files = [stack.enter_context(open(place, "w", encoding="utf-8", newline="\n")) for place in places]
        for pair in pairs:
            count += 1
            for file, line in zip(files, pair, strict=True):
                file.write(line + "\n")
    return count
