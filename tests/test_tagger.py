"""A tag for every step: padding has no say, a word is its pieces, and bad words and moving dots are told apart."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from toy import WORDS, Children, Toy, call, kill_midway, pairs, write_lines

from nmt.errors import RecipeError
from nmt.recipe import parse_as
from nmt.shapes import frames, scores
from nmt.shapes.tagged import Example, words_of
from nmt.shapes.tagger import (
    NONE,
    Batch,
    Rows,
    Tagger,
    TaggerRecipe,
    around,
    build,
    hidden,
    load,
    probabilities,
    shares,
    tag,
)
from nmt.tokenizer import PAD, UNK, Tokenizer

SMALL: dict[str, Any] = {
    "task": "tagging",
    "data": {"path": "tagged", "text": "de", "source": "en", "gaps": True, "labels": ["OK", "BAD"]},
    "tokenizer": {"vocab_size": 48},
    "model": {"cell": "gru", "embed": 16, "hidden": 16, "attention": "general"}
    | {"dropout": {"embedding": 0.0, "layers": 0.0, "output": 0.0}},
    "training": {"epochs": 2, "batch_steps": 100, "learning_rate": 0.03, "warmup": 5, "ema": 0.9, "threads": 1}
    | {"precision": "float32", "device": "cpu"},
}
FRAMES: dict[str, Any] = {
    "data": {"generator": "frames"},
    "model": {"attention": "none", "upper": 0},
}
CPU = torch.device("cpu")


def recipe_of(content: Any = SMALL, **changes: Any) -> TaggerRecipe:
    merged = content | {key: content.get(key, {}) | value for key, value in changes.items()}
    return parse_as(TaggerRecipe, merged, "test")


def framed(**changes: Any) -> TaggerRecipe:
    content = SMALL | {"data": FRAMES["data"], "model": SMALL["model"] | FRAMES["model"]}
    return recipe_of(content, **changes)


def model_of(recipe: TaggerRecipe, vocab: int = 20) -> Tagger:
    torch.manual_seed(3)
    return build(recipe, vocab).eval()


def batch_of(lengths: Sequence[int], sources: Sequence[int], seed: int = 1) -> Batch:
    """Rows of random pieces; words of one and two pieces by turns, each with a tag."""
    draw = torch.Generator().manual_seed(seed)
    steps = torch.randint(4, 20, (len(lengths), max(lengths)), generator=draw)
    source = torch.randint(4, 20, (len(lengths), max(sources)), generator=draw)
    spelt: list[list[list[int]]] = []
    for row, length in enumerate(lengths):
        steps[row, length:], source[row, sources[row] :] = PAD, PAD
        ids = steps[row, :length].tolist()
        spelt.append([])
        while ids:
            spelt[-1].append([ids.pop(0) for _ in range(min(len(ids), 1 + len(spelt[-1]) % 2))])
    tags = torch.full((len(lengths), max(map(len, spelt))), NONE)
    for row, words in enumerate(spelt):
        tags[row, : len(words)] = torch.randint(0, 2, (len(words),), generator=draw)
    ends = torch.tensor(sources)
    return Batch(steps, torch.tensor(lengths), tags, shares(spelt, max(lengths), "mean"), source, ends)


def row_of(batch: Batch, row: int) -> Batch:
    """One row without its padding."""
    assert batch.words is not None
    assert batch.source is not None
    assert batch.source_lengths is not None
    length, words = int(batch.lengths[row]), int((batch.tags[row] != NONE).sum())
    return Batch(
        batch.steps[row : row + 1, :length],
        batch.lengths[row : row + 1],
        batch.tags[row : row + 1, :words],
        batch.words[row : row + 1, :words, :length],
        batch.source[row : row + 1, : int(batch.source_lengths[row])],
        batch.source_lengths[row : row + 1],
    )


# -- the network


@pytest.mark.parametrize("guess", [False, True])
@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_padding_changes_nothing(guess: bool, upper: int, cell: str) -> None:
    model = model_of(recipe_of(model={"guess": guess, "upper": upper, "cell": cell}))
    batch = batch_of([3, 9, 1], [7, 2, 4])
    logits, _ = model(batch)
    together, apart = model.loss(batch), [model.loss(row_of(batch, row)) for row in range(3)]
    for row in range(3):
        alone, _ = model(row_of(batch, row))
        torch.testing.assert_close(logits[row, : alone.size(1)], alone[0], rtol=1e-4, atol=1e-5)
    assert together.count == sum(one.count for one in apart)
    assert together.total.item() == pytest.approx(sum(one.total.item() for one in apart), rel=1e-4)


def test_padding_gets_no_gradient() -> None:
    model = model_of(recipe_of(model={"guess": True}))
    batch = batch_of([3, 9], [7, 2])
    model.loss(batch).total.backward()  # type: ignore[no-untyped-call]
    gradient = model.reader.embedding.weight.grad
    assert gradient is not None
    seen = {*batch.steps.flatten().tolist()}
    assert PAD in seen
    model = model_of(recipe_of(model={"guess": False}))
    model.loss(batch).total.backward()  # type: ignore[no-untyped-call]
    gradient = model.reader.embedding.weight.grad
    assert gradient is not None
    assert not gradient[PAD].any()
    assert all(gradient[piece].any() for piece in seen - {PAD})


def test_a_piece_is_guessed_without_being_seen() -> None:
    model = model_of(recipe_of(model={"guess": True}))
    batch = batch_of([8], [5])
    found = []
    for piece in range(20):  # all there are
        steps = batch.steps.clone()
        steps[0, 4] = piece
        found.append(model(replace(batch, steps=steps))[1][0])
    there = torch.stack(found).exp()  # (pieces, steps)
    assert there[:, 4].sum().item() == pytest.approx(1, rel=1e-4), "it is a distribution: the piece has no say in it"
    assert (there[:, [0, 3, 5, 7]].std(0) > 0).all(), "it has in those of all others"


def test_what_stands_around_the_first_and_the_last_step_is_nothing_beyond_the_ends() -> None:
    states = torch.randn(1, 3, 4)
    found = around(states)
    assert torch.equal(found[0, 0], torch.cat([torch.zeros(2), states[0, 1, 2:]]))
    assert torch.equal(found[0, 2], torch.cat([states[0, 1, :2], torch.zeros(2)]))


def test_one_direction_does_not_look_ahead() -> None:
    model = model_of(framed(model={"direction": "forward", "upper": 1}))
    seen = torch.randn(1, 9, frames.WIDTH)
    batch = Batch(seen, torch.tensor([9]), torch.zeros(1, 9, dtype=torch.long), None, None, None)
    before, _ = model(batch)
    later = seen.clone()
    later[:, 5:] += 1
    after, _ = model(replace(batch, steps=later))
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.equal(before[:, 5:], after[:, 5:])


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("first", [[1.0, 0, 0, 0], [0, 1.0, 0, 0]]),
        ("last", [[1.0, 0, 0, 0], [0, 0, 0, 1.0]]),
        ("mean", [[1, 0, 0, 0], [0, 1 / 3, 1 / 3, 1 / 3]]),
    ],
)
def test_a_word_is_its_first_its_last_or_all_its_pieces(kind: str, wanted: list[list[float]]) -> None:
    torch.testing.assert_close(shares([[[9], [5, 6, 7]]], 4, kind)[0], torch.tensor(wanted))


def test_dropped_pieces_are_unknown_and_padding_stays() -> None:
    torch.manual_seed(1)
    batch = batch_of([30, 60], [50, 20])
    dropped = hidden(batch, 0.5)
    for before, after in ((batch.steps, dropped.steps), (batch.source, dropped.source)):
        assert before is not None
        assert after is not None
        changed = before != after
        assert (after[changed] == UNK).all()
        assert 0.3 < float(changed[before != PAD].float().mean()) < 0.7
        assert not changed[before == PAD].any()


def test_thirty_two_examples_are_learnt_by_heart() -> None:
    recipe = recipe_of(model={"hidden": 32, "embed": 32})
    draw = random.Random(2)
    batch = batch_of([draw.randint(3, 8) for _ in range(32)], [draw.randint(3, 8) for _ in range(32)])
    torch.manual_seed(1)
    model = build(recipe, 20)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(80):
        loss = model.loss(batch)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    logits, _ = model.eval()(batch)
    real = batch.tags != NONE
    assert float((logits.argmax(2) == batch.tags)[real].float().mean()) > 0.98


# -- figures


def test_mcc_is_the_correlation_and_nothing_for_a_majority() -> None:
    draw = np.random.default_rng(1)
    gold, chosen = draw.integers(0, 2, 500), draw.integers(0, 2, 500)
    chosen[:200] = gold[:200]
    assert scores.mcc(scores.confusion(gold, chosen, 2)) == pytest.approx(np.corrcoef(gold, chosen)[0, 1])
    assert scores.mcc(scores.confusion(gold, np.zeros_like(gold), 2)) == 0
    three = draw.integers(0, 3, 500)
    assert scores.mcc(scores.confusion(three, three, 3)) == pytest.approx(1)
    assert scores.mcc(scores.confusion(three, (three + 1) % 3, 3)) < 0


def test_f1_is_the_mean_of_precision_and_recall() -> None:
    table = scores.confusion(np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 0, 0]), 2)
    found = scores.figures(table, ["OK", "BAD"])
    precision, recall = 1 / 2, 1 / 3
    assert found["F1 BAD"] == pytest.approx(100 * 2 * precision * recall / (precision + recall))
    assert found["accuracy"] == pytest.approx(50)


def test_the_threshold_is_the_best_of_all() -> None:
    draw = np.random.default_rng(2)
    gold = draw.integers(0, 2, 200)
    second = (0.3 * gold + draw.random(200)).round(1) / 2  # many are equal
    given = np.stack([1 - second, second], axis=1)

    def at(threshold: float) -> float:
        return scores.mcc(scores.confusion(gold, scores.choose(given, threshold), 2))

    best = scores.threshold(given, gold)
    assert best is not None
    assert at(best) == pytest.approx(max(at(other) for other in np.linspace(0, 1, 500)))
    assert scores.threshold(np.ones((4, 3)), gold[:4]) is None
    assert scores.threshold(given[:3], np.zeros(3, int)) is None, "nothing to tell apart"


# -- frames


def test_frames_are_drawn_alike_and_splits_are_not() -> None:
    (one, kinds), (two, _) = frames.draw("valid")[0], frames.draw("valid")[0]
    assert np.array_equal(one, two)
    assert not np.array_equal(one, frames.draw("test")[0][0])
    assert one.shape == (len(kinds), frames.WIDTH)
    assert len(set(kinds)) > 1, "the movement changes within a sequence"
    assert {kind for _, kinds in frames.draw("valid") for kind in kinds} == set(range(len(frames.KINDS)))


def test_a_movement_goes_where_its_name_says() -> None:
    across: dict[int, list[float]] = {kind: [] for kind in range(len(frames.KINDS))}
    for seen, kinds in frames.draw("valid"):
        steps = np.diff(seen[:, 0])
        for step, kind in zip(steps, kinds[1:], strict=True):
            across[kind].append(float(step))
    still, left, right, circling = (np.mean(across[kind]) for kind in range(4))
    assert left == pytest.approx(-frames.STEP, abs=0.02)
    assert right == pytest.approx(frames.STEP, abs=0.02)
    assert abs(still) < 0.02
    assert abs(circling) < 0.03


# -- the whole way


def write_tagged(folder: Path) -> None:
    """Toy translations in which some words are those of another word, with the tags that say so."""
    draw = random.Random(5)
    rows = pairs(260)
    for split, part in (("train", rows[60:]), ("valid", rows[:20]), ("test", rows[20:60])):
        texts, tags = [], []
        for _, target in part:
            words, marks = target.split(), ["OK"]
            for at, word in enumerate(words):
                bad = draw.random() < 0.3
                words[at] = draw.choice([other for other in WORDS.values() if other != word]) if bad else word
                marks += ["BAD" if bad else "OK", "OK"]
            texts.append(" ".join(words))
            tags.append(" ".join(marks))
        write_lines(folder / f"{split}.en", [source for source, _ in part])
        write_lines(folder / f"{split}.de", texts)
        write_lines(folder / f"{split}.tags", tags)


@pytest.fixture
def tagging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe with its corpus, in the folder of the test."""
    monkeypatch.chdir(tmp_path)
    write_tagged(tmp_path / "tagged")
    path = tmp_path / "tags.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


