"""How time and memory grow: with the length of a sentence, with the corpus, with the file that is translated.

    python benchmarks/growth.py --out docs [--threads N]          # a quarter of an hour, nothing to download

1. Length: n pieces are translated into n pieces, greedily, by fresh models of the sizes of multi30k-en-de (attention)
   and multi30k-en-de-fixed; seconds = c_0 + c_1 n + c_2 n², fitted to the relative error. How fast does not depend on
   what the weights are.
2. Corpus: 10^4 to 10^6 pairs of made-up words, in a process for each: preparing them, the second time from the cache,
   and training on batches from all over the epoch; the most memory that the process took.
3. File: 10^4 to 10^6 lines through `nmt translate`, its most memory.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from recurrence import Table, markdown
from training import training

from nmt import hardware, recipe, translation
from nmt.engine import Native
from nmt.search import Options, Request, search
from nmt.tokenizer import BOS, EOS, NEVER

LENGTHS = (10, 20, 40, 80, 160, 320, 640)
SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)
RECIPES = {"multi30k-en-de": "attention", "multi30k-en-de-fixed": "fixed context"}
COLOURS = {"attention": "#0072B2", "fixed context": "#D55E00"}
SENTENCES, ROUNDS, VOCABULARY = 8, 5, 4_000
WORDS, AVERAGE = 20_000, 11  # of the made-up language, of a sentence
WARM, UPDATES = 10, 150
SMALL = """
data: {source: a, target: b, path: PATH}
tokenizer: {model: unigram, vocab_size: 2000, joint: true}
model:
  embed: 64
  encoder: {hidden: 64}
  decoder: {hidden: 64}
  attention: general
