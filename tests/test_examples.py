"""Examples: which pairs are looked at, what they say, and that search, scores and the command line look at them."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import Toy, call, pairs, write_lines

from nmt import checkpoint, examples
from nmt.engine import Native, Reminded, Reminding
from nmt.errors import CheckpointError
from nmt.examples import COMPONENTS, FILE, LIKENESS, TEMPERATURE, Compressed, Examples, Index, count, stamped
from nmt.recipe import changed
from nmt.translate import SHORTEST, Translator

VOCAB, WIDTH = 20, 12


def _sources(count: int = 30) -> list[list[int]]:
    draw = np.random.default_rng(3)
    return [draw.integers(3, VOCAB, draw.integers(1, 8)).tolist() for _ in range(count)]


def _index(sources: list[list[int]]) -> Index:
    return Index(np.array(list(chain(*sources)), np.int32), np.array(list(map(len, sources)), np.int32))


def _examples(sources: list[list[int]]) -> Examples:
    sizes = [1 + number % 4 for number in range(len(sources))]
    features = torch.randn(sum(sizes), WIDTH).tanh()
    of = Compressed(features)
    return Examples(
        of(features),
        torch.randint(2, VOCAB, (sum(sizes),), dtype=torch.int32),
        torch.tensor(sizes, dtype=torch.int32),
        torch.tensor(list(chain(*sources)), dtype=torch.int32),
        torch.tensor(list(map(len, sources)), dtype=torch.int32),
        of.basis,
        of.step,
        of.variance,
        stamped("one"),
    )


# ---- Which pairs -----------------------------------------------------------------------------------------------------


def _cosine(one: list[int], other: list[int], sources: list[list[int]]) -> float:
    have = Counter(piece for source in sources for piece in set(source))
    weight = {piece: math.log(len(sources) / have[piece]) for piece in have}
    norms = [math.sqrt(sum(weight.get(piece, 0) ** 2 for piece in set(side))) for side in (one, other)]
    return sum(weight[piece] ** 2 for piece in set(one) & set(other)) / (norms[0] * norms[1])


def test_likest_are_those_with_the_largest_cosine() -> None:
    sources = _sources()
    query = [*sources[7][:3], 11, VOCAB + 5]  # a piece that no source has counts for nothing
    best, alike = _index(sources).likest(query, 6)
    known = [piece for piece in query if piece < VOCAB]
    expected = np.array([_cosine(known, source, sources) for source in sources])
    assert sorted(expected[best]) == pytest.approx(sorted(expected)[-6:], abs=1e-6)
    assert alike == pytest.approx(expected[best], abs=1e-6)


def test_a_source_is_most_like_itself_and_all_are_taken_where_there_are_few() -> None:
    sources = _sources(8)
    index = _index(sources)
    for number, source in enumerate(sources):
        best, alike = index.likest(source, 1)
        assert set(sources[best[0]]) == set(sources[number])
        assert alike == pytest.approx(1)
    assert sorted(index.likest(sources[0], 100)[0]) == list(range(8))
    assert index.likest([], 3)[1] == pytest.approx(0)


# ---- Keys, and what they say -----------------------------------------------------------------------------------------


def test_keys_keep_the_largest_components() -> None:
    plane = torch.randn(500, 3) @ torch.randn(3, WIDTH)
    of = Compressed(plane)
    assert of.basis.shape == (WIDTH, min(WIDTH, COMPONENTS))
    torch.testing.assert_close(of.basis.t() @ of.basis, torch.eye(WIDTH), atol=1e-5, rtol=0)
    torch.testing.assert_close(of.variance, plane.var(0, correction=0).sum(), rtol=1e-4, atol=0)
    keys = of(plane)
    assert keys.dtype == torch.int8
    assert not keys[:, 3:].any()
    torch.testing.assert_close(keys * of.step @ of.basis.t(), plane, atol=2 * of.step.item(), rtol=0)


def test_examples_say_what_their_equation_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "PAIRS", 5)
    sources = _sources()
    some = _examples(sources)
    asked = [sources[2], sources[9]]
    features = torch.randn(6, WIDTH).tanh()  # three hypotheses of each
    said = some.said(features, [some.near(source, torch.device("cpu")) for source in asked], VOCAB)
    torch.testing.assert_close(said.sum(1), torch.ones(6))

    owner = np.repeat(np.arange(len(sources)), some.sizes.numpy())
    for row in range(6):
        best, alike = some.index.likest(asked[row // 3], 5)
        query = features[row] @ some.basis
        expected = torch.zeros(VOCAB)
        scores = {}
        for place, pair in enumerate(owner.tolist()):
            if pair in best:
                apart = (query - some.keys[place] * some.step).square().sum() / (TEMPERATURE * some.variance)
                scores[place] = LIKENESS * alike[best.tolist().index(pair)] - apart.item()
        for place, share in zip(scores, torch.tensor(list(scores.values())).softmax(0), strict=True):
            expected[some.pieces[place]] += share
        torch.testing.assert_close(said[row], expected, atol=1e-5, rtol=1e-3)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    assert Examples.read(tmp_path, "one") is None
    some = _examples(_sources())
    some.write(tmp_path)
    found = Examples.read(tmp_path, "one")
    assert found is not None
    assert len(found) == 30
    for name, value in vars(some).items():
        assert torch.equal(value, getattr(found, name)), name


def test_examples_of_another_model_are_refused(tmp_path: Path) -> None:
    _examples(_sources()).write(tmp_path)
    with pytest.raises(CheckpointError, match=r"by another model.*nmt remember"):
        Examples.read(tmp_path, "two")
    (tmp_path / FILE).write_bytes(b"nonsense")
    for read in (lambda: Examples.read(tmp_path, "one"), lambda: count(tmp_path)):
        with pytest.raises(CheckpointError, match="not a safetensors file"):
            read()


# ---- A translator that looks at them ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reminded(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reminded") / "run"
    shutil.copytree(toy.attention, folder)
    found = call("remember", folder)
    assert found.status == 0, found.err
    assert "200 pairs" in found.err
    return folder


def _sentences(count: int = 20) -> list[tuple[str, str]]:
    return pairs(count, seed=5)


def test_every_pair_of_the_recipe_is_there(toy: Toy, reminded: Path) -> None:
    member = Translator.load(reminded, threads=1).members[0]
    some = member.examples
    assert some is not None
    found = set()
    pieces = some.pieces.split(some.sizes.tolist())
    for source, target in zip(some.sources.split(some.source_sizes.tolist()), pieces, strict=True):
        found.add((member.source.decode([source.tolist()])[0], member.target.decode([target[:-1].tolist()])[0]))
    texts = [(toy.corpus / f"train.{language}").read_text().splitlines() for language in ("en", "de")]
    assert found == set(zip(*texts, strict=True))


def test_a_model_says_how_many_pairs_it_remembers(toy: Toy, reminded: Path) -> None:
    assert (count(toy.attention), count(reminded)) == (0, 200)
    assert "remembers" not in call("info", toy.attention).out
    assert "remembers    200 pairs" in call("info", reminded).out


def test_without_a_share_all_is_as_before(toy: Toy, reminded: Path) -> None:
    sources = [source for source, _ in _sentences()]
    plain = Translator.load(toy.attention, threads=1)
    other = Translator.load(reminded, threads=1)
    assert isinstance(other.engines[0], Reminding)
    assert isinstance(other.adjusted(["search.examples=0"]).engines[0], Native)
    expected = plain.translate(sources)
    assert other.adjusted(["search.examples=0"]).translate(sources) == expected
    nearly = other.adjusted(["search.examples=1e-9", "search.examples_penalty=0"]).translate(sources)
    assert [one.text for one in nearly] == [one.text for one in expected]
    assert other.translate(sources) != expected


@pytest.mark.parametrize("beam", [1, 3])
def test_what_search_finds_has_the_score_that_forced_decoding_gives(reminded: Path, beam: int) -> None:
    translator = Translator.load(reminded, threads=1).adjusted([f"search.beam={beam}"])
    sources = [source for source, _ in _sentences()]
    found = translator.translate(sources)
    together = {one.text: one.log_probs for one in found}
    assert {
        one.text: pytest.approx(one.log_probs, abs=1e-4) for source in sources for one in translator.translate([source])
    } == together
    for one, scored in zip(found, translator.score(sources, [one.text for one in found]), strict=True):
        if scored.tokens == one.tokens:  # else the text has other pieces than were written
            assert one.log_probs == pytest.approx(scored.log_probs, abs=1e-3)


def test_the_length_penalty_is_larger_with_examples(toy: Toy, reminded: Path) -> None:
    for run, changes, penalty in (
        (reminded, ["search.length_penalty=1.5", "search.examples_penalty=0.25"], 1.75),
        (reminded, ["search.length_penalty=1.5", "search.examples=0"], 1.5),
        (toy.attention, ["search.length_penalty=1.5"], 1.5),
        (f"{toy.attention}+{reminded}", ["search.length_penalty=1.5", "search.examples_penalty=0.25"], 1.75),
    ):
        assert Translator.load(run, threads=1).adjusted(changes).settings.length_penalty == penalty


def test_many_short_lines_are_not_looked_at_all_at_once(reminded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is seen of each takes memory however short it is: so a list of words is searched in parts."""
    together: list[int] = []
    begin = Reminding.start

    def start(self: Reminding, source: torch.Tensor, lengths: torch.Tensor) -> Reminded:
        together.append(len(source))
        return begin(self, source, lengths)

    monkeypatch.setattr(Reminding, "start", start)
    translator = Translator.load(reminded, threads=1, changes=["search.method=greedy", "search.batch_tokens=100"])
    words = ["kala", "iso", "juo"] * 20
    assert len(translator.translate(words)) == len(words)
    assert sum(together) == len(words)
    assert max(together) <= 100 // SHORTEST


