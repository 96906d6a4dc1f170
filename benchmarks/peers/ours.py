"""This package under measurement: python ours.py FOLDER UPDATES THREADS [a.b=value ...]; FOLDER holds the tokenizer."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from meter import Meter

import nmt.recipe
from nmt import hardware, material, translation
from nmt.model import Seq2Seq
from nmt.recipe import Recipe
from nmt.tokenizer import Tokenizer
from nmt.trainer import Trainer


def train(folder: str, threads: int, changes: Sequence[str], tick: Callable[[int, Recipe, Seq2Seq], None]) -> None:
    """Train an epoch of the yardstick; `tick` is called after each update with the target tokens so far."""
    recipe = nmt.recipe.load(Path(__file__).parents[1] / "yardstick.yaml", changes)
    machine = hardware.choose("cpu", recipe.training.precision, threads)
    shared = Tokenizer.load(Path(folder) / "joint.model")
    gathered = material.gather(recipe, (shared, shared))
    model = translation.build(recipe, shared.vocab, shared.vocab)
    stream = material.TrainingStream(gathered, recipe.training, machine.device)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            model,
            lambda batch, _: model.loss(batch, recipe.training.label_smoothing),
            stream,
            lambda quick: {},
            lambda figures: None,
            recipe.training,
            machine,
            Path(scratch),
        )
        for number in range(10**6):
            epoch, place = divmod(number, stream.batches(0))
            trainer.update([stream.fetch(epoch, place)], 0.0)
            tick(trainer.position.tokens, recipe, model)


def main() -> None:
    folder, updates, threads, *changes = sys.argv[1:]
    meter = Meter(int(updates))
    train(folder, int(threads), changes, lambda tokens, *_: meter.tick(tokens))


if __name__ == "__main__":
    main()
