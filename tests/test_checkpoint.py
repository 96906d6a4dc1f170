"""The model folder: whatever happens while writing, what was there still works; and reading runs no code."""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn
from toy import files

from nmt import checkpoint, disk
from nmt.errors import CheckpointError, RecipeError
from nmt.recipe import Recipe, parse

RECIPE = parse({"data": {"source": "en", "target": "de", "path": "corpus"}}, "test")
BIG = 300_000  # bytes, more than any buffer on the way holds back

Writer = Callable[[Path, int], None]
WRITERS: dict[str, Writer] = {
    "note.txt": lambda folder, size: disk.write_text(folder / "note.txt", "ä" * size),
    "source.model": lambda folder, size: disk.write_bytes(folder / "source.model", b"x" * size),
    checkpoint.INFO: lambda folder, size: disk.write_json(folder / checkpoint.INFO, {"x": "y" * size}),
    checkpoint.WEIGHTS: lambda folder, size: checkpoint.write_weights(folder, {"w": torch.zeros(size)}),
    checkpoint.STATE: lambda folder, size: checkpoint.write_state(folder, {"w": torch.zeros(size)}),
}
writers = pytest.mark.parametrize("name", WRITERS)


class Tied(nn.Module):
    def __init__(self, width: int = 3, tied: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, width)
        self.output = nn.Linear(width, 5)
        if tied:
            self.output.weight = self.embedding.weight


# -- writing


