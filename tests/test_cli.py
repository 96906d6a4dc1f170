"""The command line: its verbs and flags, exit statuses, what goes to which stream, and what bad input is told."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
import typer
import yaml
from toy import RECIPE, Children, Toy, call, metrics, pairs, until, write_corpus, write_lines, write_recipe, write_split

from nmt import checkpoint, cli, disk, progress, tokenizer, translate


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_cache: Path) -> None:
    monkeypatch.chdir(tmp_path)


# ---- The frozen command line -----------------------------------------------------------------------------------------

VERBS = {
    "init": ([], {"--out", "--source-file", "--target-file", "--file", "--source", "--target", "--columns"}),
    "train": (["recipe"], {"--set", "--out", "--resume"}),
    "evaluate": (
        ["systems"],
        {"--source", "--reference", "--hypothesis", "--beam", "--set", "--significance", "--json"},
    ),
    "tune": (["model", "files"], {"--out", "--resume", "--set"}),
    "remember": (["model", "files"], set()),
    "translate": (["system"], {"--input", "--output", "--format", "--nbest", "--beam", "--set"}),
    "score": (["system", "source", "target"], {"--nbest", "--set"}),
    "generate": (["model"], {"--prompt", "--length", "--set"}),
    "classify": (["model"], {"--input"}),
    "caption": (["model", "files"], {"--beam", "--set"}),
    "tag": (["model", "files"], set()),
    "distill": (["system"], {"--out", "--back", "--nbest", "--beam", "--set"}),
    "export": (["model"], {"--out", "--precision", "--shortlist"}),
    "demo": (["systems"], {"--corrections", "--host", "--port", "--auth", "--share", "--beam", "--set"}),
    "data": (["recipe"], {"--set"}),
    "info": (["subject"], {"--set"}),
}


def test_the_verbs_and_their_flags_are_frozen() -> None:
    command: Any = typer.main.get_command(cli.app)
    found = {}
    for name, verb in command.commands.items():
        places = [one.name for one in verb.params if one.param_type_name == "argument"]
        flags = [flag for one in verb.params if one.param_type_name == "option" for flag in one.opts]
        found[name] = (places, set(flags) - {"--help"})
    assert found == VERBS
    assert {flag for one in command.params for flag in one.opts} - {"--help"} == {"--version"}


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_has_one_example(verb: str) -> None:
    result = call(verb, "--help")
    assert result.status == 0
    assert result.out.count("Example:") == 1
    assert re.search(rf"Example: .*\bnmt {verb}\b", result.out)
    assert result.err == ""
    missing = [flag for flag in VERBS[verb][1] if flag not in result.out]
    assert not missing


def test_help_names_the_verbs_and_version_the_version() -> None:
    result = call("--help")
    assert result.status == 0
    assert all(verb in result.out for verb in VERBS)
    assert call("--version").out == "nmt 0.1.0\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["train"],
        ["train", "x", "y"],
        ["train", "x", "--fast"],
        ["translate", "x", "--beam", "0"],
        ["translate", "x", "--beam", "many"],
        ["translate", "x", "--nbest", "0"],
        ["translate", "x", "--format", "xml"],
        ["evaluate", "x", "--significance", "hope"],
        ["score", "x", "y"],
    ],
)
def test_a_call_that_is_no_call_has_status_2(arguments: list[str]) -> None:
    result = call(*arguments)
    assert result.status == 2
    assert "Traceback" not in result.err


def test_what_nobody_foresaw_is_one_line_unless_debugging(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> NoReturn:
        raise ZeroDivisionError("one\ntwo")

    monkeypatch.setattr("nmt.report.info", broken)
    result = call("info", toy.recipe)
    assert result.status == 1
    assert result.err.startswith(
        "nmt: unexpected ZeroDivisionError: one two (this is a bug: run again with NMT_DEBUG=1"
    )
    assert len(result.err.splitlines()) == 1
    monkeypatch.setenv("NMT_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        call("info", toy.recipe)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.txt"), "a.txt: No space left on device"),
        (OSError(errno.EIO, "Input/output error"), "reading or writing: Input/output error"),
        (MemoryError(), "out of memory: make batches smaller (training.batch_tokens, rows,"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory: make batches smaller"),
        (KeyboardInterrupt(), None),
    ],
)
def test_what_the_machine_refuses_is_no_bug_of_ours(
    error: BaseException, said: str | None, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> NoReturn:
        raise error

    monkeypatch.setattr("nmt.report.info", broken)
    result = call("info", toy.recipe)
    if said is None:
        assert (result.status, result.out) == (130, "")
        return
    assert result.status == 1
    assert result.error.startswith(said)


# ---- Bad input: recipes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("training.epoch=3", "unknown key 'training.epoch': did you mean 'epochs'?"),
        ("modell.cell=gru", "unknown key 'modell': did you mean 'model'?"),
        ("model.encoder.wings=2", "unknown key 'model.encoder.wings'"),
        ("training.epochs=many", "training.epochs: 'many' is not allowed"),
        ("training.epochs=0", "training.epochs: 0 is not allowed: input should be greater than or equal to 1"),
        ("training.learning_rate=-1", "training.learning_rate: -1 is not allowed"),
        ("training.learning_rate=.nan", "training.learning_rate: nan is not allowed"),
        ("model.cell=transformer", "model.cell: 'transformer' is not allowed: input should be 'rnn', 'lstm' or 'gru'"),
        ("model={bridge: copy, decoder: {layers: 3}}", "bridge 'copy' needs equal shapes"),
        ("model=5", "model"),
        ("data.target=en", "data.source and data.target are both 'en'"),
        ("training.epochs", "write key=value"),
        ("=5", "write key=value"),
        ("training.epochs=[", "is not a YAML value"),
        ("data.path=2024-13-01", "is not a YAML value: put it in quotes if it is text"),
        ("training.epochs.more=5", "'epochs' is a single value here"),
        ("tokenizer=joint-unigram-5k", "no file beside the recipe and no shipped name"),
        ("training.precision=fp16", "'fp16' needs a CUDA device"),
    ],
)
def test_a_change_that_a_recipe_cannot_take(change: str, said: str, toy: Toy) -> None:
    result = call("train", toy.recipe, "--set", change, "--out", "run")
    assert result.status == 2
    assert said in result.error
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"- a\n- b\n", "a recipe is a mapping with the keys name, task, data"),
        (b"just words\n", "a recipe is a mapping"),
        (b"", "a recipe is a mapping"),
        (b"data: [unclosed\n", "not YAML"),
        (b"data: \xff\n", "not YAML"),
        (b"data: {source: en, target: de}\n", "data needs a path, a hub data set or a generator"),
        (b"model: {cell: gru}\n", "'data' is missing"),
        (b"data: {source: en, target: de, path: x, generator: starter}\n", "data.generator writes the corpus itself"),
    ],
)
def test_a_file_that_is_no_recipe(content: bytes, said: str) -> None:
    Path("bad.yaml").write_bytes(content)
    for verb in ("train", "data", "info"):
        result = call(verb, "bad.yaml")
        assert result.status == 2
        assert said in result.error
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", ["nowhere.yaml", "nowhere", "."])
def test_a_recipe_that_is_not_there_names_those_that_are(name: str) -> None:
    result = call("train", name)
    assert result.status == 2
    assert f"no recipe '{name}'" in result.error
    assert "starter-en-de" in result.error


# ---- Bad input: training data ----------------------------------------------------------------------------------------

BROKEN = {
    "not UTF-8": (b"kala \xff puu", "is not UTF-8"),
    "a NUL": (b"kala \0 puu", "a NUL byte"),
    "a lone CR": (b"kala \r puu", "a CR without LF"),
}


def broken_lines(fault: str) -> bytes:
    """Six lines of text, the fourth of them broken."""
    lines = [b"kala juo", b"koira", b"puu", BROKEN[fault][0], b"talo", b"kissa"]
    return b"\n".join(lines) + b"\n"


def damage(corpus: Path, fault: str) -> str:
    """Spoil a corpus in some way; what must be said of it."""
    file = corpus / "train.en"
    if fault in BROKEN:
        lines = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join([*lines[:3], BROKEN[fault][0] + b"\n", *lines[4:]]))
        return f"{file}: line 4: "
    if fault == "missing":
        file.unlink()
        return "no train.en beside it: both sides are needed"
    if fault == "no split":
        file.unlink()
        (corpus / "train.de").unlink()
        return "no split 'train'"
    if fault == "no validation":
        (corpus / "valid.en").unlink()
        (corpus / "valid.de").unlink()
        return "no split 'valid'"
    if fault == "empty":
        file.write_bytes(b"")
        (corpus / "train.de").write_bytes(b"")
        return "empty, no sentence pairs in it"
    if fault == "a folder":
        file.unlink()
        file.mkdir()
        return f"{file}: cannot be read: Is a directory"
    if fault == "uneven":
        with open(file, "ab") as stream:
            stream.write(b"kala\n" * 1000)
        return f"{file} has 1,060 lines and {corpus / 'train.de'} has 60"
    assert fault == "no corpus"
    shutil.rmtree(corpus)
    return f"data.path: no '{corpus}'"


@pytest.mark.parametrize(
    "fault", [*BROKEN, "missing", "no split", "no validation", "empty", "a folder", "uneven", "no corpus"]
)
def test_a_corpus_that_cannot_be_used(fault: str, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", train=60)
    recipe = write_recipe(tmp_path / "toy.yaml", corpus)
    said = damage(corpus, fault)
    result = call("train", recipe, "--out", "run")
    assert result.status == 1
    assert said in result.error
    assert not Path("run").exists()


def test_filters_that_leave_nothing(toy: Toy) -> None:
    result = call("train", toy.recipe, "--set", "data.max_length=1", "--out", "run")
    assert result.status == 1
    assert "0 of 200 pairs kept, left out: 200 long" in result.error
    assert not Path("run").exists()


def test_a_vocabulary_that_is_too_large_names_the_largest(toy: Toy) -> None:
    result = call("train", toy.recipe, "--set", "tokenizer.vocab_size=5000", "--out", "run")
    assert result.status == 1
    found = re.search(r"5000 is more than this corpus allows: the largest possible is (\d+)", result.error)
    assert found
    assert call("data", toy.recipe, "--set", f"tokenizer.vocab_size={found[1]}").status == 0
    assert call("data", toy.recipe, "--set", f"tokenizer.vocab_size={int(found[1]) + 1}").status == 1


def test_a_hub_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*args: object, **kwargs: object) -> NoReturn:
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    recipe = write_recipe(tmp_path / "toy.yaml", tmp_path / "nowhere", {"data.hub": "someone/something"})
    result = call("train", recipe, "--out", "run")
    assert result.status == 1
    assert "hub data set 'someone/something': it cannot be reached" in result.error
    assert "name their folder in data.path" in result.error


def test_data_shows_the_head_of_the_recipe_where_there_is_no_corpus(toy: Toy, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "toy.yaml", tmp_path / "nowhere")
    recipe.write_text("# Ask your archive for the files.\n" + recipe.read_text())
    result = call("data", recipe)
    assert result.status == 1
    assert "looked for" in result.err
    assert "Ask your archive for the files." in result.err
    result = call("data", recipe, "--set", f"data.path={toy.corpus}", "--set", "tokenizer.vocab_size=99999")
    assert result.status == 1
    assert "the largest possible is" in result.error
    assert "Ask your archive" not in result.err


# ---- Bad input: run folders and model folders ------------------------------------------------------------------------


def test_a_run_folder_that_exists_is_left_alone(toy: Toy, tmp_path: Path) -> None:
    write_lines(tmp_path / "run" / "notes.txt", ["mine"])
    result = call("train", toy.recipe, "--out", "run")
    assert result.status == 2
    assert "run exists: go on with --resume, choose another folder with --out, or remove it" in result.error
    result = call("train", toy.recipe, "--out", "run", "--resume")
    assert result.status == 2
    assert "run has no recipe.yaml, so it is no run to resume" in result.error
    assert [file.name for file in Path("run").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("flags", [[], ["--resume"]])
def test_a_run_folder_that_is_a_file(flags: list[str], toy: Toy) -> None:
    Path("run").write_text("mine")
    result = call("train", toy.recipe, "--out", "run", *flags)
    assert result.status == 2
    assert "run is a file" in result.error
    result = call("train", toy.recipe, "--out", "run/inner", *flags)
    assert result.status == 2
    assert "run/inner: cannot be made: Not a directory" in result.error
    assert Path("run").read_text() == "mine"
    assert call("translate", "run").status == 1
    assert call("info", "run").status == 2


def broken_model(fault: str, folder: Path) -> str:
    """Spoil a model folder in some way; what must be said of it."""
    weights, info = folder / "model.safetensors", folder / "model.json"
    if fault == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:-1000])
        return "model.safetensors: not a safetensors file, or truncated"
    if fault == "empty weights":
        weights.write_bytes(b"")
        return "model.safetensors: not a safetensors file, or truncated"
    if fault == "no weights":
        weights.unlink()
        return "model.safetensors: there are no trained weights yet"
    if fault == "a pickle":
        weights.write_bytes(pickle.dumps(Bomb()))
        return "nmt reads no pickles"
    if fault == "a torch file":
        torch.save({"weights": torch.zeros(2)}, weights)
        return "nmt reads no pickles"
    if fault == "a later version":
        info.write_text(json.dumps(json.loads(info.read_text()) | {"format": 99, "package": "9.9"}))
        return "model.json: format 99, this version of nmt reads 1: it was written by nmt 9.9"
    if fault == "truncated model.json":
        info.write_text(info.read_text()[:100])
        return "model.json: cannot be read"
    if fault == "another model.json":
        info.write_text("[]")
        return "model.json: not what nmt writes there"
    if fault == "truncated tokenizer":
        (folder / "target.model").write_bytes((folder / "target.model").read_bytes()[:1000])
        return "target.model: not a SentencePiece model, or truncated"
    if fault == "no tokenizer":
        (folder / "source.model").unlink()
        return "source.model: cannot be read: No such file or directory"
    if fault == "no recipe":
        (folder / "recipe.yaml").unlink()
        return "recipe.yaml: missing: run is not a model folder of nmt"
    assert fault == "another recipe"
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    recipe["model"]["decoder"]["hidden"] = 24
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return "the recipe says"


class Bomb:
    """A pickle that leaves a mark where it is loaded."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (str(Path.cwd() / "exploded"),)


