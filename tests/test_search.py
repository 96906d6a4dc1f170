"""Search over small hand-made steps: random tables that depend on the source and on the whole history."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from torch import Tensor

from nmt.search import SIZE, Hypothesis, Joined, Options, Request, Step, ensemble, filtered, largest, search

PAD, BOS, EOS = 0, 1, 2
V, S = 6, 4
NEVER = (PAD, BOS)
WORDS = (3, 4, 5)
SOURCES = [(4,), (3, 5), (5, 5, 3), (3,), (4, 4)]

History = tuple[int, ...]


@cache
def table(source: History, history: History, salt: int = 0) -> Tensor:
    """log p (V,) of what follows a history that begins with BOS."""
    draw = torch.Generator().manual_seed(hash((source, history, salt)) % 2**31)
    return (1.5 * torch.randn(V, generator=draw)).log_softmax(0)


@cache
def looks(source: History, history: History) -> Tensor:
    """Attention (S,) at the step after a history: nothing beyond the source's own length."""
    draw = torch.Generator().manual_seed(hash((history, source)) % 2**31)
    scores = 2 * torch.randn(S, generator=draw)
    return scores.masked_fill(torch.arange(S) > len(source), -torch.inf).softmax(0)


@dataclass(frozen=True)
class Toy:
    """A state that knows its sources and histories."""

    sources: tuple[History, ...]  # of the open sources, B
    histories: tuple[History, ...]  # of the rows, N
    attention: Tensor | None = None

    def select(self, rows: Tensor) -> Toy:
        looked = None if self.attention is None else self.attention[rows]
        return replace(self, histories=tuple(self.histories[row] for row in rows.tolist()), attention=looked)

    def keep(self, sources: Tensor) -> Toy:
        width = len(self.histories) // len(self.sources)
        rows = [place * width + k for place in sources.tolist() for k in range(width)]
        chosen = tuple(self.sources[place] for place in sources.tolist())
        return replace(self.select(torch.tensor(rows, dtype=torch.long)), sources=chosen)


