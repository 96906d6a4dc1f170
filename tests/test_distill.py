"""A corpus to teach with: the pairs that were given, the teacher's own beside them, and a recipe that trains on it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pytest
from toy import Toy, call, pairs

from nmt import checkpoint, disk, distill, material, recipe
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
    assert recipe.load(out / "student.yaml").search == checkpoint.read(toy.attention).recipe.search, (
        "not of this search"
    )
    source, target = given[0]
    best = Translator.load(toy.attention, threads=1).translate([source], nbest=3, settings=_beam(toy.attention, 3))[0]
    own = [one.text for one in (best, *best.alternatives) if one.text != target]
    assert [pair[1] for pair in written[1 : 1 + len(own)]] == own
    found = call("distill", toy.attention, "--out", tmp_path / "new", "--nbest", 2, "--set", "search.method=greedy")
    assert (found.status, "'greedy' finds one translation, not 2" in found.error) == (2, True)
    assert not (tmp_path / "new").exists()


def test_what_was_stopped_goes_on(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = ["distill", toy.attention, "--beam", 2, "--nbest", 2, "--out"]
    assert call(*ask, tmp_path / "whole").status == 0
    out, stopped = tmp_path / "out", 100
    real = distill._made

    def made(translator: Translator, lines: Iterable[str], nbest: int) -> Iterator[list[str]]:
        yield from islice(real(translator, lines, nbest), stopped)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(distill, "_made", made)
    found = call(*ask, out)
    assert (found.status, "No space left on device: run it again to go on" in found.error) == (1, True)
    assert [one.name for one in out.iterdir()] == ["made.jsonl"]
    kept = (out / "made.jsonl").read_bytes()
    assert kept.count(b"\n") == 1 + stopped
    (out / "made.jsonl").write_bytes(kept[:-20])  # as a crash leaves it

    for other in (["--nbest", 1], ["--set", "search.length_penalty=0.3"]):
        found = call("distill", toy.attention, "--beam", 2, "--nbest", 2, *other, "--out", out)
        assert (found.status, "begun with other models or settings" in found.error) == (2, True)

    seen: list[str] = []

    def watched(translator: Translator, lines: Iterable[str], nbest: int) -> Iterator[list[str]]:
        given = list(lines)
        seen.extend(given)
        return real(translator, given, nbest)

    monkeypatch.setattr(distill, "_made", watched)
    found = call(*ask, out)
    assert found.status == 0, found.err
    assert seen == lines(toy.corpus / "train.en")[stopped - 1 :]
    assert sorted(one.name for one in out.iterdir()) == sorted(one.name for one in (tmp_path / "whole").iterdir())
    for language in ("en", "de"):
        assert lines(out / f"train.{language}") == lines(tmp_path / "whole" / f"train.{language}")


def test_a_corpus_that_changed_is_not_gone_on_with(toy: Toy, tmp_path: Path) -> None:
    one = Translator.load(toy.attention, threads=1).adjusted(["search.examples=0"])
    head = {"models": [[one.members[0].stamp]], "search": [one.settings.model_dump(mode="json")], "nbest": 1}
    rows = [head, ["no such source", "no such target", [], []]]
    (tmp_path / "made.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    found = call("distill", toy.attention, "--out", tmp_path)
    assert (found.status, "other pairs than the teacher's corpus" in found.error) == (2, True)


def test_what_was_held_out_of_the_teachers_pairs_is_held_out_of_the_students(toy: Toy, tmp_path: Path) -> None:
    teacher, out = Path(shutil.copytree(toy.attention, tmp_path / "teacher")), tmp_path / "taught"
    held = recipe.changed(checkpoint.read(teacher).recipe, ["data.hold_out=5"])
    checkpoint.write_recipe(teacher, held)
    assert call("distill", teacher, "--out", out, "--set", "search.method=greedy").status == 0
    student = recipe.load(out / "student.yaml").data
    for split in ("train", "valid", "test"):
        given = material.load_split(held.data, split)
        own = material.load_split(student, split)
        if split == "train":
            assert set(given.source) == set(own.source)
        else:
            assert (given.source[:], given.target[:]) == (own.source[:], own.target[:])


def test_a_student_trains_on_it(taught: Path, tmp_path: Path) -> None:
    student = recipe.load(taught / "student.yaml")
    assert student.name == "toy-student"
    assert student.data.path == str(taught)
    found = call("train", taught / "student.yaml", "--set", "training.epochs=1", "--out", tmp_path / "run")
    assert found.status == 0, found.err
    assert call("translate", tmp_path / "run", stdin=pairs(1)[0][0] + "\n").status == 0


def test_the_student_of_a_tuned_one_trains_as_what_was_tuned(toy: Toy, tmp_path: Path) -> None:
    new = tmp_path / "new.tsv"
    new.write_text("".join(f"{source}\t{target}\n" for source, target in [("en", "de"), *pairs(3, seed=5)]))
    tuned = tmp_path / "tuned"
    assert call("tune", toy.attention, new, "--out", tuned).status == 0
    found = call("distill", tuned, "--out", tmp_path / "it's: # taught", "--set", "search.method=greedy")
    assert found.status == 0, found.err
    student, first = recipe.load(tmp_path / "it's: # taught" / "student.yaml"), checkpoint.read(toy.attention).recipe
    assert student.data.path == str(tmp_path / "it's: # taught")
    assert (student.training, student.model) == (first.training, first.model)
    assert student.name == "toy-student"
    assert student.data.drop_duplicates
    assert not student.data.extra
    made = (tmp_path / "it's: # taught" / "train.en").read_text().splitlines()
    given = (toy.corpus / "train.en").read_text().splitlines()
    assert set(made) == {*given, *(source for source, _ in pairs(3, seed=5))}, "not only what was drawn"


def test_the_student_of_a_tuned_one_needs_what_was_tuned(toy: Toy, tmp_path: Path) -> None:
    new = tmp_path / "new.tsv"
    new.write_text("en\tde\nkala\tfisch\n")
    first = shutil.copytree(toy.attention, tmp_path / "first")
    assert call("tune", first, new, "--out", tmp_path / "tuned").status == 0
    shutil.rmtree(first)
    found = call("distill", tmp_path / "tuned", "--out", tmp_path / "out")
    assert "the student is trained as the teacher was before it was tuned, but " in found.error
    assert f"{first}: no such model folder" in found.error
    assert not (tmp_path / "out").exists()


def test_another_teacher_does_not_go_on_with_what_one_began(toy: Toy, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(toy.attention, tmp_path / "copy"))
    one, other = (Translator.load(folder, threads=1).members[0].stamp for folder in (toy.attention, copy))
    assert one == other
    info = checkpoint.read_json(copy / checkpoint.INFO)
    disk.write_json(copy / checkpoint.INFO, info | {"seconds": info["seconds"] + 1})
    assert Translator.load(copy, threads=1).members[0].stamp != one
    out = tmp_path / "out"
    head = {"models": [[one]], "search": [checkpoint.read(copy).recipe.search.model_dump(mode="json")], "nbest": 1}
    out.mkdir()
    (out / "made.jsonl").write_text(json.dumps(head) + "\n")
    found = call("distill", copy, "--out", out)
    assert (found.status, "begun with other models or settings" in found.error) == (2, True)


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
