"""Text in, text out: a trained model, or several together, as a `Translator`.

    Translator.load("runs/multi30k-en-de").translate(["A dog runs."])

The command line, the page and the validation during training all translate through this.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nmt import checkpoint, hardware
from nmt.consensus import ranked
from nmt.data import by_length, collate, pad
from nmt.document import gap
from nmt.engine import Engine, Native, Reminding
from nmt.errors import CallError
from nmt.examples import Examples
from nmt.model import Seq2Seq, build
from nmt.portable import Portable
from nmt.progress import say
from nmt.recipe import Recipe, Search, changed
from nmt.search import Hypothesis, Joined, Options, Request, SearchState, Step, ensemble, fused, lp, search
from nmt.tokenizer import BOS, EOS, NEVER, UNK, Tokenizer

CHUNK = 2048  # lines translated together, so that a file of any size takes constant memory
WORKERS = 8  # batches searched at once; with more they would wait for each other in Python
ENDS = tuple(".!?;…。！？；।॥۔؟؛።፧")  # a line that is too long is cut after one of these, if it can be
CLOSING = "\"'”’»)]」』）"  # which may stand behind an end
SHORTEST = 16  # pieces that a sentence counts as at least, after `nmt remember`
SCORED = 10_000  # pieces of a line that is scored, at most: what attention takes grows with their square
_BREAKS = str.maketrans("\n\r\0", "   ")  # a model that spells bytes may write these: a translation is one line
_WORDS = re.compile(r"\S*?[…。！？；]+\s*|\S+\s*")  # with the space after them; some scripts have none


@dataclass(frozen=True)
class Translation:
    """One translation. `score` is what search ranks by: log p over the length penalty.

    `log_probs` has an entry per piece and one for the end of the sentence. In a line that was translated in parts, the
    end of a part counts with the piece before it. With a language model they are sums of both, not probabilities.

    `attention` (len(tokens) + 1, len(source_tokens) + 1) has a row per piece and one for the end of the sentence, a
    column per source piece and one for its end; None for a model without attention, for a line in parts, or where it
    was not asked for.
    """

    text: str
    score: float
    tokens: list[str]
    log_probs: list[float]
    source_tokens: list[str]
    attention: Tensor | None = field(default=None, compare=False)
    alternatives: list[Translation] = field(default_factory=list)


def distinct(found: Iterable[Translation]) -> list[Translation]:
    """The first of each text."""
    first: dict[str, Translation] = {}
    for one in found:
        first.setdefault(one.text, one)
    return list(first.values())


def nbest_texts(translation: Translation, nbest: int) -> list[str]:
    """Exactly so many texts, the best first; where search found fewer, the last one again."""
    texts = [one.text for one in (translation, *translation.alternatives)][:nbest]
    return texts + texts[-1:] * (nbest - len(texts))


def to_json(translation: Translation) -> dict[str, Any]:
    """A translation as plain values."""
    return {
        "text": translation.text,
        "score": translation.score,
        "tokens": translation.tokens,
        "log_probs": translation.log_probs,
        "source_tokens": translation.source_tokens,
        "alternatives": [to_json(one) for one in translation.alternatives],
    }


@dataclass(frozen=True)
class Scored:
    """A given translation under forced decoding: natural log probabilities."""

    log_prob: float
    tokens: list[str]
    log_probs: list[float]


@dataclass(frozen=True)
class Alternative:
    """A piece that may come next, its probability, and the translation it leads to."""

    piece: str
    probability: float
    translation: Translation


@dataclass(frozen=True)
class Member:
    """One model with its tokenizers."""

    model: Seq2Seq | Engine
    source: Tokenizer
    target: Tokenizer
    stamp: str = ""  # of the folder that it comes from
    examples: Examples | None = None  # of what it has read, to look at

    @classmethod
    def load(cls, saved: checkpoint.Saved[Recipe], machine: hardware.Hardware) -> Member:
        """The model of a folder, without its examples. Raises CheckpointError; CallError without onnxruntime."""
        source, target = (Tokenizer.load(saved.folder / f"{side}.model") for side in ("source", "target"))
        if saved.exported:
            return cls(Portable(saved.folder, machine.threads), source, target, saved.stamp)
        model = build(saved.recipe, source.vocab, target.vocab)
        checkpoint.restore(model, saved.weights(), saved.folder)
        return cls(model.to(machine.device).eval(), source, target, saved.stamp)


@dataclass(frozen=True)
class _Part:
    """A stretch of a line that is searched for at once."""

    line: int
    text: str
    ids: tuple[list[int], ...]  # for each member
    prefix: list[int] = field(default_factory=list)
    after: Sequence[Mapping[int, int]] = ()  # as a Request has it


@dataclass(frozen=True)
class Fusion:
    """A language model that has a say in search: its step, and where it starts for so many sources."""

    step: Step[Any]
    start: Callable[[int], SearchState]
    fingerprint: str  # of its pieces


class Translator:
    """Translates with one model, or the mean of several that write the same pieces.

    `fusion` is the language model that `search.language_model` names, `back` the translator that `search.reverse`
    names; `nmt.run.translator` puts them there.
    """

    fusion: Fusion | None = None
    back: Translator | None = None

    def __init__(self, members: Sequence[Member], settings: Search, device: torch.device, recipe: Recipe) -> None:
        self.members = list(members)
        self.engines = [_engine(member, settings) for member in self.members]
        reminded = any(isinstance(engine, Reminding) for engine in self.engines)
        self._shortest = SHORTEST if reminded else 1  # what each looks at takes memory, however short it is
        if reminded:
            settings = settings.model_copy(
                update={"length_penalty": settings.length_penalty + settings.examples_penalty}
            )
        self.settings = settings
        self.device = device
        self.recipe = recipe
        first = self.members[0]
        for member in self.members[1:]:
            if member.target.fingerprint != first.target.fingerprint:
                raise CallError(
                    "the models of an ensemble must write the same target pieces, these have different vocabularies: "
                    "train them with the same tokenizer on the same data"
                )
        # of others the columns of attention would be other pieces
        self._read_alike = all(member.source.fingerprint == first.source.fingerprint for member in self.members)

    @classmethod
    def load(
        cls, folders: str | Path, device: str = "auto", threads: int | None = None, changes: Sequence[str] = ()
    ) -> Translator:
        """Open a model folder, or an ensemble written `runs/a+runs/b`, with `search.x=y` changes to how it searches.

        Raises CheckpointError, CallError, RecipeError.
        """
        saved = [checkpoint.read(folder) for folder in checkpoint.split(folders)]
        pairs = {one.folder: (one.recipe.data.source, one.recipe.data.target) for one in saved}
        if len(set(pairs.values())) > 1:
            said = ", ".join(f"{folder} translates {source} to {target}" for folder, (source, target) in pairs.items())
            raise CallError(f"an ensemble is of one pair of languages, but {said}")
        device = "cpu" if any(one.exported for one in saved) else device
        machine = hardware.choose(device, "float32", threads)
        members = [Member.load(one, machine) for one in saved]
        recipe = changed(saved[0].recipe, changes)
        if recipe.search.examples:
            members = [
                replace(member, examples=Examples.read(one.folder, member.stamp))
                for member, one in zip(members, saved, strict=True)
            ]
        return cls(members, recipe.search, machine.device, recipe)

    @property
    def models(self) -> list[list[Any]]:
        """Of each model, which one it is and at how many pairs it looks."""
        return [[one.stamp, len(one.examples) if one.examples else 0] for one in self.members]

    def adjusted(self, changes: Sequence[str]) -> Translator:
        """The same models with `search.x=y` changes to how they search.

        Raises RecipeError, and CallError where that needs what was not opened with them.
        """
        if not changes:
            return self
        recipe = changed(self.recipe, changes)
        old, new = self.recipe.search, recipe.search
        if new.examples and not old.examples:
            raise CallError(f"search.examples={new.examples}: open the model with it, it was opened without examples")
        other = Translator(self.members, new, self.device, recipe)
        other.fusion = self.fusion if new.language_model == old.language_model else None
        other.back = self.back if new.reverse == old.reverse else None
        return other

    def translate(
        self,
        lines: Sequence[str],
        nbest: int = 1,
        prefixes: Sequence[str] | None = None,
        attention: bool = False,
        settings: Search | None = None,
        warn: Callable[[str], None] = say,
        first_line: int = 1,
    ) -> list[Translation]:
        """Translate each line; an empty line stays empty.

        `prefixes` are how the translations must begin; one may end within a word. With `nbest` above 1 each translation
        carries the others as `alternatives`, fewer where not so many differ. A line longer than `settings.max_source`
        pieces is translated in parts, and `warn` is told its number, counted from `first_line`. `settings` are taken as
        they stand, in place of this translator's own. Raises CallError.
        """
        settings = settings or self.settings
        _check(lines, nbest, prefixes, settings)
        self._check_opened(settings)
        parts = self._parts(lines, prefixes, settings, warn, first_line)
        found: list[list[Hypothesis]] = [[] for _ in parts]
        several = (settings.mbr > 0 or settings.reverse is not None) and settings.method != "greedy"
        count = max(nbest, settings.beam) if several else nbest
        width = max(settings.beam if settings.method == "beam" else 1, count)
        lengths = [max(self._shortest, len(part.ids[0])) + 1 for part in parts]
        groups = list(by_length(lengths, max(1, settings.batch_tokens // width)))
        for group, searched in zip(groups, self._searched(parts, groups, count, attention, settings), strict=True):
            for place, hypotheses in zip(group, searched, strict=True):
                found[place] = hypotheses
        if several:
            found = self._judged(parts, found, settings)
        by_line: list[list[tuple[_Part, list[Hypothesis]]]] = [[] for _ in lines]
        for part, hypotheses in zip(parts, found, strict=True):
            by_line[part.line].append((part, hypotheses))
        return [self._translation(pairs, nbest, settings.method == "sample") for pairs in by_line]

    def stream(self, lines: Iterable[str], nbest: int = 1, settings: Search | None = None) -> Iterator[Translation]:
        """Translate lines as they come, in constant memory."""
        chunk: list[str] = []
        done = 0
        for line in lines:
            chunk.append(line)
            if len(chunk) == CHUNK:
                yield from self.translate(chunk, nbest, settings=settings, first_line=done + 1)
                done += len(chunk)
                chunk = []
        yield from self.translate(chunk, nbest, settings=settings, first_line=done + 1)

    @torch.inference_mode()
    def score(self, sources: Sequence[str], targets: Sequence[str], first_line: int = 1) -> list[Scored]:
        """log p(target | source) by forced decoding; an ensemble's is the mean probability of each piece.

        Raises CallError for a pair that is too long, with its number, counted from `first_line`.
        """
        if len(sources) != len(targets):
            raise CallError(f"{len(sources)} sources and {len(targets)} translations: give one for each")
        texts = [member.source.encode(sources) for member in self.members]
        pieces = self.members[0].target.encode(targets)
        found: list[Scored | None] = [None] * len(sources)
        lengths = [max(self._shortest, *map(len, ids)) + 1 for ids in zip(*texts, pieces, strict=True)]
        for number, length in enumerate(lengths, first_line):
            if length > SCORED:
                raise CallError(f"line {number} has {length:,} pieces, at most {SCORED:,} are scored: break it in two")
        for group in by_length(lengths, self.settings.batch_tokens):
            golds = []
            for engine, ids in zip(self.engines, texts, strict=True):
                batch = collate([ids[i] for i in group], [pieces[i] for i in group]).to(self.device)
                golds.append(engine.log_probs(batch).cpu().double())  # (B, T)
            mean = torch.stack(golds).logsumexp(0) - torch.log(torch.tensor(float(len(golds))))
            for row, place in enumerate(group):
                log_probs = mean[row, : len(pieces[place]) + 1].tolist()
                tokens = self.members[0].target.split(targets[place])
                found[place] = Scored(sum(log_probs), tokens, log_probs)
        return [one for one in found if one is not None]

    def alternatives(self, line: str, pieces: Sequence[str], count: int = 8) -> list[Alternative]:
        """What may come after `pieces`, the beginning of a translation of the line: the likeliest first.

        The end of the sentence is the piece "". Raises CallError for pieces that the model does not have, and for a
        line that is empty or longer than `search.max_source`.
        """
        target = self.members[0].target
        prefix = target.ids(pieces)
        sources = tuple(member.source.encode([line])[0] for member in self.members)
        lengths = [len(ids) for ids in sources]
        if not all(lengths) or max(lengths) > self.settings.max_source:
            raise CallError(f"the line has {max(lengths)} pieces: give one of 1 to {self.settings.max_source}")
        likely = self._next(_Part(0, line, sources, prefix), count)
        parts = [_Part(0, line, sources, [*prefix, piece]) for piece, _ in likely]
        greedy = self.settings.model_copy(update={"method": "greedy"})
        found = self._search(parts, 1, self._read_alike, greedy)
        return [
            Alternative(
                "" if piece == EOS else target.pieces([piece])[0], probability, self._joined([(part, hypotheses)], 0)
            )
            for (piece, probability), part, hypotheses in zip(likely, parts, found, strict=True)
        ]

    @torch.inference_mode()
    def _next(self, part: _Part, count: int) -> list[tuple[int, float]]:
        """The likeliest pieces after a prefix, and their probabilities."""
        step, state = self._start([part], self.settings)
        log_probs = torch.empty(0)
        for piece in [BOS, *part.prefix]:
            log_probs, state = step(torch.tensor([piece], device=self.device), state)
        log_probs = log_probs.log_softmax(1)  # with a language model it is a sum of two
        log_probs[:, NEVER] = -torch.inf
        best, ids = log_probs[0].topk(min(count, log_probs.size(1) - len(NEVER)))
        return list(zip(ids.tolist(), best.exp().tolist(), strict=True))

    def _parts(
        self,
        lines: Sequence[str],
        prefixes: Sequence[str] | None,
        settings: Search,
        warn: Callable[[str], None],
        first_line: int,
    ) -> list[_Part]:
        sources = [member.source for member in self.members]
        encoded = [source.encode(lines) for source in sources]
        begun = self._begun(prefixes) if prefixes is not None else [([], [])] * len(lines)
        parts = []
        for number, line in enumerate(lines):
            ids = tuple(texts[number] for texts in encoded)
            if not line.strip() or not all(ids):
                continue
            pieces = max(map(len, ids))
            if pieces <= settings.max_source:
                parts.append(_Part(number, line, ids, *begun[number]))
                continue
            texts = [text for text in _cut(line, sources, settings.max_source) if text.strip()]
            warn(
                f"line {first_line + number} has {pieces} pieces, more than search.max_source={settings.max_source}: "
                f"translated in {len(texts)} parts"
            )
            again = zip(*(source.encode(texts) for source in sources), strict=True)
            start: tuple[Any, ...] = begun[number]
            for text, ids in zip(texts, again, strict=True):
                if all(ids):
                    parts.append(_Part(number, text, ids, *start))
                    start = ()
        return parts

    def _begun(self, prefixes: Sequence[str]) -> list[tuple[list[int], list[dict[int, int]]]]:
        """The pieces that translations must begin with, and those that may follow."""
        begun = [self.members[0].target.beginning(prefix) for prefix in prefixes]
        for prefix, (ids, _) in zip(prefixes, begun, strict=True):
            if UNK in ids:
                raise CallError(f"the prefix '{prefix}' has characters that this model cannot write")
        return begun

    def _searched(
        self, parts: Sequence[_Part], groups: Sequence[Sequence[int]], nbest: int, attention: bool, settings: Search
    ) -> Iterable[list[list[Hypothesis]]]:
        """The hypotheses of each group of parts, several groups at once where the engines want that."""

        def search(group: Sequence[int]) -> list[list[Hypothesis]]:
            return self._search([parts[place] for place in group], nbest, attention and self._read_alike, settings)

        workers = min(WORKERS, len(groups), *(engine.workers for engine in self.engines))
        if workers < 2:
            return map(search, groups)
        with hardware.sharing(workers) as pool:
            return list(pool.map(search, groups))

    def _search(self, parts: Sequence[_Part], nbest: int, attention: bool, settings: Search) -> list[list[Hypothesis]]:
        requests = [
            Request(
                longest=max(int(settings.max_ratio * len(part.ids[0])) + settings.max_extra, len(part.prefix) + 1),
                shortest=int(settings.min_ratio * len(part.ids[0])),
                prefix=part.prefix,
                after=part.after,
                source=part.ids[0],
            )
            for part in parts
        ]
        options = Options(
            settings.method,
            settings.beam,
            nbest,
            settings.length_penalty,
            settings.coverage_penalty,
            settings.temperature,
            settings.top_k,
            settings.top_p,
            settings.seed,
        )
        pieces = self._shortlist(parts, settings)
        step, state = self._start(parts, settings, pieces)
        if pieces is None:
            return search(step, state, requests, options, BOS, EOS, NEVER, attention, self.device)
        place = {piece: number for number, piece in enumerate(pieces.tolist())}  # the special ones are the same in both
        requests = [
            replace(
                one,
                prefix=[place[i] for i in one.prefix],
                after=[{place[i]: then for i, then in ways.items()} for ways in one.after],
            )
            for one in requests
        ]
        found = search(step, state, requests, options, BOS, EOS, NEVER, attention, self.device)
        return [[replace(one, ids=pieces[one.ids].tolist()) for one in each] for each in found]

    def _shortlist(self, parts: Sequence[_Part], settings: Search) -> Tensor | None:
        """The pieces (L,) that a search for these parts may write; None for all."""
        engine, *others = self.engines
        if (
            others
            or settings.language_model is not None
            or not isinstance(engine, Portable)
            or engine.shortlist is None
        ):
            return None  # members of an ensemble have to speak of the same pieces
        begun = (ids for part in parts for ids in (part.prefix, *map(list, part.after)))
        return engine.shortlist.pieces([part.ids[0] for part in parts], begun)

    def _judged(
        self, parts: Sequence[_Part], found: Sequence[list[Hypothesis]], settings: Search
    ) -> list[list[Hypothesis]]:
        """The hypotheses of each part in the order that a reversed model and their consensus give them.

        score(y) + w log p(x | y) / lp(y)                        (Li et al. 2016, section 4.5; Yee et al. 2019)
        """
        target = self.members[0].target
        texts = [target.decode([one.ids for one in hypotheses]) for hypotheses in found]
        if settings.reverse is not None:
            if self.back is None:
                raise CallError("search.reverse: open the model with nmt.run.translator, which brings it in")
            sources = [part.text for part, lines in zip(parts, texts, strict=True) for _ in lines]
            scored = iter(self.back.score([line for lines in texts for line in lines], sources))
            found = [[_rescored(one, next(scored), settings) for one in hypotheses] for hypotheses in found]
        orders = [
            ranked(lines, [one.score for one in hypotheses], settings.mbr)
            if settings.mbr
            else sorted(range(len(hypotheses)), key=lambda place: -hypotheses[place].score)
            for lines, hypotheses in zip(texts, found, strict=True)
        ]
        return [[hypotheses[place] for place in order] for hypotheses, order in zip(found, orders, strict=True)]

    @torch.inference_mode()
    def _start(
        self, parts: Sequence[_Part], settings: Search, pieces: Tensor | None = None
    ) -> tuple[Step[Any], SearchState]:
        """The step of this translator, and its state before the first piece; `pieces` (L,) are all that it writes."""
        places: list[SearchState] = []
        for number, engine in enumerate(self.engines):
            ids = [[*part.ids[number], EOS] for part in parts]
            lengths = torch.tensor([len(row) for row in ids], device=self.device)
            source = pad(ids).to(self.device)
            if pieces is not None and isinstance(engine, Portable):
                places.append(engine.start(source, lengths, pieces))
            else:
                places.append(engine.start(source, lengths))
        steps: list[Step[Any]] = [*self.engines]
        step, place = (steps[0], places[0]) if len(steps) == 1 else (ensemble(steps), Joined(tuple(places)))
        if settings.language_model is None:
            return step, place
        if self.fusion is None:
            raise CallError("search.language_model: open the model with nmt.run.translator, which brings it in")
        weight = settings.language_model_weight
        return fused(step, self.fusion.step, weight), Joined((place, self.fusion.start(len(parts))))

    def _translation(self, pairs: Sequence[tuple[_Part, list[Hypothesis]]], nbest: int, drawn: bool) -> Translation:
        """Put the parts of a line together again, the n-th best of each.

        A text that was found in several spellings is there once, unless it was `drawn`.
        """
        if not pairs:
            return Translation("", 0.0, [], [], [])
        count = min(nbest, *(len(found) for _, found in pairs))
        found = [self._joined(pairs, rank) for rank in range(count)]
        best, *others = found if drawn else distinct(found)
        return replace(best, alternatives=others)

    def _joined(self, pairs: Sequence[tuple[_Part, list[Hypothesis]]], rank: int) -> Translation:
        target, source = self.members[0].target, self.members[0].source
        chosen = [found[rank] for _, found in pairs]
        texts = target.decode([hypothesis.ids for hypothesis in chosen])
        looks = [hypothesis.attention for hypothesis in chosen]
        ids = [i for hypothesis in chosen for i in hypothesis.ids]
        words = [piece for part, _ in pairs for piece in source.split(part.text)]
        attention = looks[0][:, : len(words) + 1] if len(looks) == 1 and looks[0] is not None else None
        return Translation(
            functools.reduce(_together, texts).translate(_BREAKS),
            sum(hypothesis.score for hypothesis in chosen) / len(chosen),
            target.pieces(ids),
            functools.reduce(_one_end, [hypothesis.log_probs for hypothesis in chosen]),
            words,
            attention,
        )

    def _check_opened(self, settings: Search) -> None:
        """Raises CallError where a call asks for other things than the models were opened with."""
        for key in ("examples", "precision", "language_model", "reverse"):
            given, own = getattr(settings, key), getattr(self.settings, key)
            if given != own and given is not None:
                raise CallError(f"search.{key} is {own} in this translator, not {given}: open another, or `adjusted`")


def _one_end(log_probs: list[float], more: list[float]) -> list[float]:
    """The log p of two parts of a line: the end of the first counts with the piece before it, or else after it."""
    *own, end = log_probs
    return [*own[:-1], own[-1] + end, *more] if own else [more[0] + end, *more[1:]]


def _together(text: str, more: str) -> str:
    """Two parts of a line as one."""
    return f"{text}{gap(text, more)}{more}"


def _rescored(one: Hypothesis, back: Scored, settings: Search) -> Hypothesis:
    share = back.log_prob / lp(len(one.log_probs), settings.length_penalty)
    return replace(one, score=one.score + settings.reverse_weight * share)


def _engine(member: Member, settings: Search) -> Engine:
    model, precision = member.model, settings.precision
    if isinstance(model, Seq2Seq):
        native = Native(model, precision)
        if member.examples is None or not settings.examples:
            return native
        return Reminding(native, member.examples, settings.examples)
    if precision != "float32":
        raise CallError(f"search.precision={precision}: an exported translator computes as `nmt export` rounded it")
    return model


def _check(lines: Sequence[str], nbest: int, prefixes: Sequence[str] | None, settings: Search) -> None:
    """Raises CallError for a call that cannot be answered."""
    if isinstance(lines, str):
        raise CallError(f"translate takes a list of lines, not one string: translate([{lines[:20]!r}])")
    if prefixes is not None and len(prefixes) != len(lines):
        raise CallError(f"{len(prefixes)} prefixes for {len(lines)} lines: give one for each, '' where it is free")
    if nbest < 1:
        raise CallError(f"nbest is {nbest}: ask for 1 or more")
    if nbest > 1 and settings.method == "greedy":
        raise CallError(f"search.method 'greedy' finds one translation, not {nbest}: use a beam, or 'sample'")


def _cut(line: str, tokenizers: Sequence[Tokenizer], limit: int) -> list[str]:
    """A line in parts of `limit` pieces of each at most: after a sentence if one ends there, else after a word."""

    def fits(text: str) -> bool:
        return all(len(tokenizer.encode([text])[0]) <= limit for tokenizer in tokenizers)

    parts: list[str] = []
    group: list[str] = []
    for word in _words(line, fits):
        while group and not fits("".join([*group, word])):
            ends = [at for at, one in enumerate(group, start=1) if one.rstrip().rstrip(CLOSING)[-1:] in ENDS]
            cut = ends[-1] if ends else len(group)
            parts.append("".join(group[:cut]))
            group = group[cut:]
        group.append(word)
    return [*parts, "".join(group)]


def _words(line: str, fits: Callable[[str], bool]) -> Iterator[str]:
    """The words of a line, each with the space after it; one that does not fit in halves."""
    todo = _WORDS.findall(line)[::-1]
    while todo:
        word = todo.pop()
        half = len(word) // 2
        if half and not fits(word):
            todo += [word[half:], word[:half]]
        else:
            yield word
