"""What the page does: handlers that take and give plain values, over the loaded models.

    model folders -> Model -> Service (a queue that batches) -> handlers

What they show is written in `view`. Of this machine visitors reach the figures of the models, their own
uploads and what is made of them, and the corrections.
"""

from __future__ import annotations

import contextlib
import html
import io
import logging
import math
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as LateError
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from nmt import corrections, document, plots, report, run
from nmt.checkpoint import read, read_metrics, split
from nmt.document import Document
from nmt.errors import CheckpointError, DataError, NmtError
from nmt.evaluate import TestSet, evaluate
from nmt.explain import explain
from nmt.formats import decode_lines
from nmt.hardware import cores
from nmt.recipe import Search
from nmt.search import lp
from nmt.service import BusyError, Service
from nmt.tokenizer import whole
from nmt.translate import Translation, distinct

from . import view

LONGEST = 20_000  # letters of a text
FIRST = "Translate something first"
PATIENCE = 600.0  # seconds until an answer is given up
PAUSE = 0.5  # seconds until a busy service is asked again
NOTHING = gr.update(choices=[], value=None, visible=False)  # to choose from
MOST = 8  # to choose from
MOST_EVALUATED = 10_000  # lines; its intervals take 0.7 GB for so many
DAY = 86_400  # seconds

T = TypeVar("T")


@dataclass(frozen=True)
class Model:
    """A loaded model and what visitors see of it."""

    name: str
    folders: Sequence[Path]
    service: Service

    @classmethod
    def load(cls, folders: str, changes: Sequence[str] = ()) -> Model:
        """`folders`: one or `runs/a+runs/b`. `changes`: `search.x=y`."""
        paths = split(folders)
        spared = max(1, cores() - 1)  # one for the server
        translator = run.translator(folders, changes, threads=spared)
        return cls(" + ".join(path.resolve().name for path in paths), paths, Service(translator))

    @property
    def languages(self) -> tuple[str, str]:
        data = self.service.translator.recipe.data
        return data.source, data.target

    @property
    def label(self) -> str:
        return f"{view.pair(self.languages)} · {self.name}"

    @property
    def attends(self) -> bool:
        return self.service.translator.recipe.model.attention != "none"


class Turn:
    """What a visitor waits for: the translation that was begun last, or nothing once another model is chosen."""

    def __init__(self) -> None:
        self.number, self.empty = 0, True

    def begin(self, empty: bool = False) -> int:
        self.number, self.empty = self.number + 1, empty
        return self.number


@dataclass(frozen=True)
class Work:
    """A text under work: the sentences translated so far, which of them is looked at, which are kept to train on, and
    what else may stand at a word."""

    model: Model
    document: Document
    search: Search  # as the options of the page had it
    done: tuple[Translation, ...] = ()
    chosen: int = 0
    kept: frozenset[int] = frozenset()
    others: tuple[Translation, ...] = ()

    @property
    def source(self) -> str:
        return self.document.sentences[self.chosen]

    @property
    def place(self) -> tuple[int, str]:
        """Which sentence is looked at."""
        return self.chosen, self.source

    @property
    def translation(self) -> Translation:
        return self.done[self.chosen]

    @property
    def text(self) -> str:
        """The whole translation so far."""
        texts = [one.text for one in self.done]
        return self.document.joined(texts + [""] * (len(self.document.sentences) - len(texts)))

    def corrected(self, translation: Translation, kept: bool = False) -> Work:
        """With another translation of the chosen sentence, behind which those that it had stay to choose from."""
        before = [self.translation, *self.translation.alternatives]
        known = {one.text: replace(one, alternatives=[]) for one in before if one.text != translation.text}
        done = list(self.done)
        done[self.chosen] = replace(translation, alternatives=list(known.values())[: MOST - 1])
        places = self.kept | {self.chosen} if kept else self.kept - {self.chosen}
        return replace(self, done=tuple(done), kept=places, others=())

    def rated(self, translation: Translation) -> Translation:
        """With the score that a search with these options would give it."""
        log_probs = translation.log_probs
        return replace(translation, score=sum(log_probs) / lp(len(log_probs), self.search.length_penalty))

    def shown(self, more: bool = True) -> str:
        """The sentences as HTML; whether more are to come."""
        waiting = len(self.document.sentences) - len(self.done) if more else 0
        knows = self.model.service.translator.members[0].source.knows
        shown = [explain(one, knows) for one in self.done]
        return view.sentences(shown, self.model.languages, waiting, self.chosen, self.kept)


