"""The encoder alone: a line is pooled to one vector, a class is learnt and told, and figures are what they say."""

from __future__ import annotations

import itertools
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from toy import Children, call, kill_midway, write_lines, write_recipe

from nmt.attention import Dot
from nmt.cells import Embedding
from nmt.errors import CheckpointError, DataError
from nmt.recipe import load_as, parse_as
from nmt.shapes import bag
from nmt.shapes.classifier import (
    Classifier,
    ClassifierRecipe,
    Committee,
    Labelled,
    LabelledLines,
    Lines,
    build,
    confusion,
    encoded,
    figures,
    files_of,
    known_vocabulary,
    labels_of,
    log_probs,
    padded,
    read,
)
from nmt.shapes.words import Spelled, Spelling, Words, dropped, spelled
from nmt.tokenizer import EOS, UNK

REAL = Path(os.environ.get("NMT_DATA") or "nowhere")
POOLINGS = ["last", "mean", "max", "attention"]
SMALL: dict[str, Any] = {
    "task": "classification",
    "data": {"path": "films"},
    "tokenizer": {"least": 1},
    "model": {"embed": 16, "hidden": 12, "dropout": {"embedding": 0.0, "layers": 0.0, "output": 0.0}},
    "training": {"epochs": 8, "rows": 8, "learning_rate": 0.02, "warmup": 5, "ema": 0.5, "threads": 1}
    | {"precision": "float32", "device": "cpu"},
}
GOOD, BAD, PLAIN = ["fine", "warm", "funny"], ["dull", "cold", "loud"], ["a", "film", "of", "the", "sea", "."]


def recipe_of(**changes: Any) -> ClassifierRecipe:
    return parse_as(ClassifierRecipe, SMALL | {key: SMALL[key] | value for key, value in changes.items()}, "test")


def lines_of(count: int, seed: int) -> list[tuple[str, str]]:
    """Lines with one word that decides, and what it decides; without one the line is `so-so`."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        label, words = draw.choice([("good", GOOD), ("bad", BAD), ("so-so", PLAIN)])
        line = [*draw.choices(PLAIN, k=draw.randint(2, 6)), draw.choice(words)]
        draw.shuffle(line)
        found.append((" ".join(line), label))
    return found


def write(folder: Path, split: str, rows: list[tuple[str, str]]) -> None:
    write_lines(folder / f"{split}.text", [line for line, _ in rows])
    write_lines(folder / f"{split}.label", [label for _, label in rows])


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe with its corpus, in the folder of the test."""
    monkeypatch.chdir(tmp_path)
    for split, count in (("train", 150), ("valid", 40), ("test", 40)):
        write(tmp_path / "films", split, lines_of(count, len(split)))
    path = tmp_path / "films.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


def model_of(vocab: int = 30, classes: int = 3, **changes: Any) -> Committee:
    torch.manual_seed(3)
    return build(recipe_of(model=changes), vocab, classes).eval()


def ids_of(count: int, longest: int = 9) -> list[list[int]]:
    draw = random.Random(count)
    return [[draw.randint(4, 29) for _ in range(draw.randint(0, longest))] for _ in range(count)]


# -- the network


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_line_is_pooled_as_the_head_of_the_module_says(pooling: str, cell: str) -> None:
    (member,) = model_of(pooling=pooling, cell=cell, layers=2).members
    assert isinstance(member, Classifier)
    if pooling == "attention":
        torch.nn.init.normal_(member.query)
    for line in ids_of(5):
        batch = padded([line])
        tokens = torch.tensor([[*line, EOS]])
        assert torch.equal(batch.source[:, : tokens.size(1)], tokens)
        (memory,) = member.encoder(tokens, torch.tensor([len(line) + 1])).memory  # (S, M)
        half = memory.size(1) // 2
        if pooling == "attention":
            weights = (memory @ member.query.view(-1) / memory.size(1) ** 0.5).softmax(0)
            wanted = sum(weight * state for weight, state in zip(weights, memory, strict=True))
        else:
            last = torch.cat([memory[-1, :half], memory[0, half:]])
            wanted = {"last": last, "mean": memory.mean(0), "max": memory.max(0).values}[pooling]
        assert torch.allclose(member.pool(batch.source, batch.source_lengths)[0], wanted, atol=1e-6)


