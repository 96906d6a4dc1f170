"""The modules form the picture that the design shows: who may import whom, and what comes in with what."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import nmt

HOME = Path(nmt.__file__).parent

SHAPES = {"shapes.captioner", "shapes.classifier", "shapes.language_model", "shapes.tagger"}
# module: its level, and what it imports inside `nmt` (`errors` is for all). When the design changes, this table
# changes with it, on purpose.
MODULES: dict[str, tuple[int, set[str]]] = {
    "errors": (0, set()),
    "progress": (0, set()),
    "group": (0, set()),
    "cells": (0, set()),
    "attention": (0, set()),
    "search": (0, set()),
    "consensus": (0, set()),
    "starter": (0, set()),
    "spacing": (0, set()),
    "disk": (1, set()),
    "plots": (2, {"disk"}),
    "metrics": (1, {"spacing"}),
    "recipe": (1, set()),
    "tokenizer": (1, set()),
    "formats": (1, set()),
    "hardware": (1, set()),
    "lexicon": (2, {"tokenizer"}),
    "loss": (2, {"hardware"}),
    "context": (1, {"cells"}),
    "corrections": (2, {"disk", "formats"}),
    "document": (2, {"formats"}),
    "corpus": (2, {"formats"}),
    "holdout": (3, {"corpus", "formats"}),
    "init": (4, {"disk", "corpus", "formats", "holdout", "progress", "recipe", "spacing", "tokenizer"}),
    "checkpoint": (2, {"disk", "recipe"}),
    "encoder": (2, {"cells", "context"}),
    "data": (3, {"disk", "corpus", "hardware", "tokenizer"}),
    "decoder": (2, {"attention", "cells", "context"}),
    "stepper": (3, {"cells", "context", "decoder", "hardware"}),
    "trainer": (3, {"group", "checkpoint", "hardware", "loss", "progress", "recipe"}),
    "model": (4, {"cells", "context", "data", "decoder", "encoder", "loss", "recipe", "stepper", "tokenizer"}),
    "examples": (3, {"checkpoint"}),
    "engine": (5, {"data", "examples", "loss", "model", "search", "stepper", "tokenizer"}),
    "portable": (4, {"checkpoint", "data", "lexicon", "stepper", "tokenizer"}),
    "translate": (
        6,
        {
            "checkpoint",
            "consensus",
            "data",
            "document",
            "engine",
            "examples",
            "hardware",
            "model",
            "portable",
            "progress",
            "recipe",
            "search",
        }
        | {"tokenizer"},
    ),
    "remember": (
        7,
        {"disk", "checkpoint", "corpus", "data", "examples", "hardware", "material", "model", "progress", "tokenizer"}
        | {"translate"},
    ),
    "distill": (10, {"disk", "checkpoint", "corpus", "formats", "material", "progress", "recipe", "run", "translate"}),
    "export": (
        7,
        {
            "disk",
            "attention",
            "cells",
            "checkpoint",
            "context",
            "decoder",
            "encoder",
            "hardware",
            "lexicon",
            "material",
            "model",
            "portable",
        }
        | {"progress", "recipe", "tokenizer", "translate"},
    ),
    "material": (
        4,
        {
            "disk",
            "checkpoint",
            "group",
            "corpus",
            "data",
            "formats",
            "hardware",
            "holdout",
            "lexicon",
            "progress",
            "recipe",
        }
        | {"starter", "tokenizer"},
    ),
    "validation": (7, {"data", "hardware", "material", "metrics", "model", "progress", "recipe", "translate"}),
    "job": (4, {"loss", "trainer"}),
    "translation": (
        8,
        {
            "group",
            "checkpoint",
            "data",
            "hardware",
            "job",
            "loss",
            "material",
            "model",
            "recipe",
            "tokenizer",
        }
        | {"translate", "validation"},
    ),
    "run": (
        9,
        {"disk", "group", "checkpoint", "hardware", "job", "plots", "progress", "recipe", "trainer", "translate"}
        | {"translation"}
        | SHAPES,
    ),
    "tune": (
        10,
        {"checkpoint", "corpus", "examples", "material", "progress", "recipe", "remember", "run", "translate"},
    ),
    "evaluate": (
        7,
        {"disk", "checkpoint", "formats", "material", "metrics", "plots", "progress", "spacing", "translate", "corpus"},
    ),
    "report": (5, {"checkpoint", "corpus", "data", "examples", "material", "model", "progress", "recipe"}),
    "explain": (7, {"tokenizer", "translate"}),
    "service": (7, {"recipe", "translate"}),
    "serve": (7, {"checkpoint", "progress", "recipe"}),
    # the other shapes: `run` and `cli` alone reach them
    "shapes.__init__": (0, set()),
    "shapes.report": (0, set()),
    "shapes.text": (3, {"checkpoint", "corpus", "recipe", "tokenizer"}),
    "shapes.scores": (0, set()),
    "shapes.frames": (0, set()),
    "shapes.tagged": (3, {"corpus", "recipe", "shapes.frames", "shapes.scores"}),
    "shapes.tagger": (
        7,
        {"attention", "cells", "checkpoint", "data", "encoder", "formats", "hardware", "job", "loss", "model"}
        | {"recipe", "shapes.frames", "shapes.report", "shapes.scores", "shapes.tagged", "shapes.words", "tokenizer"},
    ),
    "shapes.language_model": (
        7,
        {"cells", "checkpoint", "context", "corpus", "data", "decoder", "hardware", "job", "loss", "model", "progress"}
        | {"recipe", "search", "shapes.report", "shapes.text", "stepper", "tokenizer", "translate"},
    ),
    "shapes.bag": (0, set()),
    "shapes.words": (4, {"cells", "checkpoint", "data", "tokenizer"}),
    "shapes.classifier": (
        7,
        {
            "attention",
            "cells",
            "checkpoint",
            "corpus",
            "data",
            "encoder",
            "hardware",
            "job",
            "loss",
            "material",
            "model",
        }
        | {"plots", "progress", "recipe", "shapes.bag", "shapes.report", "shapes.scores", "shapes.words", "tokenizer"},
    ),
    "shapes.pictures": (2, {"disk", "recipe"}),
    "shapes.captioner": (
        7,
        {"cells", "checkpoint", "context", "data", "decoder", "hardware", "job", "loss", "metrics", "model", "plots"}
        | {"progress", "recipe", "search", "shapes.pictures", "shapes.report", "stepper", "tokenizer"},
    ),
    "cli": (
        11,
        {
            "disk",
            "checkpoint",
            "distill",
            "evaluate",
            "explain",
            "export",
            "formats",
            "init",
            "progress",
            "recipe",
            "remember",
            "report",
            "run",
            "serve",
        }
        | {"translate", "tune"}
        | SHAPES,
    ),
    "__main__": (12, {"cli"}),
}
FACE = "__init__"  # brings in `translate` for those who ask it for a translator


@cache
def imports(file: Path) -> frozenset[str]:
    """The modules a file imports, at its head and inside functions; what only a type checker sees is left out."""
    return frozenset(_imports(file))


def _imports(file: Path) -> Iterator[str]:
    todo: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            todo += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: a relative import"
            assert node.module is not None
            packages = ("nmt", "nmt.shapes")
            yield from (
                (f"{node.module}.{name.name}" for name in node.names) if node.module in packages else [node.module]
            )
        todo += ast.iter_child_nodes(node)


def inside(file: Path) -> set[str]:
    ours = {name.removeprefix("nmt.") for name in imports(file) if name == "nmt" or name.startswith("nmt.")}
    return ours - {"errors", "__version__"}


def files() -> dict[str, Path]:
    return {".".join(file.relative_to(HOME).with_suffix("").parts): file for file in HOME.rglob("*.py")}


def test_every_module_is_in_the_table() -> None:
    assert set(files()) - {FACE} == set(MODULES)


def test_the_picture_for_people_is_the_same() -> None:
    text = (HOME.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([^|]*) \|", text, re.MULTILINE)
    shown = {name: int(level) for level, names in rows for name in re.findall(r"`(\w+)`", names)}
    assert shown == {name: level for name, (level, _) in MODULES.items() if name[0] != "_" and "shapes" not in name}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_what_the_table_says(name: str) -> None:
    assert inside(files()[name]) == MODULES[name][1]


def test_the_face_imports_only_translate() -> None:
    assert inside(files()[FACE]) == {"translate"}


def test_imports_go_to_lower_levels_only() -> None:
    for name, (level, allowed) in MODULES.items():
        for other in allowed:
            assert MODULES[other][0] < level, f"{name} (level {level}) imports {other} (level {MODULES[other][0]})"


def test_only_run_and_cli_reach_a_shape() -> None:
    reached = {name for name, file in files().items() if inside(file) & SHAPES}
    assert reached == {"run", "cli"}
    modules = _loaded("import nmt.cli, nmt.run")
    assert not modules & {f"nmt.{name}" for name in SHAPES}, "a shape is brought in when it is asked for"


@pytest.mark.parametrize(
    ("package", "users"),
    [
        ("matplotlib", {"plots"}),
        ("PIL", {"shapes.pictures"}),
        ("sentencepiece", {"tokenizer"}),
        ("safetensors", {"checkpoint"}),
        ("sacrebleu", {"metrics"}),
        ("datasets", {"corpus", "data"}),
        ("typer", {"cli"}),
        ("rich", {"progress"}),
        ("pydantic", {"recipe"}),
        ("gradio", set()),
    ],
)
def test_a_library_has_one_door(package: str, users: set[str]) -> None:
    found = {name for name, file in files().items() if any(one.split(".")[0] == package for one in imports(file))}
    assert found == users


def _loaded(code: str) -> set[str]:
    """The modules that are there after `code` in a fresh process."""
    script = (
        f"import sys\ntry:\n    {code}\nexcept SystemExit: pass\nimport json\nprint(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_nmt_brings_in_no_torch() -> None:
    assert not _loaded("import nmt") & {"torch", "numpy", "datasets", "matplotlib", "typer", "pydantic"}


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_brings_in_no_torch(arguments: list[str]) -> None:
    modules = _loaded(f"sys.argv = {['nmt', *arguments]}; from nmt.cli import main; main()")
    assert not modules & {"torch", "numpy", "datasets", "matplotlib", "yaml"}


def test_the_network_brings_in_neither_pictures_nor_pages_nor_data_sets() -> None:
    modules = _loaded("import nmt.cells, nmt.attention, nmt.context, nmt.encoder, nmt.decoder, nmt.loss, nmt.search")
    assert not modules & {"gradio", "matplotlib", "datasets", "pyarrow", "sentencepiece", "pydantic", "sacrebleu"}
