"""A recipe becomes a trained translator: corpus, tokenizers, model, trainer, validation by translation.

The run folder is the model folder (see `nmt.checkpoint`), with `curves.png` beside it.
"""

from __future__ import annotations

import math
import os
import platform
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nmt import __version__, checkpoint, corpus, metrics, plots, starter, tokenizer
from nmt.corpus import Corpus
from nmt.data import Batch, Batches, Filtered, TrainingSet, collate, prepare
from nmt.errors import CallError, RecipeError
from nmt.hardware import Hardware, choose
from nmt.loss import Loss
from nmt.model import Seq2Seq, build, sizes
from nmt.progress import say
from nmt.recipe import Data, Recipe, Training, differences
from nmt.tokenizer import UNK, Tokenizer
from nmt.trainer import Trainer, forcing
from nmt.translate import Member, Translator

# what may change between stopping and going on: a longer training, and what does not touch the weights
FREE = ("training.epochs", "training.checkpoint_minutes", "training.samples", "training.tensorboard")


# -- from the recipe to batches


@lru_cache(maxsize=2)
def _starter() -> dict[str, list[starter.Pair]]:
    return starter.corpus()


def load_split(data: Data, split: str) -> Corpus:
    """The pairs of `train`, `valid` or `test`. Raises DataError, RecipeError."""
    if data.generator is None:
        place = {"train": data.train, "valid": data.valid, "test": data.test}[split]
        return corpus.load(place, data.source, data.target, data.path, data.hub, data.hub_config, data.columns)
    if {data.source, data.target} != {"en", "de"}:
        raise RecipeError(f"data.generator 'starter' writes en and de, not {data.source} and {data.target}")
    pairs = _starter()[split]
    english, german = [pair.source for pair in pairs], [pair.target for pair in pairs]
    sides = (english, german) if data.source == "en" else (german, english)
    return corpus.from_pairs(*sides, f"starter {split}")


def test_parts(data: Data) -> dict[str, list[int]]:
    """The parts of the test set that are scored on their own as well."""
    if data.generator is None:
        return {}
    novel = [pair.novel for pair in _starter()["test"]]
    return {
        "combinations seen in training": [row for row, new in enumerate(novel) if not new],
        "combinations never seen": [row for row, new in enumerate(novel) if new],
    }


def train_tokenizers(recipe: Recipe, train: Corpus) -> tuple[Tokenizer, Tokenizer]:
    """Tokenizers for the source and the target side, trained on the training split; one and the same if joint."""
    spec = recipe.tokenizer
    sides = [chain(train.source, train.target)] if spec.joint else [iter(train.source), iter(train.target)]
    trained = [
        tokenizer.train(
            lines,
            spec.model,
            spec.vocab_size,
            spec.character_coverage,
            spec.byte_fallback,
            spec.normalization,
            spec.symbols,
            os.cpu_count() or 1,
        )
        for lines in sides
    ]
    return trained[0], trained[-1]


@dataclass(frozen=True)
class Material:
    """What a recipe trains on."""

    train: TrainingSet
    valid: Corpus
    filtered: Filtered
    batches: Batches
    source: Tokenizer
    target: Tokenizer


def gather(recipe: Recipe, tokenizers: tuple[Tokenizer, Tokenizer] | None = None) -> Material:
    """Read, filter and tokenise the corpus; train the tokenizers unless they are given."""
    pairs = load_split(recipe.data, "train")
    valid = load_split(recipe.data, "valid")
    if tokenizers is None:
        say(f"training the tokenizer on {len(pairs):,} pairs")
        tokenizers = train_tokenizers(recipe, pairs)
    data = recipe.data
    train, filtered = prepare(
        pairs, *tokenizers, data.max_length, data.max_ratio, data.drop_duplicates, data.drop_identical
    )
    settings = recipe.training
    batches = Batches(train.source_lengths, train.target_lengths, settings.batch_tokens, settings.seed)
    return Material(train, valid, filtered, batches, *tokenizers)


class TrainingStream:
    """The batches of a training set, with subword sampling and word dropout drawn anew in each epoch."""

    def __init__(self, material: Material, settings: Training, device: torch.device) -> None:
        self.material, self.settings, self.device = material, settings, device

    def batches(self, epoch: int) -> int:
        return len(self.material.batches.plan(epoch))

    def fetch(self, epoch: int, number: int) -> Batch:
        rows = self.material.batches.plan(epoch)[number]
        seed = zlib.crc32(f"{self.settings.seed} {epoch} {number}".encode())
        if self.settings.subword_sampling:
            batch = self.material.train.sampled(rows, seed, self.settings.subword_sampling)
        else:
            batch = self.material.train.batch(rows)
        if self.settings.word_dropout:
            batch = drop_words(batch, self.settings.word_dropout, seed)
        return batch.to(self.device)


