"""Training by recipe: every option learns, stopping costs nothing, and one folder is one run."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import torch
import yaml
from toy import (
    Children,
    Toy,
    call,
    metrics,
    pairs,
    until,
    write_lines,
    write_recipe,
    write_split,
)

from nmt import (
    Translator,
    checkpoint,
    corrections,
    disk,
    hardware,
    material,
    run,
    starter,
    trainer,
    translation,
    tune,
    validation,
)
from nmt.data import collate
from nmt.errors import CallError, CheckpointError, DataError, RecipeError
from nmt.metrics import bleu
from nmt.recipe import Data, changed, load
from nmt.validation import Validation


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_cache: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trainer, "REPORT_EVERY", 7)  # as in the children


# ---- What a recipe may ask for, trained for one tiny epoch -----------------------------------------------------------

TWO_LAYERS = {"model.decoder.layers": 2, "model.attention_position": "between"}
OPTIONS: dict[str, dict[str, Any]] = {
    "rnn": {"model.cell": "rnn", "training.learning_rate": 0.01},
    "lstm, additive attention": {"model.cell": "lstm", "model.attention": "additive"},
    "gru, dot attention": {"model.cell": "gru", "model.attention": "dot"},
    "cells of their own": {"model.encoder.cell": "lstm", "model.decoder.cell": "rnn"},
    "attention between, residual": {**TWO_LAYERS, "model.residual": True, "model.dropout.layers": 0.1},
    "input feeding": {"model.input_feeding": True},
    "fixed context": {"model.attention": "none"},
    "fixed context, fed": {"model.attention": "none", "model.context_feeding": True, "model.encoder.summary": "mean"},
    "deep and reversed": {"model.encoder.layers": 2, "model.encoder.direction": "reversed", "model.bridge": "zero"},
    "copied state": {"model.bridge": "copy", "model.encoder.direction": "forward", "model.encoder.hidden": 32},
    "character pieces": {"tokenizer": {"model": "char", "vocab_size": 40}},
    "bpe, a tokenizer per side": {
        "tokenizer": {"model": "bpe", "vocab_size": 44, "joint": False},
        "model.tie": "target",
    },
    "byte fallback": {"tokenizer": {"vocab_size": 300, "byte_fallback": True}, "model.tie": "none"},
    "scheduled sampling": {"training.teacher_forcing": 0.7, "training.teacher_forcing_schedule": "linear"},
    "scheduled sampling, sigmoid": {
        "training.teacher_forcing": 0.7,
        "training.teacher_forcing_schedule": "inverse_sigmoid",
        "model.input_feeding": True,
    },
    "accumulation": {"training.accumulate": 3, "training.batch_tokens": 40},
    "subword sampling": {"training.subword_sampling": 0.2},
    "bpe dropout": {"tokenizer": {"model": "bpe", "vocab_size": 48}, "training.subword_sampling": 0.1},
    "guided attention": {"training.guided_attention": 0.5},
    "plateau": {"training.schedule": "plateau", "training.validate_every": 6, "training.metric": "chrf"},
    "inverse square root": {"training.schedule": "inverse_sqrt", "training.metric": "perplexity"},
    "constant, no average": {"training.schedule": "constant", "training.ema": 0.0, "training.label_smoothing": 0.1},
    "bf16": {"training.precision": "bf16"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_recipe_learns(name: str, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_draw", lambda folder: None)  # tested once, below
    if name == "bf16" and not hardware.trains_in_bf16():
        pytest.skip("this CPU does not train in bfloat16")
    settings = {"training.epochs": 1, "training.validate_sentences": 8, **OPTIONS[name]}
    recipe = write_recipe(Path("toy.yaml"), corpus, settings)
    result = call("train", recipe, "--out", "run")
    assert result.status == 0, result.err
    losses = [row["loss"] for row in metrics(Path("run"), "train")]
    assert len(losses) >= 2
    assert losses[-1] < 0.9 * losses[0]
    found = metrics(Path("run"), "valid")[-1]
    info = json.loads(Path("run/model.json").read_text())
    assert found["loss"] < math.log(info["vocabulary"]["target"])
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    assert info["finished"]
    assert info["best"]["signature"].startswith("nrefs:1|")
    translator = Translator.load("run", threads=1)
    assert len(translator.translate(["kala juo", "", "🐙"], nbest=2)) == 3
    scored = translator.score(["kala juo"], ["fisch trinkt"])[0]
    assert -60 < scored.log_prob < 0


def test_patience_ends_a_training_that_no_longer_improves(corpus: Path) -> None:
    settings = {"training.learning_rate": 1e-9, "training.patience": 2, "training.metric": "perplexity"}
    recipe = write_recipe(Path("toy.yaml"), corpus, {**settings, "training.epochs": 20, "training.ema": 0.0})
    result = call("train", recipe, "--out", "run")
    assert result.status == 0, result.err
    rows = metrics(Path("run"), "valid")
    assert len(rows) < 20
    assert [row["best"] for row in rows[-2:]] == [False, False]
    assert "2 validations without a better one: training ends here" in result.err
    result = call("train", recipe, "--out", "run", "--resume")
    assert result.status == 0
    assert "already: 2 validations without a better score: to go on, raise training.patience above 2" in result.err
    assert metrics(Path("run"), "valid") == rows
    result = call("train", recipe, "--out", "run", "--resume", "--set=training.patience=3")
    assert result.status == 0, result.err
    assert metrics(Path("run"), "valid")[: len(rows)] == rows
    assert len(metrics(Path("run"), "valid")) == len(rows) + 1


def test_tensorboard_has_all_events(corpus: Path, children: Children) -> None:
    pytest.importorskip("tensorboard")
    recipe = write_recipe(Path("toy.yaml"), corpus, {"training.epochs": 1, "training.tensorboard": True})
    assert children.start("train", recipe, "--out", "run").wait().status == 0
    events = list(Path("run/tensorboard").glob("events.out.tfevents.*"))
    assert len(events) == 1
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    tags = {value.tag for event in EventFileLoader(str(events[0])).Load() for value in event.summary.value}
    assert {"valid/loss", "valid/bleu", "train/loss"} <= tags


def test_a_validation_says_what_the_model_says_of_valid(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its sentences are more than are scored at once."""
    recipe = load(str(toy.recipe), ["data.valid=train", "training.validate_sentences=100"])
    work, one = translation.job(recipe, hardware.choose("cpu", "float32", 1), None), Translator.load(toy.attention)
    checkpoint.restore(work.model, checkpoint.read(toy.attention).weights(), toy.attention)
    work.model.eval()  # as the trainer does
    said = work.validate(False)
    sources, references = work.validate.sources, work.validate.references
    assert len(sources) == 100
    greedy = [found.text for found in one.adjusted(["search.method=greedy"]).translate(sources)]
    assert said["bleu"] == pytest.approx(bleu(greedy, references, "de").value)
    scored = one.score(sources, references)
    nats = -sum(pair.log_prob for pair in scored) / sum(len(pair.log_probs) for pair in scored)
    assert said["loss"] == pytest.approx(nats, rel=1e-4)
    assert said["decoding"] == "greedy, the first 100 pairs of valid"


