"""What recurrence does to a gradient, and what gates, clipping, depth and truncation do about it. Pictures and tables.

    python benchmarks/recurrence.py --out docs            # a few minutes on two cores, nothing to download

1. Vanishing: the norm of d(v·h_T)/dx_t by the distance T - t, for tanh RNN, GRU and LSTM as initialised here (Bengio
   et al. 1994; Hochreiter and Schmidhuber 1997; Pascanu et al. 2013).
2. Exploding: a tanh RNN whose recurrent weights are too large, trained with and without clipping by norm.
3. Depth: one to four LSTM layers with equally many parameters.
4. Truncation: chunks of 5 steps to the whole stream, the state carried in all of them.

The text of 2 to 4 are sentences of the starter grammar, by characters.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from nmt import starter
from nmt.cells import CELLS, Layer
from nmt.recipe import parse_as
from nmt.shapes.language_model import Along, Chunks, LanguageModel, LanguageModelRecipe, along, build
from nmt.shapes.text import Characters

DISTANCES = (10, 20, 50, 100, 200, 500)
WIDTH = 128
COLOURS = {"rnn": "#D55E00", "gru": "#009E73", "lstm": "#0072B2"}
CPU = torch.device("cpu")

Table = list[Sequence[str]]


def gradients(cell: str, length: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    """The norm of the gradient of a last output with respect to each input, (length,), by distance from the end."""
    torch.manual_seed(seed)
    layer = Layer(cell, WIDTH, WIDTH).double()  # what vanishes in float32 is there to be seen
    with torch.no_grad():
        layer.weights()[1].mul_(scale)
    x = torch.randn(16, length, WIDTH, dtype=torch.float64, requires_grad=True)
    out, _ = layer(x, layer.start(x))
    (gradient,) = torch.autograd.grad((out[:, -1] * torch.randn(WIDTH, dtype=torch.float64)).sum(), x)
    return gradient.norm(dim=2).mean(0).flip(0)  # (length,)


def vanishing(out: Path, seeds: int = 5) -> Table:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    rows: Table = [("cell", *(f"{distance} steps" for distance in DISTANCES))]
    cases = [("rnn", 1.0), ("gru", 1.0), ("lstm", 1.0), ("rnn", 1.5)]
    for cell, scale in cases:
        norms = torch.stack([gradients(cell, max(DISTANCES), seed, scale) for seed in range(seeds)]).mean(0)
        share = norms / norms[0]
        name = cell if scale == 1.0 else f"{cell}, recurrent weights x {scale}"
        axes.semilogy(share.clamp(min=1e-300), label=name, color=COLOURS[cell], ls="-" if scale == 1.0 else ":")
        rows.append((name, *(f"{float(share[distance - 1]):.1e}" for distance in DISTANCES)))
    axes.set(xlabel="steps back", ylabel="gradient, last step = 1", ylim=(1e-20, 1e6))
    axes.legend(frameon=False)
    figure.savefig(out / "vanishing.png", dpi=120)
    return rows


class Text:
    """Sentences of the starter grammar as a stream of characters."""

    def __init__(self, pairs: int) -> None:
        found = starter.corpus(train=pairs, valid=300, test=10)
        train, valid = ("\n".join(pair.target for pair in found[split]) + "\n" for split in ("train", "valid"))
        self.characters = Characters.of(train + valid)
        self.train, self.valid = (torch.tensor(self.characters.encode(text)) for text in (train, valid))

    def model(self, cell: str, hidden: int, layers: int = 1, seed: int = 1) -> LanguageModel:
        none = {"embedding": 0.0, "layers": 0.0, "output": 0.0}
        shape = {"cell": cell, "hidden": hidden, "layers": layers, "embed": 32, "dropout": none}
        recipe = parse_as(LanguageModelRecipe, {"data": {"path": "-"}, "model": shape}, "recurrence")
        torch.manual_seed(seed)
        return build(recipe, self.characters.vocab)


def learn(
    model: LanguageModel, chunks: Chunks, epochs: int, clip: float = math.inf, rate: float = 0.003, sgd: bool = False
) -> tuple[list[float], list[float], float]:
    """Losses and gradient norms of the updates, and the seconds they took."""
    optimizer = (torch.optim.SGD if sgd else torch.optim.Adam)(model.parameters(), rate)
    loss, losses, norms, began = Along(model), [], [], time.perf_counter()
    for epoch in range(epochs):
        for number in range(chunks.batches(epoch)):
            one = loss(chunks.fetch(epoch, number), 0.0)
            optimizer.zero_grad()
            (one.total / one.count).backward()
            norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), clip)))
            losses.append(float(one.nll) / one.count)
            optimizer.step()
    return losses, norms, time.perf_counter() - began


def exploding(out: Path, text: Text) -> Table:
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows: Table = [("", "loss at the end", "largest gradient norm")]
    for name, clip, colour in (("not clipped", math.inf, "#D55E00"), ("clipped to norm 1", 1.0, "#0072B2")):
        model = text.model("rnn", 256)
        with torch.no_grad():
            for layer in model.decoder.lower.forwards:
                assert isinstance(layer, Layer)
                layer.weights()[1].mul_(2.0)
        losses, norms, _ = learn(model, Chunks(text.train, 16, 100, 1, CPU), 3, clip, rate=0.5, sgd=True)
        left.plot(losses, color=colour, label=name)
        right.semilogy(norms, color=colour, label=name)
        rows.append((name, f"{statistics.mean(losses[-20:]):.2f}", f"{max(norms):.1e}"))
    left.set(xlabel="update", ylabel="nats per character")
    right.set(xlabel="update", ylabel="gradient norm before clipping")
    left.legend(frameon=False)
    figure.savefig(out / "exploding.png", dpi=120)
    return rows


def width(text: Text, layers: int, parameters: int) -> int:
    """The width at which a net of so many layers comes nearest to a number of parameters."""

    def size(hidden: int) -> int:
        with torch.device("meta"):
            return sum(weight.numel() for weight in text.model("lstm", hidden, layers).parameters())

    return min(range(16, 400, 4), key=lambda hidden: abs(size(hidden) - parameters))


def depth(out: Path, text: Text) -> Table:
    rows: Table = [("layers", "width", "valid, nats per character", "seconds")]
    for layers in (1, 2, 3, 4):
        hidden = width(text, layers, 300_000)
        model = text.model("lstm", hidden, layers)
        _, _, seconds = learn(model, Chunks(text.train, 32, 50, 1, CPU), 2, 1.0)
        rows.append((str(layers), str(hidden), f"{along(model.eval(), text.valid):.3f}", f"{seconds:.0f}"))
    return rows


def truncation(out: Path, text: Text) -> Table:
    rows: Table = [("steps of a chunk", "updates", "valid, nats per character", "seconds")]
    points = []
    whole = (len(text.train) - 2) // 16 - 1
    for steps in (5, 10, 25, 50, 100, 400, whole):
        model = text.model("lstm", 128)
        chunks = Chunks(text.train, 16, steps, 1, CPU)
        losses, _, seconds = learn(model, chunks, 2, 1.0)
        nats = along(model.eval(), text.valid)
        points.append((steps, nats))
        name = f"{steps:,}" + (" (the whole stream)" if steps == whole else "")
        rows.append((name, f"{len(losses):,}", f"{nats:.3f}", f"{seconds:.0f}"))
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.semilogx(*zip(*points, strict=True), marker="o", color="#0072B2")
    axes.set(xlabel="steps a gradient goes back", ylabel="valid, nats per character")
    figure.savefig(out / "truncation.png", dpi=120)
    return rows


def markdown(rows: Table) -> str:
    head, *body = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---", *["--:"] * (len(head) - 1)], *body))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--pairs", type=int, default=6000, help="sentences of the text")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    text = Text(given.pairs)
    parts: list[tuple[str, Callable[[], Table]]] = [
        (f"gradient by distance, {', '.join(CELLS)}", lambda: vanishing(given.out)),
        ("exploding", lambda: exploding(given.out, text)),
        ("depth at 300,000 parameters", lambda: depth(given.out, text)),
        ("truncated and full backpropagation", lambda: truncation(given.out, text)),
    ]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {len(text.train):,} characters\n")
    for name, part in parts:
        print(f"### {name}\n\n{markdown(part())}\n", flush=True)


if __name__ == "__main__":
    main()
