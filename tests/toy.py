"""What the tests of the upper half share, as a pytest plugin: a toy language, two runs trained on it, and `nmt` called.

`call` runs the command line in this process (importing torch again takes seconds). Where a test needs a process of its
own, to kill or to stop it, `Children` forks one from a process that has imported everything and done nothing yet.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from nmt import checkpoint, cli, material, starter

WORDS = {
    "kala": "fisch", "puu": "baum", "talo": "haus", "koira": "hund", "kissa": "katze", "juo": "trinkt",
    "syö": "isst", "iso": "gross", "pieni": "klein", "ja": "und", "ei": "nicht", "nyt": "jetzt",
}  # fmt: skip

RECIPE: dict[str, Any] = {
    "data": {"source": "en", "target": "de", "path": "corpus"},
    "tokenizer": {"model": "unigram", "vocab_size": 48, "joint": True},
    "model": {
        "cell": "gru",
        "embed": 32,
        "encoder": {"hidden": 16},
        "decoder": {"layers": 1, "hidden": 32},
        "attention": "general",
        "attention_position": "after",
        "dropout": {"embedding": 0.05, "layers": 0.0, "output": 0.05},
    },
    "training": {
        "epochs": 2,
        "batch_tokens": 100,
        "learning_rate": 0.03,
        "warmup": 5,
        "label_smoothing": 0.0,
        "ema": 0.9,
        "precision": "float32",
        "device": "cpu",
        "threads": 1,
        "samples": 1,
        "validate_sentences": 20,
    },
    "search": {"beam": 3},
}


def pairs(count: int, seed: int = 1) -> list[tuple[str, str]]:
    """Different sentences of 2 to 6 words of the toy language and their translations, word for word."""
    draw = random.Random(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        words = draw.choices(list(WORDS), k=draw.randint(2, 6))
        found[" ".join(words)] = " ".join(WORDS[word] for word in words)
    return list(found.items())


def write_lines(file: Path, lines: Sequence[str]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return file


def write_split(
    folder: Path, split: str, rows: Sequence[tuple[str, str]], languages: tuple[str, str] = ("en", "de")
) -> None:
    for side, language in enumerate(languages):
        write_lines(folder / f"{split}.{language}", [row[side] for row in rows])


def write_corpus(folder: Path, train: int = 200) -> Path:
    """train, valid and test in a folder, without overlap."""
    rows = pairs(train + 60)
    for split, part in (("train", rows[60:]), ("valid", rows[:20]), ("test", rows[20:60])):
        write_split(folder, split, part)
    return folder


def write_recipe(file: Path, corpus: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """The toy recipe on a corpus, with changes by dotted key."""
    content = json.loads(json.dumps(RECIPE))
    for key, value in {"data.path": str(corpus), **(changes or {})}.items():
        *parents, last = key.split(".")
        section = content
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def metrics(folder: Path, *kinds: str) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, without what depends on the clock."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    clock = ("seconds", "minutes", "tokens_per_second")
    return [{k: v for k, v in row.items() if k not in clock} for row in rows if not kinds or row["kind"] in kinds]


# ---- The command line in this process --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of a call that failed; what was said before it is left out."""
        lines = self.err.splitlines()
        assert "Traceback" not in self.err, self.err
        assert "this is a bug" not in self.err, self.err
        said = [line for line in lines if line.startswith("nmt: ")]
        assert len(said) == 1, self.err
        assert lines[-1] == said[0], self.err
        return said[0].removeprefix("nmt: ")


def call(*args: object, stdin: bytes | str = b"") -> Result:
    """`nmt args < stdin`: status, standard output, standard error."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="\n") for _ in range(2))
    kept = sys.argv, sys.stdin
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)}
    sys.argv, sys.stdin = ["nmt", *map(str, args)], io.TextIOWrapper(io.BytesIO(given), encoding="utf-8")
    try:
        with contextlib.ExitStack() as stack:
            # what is not told how many threads to use takes all cores, which tiny models do not need
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr(os, "sched_getaffinity", lambda process: {0})
            stack.enter_context(contextlib.redirect_stdout(out))
            stack.enter_context(contextlib.redirect_stderr(err))
            stop = stack.enter_context(pytest.raises(SystemExit))
            cli.main()
    finally:
        sys.argv, sys.stdin = kept
        for number, handler in handlers.items():
            signal.signal(number, handler)
    texts = []
    for stream in (out, err):
        stream.flush()
        assert isinstance(stream.buffer, io.BytesIO)
        texts.append(stream.buffer.getvalue().decode())
    code = stop.value.code
    return Result(code if isinstance(code, int) else 0 if code is None else 1, *texts)


# ---- Processes of their own ------------------------------------------------------------------------------------------

_NURSERY = """
import json, os, sys
import datasets, nmt.cli, nmt.evaluate, nmt.report, nmt.run, nmt.trainer, nmt.translate
nmt.trainer.REPORT_EVERY = 7
print("ready", flush=True)
while line := sys.stdin.readline():
    work = json.loads(line)
    if "wait" in work:
        print(os.waitstatus_to_exitcode(os.waitpid(work["wait"], 0)[1]), flush=True)
        continue
    if child := os.fork():
        print(child, flush=True)
        continue
    for number, (place, flags) in enumerate(zip(work["files"], (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT] * 2))):
        os.dup2(os.open(place, flags), number)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8"))
    sys.argv = ["nmt", *work["args"]]
    os.chdir(work["folder"])
    os.environ.update(work["environment"])
    nmt.cli.main()