def refusal(text: str, page: bool = True) -> gr.Error:
    """To raise: tells the visitor, or a program, without a trace of the machine."""
    return gr.Error(plain(text) if page else text, print_exception=False)


def plain(text: str) -> str:
    """What Gradio shows as the text: it takes its messages for HTML."""
    return html.escape(text, quote=False)


@contextlib.contextmanager
def told(page: bool = True) -> Iterator[None]:
    """Within, what goes wrong is told to the visitor, or a program, in one line."""
    try:
        yield
    except NmtError as error:
        raise refusal(str(error), page) from None
    except LateError:
        raise refusal("this took too long: send less at once, or try again later", page) from None


def answers(futures: Sequence[Future[Any]]) -> Iterator[Any]:
    """The answers in order; what nobody waits for any more is called off."""
    try:
        for future in futures:
            yield future.result(PATIENCE)
    finally:
        for future in futures:
            future.cancel()


def patiently(ask: Callable[[], T]) -> T:
    """What `ask` gives, as soon as the service has room for it: for work that has begun and would be lost."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return ask()
        except BusyError:
            if time.monotonic() > until:
                raise
            time.sleep(PAUSE)


def chance(translation: Translation, place: int) -> float | None:
    """The probability of the word that begins at a piece, or of the end there; None where a word goes on there."""
    if place == len(translation.tokens):
        return math.exp(translation.log_probs[place])
    return next((word.probability for word in explain(translation).target if word.first == place), None)


def limited(text: str) -> str:
    if not isinstance(text, str):  # of a program
        raise DataError("one text is translated in a call: give a string")
    if whole(text) != text:
        raise DataError("half a character (a lone surrogate) is in it: the text is damaged")
    if len(text) > LONGEST:
        raise DataError(
            f"the text has {len(text):,} letters, at most {LONGEST:,} are translated at once: use Files for more"
        )
    return text


def settings(model: Model, beam: int, length: float, sampling: bool, temperature: float) -> Search:
    """The options of the page as a recipe's search."""
    method = "sample" if sampling else "beam"
    changes = {"method": method, "beam": int(beam), "length_penalty": length, "temperature": temperature}
    if sampling:  # another text each time
        changes["seed"] = random.randrange(2**31)
    return model.service.translator.settings.model_copy(update=changes)


def options(search: Search) -> tuple[int, float, bool, float]:
    """A recipe's search as options of the page, in the order `settings` takes them; a beam of 1 is greedy."""
    beam = 1 if search.method == "greedy" else search.beam
    return beam, search.length_penalty, search.method == "sample", search.temperature