training: {epochs: 1, batch_tokens: 2000, samples: 0}
"""


def seconds(name: str, length: int) -> float:
    """Seconds a sentence of so many pieces takes, the median of rounds."""
    torch.manual_seed(1)
    engine = Native(translation.build(recipe.load(name), VOCABULARY, VOCABULARY).eval())
    source = torch.randint(EOS + 1, VOCABULARY, (SENTENCES, length))
    lengths = torch.full((SENTENCES,), length)
    requests = [Request(longest=length, shortest=length)] * SENTENCES

    def once() -> float:
        began = time.perf_counter()
        with torch.inference_mode():
            search(
                engine,
                engine.start(source, lengths),
                requests,
                Options("greedy"),
                BOS,
                EOS,
                NEVER,
                False,
                source.device,
            )
        return (time.perf_counter() - began) / SENTENCES

    once()
    return statistics.median(once() for _ in range(ROUNDS))


def by_length(out: Path) -> Table:
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    rows: Table = [("", *(f"{length}" for length in LENGTHS), "share of n² at 100", "at 640")]
    for name, kind in RECIPES.items():
        took = [seconds(name, length) for length in LENGTHS]
        square, line, constant = np.polyfit(LENGTHS, took, 2, w=1 / np.array(took))
        shares = [square * n * n / (square * n * n + line * n + constant) for n in (100, 640)]
        axes.loglog(LENGTHS, [1e3 * one for one in took], marker="o", color=COLOURS[kind], label=kind)
        rows.append((f"{kind}, ms", *(f"{1e3 * one:.1f}" for one in took), *(f"{max(0, one):.0%}" for one in shares)))
    axes.set(xlabel="pieces of a sentence", ylabel="ms a sentence, 8 at once")
    axes.legend(frameon=False)
    figure.savefig(out / "growth-length.png", dpi=120)
    return rows


def write(folder: Path, pairs: int) -> None:
    """A corpus of made-up words, as frequent as words are, and for valid a few more of it."""
    draw = np.random.default_rng(1)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    words = np.array(["".join(draw.choice(syllables, draw.integers(1, 5))) for _ in range(WORDS)])
    shares = 1 / np.arange(10, WORDS + 10)
    for split, count in (("train", pairs), ("valid", 100), ("test", 100)):
        lengths = draw.integers(AVERAGE - 6, AVERAGE + 7, count)
        for side in "ab":
            said = words[draw.choice(WORDS, int(lengths.sum()), p=shares / shares.sum())]
            ends = np.split(said, lengths.cumsum()[:-1])
            (folder / f"{split}.{side}").write_text("".join(" ".join(line) + "\n" for line in ends), encoding="utf-8")


def train(folder: str, threads: int) -> tuple[float, float, float]:
    """Seconds of preparing a corpus, target tokens a second of training, and the most memory in MB."""
    os.environ["NMT_CACHE"] = f"{folder}/cache"
    spec = recipe.load("multi30k-en-de", [f"data.path={folder}", "data.source=a", "data.target=b", "data.hub=null"])
    began = time.perf_counter()
    with training(spec, threads) as trainer:
        prepared = time.perf_counter() - began
        places = np.random.default_rng(1).choice(trainer.stream.batches(0), WARM + UPDATES, replace=False)
        for number, place in enumerate(places.tolist()):
            if number == WARM:
                began, before = time.perf_counter(), trainer.position.tokens
            trainer.update([trainer.stream.fetch(0, place)], 0.0)
        rate = (trainer.position.tokens - before) / (time.perf_counter() - began)
    return prepared, rate, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def by_corpus(out: Path, sizes: Sequence[int], threads: int) -> Table:
    rows: Table = [("pairs", "preparing", "again, from the cache", "µs a target token", "most memory")]
    costs = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), size)
            found = []
            for _ in range(2):
                with get_context("spawn").Pool(1) as pool:
                    found.append(pool.apply(train, (folder, threads)))
        (first, *_), (again, rate, memory) = found
        costs.append(1e6 / rate)
        rows.append((f"{size:,}", f"{first:.0f} s", f"{again:.1f} s", f"{costs[-1]:.0f}", f"{memory:,.0f} MB"))
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.semilogx(sizes, costs, marker="o", color=COLOURS["attention"])
    axes.set(xlabel="pairs of the corpus", ylabel="µs of training a target token", ylim=(0, 1.3 * max(costs)))
    figure.savefig(out / "growth-corpus.png", dpi=120)
    return rows


def nmt(*arguments: str) -> tuple[float, float]:
    """Seconds and the most memory in MB of a call of the command line."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "nmt", *arguments], stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"nmt {' '.join(arguments)} failed:\n{said.decode()[-2000:]}")
    return time.perf_counter() - began, used.ru_maxrss / 1024


def by_file(sizes: Sequence[int], threads: int) -> Table:
    rows: Table = [("lines", "lines a second", "most memory")]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write(folder, 10_000)
        (folder / "small.yaml").write_text(SMALL.replace("PATH", scratch), encoding="utf-8")
        nmt("train", f"{folder}/small.yaml", "--out", f"{folder}/run", "--set", f"training.threads={threads}")
        lines = (folder / "train.a").read_text(encoding="utf-8")
        for size in sizes:
            with (folder / "lines").open("w", encoding="utf-8") as file:
                for _ in range(size // 10_000):
                    file.write(lines)
            call = ["translate", f"{folder}/run", "--input", f"{folder}/lines", "--output", f"{folder}/out"]
            took, memory = nmt(*call, "--set", "search.method=greedy", "--set", "search.max_ratio=1")
            rows.append((f"{size:,}", f"{size / took:,.0f}", f"{memory:,.0f} MB"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    machine = hardware.choose("cpu", "float32", given.threads)
    print(f"torch {torch.__version__}, {machine}\n")
    print(f"by length\n\n{markdown(by_length(given.out))}\n", flush=True)
    print(f"by corpus\n\n{markdown(by_corpus(given.out, given.sizes, given.threads))}\n", flush=True)
    print(f"by file\n\n{markdown(by_file(given.sizes, given.threads))}", flush=True)


if __name__ == "__main__":
    main()
