"""A corpus to teach with: the pairs that were given, the teacher's own beside them, and a recipe that trains on it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from toy import Toy, call, pairs

from nmt import checkpoint, recipe
from nmt.recipe import Search
from nmt.translate import Translator


def lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").split("\n")[:-1]


def _beam(folder: Path, width: int) -> Search:
    return checkpoint.read(folder).recipe.search.model_copy(update={"beam": width})


@pytest.fixture(scope="module")
def taught(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("distilled") / "taught"
    found = call("distill", f"{toy.attention}+{toy.attention}", "--out", out, "--beam", 2)
    assert found.status == 0, found.err
    assert "pairs more" in found.err
    return out


def test_each_pair_is_there_and_the_teachers_translation_where_it_is_another(toy: Toy, taught: Path) -> None:
    given = list(zip(lines(toy.corpus / "train.en"), lines(toy.corpus / "train.de"), strict=True))
    written = list(zip(lines(taught / "train.en"), lines(taught / "train.de"), strict=True))
    sources = [source for source, _ in given]
    own = [one.text for one in Translator.load(toy.attention, threads=1).adjusted(["search.beam=2"]).translate(sources)]
    expected = []
    for (source, target), translation in zip(given, own, strict=True):
        expected += [(source, target), (source, translation)] if translation != target else [(source, target)]
    assert written == expected
    assert len(given) < len(written) < 2 * len(given)
    for split in ("valid", "test"):
        for language in ("en", "de"):
            assert lines(taught / f"{split}.{language}") == lines(toy.corpus / f"{split}.{language}")


def test_sources_that_a_model_wrote_stand_beside_them(toy: Toy, back: Path, taught: Path, tmp_path: Path) -> None:
    out = tmp_path / "more"
    found = call("distill", toy.attention, "--back", back, "--out", out, "--beam", 2)
    assert found.status == 0, found.err
    written = list(zip(lines(out / "train.en"), lines(out / "train.de"), strict=True))
    targets = lines(toy.corpus / "train.de")
    sources = [one.text for one in Translator.load(back, threads=1).translate(targets)]
    for source, other, target in zip(lines(toy.corpus / "train.en"), sources, targets, strict=True):
        assert (other, target) in written or not other
        assert (source, target) in written
    assert len(written) > len(lines(taught / "train.en"))
    found = call("distill", toy.attention, "--back", toy.fixed, "--out", tmp_path / "wrong")
    assert found.status == 2
    assert "--back translates en to de" in found.error


def test_several_translations_of_each_line_are_taken(toy: Toy, back: Path, tmp_path: Path) -> None:
    out = tmp_path / "more"
    found = call("distill", toy.attention, "--back", back, "--out", out, "--beam", 3, "--nbest", 3)
    assert found.status == 0, found.err
    written = list(zip(lines(out / "train.en"), lines(out / "train.de"), strict=True))
    given = list(zip(lines(toy.corpus / "train.en"), lines(toy.corpus / "train.de"), strict=True))
    assert len(set(written)) == len(written) > 4 * len(given)  # 1 + 3 + 3 but for those that are the same
    source, target = given[0]
    best = Translator.load(toy.attention, threads=1).translate([source], nbest=3, settings=_beam(toy.attention, 3))[0]
    own = [one.text for one in (best, *best.alternatives) if one.text != target]
    assert [pair[1] for pair in written[1 : 1 + len(own)]] == own
    found = call("distill", toy.attention, "--out", tmp_path / "new", "--nbest", 2, "--set", "search.method=greedy")
    assert (found.status, "'greedy' finds one translation, not 2" in found.error) == (2, True)
    assert not any((tmp_path / "new").iterdir())  # so that the next try may take it


def test_a_student_trains_on_it(taught: Path, tmp_path: Path) -> None:
    student = recipe.load(taught / "student.yaml")
    assert student.name == "toy-student"
    assert student.data.path == str(taught)
    found = call("train", taught / "student.yaml", "--set", "training.epochs=1", "--out", tmp_path / "run")
    assert found.status == 0, found.err
    assert call("translate", tmp_path / "run", stdin=pairs(1)[0][0] + "\n").status == 0


def test_a_folder_that_is_there_is_left_alone(toy: Toy, taught: Path) -> None:
    found = call("distill", toy.attention, "--out", taught)
    assert found.status == 2
    assert "exists: choose another folder" in found.error


def test_without_its_corpus_a_teacher_cannot_teach(toy: Toy, tmp_path: Path) -> None:
    run = shutil.copytree(toy.attention, tmp_path / "run")
    saved = checkpoint.read(run)
    checkpoint.write_recipe(run, recipe.changed(saved.recipe, ["data.path=elsewhere"]))
    found = call("distill", run, "--out", tmp_path / "new")
    assert found.status == 1
    assert "elsewhere" in found.error
    assert not (tmp_path / "new").exists()


def test_the_generated_pair_becomes_plain_files(small_starter: None, toy_cache: Path, tmp_path: Path) -> None:
    tiny = ["training.epochs=1", "model.embed=16", "model.encoder.hidden=8", "model.decoder.hidden=16"]
    run = tmp_path / "run"
    assert call("train", "starter-en-de", "--out", run, *(f"--set={one}" for one in tiny)).status == 0
    found = call("distill", run, "--out", tmp_path / "taught", "--beam", 1, "--set", "search.max_extra=1")
    assert found.status == 0, found.err
    student = recipe.load(tmp_path / "taught" / "student.yaml")
    assert student.data.generator is None
    assert len(lines(tmp_path / "taught" / "test.de")) == 40
    assert call("data", tmp_path / "taught" / "student.yaml").status == 0