class Page:
    """The handlers, over the loaded models."""

    def __init__(self, models: Sequence[Model], folder: Path, scratch: Path) -> None:
        """`folder`: of the corrections. `scratch`: for pictures and files to download."""
        self.models: dict[str, Model] = {}
        for place, model in enumerate(models):
            before = sum(other.label == model.label for other in models[:place])
            self.models[f"{model.label} ({before + 1})" if before else model.label] = model
        self.folder = folder
        self.scratch = scratch

    # Translate

    def opposite(self, label: str) -> str | None:
        """The label of a model for the opposite direction."""
        there = self.models[label].languages[::-1]
        return next((other for other, model in self.models.items() if model.languages == there), None)

    def picked(self, label: str) -> tuple[Any, ...]:
        """What changes on the page with the model."""
        source, target = self.models[label].languages
        return (
            gr.update(label=view.language(source)),
            gr.update(label=view.language(target)),
            gr.update(visible=self.opposite(label) is not None),
            view.legend(self.models[label].attends),
            *options(self.models[label].service.translator.settings),
        )

    def cleared(self, label: str, turn: Turn) -> tuple[Any, ...]:
        """Nothing is left of what another model wrote, or is writing."""
        turn.begin(empty=True)
        return self.nothing(label)

    def nothing(self, label: str) -> tuple[Any, ...]:
        """Translation, words, work and choices of a page where nothing was translated yet."""
        return "", view.sentences([], self.models[label].languages, 0), None, NOTHING

    def swap(self, label: str, source: str, target: str, turn: Turn) -> tuple[Any, ...]:
        """The opposite direction, with the translation as its source; nothing of the old one stays."""
        other = self.opposite(label) or label
        return other, target or source, *self.cleared(other, turn)

    def translate(
        self,
        text: str,
        label: str,
        turn: Turn,
        beam: int,
        length: float,
        nbest: int,
        sampling: bool,
        temperature: float,
    ) -> Iterator[tuple[Any, ...]]:
        """Translate a text; its sentences are shown as they come, those that come together at once.

        It ends where it is no longer its turn.
        """
        model, number = self.models[label], turn.begin()
        with told():
            search = settings(model, beam, length, sampling, temperature)
            work = Work(model, document.from_text(limited(text), model.languages[0]), search)
            if not work.document.sentences:
                gr.Info("There is no text to translate: type or paste one first")
                yield self.nothing(label)
                return
            count = int(nbest) if sampling else min(int(nbest), int(beam))  # more would widen the beam
            yield "", work.shown(), None, NOTHING
            sentences, some = work.document.sentences, model.service.room // 4  # which leaves others theirs
            try:
                for start in range(0, len(sentences), some):
                    ask = partial(model.service.translate, sentences[start : start + some], count, None, True, search)
                    asked = patiently(ask) if start else ask()
                    for place, translation in enumerate(answers(asked), start=1):
                        if turn.number != number:  # what was on its way may have come after the page was cleared
                            yield self.nothing(label) if turn.empty else (gr.skip(),) * 4
                            return
                        best, *others = distinct([translation, *translation.alternatives])  # what was drawn may not be
                        work = replace(work, done=(*work.done, replace(best, alternatives=others)))
                        if place == len(asked) or not asked[place].done():
                            whole = len(work.done) == len(sentences)  # before, a change would be lost
                            yield work.text, work.shown(), work if whole else None, NOTHING
            except (NmtError, LateError):
                yield work.text, work.shown(more=False), None, NOTHING
                raise
            if cut := sum(len(one.source_tokens) > search.max_source for one in work.done):
                gr.Warning(
                    f"Longer than this model can read at once: {cut} of {len(sentences)} sentences. They were cut into "
                    "parts, which costs meaning. Write shorter ones"
                )

    # See why, work with it

    def chosen(self, work: Work | None, looking: bool) -> tuple[Any, ...]:
        """The chosen sentence: its source, its translation, the n best, the picture of its attention and its frame, and
        which it is.

        The picture, which takes longer than all else, is drawn only when `looking`.
        """
        if work is None or work.chosen >= len(work.done):
            return "", "", NOTHING, None, gr.update(visible=False), None
        found = [work.translation, *work.translation.alternatives]
        best = [(f"{one.text}   ({one.score:.2f})", place) for place, one in enumerate(found)]
        return (
            work.source,
            work.translation.text,
            gr.update(choices=best, value=0, visible=len(best) > 1),
            self.picture(work) if looking else None,
            gr.update(visible=work.translation.attention is not None),
            work.place,
        )

    def turned(self, work: Work | None, looking: bool, place: tuple[int, str] | None) -> tuple[Any, ...]:
        """As `chosen` where another sentence than at `place` was; else what is being written of it stays."""
        if work is not None and work.place == place:
            return (gr.skip(),) * 6
        return self.chosen(work, looking)

    def picture(self, work: Work | None) -> str | None:
        """The file of a picture of where the model looked, if it looks."""
        if work is None or work.chosen >= len(work.done) or (translation := work.translation).attention is None:
            return None
        path = self.new("attention.png")
        source, target = [*translation.source_tokens, "end"], [*translation.tokens, "end"]
        plots.attention(source, target, translation.attention.numpy(), path)
        return str(path)

    def pressed(self, work: Work | None, event: gr.EventData) -> tuple[Any, Any, Any]:
        """A sentence was chosen, or a word of it: what else could stand there."""
        place, word = event._data.get("sentence"), event._data.get("word")
        if work is None:  # the rest is still coming
            return gr.skip(), gr.update(), NOTHING
        if not isinstance(place, int) or not 0 <= place < len(work.done):
            return work, gr.update(), NOTHING
        work = replace(work, chosen=place, others=())
        words = explain(work.translation).target
        if not isinstance(word, int) or not 0 <= word < len(words):
            return work, work.shown(), NOTHING
        here = words[word]
        before = work.translation.tokens[: here.first]
        try:
            with told():
                found = work.model.service.alternatives(work.source, before, 2 * MOST).result(PATIENCE)
        except gr.Error as error:  # too long a sentence, unknown letters: it is chosen all the same
            gr.Warning(error.message)
            return work, work.shown(), NOTHING
        now = work.translation
        known = {one.translation.text: one.translation for one in reversed(found)}  # of two of one text the likelier
        known.pop(now.text, None)
        likely = [(share, one) for one in known.values() if (share := chance(one, here.first)) is not None]
        likely.sort(key=lambda pair: -pair[0])
        others = [(here.probability or 0.0, now), *likely[: MOST - 1]]  # what stands there comes first
        work = replace(work, others=tuple(work.rated(one) for _, one in others))
        texts = view.from_where_they_differ([one.text for one in work.others])
        choices = [(f"{text}   ({view.share(others[n][0])})", n) for n, text in enumerate(texts)]
        return work, work.shown(), gr.update(label=f"In place of “{here.text}”", choices=choices, value=0, visible=True)

    def replaced(self, work: Work | None, number: int | None) -> tuple[Any, ...]:
        """One of the alternatives at a word was taken."""
        if work is None or number is None or not 0 <= number < len(work.others):
            return work, gr.update(), gr.update()
        work = replace(work.corrected(work.others[number]), others=work.others)  # to choose again
        return work, work.text, work.shown()

    def ranked(
        self, work: Work | None, number: int | None, source: str, place: tuple[int, str] | None
    ) -> tuple[Any, ...]:
        """Another of the n best of `source`, the sentence at `place`, was taken."""
        if not number:
            return work, gr.update(), gr.update()
        work = self.still(work, source, place)
        if not 0 < number <= len(work.translation.alternatives):
            return work, gr.update(), gr.update()
        work = work.corrected(work.translation.alternatives[number - 1])
        return work, work.text, work.shown()

    def complete(
        self, work: Work | None, beginning: str, source: str, place: tuple[int, str] | None
    ) -> tuple[Any, ...]:
        """The model goes on where the corrected beginning of the translation of `source`, at `place`, ends."""
        work = self.still(work, source, place)
        if len(work.translation.source_tokens) > work.model.service.translator.settings.max_source:
            raise refusal(
                "The sentence is too long to be read at once, so the model cannot go on within it: write the rest"
            )
        search = work.search.model_copy(update={"method": "beam"})  # what was sampled goes on with the best
        with told():
            asked = work.model.service.translate([work.source], 1, [limited(beginning)], True, search)
            work = work.corrected(*answers(asked))
        return work, work.text, work.shown()

    def still(self, work: Work | None, source: str, place: tuple[int, str] | None) -> Work:
        """The work, where its chosen sentence is still that at `place`, and `source`, beside which was written, too."""
        if work is None:
            raise refusal(FIRST)
        if place != work.place or source != work.source:
            raise refusal("Another sentence was chosen a moment ago: look at it, then try again")
        return work

    def accept(self, work: Work | None, text: str, source: str, place: tuple[int, str] | None) -> tuple[Any, ...]:
        """Keep a corrected translation of `source`, at `place`, which from now on stands in the translation."""
        work = self.still(work, source, place)
        if not text.strip():
            raise refusal("There is no translation to keep: write one first")
        given, text = work.translation, " ".join(text.split())
        with told():
            if limited(text) != given.text:
                given = self.scored(work, text)
        try:
            file, new = corrections.append(self.folder, work.model.languages, work.source, text, work.model.name)
        except DataError as error:
            logging.getLogger("nmt").warning("%s", error)
            raise refusal("This could not be kept: tell whoever runs this page") from None
        kept = f"Kept in {file.name} to train on" if new else f"{file.name} has it already"
        gr.Info(plain(f"{kept}: {view.short(work.source)} – {view.short(text)}"))
        work = work.corrected(given, kept=True)
        return work, work.text, work.shown()

    def scored(self, work: Work, text: str) -> Translation:
        """A text of the visitor's as a translation of the chosen sentence."""
        (found,) = answers(work.model.service.score([work.source], [text]))
        sources = work.translation.source_tokens
        return work.rated(Translation(text, found.log_prob, found.tokens, found.log_probs, sources))

    # Files

    def file(self, path: str | None, label: str, progress: gr.Progress = gr.Progress()) -> Iterator[str | None]:  # noqa: B008
        """A whole document, translated; the file to download, and meanwhile none."""
        yield None
        if path is None:
            raise refusal("Choose a file first")
        model, name = self.models[label], Path(path).name
        with told():
            paper = document.read(name, Path(path).read_bytes(), model.languages[0])
            lines = all_of(model, paper.sentences, progress)
            out = self.new(f"{Path(name).stem}.{model.languages[1]}{Path(name).suffix}")
            out.write_text(paper.joined(lines), encoding="utf-8", newline="")
        yield str(out)

    # Evaluate

    def evaluate(
        self,
        source: str | None,
        reference: str | None,
        label: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[tuple[str, Any, str]]:
        """BLEU, chrF and TER on two files of lines; BLEU by length; the worst sentences. Meanwhile nothing."""
        yield "", gr.update(value=None, visible=False), ""
        if source is None or reference is None:
            raise refusal("Choose two files: sources, and their translations")
        model = self.models[label]
        with told():
            sides = [lines_of(path) for path in (source, reference)]
            if len(sides[0]) > MOST_EVALUATED:
                raise DataError(
                    f"{Path(source).name} has {len(sides[0]):,} lines, at most {MOST_EVALUATED:,} are evaluated here: "
                    "for more there is `nmt evaluate`"
                )
            if len(sides[0]) != len(sides[1]):
                raise DataError(
                    f"{Path(source).name} has {len(sides[0]):,} lines, {Path(reference).name} {len(sides[1]):,}: "
                    "line n of one must be the translation of line n of the other"
                )
            lines = all_of(model, sides[0], progress)
            test = TestSet(sides[0], sides[1], model.languages[1], Path(reference).name)
            found = evaluate(test, {model.name: lines}).reports[model.name]
            picture = self.new("bleu-by-length.png")
            plots.by_length({model.name: found.by_length}, picture)
        yield view.scores(found), gr.update(value=str(picture), visible=True), view.worst(found.worst[:10])

    # About

    def about(self, label: str, request: gr.Request | None = None) -> tuple[str, Any, str, str]:
        """The models behind a label: sizes, scores, curves, recipe; how a program asks the one at this address."""
        texts, recipes, picture = [], [], gr.update(value=None, visible=False)
        translator = self.models[label].service.translator
        for folder, member in zip(self.models[label].folders, translator.members, strict=True):
            evaluation = None
            remembers = len(member.examples) if member.examples and translator.settings.examples else 0
            try:
                saved = read(folder)
            except CheckpointError:
                texts.append(f"{folder.name}: its files are gone or changed since it was loaded. It still translates.")
                continue
            with contextlib.suppress(CheckpointError):
                evaluation = report.evaluation(folder)
            texts.append(view.about(folder.resolve().name, saved.info, evaluation, remembers))
            recipes.append(view.recipe(saved.recipe))
            if rows := read_metrics(folder):
                path = self.new("curves.png")
                plots.curves(rows, path)
                picture = gr.update(value=str(path), visible=True)
        address = str(request.request.base_url).rstrip("/") if request else "http://127.0.0.1:7860"
        model = self.models[label]
        known = ("-".join(model.languages), model.name, label)  # the shortest that means this one
        name = next(name for name in known if self.named(name) is model)
        use = view.use(address, name, request.username if request else None)
        return "\n\n".join(texts), picture, "\n---\n".join(recipes), use

    def new(self, name: str) -> Path:
        """A path of this name where nothing is yet; what lies there for a day is removed."""
        for old in self.scratch.glob("made-*"):
            with contextlib.suppress(OSError):
                if time.time() - old.stat().st_mtime > DAY:
                    shutil.rmtree(old)
        return Path(tempfile.mkdtemp(prefix="made-", dir=self.scratch)) / name

    # The interface for programs

    def api_translate(self, text: str, pair: str = "") -> str:
        """Translate a sentence with the model for a pair, `en-de` for instance; with the first if that is empty."""
        with told(page=False):
            (one,) = answers(self.named(pair).service.translate([limited(text)]))
            return str(one.text)

    def api_score(self, source: str, target: str, pair: str = "") -> float:
        """The natural log probability of the translation `target`."""
        with told(page=False):
            (one,) = answers(self.named(pair).service.score([limited(source)], [limited(target)]))
            return float(one.log_prob)

    def named(self, pair: str) -> Model:
        """The first model for a pair written `en-de`, or of this name or label. Raises DataError."""
        models = self.models.values()
        pairs, names = (["-".join(one.languages) for one in models], [one.name for one in models])
        for known in ([""], pairs, names, list(self.models)):
            if pair in known:
                return list(models)[known.index(pair)]
        raise DataError(f"no model for '{pair}': there are {', '.join(dict.fromkeys([*pairs, *names]))}")


def lines_of(path: str) -> list[str]:
    """The lines of an upload."""
    return list(decode_lines(io.BytesIO(Path(path).read_bytes()), Path(path).name))


def all_of(model: Model, lines: Sequence[str], progress: gr.Progress) -> list[str]:
    """The translations of many lines, a batch at a time, so that other visitors come in between."""
    found: list[str] = []
    for number, line in enumerate(lines, 1):
        if len(line) > LONGEST:
            raise DataError(
                f"sentence {number:,} has {len(line):,} letters, at most {LONGEST:,} are allowed: break it in two"
            )
    for start in range(0, len(lines), model.service.batch):
        progress((start, len(lines)), unit="sentences")
        some = lines[start : start + model.service.batch]
        found += [one.text for one in answers(patiently(partial(model.service.translate, some)))]
    return found