def drop_words(batch: Batch, share: float, seed: int) -> Batch:
    """A batch with that share of its input pieces replaced by <unk> (Gal and Ghahramani 2016; Sennrich et al. 2016)."""
    generator = torch.Generator().manual_seed(seed)

    def dropped(tokens: torch.Tensor) -> torch.Tensor:
        chosen = torch.rand(tokens.shape, generator=generator) < share
        return tokens.masked_fill(chosen & (tokens > UNK), UNK)  # special pieces and padding stay

    return replace(batch, source=dropped(batch.source), target_in=dropped(batch.target_in))


# -- validation


class Validation:
    """Perplexity on the valid split, BLEU and chrF of its greedy translations, and some of them to look at."""

    def __init__(self, model: Seq2Seq, material: Material, recipe: Recipe, hardware: Hardware) -> None:
        count = min(len(material.valid), recipe.training.validate_sentences)
        self.sources = material.valid.source[:count]
        self.references = material.valid.target[:count]
        self.model, self.recipe, self.hardware = model, recipe, hardware
        self.pairs = (material.source.encode(self.sources), material.target.encode(self.references))
        search = recipe.search.model_copy(update={"method": "greedy"})
        member = Member(model, material.source, material.target)
        self.translator = Translator([member], search, hardware.device, recipe)
        self.signature = ""

    def __call__(self, quick: bool) -> dict[str, Any]:
        """Figures over the whole split; with `quick` over a few sentences, only to see that it works."""
        count = min(16, len(self.sources)) if quick else len(self.sources)
        nll = self._nll(8 if quick else 64, count)
        lines = [one.text for one in self.translator.translate(self.sources[:count], warn=lambda message: None)]
        bleu = metrics.bleu(lines, self.references[:count], self.recipe.data.target)
        chrf = metrics.chrf(lines, self.references[:count])
        self.signature = bleu.signature
        if not quick:
            self._show(lines)
        return {"loss": nll, "perplexity": math.exp(min(nll, 50.0)), "bleu": bleu.value, "chrf": chrf.value}

    @torch.inference_mode()
    def _nll(self, size: int, count: int) -> float:
        """Nats per target piece, without smoothing."""
        total = tokens = 0.0
        order = sorted(range(count), key=lambda row: len(self.pairs[1][row]))
        for at in range(0, count, size):
            rows = order[at : at + size]
            batch = collate([self.pairs[0][row] for row in rows], [self.pairs[1][row] for row in rows])
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


# -- training


def train(recipe: Recipe, folder: Path | None = None, resume: bool = False) -> Path:
    """Train a recipe into a folder, `runs/<recipe>` unless given; the folder.

    Raises CallError for a folder that is there already without `resume`, or that was trained with another recipe;
    StoppedError after a signal.
    """
    folder = folder or Path("runs") / recipe.name
    state = _open(recipe, folder, resume)
    if state is not None and _finished(state, recipe):
        say(
            f"{folder}: training has finished already: to go on, raise training.epochs above {recipe.training.epochs}"
        )
        return folder
    settings = recipe.training
    hardware = choose(settings.device, settings.precision, settings.threads)
    say(f"on {hardware}")
    material = _material(recipe, folder, resume)
    torch.manual_seed(settings.seed)
    model = build(recipe, material.source.vocab, material.target.vocab).to(hardware.device)
    info = describe(recipe, material, model, hardware)
    _announce(info)
    _start(folder, recipe, material, info, fresh=state is None)
    trainer = _trainer(recipe, folder, material, model, hardware, info)
    if state is not None:
        trainer.resume(state)
        say(f"going on at epoch {trainer.position.epoch}, update {trainer.position.updates}")
    try:
        position = trainer.run()
    finally:
        _draw(folder)
    _update_info(folder, finished=True, seconds=position.seconds, updates=position.updates, tokens=position.tokens)
    say(f"done: {folder}, best {settings.metric} {position.best:.2f} on valid. Next: nmt evaluate {folder}")
    return folder


