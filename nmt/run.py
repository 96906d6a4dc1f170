"""A recipe becomes a trained model, whatever its task: the run folder, the trainer, resuming.

The run folder is the model folder (see `nmt.checkpoint`), with `curves.png` beside it.
"""

from __future__ import annotations

import contextlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from nmt import __version__, checkpoint, disk
from nmt import recipe as recipes
from nmt.errors import CallError, CheckpointError, RecipeError
from nmt.group import Group, join
from nmt.hardware import Hardware, choose
from nmt.job import Job
from nmt.progress import say
from nmt.recipe import AnyRecipe, Recipe, Task, differences
from nmt.trainer import Position, Trainer
from nmt.translate import Translator

# what may change between stopping and going on: how long, on how many cores, and what does not touch the weights, as
# all of `search` does not
FREE = (
    "training.epochs",
    "training.patience",
    "training.threads",
    "training.checkpoint_minutes",
    "training.samples",
    "training.sample",
    "training.tensorboard",
)


class Shape(Protocol):
    """A module of `nmt.shapes`: another task than translation."""

    @property
    def KIND(self) -> type[AnyRecipe]: ...  # noqa: N802

    def job(self, recipe: AnyRecipe, hardware: Hardware, folder: Path | None) -> Job[Any]: ...

    def evaluate(self, folder: Path, changes: Iterable[str]) -> Any: ...


def shape(task: Task) -> Shape | None:
    """The shape of a task, brought in when it is asked for; none for translation."""
    if task == "language-model":
        from nmt.shapes import language_model

        return language_model
    if task == "classification":
        from nmt.shapes import classifier

        return classifier
    if task == "captioning":
        from nmt.shapes import captioner

        return captioner
    if task == "tagging":
        from nmt.shapes import tagger

        return tagger
    return None


def searches(one: Shape) -> bool:
    """Whether the models of a shape write with a beam."""
    section = one.KIND.model_fields.get("search")
    return section is not None and "beam" in getattr(section.annotation, "model_fields", {})


def _kind(task: Task) -> type[AnyRecipe]:
    other = shape(task)
    return other.KIND if other else Recipe


def kind_of(subject: str) -> type[AnyRecipe]:
    """The kind of recipe that a run folder was trained with, or that a recipe is. Raises CallError for neither."""
    if Path(subject).is_dir():
        return _kind(checkpoint.task(Path(subject)))
    try:
        recipes.find(subject)
    except RecipeError as error:
        raise CallError(f"no model folder '{subject}', and {error}") from None
    return _kind(recipes.task(subject))


def load(name: str, changes: Iterable[str] = ()) -> AnyRecipe:
    """A recipe of any task, by path or shipped name."""
    return recipes.load_as(_kind(recipes.task(name)), name, changes)


def _job(recipe: AnyRecipe, hardware: Hardware, folder: Path | None, group: Group) -> Job[Any]:
    """What the task of a recipe has us train; `folder` is that of a run that is resumed."""
    other = shape(recipe.task)
    if other is not None:
        if group.size > 1:
            raise CallError(f"{recipe.name}: several processes train translators only, not {recipe.task}: use one")
        return other.job(recipe, hardware, folder)
    from nmt import translation  # and with it what scores, which translating does not need

    assert isinstance(recipe, Recipe)
    return translation.job(recipe, hardware, folder, group)


def translator(system: str, changes: Sequence[str] = (), threads: int | None = None) -> Translator:
    """Open a model folder or an ensemble, with `search.x=y` changes and the models that its search names."""
    one = Translator.load(system, threads=threads, changes=changes)
    if one.settings.method == "greedy" and (one.settings.reverse is not None or one.settings.mbr):
        say("warning: search.reverse and search.mbr choose among several: with search.method=greedy they are in vain")
    if one.settings.language_model is not None:
        from nmt.shapes import language_model

        try:
            one.fusion = language_model.fusion(one.settings.language_model, str(one.device), threads)
        except CheckpointError as error:
            raise CheckpointError(f"search.language_model: {error}") from None
        if one.fusion.fingerprint != one.members[0].target.fingerprint:
            raise CallError(
                f"search.language_model: {one.settings.language_model} writes other pieces than {system}: "
                f"train it with tokenizer.file set to the target.model of that"
            )
    if one.settings.reverse is not None:
        looks = [f"search.examples={one.settings.examples}"]
        try:
            one.back = Translator.load(one.settings.reverse, threads=threads, changes=looks)
        except CheckpointError as error:
            raise CheckpointError(f"search.reverse: {error}") from None
        own, other = one.recipe.data, one.back.recipe.data
        if (other.source, other.target) != (own.target, own.source):
            raise CallError(
                f"search.reverse: {one.settings.reverse} translates {other.source} to {other.target}, "
                f"{system} needs one from {own.target} to {own.source}"
            )
    return one


