"""The model folder: one trained translator, self-contained, and what is needed to go on training it.

    recipe.yaml          the recipe as resolved
    source.model         SentencePiece, text in
    target.model         SentencePiece, text out
    model.safetensors    the best weights so far
    model.json           format, package version, sizes, data counts, best score with signature
    examples.safetensors what it is reminded of by the pairs it has read, after `nmt remember` (see `nmt.examples`)
    metrics.jsonl        one line per report of the training
    training/state.pt    weights, optimiser, random states, position: to resume

Every file is replaced in one piece, so that whatever kills the process leaves a folder that works; of metrics.jsonl,
which grows, a last line cut short is left out. Loading runs no
code from the folder: safetensors, and `weights_only=True` for the training state.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from nmt.disk import replacing, write_bytes, write_json, write_text
from nmt.errors import CallError, CheckpointError
from nmt.recipe import AnyRecipe, R, Recipe, Task, dump, parse_as

FORMAT = 1
RECIPE, INFO = "recipe.yaml", "model.json"
WEIGHTS, STATE, METRICS = "model.safetensors", "training/state.pt", "metrics.jsonl"
RETIRED = ("r_drop", "word_dropout")  # of `training`, in the recipes of older versions: a trained model does without


def split(folders: str | Path) -> list[Path]:
    """The folders of an ensemble written `runs/a+runs/b`."""
    if str(folders) and Path(folders).is_dir():
        return [Path(folders)]
    parts = str(folders).split("+")
    if not all(parts):
        raise CallError(f"'{folders}' names an empty folder: an ensemble is written runs/a+runs/b")
    return [Path(part) for part in parts]


def parameters(model: nn.Module) -> dict[str, Tensor]:
    """The parameters by name, each shared one once."""
    return {name: weight.detach() for name, weight in model.named_parameters()}


def write_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    write_tensors(folder / WEIGHTS, weights)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None) -> None:
    """`notes` are kept beside the tensors, for `read_notes`."""
    content = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    write_bytes(path, save(content, dict(notes) if notes else None))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Raises CheckpointError for a file that is missing, truncated or not safetensors."""
    with _safetensors(path):
        return load_file(path)


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """What shape each tensor has, without reading them. Raises CheckpointError as `read_tensors` does."""
    with _safetensors(path), safe_open(path, "pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no dictionary


def read_notes(path: Path) -> dict[str, str]:
    """What `write_tensors` noted beside the tensors. Raises CheckpointError as `read_tensors` does."""
    with _safetensors(path), safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


@contextlib.contextmanager
def _safetensors(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path}: not a safetensors file, or truncated ({reason}): copy it again; nmt reads no pickles"
        ) from None


def restore(model: nn.Module, weights: Mapping[str, Tensor], where: Path) -> None:
    """Put weights into a model. Raises CheckpointError where names or shapes differ, or a weight is no number."""
    own = parameters(model)
    if own.keys() != weights.keys():
        odd = sorted(own.keys() ^ weights.keys())
        raise CheckpointError(f"{where}: the weights are not those of this recipe's model: {odd[0]} differs")
    for name, weight in own.items():
        if weight.shape != weights[name].shape:
            given, wanted = tuple(weights[name].shape), tuple(weight.shape)
            raise CheckpointError(f"{where}: {name} has the shape {given}, the recipe says {wanted}")
        if not weights[name].isfinite().all():
            raise CheckpointError(f"{where}: {name} has weights that are no numbers: take a copy, or train it again")
        weight.copy_(weights[name])


@dataclass(frozen=True)
class Saved(Generic[R]):
    """A model folder as read; `weights` are on the CPU."""

    folder: Path
    recipe: R
    info: dict[str, Any]

    @property
    def exported(self) -> str | None:
        """The precision it was exported in, where it was: then it holds ONNX graphs instead of weights."""
        found: str | None = self.info.get("exported")
        return found

    @property
    def stamp(self) -> str:
        """Tells the model from those that were trained otherwise, or at another time."""
        return hashlib.sha256(repr(self.info).encode()).hexdigest()[:32]

    def weights(self) -> dict[str, Tensor]:
        """Raises CheckpointError for a file that is missing, truncated or not safetensors."""
        path = self.folder / WEIGHTS
        if self.exported:
            raise CheckpointError(f"{self.folder}: exported, without its weights: use the run that it comes from")
        if not path.is_file():
            raise CheckpointError(
                f"{path}: there are no trained weights yet: train with `nmt train`, or go on with --resume"
            )
        return read_tensors(path)