@pytest.mark.parametrize("direction", ["forward", "reversed", "bidirectional"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_and_company_change_nothing(pooling: str, direction: str) -> None:
    model = model_of(pooling=pooling, direction=direction)
    ids = ids_of(150)  # more than are classified at once, empty lines among them
    together = log_probs(model, Lines(ids))
    alone = torch.cat([log_probs(model, Lines([line])) for line in ids])
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(together.exp().sum(1), torch.ones(150), atol=1e-5)
    assert together.std(0).min() > 1e-3, "lines differ"


@pytest.mark.parametrize("pooling", POOLINGS)
def test_thirty_two_lines_are_learnt_by_heart(pooling: str) -> None:
    ids = [line for line in ids_of(60, longest=6) if line][:32]
    classes = torch.arange(32) % 5  # which nothing in the lines tells
    model = build(recipe_of(model={"pooling": pooling, "hidden": 24}), 30, 5)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    batch = Labelled(padded(ids), classes)
    for _ in range(80):
        loss = model.loss(batch)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
    model.eval()
    assert torch.equal(log_probs(model, Lines(ids)).argmax(1), classes)


def test_the_members_of_a_committee_learn_alone_and_answer_together() -> None:
    model = model_of(members=3)
    alone = [Committee([member]) for member in model.members]
    ids = ids_of(20)
    shares = torch.stack([log_probs(one, Lines(ids)).exp() for one in alone])
    assert shares.std(0).min() > 0, "each begins elsewhere"
    assert torch.allclose(log_probs(model, Lines(ids)).exp(), shares.mean(0), atol=1e-6)
    batch = Labelled(padded(ids), torch.arange(20) % 3)
    whole = model.loss(batch, 0.1)
    whole.total.backward()
    together = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    model.zero_grad()
    for one in alone:
        one.loss(batch, 0.1).total.backward()
    assert len(together) == len(list(model.parameters()))
    for one, two in zip(together, (weight.grad for weight in model.parameters()), strict=True):
        assert two is not None
        assert torch.allclose(one, two, atol=1e-5)
    assert float(whole.nll) == pytest.approx(sum(float(one.loss(batch).nll) for one in alone) / 3, rel=1e-5)
    assert whole.count == 20


def test_attention_is_one_of_ours_and_begins_as_the_mean() -> None:
    (member,) = model_of(pooling="attention").members
    (mean,) = model_of(pooling="mean").members
    assert isinstance(member, Classifier)
    assert isinstance(mean, Classifier)
    assert isinstance(member.look, Dot)
    mean.encoder.load_state_dict(member.encoder.state_dict())
    batch = padded(ids_of(9))
    one, two = (net.pool(batch.source, batch.source_lengths) for net in (member, mean))
    assert torch.allclose(one, two, atol=1e-6)


# -- data


def test_words_are_dropped_and_nothing_special() -> None:
    before = padded([[9] * 60, [8] * 30]).source
    after, again, other = (dropped(before, 0.3, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(after, again)
    assert not torch.equal(after, other)
    changed = before != after
    assert (after[changed] == UNK).all()
    assert not (changed & (before <= UNK)).any()
    assert 0.15 < changed.sum() / 90 < 0.45


def test_an_epoch_has_every_line_once_with_its_class_and_drops_words_anew() -> None:
    ids = [[number + 4, 3 + 50, 3 + 51] for number in range(40)]
    settings = recipe_of(training={"word_dropout": 0.3}).training
    stream = LabelledLines(Lines(ids), torch.arange(40), settings, torch.device("cpu"))
    epochs = []
    for epoch in (0, 1):
        batches = [stream.fetch(epoch, number) for number in range(stream.batches(epoch))]
        assert sorted(torch.cat([batch.classes for batch in batches]).tolist()) == list(range(40))
        words = torch.cat([batch.lines.source[batch.classes.argsort()] for batch in batches])
        first = torch.cat([batch.lines.source[:, 0] for batch in batches])
        known = first != UNK
        assert torch.equal(first[known] - 4, torch.cat([batch.classes for batch in batches])[known])
        assert 0.15 < float((words[:, :3] == UNK).float().mean()) < 0.45
        epochs.append([batch.lines.source.tolist() for batch in batches])
        again = stream.fetch(epoch, 1)
        assert again.lines.source.tolist() == epochs[-1][1], "a batch depends on epoch and number alone"
    assert epochs[0] != epochs[1]


def test_words_and_back(tmp_path: Path) -> None:
    words = Words.of(["the sea , the sea", "é sea  \N{GRINNING FACE}"], least=2)
    assert words.words == ["sea", "the"]
    (tmp_path / "words.json").write_bytes(words.proto)
    again = Words.load(tmp_path / "words.json")
    assert again.encode(["sea of the", ""]) == words.encode(["sea of the", ""]) == [[UNK + 1, UNK, UNK + 2], []]
    assert again.vocab == UNK + 3
    (tmp_path / "words.json").write_text('{"a": 1}')
    with pytest.raises(CheckpointError, match="no list of words"):
        Words.load(tmp_path / "words.json")


def test_a_word_is_itself_and_its_letters(tmp_path: Path) -> None:
    found = Spelled.of(["sad saddest , sad", "sadder glad"], 2, 4)
    assert found.words.words == ["sad"]
    assert found.ngrams == ["<sa", "<sad", "ad>", "add", "adde", "dde", "sad", "sadd"], "those that two words have"
    for name, content in files_of(found).items():
        (tmp_path / name).write_bytes(content)
    again = known_vocabulary(tmp_path)
    assert again.vocab == found.vocab == UNK + 2 + 8
    (line,) = again.encode(["sad , saddle"])
    assert [word[0] for word in line] == [UNK + 1, UNK, UNK]
    letters = [[again.ngrams[number - UNK - 2] for number in word[1:]] for word in line]
    assert letters == [["<sa", "sad", "ad>", "<sad"], [], ["<sa", "sad", "add", "<sad", "sadd"]]


def test_a_word_never_seen_is_known_by_what_it_shares() -> None:
    vocabulary = Spelled.of(["kindly warmly", "coldly deadly"], 2, 4)
    lines = vocabulary.encode(["gladly x", ""])
    batch = spelled(lines)
    assert batch.source_lengths.tolist() == [3, 1]
    spelling = Spelling(Embedding(vocabulary.vocab, 8))
    read = spelling(batch.source)  # (B, S, E)
    assert read.shape == (*batch.source.shape[:2], 8)
    own, *ngrams = lines[0][0]
    assert own == UNK
    weight = spelling.embedding.weight * 8**0.5
    wanted = (weight[UNK] + weight[ngrams].sum(0) / len(ngrams) ** 0.5) / 2**0.5
    assert torch.allclose(read[0, 0], wanted, atol=1e-6)
    assert torch.allclose(read[0, 1], weight[UNK] / 2**0.5), "no n-gram of it is known"
    assert torch.allclose(read[0, 2], weight[EOS] / 2**0.5), "an end has no letters"


def test_spelled_lines_do_not_depend_on_company() -> None:
    lines = [line for line, _ in lines_of(90, 5)] + ["", "unheard-of"]
    vocabulary = Spelled.of(lines, 2, 5)
    torch.manual_seed(1)
    model = build(recipe_of(tokenizer={"ngrams": 5}), vocabulary.vocab, 2).eval()
    together = log_probs(model, encoded(vocabulary, lines))
    alone = torch.cat([log_probs(model, encoded(vocabulary, [line])) for line in lines])
    assert torch.allclose(together, alone, atol=1e-5)
    assert together.std(0).min() > 1e-3, "lines differ"


# -- figures


def test_figures_are_those_of_their_definition() -> None:
    draw = random.Random(4)
    gold, guessed = ([draw.randrange(3) for _ in range(50)] for _ in range(2))  # the fourth class is nobody's
    table = confusion(torch.tensor(gold), torch.tensor(guessed), 4)
    pairs = list(zip(gold, guessed, strict=True))
    assert all(table[a, b] == pairs.count((a, b)) for a, b in itertools.product(range(4), repeat=2))
    scores = []
    for one in range(3):
        hits = pairs.count((one, one))
        precision, recall = hits / guessed.count(one), hits / gold.count(one)
        scores.append(2 * precision * recall / (precision + recall))
    found = figures(table)
    assert found["accuracy"] == pytest.approx(100 * sum(a == b for a, b in pairs) / 50)
    assert found["macro F1"] == pytest.approx(100 * sum(scores) / 3)


def test_the_bag_is_at_the_minimum_of_its_loss_and_knows_bigrams() -> None:
    lines = ["not good", "good", "bad", "not bad", "good good", "bad bad"] * 3
    classes = torch.tensor([0, 1, 0, 1, 1, 0] * 3)
    found = bag.Bag(lines)
    assert list(found.ids)[:5] == [("good",), ("not",), ("not", "good"), ("bad",), ("not", "bad")], "in any process"
    table = found.table(lines)
    assert table.to_dense()[0].sum() == 3  # not, good, not good
    assert table.to_dense()[4].sum() == 2  # good once, good good
    weight, bias = bag.fit(table, classes, 2, 0.3)
    weight.requires_grad_(), bias.requires_grad_()
    logits = table.to_dense() @ weight + bias
    loss = torch.nn.functional.cross_entropy(logits, classes, reduction="sum") + 0.15 * weight.square().sum()
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.abs().max() < 1e-2
    guessed, _ = bag.guesses((lines, classes), (lines, classes), ["not good", "bad news", "not bad"], 2)
    assert guessed.tolist() == [0, 0, 1]


# -- the whole way


@pytest.mark.parametrize(
    "changes",
    [
        ["model.members=2", "training.epochs=12"],
        ["tokenizer.model=unigram", "tokenizer.vocab_size=30"],
        ["tokenizer.ngrams=4", "training.word_dropout=0.1"],
    ],
)
def test_it_is_trained_evaluated_and_classifies(changes: list[str], films: Path) -> None:
    done = call("train", films, *(part for change in changes for part in ("--set", change)))
    assert done.status == 0, done.err
    assert "150 lines of 3 classes" in done.err
    result = json.loads(call("evaluate", "runs/films", "--json").out)
    test = read(recipe_of().data, "test")
    assert result["figures"]["accuracy"] > 85
    *alone, baseline = result["baselines"].values()
    assert baseline["accuracy"] > 80
    assert len(alone) == ("model.members=2" in changes)
    assert all(one["lowest"] <= one["mean"] <= one["highest"] <= 100 for one in alone)
    shown = call("evaluate", "runs/films").out
    assert "accuracy" in shown
    assert "macro F1" in shown
    rows = [line.split() for line in shown.splitlines()[-3:]]
    assert [row[0] for row in rows] == ["bad", "good", "so-so"]
    counts = [[int(count) for count in row[1:]] for row in rows]
    assert [sum(row) for row in counts] == [test.labels.count(label) for label in ("bad", "good", "so-so")]
    right = sum(counts[place][place] for place in range(3))
    assert result["figures"]["accuracy"] == pytest.approx(100 * right / 40)
    assert Path("runs/films/confusion.png").read_bytes().startswith(b"\x89PNG")
    answers = call("classify", "runs/films", "--input", "films/test.text").out
    labels = [line.split("\t")[0] for line in answers.splitlines()]
    assert sum(one == two for one, two in zip(labels, test.labels, strict=True)) == right
    assert all(1 / 3 <= float(line.split("\t")[1]) <= 1 for line in answers.splitlines())
    assert call("classify", "runs/films", stdin=Path("films/test.text").read_bytes()).out == answers
    assert call("classify", "runs/films", stdin="\nhitherto unseen\n").out.count("\n") == 2


def test_a_resumed_run_is_one_that_never_stopped(films: Path, children: Children) -> None:
    changes = [
        "training.epochs=3",
        "training.word_dropout=0.3",
        "model.dropout.output=0.3",
        "training.checkpoint_minutes=0",
    ]
    options = [part for change in changes for part in ("--set", change)]
    assert call("train", films, *options, "--out", "whole").status == 0
    child = children.start("train", films, *options, "--out", "broken")
    kill_midway(child, Path("broken"))
    assert call("train", films, *options, "--out", "broken", "--resume").status == 0
    assert Path("broken/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


@pytest.mark.parametrize("split", ["train", "valid"])
@pytest.mark.parametrize("suffix", ["text", "label"])
def test_a_run_does_not_go_on_with_another_corpus_of_the_same_size(films: Path, split: str, suffix: str) -> None:
    assert call("train", films, "--set", "training.epochs=1").status == 0
    file = Path(f"films/{split}.{suffix}")
    lines = file.read_text().splitlines()
    file.write_text("".join(f"{line}\n" for line in reversed(lines)))
    done = call("train", films, "--set", "training.epochs=2", "--resume")
    assert done.status == 2
    assert f"its corpus is not what it was when training began (text of {split} " in done.error


def test_the_shipped_recipe_adds_words_to_states() -> None:
    recipe = load_as(ClassifierRecipe, "sentiment-sst2")
    with torch.device("meta"):
        model = build(recipe, 9, 2)
    assert len(model.members) == recipe.model.members > 1
    assert recipe.model.residual
    assert all(member.encoder.width == recipe.model.embed for member in model.members), "else nothing is added"


@pytest.mark.skipif(not (REAL / "sst2").is_dir(), reason="needs sst2 in $NMT_DATA")
def test_the_corpus_of_the_shipped_recipe() -> None:
    data = load_as(ClassifierRecipe, "sentiment-sst2", [f"data.path={REAL / 'sst2'}"]).data
    splits = [read(data, split) for split in ("train", "valid", "test")]
    assert [len(split.lines) for split in splits] == [6920, 872, 1821]
    assert labels_of(splits[0]) == ["0", "1"]


# -- what is wrong is said


@pytest.mark.parametrize(
    ("split", "rows", "message"),
    [
        ("train", [], r"films/train\.text: .*empty|films/train\.text: no text"),
        ("train", [("fine", "good"), ("dull", "")], r"films/train\.label: line 2: '' is not one word"),
        ("train", [("fine", "very good")], r"films/train\.label: line 1: 'very good' is not one word"),
        ("train", [("fine", "good"), ("warm", "good")], r"every line is 'good': a classifier needs two"),
        ("valid", [("fine", "good"), ("odd", "strange")], r"valid\.label: line 2: label 'strange' never occurs"),
    ],
)
def test_a_corpus_that_cannot_be_is_refused(split: str, rows: list[tuple[str, str]], message: str, films: Path) -> None:
    write(films.parent / "films", split, rows)
    data = recipe_of().data
    with pytest.raises(DataError, match=message):
        read(data, split).classes(labels_of(read(data, "train")))
    done = call("train", films)
    assert done.status == 1
    assert not Path("runs/films").exists()


def test_uneven_files_are_refused(films: Path) -> None:
    with open("films/train.label", "a") as file:
        file.write("good\n")
    assert "films/train.text has 150 lines, films/train.label 151" in call("train", films).error
    Path("films/train.label").unlink()
    assert "train.label" in call("train", films).error


def test_a_test_split_with_a_new_label_is_refused_and_so_are_other_models(films: Path) -> None:
    assert call("train", films, "--set", "training.epochs=1").status == 0
    write(Path("films"), "test", [("fine", "strange")])
    assert "label 'strange' never occurs in the train split, which has bad, good, so-so" in (
        call("evaluate", "runs/films").error
    )
    translator = write_recipe(Path("translator/recipe.yaml"), Path("corpus")).parent
    (translator / "model.json").write_text('{"format": 1}')
    assert "a model for translation, not for classification" in call("classify", translator).error
    assert "a model for classification, not for translation" in call("translate", "runs/films", stdin="x\n").error
    Path("runs/films/classes.json").write_text("[1]")
    assert "classes.json: no list of labels" in call("classify", "runs/films", stdin="x\n").error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.pooling=sum", "model.pooling"),
        ("training.metric=bleu", "training.metric"),
        ("model.members=0", "model.members"),
        ("tokenizer.ngrams=2", "has 3 letters or more"),
        ("model.hiden=3", "did you mean 'hidden'"),
        ("data.path=nowhere", "no 'nowhere'"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(change: str, message: str, films: Path) -> None:
    done = call("train", films, "--set", change)
    assert done.status in (1, 2)
    assert message in done.error
    assert not Path("runs/films").exists()
