"""A recipe becomes a trained translator: corpus, tokenizers, model, trainer, validation by translation.

The run folder is the model folder (see `nmt.checkpoint`), with `curves.png` beside it.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from nmt import __version__, checkpoint, corpus, metrics, plots, starter, tokenizer
from nmt.corpus import Corpus, Overlap
from nmt.data import Batch, Batches, Filtered, TrainingSet, collate, prepare
from nmt.errors import CallError, CheckpointError, RecipeError
from nmt.hardware import Hardware, choose
from nmt.loss import Loss
from nmt.model import Seq2Seq, build, sizes
from nmt.progress import say
from nmt.recipe import Data, Recipe, Training, differences
from nmt.tokenizer import UNK, Tokenizer
from nmt.trainer import Position, Trainer, forcing
from nmt.translate import Member, Translator

if sys.platform != "win32":
    import fcntl

SMALL = 8  # pieces of a network that is only built to see whether it fits together
# what may change between stopping and going on: a longer training, and what does not touch the weights
FREE = ("training.epochs", "training.checkpoint_minutes", "training.samples", "training.tensorboard")


# -- from the recipe to batches


@cache
def _starter(whole: bool) -> dict[str, list[starter.Pair]]:
    """The starter corpus, or its test split alone, which is the same and takes a quarter of the time."""
    return starter.corpus() if whole else starter.corpus(train=0, valid=0)


def load_split(data: Data, split: str) -> Corpus:
    """The pairs of `train`, `valid` or `test`. Raises DataError, RecipeError."""
    if data.generator is None:
        place = {"train": data.train, "valid": data.valid, "test": data.test}[split]
        return corpus.load(place, data.source, data.target, data.path, data.hub, data.hub_config, data.columns)
    if {data.source, data.target} != {"en", "de"}:
        raise RecipeError(f"data.generator 'starter' writes en and de, not {data.source} and {data.target}")
    pairs = _starter(split != "test")[split]
    english, german = [pair.source for pair in pairs], [pair.target for pair in pairs]
    sides = (english, german) if data.source == "en" else (german, english)
    return corpus.from_pairs(*sides, f"starter {split}")


def test_parts(data: Data) -> dict[str, list[int]]:
    """The parts of the test set that are scored on their own as well."""
    if data.generator is None:
        return {}
    novel = [pair.novel for pair in _starter(False)["test"]]
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

    corpus: Corpus
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
    return Material(pairs, train, valid, filtered, batches, *tokenizers)


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


def overlaps(recipe: Recipe, train: Corpus, valid: Corpus) -> dict[str, Overlap]:
    """How much of the valid and test splits occurs in the training split; a corpus need not have a test split."""
    found = {"valid": corpus.overlap(train, valid)}
    with contextlib.suppress(corpus.MissingSplitError):
        found["test"] = corpus.overlap(train, load_split(recipe.data, "test"))
    return found


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

    Raises CallError for a folder that is there already without `resume`, that was trained with another recipe, or
    that another process trains in; StoppedError after a signal.
    """
    folder = folder or Path("runs") / recipe.name
    _refuse(recipe, folder, resume)
    network(recipe, SMALL, SMALL)  # what does not fit together is refused before the long work
    with _locked(folder):
        state = checkpoint.read_state(folder) if resume else None
        if state is not None and _finished(folder, state, recipe):
            return folder
        if resume and state is None:
            say(f"{folder}: no checkpoint yet, starting from the beginning")
        _train(recipe, folder, state)
    return folder


