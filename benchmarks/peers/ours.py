"""This package under measurement: python ours.py FOLDER UPDATES THREADS [steady] [a.b=value ...]; it needs no FOLDER.

`steady`: from the second epoch on, when each shape of a batch has been met and its kernel is there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from meter import WARM, Meter
from training import training

import nmt.recipe
from nmt.model import Seq2Seq
from nmt.recipe import Recipe

STEADY, EPOCH = "steady", 150  # updates, a few more than the yardstick's epoch has


def train(threads: int, changes: Sequence[str], tick: Callable[[int, Recipe, Seq2Seq], None]) -> None:
    """Train the yardstick; `tick` is called after each update with the target tokens so far."""
    recipe = nmt.recipe.load(Path(__file__).parents[1] / "yardstick.yaml", changes)
    with training(recipe, threads) as trainer:
        assert isinstance(trainer.model, Seq2Seq)
        for number in range(10**6):
            epoch, place = divmod(number, trainer.stream.batches(0))
            trainer.update([trainer.stream.fetch(epoch, place)], 0.0)
            tick(trainer.position.tokens, recipe, trainer.model)


def main() -> None:
    _, updates, threads, *changes = sys.argv[1:]
    steady = STEADY in changes
    meter = Meter(int(updates), EPOCH if steady else WARM)
    train(int(threads), [one for one in changes if one != STEADY], lambda tokens, *_: meter.tick(tokens))


if __name__ == "__main__":
    main()
