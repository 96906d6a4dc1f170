"""How fast this package and its peers translate with the same model, trained as long, in alternating rounds.

    python benchmarks/decoding.py --rounds 5 --threads 2       # $NMT_DATA has multi30k

The model, the pieces and the environments are those of `yardstick.py`. Each system trains its model once (--updates of
some 4,096 target tokens, on one thread), then translates the test set in a process of its own: greedy and with a beam
of 5, 64 sentences at once where that can be said. Loading is not counted. How long the translations are differs from
system to system, so the ratios are of target pieces a second (the end of the sentence among them).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from yardstick import PEERS, environment, pieces, spread, tell

from nmt.metrics import bleu
from nmt.tokenizer import Tokenizer

ENGINES = ("float32", "bf16", "int8", "shortlist")  # the last one also in int8
OURS = "nmt, {}"


def score(out: Path, file: str) -> float:
    """BLEU of the pieces in a file."""
    tokenizer = Tokenizer.load(out / "joint.model")
    sides = [Path(name).read_text(encoding="utf-8").split("\n")[:-1] for name in (file, str(out / "test.de"))]
    texts = [tokenizer.decode([tokenizer.ids(line.split(" ") if line else []) for line in side]) for side in sides]
    return bleu(*texts, "de").value


def table(found: Mapping[str, Sequence[Mapping[str, float]]], scores: Mapping[str, float]) -> str:
    rows = [
        "| system | pieces/s | sentences/s | pieces a sentence | BLEU | shortlist is faster by | int8 |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    ours = [[one["tokens/s"] for one in found[OURS.format(engine)]] for engine in ("shortlist", "int8")]
    for name, rounds in found.items():
        ratios = [[mine / one["tokens/s"] for mine, one in zip(best, rounds, strict=True)] for best in ours]
        rate, sentences, length = (
            statistics.median(one[key] for one in rounds) for key in ("tokens/s", "sentences/s", "pieces")
        )
        figures = f"{rate:,.0f} | {sentences:,.0f} | {length:.1f} | {scores[name]:.1f}"
        rows.append(f"| {name} | {figures} | {spread(ratios[0])} | {spread(ratios[1])} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("data/yardstick"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=150)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--torch", default="torch==2.13.0", help="what to install as PyTorch for the peers")
    given = parser.parse_args()
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    pieces(out)
    systems = {OURS.format(engine): (sys.executable, "ours", [engine]) for engine in ENGINES}
    for peer in PEERS:
        python, driver = environment(out, peer, given.torch), peer.driver.removesuffix(".py")
        systems |= {peer.name: (python, driver, []), f"{peer.name}, float32 'medium'": (python, driver, ["medium"])}
    for beam in (1, 5):
        found: dict[str, list[Mapping[str, float]]] = {name: [] for name in systems}
        scores = {}
        for number in range(given.rounds):
            for name, (python, driver, options) in systems.items():
                arguments = [str(out), str(given.updates), str(given.threads), str(beam), *options]
                told = tell(python, f"{driver}_decode.py", arguments, given.threads)
                scores[name] = score(out, str(told.pop("file")))
                found[name].append({key: float(value) for key, value in told.items()})
                print(f"beam {beam}, round {number + 1}: {name}: {told}", file=sys.stderr, flush=True)
        print(f"beam {beam}\n\n{table(found, scores)}\n")


if __name__ == "__main__":
    main()