def test_it_is_trained_evaluated_and_tags(tagging: Path) -> None:
    done = call(
        "train", tagging, "--set", "training.epochs=12", "--set", "model.attention=dot", "--set", "model.guess=true"
    )
    assert done.status == 0, done.err
    assert "200 rows of" in done.err
    result = json.loads(call("evaluate", "runs/tags", "--json").out)
    always, alone = result["baselines"].values()
    assert always["mcc"] == 0
    assert result["figures"]["mcc"] > alone["mcc"] + 20
    assert result["figures"]["rows"] == 40
    assert json.loads(Path("runs/tags/evaluation.json").read_text()) == result
    assert "F1 BAD" in call("evaluate", "runs/tags").out

    sources, texts = (Path(f"tagged/test.{side}").read_text().splitlines() for side in ("en", "de"))
    files = call("tag", "runs/tags", "tagged/test.en", "tagged/test.de")
    piped = "".join(f"{source}\t{text}\n" for source, text in zip(sources, texts, strict=True))
    assert call("tag", "runs/tags", stdin=piped).out == files.out
    tags = [line.split() for line in files.out.splitlines()]
    assert [len(line) for line in tags] == [len(text.split()) for text in texts]
    gold = [line.split()[1::2] for line in Path("tagged/test.tags").read_text().splitlines()]
    right = [one == two for line, want in zip(tags, gold, strict=True) for one, two in zip(line, want, strict=True)]
    assert 100 * np.mean(right) == pytest.approx(result["figures"]["accuracy"])
    assert call("tag", "runs/tags", stdin="kala\t\nkala\tfisch\n").out.count("\n") == 2, "an empty line stays one"