def evaluate(other: Shape, folder: Path, changes: Iterable[str]) -> Any:
    """What the test split of its recipe says of a model that does not translate; kept in evaluation.json."""
    result = other.evaluate(folder, changes)
    try:
        disk.write_json(folder / "evaluation.json", result.to_json())
    except CheckpointError as error:
        say(f"warning: the evaluation is not kept: {error}")
    return result


def train(recipe: AnyRecipe, folder: Path | None = None, resume: bool = False) -> Path:
    """Train a recipe into a folder, `runs/<recipe>` unless given; the folder.

    Raises CallError for a folder that is there already without `resume`, that was trained with another recipe or
    corpus, or that another process writes to; RecipeError and DataError for what cannot be trained; CheckpointError
    where the folder cannot be read or written; TrainingError where it cannot go on; StoppedError after a signal.
    """
    folder = folder or Path("runs") / recipe.name
    group = join()
    with contextlib.ExitStack() as stack:
        state, over = None, False
        if group.first:
            _refuse(recipe, folder, resume)
            stack.enter_context(disk.locked(folder))
            state = checkpoint.read_state(folder) if resume else None
            over = _over(folder, state, recipe)
            if resume and state is None and not over:
                say(f"{folder}: no checkpoint yet, starting from the beginning")
        state, over = group.same((state, over))  # the others, which may not see the folder, wait for this
        if not over:
            _train(recipe, folder, state, group)
    return folder


def _over(folder: Path, state: dict[str, Any] | None, recipe: AnyRecipe) -> bool:
    """Whether there is nothing left to train; says so. Raises CallError where there is no going on."""
    if state is not None:
        at = _position(folder, state)
        _not_beyond(folder, at, recipe)
        return _finished(folder, at, recipe)
    if (folder / checkpoint.WEIGHTS).is_file():
        _stateless(folder, recipe)
        return True
    return False


def _position(folder: Path, state: Mapping[str, Any]) -> Position:
    try:
        return Position(**state["position"])
    except (KeyError, TypeError) as error:
        raise _no_state(folder, error) from None


