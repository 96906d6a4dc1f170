"""A Transformer (Vaswani et al. 2017) for the data of a recipe, through the same data, trainer and search as ours.

    python benchmarks/transformer.py multi30k-en-de --out runs/transformer --pre-norm --set training.epochs=40
    python benchmarks/transformer.py multi30k-en-de --out runs/transformer --pre-norm --beside runs/multi30k-en-de

What stands in our tables beside a recurrent net of the same data and time is trained so. It belongs to the benchmarks,
not to the package. Begins as the Transformer-Tiny of Wu et al. (2021): 4 + 4 layers, width 128, feed-forward 256, 4
heads, dropout 0.3, one embedding for both sides and the output. Run again with the same --out it goes on where it was.

With --beside, a net of ours of the same data, both translate the first 1,000 of valid in turns, greedy and as the
recipe says; the ratios of target pieces a second are ours to its, as median and range of three rounds.

Letters: B sources, N = B·K rows, S source length, T steps, t steps before, L layers, D width, V vocabulary.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from yardstick import spread

from nmt import checkpoint, hardware, material, metrics, recipe
from nmt.data import Batch
from nmt.loss import Loss, linear_cross_entropy
from nmt.tokenizer import PAD
from nmt.trainer import Trainer
from nmt.translate import Member, Translator
from nmt.validation import Validation


class Attention(nn.Module):
    """Multi-head attention (section 3.2.2). Keys and values are made apart, so that they can be kept."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.remembered = nn.Linear(width, 2 * width)

    def forward(self, x: Tensor, remembered: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """x (B, T, D) looks at `remembered` (B, S, 2·D), where `mask` (B, 1, T or 1, S) is True."""
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, ·, D / heads)
            for part in (self.query(x), *remembered.to(x.dtype).chunk(2, dim=2))
        )
        found = F.scaled_dot_product_attention(q.to(v.dtype), k, v, attn_mask=mask, is_causal=causal)
        return self.out(found.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Self-attention, attention to the source in a decoder, feed-forward; each with a residual and a norm."""

    def __init__(self, width: int, inner: int, heads: int, dropout: float, pre_norm: bool, decoder: bool) -> None:
        super().__init__()
        self.own = Attention(width, heads)
        self.source = Attention(width, heads) if decoder else None
        self.feed = nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Dropout(dropout), nn.Linear(inner, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3 if decoder else 2))
        self.dropout, self.pre_norm = nn.Dropout(dropout), pre_norm

    def before(self, x: Tensor, number: int) -> Tensor:
        return self.norms[number](x) if self.pre_norm else x

    def after(self, x: Tensor, added: Tensor, number: int) -> Tensor:
        x = x + self.dropout(added)
        return x if self.pre_norm else self.norms[number](x)

    def rest(self, x: Tensor, source: Tensor | None, mask: Tensor | None) -> Tensor:
        """What comes after self-attention; `source` are the source's keys and values for this layer."""
        number = 1
        if self.source is not None and source is not None:
            x = self.after(x, self.source(self.before(x, 1), source, mask), 1)
            number = 2
        return self.after(x, self.feed(self.before(x, number)), number)


@dataclass(frozen=True)
class Past:
    """Where a search stands."""

    sources: Tensor  # (B, L, S, 2·D), keys and values of the source
    mask: Tensor  # (B, S)
    steps: Tensor  # (N, L, t, 2·D), of the pieces before
    attention: Tensor | None = None

    def select(self, rows: Tensor) -> Past:
        return replace(self, steps=self.steps[rows])

    def keep(self, sources: Tensor) -> Past:
        steps = self.steps.unflatten(0, (len(self.mask), -1))[sources].flatten(0, 1)
        return replace(self, sources=self.sources[sources], mask=self.mask[sources], steps=steps)


class Transformer(nn.Module):
    """An encoder and a decoder; called, it is a step of search, and with that an `nmt.engine.Engine`."""

    workers = 1

    def __init__(
        self, vocab: int, width: int, inner: int, layers: int, heads: int, dropout: float, pre_norm: bool
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        sides = [
            nn.ModuleList(Layer(width, inner, heads, dropout, pre_norm, decoder) for _ in range(layers))
            for decoder in (False, True)
        ]
        self.encoder, self.decoder = sides
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.norms = nn.ModuleList(nn.LayerNorm(width) if pre_norm else nn.Identity() for _ in range(2))
        self.output = nn.Linear(width, vocab)
        self.output.weight = self.embedding.weight
        nn.init.zeros_(self.output.bias)
        self.dropout = nn.Dropout(dropout)

    def embed(self, tokens: Tensor, start: int = 0) -> Tensor:
        """Embeddings and sinusoids (section 3.5) of tokens (N, T) that begin at a position."""
        width = self.embedding.embedding_dim
        places = torch.arange(start, start + tokens.size(1), device=tokens.device).unsqueeze(1)
        rates = torch.exp(torch.arange(0, width, 2, device=tokens.device) * (-math.log(10000.0) / width))
        waves = torch.cat([torch.sin(places * rates), torch.cos(places * rates)], dim=1)  # (T, D)
        return self.dropout(self.embedding(tokens) * width**0.5 + waves)

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, L, S, 2·D) for the decoder's layers, and the mask (B, S)."""
        mask = source != PAD
        x = self.embed(source)
        for layer in self.encoder:
            seen = layer.before(x, 0)
            looked = layer.own(seen, layer.own.remembered(seen), mask[:, None, None])
            x = layer.rest(layer.after(x, looked, 0), None, None)
        x = self.norms[0](x)
        return torch.stack([layer.source.remembered(x) for layer in self.decoder], dim=1), mask

    def loss(self, batch: Batch, smoothing: float = 0.0) -> Loss:
        sources, mask = self.encode(batch.source)
        x = self.embed(batch.target_in)
        for number, layer in enumerate(self.decoder):
            seen = layer.before(x, 0)
            looked = layer.own(seen, layer.own.remembered(seen), causal=True)
            x = layer.rest(layer.after(x, looked, 0), sources[:, number], mask[:, None, None])
        real = batch.target_out != PAD
        return linear_cross_entropy(self.norms[1](x)[real], self.output, batch.target_out[real], smoothing)

    @torch.no_grad()
    def start(self, source: Tensor, lengths: Tensor) -> Past:
        sources, mask = self.encode(source)
        return Past(sources, mask, sources.new_zeros(len(source), len(self.decoder), 0, sources.size(3)))

    @torch.no_grad()
    def forward(self, tokens: Tensor, past: Past) -> tuple[Tensor, Past]:
        """log p (N, V) of the pieces that follow `tokens` (N,), and where search stands then."""
        x = self.embed(tokens.unsqueeze(1), past.steps.size(2))  # (N, 1, D)
        count = len(past.mask)
        steps = []
        for number, layer in enumerate(self.decoder):
            seen = layer.before(x, 0)
            steps.append(torch.cat([past.steps[:, number], layer.own.remembered(seen)], dim=1))
            x = layer.after(x, layer.own(seen, steps[-1]), 0)
            grouped = x.view(count, -1, x.size(2))  # (B, K, D): the hypotheses of a source share its keys and values
            x = layer.rest(grouped, past.sources[:, number], past.mask[:, None, None]).view_as(x)
        log_probs = self.output(self.norms[1](x[:, 0])).float().log_softmax(1)
        return log_probs, replace(past, steps=torch.stack(steps, dim=1))


def pace(one: Translator, lines: Sequence[str]) -> tuple[list[str], float]:
    """The translations, and target pieces a second, the ends of sentences among them."""
    began = time.perf_counter()
    found = one.translate(lines)
    return [each.text for each in found], sum(len(each.log_probs) for each in found) / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--feedforward", type=int, default=256)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--pre-norm", action="store_true")
    parser.add_argument("--test", action="store_true", help="also on test, once the choice is made")
    parser.add_argument("--beside", type=Path, metavar="RUN", help="a model folder whose speed is compared")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    spec = recipe.load(given.recipe, given.set)
    settings = spec.training
    if not spec.tokenizer.joint:
        parser.error("one embedding serves both sides: --set tokenizer.joint=true --set model.tie=all")
    machine = hardware.choose(settings.device, settings.precision, settings.threads)
    gathered = material.gather(spec)
    torch.manual_seed(settings.seed)
    sizes = (given.width, given.feedforward, given.layers, given.heads, given.dropout, given.pre_norm)
    model = Transformer(gathered.source.vocab, *sizes).to(machine.device)
    print(f"{sum(weight.numel() for weight in model.parameters()):,} parameters")
    trainer = Trainer(
        model,
        lambda batch, _: model.loss(batch, settings.label_smoothing),
        material.TrainingStream(gathered, settings, machine.device),
        Validation(model, gathered, spec, machine),  # type: ignore[arg-type]
        lambda figures: None,
        settings,
        machine,
        given.out,
    )
    if state := checkpoint.read_state(given.out):
        trainer.resume(state)
    given.out.mkdir(parents=True, exist_ok=True)
    trainer.run()
    print(f"trained in {trainer.position.seconds / 60:.1f} minutes on {machine}")
    with torch.no_grad():
        checkpoint.restore(model, checkpoint.load_file(given.out / checkpoint.WEIGHTS), given.out)
    model.eval()
    member = Member(model, gathered.source, gathered.target)
    splits = {"valid": gathered.valid} | ({"test": material.load_split(spec.data, "test")} if given.test else {})
    ours = Translator.load(given.beside, threads=settings.threads) if given.beside else None
    for method in ("greedy", spec.search.method):
        search = spec.search.model_copy(update={"method": method})
        one = Translator([member], search, machine.device, spec)
        for split, pairs in splits.items():
            lines, rate = pace(one, pairs.source[:])
            found = metrics.evaluate(lines, pairs.target[:], language=spec.data.target)
            print(f"{split}, {method}: {rate:,.0f} pieces/s\n" + "\n".join(map(str, found.scores)), flush=True)
        if ours:
            other, some = ours.adjusted([f"search.method={method}"]), gathered.valid.source[:1000]
            ratios = [pace(other, some)[1] / pace(one, some)[1] for _ in range(3)]
            print(f"{method}: {given.beside} is faster by {spread(ratios)}", flush=True)


if __name__ == "__main__":
    main()