"""


class Child:
    """`nmt` in a process of its own."""

    def __init__(self, number: int, files: Sequence[Path], ask: Callable[[dict[str, Any]], str]) -> None:
        self.number, self.files, self.ask = number, files, ask

    def kill(self, number: int) -> None:
        os.kill(self.number, number)

    def wait(self) -> Result:
        """Its end; a negative status is the signal that killed it."""
        status = int(self.ask({"wait": self.number}))
        return Result(status, *(file.read_text() if file.is_file() else "" for file in self.files[1:]))


class Children:
    """Forks children from a process that has imported everything that nmt may need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.born = 0
        self.nursery: subprocess.Popen[str] | None = None

    def start(self, *args: object, stdin: Path | None = None, folder: Path | None = None) -> Child:
        self.born += 1
        files = [stdin or Path(os.devnull), self.folder / f"{self.born}.out", self.folder / f"{self.born}.err"]
        work = {
            "args": list(map(str, args)),
            "files": list(map(str, files)),
            "folder": str(folder or Path.cwd()),
            "environment": {name: os.environ[name] for name in ("NMT_CACHE", "NMT_DATA") if name in os.environ},
        }
        return Child(int(self._ask(work)), files, self._ask)

    def _ask(self, work: dict[str, Any]) -> str:
        if self.nursery is None:
            self.nursery = subprocess.Popen(
                [sys.executable, "-c", _NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            self._answer()
        assert self.nursery.stdin is not None
        self.nursery.stdin.write(json.dumps(work) + "\n")
        self.nursery.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self.nursery is not None
        assert self.nursery.stdout is not None
        return self.nursery.stdout.readline().strip()

    def close(self) -> None:
        if self.nursery is not None:
            self.nursery.communicate()


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def kill_midway(child: Child, folder: Path) -> None:
    """Kill a training after some updates, each of which it keeps."""
    file, seen = folder / checkpoint.STATE, set[int]()

    def several() -> bool:
        with contextlib.suppress(FileNotFoundError):
            seen.add(file.stat().st_mtime_ns)
        return len(seen) > 2

    until(several)
    child.kill(9)
    child.wait()
    state = checkpoint.read_state(folder)
    assert state is not None
    assert state["position"]["updates"] > 0
    assert not state["position"]["finished"], "else nothing is resumed"


@pytest.fixture(scope="session")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Children]:
    nursery = Children(tmp_path_factory.mktemp("children"))
    yield nursery
    nursery.close()


# ---- A corpus and two runs, made once --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Toy:
    """A corpus, a recipe, and runs trained on it: with attention, and with a fixed context."""

    corpus: Path
    recipe: Path
    attention: Path
    fixed: Path


@pytest.fixture(scope="session")
def few_starter_pairs() -> dict[str, list[starter.Pair]]:
    return starter.corpus(train=200, valid=20, test=40)


@pytest.fixture
def small_starter(few_starter_pairs: dict[str, list[starter.Pair]], monkeypatch: pytest.MonkeyPatch) -> None:
    """The starter pair with few sentences."""
    monkeypatch.setattr(material, "_starter", lambda whole: few_starter_pairs)


@pytest.fixture(scope="session")
def toy_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What was read and tokenised is kept in a folder of this test session."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NMT_CACHE", str(folder))
        patch.delenv("NMT_DATA", raising=False)
        yield folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, toy_cache: Path) -> Path:
    return write_corpus(tmp_path_factory.mktemp("toy") / "corpus")


@pytest.fixture(scope="session")
def recipe(corpus: Path) -> Path:
    return write_recipe(corpus.parent / "toy.yaml", corpus)


@pytest.fixture(scope="session")
def back(corpus: Path) -> Path:
    """A model for the opposite direction, trained for a moment."""
    folder = corpus.parent / "runs" / "back"
    recipe = write_recipe(corpus.parent / "back.yaml", corpus, {"data.source": "de", "data.target": "en"})
    assert call("train", recipe, "--set", "training.epochs=1", "--out", folder).status == 0
    return folder


@dataclass(frozen=True)
class Served:
    """A page as `nmt demo` opens it, over copies of toy models; `folder` is where it runs."""

    address: str
    folder: Path


@pytest.fixture(scope="session")
def served(toy: Toy, back: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    names = {"toy-en-de": toy.attention, "toy-en-de-fixed": toy.fixed, "toy-de-en": back}
    for name, run in names.items():
        shutil.copytree(run, folder / name)
    command = [sys.executable, "-m", "nmt", "demo", *names]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if found := re.search(r"open (http://127\.0\.0\.1:\d+/) in a browser", line):
                break
        else:
            raise AssertionError(said)
        yield Served(found[1], folder)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert "Traceback" not in process.stderr.read()


@pytest.fixture(scope="session")
def toy(corpus: Path, recipe: Path) -> Toy:
    runs = {}
    for name, changes in (
        ("attention", ["model.attention=general"]),
        ("fixed", ["model.attention=none", "model.context_feeding=true"]),
    ):
        runs[name] = corpus.parent / "runs" / name
        settings = ["training.epochs=8", *changes]
        result = call("train", recipe, "--out", runs[name], *(f"--set={change}" for change in settings))
        assert result.status == 0, result.err
    return Toy(corpus, recipe, runs["attention"], runs["fixed"])


def files(folder: Path) -> dict[str, bytes]:
    """What is in a folder, by the path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