def test_an_ensemble_may_have_members_that_look_and_members_that_do_not(toy: Toy, reminded: Path) -> None:
    both = Translator.load(f"{toy.attention}+{reminded}", threads=1)
    sources, targets = zip(*_sentences(6), strict=True)
    one, other = (Translator.load(run, threads=1).score(sources, targets) for run in (toy.attention, reminded))
    for mixed, first, second in zip(both.score(sources, targets), one, other, strict=True):
        mean = [
            math.log((math.exp(a) + math.exp(b)) / 2) for a, b in zip(first.log_probs, second.log_probs, strict=True)
        ]
        assert mixed.log_probs == pytest.approx(mean, abs=1e-4)
    assert all(one.text for one in both.translate(sources))


def test_a_correction_has_a_say_without_training(reminded: Path, tmp_path: Path) -> None:
    source, wanted = "kala juo nyt talo", "jetzt fisch katze katze"  # no model of this corpus says that
    shutil.copytree(reminded, folder := tmp_path / "run")

    def likely() -> float:
        return Translator.load(folder, threads=1).score([source], [wanted])[0].log_prob

    before = likely()
    file = write_lines(tmp_path / "corrections.tsv", ["en\tde", *[f"{source}\t{wanted}"] * 2])
    found = call("remember", folder, file)
    assert found.status == 0, found.err
    assert "201 pairs" in found.err
    assert likely() > before + 3
    assert call("remember", folder).status == 0  # afresh
    assert likely() == pytest.approx(before, abs=1e-4)


