"""Where the time of an update or a translation goes: python benchmarks/parts.py [RUN] [--recipe RECIPE] [--threads N]

Training: the operations of updates by kind, as PyTorch's own profiler counts them on the main thread; what it does not
see is Python's. Translating, with the model folder RUN: the encoder, the decoder's steps, the search between them, and
all else (pieces to text and back), greedily and with the run's beam, one sentence alone and many. The corpus is in
$NMT_DATA. RUN may be an exported folder, timed step by step over all its pieces: greedily, and with a shortlist, `nmt
translate` is faster. `--set search.precision=bf16` and the like change its search.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from recurrence import Table, markdown
from torch.profiler import ProfilerActivity, profile
from training import training

from nmt import recipe
from nmt.material import load_split
from nmt.run import translator
from nmt.search import SearchState
from nmt.trainer import Trainer
from nmt.translate import Translator

WARM, UPDATES, LINES, ROUNDS = 40, 20, 500, 3
# the beginnings of operations' names by what they are there for; the first that fits counts
KINDS: Mapping[str, Sequence[str]] = {
    "recurrent layers": ("mkldnn_rnn_layer", "lstm", "gru", "rnn_tanh"),
    "products": ("mm", "bmm", "addmm", "baddbmm", "dot", "mv"),
    "optimiser, averaging, norms": ("_fused_adam", "lerp", "linalg_vector_norm", "_foreach"),
    "softmax of the loss": ("_softmax", "_log_softmax"),
    "copies, casts, concatenation": ("copy", "cat", "clone", "contiguous", "_to_copy", "narrow", "slice", "select"),
    "embeddings, reordering, filling": (
        *("embedding", "index", "gather", "scatter", "fill", "zero", "empty", "_index_put", "constant_pad"),
    ),
    "dropout, activations, sums": ("",),
}


def kind(operation: str) -> str:
    name = operation.removeprefix("aten::")
    return next(one for one, starts in KINDS.items() if name.startswith(tuple(starts)))


def training_parts(trainer: Trainer[Any]) -> Table:
    """Milliseconds of an update by kind of operation."""
    batches = [trainer.stream.fetch(0, number) for number in range(WARM + UPDATES)]

    def go(some: Sequence[Any]) -> float:
        began = time.perf_counter()
        for batch in some:
            trainer.update([batch], 0.0)
        return 1e3 * (time.perf_counter() - began) / len(some)

    go(batches[:WARM])
    go(batches[WARM:])  # now all its kernels are there
    alone = go(batches[WARM:])
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        watched = go(batches[WARM:])
    took: dict[str, float] = dict.fromkeys(KINDS, 0.0)
    for event in seen.key_averages():
        took[kind(event.key)] += event.self_cpu_time_total / 1e3 / UPDATES
    took["Python"] = max(0.0, watched - sum(took.values()))
    rows: Table = [("part", "ms", "share")]
    rows += [(name, f"{ms:.1f}", f"{ms / watched:.0%}") for name, ms in took.items()]
    return [*rows, ("an update", f"{alone:.1f}, watched {watched:.1f}", "")]


class Watched:
    """An engine whose parts are timed."""

    def __init__(self, engine: Any, took: dict[str, float]) -> None:
        self.engine, self.took, self.workers = engine, took, 1

    def start(self, source: torch.Tensor, lengths: torch.Tensor) -> SearchState:
        state: SearchState = self._timed("encoder", self.engine.start, source, lengths)
        return state

    def __call__(self, tokens: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        self.took["steps"] += 1
        found: tuple[torch.Tensor, Any] = self._timed("decoder", self.engine, tokens, state)
        return found

    def _timed(self, part: str, call: Callable[..., Any], *arguments: Any) -> Any:
        began = time.perf_counter()
        result = call(*arguments)
        self.took[part] += time.perf_counter() - began
        return result


def decoding_parts(one: Translator, lines: Sequence[str], together: bool) -> Sequence[float]:
    """Milliseconds a sentence: all, encoder, decoder, search, the rest; and microseconds of a decoder's step."""
    took: dict[str, float] = defaultdict(float)
    engines, one.engines = one.engines, [Watched(engine, took) for engine in one.engines]
    search = one._search

    def watched(*arguments: Any) -> Any:
        began = time.perf_counter()
        found = search(*arguments)
        took["all of search"] += time.perf_counter() - began
        return found

    one._search = watched  # type: ignore[method-assign]
    calls = [lines] if together else [[line] for line in lines]
    began = time.perf_counter()
    for call in calls:
        one.translate(call)
    whole = time.perf_counter() - began
    one.engines, one._search = engines, search  # type: ignore[method-assign]
    searching = took["all of search"] - took["encoder"] - took["decoder"]
    parts = (whole, took["encoder"], took["decoder"], searching, whole - took["all of search"])
    return [*(1e3 * part / len(lines) for part in parts), 1e6 * took["decoder"] / took["steps"]]


def translating(run: str, changes: Sequence[str], threads: int) -> Table:
    rows: Table = [("", "ms a sentence", "encoder", "decoder", "search", "text", "µs a step")]
    for method in ("greedy", "beam"):
        one = translator(run, [f"search.method={method}", *changes], threads)
        lines = load_split(one.recipe.data, "valid").source[:LINES]
        for name, some, together in (("alone", lines[:60], False), (f"{LINES} together", lines, True)):
            decoding_parts(one, some, together)  # memory is mapped
            rounds = [decoding_parts(one, some, together) for _ in range(ROUNDS)]
            middle = [statistics.median(column) for column in zip(*rounds, strict=True)]
            rows.append((f"{method}, {name}", *(f"{ms:.2f}" for ms in middle[:5]), f"{middle[5]:.0f}"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?")
    parser.add_argument("--recipe", default=str(Path(__file__).parent / "yardstick.yaml"))
    parser.add_argument("--set", action="append", default=[], dest="changes")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    if given.run:
        print(
            f"{given.run}, {given.threads} threads\n\n{markdown(translating(given.run, given.changes, given.threads))}"
        )
        return
    spec = recipe.load(given.recipe, [f"training.threads={given.threads}", *given.changes])
    with training(spec, given.threads) as trainer:
        print(f"{given.recipe} on {trainer.hardware}, torch {torch.__version__}\n")
        print(markdown(training_parts(trainer)))


if __name__ == "__main__":
    main()
