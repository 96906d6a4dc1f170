"""The decoder alone: a stream is read without a seam, a fact is remembered over chunks, and text comes out again."""

from __future__ import annotations

import json
import math
import random
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from toy import Children, Toy, call, kill_midway

from nmt import Translator, run, tokenizer
from nmt.cells import States
from nmt.errors import CallError, DataError, RecipeError
from nmt.loss import Loss, cross_entropy
from nmt.recipe import parse_as
from nmt.shapes import language_model
from nmt.shapes.language_model import (
    Along,
    Chunks,
    LanguageModel,
    LanguageModelRecipe,
    OneHot,
    Text,
    _opening,
    along,
    build,
    generate,
    known,
    load,
    over,
    read,
    spell,
)
from nmt.shapes.text import Characters
from nmt.tokenizer import BOS, EOS, UNK

TEXT = "the cat sat on the mat.\nthe dog sat on the log.\n"
SMALL: dict[str, Any] = {
    "task": "language-model",
    "data": {"path": "texts"},
    "model": {"embed": 12, "layers": 2, "hidden": 24, "dropout": {"embedding": 0.0, "layers": 0.0, "output": 0.0}},
    "training": {"epochs": 3, "rows": 4, "chunk": 10, "learning_rate": 0.02, "warmup": 5, "ema": 0.5, "threads": 1}
    | {"precision": "float32", "device": "cpu"},
}


def recipe_of(**changes: Any) -> LanguageModelRecipe:
    content = SMALL | {key: SMALL.get(key, {}) | value for key, value in changes.items()}
    return parse_as(LanguageModelRecipe, content, "test")


def model_of(vocab: int = 9, **changes: Any) -> LanguageModel:
    torch.manual_seed(3)
    return build(recipe_of(model=changes), vocab).eval()


@pytest.fixture
def lm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe with its text, in the folder of the test."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    for split, times in (("train", 12), ("valid", 2), ("test", 3)):
        (tmp_path / "texts" / f"{split}.txt").write_text(TEXT * times)
    path = tmp_path / "lm.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


# -- along a stream


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("embed", [7, "one-hot"])
def test_chunks_with_the_state_carried_are_one_pass(cell: str, embed: Any) -> None:
    model = model_of(cell=cell, embed=embed)
    ids = torch.randint(4, 9, (101,), generator=torch.Generator().manual_seed(1))
    features, _ = model(ids[:-1].unsqueeze(0), model.zero(1))
    whole = float(cross_entropy(model.decoder.output(features[0]), ids[1:]).nll) / 100
    for steps in (1, 7, 100, 1000):
        assert along(model, ids, steps=steps) == pytest.approx(whole, rel=1e-5)
    apart = [along(model, ids[start : start + 26]) for start in range(0, 100, 25)]
    assert along(model, ids, rows=4, steps=7) == pytest.approx(sum(apart) / 4, rel=1e-5)


def test_an_epoch_reads_the_stream_in_order_and_each_epoch_is_cut_elsewhere() -> None:
    ids = torch.arange(4, 4 + 500)
    chunks = Chunks(ids, 3, 20, 1, torch.device("cpu"))
    starts = set()
    for epoch in range(4):
        found = [chunks.fetch(epoch, number) for number in range(chunks.batches(epoch))]
        assert [chunk.first for chunk in found] == [True] + [False] * (len(found) - 1)
        for row in range(3):
            read = torch.cat([chunk.tokens[row] for chunk in found])
            assert torch.equal(read, torch.arange(len(read)) + read[0]), "no piece is left out or read twice"
            assert all(torch.equal(chunk.wanted[row], chunk.tokens[row] + 1) for chunk in found)
        starts.add(int(found[0].tokens[0, 0]))
        assert 3 * sum(chunk.tokens.size(1) for chunk in found) > 500 - 20 - 3 * 20
    assert len(starts) > 1


def test_a_text_too_short_for_its_chunks_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"60 pieces.*rows=3.*chunk=20"):
        Chunks(torch.arange(60), 3, 20, 1, torch.device("cpu"))