def test_a_resumed_run_is_one_that_never_stopped(tagging: Path, children: Children) -> None:
    changes = ["training.epochs=3", "training.checkpoint_minutes=0", "training.word_dropout=0.1"]
    changes += ["training.batch_steps=150", "model.guess=true", "model.dropout.embedding=0.2"]
    options = [part for change in changes for part in ("--set", change)]
    assert call("train", tagging, *options, "--out", "whole").status == 0
    child = children.start("train", tagging, *options, "--out", "broken")
    kill_midway(child, Path("broken"))
    assert call("train", tagging, *options, "--out", "broken", "--resume").status == 0
    assert Path("broken/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


@pytest.mark.parametrize("split", ["train", "valid"])
@pytest.mark.parametrize("suffix", ["de", "tags"])
def test_a_run_does_not_go_on_with_another_corpus_of_the_same_size(tagging: Path, split: str, suffix: str) -> None:
    assert call("train", tagging, "--set", "training.epochs=1").status == 0
    file = Path(f"tagged/{split}.{suffix}")
    lines = [" ".join(reversed(line.split())) for line in file.read_text().splitlines()]
    file.write_text("".join(f"{line}\n" for line in lines))
    done = call("train", tagging, "--set", "training.epochs=2", "--resume")
    assert done.status == 2
    assert f"its corpus is not what it was when training began (text of {split} " in done.error


def test_one_tag_alone_is_not_learnt(tagging: Path) -> None:
    for split in ("train", "valid"):
        file = Path(f"tagged/{split}.tags")
        text = file.read_text()
        file.write_text(text.replace("BAD", "OK"))
        done = call("train", tagging, "--set", "training.epochs=1")
        if split == "train":
            assert done.status == 1
            assert "data.train: every tag is 'OK': a tagger needs two tags or more" in done.error
        file.write_text(text)
    assert done.status == 0, done.err
    assert call("evaluate", "runs/tags").status == 0


def test_words_without_a_source_are_tagged_from_lines_as_they_are(tagging: Path) -> None:
    changes = ("data.source=null", "model.attention=none", "tokenizer.vocab_size=36", "training.epochs=1")
    done = call("train", tagging, *(part for change in changes for part in ("--set", change)))
    assert done.status == 0, done.err
    out = call("tag", "runs/tags", stdin="fisch und baum\nhaus\n").out
    assert [len(line.split()) for line in out.splitlines()] == [3, 1]
    assert call("tag", "runs/tags", "tagged/test.de").out.count("\n") == 40


def test_frames_are_tagged(tagging: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "COUNTS", {"train": 200, "valid": 30, "test": 50})
    content = SMALL | FRAMES | {"model": SMALL["model"] | FRAMES["model"]}
    del content["tokenizer"]
    changes = {"epochs": 4, "batch_steps": 1280, "metric": "accuracy"}
    Path("frames.yaml").write_text(yaml.safe_dump(content | {"training": SMALL["training"] | changes}))
    done = call("train", "frames.yaml")
    assert done.status == 0, done.err
    result = json.loads(call("evaluate", "runs/frames", "--json").out)
    always, alone = result["baselines"].values()
    assert result["figures"]["accuracy"] > alone["accuracy"] + 10 > always["accuracy"] + 10
    seen = frames.draw("test")[0][0]
    line = " ".join(f"{x},{y}" for x, y in seen.tolist())
    assert call("tag", "runs/frames", stdin=f"{line}\n").out.split() == next(
        iter(tag(load(Path("runs/frames")), [("", line)]))
    )
    assert "line 2: write each frame as 2 numbers" in call("tag", "runs/frames", stdin="0,0\n0,x\n").error
    assert "line 1: write each frame as 2 numbers" in call("tag", "runs/frames", stdin="0,1e39\n").err
    assert "vocabulary" not in call("info", "runs/frames").out


def test_rows_are_given_back_in_their_order(toy: Toy) -> None:
    pieces = Tokenizer.load(toy.attention / "target.model")
    model = model_of(recipe_of(), pieces.vocab)
    examples = [Example(target.split(), None, source, []) for source, target in pairs(9)]
    found = probabilities(model, Rows(examples, pieces, "mean", CPU), together=40)
    for one, given in zip(examples, found, strict=True):
        (alone,) = probabilities(model, Rows([one], pieces, "mean", CPU))
        np.testing.assert_allclose(given, alone, rtol=1e-4)


def test_a_long_row_is_tagged_alone(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = Tokenizer.load(toy.attention / "target.model")
    texts = ["kala", "kala juo " * 40, *["juo"] * 30]
    rows = Rows([Example(text.split(), None, "", []) for text in texts], pieces, "mean", CPU)
    sizes = []
    own = rows.batch

    def batch(chosen: Sequence[int]) -> Batch:
        found = own(chosen)
        sizes.append(tuple(found.steps.shape))
        return found

    monkeypatch.setattr(rows, "batch", batch)
    probabilities(model_of(recipe_of(), pieces.vocab), rows, together=60)
    assert sum(count for count, _ in sizes) == 32
    assert sizes[0][0] == 1
    assert all(count * steps <= 60 for count, steps in sizes[1:])


def test_a_space_ends_a_word_and_one_that_does_not_break_is_a_letter() -> None:
    assert words_of("er zahlt 10\u00a0000 Euro\t. ") == ["er", "zahlt", "10\u00a0000", "Euro", "."]


# -- what is wrong is said


@pytest.mark.parametrize(
    ("file", "lines", "message"),
    [
        ("train.tags", ["OK"], "train.tags: 1 lines, train.de has 200"),
        ("train.en", ["OK"], "train.en: 1 lines, train.de has 200"),
        ("valid.tags", ["OK OK"] * 20, "valid.tags: line 1: 2 tags for"),
        ("valid.de", [""] * 20, "valid.tags: line 1: "),
    ],
)
def test_files_that_do_not_go_together_are_refused(file: str, lines: list[str], message: str, tagging: Path) -> None:
    write_lines(Path("tagged") / file, lines)
    done = call("train", tagging)
    assert done.status == 1
    assert message in done.error


def test_an_unknown_tag_is_named_with_its_line(tagging: Path) -> None:
    path = Path("tagged/train.tags")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], lines[2].replace("OK", "FINE"), *lines[3:]]) + "\n")
    assert "train.tags: line 3: unknown tag 'FINE': data.labels has OK, BAD" in call("train", tagging).error


