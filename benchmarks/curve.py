"""BLEU by the number of pairs: an untuned net, what `nmt init` makes of the corpus, a Transformer trained as long.

    python benchmarks/curve.py --out runs/curve [--sizes 1000 2000 ...] [--systems untuned ours]     # many hours
    python benchmarks/curve.py --draw runs/curve/learning-curve.json           # only the picture, of such a file

Each corpus is the first so many pairs of one shuffle of Multi30k ($NMT_DATA), English to German.

    untuned      the model of yardstick.yaml whatever the corpus: 8,000 pieces (or as many as it allows), batches of
                 4,096, learning rate 0.001, until 5 validations were not the best
    ours         the recipe that `nmt init` writes for the corpus
    transformer  of the same pieces, with what won for it (docs/quality.md), as many epochs as fit into the training
                 time that ours took

Scores are of the first 1,000 of valid, greedy, the best epoch, with the minutes of training. What is finished is not
trained again, what was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from nmt import checkpoint, corpus, disk, tokenizer
from nmt.errors import DataError

HERE = Path(__file__).parent
SIZES = (1_000, 2_000, 5_000, 10_000, 20_000, 29_000)
SYSTEMS = {"untuned": "#D55E00", "ours": "#0072B2", "transformer": "#009E73"}
COLOURS = SYSTEMS | {"rich": "#CC79A7"}  # of an older curve
PAIR = ("en", "de")
PILOT = 3  # epochs, to see how long one takes
WIDE = 9_000  # pairs, from which on the Transformer is twice as wide
# so narrow it is faster without bf16, whose kernels are made anew for each shape
NARROW_TRANSFORMER = ("--width", "128", "--feedforward", "256", "--set", "training.precision=float32")
WIDE_TRANSFORMER = ("--layers", "3", "--width", "256", "--feedforward", "512", "--set", "training.batch_tokens=1250")
OF_EITHER = ("label_smoothing=0.2", "learning_rate=0.002", "subword_sampling=0", "patience=null", "validate_every=200")
EITHER = ("--pre-norm", *(part for change in OF_EITHER for part in ("--set", f"training.{change}")))


def subset(out: Path, pairs: int) -> Path:
    """The folder of a corpus of so many pairs."""
    folder = out / f"corpus-{pairs}"
    folder.mkdir(parents=True, exist_ok=True)
    whole = corpus.locate("multi30k")
    lines = [list(corpus.read_lines(whole / f"train.{language}")) for language in PAIR]
    order = list(range(len(lines[0])))
    random.Random(1).shuffle(order)
    for language, side in zip(PAIR, lines, strict=True):
        text = "".join(f"{side[row]}\n" for row in order[:pairs])
        (folder / f"train.{language}").write_text(text, encoding="utf-8")
        for split in ("valid", "test"):
            shutil.copyfile(whole / f"{split}.{language}", folder / f"{split}.{language}")
    return folder


def run(*command: object) -> None:
    print("+", *command, file=sys.stderr, flush=True)
    subprocess.run([sys.executable, *map(str, command)], check=True, stdout=sys.stderr)


def train(name: str, folder: Path, changes: Sequence[str]) -> None:
    flags = [part for change in changes for part in ("--set", change)]
    again = ["--resume"] if folder.is_dir() else []
    run("-m", "nmt", "train", name, *flags, "--set", "training.samples=0", "--out", folder, *again)


def pieces(folder: Path) -> int:
    """As many pieces as a corpus allows, at most 8,000."""
    lines = [line for language in PAIR for line in corpus.read_lines(folder / f"train.{language}")]
    for count in (8_000, 6_000, 4_000, 3_000, 2_000):
        try:
            tokenizer.train(lines, vocab_size=count)
        except DataError:
            continue
        return count
    return 1_000


def untuned(folder: Path, data: Path, threads: str) -> None:
    changes = [f"data.path={data}", f"tokenizer.vocab_size={pieces(data)}", "training.epochs=60", "training.patience=5"]
    train(str(HERE / "yardstick.yaml"), folder, [*changes, threads])


def initial(out: Path, data: Path) -> str:
    """The recipe that `nmt init` writes for a corpus, there already or not."""
    if not out.is_file():
        files = [f"--{side}-file={data / f'train.{one}'}" for side, one in zip(("source", "target"), PAIR, strict=True)]
        run("-m", "nmt", "init", *files, "--out", out)
    return str(out)


def ours(folder: Path, data: Path, threads: str) -> None:
    train(initial(folder.with_suffix(".yaml"), data), folder, [threads])


def transformer(folder: Path, data: Path, threads: str) -> None:
    """Trained as long as ours of the same corpus, which is trained first if it is not there."""
    model = folder.with_name(folder.name.replace("transformer", "ours"))
    ours(model, data, threads)
    trained = checkpoint.read(model).info
    size = WIDE_TRANSFORMER if trained["data"]["train"] >= WIDE else NARROW_TRANSFORMER
    command = [HERE / "transformer.py", model.with_suffix(".yaml"), *size, *EITHER, "--set", threads]
    pilot = folder.with_name(f"{folder.name}-pilot")
    state = checkpoint.read_state(pilot)
    if not (state and state["position"]["finished"]):  # it would be scored once more
        run(*command, "--out", pilot, "--set", f"training.epochs={PILOT}")
    epochs = max(1, round(trained["seconds"] / pace(pilot)))
    run(*command, "--out", folder, "--set", f"training.epochs={epochs}")


def pace(folder: Path) -> float:
    """Seconds an epoch after the first, which makes a kernel for each new shape."""
    rows = [row for row in checkpoint.read_metrics(folder) if row["kind"] == "train" and row["epoch"] >= 1]
    return 60 * float(rows[-1]["minutes"] - rows[0]["minutes"]) / float(rows[-1]["epoch"] - rows[0]["epoch"])


def minutes(folder: Path) -> float:
    return max(float(row["minutes"]) for row in checkpoint.read_metrics(folder) if row["kind"] == "train")


def best(folder: Path) -> float:
    return max(float(row["bleu"]) for row in checkpoint.read_metrics(folder) if row["kind"] == "valid")


def draw(file: Path) -> None:
    """The picture, beside the file of its figures: for each system pairs and BLEU."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    sizes: set[int] = set()
    for system, scores in json.loads(file.read_text(encoding="utf-8")).items():
        pairs = [int(size) for size in scores]
        sizes.update(pairs)
        name, _, elsewhere = system.partition(" ")  # "ours", or "ours (GPU)" where the time was another
        line = "--" if elsewhere else "-"
        axes.semilogx(pairs, list(scores.values()), line, marker="o", color=COLOURS.get(name), label=system)
    axes.set(xlabel="pairs", ylabel="BLEU of valid")
    axes.set_xticks(sorted(sizes), [f"{size:,}" for size in sorted(sizes)])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(file.with_suffix(".png"), dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path)
    what.add_argument("--draw", type=Path, metavar="FILE")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    if given.draw:
        draw(given.draw)
        return
    out, threads = given.out.resolve(), f"training.threads={given.threads}"
    found: dict[str, dict[int, float]] = {system: {} for system in given.systems}
    learn = {"untuned": untuned, "ours": ours, "transformer": transformer}
    for size in given.sizes:
        data = subset(out, size)
        for system in given.systems:
            folder = out / f"{system}-{size}"
            learn[system](folder, data, threads)
            found[system][size] = best(folder)
            said = f"{system}, {size:,} pairs: {found[system][size]:.2f} after {minutes(folder):.0f} minutes"
            print(said, file=sys.stderr, flush=True)
        figures = out / "learning-curve.json"
        disk.write_text(figures, json.dumps(found, indent=1))
        draw(figures)
    print("| pairs | " + " | ".join(found) + " |\n|" + "--:|" * (len(found) + 1))
    for size in given.sizes:
        print(f"| {size:,} | " + " | ".join(f"{scores[size]:.1f}" for scores in found.values()) + " |")


if __name__ == "__main__":
    main()