def _no_state(folder: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{folder / checkpoint.STATE}: not a state of this model ({error}): train again with --out")


def _train(recipe: AnyRecipe, folder: Path, state: dict[str, Any] | None, group: Group) -> None:
    settings = recipe.training
    hardware = choose(settings.device, settings.precision, settings.threads)
    say(f"on {hardware}" + (f", {group.size} processes" if group.size > 1 else ""))
    job = _job(recipe, hardware, folder if state is not None else None, group)
    if state is not None and group.first:
        _same_corpus(folder, job)
    if group.first:
        _start(folder, recipe, job, hardware, fresh=state is None)
    trainer = Trainer(
        job.model,
        job.loss,
        job.stream,
        job.validate,
        lambda figures: checkpoint.update_info(folder, {"best": dict(figures)}),
        settings,
        hardware,
        folder,
        job.carried,
        group,
    )
    if state is not None:
        try:
            trainer.resume(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise _no_state(folder, error) from None
        say(f"going on at epoch {trainer.position.epoch}, update {trainer.position.updates}")
    try:
        position = trainer.run()
    finally:
        if group.first:
            _draw(folder)
    if group.first:
        _conclude(folder, position)
    if position.best is None:
        raise CallError(f"{folder}: no {settings.metric} on valid was a number: lower training.learning_rate")
    best = f"best {settings.metric} {position.best:.2f} on valid"
    if settings.keep == "last":
        best = f"the last weights ({best})"
    say(f"done: {folder}, {best}")


def _refuse(recipe: AnyRecipe, folder: Path, resume: bool) -> None:
    """Raises CallError for a folder that this recipe must not be trained in."""
    if folder.exists() and not folder.is_dir():
        raise CallError(f"{folder} is a file: choose a folder with --out")
    files = [file for file in folder.iterdir() if not file.name.startswith(".")] if folder.is_dir() else []
    if not files:
        return
    if not resume:
        raise CallError(f"{folder} exists: go on with --resume, choose another folder with --out, or remove it")
    if not (folder / checkpoint.RECIPE).is_file():
        raise CallError(f"{folder} has no recipe.yaml, so it is no run to resume: choose another folder with --out")
    if (folder / checkpoint.INFO).is_file() and checkpoint.read_json(folder / checkpoint.INFO).get("exported"):
        raise CallError(f"{folder} is an exported translator: go on with the run that it comes from")
    before = checkpoint.read_recipe(type(recipe), folder)
    free = (*FREE, "name")
    changed = [key for key in differences(before, recipe) if key not in free and not key.startswith("search.")]
    if changed:
        raise CallError(
            f"{folder} was trained with another recipe, which differs in {', '.join(changed)}: go on with "
            f"`nmt train {folder / checkpoint.RECIPE} --out {folder} --resume`, or train elsewhere with --out"
        )


def _not_beyond(folder: Path, at: Position, recipe: AnyRecipe) -> None:
    """Raises CallError where a training made shorter would have ended already."""
    epochs = recipe.training.epochs
    if epochs >= checkpoint.read_recipe(type(recipe), folder).training.epochs:
        return  # also one that was stopped between its last update and its end
    if at.epoch > epochs or (at.epoch == epochs and not at.finished):
        least = at.epoch if at.finished else at.epoch + 1
        raise CallError(
            f"{folder} is through epoch {at.epoch}: training.epochs={epochs} is too few, {least} or more will do"
        )


def _stateless(folder: Path, recipe: AnyRecipe) -> None:
    """Says that a model without its training state has finished; raises CallError for one that has not."""
    epochs = checkpoint.read_recipe(type(recipe), folder).training.epochs
    if not checkpoint.read_json(folder / checkpoint.INFO).get("finished") or recipe.training.epochs > epochs:
        raise CallError(
            f"{folder} has a model but no {checkpoint.STATE} to go on from: put that back, or choose another --out"
        )
    say(f"{folder}: training has finished already")


def _same_corpus(folder: Path, job: Job[Any]) -> None:
    """Raises CallError where the corpus is not what the run began with: what follows would be other batches."""
    before = checkpoint.read_json(folder / checkpoint.INFO).get("data", {})
    now = json.loads(json.dumps(job.info["data"]))  # as it is written there
    same = {key for key in before if key in now and key != "overlap"}  # which tells of test too
    different = [f"{key} {before[key]}, now {now[key]}" for key in now if key in same and before[key] != now[key]]
    if different:
        raise CallError(
            f"{folder}: its corpus is not what it was when training began ({different[0]}): put that back to go on, "
            f"or train elsewhere with --out"
        )


def _finished(folder: Path, at: Position, recipe: AnyRecipe) -> bool:
    """Whether there is nothing left to train; says so."""
    info = checkpoint.read_json(folder / checkpoint.INFO)
    patience = recipe.training.patience
    if not at.finished:
        return False
    if patience is not None and at.since_best >= patience:
        say(
            f"{folder}: training has finished already: {at.since_best} validations without a better score: "
            f"to go on, raise training.patience above {at.since_best}"
        )
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


def _start(folder: Path, recipe: AnyRecipe, job: Job[Any], hardware: Hardware, fresh: bool) -> None:
    """Says what is trained, and writes what a run folder has from the beginning."""
    parts = job.info["parameters"]
    say(f"{sum(parts.values()):,} parameters: " + ", ".join(f"{name} {count:,}" for name, count in parts.items()))
    say(job.said)
    updates = recipe.training.epochs * -(-job.stream.batches(0) // recipe.training.accumulate)
    if recipe.training.warmup > updates / 3:
        say(
            f"warning: the learning rate rises for training.warmup={recipe.training.warmup} of {updates:,} updates, "
            f"too long for so short a training: lower it, make batches smaller, or train longer"
        )
    disk.clean(folder, (folder / checkpoint.STATE).parent)
    if not fresh:
        checkpoint.update_info(folder, {"finished": False})
    checkpoint.write_recipe(folder, recipe)
    if fresh:
        (folder / checkpoint.METRICS).unlink(missing_ok=True)  # of a run killed before its first checkpoint
        for name, content in job.files.items():
            disk.write_bytes(folder / name, content)
        disk.write_json(folder / checkpoint.INFO, _facts(hardware) | dict(job.info))


def _facts(hardware: Hardware) -> dict[str, Any]:
    """What model.json says of every run."""
    return {
        "format": checkpoint.FORMAT,
        "package": __version__,
        "torch": torch.__version__,
        "hardware": f"{hardware}, {platform.machine()}",
        "best": None,
        "finished": False,
    }


def _draw(folder: Path) -> None:
    """The picture of a run; one that cannot be written costs no training."""
    from nmt import plots  # matplotlib, which translating does not need

    rows = checkpoint.read_metrics(folder)
    try:
        if rows:
            plots.curves(rows, folder / "curves.png")
    except CheckpointError as error:
        say(f"warning: {error}")