@contextmanager
def no_room_after(size: int) -> Iterator[None]:
    """Files of this process may not grow beyond `size` bytes: the kernel stops a write in the middle, for real."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@writers
@pytest.mark.parametrize("old", [False, True])
def test_a_write_that_the_system_stops_in_the_middle(name: str, old: bool, tmp_path: Path) -> None:
    if old:
        WRITERS[name](tmp_path, 10)
    before = files(tmp_path)
    said = f"{name}: cannot be written: {os.strerror(errno.EFBIG)}; what was saved before is untouched"
    with no_room_after(BIG // 3), pytest.raises(CheckpointError, match=said) as error:
        WRITERS[name](tmp_path, BIG)
    assert str(tmp_path / name) in str(error.value)
    assert files(tmp_path) == before
    WRITERS[name](tmp_path, BIG)
    assert len(files(tmp_path)) == 1


@writers
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_at_any_step(name: str, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS[name](tmp_path, 10)
    before = files(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        WRITERS[name](tmp_path, BIG)
    assert files(tmp_path) == before


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    for name, write in WRITERS.items():
        with pytest.raises(CheckpointError, match="cannot be written") as error:
            write(tmp_path / "run", 10)
        assert str(tmp_path / "run" / name) in str(error.value)


def test_a_list_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    for content in ('{"a": 1}', '["a", 1]', "[" * 100_000, "["):
        path.write_text(content)
        with pytest.raises(CheckpointError, match=r"labels\.json: no list of labels"):
            checkpoint.read_list(path, "labels")


def test_folders_are_made_on_the_way(tmp_path: Path) -> None:
    for write in WRITERS.values():
        write(tmp_path / "a" / "b", 10)
    assert set(files(tmp_path / "a" / "b")) == set(WRITERS)


# -- weights


@pytest.mark.parametrize("tied", [False, True])
def test_weights_come_back(tied: bool, tmp_path: Path) -> None:
    model, other = Tied(tied=tied), Tied(tied=tied)
    with torch.no_grad():
        model.output.bias.copy_(torch.arange(10.0)[::2])
    checkpoint.write_weights(tmp_path, checkpoint.parameters(model))
    weights = saved(tmp_path).weights()
    assert len(weights) == (2 if tied else 3), "what is shared is kept once"
    checkpoint.restore(other, weights, tmp_path)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    assert (other.output.weight is other.embedding.weight) == tied


def test_weights_may_be_views(tmp_path: Path) -> None:
    weights = {"a": torch.randn(4, 6).T, "b": torch.randn(9)[::2]}
    checkpoint.write_weights(tmp_path, weights)
    for name, weight in saved(tmp_path).weights().items():
        assert torch.equal(weight, weights[name])


def test_restore_refuses_other_names(tmp_path: Path) -> None:
    given = checkpoint.parameters(Tied())
    for odd, weights in (
        ("extra", given | {"extra": torch.zeros(1)}),
        ("output.bias", {name: weight for name, weight in given.items() if name != "output.bias"}),
    ):
        with pytest.raises(CheckpointError, match=odd) as error:
            checkpoint.restore(Tied(), weights, tmp_path)
        assert str(tmp_path) in str(error.value)
    with pytest.raises(CheckpointError, match=r"output\.weight"):
        checkpoint.restore(Tied(tied=False), given, tmp_path)


def test_restore_refuses_other_shapes(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"embedding\.weight has the shape \(5, 4\).* \(5, 3\)"):
        checkpoint.restore(Tied(3), checkpoint.parameters(Tied(4)), tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_restore_refuses_what_is_no_number(value: float, tmp_path: Path) -> None:
    weights = {name: weight.clone() for name, weight in checkpoint.parameters(Tied(3)).items()}
    weights["embedding.weight"][1, 2] = value
    with pytest.raises(CheckpointError, match=r"embedding\.weight has weights that are no numbers"):
        checkpoint.restore(Tied(3), weights, tmp_path)


def saved(folder: Path) -> checkpoint.Saved:
    return checkpoint.Saved(folder, RECIPE, {})


def test_weights_that_are_not_there_yet(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no trained weights yet"):
        saved(tmp_path).weights()


@pytest.mark.parametrize("keep", [0, 4, 7, 20, 60, -1])
def test_truncated_weights(keep: int, tmp_path: Path) -> None:
    checkpoint.write_weights(tmp_path, checkpoint.parameters(Tied()))
    path = tmp_path / checkpoint.WEIGHTS
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="not a safetensors file, or truncated") as error:
        saved(tmp_path).weights()
    assert str(path) in str(error.value)


# -- no code is run


class Evil:
    """What a pickle may do when it is read: here, leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def poisoned(path: Path, trap: Path, whole: bool) -> None:
    """A pickle at `path`, plain or as torch.save writes it, that makes a file at `trap` when read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if whole:
        torch.save({"weights": Evil(trap)}, path)
    else:
        path.write_bytes(pickle.dumps(Evil(trap)))


@pytest.mark.parametrize("whole", [False, True])
def test_a_pickle_is_not_read_as_weights(whole: bool, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    poisoned(tmp_path / checkpoint.WEIGHTS, trap, whole)
    with pytest.raises(CheckpointError, match="nmt reads no pickles"):
        saved(tmp_path).weights()
    assert not trap.exists()


@pytest.mark.parametrize("whole", [False, True])
def test_code_in_a_training_state_is_not_run(whole: bool, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    poisoned(tmp_path / checkpoint.STATE, trap, whole)
    pickle.loads(pickle.dumps(Evil(trap)))
    assert trap.exists(), "the trap works"
    trap.unlink()
    with pytest.raises(CheckpointError, match="not a training state"):
        checkpoint.read_state(tmp_path)
    assert not trap.exists()


# -- the training state


def test_a_training_state_comes_back(tmp_path: Path) -> None:
    assert checkpoint.read_state(tmp_path) is None
    model = Tied()
    optimizer = torch.optim.AdamW(model.parameters())
    model.output(model.embedding(torch.tensor([1]))).sum().backward()
    optimizer.step()
    state = {
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "position": {"epoch": 1, "best": None},
    }
    checkpoint.write_state(tmp_path, state)
    again = checkpoint.read_state(tmp_path)
    assert again is not None
    assert again["position"] == state["position"]
    assert torch.equal(again["random"], torch.get_rng_state())
    optimizer.load_state_dict(again["optimizer"])


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -1])
def test_a_truncated_training_state(keep: float, tmp_path: Path) -> None:
    checkpoint.write_state(tmp_path, {"w": torch.randn(500)})
    path = tmp_path / checkpoint.STATE
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if 0 < keep < 1 else int(keep)])
    with pytest.raises(CheckpointError, match="not a training state, or truncated") as error:
        checkpoint.read_state(tmp_path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_something_else_as_a_training_state(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    torch.save(torch.zeros(3), tmp_path / checkpoint.STATE)
    with pytest.raises(CheckpointError, match="not a training state"):
        checkpoint.read_state(tmp_path)


# -- opening a folder


def folder_of(path: Path, info: object = None, recipe: Recipe = RECIPE) -> Path:
    checkpoint.write_recipe(path, recipe)
    (path / checkpoint.INFO).write_text(json.dumps({"format": checkpoint.FORMAT} if info is None else info))
    return path


def test_a_folder_opens(tmp_path: Path) -> None:
    found = checkpoint.read(folder_of(tmp_path, {"format": checkpoint.FORMAT, "best": {"bleu": 1.5}}))
    assert found.recipe == RECIPE
    assert found.info["best"] == {"bleu": 1.5}


@pytest.mark.parametrize("version", [None, 0, checkpoint.FORMAT + 1, "1"])
def test_an_unknown_format(version: object, tmp_path: Path) -> None:
    folder_of(tmp_path, {"format": version, "package": "9.8.7"})
    with pytest.raises(CheckpointError, match=r"format .*, this version of nmt reads 1.* nmt 9\.8\.7"):
        checkpoint.read(tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("gone", "file"):
        with pytest.raises(CheckpointError, match=f"{name}: no such model folder"):
            checkpoint.read(tmp_path / name)


@pytest.mark.parametrize("key", checkpoint.RETIRED)
def test_a_folder_of_an_older_version_is_read(tmp_path: Path, key: str) -> None:
    folder = folder_of(tmp_path / "run")
    path = folder / "recipe.yaml"
    path.write_text(path.read_text().replace("training:\n", f"training:\n  {key}: 0.0\n"))
    assert checkpoint.read(folder).recipe == RECIPE
    path.write_text(path.read_text().replace(f"  {key}:", "  no_such_key:"))
    with pytest.raises(RecipeError, match="no_such_key"):
        checkpoint.read(folder)


@pytest.mark.parametrize("name", [checkpoint.INFO, "recipe.yaml"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    (folder_of(tmp_path) / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        checkpoint.read(tmp_path)


@pytest.mark.parametrize("name", [checkpoint.INFO, "recipe.yaml"])
@pytest.mark.parametrize("content", [b'{"format": 1', b"\xff\xfe\x00", b"[1, 2"])
def test_a_broken_file_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    (folder_of(tmp_path) / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name) as error:
        checkpoint.read(tmp_path)
    assert "\n" not in str(error.value)


def test_info_that_is_no_mapping(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=checkpoint.INFO):
        checkpoint.read(folder_of(tmp_path, [1, 2]))


# -- metrics


ROWS = [{"kind": "train", "loss": 1.5}, {"kind": "valid", "text": "grüße\u2028 日本"}, {"kind": "valid", "bleu": 3}]


def test_metrics_with_a_last_line_cut_anywhere(tmp_path: Path) -> None:
    assert checkpoint.read_metrics(tmp_path) == []
    lines = [json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in ROWS[:2]]
    for cut in range(len(lines[1]) - 1):
        (tmp_path / checkpoint.METRICS).write_bytes(lines[0] + lines[1][:cut])
        assert checkpoint.read_metrics(tmp_path) == ROWS[:1]


def test_metrics_come_back(tmp_path: Path) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    (tmp_path / checkpoint.METRICS).write_text(text, encoding="utf-8")
    assert checkpoint.read_metrics(tmp_path) == ROWS