@pytest.mark.parametrize(
    "fault",
    [
        *["truncated weights", "empty weights", "no weights", "a pickle", "a torch file", "a later version"],
        *["truncated model.json", "another model.json", "truncated tokenizer", "no tokenizer", "no recipe"],
        "another recipe",
    ],
)
def test_a_model_folder_that_cannot_be_used(fault: str, toy: Toy, tmp_path: Path) -> None:
    shutil.copytree(toy.attention, tmp_path / "run")
    said = broken_model(fault, tmp_path / "run")
    before = {file: file.read_bytes() for file in (tmp_path / "run").iterdir() if file.is_file()}
    for arguments in (["translate", "run"], ["evaluate", "run"], ["translate", f"{toy.attention}+run"]):
        result = call(*arguments, stdin="kala\n")
        assert result.status == 1
        assert said in result.error
        assert result.out == ""
    assert before == {file: file.read_bytes() for file in (tmp_path / "run").iterdir() if file.is_file()}
    assert not Path("exploded").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", pickle.dumps(Bomb), None])
def test_a_training_state_that_cannot_be_used(content: bytes | None, toy: Toy, tmp_path: Path) -> None:
    shutil.copytree(toy.attention, tmp_path / "run")
    Path("run/training/state.pt").write_bytes(pickle.dumps(Bomb()) if content is None else content)
    result = call("train", toy.recipe, "--set", "training.epochs=9", *kind_of(toy), "--resume", "--out", "run")
    assert result.status == 1
    assert "state.pt: not a training state, or truncated" in result.error
    assert not Path("exploded").exists()
    assert call("translate", "run", stdin="kala\n").status == 0


