"""This package under measurement: python ours.py FOLDER UPDATES THREADS [a.b=value ...]; FOLDER holds the tokenizer."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from meter import Meter

import nmt.recipe
from nmt import hardware, material, translation
from nmt.tokenizer import Tokenizer
from nmt.trainer import Trainer


def main() -> None:
    folder, updates, threads, *changes = sys.argv[1:]
    recipe = nmt.recipe.load(Path(__file__).parents[1] / "yardstick.yaml", changes)
    machine = hardware.choose("cpu", recipe.training.precision, int(threads))
    shared = Tokenizer.load(Path(folder) / "joint.model")
    gathered = material.gather(recipe, (shared, shared))
    model = translation.build(recipe, shared.vocab, shared.vocab)
    stream = material.TrainingStream(gathered, recipe.training, machine.device)
    meter = Meter(int(updates))
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
        for number in range(stream.batches(0)):
            trainer.update([stream.fetch(0, number)], 0.0)
            meter.tick(trainer.position.tokens)


if __name__ == "__main__":
    main()
