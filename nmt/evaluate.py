"""How good translations are: systems on a test set, scored, compared and drawn.

A system is a model folder, an ensemble `runs/a+runs/b`, or a file of translations. Every figure carries the
signature that makes it comparable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from nmt import checkpoint, metrics, plots, spacing
from nmt.checkpoint import split
from nmt.corpus import Corpus
from nmt.disk import write_json, write_text
from nmt.errors import CallError, CheckpointError, DataError
from nmt.formats import language_of, read_lines, unpacked
from nmt.material import load_split, test_parts
from nmt.metrics import Comparison, Method, Report, Sentence
from nmt.progress import Bar, say
from nmt.translate import CHUNK, Scored, Translator

SHOWN = 3  # best and worst sentences printed; the JSON has more
SCORING = ("search.examples", "search.batch_tokens")  # what has to do with scores
FEW, FEWER = 100, " (so few say little: look at the intervals)"


@dataclass(frozen=True)
class TestSet:
    """Sources (where there are any), references, the target language, and named parts to score on their own."""

    sources: list[str] | None
    references: list[str]
    language: str
    name: str
    parts: Mapping[str, Sequence[int]] = field(default_factory=dict)

    __test__ = False  # not a test class, whatever pytest thinks of its name


@dataclass(frozen=True)
class Evaluation:
    """The reports of systems on one test set."""

    test: TestSet
    reports: dict[str, Report]
    parts: dict[str, dict[str, Report]]
    comparisons: list[Comparison]
    searches: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # the settings of those that searched, ...
    models: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # ... and their models, as `Translator.models`

    def to_json(self) -> dict[str, Any]:
        return {
            "test": self.test.name,
            "sentences": len(self.test.references),
            "systems": {
                name: report.to_json()
                | {"parts": {part: one.to_json() for part, one in self.parts.get(name, {}).items()}}
                | {"search": self.searches.get(name), "models": self.models.get(name)}
                for name, report in self.reports.items()
            },
            "comparisons": [comparison.to_json() for comparison in self.comparisons],
        }

    def __str__(self) -> str:
        count = len(self.test.references)
        blocks = [f"{self.test.name}: {count:,} sentences{FEWER * (count < FEW)}"]
        for name, report in self.reports.items():
            blocks.append(f"{name}\n{report}")
            blocks += [f"{name}, {part}\n{one.scores[0]}\n{one.scores[1]}" for part, one in self.parts[name].items()]
            blocks.append("worst:\n" + "\n".join(_shown(sentence) for sentence in report.worst[:SHOWN]))
            blocks.append("best:\n" + "\n".join(_shown(sentence) for sentence in report.best[:SHOWN]))
        if self.comparisons:
            blocks.append("\n".join(map(str, self.comparisons)))
        return "\n\n".join(blocks)


def _shown(sentence: Sentence) -> str:
    lines = [f"  {sentence.number}  chrF2 {sentence.chrf:.1f}"]
    if sentence.source is not None:
        lines.append(f"    source       {sentence.source}")
    return "\n".join([*lines, f"    translation  {sentence.hypothesis}", f"    reference    {sentence.reference}"])


def from_files(source: Path | None, reference: Path, language: str | None) -> TestSet:
    """A test set of the user's own, two aligned files or one. The language is the reference's suffix unless given."""
    sources = list(read_lines(source)) if source else None
    references = list(read_lines(reference))
    if sources is not None and len(sources) != len(references):
        raise DataError(
            f"{source} has {len(sources):,} lines, {reference} {len(references):,}: "
            f"they must be line by line translations of each other"
        )
    return TestSet(sources, references, language or _language(reference), str(reference))


def _language(file: Path) -> str:
    """What the name of a file says of its language: `zh` of `test.zh`, of `test.zh.txt` and of `test.zh.gz`."""
    return language_of(unpacked(file.name).removesuffix(".txt")).lower()


def evaluate(test: TestSet, systems: Mapping[str, Sequence[str]], method: Method = "bootstrap") -> Evaluation:
    """Score translations of the test set by system name; two or more are compared with the first."""
    _check(test, systems)
    reports = {name: _report(test, lines, range(len(lines))) for name, lines in systems.items()}
    parts = {
        name: {part: _report(test, lines, rows, bootstrap=0) for part, rows in test.parts.items()}
        for name, lines in systems.items()
    }
    compared = metrics.compare(test.references, systems, method, language=test.language) if len(systems) > 1 else []
    return Evaluation(test, reports, parts, compared)


def _check(test: TestSet, systems: Mapping[str, Sequence[str]]) -> None:
    for name, lines in systems.items():
        if len(lines) != len(test.references):
            raise DataError(
                f"{name} has {len(lines):,} lines, {test.name} {len(test.references):,}: "
                f"give translations of the same lines in the same order"
            )


def _report(test: TestSet, lines: Sequence[str], rows: Sequence[int], bootstrap: int = 1000) -> Report:
    sources = [test.sources[row] for row in rows] if test.sources is not None else None
    return metrics.evaluate(
        [lines[row] for row in rows], [test.references[row] for row in rows], sources, test.language, bootstrap
    )


def save(evaluation: Evaluation, folder: Path, systems: Mapping[str, Sequence[str]], stem: str = "evaluation") -> None:
    """Write <stem>.json, <stem>.png (BLEU by source length) and <stem>.txt, the translations of the first system."""
    write_json(folder / f"{stem}.json", evaluation.to_json())
    first = next(iter(systems.values()))
    write_text(folder / f"{stem}.txt", "".join(line + "\n" for line in first))
    if evaluation.test.sources is not None:
        plots.by_length({name: report.by_length for name, report in evaluation.reports.items()}, folder / f"{stem}.png")


def run(
    systems: Sequence[str],
    source: Path | None,
    reference: Path | None,
    hypotheses: Sequence[Path],
    load: Callable[[str], Translator],
    method: Method,
) -> Evaluation:
    """What `nmt evaluate` does: translate with the systems, add the hypothesis files, score all, save beside the first.

    Without files the test set is that of the first system's recipe, and the evaluation of a single run the one that
    `nmt info` shows.
    """
    names = [*systems, *map(str, hypotheses)]
    if not names:
        raise CallError("nothing to evaluate: name a run folder, or a file of translations with --hypothesis")
    if len(set(names)) < len(names):
        raise CallError("the same system is named twice: name different ones to compare them")
    translators = {name: load(name) for name in systems}
    _check_languages(translators)
    test = _test_set(translators, source, reference)
    if metrics.unspaced(test.language) is None and spacing.letters_a_word(test.references) is not None:
        say(
            f"warning: {test.name}: there are hardly any spaces, and '{test.language}' is not known to be written so: "
            "BLEU takes whole lines for words. Write the language, of a file at the end of its name, as one of "
            f"{', '.join(metrics.UNSPACED)}, or go by chrF"
        )
    given = {str(file): list(read_lines(file)) for file in hypotheses}
    _check(test, given)  # before the long work
    translated = {name: _translate(translator, test) for name, translator in translators.items()} | given
    searches = {name: translator.settings.model_dump(mode="json") for name, translator in translators.items()}
    models = {name: translator.models for name, translator in translators.items()}
    evaluation = replace(evaluate(test, translated, method), searches=searches, models=models)
    if systems:
        stem, folder = _stem(systems[0], reference), split(systems[0])[0]
        try:
            save(evaluation, folder, translated, stem)
            say(f"written to {folder}: {stem}.json, .txt with the translations" + ", .png" * (test.sources is not None))
        except (CheckpointError, OSError) as error:  # a folder that others share, a full disk: the figures are there
            say(f"warning: the evaluation is not kept: {error}")
    return evaluation


def _stem(system: str, reference: Path | None) -> str:
    """Of the files to write: of an ensemble with its members, of another test set with its folder, all being test."""
    members = split(system)
    parts = ["evaluation", *(["+".join(one.resolve().name for one in members)] if len(members) > 1 else [])]
    return "-".join([*parts, *([reference.resolve().parent.name, reference.stem] if reference else [])])


def _check_languages(translators: Mapping[str, Translator]) -> None:
    """Raises CallError for systems that cannot be compared."""
    pairs = {name: (one.recipe.data.source, one.recipe.data.target) for name, one in translators.items()}
    if len(set(pairs.values())) > 1:
        said = ", ".join(f"{name} translates {source} to {target}" for name, (source, target) in pairs.items())
        raise CallError(f"these cannot be compared: {said}: evaluate each alone")


def _test_set(translators: Mapping[str, Translator], source: Path | None, reference: Path | None) -> TestSet:
    first = next(iter(translators.values()), None)
    if reference is not None:
        if first is not None and source is None:
            raise CallError("--reference without --source: the systems need lines to translate")
        return from_files(source, reference, first.recipe.data.target if first else None)
    if source is not None:
        raise CallError("--source without --reference: there is nothing to compare the translations with")
    if first is None:
        raise CallError("--hypothesis needs --reference, the right translations of the same lines")
    data = first.recipe.data
    pairs = load_split(data, "test")
    if data.hold_out:
        _warn_of_others(translators, pairs)
    return TestSet(pairs.source[:], pairs.target[:], data.target, pairs.name, test_parts(data))


def _warn_of_others(systems: Iterable[str], test: Corpus) -> None:
    """Says which models were trained when other pairs were held out, some of these perhaps trained on."""
    digest = test.digest
    for folder in (folder for system in systems for folder in split(system)):
        before = checkpoint.read(folder).info.get("data", {}).get("held_out", digest)
        if before != digest:
            say(
                f"warning: {folder}: the corpus has changed since the training, and with it what is held out of it: "
                f"some of these pairs may have been trained on: train again, or give --source and --reference"
            )


def _translate(translator: Translator, test: TestSet) -> list[str]:
    assert test.sources is not None
    lines = []
    with Bar("translating", len(test.sources)) as bar:
        for translation in translator.stream(test.sources):
            lines.append(translation.text)
            bar.update(len(lines))
    return lines


def score_files(
    system: str, source: Path, target: Path, nbest: int = 1, changes: Sequence[str] = ()
) -> Iterator[Scored]:
    """log p of each line of `target`, `nbest` of them for each line of `source`, in constant memory."""
    for change in changes:
        if change.partition("=")[0] not in SCORING:
            raise CallError(f"--set {change}: of what scores, {' and '.join(SCORING)} alone can be changed")
    translator = Translator.load(system, changes=changes)
    sources, targets = read_lines(source), read_lines(target)
    number = 0
    while chunk := list(islice(sources, CHUNK)):
        lines = list(islice(targets, len(chunk) * nbest))
        if len(lines) < len(chunk) * nbest:
            counts = number + len(chunk) + _left(sources), number * nbest + len(lines)
            raise DataError(_uneven(source, target, counts, nbest))
        yield from translator.score([line for line in chunk for _ in range(nbest)], lines, number * nbest + 1)
        number += len(chunk)
    if more := _left(targets):
        raise DataError(_uneven(source, target, (number, number * nbest + more), nbest))
    if not number:
        raise DataError(f"{source}: empty, nothing to score")


def _left(lines: Iterator[str]) -> int:
    return sum(1 for _ in lines)


def _uneven(source: Path, target: Path, counts: tuple[int, int], nbest: int) -> str:
    said = f"{source} has {counts[0]:,} lines, {target} {counts[1]:,}"
    return f"{said}: there must be {nbest} in the second for each in the first" + (
        "" if nbest > 1 else ", or more with --nbest"
    )