def test_a_text_of_just_one_chunk_is_read() -> None:
    chunks = Chunks(torch.arange(2 * 5 + 1), 2, 5, 1, torch.device("cpu"))
    assert [chunks.batches(epoch) for epoch in range(3)] == [1, 1, 1]
    assert chunks.fetch(2, 0).tokens.tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_a_text_shorter_than_the_rows_it_is_read_in_has_a_figure() -> None:
    nats, count, letters = Text(torch.tensor([1, 2, 3, 4]), 4).nats(model_of(), rows=8)
    assert count == letters == 3
    assert 0 < nats / count < 2 * math.log(9)


def test_the_gradient_ends_at_the_chunk_and_the_state_does_not() -> None:
    model = model_of()
    loss = Along(model)
    chunks = Chunks(torch.randint(4, 9, (200,)), 2, 10, 1, torch.device("cpu"))
    loss(chunks.fetch(0, 0), 0.0)
    carried = loss.hidden
    assert not any(part.requires_grad for part in carried)
    second = loss(chunks.fetch(0, 1), 0.0)
    fresh, _ = model.loss(chunks.fetch(0, 1).tokens, chunks.fetch(0, 1).wanted, model.zero(2))
    assert float(second.nll) != float(fresh.nll)
    loss(chunks.fetch(0, 0), 0.0)
    assert all(torch.equal(one, two) for one, two in zip(loss.hidden, carried, strict=True)), "an epoch begins anew"


def test_a_loss_that_is_not_finite_leaves_no_state_behind() -> None:
    model = model_of()
    loss = Along(model)
    chunks = Chunks(torch.randint(4, 9, (200,)), 2, 10, 1, torch.device("cpu"))
    loss(chunks.fetch(0, 0), 0.0)
    with torch.no_grad():
        model.decoder.output.bias[5] = math.nan
    loss(chunks.fetch(0, 1), 0.0)
    assert loss.hidden == ()


FACTS, SILENCE, QUESTION = (4, 5), (6, 8, 9), 7
STEPS = 10  # of a chunk


def story(fact: int, gap: int, draw: random.Random) -> list[int]:
    return [fact, *(draw.choice(SILENCE) for _ in range(gap)), QUESTION]


