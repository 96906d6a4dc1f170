"""What is shipped: the wheel, and every recipe on a corpus of its languages at toy size."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from toy import call, metrics, pairs, write_split

import nmt
from nmt import Translator, recipe

HOME = Path(nmt.__file__).parent.parent
TOY = [  # what makes a recipe small, whatever it asks for
    *("model.embed=16", "model.encoder.hidden=16", "model.decoder.hidden=32"),
    *("training.epochs=1", "training.batch_tokens=2000", "training.validate_sentences=4", "training.samples=0"),
    *("training.warmup=1", "training.threads=1", "training.device=cpu", "training.precision=float32"),
]


TRANSLATORS = [name for name in recipe.names("recipes") if recipe.task(name) == "translation"]


@pytest.fixture
def _corpora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_cache: Path) -> None:
    """A few pairs for every shipped recipe, where it looks for them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NMT_DATA", str(tmp_path / "corpora"))
    rows = pairs(150)
    for name in TRANSLATORS:
        data = recipe.load(name).data
        if data.path is None:
            continue
        for split, part in ((data.train, rows[:110]), (data.valid, rows[110:130]), (data.test, rows[130:])):
            assert isinstance(split, str)
            folder = tmp_path / "corpora" / data.path
            write_split(folder, split, part, (data.source, data.target))


@pytest.mark.parametrize("name", TRANSLATORS)
@pytest.mark.usefixtures("_corpora", "small_starter")
def test_a_shipped_recipe_trains(name: str) -> None:
    found = recipe.load(name)
    pieces = 300 if found.tokenizer.byte_fallback else 100 if found.data.generator else 44
    changes = [*TOY, f"tokenizer.vocab_size={pieces}"]
    result = call("train", name, *(flag for change in changes for flag in ("--set", change)))
    assert result.status == 0, result.err
    folder = Path("runs") / name
    rows = metrics(folder, "valid")
    assert rows[-1]["step"] >= 2
    assert rows[-1]["epoch"] == 1
    assert len(Translator.load(folder, threads=1).translate(["koira", "The dog sleeps."])) == 2


@pytest.mark.parametrize("name", TRANSLATORS)
def test_a_shipped_recipe_says_what_it_is(name: str) -> None:
    head = recipe.header(recipe.find(name))
    assert re.match(r"(English|German) to (English|German|French|Swahili|Welsh|Irish)\b", head)
    found = recipe.load(name)
    assert found.name == name
    assert name.endswith(f"{found.data.source}-{found.data.target}") or name.rsplit("-", 1)[1] in (
        "attention",
        "fixed",
        "more",
    )
    assert recipe.find(f"recipes/{name}.yaml").samefile(recipe.find(name))


def test_the_recipes_that_are_promised_are_there() -> None:
    promised = {
        *("starter-en-de", "starter-en-de-attention", "starter-de-en", "multi30k-en-de", "multi30k-en-de-fixed"),
        *("multi30k-de-en", "multi30k-en-fr", "tatoeba-en-de", "iwslt14-low-de-en", "lafand-en-sw", "wmt14-en-de"),
    }
    found = set(recipe.names("recipes"))
    assert promised <= found
    assert sum(name.startswith("opus100-en-") for name in found) == 2
    for name in found:
        if name.startswith(("opus100", "wmt14")):
            assert "NOT RUN" in recipe.header(recipe.find(name))


@pytest.mark.parametrize("name", recipe.names("tokenizers"))
def test_a_shipped_tokenizer_is_a_specification(name: str) -> None:
    found = recipe.load("multi30k-en-de", [f"tokenizer={name}", "model.tie=none", "training.subword_sampling=0"])
    assert found.tokenizer.model in ("unigram", "bpe", "char")
    assert found.tokenizer.joint == name.startswith("joint")


def test_the_distribution_is_not_called_nmt() -> None:
    project = tomllib.loads((HOME / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] != "nmt"
    assert project["scripts"] == {"nmt": "nmt.cli:main"}
    for file in [*HOME.glob("*.md"), HOME / "Makefile", *(HOME / "nmt").rglob("*.py"), *(HOME / "demo").rglob("*")]:
        if file.is_file():
            assert "pip install nmt" not in file.read_text(encoding="utf-8", errors="replace"), file


@pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="building the wheel needs hatchling")
def test_the_wheel_has_what_a_checkout_has(tmp_path: Path) -> None:
    flags = ["--no-deps", "--no-build-isolation", "--no-cache-dir", "--quiet", "--wheel-dir", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *flags, str(HOME)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        metadata = next(archive.read(name).decode() for name in inside if name.endswith("METADATA"))
    for folder in ("recipes", "tokenizers", "demo"):
        for file in (HOME / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert f"nmt/{file.relative_to(HOME)}" in inside
    for file in (HOME / "nmt").rglob("*.py"):
        assert str(file.relative_to(HOME)) in inside
    assert not any(name.startswith(("tests/", "benchmarks/", "recipes/")) for name in inside)
    assert f"Version: {nmt.__version__}" in metadata