def _train(recipe: Recipe, folder: Path, state: dict[str, Any] | None) -> None:
    settings = recipe.training
    hardware = choose(settings.device, settings.precision, settings.threads)
    say(f"on {hardware}")
    material = gather(recipe, _known(folder) if state is not None else None)
    torch.manual_seed(settings.seed)
    model = network(recipe, material.source.vocab, material.target.vocab).to(hardware.device)
    info = describe(recipe, material, model, hardware)
    _announce(info)
    _start(folder, recipe, material, info, fresh=state is None)
    trainer = _trainer(recipe, folder, material, model, hardware)
    if state is not None:
        try:
            trainer.resume(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            state_file = folder / checkpoint.STATE
            raise CheckpointError(
                f"{state_file}: not a state of this model ({error}): train again with --out"
            ) from None
        say(f"going on at epoch {trainer.position.epoch}, update {trainer.position.updates}")
    try:
        position = trainer.run()
    finally:
        _draw(folder)
    _conclude(folder, position)
    say(f"done: {folder}, best {settings.metric} {position.best:.2f} on valid. Next: nmt evaluate {folder}")


def network(recipe: Recipe, source_vocab: int, target_vocab: int) -> Seq2Seq:
    """The network of a recipe. Raises RecipeError where its parts do not fit."""
    try:
        return build(recipe, source_vocab, target_vocab)
    except ValueError as error:
        raise RecipeError(f"model: {error}") from None


def _refuse(recipe: Recipe, folder: Path, resume: bool) -> None:
    """Raises CallError for a folder that this recipe must not be trained in."""
    if folder.exists() and not folder.is_dir():
        raise CallError(f"{folder} is a file: choose a folder with --out")
    files = [file for file in folder.iterdir() if not file.name.startswith(".")] if folder.is_dir() else []
    if not files:
        return
    if not resume:
        raise CallError(f"{folder} exists: go on with --resume, choose another folder with --out, or remove it")
    if not (folder / "recipe.yaml").is_file():
        raise CallError(f"{folder} has no recipe.yaml, so it is no run to resume: choose another folder with --out")
    before = checkpoint.read_recipe(folder)
    changed = [key for key in differences(before, recipe) if key not in FREE and key != "name"]
    if recipe.training.epochs < before.training.epochs:
        changed.append("training.epochs (a longer training would do)")
    if changed:
        raise CallError(
            f"{folder} was trained with another recipe, which differs in {', '.join(changed)}: "
            f"resume with the same, or train this one elsewhere with --out"
        )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make the folder and keep other processes from training in it; the lock ends with the process, however it ends."""
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if sys.platform != "win32":
                handle = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, handle)
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CallError(f"{folder}: another process trains in it: wait, or choose another with --out") from None
        except OSError as error:
            if not folder.is_dir():
                raise CallError(f"{folder}: cannot be made: {error.strerror}: choose another with --out") from None
            # else a file system without locks
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only where nothing was written


def _finished(folder: Path, state: Mapping[str, Any], recipe: Recipe) -> bool:
    """Whether there is nothing left to train; says so."""
    info = checkpoint.read(folder).info
    at, patience = Position(**state["position"]), recipe.training.patience
    if not at.finished:
        return False
    if patience is not None and at.since_best >= patience:
        say(f"{folder}: training has finished already: {at.since_best} validations without a better score")
    elif at.epoch >= recipe.training.epochs:
        say(f"{folder}: training has finished already: to go on, raise training.epochs above {recipe.training.epochs}")
    else:
        return False
    if not info.get("finished"):  # killed at the last moment
        _conclude(folder, at)
    return True


def _conclude(folder: Path, at: Position) -> None:
    _update_info(folder, {"finished": True, "seconds": at.seconds, "updates": at.updates, "tokens": at.tokens})


def _known(folder: Path) -> tuple[Tokenizer, Tokenizer]:
    """The tokenizers of a run that is resumed."""
    return Tokenizer.load(folder / "source.model"), Tokenizer.load(folder / "target.model")


def _start(folder: Path, recipe: Recipe, material: Material, info: Mapping[str, Any], fresh: bool) -> None:
    """What a run folder has from the beginning."""
    for name in checkpoint.FILES:
        for unfinished in (folder / name).parent.glob(f".{Path(name).name}.*"):  # by a process that was killed
            unfinished.unlink()
    if not fresh:
        _update_info(folder, {"finished": False})
    checkpoint.write_recipe(folder, recipe)
    if fresh:
        for stale in (checkpoint.METRICS, checkpoint.WEIGHTS):
            (folder / stale).unlink(missing_ok=True)  # of a run killed before its first checkpoint
        checkpoint.write_bytes(folder / "source.model", material.source.proto)
        checkpoint.write_bytes(folder / "target.model", material.target.proto)
        checkpoint.write_json(folder / checkpoint.INFO, info)


def _trainer(recipe: Recipe, folder: Path, material: Material, model: Seq2Seq, hardware: Hardware) -> Trainer[Batch]:
    settings = recipe.training
    validation = Validation(model, material, recipe, hardware)

    def loss(batch: Batch, progress: float) -> Loss:
        return model.loss(batch, settings.label_smoothing, forcing(settings, progress))

    def improved(figures: Mapping[str, Any]) -> None:
        best = dict(figures) | {"signature": validation.signature, "decoding": "greedy, valid split"}
        _update_info(folder, {"best": best})

    stream = TrainingStream(material, settings, hardware.device)
    return Trainer(model, loss, stream, validation, improved, settings, hardware, folder)


def describe(recipe: Recipe, material: Material, model: Seq2Seq, hardware: Hardware) -> dict[str, Any]:
    """What model.json says of a run."""
    seen = overlaps(recipe, material.corpus, material.valid)
    for split, found in seen.items():
        if found.sources:
            say(f"warning: {split} has {found}: its scores flatter")
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
            "overlap": {split: asdict(found) for split, found in seen.items()},
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


def _update_info(folder: Path, news: Mapping[str, Any]) -> None:
    path = folder / checkpoint.INFO
    checkpoint.write_json(path, checkpoint.read_json(path) | dict(news))


def _draw(folder: Path) -> None:
    """The picture of a run; one that cannot be written costs no training."""
    rows = checkpoint.read_metrics(folder)
    try:
        if rows:
            plots.curves(rows, folder / "curves.png")
    except OSError as error:
        say(f"warning: {folder / 'curves.png'}: cannot be written: {error.strerror}")
