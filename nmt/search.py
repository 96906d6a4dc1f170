"""From a step to translations: beam search, greedy search (a beam of 1) and sampling, for one model or several.

    score(y) = log p(y) / lp(y) + β Σ_i log min(Σ_t a_ti, 1)       (Wu et al. 2016, eq. 14)
    lp(y) = ((5 + |y|) / 6)^α

Search knows a step, `step(tokens (N,), state) -> (log_probs (N, V), state)`, and a state whose hypotheses can be
selected and whose sources can be dropped; nothing of models. Hypotheses stand grouped by source: N = B·K. A source
whose search has ended is dropped, so that late steps run on few rows.

Letters: B open sources, K hypotheses of each, N rows, V vocabulary, S source length, C candidates.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor

COLD = 1e-6  # a temperature as good as 0, by which scores cannot be divided
SIZE = 16  # of the groups of columns that `largest` looks at


class SearchState(Protocol):
    """What search asks of a state."""

    @property
    def attention(self) -> Tensor | None:
        """The weights (N, T, S) of the last step, if there are any."""

    def select(self, rows: Tensor) -> Self:
        """Hypotheses by number (N',), the same count for each source in order."""

    def keep(self, sources: Tensor) -> Self:
        """Only these sources (B',)."""


S = TypeVar("S", bound=SearchState)
Step = Callable[[Tensor, S], tuple[Tensor, S]]


@runtime_checkable
class Whole(Protocol):
    """A step that can also go on greedily to the end by itself, sooner than step by step."""

    def greedy(self, begin: int, state: Any, longest: int, shortest: int) -> tuple[list[int], list[float]]:
        """The pieces that follow for one source, with EOS unless it is still open, and their log p.

        It knows EOS and what is never written.
        """


@dataclass(frozen=True)
class Options:
    """How to search."""

    method: str = "beam"
    beam: int = 5
    nbest: int = 1
    length_penalty: float = 1.0
    coverage_penalty: float = 0.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    @property
    def width(self) -> int:
        """Hypotheses K held open for each source."""
        if self.method == "sample":
            return self.nbest
        return 1 if self.method == "greedy" else max(self.beam, self.nbest)

    @property
    def plainly_greedy(self) -> bool:
        return self.width == 1 and self.method != "sample" and not self.coverage_penalty


@dataclass(frozen=True)
class Request:
    """One source to search for: the limits of its translation, in pieces without EOS, and how that has to begin.

    `after` are the places behind the prefix, each with the pieces that may come there and the place, a later one, that
    each leads to; behind the last one all may come.
    """

    longest: int
    shortest: int = 0
    prefix: Sequence[int] = ()
    after: Sequence[Mapping[int, int]] = ()
    source: Sequence[int] = ()  # seeds sampling, so that a sentence is sampled the same in any batch


@dataclass(frozen=True)
class Hypothesis:
    """A finished translation, without EOS. `log_probs` has one entry more, for EOS."""

    ids: list[int]
    score: float
    log_probs: list[float]
    attention: Tensor | None = None  # (len(ids) + 1, S)


class _Record(NamedTuple):
    """What one step added to each row. Hypotheses are read back through the parents."""

    parents: list[int]  # (N,), rows of the record before
    tokens: list[int]  # (N,)
    log_probs: list[float]  # (N,)
    attention: Tensor | None  # (rows before, S)


def lp(length: int, alpha: float) -> float:
    """The length penalty of a translation of so many pieces, its end among them."""
    return float(((5 + length) / 6) ** alpha)


@torch.inference_mode()
def search(
    step: Step[S],
    state: S,
    requests: Sequence[Request],
    options: Options,
    bos: int,
    eos: int,
    never: Sequence[int] = (),
    attention: bool = False,
    device: torch.device | None = None,
) -> list[list[Hypothesis]]:
    """The best `options.nbest` translations of each source, best first.

    `state` is the state before the first piece, one row per request; `never` are ids that are not written. With
    `attention` the hypotheses carry the attention weights.
    """
    if len(requests) == 1 and isinstance(step, Whole) and options.plainly_greedy and not attention:
        (one,) = requests
        if not one.prefix and not one.after:
            ids, log_p = step.greedy(bos, state, one.longest, one.shortest)
            if ids and ids[-1] == eos:
                return [[Hypothesis(ids[:-1], sum(log_p) / lp(len(ids), options.length_penalty), log_p)]]
    run = _Search(state, requests, options, eos, never, attention, device)
    tokens = torch.full((len(requests),), bos, device=device)
    while run.open:
        log_probs, run.state = step(tokens, run.state)  # (N, V)
        tokens = run.advance(run.constrain(log_probs))
    return [sorted(found, key=lambda h: -h.score)[: options.nbest] for found in run.done]


class _Search(Generic[S]):
    """The moving parts of one search over a batch."""

    def __init__(
        self,
        state: S,
        requests: Sequence[Request],
        options: Options,
        eos: int,
        never: Sequence[int],
        attention: bool,
        device: torch.device | None,
    ) -> None:
        self.state = state
        self.requests = requests
        self.options = options
        self.eos = eos
        self.never = torch.tensor(list(never), dtype=torch.long, device=device)
        # between these positions every source is free
        self.begun = max(max(len(one.prefix) + len(one.after), one.shortest) for one in requests) if requests else 0
        self.ending = min((one.longest for one in requests), default=0)
        self.attention = attention
        self.open = list(range(len(requests)))  # numbers of the open sources, B
        self.done: list[list[Hypothesis]] = [[] for _ in requests]
        self.total = torch.zeros(len(requests), 1, device=device)  # (B, K), log p so far
        self.ended = torch.zeros(len(requests), 1, dtype=torch.bool, device=device)  # (B, K), samples that ended
        self.records: list[_Record] = []
        self.coverage: Tensor | None = None  # (N, S), attention summed over the steps
        self.generators = [torch.Generator().manual_seed(_seed(options.seed, request)) for request in requests]

    def constrain(self, log_probs: Tensor) -> Tensor:
        """(N, V) with what may not come next at minus infinity. A prefix may have what is never written."""
        position, width = len(self.records), self.total.size(1)
        if self.begun <= position < self.ending:
            return log_probs.index_fill_(1, self.never, -torch.inf)
        forced: list[tuple[int, list[int], Tensor]] = []
        for place, number in enumerate(self.open):
            request = self.requests[number]
            rows = range(place * width, (place + 1) * width)
            bound = [(row, only) for row in rows if (only := self._only(request, row))]
            forced += [(row, only, log_probs[row, only].clone()) for row, only in bound]
            if position < request.shortest:
                log_probs[rows.start : rows.stop, self.eos] = -torch.inf
        log_probs.index_fill_(1, self.never, -torch.inf)
        for row, only, kept in forced:
            log_probs[row] = -torch.inf
            log_probs[row, only] = kept
        return log_probs

    def _only(self, request: Request, row: int) -> list[int]:
        """The pieces that a row is bound to; none where it is free."""
        position = len(self.records)
        if position < len(request.prefix):
            return [request.prefix[position]]
        place, written = 0, position - len(request.prefix)
        if written < len(request.after):  # each piece leads at least a place further
            for piece in [record.tokens[at] for record, at in islice(self._back(row), written)][::-1]:
                if place < len(request.after):
                    place = request.after[place].get(piece, len(request.after))
            if place < len(request.after):
                return list(request.after[place])
        return [self.eos] if position >= request.longest else []

    def _back(self, row: int) -> Iterator[tuple[_Record, int]]:
        """The steps that led to a row, the last one first, each with the row of its record."""
        for record in reversed(self.records):
            yield record, row
            row = record.parents[row]

    def advance(self, log_probs: Tensor) -> Tensor:
        """Choose the next pieces, move the state to them, drop what is done; the pieces (N',) to go on with."""
        weights = None if self.state.attention is None else self.state.attention[:, -1]  # (N, S)
        if self.options.coverage_penalty and weights is not None:
            before = self.coverage[self.records[-1].parents] if self.coverage is not None else 0.0
            self.coverage = before + weights
        looks = weights if self.attention else None
        if self.options.width == 1 and self.options.method != "sample":
            return self._greedy(log_probs, weights, looks)
        choose = self._sample if self.options.method == "sample" else self._expand
        parents, tokens, single = choose(log_probs, weights)
        self.records.append(_Record(parents.tolist(), tokens.tolist(), single.tolist(), looks))
        if self.options.width > 1:  # else each hypothesis stays where it is
            self.state = self.state.select(parents.to(log_probs.device))
        return self._drop(tokens.to(log_probs.device))

    def _greedy(self, log_probs: Tensor, weights: Tensor | None, looks: Tensor | None) -> Tensor:
        """All of a step for a beam of 1, with the least work: the same as `_expand`."""
        single, tokens = log_probs.max(dim=1)  # (B,)
        self.total = self.total + single.unsqueeze(1)
        chosen, log_p = tokens.tolist(), single.tolist()
        ending = [place for place, token in enumerate(chosen) if token == self.eos]
        for place in ending:  # before this step is recorded: a hypothesis is read back from the one before its end
            self._finish(place, place, float(self.total[place]), log_p[place], weights)
        self.records.append(_Record(list(range(len(chosen))), chosen, log_p, looks))
        return self._drop(tokens) if ending else tokens

    def _expand(self, log_probs: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """One step of the beam: parent rows, pieces and their log p, each (N',)."""
        (count, width), vocab = self.total.shape, log_probs.size(1)
        totals = (self.total.unsqueeze(2) + log_probs.view(count, width, vocab)).view(count, -1)  # (B, K·V)
        # one hypothesis can end only once, so the best 2K candidates hold K that go on
        candidates = largest(totals, min(2 * self.options.width, totals.size(1)))
        of_each = log_probs.view(count, -1).gather(1, candidates[1])
        # so few numbers are quicker in numpy, and leave a GPU at once
        best, flat, single = (x.cpu().numpy() for x in (*candidates, of_each))  # (B, C)
        rows, tokens = np.divmod(flat, vocab)
        rows += np.arange(count)[:, None] * width
        ends = tokens == self.eos
        alive = min(self.options.width, width * (vocab - 1))
        if ends.any():
            for place, rank in np.argwhere((ends & np.isfinite(best))[:, : self.options.width]).tolist():
                total, last = float(best[place, rank]), float(single[place, rank])
                self._finish(place, int(rows[place, rank]), total, last, weights)
            best = np.where(ends, -np.inf, best)
            order = np.arange(count)[:, None], ends.argsort(axis=1, kind="stable")  # those that go on, best first
            best, rows, tokens, single = (x[order] for x in (best, rows, tokens, single))
        self.total = torch.from_numpy(best[:, :alive]).to(log_probs)  # (B, K')
        parents, pieces, log_p = (torch.from_numpy(x[:, :alive].flatten()) for x in (rows, tokens, single))
        return parents, pieces, log_p

    def _sample(self, log_probs: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """One step of sampling, with the same result; the samples of a source all start from its one row."""
        rows = torch.arange(log_probs.size(0), device=log_probs.device)
        width = self.options.width
        if not self.records:
            rows = rows.repeat_interleave(width)
            self.total = self.total.repeat(1, width)
            self.ended = self.ended.repeat(1, width)
        probs = filtered(log_probs, self.options).cpu()
        drawn = [
            int(torch.multinomial(probs[row], 1, generator=self.generators[self.open[place // width]]))
            for place, row in enumerate(rows.tolist())
        ]
        tokens = torch.tensor(drawn, device=log_probs.device)
        single = log_probs[rows, tokens]  # (N,)
        self.total = self.total + single.view_as(self.total).masked_fill(self.ended, 0.0)
        fresh = (tokens == self.eos).view_as(self.ended) & ~self.ended
        for place, sample in fresh.nonzero().tolist():
            flat = place * width + sample
            total, last = float(self.total[place, sample]), float(single[flat])
            self._finish(place, int(rows[flat]), total, last, weights)
        self.ended = self.ended | fresh  # an ended sample idles until the others of its source have ended
        return rows, tokens, single

    def _finish(self, place: int, row: int, total: float, last: float, weights: Tensor | None) -> None:
        """Read the hypothesis in `row` back through the records and put it with the finished ones of its source."""
        ids: list[int] = []
        log_probs = [last]
        looks = [weights[row]] if self.attention and weights is not None else []
        for record, at in self._back(row):
            ids.append(record.tokens[at])
            log_probs.append(record.log_probs[at])
            if record.attention is not None:
                looks.append(record.attention[record.parents[at]])
        score = total / lp(len(log_probs), self.options.length_penalty)
        if self.coverage is not None:
            covered = self.coverage[row].clamp(max=1.0)
            score += self.options.coverage_penalty * float(covered[covered > 0].log().sum())  # padding has 0
        looked = torch.stack(looks[::-1]).cpu() if looks else None
        self.done[self.open[place]].append(Hypothesis(ids[::-1], score, log_probs[::-1], looked))

    def _drop(self, tokens: Tensor) -> Tensor:
        """Close the sources that have what they need; the tokens of the others."""
        if self.options.method == "sample":
            going = (~self.ended).any(1).tolist()
        else:
            alive = np.isfinite(self.total.cpu().numpy()).any(axis=1)
            going = [
                alive[place] and len(self.done[number]) < self.options.width for place, number in enumerate(self.open)
            ]
        if all(going):
            return tokens
        keep = torch.tensor(going, device=tokens.device).nonzero().flatten()  # (B',)
        rows = torch.arange(tokens.numel(), device=tokens.device).view(len(going), -1)[keep].flatten()  # (N',)
        last = self.records[-1]
        kept = rows.tolist()
        self.records[-1] = _Record(
            [last.parents[row] for row in kept],
            [last.tokens[row] for row in kept],
            [last.log_probs[row] for row in kept],
            last.attention,
        )
        self.state = self.state.keep(keep)
        self.total, self.ended = self.total[keep], self.ended[keep]
        self.open = [number for number, goes in zip(self.open, going, strict=True) if goes]
        return tokens[rows]


def largest(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`x.topk(count)` of rows (N, V), but for the order of equals: on a CPU in half the time or less.

    The columns stand in groups of SIZE, and the groups with the largest maxima hold the largest numbers.
    """
    groups, vocab = x.size(1) // SIZE, x.size(1)
    if groups < count:
        values, columns = x.topk(count, dim=1)
        return values, columns
    maxima = x[:, : SIZE * groups].view(len(x), SIZE, groups).amax(1)
    best = maxima.topk(count, dim=1).indices.unsqueeze(1)  # (N, 1, count)
    members = (best + torch.arange(0, SIZE * groups, groups, device=x.device).unsqueeze(1)).flatten(1)
    rest = torch.arange(SIZE * groups, vocab, device=x.device).expand(len(x), -1)  # in no group
    columns = torch.cat([members, rest], dim=1)  # (N, SIZE·count + rest)
    values, places = x.gather(1, columns).topk(count, dim=1)
    return values, columns.gather(1, places)


def filtered(log_probs: Tensor, options: Options) -> Tensor:
    """The distribution (N, V) that is sampled: temperature, top-k, top-p (Holtzman et al. 2020), in this order."""
    if options.temperature < COLD:
        return torch.zeros_like(log_probs).scatter_(1, log_probs.argmax(1, keepdim=True), 1.0)
    scores = log_probs / options.temperature
    if options.top_k:
        least = scores.topk(min(options.top_k, scores.size(1)), dim=1).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    probs = scores.softmax(dim=1)
    if options.top_p < 1:
        ordered, order = probs.sort(dim=1, descending=True)
        before = ordered.cumsum(dim=1) - ordered  # the mass before a piece, so that the first one always stays
        probs = probs.masked_fill((before >= options.top_p).gather(1, order.argsort(1)), 0.0)
    return probs / probs.sum(dim=1, keepdim=True)


def _seed(seed: int, request: Request) -> int:
    return zlib.crc32(repr((seed, list(request.source))).encode())


@dataclass(frozen=True)
class Joined:
    """The states of several models that search together."""

    states: tuple[SearchState, ...]

    @property
    def attention(self) -> Tensor | None:
        """That of the first model that has one."""
        return next((state.attention for state in self.states if state.attention is not None), None)

    def select(self, rows: Tensor) -> Joined:
        return Joined(tuple(state.select(rows) for state in self.states))

    def keep(self, sources: Tensor) -> Joined:
        return Joined(tuple(state.keep(sources) for state in self.states))


def ensemble(steps: Sequence[Step[SearchState]]) -> Step[Joined]:
    """One step of several: the mean of their probabilities."""

    def step(tokens: Tensor, state: Joined) -> tuple[Tensor, Joined]:
        pairs = [single(tokens, part) for single, part in zip(steps, state.states, strict=True)]
        mean = torch.stack([log_probs for log_probs, _ in pairs]).logsumexp(0) - math.log(len(pairs))
        return mean, Joined(tuple(part for _, part in pairs))

    return step


def fused(step: Step[Any], language_model: Step[Any], weight: float) -> Step[Joined]:
    """Shallow fusion (Gulcehre et al. 2015, section 4.1): log p + weight · log p of a language model."""

    def joined(tokens: Tensor, state: Joined) -> tuple[Tensor, Joined]:
        log_probs, own = step(tokens, state.states[0])
        said, other = language_model(tokens, state.states[1])
        return log_probs + weight * said, Joined((own, other))

    return joined
