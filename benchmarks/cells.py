"""Tanh RNN, GRU and LSTM at equal parameters, with a fixed context and with attention: BLEU, size, time, spread.

    python benchmarks/cells.py --out runs/cells                                      # the starter pair
    python benchmarks/cells.py --out runs/cells --pair multi30k-en-de --epochs 4     # Multi30k

Each recipe, `PAIR` and `PAIR-attention` or `PAIR-fixed`, is trained with every cell and seed. The widths of the two
sides are scaled together until the net has as many parameters as the recipe itself. What is finished already is not
trained again, what was stopped goes on. The table has the best BLEU on valid (greedy), its mean and spread over seeds.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from nmt import checkpoint
from nmt.cells import CELLS
from nmt.errors import RecipeError
from nmt.model import build, sizes
from nmt.recipe import Recipe, find, load

RATES = {"rnn": 0.001, "gru": 0.0015}  # what is more than that makes the loss of these cells rise again


def scaled(recipe: Recipe, cell: str, share: float) -> list[str]:
    """The changes that give a recipe another cell and widths in that share, in steps of 8."""
    widths = {"encoder": recipe.model.encoder.hidden, "decoder": recipe.model.decoder.hidden}
    return [f"model.cell={cell}"] + [
        f"model.{side}.hidden={max(8, 8 * round(width * share / 8))}" for side, width in widths.items()
    ]


def parameters(name: str, changes: list[str], vocab: int) -> int:
    with torch.device("meta"):
        return sum(sizes(build(load(name, changes), vocab, vocab)).values())


def equal(name: str, cell: str) -> list[str]:
    """The changes that give the recipe another cell at its number of parameters."""
    recipe = load(name)
    vocab = recipe.tokenizer.vocab_size
    wanted = parameters(name, [], vocab)
    shares = [math.exp(step / 100) for step in range(-80, 120)]
    best = min(shares, key=lambda share: abs(parameters(name, scaled(recipe, cell, share), vocab) - wanted))
    return scaled(recipe, cell, best)


def rate(recipe: Recipe, cell: str) -> float:
    """The learning rate of a cell: the recipe's, or less where the recipe is for another cell."""
    own = recipe.training.learning_rate
    return own if cell == recipe.model.cell else min(own, RATES.get(cell, own))


def train(name: str, changes: list[str], folder: Path) -> None:
    flags = [flag for change in changes for flag in ("--set", change)]
    again = ["--resume"] if folder.exists() else []
    command = [sys.executable, "-m", "nmt", "train", name, *flags, "--out", str(folder), *again]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def row(name: str, cell: str, folders: list[Path]) -> str:
    runs = [checkpoint.read(folder).info for folder in folders]
    scores = [run["best"]["bleu"] for run in runs]
    minutes = statistics.mean(run["seconds"] for run in runs) / 60
    spread = f"{min(scores):.1f} to {max(scores):.1f}"
    size = sum(runs[0]["parameters"].values()) / 1e6
    return f"| {name} | {cell} | {size:.2f} M | {statistics.mean(scores):.1f} | {spread} | {minutes:.1f} min |"


def recipes(pair: str) -> list[str]:
    """The recipes of a pair with a fixed context and with attention."""
    found = []
    for name in (f"{pair}-fixed", pair, f"{pair}-attention"):
        try:
            find(name)
        except RecipeError:
            continue
        found.append(name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder of the runs")
    parser.add_argument("--pair", default="starter-en-de")
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--epochs", type=int, help="of the recipe unless given")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    rows = []
    for name in recipes(given.pair):
        for cell in given.cells:
            recipe = load(name)
            changes = [*equal(name, cell), f"training.learning_rate={rate(recipe, cell)}"]
            changes += [
                f"training.epochs={given.epochs or recipe.training.epochs}",
                f"training.threads={given.threads}",
            ]
            folders = [given.out / f"{name}-{cell}-{seed}" for seed in given.seeds]
            for seed, folder in zip(given.seeds, folders, strict=True):
                train(name, [*changes, f"training.seed={seed}", "training.samples=0"], folder)
            rows.append(row(name, cell, folders))
            print(rows[-1], flush=True)
    print("\n| recipe | cell | parameters | BLEU on valid | spread | training |\n|---|---|--:|--:|--:|--:|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
