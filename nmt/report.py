"""What a recipe or a run is made of, for people to read: `nmt info` and `nmt data`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from nmt import checkpoint, examples
from nmt.corpus import MissingCorpusError
from nmt.data import histogram
from nmt.errors import CallError, CheckpointError, DataError
from nmt.material import gather, inherited, overlaps
from nmt.model import build, sizes
from nmt.progress import shown
from nmt.recipe import AnyRecipe, Recipe, dump, find, header, load_as

EVALUATION = "evaluation.json"
T = TypeVar("T")


def info(subject: str, changes: Sequence[str] = (), kind: type[AnyRecipe] = Recipe) -> str:
    """Sizes, recipe, data and scores of a model folder, or what a recipe would make; `kind` is that of its task."""
    folder = Path(subject)
    if not folder.is_dir():
        return _of_recipe(load_as(kind, subject, changes))
    if changes:
        raise CallError("--set: a run is as it was trained: give a recipe to see what changes would make of it")
    saved = checkpoint.read_as(kind, folder)
    figures = _complete(_figures, saved.info, folder / checkpoint.INFO)
    if pairs := examples.count(folder):
        figures += f"\nremembers    {pairs:,} pairs, and looks at them while it writes"
    blocks = [figures, _files(folder)]
    if kind is Recipe and (folder / EVALUATION).is_file():
        found = evaluation(folder)
        old = f"{EVALUATION} is of this model as it was before: `nmt evaluate {subject}` says what it reaches now"
        blocks.append(_complete(_scores, found, folder / EVALUATION) if found else old)
    return "\n\n".join([*blocks, dump(saved.recipe).rstrip()])


def evaluation(folder: Path) -> dict[str, Any] | None:
    """What `nmt evaluate` wrote last of a translator, if it was not trained on or shown pairs to look at since then.

    Raises CheckpointError.
    """
    path = folder / EVALUATION
    if not path.is_file():
        return None
    saved, content = checkpoint.read(folder), checkpoint.read_json(path)
    now = [[saved.stamp, examples.count(folder) if saved.recipe.search.examples else 0]]
    return content if _complete(_models, content, path) == now else None


def _models(content: dict[str, Any]) -> Any:
    """Which models were evaluated first."""
    return next(iter(content["systems"].values())).get("models")


def _complete(show: Callable[[dict[str, Any]], T], content: dict[str, Any], path: Path) -> T:
    """What a JSON file says, if it has all that nmt writes there."""
    try:
        return show(content)
    except (KeyError, TypeError, AttributeError, StopIteration):
        raise CheckpointError(f"{path}: not what nmt writes there: copy it again, or make it anew") from None


def _of_recipe(recipe: AnyRecipe) -> str:
    if not isinstance(recipe, Recipe):  # its sizes depend on its data
        return dump(recipe).rstrip()
    vocab = recipe.tokenizer.vocab_size
    with torch.device("meta"):  # shapes without memory
        parts = sizes(build(recipe, vocab, vocab))
    return f"{_parameters(parts)}\n(with {vocab:,} pieces)\n\n{dump(recipe).rstrip()}"


def _parameters(parts: dict[str, int]) -> str:
    rows = [(name, count) for name, count in parts.items() if count] + [("all", sum(parts.values()))]
    return "parameters\n" + "\n".join(f"  {name:<8} {count:>12,}" for name, count in rows)


def _figures(info: dict[str, Any]) -> str:
    best = info.get("best")
    pieces = ", ".join(f"{count:,} {side}" for side, count in info["vocabulary"].items())
    counts = ", ".join(f"{count:,} {what}" for what, count in info["data"].items() if isinstance(count, int))
    lines = [
        _parameters(info["parameters"]),
        *([f"vocabulary   {pieces} pieces"] if pieces else []),
        f"data         {counts}",
        f"trained on   {info['hardware']}, torch {info['torch']}, nmt {info['package']}",
    ]
    if info.get("seconds"):
        rate = info["tokens"] / info["seconds"]
        minutes = info["seconds"] / 60
        lines.append(f"training     {minutes:.1f} minutes, {info['updates']:,} updates, {rate:,.0f} targets/s")
    if info.get("exported"):
        shortlist = f", shortlist of {info['shortlist']}" if info.get("shortlist") else ""
        lines.append(f"exported     as ONNX, {info['exported']}{shortlist}")
    if best:
        scores = ", ".join(f"{_NAMES.get(name, name)} {value:.2f}" for name, value in best.items() if _is_score(value))
        how = "; ".join(best[key] for key in ("decoding", "signature") if key in best)
        lines.append(f"best valid   {scores}" + (f" ({how})" if how else ""))
    return "\n".join(lines)


_NAMES = {"bleu": "BLEU", "chrf": "chrF"}


def _is_score(value: object) -> bool:
    return isinstance(value, float)


def _files(folder: Path) -> str:
    rows = [(file.name, file.stat().st_size) for file in sorted(folder.iterdir()) if file.is_file()]
    return "files\n" + "\n".join(f"  {name:<20} {size / 1e6:>8.2f} MB" for name, size in rows)


def _scores(content: dict[str, Any]) -> str:
    lines = [f"{content['test']}: {content['sentences']:,} sentences"]
    for name, report in content["systems"].items():
        lines.append(f"  {name}")
        lines += [f"    {score['name']} {score['value']:.2f} ({score['signature']})" for score in report["scores"]]
    return "\n".join(lines)


def data(recipe: Recipe, where: str) -> str:
    """Fetch and prepare a corpus; its counts, filters, lengths and overlaps.

    Raises DataError; where there is no corpus, with the head of the recipe, which says where to get the files.
    """
    try:
        material = gather(recipe, inherited(recipe))
    except MissingCorpusError as error:
        about = "" if str(error).startswith("data.extra") else header(find(where))
        raise DataError(f"{error}\n{about}" if about else str(error)) from None
    first = material.corpus.source[0], material.corpus.target[0]
    lines = [f"first  {shown(*first)}", f"train  {material.filtered}"]
    lines += [f"{split:<6} {found}" for split, found in overlaps(recipe, material.corpus, material.valid).items()]
    pieces = {
        f"{recipe.data.source} (source)": material.train.source_lengths,
        f"{recipe.data.target} (target)": material.train.target_lengths,
    }
    lines.append(f"padding {material.batches.padding(0):.1%} in batches of {recipe.training.batch_tokens:,} tokens")
    for name, ends in pieces.items():
        lengths = ends - 1  # as data.max_length counts, without <eos>
        lines.append(f"\npieces per sentence, {name}: {lengths.mean():.1f} on average")
        lines += _bars(histogram(lengths))
    return "\n".join(lines)


def _bars(bins: Sequence[tuple[int, int, int]]) -> list[str]:
    most = max(count for _, _, count in bins)
    return [f"{first:>5}-{last:<5}{count:>9,} {'█' * round(40 * count / most)}" for first, last, count in bins]