def _open(recipe: Recipe, folder: Path, resume: bool) -> dict[str, Any] | None:
    """The state to go on from, None to start from the beginning."""
    used = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if used and not resume:
        raise CallError(f"{folder} exists: go on with --resume, choose another folder with --out, or remove it")
    if not resume:
        return None
    if (folder / "recipe.yaml").is_file():
        before = checkpoint.read_recipe(folder)
        changed = [key for key in differences(before, recipe) if key not in FREE and key != "name"]
        if recipe.training.epochs < before.training.epochs:
            changed.append("training.epochs (a longer training would do)")
        if changed:
            raise CallError(
                f"{folder} was trained with another recipe, which differs in {', '.join(changed)}: "
                f"resume with the same, or train this one elsewhere with --out"
            )
    state = checkpoint.read_state(folder)
    if state is None:
        say(f"{folder}: no checkpoint yet, starting from the beginning")
    return state


def _finished(state: Mapping[str, Any], recipe: Recipe) -> bool:
    at = state["position"]
    patient = recipe.training.patience is None or at["since_best"] < recipe.training.patience
    return bool(at["finished"]) and not (patient and at["epoch"] < recipe.training.epochs)


def _material(recipe: Recipe, folder: Path, resume: bool) -> Material:
    """The corpus; a resumed run keeps its tokenizers."""
    files = [folder / "source.model", folder / "target.model"]
    known = resume and all(file.is_file() for file in files)
    return gather(recipe, (Tokenizer.load(files[0]), Tokenizer.load(files[1])) if known else None)


def _start(folder: Path, recipe: Recipe, material: Material, info: Mapping[str, Any], fresh: bool) -> None:
    """What a run folder has from the beginning."""
    checkpoint.write_recipe(folder, recipe)
    if fresh:
        for stale in (checkpoint.METRICS, checkpoint.WEIGHTS):
            (folder / stale).unlink(missing_ok=True)  # of a run killed before its first checkpoint
        checkpoint.write_bytes(folder / "source.model", material.source.proto)
        checkpoint.write_bytes(folder / "target.model", material.target.proto)
        checkpoint.write_json(folder / checkpoint.INFO, info)


def _trainer(
    recipe: Recipe, folder: Path, material: Material, model: Seq2Seq, hardware: Hardware, info: dict[str, Any]
) -> Trainer[Batch]:
    settings = recipe.training
    validation = Validation(model, material, recipe, hardware)

    def loss(batch: Batch, progress: float) -> Loss:
        return model.loss(batch, settings.label_smoothing, forcing(settings, progress))

    def improved(figures: Mapping[str, Any]) -> None:
        _update_info(
            folder, best=dict(figures) | {"signature": validation.signature, "decoding": "greedy, valid split"}
        )

    stream = TrainingStream(material, settings, hardware.device)
    return Trainer(model, loss, stream, validation, improved, settings, hardware, folder)


def describe(recipe: Recipe, material: Material, model: nn.Module, hardware: Hardware) -> dict[str, Any]:
    """What model.json says of a run."""
    assert isinstance(model, Seq2Seq)
    return {
        "format": checkpoint.FORMAT,
        "package": __version__,
        "torch": torch.__version__,
        "hardware": f"{hardware}, {platform.machine()}",
        "parameters": sizes(model),
        "vocabulary": {"source": material.source.vocab, "target": material.target.vocab},
        "data": {
            "train": len(material.train),
            "valid": len(material.valid),
            "filtered": asdict(material.filtered),
            "pieces": {
                "source": int(material.train.source_lengths.sum()),
                "target": int(material.train.target_lengths.sum()),
            },
            "padding": round(material.batches.padding(0), 4),
        },
        "best": None,
        "finished": False,
    }


def _announce(info: Mapping[str, Any]) -> None:
    parts, data = info["parameters"], info["data"]
    each = ", ".join(f"{name} {count:,}" for name, count in parts.items())
    say(f"{sum(parts.values()):,} parameters: {each}")
    say(f"{data['train']:,} training pairs, {data['pieces']['target']:,} target pieces, padding {data['padding']:.1%}")


def _update_info(folder: Path, **news: Any) -> None:
    checkpoint.write_json(folder / checkpoint.INFO, checkpoint.read(folder).info | news)


def _draw(folder: Path) -> None:
    rows = checkpoint.read_metrics(folder)
    if rows:
        plots.curves(rows, folder / "curves.png")
