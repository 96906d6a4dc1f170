"""A recipe becomes a trained translator: material, model, trainer, validation by translation.

The run folder is the model folder (see `nmt.checkpoint`), with `curves.png` beside it.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from nmt import __version__, checkpoint, plots
from nmt.data import Batch
from nmt.errors import CallError, CheckpointError
from nmt.hardware import Hardware, choose
from nmt.loss import Loss
from nmt.material import Material, TrainingStream, gather, overlaps
from nmt.model import Seq2Seq, build, sizes
from nmt.progress import say
from nmt.recipe import Recipe, differences
from nmt.tokenizer import Tokenizer
from nmt.trainer import Position, Trainer, forcing
from nmt.validation import Validation

# what may change between stopping and going on: a longer training, and what does not touch the weights
FREE = ("training.epochs", "training.checkpoint_minutes", "training.samples", "training.tensorboard")


def train(recipe: Recipe, folder: Path | None = None, resume: bool = False) -> Path:
    """Train a recipe into a folder, `runs/<recipe>` unless given; the folder.

    Raises CallError for a folder that is there already without `resume`, that was trained with another recipe, or
    that another process trains in; StoppedError after a signal.
    """
    folder = folder or Path("runs") / recipe.name
    _refuse(recipe, folder, resume)
    with checkpoint.locked(folder):
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
    model = build(recipe, material.source.vocab, material.target.vocab).to(hardware.device)
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
    checkpoint.update_info(
        folder, {"finished": True, "seconds": at.seconds, "updates": at.updates, "tokens": at.tokens}
    )


def _known(folder: Path) -> tuple[Tokenizer, Tokenizer]:
    """The tokenizers of a run that is resumed."""
    return Tokenizer.load(folder / "source.model"), Tokenizer.load(folder / "target.model")


def _start(folder: Path, recipe: Recipe, material: Material, info: Mapping[str, Any], fresh: bool) -> None:
    """What a run folder has from the beginning."""
    checkpoint.clean(folder)
    if not fresh:
        checkpoint.update_info(folder, {"finished": False})
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
        checkpoint.update_info(folder, {"best": best})

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


def _draw(folder: Path) -> None:
    """The picture of a run; one that cannot be written costs no training."""
    rows = checkpoint.read_metrics(folder)
    try:
        if rows:
            plots.curves(rows, folder / "curves.png")
    except OSError as error:
        say(f"warning: {folder / 'curves.png'}: cannot be written: {error.strerror}")
