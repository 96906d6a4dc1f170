"""This package translating under measurement: python ours_decode.py FOLDER UPDATES THREADS BEAM ENGINE [a.b=value ...]

ENGINE is float32 or bf16, through torch, or int8 or shortlist, exported. FOLDER holds the tokenizer, later the model.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ours
from meter import tell_decoding, train_until

from nmt import checkpoint, disk
from nmt.export import export
from nmt.model import Seq2Seq
from nmt.recipe import Recipe
from nmt.run import translator
from nmt.tokenizer import Tokenizer

EXPORTED = {"int8": 0, "shortlist": 50}


def main() -> None:
    folder, updates, threads, beam, engine, *changes = sys.argv[1:]
    home = Path(folder)
    model = home / f"ours-trained-{updates}"
    if not (model / checkpoint.INFO).exists():
        train_until(
            int(updates),
            lambda tick: ours.train(1, changes, tick),
            lambda _, recipe, net: _save(home, model, recipe, net),
        )
    if exported := engine in EXPORTED:
        small = model.with_name(f"{model.name}-{engine}")
        if not small.exists():
            export(model, small, shortlist=EXPORTED[engine])
        model = small
    # 60 pieces at most, as for the peers
    settings = [f"search.beam={beam}", "search.max_ratio=0.001", "search.max_extra=60"]
    settings += [] if exported else [f"search.precision={engine}"]
    settings += ["search.batch_tokens=2500"] if EXPORTED.get(engine) else []  # so that their pieces are fewer
    one = translator(str(model), settings, int(threads))
    pieces = Tokenizer.load(home / "joint.model")
    lines = pieces.decode([pieces.ids(line.split(" ")) for line in (home / "test.en").read_text().splitlines()])
    tell_decoding(lambda: [each.tokens for each in one.translate(lines)], home / f"ours-{engine}-beam{beam}.txt")


def _save(home: Path, out: Path, recipe: Recipe, model: Seq2Seq) -> None:
    """A model folder with the weights as they are."""
    checkpoint.write_recipe(out, recipe)
    checkpoint.write_weights(out, checkpoint.parameters(model))
    for side in ("source", "target"):
        disk.write_bytes(out / f"{side}.model", (home / "joint.model").read_bytes())
    disk.write_json(out / checkpoint.INFO, {"format": checkpoint.FORMAT})


if __name__ == "__main__":
    main()