def student(seed: int) -> LanguageModel:
    """A model taught along a stream of stories, in which a fact is asked for 2 to 33 steps later."""
    draw = random.Random(seed)
    ids = [i for fact in draw.choices(FACTS, k=4000) for i in [*story(fact, 2 ** draw.randrange(6), draw), fact]]
    torch.manual_seed(seed)
    model = build(recipe_of(model={"cell": "gru", "embed": 24, "layers": 1}), 10)
    loss, chunks = Along(model), Chunks(torch.tensor(ids), 8, STEPS, 1, torch.device("cpu"))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for number in range(chunks.batches(0)):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - number / chunks.batches(0))
        one = loss(chunks.fetch(0, number), 0.0)
        optimizer.zero_grad()
        (one.total / one.count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def answers(model: LanguageModel, gap: int, reset: bool = False) -> float:
    """How often the fact is the answer after a gap, read in chunks with the state carried or reset."""
    stories = [(fact, story(fact, gap, random.Random(n))) for fact in FACTS for n in range(10)]
    hits = 0
    for fact, told in stories:
        hidden = model.zero(1)
        for start in range(0, len(told), STEPS):
            hidden = model.zero(1) if reset else hidden
            features, hidden = model(torch.tensor([told[start : start + STEPS]]), hidden)
        hits += int(model.decoder.output(features[0, -1]).argmax()) == fact
    return hits / len(stories)


def test_a_fact_is_remembered_over_five_chunks() -> None:
    students = (student(seed) for seed in range(8))  # some never get the idea
    learned = (one for one in students if min(answers(one, gap) for gap in (1, 4, 8)) == 1.0)
    model = next((one for one in learned if answers(one, 5 * STEPS) >= 0.95), None)
    assert model is not None
    assert answers(model, 5 * STEPS, reset=True) <= 0.6


# -- lines


def test_lines_are_scored_each_on_its_own() -> None:
    model = model_of()
    ids = [[4, 5], [6], [7, 8, 4, 5, 6]]
    together, count = over(model, ids)
    alone = sum(over(model, [line])[0] for line in ids)
    assert together == pytest.approx(alone, rel=1e-5)
    assert count == 2 + 1 + 5 + 3


def test_a_long_line_is_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = model_of(), []
    ids = [[4, 5], [6] * 30, *[[7, 8]] * 20]
    whole = over(model, ids)
    own = model.loss

    def loss(tokens: Tensor, wanted: Tensor, hidden: States) -> tuple[Loss, States]:
        sizes.append(tuple(tokens.shape))
        return own(tokens, wanted, hidden)

    monkeypatch.setattr(model, "loss", loss)
    monkeypatch.setattr(language_model, "TOGETHER", 12)
    nats, count = over(model, ids)
    assert (nats, count) == (pytest.approx(whole[0], rel=1e-5), whole[1])
    assert [count for count, _ in sizes] == [1, *[4] * 5, 1]


@pytest.mark.parametrize(("unit", "ends"), [("stream", False), ("lines", True)])
def test_a_stream_never_ends(unit: str, ends: bool) -> None:
    hot = recipe_of(data={"path": "texts", "unit": unit}, search={"temperature": 1e6})
    written = list(islice(generate(model_of(), hot, [BOS]), 200))
    assert (len(written) < 200) == ends
    assert EOS not in written


# -- the whole way


def test_it_is_trained_evaluated_and_writes(lm: Path) -> None:
    done = call("train", lm, "--set", "training.epochs=12")
    assert done.status == 0, done.err
    assert "a stream of 576 pieces" in done.err
    figures = json.loads(call("evaluate", "runs/lm", "--json").out)["figures"]
    assert figures["perplexity"] < 2.0
    assert figures["bits per character"] == pytest.approx(figures["loss"] / math.log(2), rel=1e-6)
    assert "perplexity" in call("evaluate", "runs/lm").out
    about = call("info", "runs/lm").out
    assert "best valid   loss" in about
    assert "task: language-model" in about
    assert json.loads(Path("runs/lm/evaluation.json").read_text())["figures"] == figures
    written = call("generate", "runs/lm", "--prompt", "the c", "--length", "60", "--set", "search.temperature=0").out
    assert written.startswith("the c")
    assert len(written) == 5 + 60 + 1
    assert set(written) <= set(TEXT)
    assert "sat on the" in written
    assert call("generate", "runs/lm", "--prompt", "the c", "--length", "60").out == (
        call("generate", "runs/lm", "--prompt", "the c", "--length", "60").out
    ), "the same seed"


def test_a_resumed_run_is_one_that_never_stopped(lm: Path, children: Children) -> None:
    options = ("--set", "training.epochs=6", "--set", "training.checkpoint_minutes=0")
    assert call("train", lm, *options, "--out", "whole").status == 0
    child = children.start("train", lm, *options, "--out", "broken")
    kill_midway(child, Path("broken"))
    assert call("train", lm, *options, "--out", "broken", "--resume").status == 0
    assert Path("broken/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


@pytest.mark.parametrize("split", ["train", "valid"])
@pytest.mark.parametrize("unit", ["stream", "lines"])
def test_a_run_does_not_go_on_with_another_text_of_the_same_size(lm: Path, split: str, unit: str) -> None:
    options = ("train", lm, "--set", f"data.unit={unit}", "--set")
    assert call(*options, "training.epochs=1").status == 0
    text = Path(f"texts/{split}.txt")
    text.write_text(text.read_text().replace("cat", "tac"))
    done = call(*options, "training.epochs=2", "--resume")
    assert done.status == 2
    assert f"its corpus is not what it was when training began (text of {split} " in done.error


def test_letters_that_come_as_bytes_are_written_when_they_are_whole() -> None:
    lines = ["the cat sat on the mat", "a dog ran"]
    vocabulary = tokenizer.train(lines, "bpe", 280, byte_fallback=True)
    (ids,) = vocabulary.encode(["the 你é"])
    shown = list(spell(vocabulary, iter(ids), 99))
    assert "".join(shown) == "the 你é"
    assert shown.count("你") == 1
    assert "".join(spell(vocabulary, iter(ids[:-1]), 99)) == "the 你\N{REPLACEMENT CHARACTER}"


def test_a_prompt_that_is_refused_is_not_written(lm: Path) -> None:
    assert call("train", lm, "--set", "training.epochs=1").status == 0
    for prompt, said in (("the 日 Ω", "that this model has never seen: leave out '日Ω'"), ("a \udcff", "not UTF-8")):
        done = call("generate", "runs/lm", "--prompt", prompt)
        assert (done.status, done.out) == (2, "")
        assert said in done.error


def test_lines_with_the_pieces_of_a_translator(lm: Path, toy: Toy) -> None:
    pieces = toy.fixed / "target.model"
    files = [f"data.{split}={toy.corpus / f'{split}.de'}" for split in ("train", "valid", "test")]
    changes = ["data.unit=lines", f"tokenizer.file={pieces}", "training.epochs=8", *files]
    done = call("train", lm, *(part for change in changes for part in ("--set", change)))
    assert done.status == 0, done.err
    assert Path("runs/lm/target.model").read_bytes() == pieces.read_bytes()
    line = call("generate", "runs/lm", "--prompt", "fis", "--set", "search.temperature=0").out
    assert line.startswith("fisch")
    assert line.count("\n") == 1
    word = call("generate", "runs/lm", "--prompt", "fisch", "--set", "search.temperature=0").out
    assert call("generate", "runs/lm", "--prompt", "fisch ", "--set", "search.temperature=0").out == word
    Path("empty.txt").write_text("\u200b\n")
    with pytest.raises(DataError, match=r"data\.test: no line of it has a piece"):
        read(recipe_of(data={"path": ".", "unit": "lines", "test": "empty.txt"}), "test", known(Path("runs/lm")))
    assert json.loads(call("evaluate", "runs/lm", "--json").out)["figures"]["perplexity"] < 20


def test_lines_of_characters_begin_as_in_training_and_empty_ones_do_not_count(lm: Path) -> None:
    assert call("train", lm, "--set", "data.unit=lines", "--set", "training.epochs=1").status == 0
    one = load(Path("runs/lm"))
    assert _opening(one.recipe, one.vocabulary) == [BOS]
    before = read(one.recipe, "test", one.vocabulary)
    (lm.parent / "texts" / "test.txt").write_text(TEXT.replace("\n", "\n\n") * 3)
    assert read(one.recipe, "test", one.vocabulary) == before
    (lm.parent / "texts" / "test.txt").write_text(" \n" * 3)
    with pytest.raises(DataError, match=r"texts/test\.txt: no text in it"):
        read(one.recipe, "test", one.vocabulary)


def test_characters_are_a_text_and_back(tmp_path: Path) -> None:
    text = "Ä\n\t\N{GRINNING FACE}\u2028é"
    characters = Characters.of(text)
    (tmp_path / "characters.json").write_bytes(characters.proto)
    again = Characters.load(tmp_path / "characters.json")
    assert again.decode(again.encode(text)) == text
    assert again.encode("x") == [UNK]


def test_one_hot_is_an_embedding_that_is_the_identity() -> None:
    tokens = torch.tensor([[0, 3, 2]])
    assert torch.equal(OneHot(4)(tokens)[0], torch.eye(4)[tokens[0]])


def test_thirty_two_examples_are_learnt_by_heart() -> None:
    torch.manual_seed(1)
    draw = random.Random(2)
    ids = [[draw.randint(4, 11) for _ in range(draw.randint(3, 8))] for _ in range(32)]
    lines = [[number + 12, *line] for number, line in enumerate(ids)]  # each begins with its own number
    model = build(recipe_of(model={"layers": 1, "hidden": 64, "embed": 24}), 44)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    from nmt.shapes.language_model import _batch

    chunk = _batch(lines, torch.device("cpu"))
    for _ in range(150):
        loss, _ = model.loss(chunk.tokens, chunk.wanted, model.zero(32))
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
    model.eval()
    features, _ = model(chunk.tokens, model.zero(32))
    right = (model.decoder.output(features).argmax(2) == chunk.wanted)[:, 1:]  # which line it is cannot be known
    assert float(right[chunk.wanted[:, 1:] != 0].float().mean()) > 0.98
    greedy = recipe_of(data={"path": "texts", "unit": "lines"}, search={"temperature": 0.0})
    assert list(generate(model, greedy, chunk.tokens[5, :2].tolist())) == lines[5][1:]
    assert list(islice(generate(model, greedy, chunk.tokens[6, :2].tolist()), 2)) == lines[6][1:3]


# -- it has a say in translating


def test_a_language_model_joins_the_search_of_a_translator(lm: Path, toy: Toy) -> None:
    files = [f"data.{split}={toy.corpus / f'{split}.de'}" for split in ("train", "valid", "test")]
    changes = ["data.unit=lines", f"tokenizer.file={toy.fixed / 'target.model'}", "training.epochs=4", *files]
    assert call("train", lm, *(part for change in changes for part in ("--set", change))).status == 0
    joined = run.translator(str(toy.fixed), ["search.language_model=runs/lm", "search.language_model_weight=0.5"])
    alone, own = run.translator(str(toy.fixed)), load(Path("runs/lm"))
    found = joined.translate(["kala juo", "iso koira"], nbest=3)
    assert [len(one.alternatives) for one in found] == [2, 2]
    for source, best in zip(["kala juo", "iso koira"], found, strict=True):
        for one in (best, *best.alternatives):
            pieces = own.vocabulary.ids(one.tokens)  # type: ignore[union-attr]
            nats, _ = over(own.model, [pieces])
            (scored,) = alone.score([source], [one.text])
            assert sum(one.log_probs) == pytest.approx(scored.log_prob - 0.5 * nats, rel=1e-3)
    assert call("translate", toy.fixed, "--set", "search.language_model=runs/lm", stdin="kala\n").status == 0
    own_copy = shutil.copytree(toy.fixed, "fixed")
    assert call("evaluate", own_copy, "--set", "search.language_model=runs/lm").status == 0
    other = call("translate", toy.attention, "--set", "search.language_model=nowhere", stdin="kala\n")
    assert "search.language_model: nowhere: no such model folder" in other.error


def test_a_language_model_of_other_pieces_is_refused(lm: Path, toy: Toy) -> None:
    assert call("train", lm, "--set", "training.epochs=1").status == 0
    refused = call("translate", toy.fixed, "--set", "search.language_model=runs/lm", stdin="kala\n")
    assert "runs/lm writes characters" in refused.error
    with pytest.raises(CallError, match=r"nmt\.run\.translator"):
        Translator.load(toy.fixed).adjusted(["search.language_model=runs/lm"]).translate(["kala"])


# -- what is wrong is said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.unit=stream", "tokenizer.model=bpe"], "read by its characters"),
        (["model.tie=true", "model.embed=one-hot"], "nothing to tie"),
        (["model.hiden=3"], "did you mean 'hidden'"),
        (["training.rows=1000"], "too few for training.rows=1000"),
        (["data.train=nothing.txt"], "nothing.txt: cannot be read"),
        (["data.path=nowhere"], "no 'nowhere'"),
        (["task=poetry"], "poetry"),
        (["data.generator=python"], "a path or a generator, one of them"),
        (["data.path=null"], "a path or a generator, one of them"),
        (["training.metric=loss"], "training.metric: 'loss' is not allowed"),
        (["model.embed=0"], "model.embed"),
        (["search.seed=99999999999999999999"], "search.seed"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(changes: list[str], message: str, lm: Path) -> None:
    done = call("train", lm, *(part for change in changes for part in ("--set", change)))
    assert done.status in (1, 2)
    assert message in done.error
    assert not Path("runs/lm").exists()


def test_folders_of_one_task_are_refused_by_the_verbs_of_another(lm: Path, toy: Toy) -> None:
    assert call("train", lm, "--set", "training.epochs=1").status == 0
    assert "a model for language-model, not for translation" in call("translate", "runs/lm", stdin="x\n").error
    assert "a model for translation, not for language-model" in call("generate", toy.fixed).error
    assert "it is evaluated alone" in call("evaluate", "runs/lm", toy.fixed).error
    assert "has never seen" in call("generate", "runs/lm", "--prompt", "Ω").error
    assert load(Path("runs/lm")).vocabulary.vocab > 4