def test_a_tuned_model_reads_what_it_knew_before(toy: Toy, tmp_path: Path) -> None:
    files = []
    for number, name in enumerate(("first", "then", "read")):
        file = write_lines(tmp_path / f"{name}.tsv", ["en\tde", *map("\t".join, pairs(4 + number, seed=50 + number))])
        files.append(file)
    once, again = tmp_path / "once", tmp_path / "again"
    assert call("tune", toy.attention, files[0], "--out", once).status == 0
    assert call("tune", once, files[1], "--out", again).status == 0
    found = call("remember", again, files[2])
    assert found.status == 0, found.err
    texts = [(toy.corpus / f"train.{language}").read_text().splitlines() for language in ("en", "de")]
    own = set(zip(*texts, strict=True)).union(*(pairs(4 + number, seed=50 + number) for number in range(3)))
    assert f"{len(own)} pairs" in found.err
    assert examples.files(again) == [str(files[2])]
    shutil.rmtree(once)
    found = call("remember", again)
    assert found.status == 0, found.err
    assert f"{len(own - set(pairs(6, seed=52)))} pairs" in found.err, "it knows them without the run that it comes from"
    assert "nowhere.tsv': looked for" in call("remember", again, "nowhere.tsv").error


def test_a_model_trained_on_has_to_read_again(reminded: Path, tmp_path: Path) -> None:
    shutil.copytree(reminded, folder := tmp_path / "run")
    epochs = checkpoint.read(folder).recipe.training.epochs
    on = call("train", folder / "recipe.yaml", "--out", folder, "--resume", "--set", f"training.epochs={epochs + 1}")
    assert on.status == 0, on.err
    failed = call("translate", folder, stdin="kala juo\n")
    assert failed.status == 1
    assert f"nmt remember {folder}" in failed.error
    assert call("translate", folder, "--set", "search.examples=0", stdin="kala juo\n").status == 0
    assert call("export", folder, "--out", tmp_path / "small").status == 0
    new = write_lines(tmp_path / "new.tsv", ["en\tde", "kala\tfisch"])
    refused = call("tune", folder, new, "--out", tmp_path / "tuned")
    assert f"nmt remember {folder}" in refused.error
    assert not (tmp_path / "tuned").exists(), "said before the long work"
    assert call("remember", folder).status == 0
    assert call("translate", folder, stdin="kala juo\n").status == 0


