"""What a lever is worth alone: a net of few pairs trained with one change at a time, so that all fit into some hours.

    python benchmarks/levers.py attention --out runs/levers [--pairs 2000] [--only "no tying" ...] [--seeds 1 2 3]
    python benchmarks/levers.py fixed --out runs/levers --pairs 10000

    attention  what `nmt init` writes for so many pairs of Multi30k ($NMT_DATA), English to German, for 30 epochs
    fixed      the recipe multi30k-en-de-fixed for 8 epochs, without sampling, its summary the last states

BLEU and chrF of all of valid, beam 5, and the minutes of training, which can be compared only where nothing else runs.
What is finished is not trained again, what was stopped goes on.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from curve import PAIR, initial, subset, train

from nmt import checkpoint, corpus
from nmt.metrics import bleu, chrf
from nmt.translate import Translator

JOINED = "joined.tsv"  # in the corpus folder, beside its pairs
Levers = Mapping[str, Sequence[str]]
ATTENTION: Levers = {
    "none": (),
    "embedding of the target side alone tied": ("model.tie=target",),
    "no tying": ("model.tie=none",),
    "attention after the decoder": ("model.attention_position=after",),
    "the same, input feeding": ("model.attention_position=after", "model.input_feeding=true"),
    "input feeding": ("model.input_feeding=true",),
    "additive attention": ("model.attention=additive",),
    "GRU": ("model.cell=gru",),
    "two encoder layers": ("model.encoder.layers=2",),
    "two encoder layers, residual": ("model.encoder.layers=2", "model.residual=true"),
    "three decoder layers": ("model.decoder.layers=3",),
    "three decoder layers, residual": ("model.decoder.layers=3", "model.residual=true"),
    "no shortcut": ("model.encoder.shortcut=false",),
    "no guided attention": ("training.guided_attention=0",),
    "weight drop 0.2": ("model.dropout.recurrent=0.2",),
    "embedding dropout 0.2": ("model.dropout.embedding=0.2",),
    "memory and output dropout 0.2": ("model.dropout.output=0.2",),
    "dropout between layers 0.2": ("model.dropout.layers=0.2",),
    "no label smoothing": ("training.label_smoothing=0",),
    "label smoothing 0.2": ("training.label_smoothing=0.2",),
    "batches of 200": ("training.batch_tokens=200",),
    "batches of 800": ("training.batch_tokens=800",),
    "constant learning rate": ("training.schedule=constant",),
    "inverse square root": ("training.schedule=inverse_sqrt",),
    "no averaging of weights": ("training.ema=0",),
    "no weight decay": ("training.weight_decay=0",),
    "scheduled sampling, linear to 0.8": ("training.teacher_forcing=0.8", "training.teacher_forcing_schedule=linear"),
    "BPE": ("tokenizer.model=bpe",),
    "BPE-dropout 0.1": ("tokenizer.model=bpe", "training.subword_sampling=0.1"),
    "subword sampling 0.5": ("training.subword_sampling=0.5",),
    "as many pairs joined, half the epochs": (f"data.extra={{data}}/{JOINED}", "training.epochs=15"),
}
FIXED: Levers = {
    "none": (),
    "source read forwards": ("model.encoder.direction=forward", "model.encoder.hidden=768"),
    "source read backwards": ("model.encoder.direction=reversed", "model.encoder.hidden=768"),
    "mean of the states": ("model.encoder.summary=mean",),
    "maximum of the states": ("model.encoder.summary=max",),
    "context to the first state alone": ("model.context_feeding=false",),
    "two encoder layers": ("model.encoder.layers=2",),
    "two decoder layers": ("model.decoder.layers=2",),
    "decoder of 1,024": ("model.decoder.hidden=1024",),
    "encoder of 768": ("model.encoder.hidden=768",),
    "GRU": ("model.cell=gru",),
    "dropout 0.3": tuple(f"model.dropout.{what}=0.3" for what in ("embedding", "layers", "output")),
    "subword sampling 0.5": ("training.subword_sampling=0.5",),
}


def joined(folder: Path) -> None:
    """As many pairs, each two of the corpus that follow each other in a shuffle (Nguyen et al. 2021)."""
    pairs = list(zip(*(corpus.read_lines(folder / f"train.{language}") for language in PAIR), strict=True))
    shuffled = random.Random(1).sample(pairs, len(pairs))
    rows = [
        "\t".join(f"{one} {other}" for one, other in zip(*two, strict=True))
        for two in zip(shuffled, [*shuffled[1:], shuffled[0]], strict=True)
    ]
    (folder / JOINED).write_text("\n".join(["\t".join(PAIR), *rows, ""]), encoding="utf-8")


def base(group: str, data: Path) -> tuple[str, list[str]]:
    """The recipe that is changed, and what is changed of it throughout."""
    if group == "fixed":
        plain = ["training.epochs=8", "training.subword_sampling=0", "model.encoder.summary=last"]
        return "multi30k-en-de-fixed", [f"data.path={data}", *plain]
    return initial(data.with_suffix(".yaml"), data), ["training.epochs=30", "training.patience=null"]


def scores(folder: Path, data: Path) -> tuple[float, float, float]:
    """BLEU and chrF of valid, and the minutes of training."""
    sources, references = (list(corpus.read_lines(data / f"valid.{language}")) for language in PAIR)
    lines = [one.text for one in Translator.load(folder).translate(sources)]
    return (
        bleu(lines, references, PAIR[1]).value,
        chrf(lines, references).value,
        checkpoint.read(folder).info["seconds"] / 60,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("group", choices=("attention", "fixed"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=2_000)
    parser.add_argument("--only", nargs="+", metavar="LEVER")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    levers = FIXED if given.group == "fixed" else ATTENTION
    if odd := set(given.only or ()) - set(levers):
        parser.error(f"--only {sorted(odd)[0]!r}: there are {', '.join(levers)}")
    data = subset(given.out.resolve(), given.pairs)
    joined(data)
    recipe, throughout = base(given.group, data)
    print("| lever | BLEU | chrF | minutes |\n|---|--:|--:|--:|", flush=True)
    for name in given.only or levers:
        found = []
        for seed in given.seeds:
            folder = data.parent / f"{given.group}-{given.pairs}" / f"{name} {seed}".replace(" ", "-").replace(",", "")
            own = [change.format(data=data) for change in levers[name]]
            changes = [*throughout, *own, f"training.seed={seed}", f"training.threads={given.threads}"]
            train(recipe, folder, changes)
            found.append(scores(folder, data))
        bleus, chrfs, minutes = zip(*found, strict=True)
        spread = f" ({min(bleus):.1f} to {max(bleus):.1f})" if len(bleus) > 1 else ""
        print(f"| {name} | {mean(bleus):.1f}{spread} | {mean(chrfs):.1f} | {mean(minutes):.0f} |", flush=True)


if __name__ == "__main__":
    main()