class Steps:
    """The step of a toy model, which counts its rows."""

    def __init__(self, salt: int = 0, attends: bool = False) -> None:
        self.salt, self.attends = salt, attends
        self.rows: list[int] = []

    def __call__(self, tokens: Tensor, state: Toy) -> tuple[Tensor, Toy]:
        self.rows.append(len(tokens))
        assert len(tokens) == len(state.histories)
        width = len(state.histories) // len(state.sources)
        histories = tuple((*h, t) for h, t in zip(state.histories, tokens.tolist(), strict=True))
        owners = [state.sources[row // width] for row in range(len(histories))]
        log_probs = torch.stack([table(s, h, self.salt) for s, h in zip(owners, histories, strict=True)])
        looked = torch.stack([looks(s, h) for s, h in zip(owners, histories, strict=True)]).unsqueeze(1)
        return log_probs, Toy(state.sources, histories, looked if self.attends else None)


def start(sources: list[History]) -> Toy:
    return Toy(tuple(sources), ((),) * len(sources))


def find(
    options: Options,
    sources: list[History] | None = None,
    longest: int | list[int] = 4,
    attends: bool = False,
    salt: int = 0,
    **limits: object,
) -> list[list[Hypothesis]]:
    sources = SOURCES if sources is None else sources
    each = [longest] * len(sources) if isinstance(longest, int) else longest
    requests = [Request(n, source=s, **limits) for n, s in zip(each, sources, strict=True)]  # type: ignore[arg-type]
    return search(Steps(salt, attends), start(sources), requests, options, BOS, EOS, NEVER, attends)


def log_p(source: History, ids: list[int], salt: int = 0) -> list[float]:
    """log p of each piece and of the end."""
    given = [BOS, *ids]
    return [float(table(source, tuple(given[: at + 1]), salt)[token]) for at, token in enumerate([*ids, EOS])]


def penalised(log_probs: list[float], alpha: float) -> float:
    return sum(log_probs) / ((5 + len(log_probs)) / 6) ** alpha


def every(source: History, longest: int, alpha: float, shortest: int = 0) -> list[tuple[float, list[int]]]:
    """All translations with their scores, best first."""
    sequences = [list(ids) for n in range(shortest, longest + 1) for ids in itertools.product(WORDS, repeat=n)]
    return sorted(((penalised(log_p(source, ids), alpha), ids) for ids in sequences), reverse=True)


def greedily(source: History, longest: int, salt: int = 0) -> list[int]:
    ids: list[int] = []
    while len(ids) < longest:
        row = table(source, (BOS, *ids), salt).clone()
        row[list(NEVER)] = -torch.inf
        best = int(row.argmax())
        if best == EOS:
            break
        ids.append(best)
    return ids


def plain_beam(source: History, longest: int, width: int, alpha: float) -> list[tuple[float, list[int]]]:
    """Beam search with lists: a hypothesis ends when its end is among the best `width` candidates."""
    open_: list[tuple[float, list[int]]] = [(0.0, [])]
    done: list[tuple[float, list[int]]] = []
    while open_ and len(done) < width:
        candidates = []
        for total, ids in open_:
            row = table(source, (BOS, *ids))
            allowed = (EOS,) if len(ids) == longest else (EOS, *WORDS)
            candidates += [(total + float(row[token]), ids, token) for token in allowed]
        candidates.sort(key=lambda one: -one[0])
        for total, ids, token in candidates[:width]:
            if token == EOS:
                done.append((total / ((6 + len(ids)) / 6) ** alpha, ids))
        open_ = [(total, [*ids, token]) for total, ids, token in candidates if token != EOS][:width]
    return sorted(done, reverse=True)


def same(found: list[Hypothesis], expected: list[tuple[float, list[int]]]) -> None:
    assert [one.ids for one in found] == [ids for _, ids in expected]
    assert [one.score for one in found] == pytest.approx([score for score, _ in expected], rel=1e-4)


def flat(results: list[list[Hypothesis]]) -> list[list[list[int]]]:
    return [[one.ids for one in found] for found in results]


# -- beam and greedy


@pytest.mark.parametrize("longest", [0, 1, 3, 8])
@pytest.mark.parametrize("options", [Options("greedy"), Options("beam", beam=1)], ids=["greedy", "beam of 1"])
def test_greedy_takes_the_best_piece_each_time(options: Options, longest: int) -> None:
    found = find(options, longest=longest)
    assert flat(found) == [[greedily(source, longest)] for source in SOURCES]


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("longest", [0, 1, 3])
def test_full_width_equals_brute_force(alpha: float, longest: int) -> None:
    count = sum(len(WORDS) ** n for n in range(longest + 1))
    found = find(Options(beam=count, nbest=count, length_penalty=alpha), longest=longest)
    for source, hypotheses in zip(SOURCES, found, strict=True):
        same(hypotheses, every(source, longest, alpha))


@pytest.mark.parametrize("width", [2, 3, 5, 9])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("nbest", [1, 2, 9])
def test_beam_equals_a_plain_beam(width: int, alpha: float, nbest: int) -> None:
    limits = [5, 2, 6, 0, 3]
    found = find(Options(beam=width, nbest=nbest, length_penalty=alpha), longest=limits)
    for source, longest, hypotheses in zip(SOURCES, limits, found, strict=True):
        same(hypotheses, plain_beam(source, longest, max(width, nbest), alpha)[:nbest])


@pytest.mark.parametrize("options", [Options(beam=4, nbest=4), Options("sample", nbest=3), Options("greedy")])
def test_the_batch_does_not_matter(options: Options) -> None:
    """Finished sources are dropped on the way; each result is where its source was, as if it had been alone."""
    limits = [5, 1, 7, 0, 3]
    together = find(options, longest=limits, attends=True)
    turned = find(options, SOURCES[::-1], limits[::-1], attends=True)[::-1]
    for place, (source, longest) in enumerate(zip(SOURCES, limits, strict=True)):
        (alone,) = find(options, [source], [longest], attends=True)
        for hypotheses in (together[place], turned[place]):
            assert [one.ids for one in hypotheses] == [one.ids for one in alone]
            assert [one.score for one in hypotheses] == pytest.approx([one.score for one in alone])


@pytest.mark.parametrize("options", [Options(beam=3, nbest=3), Options("sample", nbest=3)])
def test_finished_sources_are_not_computed(options: Options) -> None:
    limits = [1, 6, 2, 4, 0]
    steps = Steps()
    requests = [Request(n, n, source=s) for n, s in zip(limits, SOURCES, strict=True)]  # none ends sooner
    search(steps, start(SOURCES), requests, options, BOS, EOS, NEVER)
    assert len(steps.rows) == max(limits) + 1
    for at, rows in enumerate(steps.rows):
        still = sum(n >= at for n in limits)
        assert rows == (still if at == 0 else still * options.width)


@pytest.mark.parametrize("method", ["beam", "greedy", "sample"])
def test_no_sources(method: str) -> None:
    assert find(Options(method), []) == []


@pytest.mark.parametrize("nbest", [1, 3, 6])
@pytest.mark.parametrize("beam", [1, 4])
def test_nbest_is_sorted_and_distinct(beam: int, nbest: int) -> None:
    for hypotheses in find(Options(beam=beam, nbest=nbest)):
        assert len(hypotheses) == nbest
        scores = [one.score for one in hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert len({tuple(one.ids) for one in hypotheses}) == nbest


# -- what a hypothesis says of itself


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("method", ["beam", "greedy", "sample"])
def test_scores_are_the_sum_of_the_steps_over_the_length_penalty(method: str, alpha: float) -> None:
    for source, hypotheses in zip(SOURCES, find(Options(method, 4, 4, alpha)), strict=True):
        for one in hypotheses:
            expected = log_p(source, one.ids)
            assert one.log_probs == pytest.approx(expected, rel=1e-4)
            assert one.score == pytest.approx(penalised(expected, alpha), rel=1e-4)


@pytest.mark.parametrize("method", ["beam", "greedy", "sample"])
@pytest.mark.parametrize("coverage", [0.0, 0.3])
def test_attention_is_that_of_forced_decoding(method: str, coverage: float) -> None:
    options = Options(method, 4, 3, coverage_penalty=coverage)
    for source, hypotheses in zip(SOURCES, find(options, longest=[5, 2, 6, 0, 3], attends=True), strict=True):
        for one in hypotheses:
            assert one.attention is not None
            given = (BOS, *one.ids)
            expected = torch.stack([looks(source, given[: at + 1]) for at in range(len(given))])
            torch.testing.assert_close(one.attention, expected)


def test_attention_only_when_asked_for() -> None:
    requests = [Request(3, source=source) for source in SOURCES]
    found = search(Steps(attends=True), start(SOURCES), requests, Options(), BOS, EOS, NEVER)
    assert all(one.attention is None for hypotheses in found for one in hypotheses)
    found = search(Steps(attends=False), start(SOURCES), requests, Options(), BOS, EOS, NEVER, attention=True)
    assert all(one.attention is None for hypotheses in found for one in hypotheses)


@pytest.mark.parametrize("method", ["beam", "greedy", "sample"])
def test_coverage_penalty_equals_the_formula(method: str) -> None:
    options = Options(method, 4, 3, 0.7, coverage_penalty=0.4)
    for source, hypotheses in zip(SOURCES, find(options, longest=[5, 2, 6, 0, 3], attends=True), strict=True):
        for one in hypotheses:
            assert one.attention is not None
            real = one.attention[:, : len(source) + 1].sum(0)
            coverage = sum(math.log(min(value, 1.0)) for value in real.tolist())
            assert one.score == pytest.approx(penalised(one.log_probs, 0.7) + 0.4 * coverage, rel=1e-4)


def test_coverage_needs_attention_and_is_ignored_without() -> None:
    one, other = find(Options(coverage_penalty=0.5)), find(Options())
    assert [h.score for found in one for h in found] == [h.score for found in other for h in found]


# -- limits


@pytest.mark.parametrize("method", ["beam", "greedy", "sample"])
@pytest.mark.parametrize(("shortest", "longest"), [(0, 0), (0, 2), (2, 2), (3, 5), (5, 3)])
def test_lengths_are_obeyed(method: str, shortest: int, longest: int) -> None:
    for hypotheses in find(Options(method, nbest=4), longest=longest, shortest=shortest):
        assert hypotheses
        for one in hypotheses:
            assert min(shortest, longest) <= len(one.ids) <= longest


@pytest.mark.parametrize("method", ["beam", "greedy", "sample"])
@pytest.mark.parametrize("prefix", [(), (3,), (5, 4, 5), (3, PAD), (BOS,)])
def test_a_prefix_is_forced_and_scored(method: str, prefix: tuple[int, ...]) -> None:
    """Even pieces that are never written, such as <unk>, may be asked for."""
    for source, hypotheses in zip(SOURCES, find(Options(method, 4, 3), longest=6, prefix=prefix), strict=True):
        assert hypotheses
        for one in hypotheses:
            assert tuple(one.ids[: len(prefix)]) == prefix
            assert not set(one.ids[len(prefix) :]) & {*NEVER, EOS}
            assert one.log_probs == pytest.approx(log_p(source, one.ids), rel=1e-4)


@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
@pytest.mark.parametrize("prefix", [(), (3,), (5, 4)])
def test_what_may_follow_a_prefix_follows_it(method: str, prefix: tuple[int, ...]) -> None:
    for hypotheses in find(Options(method, 4, 3), longest=6, prefix=prefix, after=[{4: 1, 5: 1}]):
        assert hypotheses
        for one in hypotheses:
            assert tuple(one.ids[: len(prefix)]) == prefix
            assert one.ids[len(prefix)] in (4, 5)


@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
@pytest.mark.parametrize("prefix", [(), (3,)])
def test_what_may_follow_may_be_spelled_in_several_ways(method: str, prefix: tuple[int, ...]) -> None:
    """4 and then 5, or 5 and then 4 and 4, or 3 alone: all else is free behind these."""
    after = [{4: 2, 5: 1, 3: 4}, {4: 3}, {5: 4}, {4: 4}]
    found = set()
    for hypotheses in find(Options(method, 8, 8), longest=9, prefix=prefix, after=after):
        assert hypotheses
        for one in hypotheses:
            rest = one.ids[len(prefix) :]
            way = next(way for way in ([4, 5], [5, 4, 4], [3]) if rest[: len(way)] == way)
            found.add(tuple(way))
            assert tuple(one.ids[: len(prefix)]) == prefix
            assert not set(rest) & {*NEVER, EOS}
    assert len(found) > 1


def test_a_prefix_goes_on_as_if_it_had_been_found() -> None:
    for source, (one,) in zip(SOURCES, find(Options("greedy"), longest=6, prefix=(4, 4)), strict=True):
        ids = [4, 4]
        while len(ids) < 6:
            row = table(source, (BOS, *ids)).clone()
            row[list(NEVER)] = -torch.inf
            if int(row.argmax()) == EOS:
                break
            ids.append(int(row.argmax()))
        assert one.ids == ids


@pytest.mark.parametrize("method", ["beam", "greedy", "sample"])
def test_what_is_never_written(method: str) -> None:
    requests = [Request(5, source=source) for source in SOURCES]
    for never in ((PAD, BOS), (PAD, BOS, 3), (PAD, BOS, 3, 5)):
        found = search(Steps(), start(SOURCES), requests, Options(method, 6, 6), BOS, EOS, never)
        written = {i for hypotheses in found for one in hypotheses for i in one.ids}
        assert written
        assert not written & {*never, EOS}


# -- sampling


@pytest.mark.parametrize(
    "options", [Options("sample", temperature=0.0), Options("sample", top_k=1), Options("sample", top_p=1e-6)]
)
@pytest.mark.parametrize("longest", [0, 2, 7])
def test_sampling_without_chance_equals_greedy(options: Options, longest: int) -> None:
    assert flat(find(replace(options, nbest=2), longest=longest)) == [[greedily(s, longest)] * 2 for s in SOURCES]


def naive_filtered(row: list[float], temperature: float, top_k: int, top_p: float) -> list[float]:
    weights = {i: math.exp(value / temperature) for i, value in enumerate(row)}
    ranked = sorted(weights, key=lambda i: -weights[i])
    ranked = ranked[:top_k] if top_k else ranked
    mass, kept = 0.0, []
    total = sum(weights[i] for i in ranked)
    for i in ranked:
        if mass < top_p:
            kept.append(i)
        mass += weights[i] / total
    total = sum(weights[i] for i in kept)
    return [weights[i] / total if i in kept else 0.0 for i in weights]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("top_k", [0, 1, 3, 100])
@pytest.mark.parametrize("top_p", [0.3, 0.8, 1.0])
def test_filters_equal_their_definition(temperature: float, top_k: int, top_p: float) -> None:
    log_probs = torch.randn(20, 9).log_softmax(1)
    probs = filtered(log_probs, Options("sample", temperature=temperature, top_k=top_k, top_p=top_p))
    for row, expected in zip(probs, log_probs.tolist(), strict=True):
        torch.testing.assert_close(row, torch.tensor(naive_filtered(expected, temperature, top_k, top_p)))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_follow_the_distribution(temperature: float) -> None:
    source, count, longest = (3, 5), 3000, 2
    (found,) = find(Options("sample", nbest=count, temperature=temperature), [source], longest)
    drawn = Counter(tuple(one.ids) for one in found)
    assert sum(drawn.values()) == count

    def chance(ids: History) -> float:
        p = 1.0
        for at, token in enumerate((*ids, EOS)[:longest]):  # at the longest only the end may follow
            row = (table(source, (BOS, *ids[:at])) / temperature).exp()
            p *= float(row[token] / row[[EOS, *WORDS]].sum())
        return p

    everything = [ids for n in range(longest + 1) for ids in itertools.product(WORDS, repeat=n)]
    assert sum(map(chance, everything)) == pytest.approx(1.0)
    for ids in everything:
        p = chance(ids)
        assert drawn[ids] / count == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / count))


def test_samples_depend_on_source_and_seed_alone() -> None:
    options = Options("sample", nbest=5)
    one, other = (find(replace(options, seed=seed), longest=8) for seed in (1, 2))
    assert flat(one) != flat(other)
    assert flat(one) == flat(find(replace(options, seed=1), longest=8))
    twice = find(options, [SOURCES[1], SOURCES[0], SOURCES[1]], 8)
    assert flat(twice)[0] == flat(twice)[2] == flat(find(options, [SOURCES[1]], 8))[0]
    assert len({tuple(ids) for ids in flat(twice)[0]}) > 1


# -- several models


@pytest.mark.parametrize("options", [Options(beam=4, nbest=3), Options("greedy"), Options("sample", nbest=3)])
@pytest.mark.parametrize("members", [1, 2, 3])
def test_an_ensemble_of_a_model_with_itself_is_the_model(options: Options, members: int) -> None:
    requests = [Request(5, source=source) for source in SOURCES]
    steps: list[Step[Toy]] = [Steps(attends=True) for _ in range(members)]
    joined = Joined(tuple(start(SOURCES) for _ in steps))
    found = search(ensemble(steps), joined, requests, options, BOS, EOS, NEVER, attention=True)  # type: ignore[arg-type]
    for one, other in zip(found, find(options, longest=5, attends=True), strict=True):
        assert [h.ids for h in one] == [h.ids for h in other]
        for mine, own in zip(one, other, strict=True):
            assert mine.log_probs == pytest.approx(own.log_probs, abs=1e-5)
            torch.testing.assert_close(mine.attention, own.attention)


def test_an_ensemble_is_the_mean_of_probabilities() -> None:
    requests = [Request(5, source=source) for source in SOURCES]
    joined = Joined((start(SOURCES), start(SOURCES)))
    found = search(ensemble([Steps(1), Steps(2)]), joined, requests, Options(beam=3, nbest=3), BOS, EOS, NEVER)  # type: ignore[list-item]
    for source, hypotheses in zip(SOURCES, found, strict=True):
        for one in hypotheses:
            pairs = zip(log_p(source, one.ids, 1), log_p(source, one.ids, 2), strict=True)
            expected = [math.log((math.exp(a) + math.exp(b)) / 2) for a, b in pairs]
            assert one.log_probs == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("columns", "count"), [(3 * SIZE, 10), (40 * SIZE, 10), (40 * SIZE + 5, 10), (501, 1)])
def test_the_largest_are_those_of_topk(columns: int, count: int) -> None:
    x = torch.randn(7, columns, generator=torch.Generator().manual_seed(columns))
    x[0] = -torch.inf
    x[1, -3:] = torch.tensor([7.0, 9.0, 8.0])  # in no group, where the columns leave some over
    values, places = largest(x, count)
    expected = x.topk(count, dim=1)
    assert torch.equal(values, expected.values)
    assert torch.equal(places[1:], expected.indices[1:])
    assert torch.equal(x.gather(1, places), values)
