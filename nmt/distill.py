"""A corpus to teach a student with: a translator's training pairs, and beside each what models make of it.

    x, y      as people wrote them                                      (Freitag et al. 2017, section 3)
    x, f(x)   the teacher's translations, the K best of each source     (Kim and Rush 2016, section 3.2)
    b(y), y   sources that a model of the opposite direction wrote      (Sennrich et al. 2016; Nguyen et al. 2020)

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
OWN = ("training.init_from=null", "training.teacher=null")  # what the teacher learnt from
SPLITS = ("train", "valid", "test")


def distill(teacher: Translator, out: Path, back: Translator | None = None, nbest: int = 1) -> int:
    """Write the teacher's corpus with its own translations into the new folder `out`, and a recipe to train on it.

    `back` translates the targets into further sources; `nbest` of each are taken. How many pairs were added, which are
    those that differ from the given ones. Raises CallError where `out` has something in it or `back` is of other
    languages, DataError where the teacher's corpus is not there.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise CallError(f"{out} exists: choose another folder with --out, or remove it")
    data = teacher.recipe.data
    languages = (data.source, data.target)
    if back and (back.recipe.data.target, back.recipe.data.source) != languages:
        other = back.recipe.data
        raise CallError(
            f"--back translates {other.source} to {other.target}, which is not the opposite of {' to '.join(languages)}"
        )
    train = load_split(data, "train")
    lines = _write(out, "train", languages, _taught(teacher, train, back, nbest))
    for split in ("valid", "test"):
        with contextlib.suppress(MissingSplitError):
            pairs = load_split(data, split)
            _write(out, split, languages, zip(pairs.source, pairs.target, strict=True))
    files = [f"data.path={out.resolve()}", *(f"data.{one}" for one in PLAIN), *(f"data.{one}={one}" for one in SPLITS)]
    student = changed(teacher.recipe, [*files, *OWN, f"name={teacher.recipe.name}-student"])
    checkpoint.write_text(out / RECIPE, dump(student))
    return lines - len(train)


def _taught(teacher: Translator, train: Corpus, back: Translator | None, nbest: int) -> Iterator[Pair]:
    """The pairs, each followed by what models make of it where that is another."""
    with Bar("translating", len(train)) as bar:
        forth = _made(teacher, train.source, nbest)
        sources = _made(back, train.target, nbest) if back else repeat([], len(train))
        for number, made in enumerate(zip(train.source, train.target, forth, sources, strict=True), 1):
            source, target, own, others = made
            yield source, target
            yield from ((source, one) for one in own if one not in ("", target))
            yield from ((one, target) for one in others if one not in ("", source))
            bar.update(number)


def _made(translator: Translator, lines: Iterable[str], nbest: int) -> Iterator[list[str]]:
    """The different ones among the `nbest` translations of each line, the best first."""
    for best in translator.stream(lines, nbest):
        yield list(dict.fromkeys(one.text for one in (best, *best.alternatives)))


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
