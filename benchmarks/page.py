"""How fast the page's server answers programs, beside the framework's own ceiling, and whether its memory grows.

    python benchmarks/page.py runs/multi30k-en-de test.en
    python benchmarks/page.py runs/multi30k-en-de test.en --soak 2000

Sentences/s and latency for 1 and for 16 clients at once, against the same server with a model that does nothing; how
many answers differ between the two (only rounding ties may); what a batch of 16 gains in `Translator` alone.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import local

from gradio_client import Client
from served import served

from nmt import Translator
from nmt.formats import read_lines
from nmt.translate import Translation

SENTENCES, CLIENTS = 320, 16


def serve_idle(run: str) -> None:
    """A page whose model answers at once with what it was asked."""

    class Idle(Translator):
        def translate(self, lines: Sequence[str], *others: object, **more: object) -> list[Translation]:
            return [Translation(line, 0.0, [], [], [], []) for line in lines]

    Translator.translate = Idle.translate  # type: ignore[method-assign]
    from nmt.serve import serve

    serve([run], [], Path("corrections"), "127.0.0.1", None, None, False)


def ask(address: str, lines: Sequence[str], clients: int) -> tuple[list[str], float, list[float]]:
    """Answers, sentences/s and latencies of so many clients that ask one sentence after the other."""
    own = local()

    def one(line: str) -> tuple[str, float]:
        began = time.perf_counter()
        text = own.client.predict(line, "", api_name="/translate")
        return str(text), time.perf_counter() - began

    def connect() -> None:
        own.client = Client(address, verbose=False)
        own.client.predict(lines[0], "", api_name="/translate")

    with ThreadPoolExecutor(clients, initializer=connect) as pool:
        list(pool.map(lambda _: time.sleep(0.2), range(clients)))  # until all are connected
        began = time.perf_counter()
        found = list(pool.map(one, lines))
        seconds = time.perf_counter() - began
    return [text for text, _ in found], len(lines) / seconds, [latency for _, latency in found]


def row(name: str, rate: float, latencies: Sequence[float]) -> str:
    late = statistics.quantiles(latencies, n=20)[-1]
    return f"| {name} | {rate:.1f} | {statistics.median(latencies) * 1e3:.0f} | {late * 1e3:.0f} |"


def memory(process: int) -> float:
    """MB that a process holds."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def soak(run: str, lines: Sequence[str], requests: int) -> None:
    """Memory after the first tenth of the requests and at the end."""
    mixed = [" ".join(lines[n % len(lines)] for n in range(start, start + 1 + start % 4)) for start in range(requests)]
    with served("-m", "nmt", "demo", run) as (address, process):
        ask(address, mixed[: requests // 10], CLIENTS)
        before = memory(process)
        ask(address, mixed[requests // 10 :], CLIENTS)
        after = memory(process)
    grown = after / before - 1
    print(f"{requests} requests: {before:.0f} MB after {requests // 10}, {after:.0f} MB at the end ({grown:+.1%})")


def alone(run: str, lines: Sequence[str]) -> None:
    """What a batch of 16 gains in `Translator`."""
    translator = Translator.load(run)
    translator.translate(lines[:16])
    began = time.perf_counter()
    for line in lines:
        translator.translate([line])
    single = time.perf_counter() - began
    began = time.perf_counter()
    for start in range(0, len(lines), 16):
        translator.translate(lines[start : start + 16])
    batched = time.perf_counter() - began
    print(f"Translator alone, {len(lines)} sentences: a batch of 16 takes {single / batched:.1f} times less a sentence")


def compare(run: str, lines: Sequence[str]) -> None:
    """The table, and how many answers differ."""
    answers: dict[int, list[str]] = {}
    print("| server | sentences/s | median ms | 95 % ms |\n|---|--:|--:|--:|")
    pages = {
        "a model that does nothing": (__file__, run, "-", "--serve-idle"),
        Path(run).name: ("-m", "nmt", "demo", run),
    }
    for name, command in pages.items():
        with served(*command) as (address, _):
            for clients in (1, CLIENTS):
                answers[clients], rate, latencies = ask(address, lines, clients)
                print(row(f"{name}, {clients} client{'s' * (clients > 1)}", rate, latencies), flush=True)
    differ = sum(one != two for one, two in zip(answers[1], answers[CLIENTS], strict=True))
    print(f"\n{differ} of {len(lines)} answers differ between 1 and {CLIENTS} clients")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("source", type=Path)
    parser.add_argument("--soak", type=int, default=0, help="so many requests, to see whether memory grows")
    parser.add_argument("--serve-idle", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    lines = [] if given.serve_idle else list(read_lines(given.source))[:SENTENCES]
    if given.serve_idle:
        serve_idle(given.run)
    elif given.soak:
        soak(given.run, lines, given.soak)
    else:
        compare(given.run, lines)
        alone(given.run, lines)


if __name__ == "__main__":
    main()
