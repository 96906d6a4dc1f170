"""Several processes that train together come to what one comes to with the same batches."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy import call, metrics, write_recipe

from nmt.group import Group, join

WITHOUT_DROPOUT = {
    "model.dropout": {"embedding": 0.0, "layers": 0.0, "output": 0.0},
    "training.schedule": "constant",
    "training.learning_rate": 0.003,  # at ten times that, rounding grows from update to update
    "training.batch_tokens": 30,  # the last batch of a length may have one row, and one process nothing
}


def together(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`nmt` in two processes, as torchrun starts them."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    given = [*command, "-m", "nmt", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(given, check=False, capture_output=True, text=True, env=environment, timeout=100)


def apart(folders: Sequence[Path], *arguments: object) -> list[subprocess.CompletedProcess[str]]:
    """`nmt` in as many processes, each in a folder of its own, as on machines that share no disk."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    own = {"WORLD_SIZE": str(len(folders)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "nmt", *map(str, arguments)]
    started = [
        subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | own | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, folder in enumerate(folders)
    ]
    try:
        found = [process.communicate(timeout=100) for process in started]
    finally:
        for process in started:
            process.kill()
    return [
        subprocess.CompletedProcess(command, process.returncode, *said)
        for process, said in zip(started, found, strict=True)
    ]


def test_two_processes_train_what_one_does_also_when_resumed(corpus: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "toy.yaml", corpus, WITHOUT_DROPOUT)
    one, two = tmp_path / "one", tmp_path / "two"
    assert call("train", recipe, "--out", one).status == 0
    first = together("train", recipe, "--out", two, "--set", "training.epochs=1")
    assert first.returncode == 0, first.stderr
    assert first.stderr.count("2 processes") == 1, "the first process speaks, the other is silent"
    (elsewhere := tmp_path / "elsewhere").mkdir()
    again, other = apart((tmp_path, elsewhere), "train", recipe, "--out", "two", "--resume")
    assert (again.returncode, other.returncode) == (0, 0), again.stderr + other.stderr
    assert "going on at epoch 1" in again.stderr
    assert not list(elsewhere.iterdir()), "what the first process reads does for all"

    weights, others = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(others[name], weight, atol=5e-5, rtol=1e-4, msg=name)
    rows, same = (metrics(folder, "valid") for folder in (one, two))
    assert [row["step"] for row in same] == [row["step"] for row in rows]
    assert [row["loss"] for row in same] == pytest.approx([row["loss"] for row in rows], abs=1e-3)
    info, other = (json.loads((folder / "model.json").read_text()) for folder in (one, two))
    assert info["tokens"] == other["tokens"]
    assert other["finished"]


def test_what_several_processes_cannot_train_is_refused(tmp_path: Path) -> None:
    found = together("train", "frames-synthetic", "--out", tmp_path / "out")
    assert found.returncode != 0
    assert "several processes train translators only, not tagging" in found.stderr
    assert "this is a bug" not in found.stderr
    assert not (tmp_path / "out").exists()


def test_one_process_is_a_group_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    group = join()
    assert group == Group(0, 1)
    assert group.same("x") == "x"
    assert group.sums(1, 2.5) == [1, 2.5]
    state = torch.get_rng_state()
    group.draw(1, 2)
    assert torch.equal(torch.get_rng_state(), state)