def read(folder: Path) -> Saved[Recipe]:
    """Open the model folder of a translator. Raises CheckpointError where it is none, or of another format;
    RecipeError where its recipe has what this version does not know.
    """
    return read_as(Recipe, folder)


def read_as(kind: type[R], folder: Path) -> Saved[R]:
    """The same for a model of any kind."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such model folder: train one with `nmt train`, or check the path")
    info = read_json(folder / INFO)
    if info.get("format") != FORMAT:
        raise CheckpointError(
            f"{folder / INFO}: format {info.get('format')!r}, this version of nmt reads {FORMAT}: "
            f"it was written by nmt {info.get('package', 'unknown')}, use that or train again"
        )
    return Saved(folder, read_recipe(kind, folder), info)


def read_recipe(kind: type[R], folder: Path) -> R:
    """The recipe a folder was trained with. Raises CheckpointError for a task of another kind, RecipeError
    where it has what this version does not know.
    """
    path = folder / RECIPE
    content = _content(path)
    here, wanted = content.get("task", "translation"), kind.model_fields["task"].default
    if here != wanted:
        raise CheckpointError(f"{folder}: a model for {here}, not for {wanted}: choose another folder or another verb")
    training = content.get("training")
    if here == "translation" and isinstance(training, dict):
        content["training"] = {key: value for key, value in training.items() if key not in RETIRED}
    return parse_as(kind, content, str(path))


def task(folder: Path) -> Task:
    """What the model in a folder is for."""
    given: Task = _content(folder / RECIPE).get("task", "translation")
    if given not in get_args(Task):
        raise CheckpointError(f"{folder / RECIPE}: task {given!r} is not known to this version of nmt")
    return given


def _content(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing: {path.parent} is not a model folder of nmt") from None
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not what nmt writes there: copy it again")
    return content


def write_recipe(folder: Path, recipe: AnyRecipe) -> None:
    write_text(folder / RECIPE, dump(recipe))


def read_json(path: Path) -> dict[str, Any]:
    """Raises CheckpointError for a file that is missing, cut short or holds no mapping."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing: {path.parent} is not a model folder of nmt") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not what nmt writes there: copy it again")
    return content


def list_bytes(texts: Sequence[str]) -> bytes:
    """The content of a file that `read_list` reads."""
    return json.dumps(texts, ensure_ascii=False, indent=0).encode()


def read_list(path: Path, what: str) -> list[str]:
    """A JSON list of strings, of characters, words or labels for instance. Raises CheckpointError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: no list of {what}: {error}: copy it again") from None
    if not (isinstance(found, list) and all(isinstance(one, str) for one in found)):
        raise CheckpointError(f"{path}: no list of {what}, but other JSON: copy it again")
    return found


def update_info(folder: Path, news: Mapping[str, Any]) -> None:
    """Change some keys of model.json."""
    path = folder / INFO
    write_json(path, read_json(path) | dict(news))


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Everything that training needs to go on as if it had never stopped."""
    with replacing(folder / STATE) as temporary:
        try:
            with open(temporary, "wb") as file:
                torch.save(dict(state), file)
        except RuntimeError as error:  # of torch, which speaks of its archive where the disk is full
            cause = error.__context__
            raise cause if isinstance(cause, OSError) else OSError(str(error).splitlines()[0]) from None


def read_state(folder: Path) -> dict[str, Any] | None:
    """The training state, None where there is none yet. Raises CheckpointError where it cannot be read."""
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds: a truncated archive, a pickle with code, bad data
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise CheckpointError(f"{path}: not a training state, or truncated: {reason}") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: not a training state: copy it again, or train again")
    return state


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl; a last line cut short by a crash is left out."""
    path = folder / METRICS
    rows: list[dict[str, Any]] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            with contextlib.suppress(ValueError):
                rows.append(json.loads(line))
    return rows