def kind_of(toy: Toy) -> list[str]:
    """The flags that `toy.attention` was trained with."""
    return ["--set", "model.attention=general"]


def test_a_model_folder_that_is_not_there(toy: Toy) -> None:
    for arguments in (["translate", "runs/x"], ["score", "runs/x", "a", "b"], ["evaluate", "runs/x"]):
        result = call(*arguments)
        assert result.status == 1
        assert "runs/x: no such model folder" in result.error
    result = call("info", "runs/x")
    assert result.status == 2
    assert "no model folder 'runs/x', and no recipe 'runs/x'" in result.error
    result = call("translate", f"{toy.attention}+")
    assert result.status == 2
    assert "an ensemble is written runs/a+runs/b" in result.error
    Path("runs/c++").mkdir(parents=True)
    assert checkpoint.split("runs/c++") == [Path("runs/c++")]


def test_an_ensemble_needs_one_target_vocabulary(toy: Toy, tmp_path: Path) -> None:
    shutil.copytree(toy.attention, tmp_path / "other")
    lines = [line for pair in pairs(100, seed=9) for line in pair]
    (tmp_path / "other" / "target.model").write_bytes(tokenizer.train(lines, "bpe", 48).proto)
    result = call("translate", f"{toy.attention}+other", stdin="kala\n")
    assert result.status == 2
    assert "must write the same target pieces, these have different vocabularies" in result.error