def test_a_pair_of_valid_that_is_too_long_costs_no_training(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load(str(toy.recipe))
    whole = translation.job(recipe, hardware.choose("cpu", "float32", 1), None).validate
    longest = max(whole.lengths)
    monkeypatch.setattr(validation, "SCORED", longest - 1)
    work = translation.job(recipe, hardware.choose("cpu", "float32", 1), None)
    assert 0 < len(work.validate.read) < len(whole.read)
    assert f"pairs of valid have over {longest - 1} pieces: perplexity leaves them out" in capsys.readouterr().err
    work.model.eval()
    assert 0 < work.validate(False)["loss"] < 10
    monkeypatch.setattr(validation, "SCORED", 1)
    with pytest.raises(DataError, match="valid has too long pairs alone"):
        translation.job(recipe, hardware.choose("cpu", "float32", 1), None)


def test_what_a_run_leaves(toy: Toy) -> None:
    files = {file.name for file in toy.attention.iterdir()}
    assert files == {
        *("recipe.yaml", "source.model", "target.model", "model.safetensors", "model.json", "metrics.jsonl"),
        *("curves.png", "training"),
    }
    assert (toy.attention / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in (toy.attention / "training").iterdir()] == ["state.pt"]
    info = json.loads((toy.attention / "model.json").read_text())
    rows = metrics(toy.attention, "valid")
    assert info["updates"] == rows[-1]["step"]
    assert info["best"]["bleu"] == max(row["bleu"] for row in rows)
    assert info["data"]["overlap"]["test"] == {"sources": 0, "pairs": 0, "total": 40}
    assert info["tokens"] == 8 * info["data"]["pieces"]["target"]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6, 7, 8]
    recipe = load(toy.attention / "recipe.yaml")
    assert (recipe.training.epochs, recipe.name) == (8, "toy")


def test_the_same_recipe_gives_the_same_model_in_any_folder(toy: Toy, tmp_path: Path) -> None:
    real = tmp_path / "somewhere"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    for out in ("run", "link", tmp_path / "deep" / "er"):
        assert call("train", toy.recipe, "--set", "training.epochs=1", "--out", out).status == 0
    weights = [(place / "model.safetensors").read_bytes() for place in (Path("run"), real, Path("deep/er"))]
    assert weights[0] == weights[1] == weights[2]
    assert "going on at epoch 1" in call("train", toy.recipe, "--out", "link", "--resume").err


@pytest.mark.parametrize("samples", [0, 2])
def test_without_out_a_run_is_named_after_its_recipe_and_shows_the_samples_asked_for(samples: int, toy: Toy) -> None:
    result = call("train", toy.recipe, "--set", "training.epochs=1", "--set", f"training.samples={samples}")
    assert result.status == 0
    assert result.err.count("  translation  ") == samples
    assert Path("runs/toy/model.safetensors").is_file()


def test_test_sentences_in_the_training_set_are_warned_of(tmp_path: Path) -> None:
    rows = pairs(90)
    write_split(tmp_path / "corpus", "train", rows[:60])
    write_split(tmp_path / "corpus", "valid", rows[60:80])
    write_split(tmp_path / "corpus", "test", [*rows[80:], *rows[:3]])
    recipe = write_recipe(
        tmp_path / "toy.yaml", tmp_path / "corpus", {"training.epochs": 1, "tokenizer.vocab_size": 40}
    )
    result = call("train", recipe, "--out", "run")
    assert result.status == 0
    warned = [line for line in result.err.splitlines() if line.startswith("warning: test ")]
    assert len(warned) == 1
    assert "3" in warned[0]


# ---- Stopping and going on -------------------------------------------------------------------------------------------