def test_tags_of_gaps_are_hinted_at(tagging: Path) -> None:
    error = call("train", tagging, "--set", "data.gaps=false").error
    assert "train.tags: line 1" in error
    assert "data.gaps to true" in error


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"attention": "none"}}, "set both or neither"),
        ({"data": {"source": None}}, "set both or neither"),
        ({"data": {"generator": "frames"}}, "a path or a generator"),
        ({"data": {"labels": ["OK", "OK"]}}, "a tag twice"),
        ({"model": {"guess": True, "layers": 2}}, "model.guess needs pieces"),
        ({"model": {"guess": True, "direction": "forward"}}, "model.guess needs pieces"),
        ({"model": {"hiden": 3}}, "did you mean 'hidden'"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe_of(**changes)
    with pytest.raises(RecipeError, match=r"training\.word_dropout is for pieces"):
        framed(training={"word_dropout": 0.1})


def test_what_cannot_be_tagged_is_said(tagging: Path, toy: Toy) -> None:
    assert call("train", tagging, "--set", "training.epochs=1").status == 0
    assert "standard input: line 2: write source, a tab" in call("tag", "runs/tags", stdin="a\tb\na b\n").error
    assert "tags two files, source and translation, not 1" in call("tag", "runs/tags", "tagged/test.de").error
    write_lines(Path("short"), ["kala"])
    assert "short" in call("tag", "runs/tags", "short", "tagged/test.de").error
    assert "nothing to change" in call("evaluate", "runs/tags", "--set", "search.beam=3").error
    assert "--beam: runs/tags chooses without a search" in call("evaluate", "runs/tags", "--beam", "3").error
    assert "a model for translation, not for tagging" in call("tag", toy.fixed).error
    assert "a model for tagging, not for translation" in call("translate", "runs/tags", stdin="x\n").error
