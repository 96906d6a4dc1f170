"""Validation by translation: what a model in training reaches on the valid split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from nmt import metrics
from nmt.data import by_length, collate
from nmt.errors import DataError
from nmt.hardware import Hardware
from nmt.material import Material
from nmt.model import Seq2Seq
from nmt.progress import say
from nmt.recipe import Recipe
from nmt.translate import SCORED, Member, Translator


class Validation:
    """Perplexity, BLEU and chrF (greedy) of the first `validate_sentences` of valid, and some of them to look at."""

    def __init__(self, model: Seq2Seq, material: Material, recipe: Recipe, hardware: Hardware) -> None:
        self.whole = len(material.valid)
        count = min(self.whole, recipe.training.validate_sentences)
        self.sources = material.valid.source[:count]
        self.references = material.valid.target[:count]
        self.model, self.recipe, self.hardware = model, recipe, hardware
        self.pairs = (material.source.encode(self.sources), material.target.encode(self.references))
        self.lengths = [max(map(len, pair)) + 1 for pair in zip(*self.pairs, strict=True)]
        self.read = [row for row, length in enumerate(self.lengths) if length <= SCORED]  # at once
        if more := count - len(self.read):
            say(
                f"warning: {more:,} of {count:,} pairs of valid have over {SCORED:,} pieces: perplexity leaves them out"
            )
        if not self.read:
            raise DataError("valid has too long pairs alone: a pair should be a sentence and its translation")
        self.search = recipe.search.model_copy(update={"method": "greedy", "language_model": None})
        self.member = Member(model, material.source, material.target)

    def __call__(self, quick: bool) -> dict[str, Any]:
        """Figures over all of these; with `quick` over a few, only to see that it works."""
        count = min(16, len(self.sources)) if quick else len(self.sources)
        nll = self._nll(count)
        translator = Translator([self.member], self.search, self.hardware.device, self.recipe)  # with weights as now
        lines = [one.text for one in translator.translate(self.sources[:count], warn=lambda message: None)]
        bleu = metrics.bleu(lines, self.references[:count], self.recipe.data.target)
        chrf = metrics.chrf(lines, self.references[:count])
        if not quick:
            self._show(lines)
        figures = {"loss": nll, "perplexity": math.exp(min(nll, 50.0)), "bleu": bleu.value, "chrf": chrf.value}
        part = "valid split" if count == self.whole else f"the first {count:,} pairs of valid"
        return figures | {"signature": bleu.signature, "decoding": f"greedy, {part}"}

    @torch.inference_mode()
    def _nll(self, count: int) -> float:
        """Nats per target piece, without smoothing."""
        total = tokens = 0.0
        read = self.read[:count]
        for places in by_length([self.lengths[row] for row in read], self.recipe.training.batch_tokens):
            batch = collate(*([side[read[place]] for place in places] for side in self.pairs))
            with self.hardware.autocast():
                loss = self.model.loss(batch.to(self.hardware.device))
            total, tokens = total + float(loss.nll), tokens + loss.count
        return total / tokens

    def _show(self, lines: Sequence[str]) -> None:
        step = max(1, len(lines) // max(1, self.recipe.training.samples))
        for row in range(0, len(lines), step)[: self.recipe.training.samples]:
            say(f"  source       {self.sources[row]}")
            say(f"  reference    {self.references[row]}")
            say(f"  translation  {lines[row]}")