def test_where_the_files_are_to_be_had_is_said_of_the_corpus_not_of_what_is_added(toy: Toy) -> None:
    Path("my.yaml").write_text("# The files: https://example.org\n" + toy.recipe.read_text())
    for change, said in (("data.path=nowhere", True), ("data.extra=nowhere.tsv", False)):
        result = call("data", "my.yaml", "--set", change)
        assert result.status == 1
        assert "nowhere" in result.err
        assert ("The files: https://example.org" in result.err) == said


def test_an_ensemble_is_of_one_pair_of_languages(toy: Toy, tmp_path: Path) -> None:
    shutil.copytree(toy.attention, tmp_path / "other")
    recipe = tmp_path / "other" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("source: en", "source: fi"))
    result = call("translate", f"{toy.attention}+other", stdin="kala\n")
    assert result.status == 2
    assert f"one pair of languages, but {toy.attention} translates en to de, other translates fi to de" in result.error


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--set", "training.epochs=5"], "of a trained model only search.* can be changed"),
        (["--set", "search.beam"], "write key=value"),
        (["--set", "search.beams=3"], "unknown key 'search.beams': did you mean 'beam'?"),
        (["--set", "search.beam=0"], "search.beam: 0 is not allowed"),
        (["--set", "search.method=guess"], "search.method: 'guess' is not allowed"),
        (["--set", "search.method=greedy", "--nbest", "3"], "search.method 'greedy' finds one translation, not 3"),
        (["--output", "."], "--output .: this is a folder"),
        (["--output", "out.de.gz"], "--output out.de.gz: text is written as it is: name out.de, and pack that"),
        (["--set", "search.max_ratio=1e308"], "search.max_ratio: '1e308' is not allowed"),
        (["--set", "search.language_model_weight=1e308"], "search.language_model_weight: '1e308' is not allowed"),
    ],
)
def test_a_search_that_cannot_be(flags: list[str], said: str, toy: Toy) -> None:
    result = call("translate", toy.attention, *flags, stdin="kala\n")
    assert result.status == 2
    assert said in result.error
    assert result.out == ""


# ---- Bad input: text to translate ------------------------------------------------------------------------------------


def test_one_file_is_translated_at_a_time(toy: Toy) -> None:
    result = call("translate", toy.attention, "--input", toy.corpus / "test.en", "--input", "other.en")
    assert (result.status, result.out) == (2, "")
    assert "--input: " in result.error
    assert "test.en and other.en: one file can be given" in result.error


@pytest.mark.parametrize("fault", BROKEN)
def test_text_that_is_none_is_refused_with_its_line(fault: str, toy: Toy) -> None:
    Path("bad.en").write_bytes(broken_lines(fault))
    result = call("translate", toy.attention, "--input", "bad.en", "--output", "out.de")
    assert result.status == 1
    assert f"bad.en: line 4: {'byte 6 (0xff) ' if fault == 'not UTF-8' else ''}{BROKEN[fault][1]}" in result.error
    assert os.listdir() == ["bad.en"]  # no half of a translation
    result = call("translate", toy.attention, stdin=broken_lines(fault))
    assert result.status == 1
    assert "standard input: line 4: " in result.error
    result = call("score", toy.attention, "bad.en", "bad.en")
    assert result.status == 1
    assert "bad.en: line 4: " in result.error


@pytest.mark.parametrize(("name", "said"), [("none.en", "No such file or directory"), (".", "Is a directory")])
def test_text_that_is_not_there(name: str, said: str, toy: Toy) -> None:
    for arguments in (
        ["translate", toy.attention, "--input", name],
        ["score", toy.attention, name, name],
        ["evaluate", "--hypothesis", name, "--reference", name],
    ):
        result = call(*arguments)
        assert result.status == 1
        assert f"{name}: cannot be read: {said}" in result.error


def test_no_text_is_no_translation(toy: Toy) -> None:
    result = call("translate", toy.attention, stdin="")
    assert (result.status, result.out, result.err) == (0, "", "")
    Path("empty.en").write_bytes(b"")
    result = call("translate", toy.attention, "--input", "empty.en", "--output", "empty.de")
    assert (result.status, result.err) == (0, "")
    assert Path("empty.de").read_bytes() == b""
    result = call("score", toy.attention, "empty.en", "empty.en")
    assert result.status == 1
    assert "empty.en: empty, nothing to score" in result.error


# ---- What is accepted ------------------------------------------------------------------------------------------------

