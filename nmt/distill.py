"""A corpus to teach a student with: a translator's training pairs, and beside each the translator's own translation.

A student of a large model's beam, or of an ensemble's, says greedily nearly what that says with its beam: a model's
translations are more regular than people's (Kim and Rush 2016, section 3.2). People's stay beside them (Freitag et al.
2017, section 3).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
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
PLAIN = ("hub=null", "hub_config=null", "generator=null", "columns=null", "hold_out=0")
SPLITS = ("train", "valid", "test")


def distill(teacher: Translator, out: Path) -> int:
    """Write the teacher's corpus with its own translations into the new folder `out`, and a recipe to train on it.

    How many of its translations differ from the given ones and were added. Raises CallError where `out` is there,
    DataError where the teacher's corpus is not.
    """
    if out.exists():
        raise CallError(f"{out} exists: choose another folder with --out, or remove it")
    data = teacher.recipe.data
    languages = (data.source, data.target)
    train = load_split(data, "train")
    lines = _write(out, "train", languages, _taught(teacher, train))
    for split in ("valid", "test"):
        with contextlib.suppress(MissingSplitError):
            pairs = load_split(data, split)
            _write(out, split, languages, zip(pairs.source, pairs.target, strict=True))
    files = [f"data.path={out.resolve()}", *(f"data.{one}" for one in PLAIN), *(f"data.{one}={one}" for one in SPLITS)]
    student = changed(teacher.recipe, [*files, "training.init_from=null", f"name={teacher.recipe.name}-student"])
    checkpoint.write_text(out / RECIPE, dump(student))
    return lines - len(train)


def _taught(teacher: Translator, train: Corpus) -> Iterator[Pair]:
    """The pairs, each followed by the teacher's translation where that is another."""
    with Bar("translating", len(train)) as bar:
        translations = teacher.stream(train.source)
        for number, (source, target, own) in enumerate(zip(train.source, train.target, translations, strict=True), 1):
            yield source, target
            if own.text not in ("", target):
                yield source, own.text
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
