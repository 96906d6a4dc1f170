"""How fast this package and its peers train the same model on the same pieces, in alternating rounds.

    python benchmarks/yardstick.py --rounds 5 --threads 2       # $NMT_DATA has multi30k

Makes an environment for each peer in --out, from the package index; `--torch` says what to install there as PyTorch.
The model is that of yardstick.yaml: 8,000 joint pieces, LSTM 512, general attention, batches of 4,096 target tokens,
9.1 M parameters. Each measurement is a process of its own. A rate is target tokens (the end of the sentence among them,
padding not) over seconds, from the sixth update on; the ratios are ours to theirs within a round, as median and range.
Ours is measured from the second epoch on as well: in the first one the library makes a kernel for each new shape of a
batch, which takes a part of the time that a training of many epochs has not to spend again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmt import material, recipe
from nmt.tokenizer import Tokenizer

HERE = Path(__file__).parent
INPUT_FEEDING = "model.input_feeding=true"
OURS, STEADY = "nmt", "nmt, second epoch"


@dataclass(frozen=True)
class Peer:
    """A package of the index: what to install, the first of it without its dependencies, and its driver."""

    name: str
    package: str
    needs: Sequence[str]
    driver: str


@dataclass(frozen=True)
class Runner:
    """A system in one setting."""

    name: str
    python: str
    driver: str
    options: Sequence[str]


PEERS = (
    Peer(
        "Joey NMT 2.3.0",
        "joeynmt==2.3.0",
        (
            *("importlib_metadata", "numpy", "packaging", "pyyaml", "datasets", "sacrebleu", "sacremoses"),
            *("sentencepiece", "subword-nmt", "tensorboard", "matplotlib", "seaborn", "pandas", "setuptools<81"),
        ),
        "joey.py",
    ),
    Peer(
        "OpenNMT-py 3.5.1",
        "OpenNMT-py==3.5.1",
        (
            *("configargparse", "pyonmttok", "rapidfuzz", "pyahocorasick", "six", "tensorboard", "flask", "waitress"),
            *("ctranslate2", "sacrebleu", "spacy", "fasttext-wheel", "pyyaml", "setuptools<81"),
        ),
        "opennmt.py",
    ),
)


def pieces(out: Path) -> None:
    """The corpus as pieces of one joint tokenizer, and its vocabulary, for all alike."""
    if (out / "vocabulary.txt").is_file():
        return
    spec = recipe.load(HERE / "yardstick.yaml")
    tokenizer, _ = material.train_tokenizers(spec, material.load_split(spec.data, "train"))
    for split in ("train", "valid", "test"):
        pairs = material.load_split(spec.data, split)
        for side, lines in ((spec.data.source, pairs.source), (spec.data.target, pairs.target)):
            text = "".join(" ".join(tokenizer.pieces(ids)) + "\n" for ids in tokenizer.encode(list(lines)))
            (out / f"{split}.{side}").write_text(text, encoding="utf-8")
    (out / "joint.model").write_bytes(tokenizer.proto)
    (out / "vocabulary.txt").write_text("".join(f"{one}\n" for one in _vocabulary(tokenizer)), encoding="utf-8")


def _vocabulary(tokenizer: Tokenizer) -> list[str]:
    return tokenizer.pieces(range(4, tokenizer.vocab))  # the special pieces are each system's own


def environment(out: Path, peer: Peer, torch: str) -> str:
    """The Python of a peer's environment, made if it is not there yet."""
    folder = out / peer.package.split("==")[0]
    python = folder / "bin" / "python"
    if not (folder / "ready").is_file():
        print(f"installing {peer.name} in {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, torch, *peer.needs], check=True)
        subprocess.run([*pip, "--no-deps", peer.package], check=True)
        (folder / "ready").touch()
    return str(python)


def tell(python: str, driver: str, arguments: Sequence[str], threads: int) -> dict[str, Any]:
    """What one process of a driver tells."""
    command = [python, "-W", "ignore", str(HERE / "peers" / driver), *arguments]
    home = {"PYTHONPATH": os.pathsep.join(map(str, (HERE.parent, HERE)))} if driver.startswith("ours") else {}
    environment = os.environ | home | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"tokens/s"')]
    if not lines:
        raise SystemExit(f"{driver} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def spread(ratios: Sequence[float]) -> str:
    """Median and range."""
    return f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"


def table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    rows = ["| system | tokens/s | ours is faster by | second epoch | peak MB |", "|---|--:|--:|--:|--:|"]
    rates = {name: [one["tokens/s"] for one in rounds] for name, rounds in found.items()}
    for name, theirs in rates.items():
        gains = ["", ""]
        if name not in (OURS, STEADY):
            pairs = (zip(rates[ours], theirs, strict=True) if ours in rates else None for ours in (OURS, STEADY))
            gains = [spread([mine / other for mine, other in pair]) if pair else "" for pair in pairs]
        peak = max(one["MB"] for one in found[name])
        rows.append(f"| {name} | {statistics.median(theirs):,.0f} | {gains[0]} | {gains[1]} | {peak:,.0f} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("data/yardstick"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--torch", default="torch==2.13.0", help="what to install as PyTorch for the peers")
    parser.add_argument("--feeding", action="store_true", help="input feeding in all, which makes them loop over T")
    parser.add_argument("--no-second-epoch", action="store_true", help="leave out its row, which takes the longest")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    pieces(given.out)
    ours = [INPUT_FEEDING] if given.feeding else []
    runners = [Runner(OURS, sys.executable, "ours.py", ours)]
    if not given.no_second_epoch:
        runners.append(Runner(STEADY, sys.executable, "ours.py", ["steady", *ours]))
    for peer in PEERS:
        python = environment(given.out, peer, given.torch)
        feeding = ["feeding"] if given.feeding else []
        runners.append(Runner(peer.name, python, peer.driver, feeding))
        runners.append(Runner(f"{peer.name}, float32 'medium'", python, peer.driver, [*feeding, "medium"]))
    found: dict[str, list[Mapping[str, float]]] = {runner.name: [] for runner in runners}
    for number in range(given.rounds):
        for runner in runners:
            arguments = [str(given.out.resolve()), str(given.updates), str(given.threads), *runner.options]
            found[runner.name].append(tell(runner.python, runner.driver, arguments, given.threads))
            print(f"round {number + 1}: {runner.name}: {found[runner.name][-1]}", file=sys.stderr, flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
