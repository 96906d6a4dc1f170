"""`nmt evaluate`: systems and files of translations on a test set, as text, as JSON and as files."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from toy import Toy, call, pairs, write_lines, write_recipe

from nmt import checkpoint, evaluate, material, metrics
from nmt.recipe import Data


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_cache: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand resamples say no more here than a few."""
    report, compare = metrics.evaluate, metrics.compare
    monkeypatch.setattr(metrics, "evaluate", lambda *args: report(*args[:4], bootstrap=min(30, args[4])))
    monkeypatch.setattr(metrics, "compare", lambda *args, **named: compare(*args, **named, samples=30))


@pytest.fixture
def system(toy: Toy, tmp_path: Path) -> Path:
    """A run of one's own, to write to."""
    return Path(shutil.copytree(toy.attention, tmp_path / "run"))


def scores(report: dict[str, Any]) -> dict[str, float]:
    return {score["name"]: score["value"] for score in report["scores"]}


WRITTEN = "written to run: evaluation.json, .txt with the translations, .png\n"


def test_the_test_split_of_the_recipe(system: Path, toy: Toy) -> None:
    result = call("evaluate", "run")
    assert (result.status, result.err) == (0, WRITTEN)
    for said in (
        "test.en and ",
        "test.de: 40 sentences (so few say little: look at the intervals)",
        "\nrun\nBLEU ",
        "chrF2 ",
        "TER ",
        "BLEU lower-cased tokenised",
    ):
        assert said in result.out
    for said in ("nrefs:1|bs:30|seed:12345", "source words", "worst:", "best:", "  reference  ", "  source  "):
        assert said in result.out
    lines = (system / "evaluation.txt").read_text().splitlines()
    assert lines == call("translate", "run", "--input", toy.corpus / "test.en").out.splitlines()
    assert (system / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    kept = json.loads((system / "evaluation.json").read_text())
    assert f"BLEU {scores(kept['systems']['run'])['BLEU']:.2f}" in result.out
    assert "test.de: 40 sentences\n  run\n    BLEU " in call("info", "run").out


def test_systems_of_different_directions_are_not_compared(system: Path, back: Path) -> None:
    result = call("evaluate", "run", back)
    assert result.status == 2
    assert f"run translates en to de, {back} translates de to en" in result.error


def test_json_has_everything_and_nothing_else(system: Path) -> None:
    result = call("evaluate", "run", "--json", "--beam", "2")
    assert (result.status, result.err) == (0, WRITTEN)
    found = json.loads(result.out)
    assert found == json.loads((system / "evaluation.json").read_text())
    assert list(found) == ["test", "sentences", "systems", "comparisons"]
    report = found["systems"]["run"]
    assert set(report) == {"scores", "length_ratio", "by_length", "best", "worst", "parts", "search", "models"}
    assert report["models"] == [[checkpoint.read(system).stamp, 0]]
    assert report["search"]["beam"] == 2
    assert list(scores(report)) == ["BLEU", "chrF2", "TER", "BLEU lower-cased tokenised"]
    for score in report["scores"]:
        assert score["low"] - 1e-9 <= score["value"] <= score["high"] + 1e-9
        assert "version:" in score["signature"]
    assert sum(bucket["count"] for bucket in report["by_length"]) == 40
    assert len(report["best"]) == len(report["worst"]) == 10
    assert all(row["source"] for row in report["worst"])
    assert found["comparisons"] == []


def test_the_search_can_be_changed(system: Path) -> None:
    greedy = call("evaluate", "run", "--set", "search.method=greedy").out
    assert greedy == call("evaluate", "run", "--beam", "1").out
    assert greedy != call("evaluate", "run").out
    assert call("evaluate", "run", "--set", "model.embed=3").status == 2


def test_two_systems_are_compared(system: Path, toy: Toy) -> None:
    other = shutil.copytree(toy.fixed, "other")
    source, reference = toy.corpus / "test.en", toy.corpus / "test.de"
    files = ["--source", source, "--reference", reference]
    result = call("evaluate", "run", "other", *files, "--json")
    assert result.status == 0
    found = json.loads(result.out)
    assert list(found["systems"]) == ["run", "other"]
    compared = {one["metric"]: one for one in found["comparisons"]}
    assert list(compared) == ["BLEU", "chrF2", "TER"]
    for one in compared.values():
        assert (one["baseline"], one["system"]) == ("run", "other")
        assert 0 < one["p_value"] <= 1
    assert compared["BLEU"]["baseline_value"] == pytest.approx(scores(found["systems"]["run"])["BLEU"])
    assert compared["BLEU"]["value"] == pytest.approx(scores(found["systems"]["other"])["BLEU"])
    names = [f"evaluation-{toy.corpus.name}-test.{kind}" for kind in ("json", "png", "txt")]
    assert sorted(file.name for file in system.glob("evaluation*")) == names, "not in place of its own, or of another"
    assert not list(Path(other).glob("evaluation*"))
    text = call("evaluate", "run", "other", *files, "--significance", "randomisation").out
    assert "chrF2: run " in text
    assert "|ar:30|" in text


def test_an_ensemble_and_a_file_are_systems_too(system: Path, toy: Toy) -> None:
    shutil.copytree(toy.fixed, "other")
    translated = write_lines(Path("file.de"), [target for _, target in pairs(260)[20:60]])
    result = call("evaluate", "run+other", "--hypothesis", translated, "--json")
    assert result.status == 0
    found = json.loads(result.out)
    assert list(found["systems"]) == ["run+other", "file.de"]
    assert scores(found["systems"]["file.de"])["BLEU"] == pytest.approx(100)
    assert scores(found["systems"]["file.de"])["TER"] == 0
    assert len(found["comparisons"]) == 3
    assert found["systems"]["file.de"]["search"] is None
    kept = sorted(file.name for file in system.glob("evaluation*"))
    assert kept == [f"evaluation-run+other.{kind}" for kind in ("json", "png", "txt")], "not in place of its own"


def test_a_file_alone(toy: Toy) -> None:
    reference = toy.corpus / "test.de"
    result = call("evaluate", "--hypothesis", reference, "--reference", reference, "--json")
    assert (result.status, result.err) == (0, "")
    report = json.loads(result.out)["systems"][str(reference)]
    assert scores(report) == pytest.approx({"BLEU": 100, "chrF2": 100, "TER": 0, "BLEU lower-cased tokenised": 100})
    assert report["by_length"] == []
    assert "moses:de" in report["scores"][3]["signature"]
    assert report["worst"][0]["source"] is None
    with_source = ["--source", toy.corpus / "test.en"]
    result = call("evaluate", "--hypothesis", reference, "--reference", reference, *with_source)
    assert "source words" in result.out
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("name", "language"), [("ref.de", "de"), ("ref.de.gz", "de"), ("a.de.txt", "de"), ("ref", ""), ("ref.txt", "")]
)
def test_the_name_of_a_file_says_its_language(name: str, language: str) -> None:
    text = b"ein fisch\n"
    Path(name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    found = evaluate.from_files(None, Path(name), None)
    assert (found.language, found.references) == (language, ["ein fisch"])
    result = call("evaluate", "--hypothesis", name, "--reference", name)
    assert result.status == 0
    assert ("moses:de" if language else "tok:13a") in result.out


def test_text_without_spaces_whose_language_is_not_known_is_told() -> None:
    for name, told in (("ref.txt", True), ("ref.zh", False)):
        Path(name).write_text("我今天早上在市场买了三个苹果。\n" * 3, encoding="utf-8")
        result = call("evaluate", "--hypothesis", name, "--reference", name)
        assert result.status == 0
        assert (f"warning: {name}: there are hardly any spaces, and '' is not known" in result.err) == told
        assert ("tok:13a" in result.out) == told


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 2, "nothing to evaluate: name a run folder, or a file of translations with --hypothesis"),
        (["run", "run"], 2, "the same system is named twice"),
        (["run", "--source", "a.en"], 2, "--source without --reference"),
        (["run", "--reference", "a.de"], 2, "--reference without --source"),
        (["--hypothesis", "a.de"], 2, "--hypothesis needs --reference"),
        (["--hypothesis", "a.de", "--hypothesis", "a.de", "--reference", "a.de"], 2, "the same system is named twice"),
        (["--hypothesis", "a.de", "--reference", "b.de"], 1, "a.de has 3 lines, b.de 2: give translations of the same"),
        (
            ["run", "--source", "a.en", *2 * ["--reference", "a.de"]],
            2,
            "--reference: a.de and a.de: one file can be given",
        ),
        (["run", "--hypothesis", "a.de"], 1, "a.de has 3 lines, "),
        (["run", "--source", "a.en", "--reference", "b.de"], 1, "a.en has 3 lines, b.de 2"),
        (["--hypothesis", "empty", "--reference", "empty"], 1, "nothing to score"),
        (["run", "--source", "bad.en", "--reference", "a.de"], 1, "bad.en: line 2: a NUL byte"),
        (["--hypothesis", "a.de", "--reference", "a.de", "--source", "b.de"], 1, "b.de has 2 lines, a.de 3"),
    ],
)
def test_an_evaluation_that_cannot_be(
    arguments: list[str], status: int, said: str, system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_early(*args: object) -> list[str]:
        raise AssertionError("translated before the files were checked")

    monkeypatch.setattr(evaluate, "_translate", too_early)
    write_lines(Path("a.en"), ["kala", "puu", "talo"])
    write_lines(Path("a.de"), ["fisch", "baum", "haus"])
    write_lines(Path("b.de"), ["fisch", "baum"])
    write_lines(Path("empty"), [])
    write_lines(Path("bad.en"), ["kala", "pu\0u", "talo"])
    result = call("evaluate", *arguments)
    assert result.status == status
    assert said in result.error
    assert result.out == ""
    assert not (system / "evaluation.json").exists()


def test_a_corpus_without_a_test_split(system: Path, toy: Toy) -> None:
    corpus = Path(shutil.copytree(toy.corpus, "corpus")).absolute()
    (corpus / "test.en").unlink()
    (corpus / "test.de").unlink()
    write_recipe(Path("toy.yaml"), corpus)
    recipe = (system / "recipe.yaml").read_text().replace(str(toy.corpus), str(corpus))
    (system / "recipe.yaml").write_text(recipe)
    result = call("evaluate", "run")
    assert result.status == 1
    assert "no split 'test'" in result.error


def test_what_cannot_be_kept_is_shown_all_the_same(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (system / "evaluation.json").mkdir()
    result = call("evaluate", "run")
    assert result.status == 0
    assert "BLEU" in result.out
    assert "warning: the evaluation is not kept: run/evaluation.json: cannot be written: Is a directory" in result.err


def test_parts_of_a_test_set_are_scored_on_their_own() -> None:
    rows = pairs(12)
    sources, references = [source for source, _ in rows], [target for _, target in rows]
    half = evaluate.TestSet(sources, references, "de", "toy", {"right": range(6), "wrong": range(6, 12)})
    translated = references[:6] + ["nichts davon ist richtig"] * 6
    found = evaluate.evaluate(half, {"a": translated})
    parts = found.parts["a"]
    assert parts["right"].scores[0].value == pytest.approx(100)
    assert parts["wrong"].scores[0].value < 10
    text = str(found)
    assert f"a, right\n{parts['right'].scores[0]}" in text
    assert f"a, wrong\n{parts['wrong'].scores[0]}" in text
    kept = found.to_json()["systems"]["a"]["parts"]
    assert json.loads(json.dumps(kept))["right"]["scores"][0]["value"] == pytest.approx(100)


@pytest.mark.usefixtures("small_starter")
def test_the_starter_is_scored_in_two_halves() -> None:
    data = Data(source="de", target="en", generator="starter")
    test = material.load_split(data, "test")
    parts = material.test_parts(data)
    assert list(parts) == ["combinations seen in training", "combinations never seen"]
    rows = [row for part in parts.values() for row in list(part)[:10]]
    small = {name: [rows.index(row) for row in list(part)[:10]] for name, part in parts.items()}
    sources, references = [test.source[row] for row in rows], [test.target[row] for row in rows]
    found = evaluate.evaluate(evaluate.TestSet(sources, references, "en", "starter", small), {"same": references})
    assert all(part.scores[0].value == pytest.approx(100) for part in found.parts["same"].values())


def test_pairs_that_are_held_out_since_the_training_are_told(
    system: Path, toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    test = material.load_split(Data(source="en", target="de", path=str(toy.corpus)), "test")
    info = json.loads((system / "model.json").read_text())
    for before, warned in ((None, False), (test.digest, False), ("another", True)):
        data = info["data"] | ({"held_out": before} if before else {})
        (system / "model.json").write_text(json.dumps(info | {"data": data}))
        evaluate._warn_of_others(["run"], test)
        assert ("warning: run: the corpus has changed since the training" in capsys.readouterr().err) == warned