def test_what_remembers_remembers_when_it_was_tuned(reminded: Path, tmp_path: Path) -> None:
    new = write_lines(tmp_path / "new.tsv", ["en\tde", "kala juo nyt talo\tjetzt fisch katze katze"])
    read = write_lines(tmp_path / "read.tsv", ["en\tde", "kala kala nyt puu\tbaum baum jetzt katze"])
    shutil.copytree(reminded, folder := tmp_path / "run")
    assert call("remember", folder, read).status == 0
    result = call("tune", folder, new, "--out", tmp_path / "tuned")
    assert result.status == 0, result.err
    assert "202 pairs, " in result.err
    assert count(tmp_path / "tuned") == 202
    assert examples.files(tmp_path / "tuned") == [str(read)], "also what it was shown"
    read.unlink()
    result = call("tune", folder, new, "--out", tmp_path / "again")
    assert result.status == 0, result.err
    assert f"warning: {read} is gone, which {folder} was shown" in result.err
    assert "201 pairs, " in result.err


def test_reading_for_nothing_is_told(toy: Toy, tmp_path: Path) -> None:
    shutil.copytree(toy.attention, folder := tmp_path / "run")
    assert "search.examples=0" not in call("remember", folder).err
    checkpoint.write_recipe(folder, changed(checkpoint.read(folder).recipe, ["search.examples=0"]))
    assert f"warning: {folder}: its recipe has search.examples=0" in call("remember", folder).err


def test_a_test_set_that_is_remembered_is_told(toy: Toy, tmp_path: Path) -> None:
    shutil.copytree(toy.attention, folder := tmp_path / "run")
    sides = [(toy.corpus / f"test.{language}").read_text().splitlines() for language in ("en", "de")]
    seen = write_lines(tmp_path / "seen.tsv", ["en\tde", *map("\t".join, zip(*sides, strict=True))])
    assert "its scores flatter" not in call("remember", folder).err
    assert "warning: test has 40 pairs; the source of 40 occurs in train" in call("remember", folder, seen).err


def test_a_student_is_not_shown_the_answers(toy: Toy, back: Path, reminded: Path, tmp_path: Path) -> None:
    """The teacher translates what it has read: looking there it would copy."""
    shutil.copytree(back, judge := tmp_path / "back")
    assert call("remember", judge).status == 0
    made = []
    for teacher, other in ((toy.attention, back), (reminded, judge)):
        out = tmp_path / f"by {teacher.parent.name}"
        found = call("distill", teacher, "--back", other, "--out", out, "--set", f"search.reverse={other}")
        assert found.status == 0, found.err
        made.append([(out / f"train.{language}").read_text() for language in ("en", "de")])
    assert made[0] == made[1]


def test_what_cannot_remember_says_so(toy: Toy, tmp_path: Path) -> None:
    assert call("export", toy.attention, "--out", out := tmp_path / "small").status == 0
    assert "an exported translator" in call("remember", out).error
    assert "no such model folder" in call("remember", tmp_path / "nothing").error
    shutil.copytree(toy.attention, folder := tmp_path / "run")
    assert "missing.tsv" in call("remember", folder, tmp_path / "missing.tsv").error
    assert not (folder / FILE).exists()