STRANGE = (
    b"\xef\xbb\xbfkala juo\r\n"  # a byte-order mark, and CR LF
    b"kala\xe2\x80\xa8puu\n"  # U+2028
    b"kala\xc2\x85puu\n"  # U+0085
    b"\n"
    b"   \n"
    b"\xe2\x80\x8b\n"  # a space of no width, which the tokenizer drops
    b"kala\x0bpuu\x0c\x1c\x1d\x1e\n"
    b"\xf0\x9f\x90\x99 koira \xf0\x9f\x8f\xb4\xf3\xa0\x81\xa7\xf3\xa0\x81\xa2\n"  # emoji
    b"\xe6\xbc\xa2\xe5\xad\x97 \xd7\xa2\xd7\x91 \xef\xbf\xbd \x01\x7f\n"  # unknown characters
    b":dog: [bold]kala[/bold]\n"
    b"koira"  # no line end
)


@pytest.mark.parametrize("run", ["attention", "fixed"])
def test_strange_lines_are_translated_one_by_one(run: str, toy: Toy) -> None:
    system = getattr(toy, run)
    plain = call("translate", system, stdin="kala juo\nkala puu\nkoira\n").out.splitlines()
    result = call("translate", system, stdin=STRANGE)
    assert result.status == 0
    assert re.fullmatch(r"warning: 4 of 11 lines have letters .*, first in line 3, at '.*'\n", result.err)
    lines = result.out.split("\n")
    assert lines.pop() == ""
    assert len(lines) == 11
    assert lines[:2] == plain[:2]
    assert lines[3:6] == ["", "", ""]
    assert lines[10] == plain[2]
    Path("strange.en").write_bytes(STRANGE)
    again = call("translate", system, "--input", "strange.en", "--output", "strange.de")
    assert (again.status, again.out, again.err) == (0, "", result.err)
    assert Path("strange.de").read_bytes().decode() == result.out


