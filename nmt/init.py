"""A recipe for a corpus: sizes that follow from what is in it.

    write(files, source, target, out) -> its text, with the reasons

Small corpora want fewer pieces, smaller batches and more epochs than large ones (Sennrich and Zhang 2019). The steps of
`PLANS` for 4,000, 15,000 and 80,000 pairs were measured (docs/trials.md), the last two on short sentences and long
ones, but for 80,000 on short ones alone how many pieces and epochs, dropout and sampling; those for 400,000 pairs once,
on short sentences; the others follow.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean

import yaml

from nmt import corpus, holdout, recipe, spacing, tokenizer
from nmt.corpus import Corpus
from nmt.disk import write_text
from nmt.errors import CallError, DataError
from nmt.formats import READERS, Pair, kind, language_of
from nmt.progress import say, shown
from nmt.tokenizer import VocabularyError

SAMPLE = 20_000  # pairs that are looked at, drawn from all of the corpus
SEEN = 12_000_000  # words of the target side, over all epochs; up to so many, valid gained (29,000 pairs)
MOST_EPOCHS, LEAST_EPOCHS = 60, 4
MOST_HELD, HELD = 1000, 20  # pairs held out for valid: one in HELD, at most MOST_HELD
LONG = 15  # words of a sentence on average, from which on attention needs the shortcut whatever the pairs
FEWEST = 40  # pairs; of fewer nothing can be learnt
FEW_PAIRS = 2_000
FEW = "With so few pairs most words are never learnt: a few thousand are worth finding."
GUIDED = 0.5  # weight of the lexicon at the start
SAMPLING = 0.5  # inverse temperature of other segmentations
LETTERS = 4  # of a piece on average, about
SHORT = 5  # words of a target sentence on average; BLEU counts four words in a row
ALTERED = 0.02  # of the target sentences, from which on they are not normalised
SETS = re.compile(r"(valid(ation)?|dev|test)[._-]", re.IGNORECASE)
VALIDATE = 50  # updates at least, from one validation to the next
MANY, COVERAGE = 1_000, 0.9995  # characters, from which on the rarest are spelled as bytes; share of the others
RARE = f"""
  character_coverage: {COVERAGE}  # the rarest characters are spelled as bytes
  byte_fallback: true"""


@dataclass(frozen=True)
class Plan:
    """What suits a corpus of up to `pairs` pairs."""

    pairs: float
    pieces: int
    hidden: int  # of the decoder; a direction of the encoder has half, and 256 at least
    dropout: float
    batch_tokens: int
    learning_rate: float
    hard: bool  # so, and where sentences are long, attention finds the words late and length needs no reward
    guided: bool = False  # shown where the words are, a net bears more dropout, and gains from it
    sampled: bool = False  # seeing other pieces each time, it goes on gaining where it would learn its pairs by heart


PLANS = (
    Plan(1_000, 500, 256, 0.4, 400, 0.002, True, guided=True),
    Plan(4_000, 2_000, 256, 0.4, 400, 0.002, True, guided=True),
    Plan(15_000, 4_000, 384, 0.3, 800, 0.0015, True, sampled=True),
    Plan(80_000, 8_000, 512, 0.3, 800, 0.002, False, sampled=True),
    Plan(400_000, 8_000, 512, 0.2, 2_000, 0.002, False),
    Plan(float("inf"), 16_000, 1_024, 0.1, 4_000, 0.002, False),
)


def write(files: Sequence[Path], source: str | None, target: str | None, out: Path, columns: Pair | None = None) -> str:
    """Write a recipe for the corpus in `files`: two text files, source and target, or one that holds both.

    `columns` of a table hold the two, else those that are called like the languages. Returns the recipe. Raises
    CallError for what was asked wrongly, DataError for what is wrong with the files, CheckpointError where `out` cannot
    be written.
    """
    if out.exists():
        raise CallError(f"--out {out}: it is there already: name another file, or remove it")
    if columns and len(files) == 2:
        raise CallError("--columns: two text files have none: leave it out, or give a table with --file")
    if columns and kind(files[0].name) == ".tmx":
        raise CallError(f"--columns: {files[0]} has none but languages: leave it out")
    languages = _languages(files, source, target)
    folder = files[0].parent
    names = [file.name if file.parent == folder else str(file.resolve()) for file in files]
    if any(name != tokenizer.whole(name) for name in (*names, str(out), os.path.abspath(folder))):
        raise CallError("the name of a file or folder here is not UTF-8, so no recipe can name it: rename it")
    pairs = corpus.load(names[0] if len(names) == 1 else names, *languages, path=str(folder), columns=columns)
    count, apart = holdout.different(pairs)
    if apart < FEWEST:
        others = len(pairs) - apart
        why = f" (the other {others:,} have an empty side, two equal ones or one of another pair)" if others else ""
        raise DataError(f"{pairs.name}: {apart} pairs are too few to learn from: find {FEWEST} or more{why}")
    say(f"{_counted(pairs, count)}, {' to '.join(languages)}, first: {shown(pairs.source[0], pairs.target[0])}")
    held = max(1, min(MOST_HELD, apart // HELD)) if _stands_alone(languages, folder, names, columns) else 0
    rest = holdout.load(pairs, held, "train") if held else pairs
    text = _text(pairs, count, rest, languages, _data(languages, folder, names, columns, held))
    recipe.parse(yaml.safe_load(text), str(out))  # what is written can be read
    write_text(out, text)
    return text


def _languages(files: Sequence[Path], source: str | None, target: str | None) -> Pair:
    """The two languages: as given, else from the suffixes of two text files."""
    for file in files:
        if not file.is_file():
            other = "this is no plain file: save it as one, since it is read more than once"
            raise CallError(f"{file}: {other if file.exists() else 'there is no such file'}")
    if len(files) == 1 and kind(files[0].name) not in READERS:
        raise CallError(f"{files[0]}: no known format: give one of {', '.join(READERS)}, or two text files")
    if len(files) == 1 and not (source and target):
        raise CallError(f"{files[0]}: which languages are in it? Say so with --source and --target, as it names them")
    found = tuple(
        given or language_of(file.name) for given, file in zip((source, target), (files[0], files[-1]), strict=True)
    )
    if source and source == target:
        raise CallError(f"--source and --target are both '{source}': name two languages")
    if not all(found) or found[0] == found[1]:
        raise CallError(
            f"{' and '.join(map(str, files))}: their names do not end with two languages (.en, .de): "
            "say which they are with --source and --target"
        )
    return found[0], found[1]


def _stands_alone(languages: Pair, folder: Path, names: Sequence[str], columns: Pair | None) -> bool:
    """Whether no valid and test sets lie beside the corpus."""
    missing = []
    for split in ("valid", "test"):
        try:
            corpus.load(split, *languages, path=str(folder), columns=columns)
        except corpus.MissingSplitError:
            missing.append(split)
    if len(missing) == 1:
        there = "test" if missing == ["valid"] else "valid"
        say(
            f"warning: {folder.resolve().name} has a {there} set but no {missing[0]} set, so both are taken out of the "
            f"corpus and yours is not read: put {missing[0]}.* beside it"
        )
    elif missing and (others := [one for one in sorted(os.listdir(folder)) if SETS.match(one) and one not in names]):
        say(
            f"warning: {folder} has {', '.join(others[:4])}, not valid.{languages[0]}, valid.{languages[1]} and "
            "test.*, so these are not read, and both sets are taken out of the corpus: rename them, or name them in "
            "data.valid and data.test and remove data.hold_out"
        )
    return bool(missing)


def _counted(pairs: Corpus, count: int) -> str:
    return f"{len(pairs):,} pairs" + (f", {count:,} of them different" if count < len(pairs) else "")


def _data(languages: Pair, folder: Path, names: Sequence[str], columns: Pair | None, held: int) -> str:
    """The section `data` of the recipe: where the pairs are, `held` of them for valid and as many for test."""
    train = names[0] if len(names) == 1 else names
    section = {"source": languages[0], "target": languages[1], "path": os.path.abspath(folder), "train": train}
    if columns:
        section["columns"] = columns
    lines = [f"  {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in section.items()]
    if held:
        lines.append(f"  hold_out: {held}  # pairs taken out for valid, and as many for test")
    return "\n".join(["data:", *lines])


def _text(pairs: Corpus, count: int, rest: Corpus, languages: Pair, data: str) -> str:
    """The recipe, with its reasons. Of `pairs` `count` are different, and `rest` are left to train on."""
    plan = next(plan for plan in PLANS if count <= plan.pairs)
    sample = _sample(pairs)
    words = [fmean(spacing.words(side)) for side in sample]
    usual = recipe.Tokenizer().normalization
    altered = tokenizer.altered(sample[1], usual) / len(sample[1])
    normalization = "identity" if altered > ALTERED else usual
    pieces, rare, joint = _vocabulary(rest, plan.pieces, _alike(*sample), normalization)
    epochs = max(LEAST_EPOCHS, min(MOST_EPOCHS, int(SEEN / (count * max(1.0, words[1])))))
    length = max(words[1], sum(map(len, sample[1])) / len(sample[1]) / LETTERS)  # pieces of a target sentence, about
    updates = count * (length + 1) / plan.batch_tokens  # in an epoch
    few = f"\n# {FEW}" if count < FEW_PAIRS else ""
    often = f"\n  validate_every: {VALIDATE}  # updates; an epoch has fewer" if updates < VALIDATE else ""
    hard = plan.hard or max(words) > LONG
    shortcut = ", shortcut: true" if hard else ""
    guided = f"\n  guided_attention: {GUIDED}  # a lexicon shows where the words are" if plan.guided else ""
    sampled = f"\n  subword_sampling: {SAMPLING}  # other pieces of the same words each time" if plan.sampled else ""
    said = f"{_counted(pairs, count)}, {words[0]:.1f} and {words[1]:.1f} words a sentence on average"
    metric = "\n  metric: chrf  # BLEU counts four words in a row" if words[1] < SHORT else ""
    rewritten = f"\n  normalization: {normalization}  # else {altered:.0%} of the target is rewritten"
    as_is = rewritten if normalization != usual else ""
    return f"""\