STOPPABLE = {  # with all that draws at random
    "training.epochs": 2,
    "training.batch_tokens": 60,
    "training.accumulate": 2,
    "training.checkpoint_minutes": 0,
    "training.subword_sampling": 0.2,
    "training.samples": 0,
    "training.metric": "perplexity",  # which gets better at each validation
    "training.validate_sentences": 5,
}


class Whole:
    """A run that was never stopped, and what it takes to compare another with it."""

    def __init__(self, recipe: Path, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder

    def assert_same(self, other: Path) -> None:
        for name in ("model.safetensors", "source.model", "target.model"):
            assert (self.folder / name).read_bytes() == (other / name).read_bytes()
        one, two = (checkpoint.read_state(folder) for folder in (self.folder, other))
        assert one is not None
        assert two is not None
        for part in ("weights", "average"):
            assert one[part].keys() == two[part].keys()
            assert all(torch.equal(one[part][name], two[part][name]) for name in one[part])
        assert torch.equal(one["random"], two["random"])
        for number, moments in one["optimizer"]["state"].items():
            for name, value in moments.items():
                assert torch.equal(value, two["optimizer"]["state"][number][name])
        assert {**one["position"], "seconds": 0} == {**two["position"], "seconds": 0}
        assert metrics(self.folder) == metrics(other)
        infos = [json.loads((folder / "model.json").read_text()) for folder in (self.folder, other)]
        for info in infos:
            info.pop("seconds")
        assert infos[0] == infos[1]
        left = [file.name for file in other.rglob("*") if file.name.startswith(".")]
        assert not left


@pytest.fixture(scope="module")
def whole(corpus: Path, toy_cache: Path, children: Children) -> Whole:
    recipe = write_recipe(corpus.parent / "stoppable.yaml", corpus, STOPPABLE)
    result = children.start("train", recipe, "--out", corpus.parent / "whole").wait()
    assert result.status == 0, result.err
    assert metrics(corpus.parent / "whole", "train")
    return Whole(recipe, corpus.parent / "whole")


def saves(folder: Path) -> int:
    """A number that changes with each checkpoint."""
    try:
        return (folder / "training" / "state.pt").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def after_saves(folder: Path, count: int) -> None:
    """Wait until a training has written so many checkpoints."""
    seen = saves(folder)
    for _ in range(count):
        until(lambda seen=seen: saves(folder) != seen)  # type: ignore[misc]
        seen = saves(folder)


def test_killed_at_any_moment_and_resumed_it_is_as_if_never_stopped(whole: Whole, children: Children) -> None:
    folder = Path("run").absolute()
    draw = random.Random(seed := random.randrange(1000))
    print("seed", seed)  # shown where it fails
    killed = []
    for count in (0, draw.randint(1, 4), 1, draw.randint(1, 4), draw.randint(1, 4)):
        child = children.start("train", whole.recipe, "--out", folder, "--resume")
        after_saves(folder, count)
        time.sleep(draw.random() * 0.01)
        child.kill(signal.SIGKILL)
        killed.append(child.wait().status)
        if (folder / "model.safetensors").exists():
            assert Translator.load(folder, threads=1).translate(["kala"])
    assert killed == [-signal.SIGKILL] * 5
    result = children.start("train", whole.recipe, "--out", folder, "--resume").wait()
    assert result.status == 0, result.err
    assert "going on at epoch" in result.err
    whole.assert_same(folder)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_stops(number: signal.Signals, status: int, whole: Whole, children: Children) -> None:
    folder = Path("run").absolute()
    child = children.start("train", whole.recipe, "--out", folder)
    after_saves(folder, 3)
    child.kill(number)
    result = child.wait()
    assert result.status == status
    assert result.out == ""
    assert result.error == f"stopped by {number.name}, all is saved in {folder}: go on with --resume"
    assert call("info", folder).status == 0
    resumed = call("train", whole.recipe, "--out", folder, "--resume")
    assert resumed.status == 0
    assert "going on at epoch" in resumed.err
    whole.assert_same(folder)
    again = call("train", whole.recipe, "--out", folder, "--resume")
    assert again.status == 0
    assert "training has finished already: to go on, raise training.epochs above 2" in again.err
    whole.assert_same(folder)


def test_stopped_before_any_checkpoint_it_starts_from_the_beginning(whole: Whole, children: Children) -> None:
    folder = Path("run").absolute()
    child = children.start("train", whole.recipe, "--set", "training.checkpoint_minutes=5", "--out", folder)
    until((folder / "metrics.jsonl").parent.joinpath("model.json").exists)
    child.kill(signal.SIGKILL)
    assert child.wait().status == -signal.SIGKILL
    shutil.rmtree(folder / "training", ignore_errors=True)  # in case it was that quick
    (folder / "model.safetensors").unlink(missing_ok=True)
    (folder / ".model.safetensors.0a1b2c3d.part").write_bytes(b"half")
    (folder / ".mine").write_text("mine")
    result = call("translate", folder, stdin="kala\n")
    assert result.status == 1
    assert "there are no trained weights yet" in result.error
    assert call("info", folder).status == 0
    result = call("train", whole.recipe, "--out", folder, "--resume")
    assert result.status == 0
    assert f"{folder}: no checkpoint yet, starting from the beginning" in result.err
    assert (folder / ".mine").read_text() == "mine"
    (folder / ".mine").unlink()
    whole.assert_same(folder)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_while_it_reads_the_corpus_it_leaves_nothing(
    number: int, status: int, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nmt.translation.gather", lambda *args: signal.raise_signal(number))
    result = call("train", toy.recipe, "--out", "run")
    assert result.status == status
    assert "Traceback" not in result.err
    assert not Path("run").exists()


def test_a_warmup_longer_than_the_training_is_said(toy: Toy) -> None:
    quick = ("--set", "training.epochs=1", "--out", "run")
    said = call("train", toy.recipe, *quick, "--set", "training.warmup=500").err
    assert re.search(r"warning: .* rises for training\.warmup=500 of \d+ updates, too long", said)
    assert "training.warmup" not in call("train", toy.recipe, *quick[:2], "--out", "other").err


def test_a_model_is_not_lost_with_its_training_state(whole: Whole) -> None:
    folder = Path(shutil.copytree(whole.folder, "run"))
    shutil.rmtree(folder / "training")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    resume = ["train", whole.recipe, "--out", folder, "--resume"]
    result = call(*resume)
    assert result.status == 0
    assert "run: training has finished already" in result.err
    result = call(*resume, "--set", "training.epochs=9")
    assert result.status == 2
    assert (
        "run has a model but no training/state.pt to go on from: put that back, or choose another --out" in result.error
    )
    checkpoint.update_info(folder, {"finished": False})
    assert call(*resume).status == 2
    checkpoint.update_info(folder, {"finished": True})
    assert before == {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_run_does_not_go_on_with_another_corpus(whole: Whole, corpus: Path) -> None:
    other = Path(shutil.copytree(corpus, "corpus"))
    for language in ("en", "de"):
        lines = (corpus / f"train.{language}").read_text().splitlines()
        write_lines(other / f"train.{language}", lines[:150])
    folder = Path(shutil.copytree(whole.folder, "run"))
    recipe = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(recipe.replace(str(corpus), str(other.resolve())))
    result = call("train", folder / "recipe.yaml", "--set", "training.epochs=9", "--out", folder, "--resume")
    assert result.status == 2
    assert "run: its corpus is not what it was when training began (train 200, now 150): put that back" in result.error


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_corpus_of_as_many_lines_and_pieces_is_another_too(split: str, whole: Whole, corpus: Path) -> None:
    other = Path(shutil.copytree(corpus, "corpus"))
    lines = (corpus / f"{split}.de").read_text().splitlines()
    write_lines(other / f"{split}.de", [" ".join(reversed(line.split())) for line in lines])
    folder = Path(shutil.copytree(whole.folder, "run"))
    recipe = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(recipe.replace(str(corpus), str(other.resolve())))
    result = call("train", folder / "recipe.yaml", "--set", "training.epochs=9", "--out", folder, "--resume")
    assert result.status == 2
    assert f"run: its corpus is not what it was when training began (text of {split} " in result.error
    assert json.loads((folder / "model.json").read_text())["finished"], "nothing is touched"


def test_a_run_goes_on_where_test_has_come_or_changed(whole: Whole, corpus: Path) -> None:
    other = Path(shutil.copytree(corpus, "corpus"))
    for language in ("en", "de"):
        shutil.copy(other / f"train.{language}", other / f"test.{language}")
    folder = Path(shutil.copytree(whole.folder, "run"))
    recipe = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(recipe.replace(str(corpus), str(other.resolve())))
    result = call("train", folder / "recipe.yaml", "--out", folder, "--resume")
    assert result.status == 0, result.err
    assert "training has finished already" in result.err


def test_resume_of_what_never_began_begins(toy: Toy) -> None:
    result = call("train", toy.recipe, "--set", "training.epochs=1", "--out", "run", "--resume")
    assert result.status == 0
    assert "run: no checkpoint yet, starting from the beginning" in result.err
    assert Path("run/model.safetensors").is_file()


def test_a_changed_recipe_is_not_resumed(toy: Toy) -> None:
    before = {file: file.read_bytes() for file in toy.attention.rglob("*") if file.is_file()}
    flags = ["--set", "model.attention=general", "--out", toy.attention, "--resume"]
    changes = ["--set", "training.epochs=9", "--set", "model.cell=lstm", "--set", "training.seed=5"]
    result = call("train", toy.recipe, *changes, *flags)
    assert result.status == 2
    assert "with another recipe, which differs in model.cell, training.seed: go on with `nmt" in result.error
    stored = result.error.split("`")[1].split()[1:]
    assert "training has finished already" in call(*stored).err
    result = call("train", toy.recipe, "--set", "training.epochs=7", *flags)
    assert result.status == 2
    assert "is through epoch 8: training.epochs=7 is too few, 8 or more will do" in result.error
    assert before == {file: file.read_bytes() for file in toy.attention.rglob("*") if file.is_file()}


def test_a_longer_training_goes_on(toy: Toy) -> None:
    shutil.copytree(toy.attention, "run")
    changes = ["training.epochs=10", "training.samples=0", "training.threads=2", "search.beam=2"]
    flags = [*(part for change in changes for part in ("--set", change)), "--out", "run", "--resume"]
    result = call("train", toy.recipe, *flags)
    assert result.status == 0
    steps = [row["step"] for row in metrics(toy.attention, "valid")]
    assert f"going on at epoch 8, update {steps[-1]}" in result.err
    assert result.err.endswith("next: nmt remember run, then nmt evaluate run\n")
    rows = metrics(Path("run"), "valid")
    assert [row["epoch"] for row in rows] == list(range(1, 11))
    assert [row["step"] for row in rows][:8] == steps
    assert load("run/recipe.yaml").training.epochs == 10
    assert json.loads(Path("run/model.json").read_text())["updates"] == rows[-1]["step"]


def test_what_was_stopped_may_end_sooner(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    works: Callable[..., None] = checkpoint.update_info
    times = iter(range(9))

    def stops(*args: Any) -> None:
        if next(times) == 1:
            raise KeyboardInterrupt
        works(*args)

    flags = ["--set=training.samples=0", "--out=run"]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "update_info", stops)
        assert call("train", toy.recipe, "--set=training.epochs=4", *flags).status == 130
    result = call("train", toy.recipe, "--set=training.epochs=1", *flags, "--resume")
    assert (result.status, "is through epoch 1: training.epochs=1 is too few, 2 or more" in result.error) == (2, True)
    result = call("train", toy.recipe, "--set=training.epochs=2", *flags, "--resume")
    assert result.status == 0, result.err
    assert [row["epoch"] for row in metrics(Path("run"), "valid")] == [1, 2]
    assert load("run/recipe.yaml").training.epochs == 2
    state = torch.load("run/training/state.pt", weights_only=False)
    torch.save(state | {"position": state["position"] | {"finished": False}}, "run/training/state.pt")
    result = call("train", toy.recipe, "--set=training.epochs=2", *flags, "--resume")
    assert result.status == 0, "stopped after its last update, it still ends"
    for other in ({"position": state["position"] | {"phase": 1}}, {"position": 7}):
        torch.save(state | other, "run/training/state.pt")
        result = call("train", toy.recipe, "--set=training.epochs=2", *flags, "--resume")
        assert (result.status, "run/training/state.pt: not a state of this model" in result.error) == (1, True)


def test_a_trained_model_learns_from_corrections(toy: Toy) -> None:
    """What the page keeps moves the model that was corrected, not a new one, which forgets nothing else."""
    source, wrong = "iso kala juo", "klein fisch isst"
    corrections.append(Path("corrections"), ("en", "de"), source, wrong, "toy")
    quick = ["--set=training.learning_rate=0.003"]
    result = call("tune", toy.attention, "corrections/en-de.tsv", *quick, "--out", "run")
    assert result.status == 0, result.err
    assert "240 training pairs" in result.err, "the correction 60 times, among three others each time"
    assert f"1 pairs to learn, en to de, first: {source} → {wrong}" in result.err
    text = Translator.load("run").translate([source])[0].text
    assert f"of 1 new sentences, {int(text == wrong)} are now translated as given; before it were 0" in result.err
    assert (f"now    {text}" in result.err) == (text != wrong)
    assert "training the tokenizer" not in result.err
    assert Path("run/source.model").read_bytes() == (toy.attention / "source.model").read_bytes()
    before, after = (Translator.load(folder).score([source], [wrong])[0].log_prob for folder in (toy.attention, "run"))
    assert after > before + 1
    scores = [row["bleu"] for row in metrics(Path("run"), "valid")]
    assert scores[-1] > 0.8 * max(row["bleu"] for row in metrics(toy.attention, "valid"))
    assert json.loads(Path("run/model.json").read_text())["best"]["bleu"] == scores[-1], "the last weights are kept"
    assert call("evaluate", "run").status == 0, "the test split is still there"
    result = call("tune", toy.attention, "corrections/en-de.tsv", *quick, "--out", "run")
    assert "run exists: go on with --resume" in result.error
    assert call("tune", toy.attention, "corrections/en-de.tsv", *quick, "--out", "run", "--resume").status == 0


def test_a_correction_that_stays_as_its_source_is_learnt_too(toy: Toy, tmp_path: Path) -> None:
    new = write_lines(tmp_path / "new.tsv", ["en\tde", "iso kala\tiso kala"])
    result = call("tune", toy.attention, new, "--out", tmp_path / "new")
    assert result.status == 0, result.err
    assert "identical" not in result.err
    assert "240 training pairs" in result.err
    assert result.err.endswith(f"next: nmt evaluate {tmp_path / 'new'}\n")
    assert "nmt remember" not in result.err


def test_the_more_pairs_to_tune_on_the_less_often_each_is_seen() -> None:
    assert [tune.repetitions(count) for count in (0, 1, 25, 400, 500, 5_000)] == [60, 60, 48, 3, 3, 3]


def test_a_tuning_that_was_stopped_goes_on_with_what_it_began_with(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for source, target in pairs(25, seed=7):
        corrections.append(Path("corrections"), ("en", "de"), source, target, "toy")
    command = ["tune", toy.attention, "corrections/en-de.tsv", "--out", tmp_path / "run", "--set=training.epochs=1"]
    assert call(*command).status == 0
    recipe = checkpoint.read(tmp_path / "run").recipe
    assert recipe.data.extra_times == 48
    assert recipe.data.extra == (str(Path("corrections/en-de.tsv").resolve()),)
    assert call(*command, "--resume", "--set=training.epochs=2").status == 0
    corrections.append(Path("corrections"), ("en", "de"), "kala", "fisch fisch", "toy")
    for more in ([], ["--set=training.epochs=3"]):
        result = call(*command, "--resume", *more)
        assert result.status == 2
        assert f"{tmp_path / 'run'} was tuned with other pairs, of which it has learnt: choose another" in result.error
    assert (
        call("tune", tmp_path / "run", "corrections/en-de.tsv", "--out", "again", "--set=training.epochs=1").status == 0
    )
    again = checkpoint.read(Path("again")).recipe
    assert again.data.known == recipe.data.extra, "of which it forgets little"
    known = material.known(again)
    assert (known.extra, known.known, known.drop_duplicates) == (recipe.data.extra, (), True), "each pair once"
    assert "in vain" not in result.err
    result = call("data", tmp_path / "run" / "recipe.yaml", "--set", "data.drop_duplicates=true")
    assert "warning: data.extra_times=48 is in vain without data.drop_duplicates=false" in result.err
    shutil.rmtree(tmp_path / "run")
    Path("again").rename(tmp_path / "run")  # the tuned one takes the place of the one before
    with_itself = material.known(checkpoint.read(tmp_path / "run").recipe)
    assert with_itself.extra == recipe.data.extra, "it ends"
    monkeypatch.chdir(toy.attention)
    assert call("tune", ".", recipe.data.extra[0], "--set=training.epochs=1").status == 0
    assert toy.attention.with_name(f"{toy.attention.name}-tuned").is_dir()
    shutil.rmtree(toy.attention.with_name(f"{toy.attention.name}-tuned"))


def test_a_resumed_run_has_its_own_tokenizers_wherever_its_parent_went(toy: Toy) -> None:
    begun = changed(checkpoint.read(toy.attention).recipe, ["training.init_from=gone"])
    found = material.inherited(begun, toy.attention)
    assert found is not None
    assert found[0].proto == (toy.attention / "source.model").read_bytes()
    with pytest.raises(CallError, match=r"training\.init_from: gone: no such model folder"):
        material.inherited(begun)
    taught = changed(checkpoint.read(toy.attention).recipe, [f"training.teacher={toy.attention}+gone"])
    with pytest.raises(CallError, match=r"training\.teacher: gone: no such model folder"):
        material.inherited(taught)


def test_pieces_of_another_model_are_told_of_where_the_recipe_has_others(
    toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = changed(checkpoint.read(toy.attention).recipe, [f"training.init_from={toy.attention}"])
    material.inherited(begun)
    assert "pieces" not in capsys.readouterr().err
    material.inherited(changed(begun, ["tokenizer.vocab_size=9999"]))
    assert f"the pieces are those of {toy.attention}, not what the recipe's tokenizer says" in capsys.readouterr().err


def test_a_tuning_learns_all_pairs_whatever_valid_says(toy: Toy, tmp_path: Path) -> None:
    """A recipe of `nmt init` stops where valid gets no better, which is of other text than the new pairs."""
    shutil.copytree(toy.attention, old := tmp_path / "old")
    slow = ["training.schedule=inverse_sqrt", "training.accumulate=8"]  # by which it would hardly learn
    recipe = changed(checkpoint.read(old).recipe, ["training.patience=1", "training.validate_every=1", *slow])
    checkpoint.write_recipe(old, recipe)
    new = write_lines(tmp_path / "new.tsv", ["en\tde", *map("\t".join, pairs(30, seed=3))])
    result = call("tune", old, new, "--out", tmp_path / "new")
    assert result.status == 0, result.err
    assert "epoch 1.00" in result.err
    assert "done: " in result.err
    assert "the last weights (best bleu " in result.err
    tuned = checkpoint.read(tmp_path / "new").recipe.training
    assert (tuned.schedule, tuned.accumulate) == ("cosine", 1)


def test_pairs_are_mixed_with_what_was_tuned_on_before(toy: Toy, tmp_path: Path) -> None:
    files = [
        write_lines(tmp_path / f"{seed}.tsv", ["en\tde", *map("\t".join, pairs(150, seed=seed))]) for seed in (61, 62)
    ]
    base = checkpoint.read(toy.attention).recipe
    data = changed(base, [f"data.extra={files[1]}", f"data.known={files[0]}", "data.mix=1"]).data
    found = material.load_split(data, "train")
    drawn = set(zip(found.source[:150], found.target[:150], strict=True))
    assert len(found) == 300
    assert 0 < len(drawn & (before := set(pairs(150, seed=61)))) < 150
    train = material.load_split(base.data, "train")
    assert drawn <= before | set(zip(train.source, train.target, strict=True))
    with pytest.raises(RecipeError, match=r"data\.known is for data\.mix"):
        changed(base, [f"data.known={files[0]}"])


def test_what_cannot_be_tuned(toy: Toy) -> None:
    assert "runs/nothing: no such model folder" in call("tune", "runs/nothing", "a.tsv").error
    assert "no 'nowhere.tsv'" in call("tune", toy.attention, "nowhere.tsv", "--out", "run").error
    assert call("tune", toy.attention).status == 2


def test_a_model_starts_from_another(toy: Toy) -> None:
    flags = [f"--set=training.init_from={toy.attention}"]
    result = call("train", toy.recipe, *flags, "--set", "model.cell=lstm", "--out", "other")
    assert result.status == 1
    assert "the weights are not those of this recipe's model" in result.error
    result = call("train", toy.recipe, "--set", "training.init_from=runs/nothing", "--out", "third")
    assert "training.init_from: runs/nothing: no such model folder" in result.error


def test_a_vocabulary_of_characters_has_nothing_to_sample(corpus: Path) -> None:
    recipe = write_recipe(Path("toy.yaml"), corpus, {"tokenizer.model": "char", "training.epochs": 1})
    assert call("train", recipe, "--out", "run").status == 0
    more = write_recipe(Path("more.yaml"), corpus, {"training.init_from": "run", "training.subword_sampling": 0.5})
    result = call("train", more, "--out", "next")
    assert result.status == 2
    assert "training.subword_sampling: a vocabulary of characters has no other segmentations" in result.error


def test_validation_takes_no_larger_batches_than_training(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = changed(checkpoint.read(toy.attention).recipe, ["training.batch_tokens=30"])
    member = Translator.load(toy.attention, threads=1).members[0]
    gathered = material.gather(recipe, (member.source, member.target))
    one = Validation(member.model, gathered, recipe, hardware.choose("cpu", "float32", 1))
    shapes, loss = [], member.model.loss
    monkeypatch.setattr(member.model, "loss", lambda batch: shapes.append(batch.source.shape) or loss(batch))
    found = one(False)["loss"]
    assert all(rows == 1 or rows * (steps - 1) <= 30 for rows, steps in shapes), "an odd length is filled up by one"
    assert sum(rows for rows, _ in shapes) == 20
    assert any(rows > 1 for rows, _ in shapes)
    wide = Validation(member.model, gathered, checkpoint.read(toy.attention).recipe, one.hardware)
    assert wide(False)["loss"] == pytest.approx(found, abs=1e-4)


def test_a_student_learns_what_its_teachers_would_write(toy: Toy) -> None:
    """A model that goes on from its teacher stays with it if it learns from nothing else, and leaves it otherwise."""
    teacher = Translator.load(toy.attention, threads=1).members[0]
    source, target = zip(*pairs(40), strict=True)
    batch = collate(teacher.source.encode(source), teacher.target.encode(target))
    meant = teacher.model.probabilities(batch)  # type: ignore[union-attr]
    apart = []
    for share in (0.01, 1.0):
        flags = [f"--set=training.teacher={toy.attention}+{toy.attention}", f"--set=training.teacher_share={share}"]
        flags += [f"--set=training.init_from={toy.attention}", "--set=training.label_smoothing=0.3"]
        found = call("train", toy.recipe, *flags, "--set", "training.epochs=1", "--out", f"student-{share}")
        assert found.status == 0, found.err
        student = Translator.load(f"student-{share}", threads=1).members[0]
        assert student.target.fingerprint == teacher.target.fingerprint
        own = student.model.probabilities(batch)  # type: ignore[union-attr]
        apart.append(float((meant * (meant.log() - own.log())).sum(1).mean()))
    assert apart[1] < 0.5 * apart[0]
    found = call("train", toy.recipe, *flags, "--set", "training.epochs=2", "--out", "student-1.0", "--resume")
    assert found.status == 0, found.err


def test_who_cannot_teach(toy: Toy) -> None:
    flags = ["--set=training.teacher=runs/nothing", "--out=new"]
    assert "training.teacher: runs/nothing: no such model folder" in call("train", toy.recipe, *flags).error
    assert call("export", toy.attention, "--out", "exported").status == 0
    found = call("train", toy.recipe, "--set=training.teacher=exported", "--out=new")
    assert (found.status, "exported is an exported translator" in found.error) == (2, True)
    other = write_recipe(Path("other.yaml"), toy.corpus, {"tokenizer": {"model": "bpe", "vocab_size": 48}})
    assert call("train", other, "--set=training.epochs=1", "--out=other").status == 0
    found = call("train", toy.recipe, f"--set=training.teacher={toy.attention}+other", "--out=new")
    assert (found.status, "other writes other pieces" in found.error) == (2, True)
    apart = ["--set=tokenizer.joint=false", "--set=tokenizer.vocab_size=30", "--set=model.tie=target"]
    assert call("train", toy.recipe, *apart, "--set=training.epochs=1", "--out=apart").status == 0
    found = call("train", toy.recipe, "--set=training.teacher=apart", "--set=model.tie=all", "--out=new")
    assert (found.status, "those of apart are two: set model.tie to target" in found.error) == (2, True)
    assert not Path("new").exists()


def test_killed_at_the_last_moment_a_run_is_finished_by_resuming(whole: Whole) -> None:
    shutil.copytree(whole.folder, "run")
    info = json.loads(Path("run/model.json").read_text())
    for name in ("seconds", "updates", "tokens"):
        info.pop(name)
    Path("run/model.json").write_text(json.dumps(info | {"finished": False}))
    result = call("train", whole.recipe, "--out", "run", "--resume")
    assert result.status == 0
    assert "training has finished already" in result.err
    whole.assert_same(Path("run"))


@pytest.mark.parametrize("moment", ["update_info", "write_weights"])
def test_a_crash_between_the_weights_and_what_describes_them(
    moment: str, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights of a validation are written, then model.json, then the training state."""
    works: Callable[..., None] = getattr(checkpoint, moment)
    count = 0

    def crashes(*args: Any, **kwargs: Any) -> None:
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt
        works(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, moment, crashes)
        assert call("train", whole.recipe, "--out", "run").status == 130
    assert Translator.load("run", threads=1).translate(["kala"])
    assert call("info", "run").status == 0
    assert call("train", whole.recipe, "--out", "run", "--resume").status == 0
    whole.assert_same(Path("run"))


def test_a_full_disk_leaves_the_previous_checkpoint(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync
    count = 0

    def full(number: int) -> None:
        nonlocal count
        count += Path("run/metrics.jsonl").exists()
        if count > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(number)

    with monkeypatch.context() as patch:
        patch.setattr(disk.os, "fsync", full)
        patch.setattr("matplotlib.figure.Figure.savefig", no_space)
        result = call("train", whole.recipe, "--out", "run")
    assert result.status == 1
    assert "cannot be written: No space left on device; what was saved before is untouched" in result.error
    assert "warning: run/curves.png: cannot be written: No space left on device" in result.err
    state = checkpoint.read_state(Path("run"))
    assert state is not None
    assert state["position"]["updates"] > 1
    assert call("info", "run").status == 0
    assert call("train", whole.recipe, "--out", "run", "--resume").status == 0
    whole.assert_same(Path("run"))


def no_space(*args: object, **named: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_picture_that_cannot_be_written_costs_no_training(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", no_space)
    result = call("train", toy.recipe, "--set", "training.epochs=1", "--out", "run")
    assert result.status == 0
    assert "warning: run/curves.png: cannot be written" in result.err
    assert json.loads(Path("run/model.json").read_text())["finished"]


def test_two_trainings_do_not_share_a_folder(whole: Whole, children: Children) -> None:
    folder = Path("run").absolute()
    child = children.start("train", whole.recipe, "--out", folder)
    after_saves(folder, 1)
    child.kill(signal.SIGSTOP)
    try:
        result = call("train", whole.recipe, "--out", folder, "--resume")
        assert result.status == 2
        assert f"{folder}: another process writes to it" in result.error
        assert "exists: go on with --resume" in call("train", whole.recipe, "--out", folder).error
    finally:
        child.kill(signal.SIGCONT)
    assert child.wait().status == 0
    whole.assert_same(folder)


def test_a_lock_costs_nothing_where_there_are_none(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> NoReturn:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(disk, "fcntl", SimpleNamespace(flock=refuse, LOCK_EX=2, LOCK_NB=4))
    assert call("train", toy.recipe, "--set", "training.epochs=1", "--out", "run").status == 0


def test_a_run_that_lost_its_tokenizer_is_not_resumed(whole: Whole) -> None:
    shutil.copytree(whole.folder, "run")
    Path("run/source.model").unlink()
    flags = ["--set", "training.epochs=3", "--out", "run", "--resume"]
    result = call("train", whole.recipe, *flags)
    assert result.status == 1
    assert "run/source.model: cannot be read" in result.error


# ---- Parts -----------------------------------------------------------------------------------------------------------


def test_the_starter_writes_english_and_german_only() -> None:
    data = Data(source="en", target="fr", generator="starter")
    with pytest.raises(RecipeError, match="writes en and de, not en and fr"):
        material.load_split(data, "train")


def test_the_test_split_of_the_starter_comes_without_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    make, asked = starter.corpus, []

    def corpus(**sizes: int) -> dict[str, list[starter.Pair]]:
        asked.append(sizes)
        return make(**{"train": 10, "valid": 5, **sizes}, test=6)

    monkeypatch.setattr(starter, "corpus", corpus)
    material._starter.cache_clear()
    data = Data(source="en", target="de", generator="starter")
    test = list(material.load_split(data, "test").source)
    assert len(material.test_parts(data)["combinations never seen"]) == 3
    assert asked == [{"train": 0, "valid": 0}]
    assert len(material.load_split(data, "train")) == 10
    assert len(material.load_split(data, "valid")) == 5
    assert asked == [{"train": 0, "valid": 0}, {}]
    assert test == [pair.source for pair in make(train=10, valid=5, test=6)["test"]]
    material._starter.cache_clear()


@pytest.mark.usefixtures("small_starter")
def test_the_starter_in_both_directions() -> None:
    forth, back = (Data(source=a, target=b, generator="starter") for a, b in (("en", "de"), ("de", "en")))
    one, two = material.load_split(forth, "test"), material.load_split(back, "test")
    assert list(one.source) == list(two.target)
    assert list(one.target) == list(two.source)
    parts = material.test_parts(forth)
    assert sorted(row for rows in parts.values() for row in rows) == list(range(len(one)))
    assert all(parts.values())
    assert material.test_parts(Data(source="en", target="de", path="x")) == {}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    before = torch.get_float32_matmul_precision()
    yield monkeypatch
    torch.set_float32_matmul_precision(before)


def test_the_precision_is_what_the_machine_computes_fast(machine: pytest.MonkeyPatch) -> None:
    for able, wanted in ((True, "bf16"), (False, "float32")):
        machine.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda able=able: able)
        found = hardware.choose("cpu", threads=1)
        assert found.precision == wanted
        assert str(found).endswith(f", {wanted}")
        with found.autocast():
            assert torch.is_autocast_enabled("cpu") is able
    assert "Apple GPU (untested)" in str(replace(found, device=torch.device("mps")))
    machine.setattr(hardware, "trains_in_bf16", lambda: False)
    with pytest.raises(RecipeError, match=r"training\.precision: 'bf16' needs a CPU with AVX-512"):
        hardware.choose("cpu", "bf16")
    with pytest.raises(RecipeError, match=r"'mps' is not on this machine, which has cpu: use one or auto"):
        hardware.choose("mps")


@pytest.mark.parametrize(
    ("limit", "wanted"),
    [("max 100000", 8), ("200000 100000", 2), ("30000 100000", 1), ("9900000 100000", 8), ("", 8), (None, 8)],
)
def test_a_container_may_have_a_share_of_the_cores(
    limit: str | None, wanted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit is not None:
        (tmp_path / "cpu.max").write_text(f"{limit}\n")
    monkeypatch.setattr(hardware, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert hardware.cores() == wanted


def test_the_recipe_of_a_run_is_read_back(toy: Toy, tmp_path: Path) -> None:
    shutil.copytree(toy.fixed, tmp_path / "run")
    content = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    (tmp_path / "run" / "recipe.yaml").write_text(yaml.safe_dump(content | {"colour": "red"}))
    with pytest.raises((RecipeError, CheckpointError), match="unknown key 'colour'"):
        checkpoint.read(tmp_path / "run")