def test_strange_lines_are_trained_on(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", train=60)
    for side in ("train.en", "train.de"):
        text = (corpus / side).read_bytes().splitlines()
        text[:4] = [b"\xef\xbb\xbf" + text[0], text[1] + b"\xe2\x80\xa8" + text[1], b"", text[3] + b"\xc2\x85\x0c"]
        (corpus / side).write_bytes(b"\r\n".join(text))
    recipe = write_recipe(tmp_path / "toy.yaml", corpus, {"training.epochs": 1, "tokenizer.vocab_size": 44})
    result = call("train", recipe, "--out", "run")
    assert result.status == 0, result.err
    assert json.loads(Path("run/model.json").read_text())["data"]["filtered"] == {
        "total": 60,
        "empty": 1,
        "identical": 0,
        "duplicate": 0,
        "long": 0,
        "ratio": 0,
    }


def test_a_line_that_is_too_long_is_translated_in_parts_and_named(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translate, "CHUNK", 2)
    lines = ["koira juo", "kala puu", " ".join(["kissa juo nyt."] * 20), "puu", "kala" * 1000]
    result = call("translate", toy.attention, "--set", "search.max_source=12", stdin="\n".join(lines))
    assert result.status == 0
    assert len(result.out.splitlines()) == 5
    warned = result.err.splitlines()
    assert len(warned) == 3
    assert re.fullmatch(r"line 3 has \d+ pieces, more than search\.max_source=12: translated in \d\d? parts", warned[0])
    assert warned[1].startswith("line 5 has ")
    assert warned[2].startswith("warning: 1 of 5 lines")
    assert warned[2].endswith("first in line 3, at '.'"), "full stops, which this toy never saw"


# ---- translate -------------------------------------------------------------------------------------------------------


def sources(toy: Toy) -> bytes:
    return (toy.corpus / "test.en").read_bytes()


def test_text_and_jsonl_and_nbest(toy: Toy) -> None:
    given = sources(toy).decode() + "\n\nkoira\n"
    best = call("translate", toy.attention, stdin=given)
    assert best.err == ""
    assert len(best.out.splitlines()) == 43
    several = call("translate", toy.attention, "--nbest", "3", stdin=given).out.splitlines()
    assert len(several) == 129
    assert several[120:126] == [""] * 6
    rows = call("translate", toy.attention, "--nbest", "3", "--format", "jsonl", stdin=given).out.splitlines()
    objects = [json.loads(row) for row in rows]
    assert len(objects) == 43
    assert [one["text"] for one in objects] == several[::3]
    assert list(objects[0]) == ["text", "score", "tokens", "log_probs", "source_tokens", "alternatives"]
    for place, one in enumerate(objects[:40]):
        texts = [one["text"], *(other["text"] for other in one["alternatives"])]
        assert texts == several[3 * place : 3 * place + 3]
        scores = [one["score"], *(other["score"] for other in one["alternatives"])]
        assert scores == sorted(scores, reverse=True)
        assert len(one["log_probs"]) == len(one["tokens"]) + 1


def test_a_beam_of_1_is_greedy(toy: Toy) -> None:
    found = [
        call("translate", toy.attention, *flags, stdin=sources(toy)).out
        for flags in (["--beam", "1"], ["--set", "search.method=greedy"], ["--beam", "8"])
    ]
    assert found[0] == found[1]
    assert found[2] != found[0]


def test_the_same_from_a_file_and_a_pipe_and_alone_and_as_an_ensemble_with_itself(toy: Toy) -> None:
    piped = call("translate", toy.attention, stdin=sources(toy)).out
    assert call("translate", toy.attention, "--input", toy.corpus / "test.en").out == piped
    lines = sources(toy).decode().splitlines()
    alone = [call("translate", toy.attention, stdin=line).out for line in lines[:8]]
    assert alone == piped.splitlines(keepends=True)[:8]
    itself = f"{toy.attention}+{toy.attention}"
    assert call("translate", itself, stdin=sources(toy)).out == piped


def test_packed_input(toy: Toy) -> None:
    import gzip

    Path("test.en.gz").write_bytes(gzip.compress(sources(toy)))
    assert (
        call("translate", toy.fixed, "--input", "test.en.gz").out
        == call("translate", toy.fixed, stdin=sources(toy)).out
    )


def test_output_is_written_whole_or_not_at_all(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lines(Path("out.de"), ["what was there"])
    Path("in.en").write_bytes(b"kala\n" * 3 + b"\xff\n")
    monkeypatch.setattr(translate, "CHUNK", 2)
    assert call("translate", toy.fixed, "--input", "in.en", "--output", "out.de").status == 1
    assert Path("out.de").read_text() == "what was there\n"
    assert sorted(os.listdir()) == ["in.en", "out.de"]
    Path("in.en").write_bytes(b"kala\n" * 3)
    assert call("translate", toy.fixed, "--input", "in.en", "--output", "new/out.de").status == 0
    assert call("translate", toy.fixed, "--input", "in.en", "--output", "in.en").status == 0  # onto itself
    assert Path("in.en").read_text() == Path("new/out.de").read_text()


def test_standard_output_by_its_name_adds_to_what_is_there(toy: Toy, tmp_path: Path) -> None:
    kept = tmp_path / "out.txt"
    kept.write_text("earlier\n")
    with open(kept, "a") as out:
        command = [sys.executable, "-m", "nmt", "translate", str(toy.attention), "--output", "/dev/stdout"]
        done = subprocess.run(command, input="kala\n", stdout=out, text=True, check=False)
    assert done.returncode == 0
    assert len(kept.read_text().splitlines()) == 2
    assert kept.read_text().startswith("earlier\n")


@pytest.mark.parametrize("command", [["data", "starter-en-de"], ["info", "nowhere"]])
def test_without_standard_error_nothing_is_said(command: list[str], tmp_path: Path) -> None:
    run = f"{shlex.quote(sys.executable)} -m nmt {' '.join(command)} 2>&-"
    done = subprocess.run(["bash", "-c", run], capture_output=True, text=True, check=False)
    assert done.returncode == (0 if command[0] == "data" else 2)
    assert "nmt:" not in done.stdout


def test_output_may_be_a_link_or_a_device_and_input_a_pipe(toy: Toy) -> None:
    Path("real.de").write_text("before")
    Path("link.de").symlink_to("real.de")
    assert call("translate", toy.fixed, "--output", "link.de", stdin="kala\n").status == 0
    assert Path("link.de").is_symlink()
    assert Path("real.de").read_text() != "before"
    assert call("translate", toy.fixed, "--output", "/dev/null", stdin="kala\n").status == 0
    assert Path("/dev/null").is_char_device()
    reader, writer = os.pipe()
    os.write(writer, b"kala\nkoira\n")
    os.close(writer)
    result = call("translate", toy.fixed, "--input", f"/dev/fd/{reader}")
    os.close(reader)
    assert len(result.out.splitlines()) == 2


def test_a_full_disk_while_writing_translations(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk.os, "fsync", full)
    result = call("translate", toy.fixed, "--output", "out.de", stdin="kala\n")
    assert result.status == 1
    assert "out.de: cannot be written: No space left on device" in result.error
    assert os.listdir() == []


# ---- score -----------------------------------------------------------------------------------------------------------


def test_score_agrees_with_translate_and_adds_up(toy: Toy) -> None:
    rows = call("translate", toy.attention, "--format", "jsonl", stdin=sources(toy)).out.splitlines()
    found = [json.loads(row) for row in rows]
    write_lines(Path("out.de"), [one["text"] for one in found])
    result = call("score", toy.attention, toy.corpus / "test.en", "out.de")
    assert result.status == 0
    scores = [float(line) for line in result.out.splitlines()]
    assert len(scores) == 40
    target = tokenizer.Tokenizer.load(toy.attention / "target.model")
    same = 0
    for one, value in zip(found, scores, strict=True):
        if target.pieces(target.encode([one["text"]])[0]) == one["tokens"]:
            assert value == pytest.approx(sum(one["log_probs"]), abs=1e-3)
            same += 1
    assert same > 20
    said = re.fullmatch(r"([\d,]+) pieces, log-probability (-[\d.]+), perplexity ([\d.]+)\n", result.err)
    assert said
    assert float(said[2]) == pytest.approx(sum(scores), abs=0.01)
    from math import exp

    assert float(said[3]) == pytest.approx(exp(-sum(scores) / int(said[1])), abs=1e-3)


def test_score_of_nbest(toy: Toy) -> None:
    texts = call("translate", toy.attention, "--nbest", "3", stdin=sources(toy)).out
    Path("out.de").write_text(texts)
    result = call("score", toy.attention, toy.corpus / "test.en", "out.de", "--nbest", "3")
    assert result.status == 0
    assert len(result.out.splitlines()) == 120
    one = call("score", f"{toy.attention}+{toy.attention}", toy.corpus / "test.en", "out.de", "--nbest", "3")
    assert [float(x) for x in one.out.split()] == pytest.approx([float(x) for x in result.out.split()], abs=2e-4)


def test_what_does_not_change_a_score_is_refused(toy: Toy) -> None:
    write_lines(Path("a.en"), ["kala"])
    write_lines(Path("a.de"), ["fisch"])
    result = call("score", toy.attention, "a.en", "a.de", "--set", "search.language_model=runs/lm")
    assert result.status == 2
    assert "of what scores, search.examples and search.batch_tokens alone can be changed" in result.error
    assert call("score", toy.attention, "a.en", "a.de", "--set", "search.examples=0").status == 0


def test_a_pair_too_long_to_be_scored_is_named(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nmt.translate.SCORED", 20)
    monkeypatch.setattr("nmt.evaluate.CHUNK", 2)
    write_lines(Path("a.en"), ["kala", "kala", "kala", "kala " * 30])
    write_lines(Path("a.de"), ["fisch"] * 4)
    result = call("score", toy.attention, "a.en", "a.de")
    assert result.status == 2
    assert re.search(r"line 4 has \d+ pieces, at most 20 are scored: break it in two", result.error)


@pytest.mark.parametrize(
    ("source", "target", "nbest"), [(40, 39, 1), (39, 40, 1), (40, 120, 1), (40, 119, 3), (3, 9, 2)]
)
def test_score_of_uneven_files(source: int, target: int, nbest: int, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nmt.evaluate.CHUNK", 16)
    write_lines(Path("a.en"), ["kala"] * source)
    write_lines(Path("a.de"), ["fisch"] * target)
    result = call("score", toy.fixed, "a.en", "a.de", "--nbest", nbest)
    assert result.status == 1
    assert f"a.en has {source} lines, a.de {target}: there must be {nbest} in the second" in result.error


# ---- data, info ------------------------------------------------------------------------------------------------------


def test_data_counts_what_is_there(tmp_path: Path) -> None:
    rows = pairs(90)
    long = (" ".join(["kala"] * 60), " ".join(["fisch"] * 60))
    lopsided = ("kala", " ".join(["fisch puu"] * 9))
    bad = [("", "fisch"), ("kala", " "), ("", ""), ("sama", "sama"), ("ei", "ei"), *rows[:4], long, lopsided]
    write_split(tmp_path / "corpus", "train", rows[:70] + bad)
    write_split(tmp_path / "corpus", "valid", rows[70:80])
    write_split(tmp_path / "corpus", "test", [*rows[80:86], rows[0], (rows[1][0], "anders"), rows[2]])
    settings = {"data.max_length": 50, "data.max_ratio": 6.0, "tokenizer.vocab_size": 44}
    recipe = write_recipe(tmp_path / "toy.yaml", tmp_path / "corpus", settings)
    result = call("data", recipe)
    assert result.status == 0
    first, *lines = result.out.splitlines()
    assert first == f"first  {rows[0][0]} → {rows[0][1]}"
    assert lines[0] == ("train  70 of 81 pairs kept, left out: 3 empty, 2 identical, 4 duplicate, 1 long, 1 ratio")
    assert "10 pairs" in lines[1]
    assert re.findall(r"\d+", lines[1]) == ["10", "0", "0"]
    assert re.findall(r"\d+", lines[2]) == ["9", "3", "2"]
    padding = re.fullmatch(r"padding ([\d.]+)% in batches of 100 tokens", lines[3])
    assert padding
    assert 0 < float(padding[1]) < 40
    bars = [re.match(r" *\d+-\d+ +([\d,]+) ", line) for line in lines]
    assert sum(int(bar[1]) for bar in bars if bar) == 2 * 70


def test_data_without_a_test_split_and_without_a_corpus(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", train=60)
    (corpus / "test.en").unlink()
    (corpus / "test.de").unlink()
    recipe = write_recipe(tmp_path / "toy.yaml", corpus, {"tokenizer.vocab_size": 44})
    text = recipe.read_text()
    recipe.write_text(f"# Toy pairs.\n# Get the files from https://example.org/toy.\n{text}")
    result = call("data", recipe)
    assert result.status == 0
    assert not re.search("^test", result.out, re.M)
    shutil.rmtree(corpus)
    result = call("data", recipe)
    assert (result.status, result.out) == (1, "")
    assert f"nmt: data.path: no '{corpus}'" in result.err
    assert "Get the files from https://example.org/toy." in result.err
    assert "Traceback" not in result.err


def test_info_of_a_recipe_counts_what_its_model_has(toy: Toy) -> None:
    result = call("info", toy.recipe)
    assert result.status == 0
    run = call("info", toy.attention)  # which has as many pieces as the recipe asks for
    assert parameters(result.out) == parameters(run.out)
    assert parameters(run.out) == json.loads((toy.attention / "model.json").read_text())["parameters"]
    written = yaml.safe_load(result.out[result.out.index("name: toy") :])
    assert written["model"]["cell"] == RECIPE["model"]["cell"]
    assert call("info", toy.recipe, "--set", "model.embed=8").out != result.out


def parameters(text: str) -> dict[str, int]:
    found = {name: int(count.replace(",", "")) for name, count in re.findall(r"^  (\w+) +([\d,]+)$", text, re.M)}
    assert found.pop("all") == sum(found.values())
    return found


def test_info_of_a_run(toy: Toy, tmp_path: Path) -> None:
    shutil.copytree(toy.attention, tmp_path / "run")
    result = call("info", "run")
    assert result.status == 0
    for said in (
        "48 source, 48 target pieces",
        "200 train, 20 valid",
        "best valid   loss ",
        ", BLEU ",
        "minutes",
        "files",
    ):
        assert said in result.out
    kept = tmp_path / "run" / "evaluation.json"
    score = {"name": "BLEU", "value": 12.25, "signature": "nrefs:1"}
    system = {"scores": [score], "models": [[checkpoint.read(tmp_path / "run").stamp, 0]]}
    kept.write_text(json.dumps({"test": "t", "sentences": 40, "systems": {"run": system}}))
    assert "t: 40 sentences\n  run\n    BLEU 12.25 (nrefs:1)" in call("info", "run").out
    kept.write_text("{}")
    result = call("info", "run")
    assert result.status == 1
    assert "run/evaluation.json: not what nmt writes there" in result.error
    result = call("info", "run", "--set", "model.embed=8")
    assert result.status == 2
    assert "a run is as it was trained" in result.error


def test_info_shows_the_scores_of_the_model_as_it_is(toy: Toy, tmp_path: Path) -> None:
    shutil.copytree(toy.attention, tmp_path / "run")
    shown, old = ": 40 sentences\n  run\n    BLEU", "as it was before: `nmt evaluate run` says"
    longer = ("train", "run/recipe.yaml", "--out", "run", "--resume", "--set", "training.epochs=9")
    for before in ((), longer, ("remember", "run")):
        if before:
            assert call(*before).status == 0
            assert old in call("info", "run").out
        assert call("evaluate", "run").status == 0
        assert shown in call("info", "run").out
        assert old not in call("info", "run").out
    assert call("evaluate", "run", "--set", "search.examples=0").status == 0
    assert old in call("info", "run").out, "what it remembers had no say"


def test_info_and_data_of_other_tasks(tmp_path: Path) -> None:
    assert "task: captioning" in call("info", "caption-shapes").out
    result = call("data", "caption-shapes")
    assert result.status == 2
    assert "caption-shapes is for captioning: `nmt data` looks at sentence pairs" in result.error


def test_info_of_nonsense(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    result = call("info", "folder")
    assert result.status == 1
    assert "folder is not a model folder of nmt" in result.error
    (tmp_path / "folder" / "model.json").write_text('{"format": 1}')
    shutil.copy(toy.recipe, "folder/recipe.yaml")
    result = call("info", "folder")
    assert result.status == 1
    assert "folder/model.json: not what nmt writes there" in result.error


# ---- Streams, pipes and signals --------------------------------------------------------------------------------------


def shell(line: str, toy: Toy) -> subprocess.CompletedProcess[str]:
    """A line of bash in which `nmt` is ours."""
    environment = os.environ | {"RUN": str(toy.fixed), "CORPUS": str(toy.corpus)}
    ours = f'set -o pipefail; nmt() {{ {sys.executable} -m nmt "$@"; }}; '
    return subprocess.run(["bash", "-c", ours + line], capture_output=True, text=True, env=environment, check=False)


def test_from_a_pipe_to_a_pipe(toy: Toy) -> None:
    whole = call("translate", toy.fixed, stdin=sources(toy)).out
    done = shell("cat $CORPUS/test.en | nmt translate $RUN | cat", toy)
    assert (done.returncode, done.stdout, done.stderr) == (0, whole, "")


def test_a_reader_that_has_enough_ends_it_quietly(toy: Toy) -> None:
    done = shell("(cat $CORPUS/test.en; yes 'kala juo' | head -20000) | nmt translate $RUN --beam 1 | head -1", toy)
    assert done.stdout == call("translate", toy.fixed, "--beam", "1", stdin=sources(toy)).out.split("\n")[0] + "\n"
    assert done.stderr == ""
    assert done.returncode in (0, 128 + signal.SIGPIPE)


hung_up = pytest.mark.skipif(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, reason="under nohup it is ignored")


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), pytest.param(signal.SIGHUP, 129, marks=hung_up)],
)
def test_translate_is_stopped_by_a_signal(
    number: int, status: int, toy: Toy, children: Children, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "in")
    child = children.start("translate", toy.fixed, "--output", "out.de", stdin=tmp_path / "in")
    with open(tmp_path / "in", "wb", buffering=0) as stream:
        stream.write(b"kala\n")
        until(lambda: any(tmp_path.glob(".out.de.*")))
        child.kill(number)
        result = child.wait()
    assert result.status == status
    assert "Traceback" not in result.err
    assert result.out == ""
    assert os.listdir() == ["in"]


def test_at_a_terminal_it_says_what_it_waits_for(toy: Toy, children: Children) -> None:
    keyboard, terminal = os.openpty()
    os.write(keyboard, b"kala\n\x04")
    result = children.start("translate", toy.fixed, stdin=Path(os.ttyname(terminal))).wait()
    os.close(keyboard)
    os.close(terminal)
    assert (result.status, result.err) == (0, "type lines; Ctrl-D ends them\n")
    assert result.out == call("translate", toy.fixed, stdin="kala\n").out


def test_training_says_nothing_on_standard_output(toy: Toy) -> None:
    result = call("train", toy.recipe, "--set", "training.epochs=1", "--out", "run")
    assert (result.status, result.out) == (0, "")
    assert "update" in result.err
    assert metrics(Path("run"), "valid")


# ---- Progress --------------------------------------------------------------------------------------------------------


def test_plain_lines_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    text = ":dog: [bold]x[/bold]" + " word" * 60
    progress.say(text)
    assert capsys.readouterr() == ("", f"{text}\n")


def test_a_bar_in_a_file_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with progress.Bar("working", 10) as bar:
        bar.update(1)
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(progress, "INTERVAL", 0.0)
        bar.update(5, "loss 1.0")
        bar.update(10)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"working 50%, \d+ s left loss 1\.0\nworking 100%\n", err)


def test_random_bytes_never_crash(toy: Toy) -> None:
    draw = random.Random(3)
    for _ in range(20):
        text = "".join(
            chr(draw.choice([draw.randrange(1, 0x250), draw.randrange(0x1F300, 0x1FAFF)])) for _ in range(40)
        )
        text = text.replace("\r", "").replace("\n", "")
        result = call("translate", toy.attention, "--beam", "2", stdin=text + "\n")
        assert result.status == 0
        assert result.err.startswith("warning: 1 of 1 lines have letters that this model never saw")
        assert result.err.count("\n") == 1
        assert len(result.out.split("\n")) == 2