# {languages[0]} to {languages[1]}: {said}.{few}
# Written by `nmt init` from what is in the corpus. Change what you like; `nmt info` says what it makes of the model.
{data}
tokenizer:
  model: unigram
  vocab_size: {pieces}  # pieces; of more each is seen less often{RARE if rare else ""}{as_is}
  joint: {str(joint).lower()}  # {"one vocabulary for both sides" if joint else "the two sides share few letters"}
model:
  cell: lstm
  embed: 256
  encoder: {{layers: 1, hidden: {max(256, plan.hidden // 2)}, direction: bidirectional{shortcut}}}
  decoder: {{layers: 2, hidden: {plan.hidden}}}
  attention: general
  attention_position: between
  tie: {"all" if joint else "target"}
  dropout: {{embedding: {plan.dropout}, layers: {plan.dropout}, output: {plan.dropout}}}
training:
  epochs: {epochs}  # the more words, the fewer
  patience: 12  # validations in a row without a better one, after which it stops{often}{metric}
  batch_tokens: {plan.batch_tokens}  # small batches learn more from each pair, large ones take less time for it
  learning_rate: {plan.learning_rate}
  warmup: {max(1, min(200, round(updates * epochs / 10)))}  # updates{guided}{sampled}
search:
  length_penalty: {1.0 if hard else 1.6}  # larger for longer translations; compare on valid
"""


def _alike(source: Sequence[str], target: Sequence[str]) -> bool:
    """Whether the sides share half of their letters, counted as often as they occur."""
    counts = [Counter(filter(str.isalpha, chain.from_iterable(side))) for side in (source, target)]
    shared = sum(count for one, other in (counts, counts[::-1]) for letter, count in one.items() if letter in other)
    return 2 * shared >= sum(counts[0].values()) + sum(counts[1].values())


def _sample(pairs: Corpus) -> tuple[list[str], list[str]]:
    """At most SAMPLE pairs, drawn: what stands in a corpus by turns, long and short captions say, is not every nth."""
    rows = sorted(random.Random(1).sample(range(len(pairs)), min(SAMPLE, len(pairs))))
    source, target = pairs.source, pairs.target
    return [source[row] for row in rows], [target[row] for row in rows]


def _vocabulary(pairs: Corpus, wanted: int, joint: bool, normalization: str) -> tuple[int, bool, bool]:
    """How many pieces, whether the rarest characters are spelled as bytes, and whether the sides are joint.

    As many as are wanted, more for many characters, fewer where so many are not found. Joint too where no number is
    allowed by both sides.
    """

    def texts(sides: Sequence[Sequence[str]]) -> list[list[str]]:
        return [list(chain(*sides))] if joint else [list(side) for side in sides]

    whole = texts((pairs.source, pairs.target))
    characters = max(len(set(chain.from_iterable(lines))) for lines in whole)
    size, rare = max(wanted, 2 * characters), characters > MANY

    def allowed(lines: Sequence[str]) -> int:
        return _allowed(lines, size, rare, normalization)

    if len(pairs) > SAMPLE and all(allowed(lines) == size for lines in texts(_sample(pairs))):
        return size, rare, joint  # the whole allows what a part does
    tried: set[int] = set()
    while True:
        other = next((most for lines in whole if (most := allowed(lines)) != size), size)
        if other == size:
            break
        tried.add(size)
        if other in tried:  # the most that one allows are fewer than the other needs
            return (size, rare, joint) if joint else _vocabulary(pairs, wanted, True, normalization)
        size = other
    return size, rare, joint


def _allowed(lines: Sequence[str], size: int, rare: bool, normalization: str) -> int:
    """The size of a vocabulary, or the nearest one that a text allows."""
    coverage = COVERAGE if rare else 1.0
    try:
        tokenizer.train(
            lines, vocab_size=size, character_coverage=coverage, byte_fallback=rare, normalization=normalization
        )
    except VocabularyError as error:
        return error.allowed
    return size
