"""An exported translator says what the run says, whatever the recipe; what is told of a folder that does not fit."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy import Toy, call, pairs

from nmt import checkpoint, lexicon, portable
from nmt.data import collate
from nmt.engine import Native
from nmt.errors import CallError, CheckpointError
from nmt.export import export
from nmt.model import Seq2Seq, build
from nmt.portable import Portable
from nmt.recipe import changed
from nmt.tokenizer import BOS, Tokenizer
from nmt.translate import Translator

pytest.importorskip("onnx", reason="onnx is not installed: pip install 'recurrent-nmt[onnx]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'recurrent-nmt[onnx]'")

LINES = [source for source, _ in pairs(30, seed=5)]


@pytest.fixture(scope="module")
def small(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy run with attention, exported in int8."""
    out = tmp_path_factory.mktemp("exported") / "small"
    assert call("export", toy.attention, "--out", out).status == 0
    return out


def random_run(toy: Toy, folder: Path, changes: list[str]) -> Path:
    """A model folder with random weights."""
    shutil.copytree(toy.attention, folder)
    saved = checkpoint.read(folder)
    recipe = changed(saved.recipe, changes)
    vocab = Translator.load(toy.attention, threads=1).members[0].source.vocab
    model = build(recipe, vocab, vocab)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight) * 0.4)
    checkpoint.write_recipe(folder, recipe)
    checkpoint.write_weights(folder, checkpoint.parameters(model))
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        ["model.cell=lstm"],
        ["model.cell=gru"],
        ["model.cell=rnn"],
        ["model.cell=lstm", "model.decoder.cell=gru"],
        ["model.cell=gru", "model.decoder.cell=lstm", "model.encoder.layers=3", "model.decoder.layers=2"],
        ["model.encoder.layers=2", "model.decoder.layers=3", "model.residual=true", "model.attention_position=between"],
        ["model.encoder.direction=reversed", "model.encoder.hidden=32", "model.bridge=copy", "model.cell=lstm"],
        ["model.encoder.direction=forward", "model.bridge=zero"],
        ["model.attention=dot"],
        ["model.encoder.shortcut=true", "model.encoder.layers=2", "model.encoder.summary=mean"],
        ["model.encoder.shortcut=true", "model.encoder.direction=reversed"],
        ["model.attention=additive", "model.attention_position=between", "model.decoder.layers=2"],
        ["model.input_feeding=true", "model.cell=lstm"],
        ["model.input_feeding=true", "model.decoder.layers=2", "model.attention_position=between"],
        ["model.attention=none"],
        ["model.attention=none", "model.context_feeding=true", "model.encoder.summary=mean"],
        ["model.attention=none", "model.context_feeding=true", "model.encoder.summary=max", "model.residual=true"],
        ["model.residual=true", "model.embed=32", "model.decoder.layers=2"],
        ["model.tie=none"],
    ],
    ids=lambda changes: " ".join(change.removeprefix("model.") for change in changes),
)
def test_the_graphs_compute_what_the_network_does(toy: Toy, tmp_path: Path, changes: list[str]) -> None:
    run = random_run(toy, tmp_path / "run", changes)
    export(run, tmp_path / "out", "float32")
    (member,) = Translator.load(run, threads=1).members
    assert isinstance(member.model, Seq2Seq)
    native, other = Native(member.model), Portable(tmp_path / "out", threads=1)
    draw = torch.Generator().manual_seed(3)
    source = [torch.randint(4, 40, (length,), generator=draw).tolist() for length in (7, 4, 1)]
    target = [torch.randint(4, 40, (length,), generator=draw).tolist() for length in (2, 5, 3)]
    batch = collate(source, target)
    assert torch.allclose(native.log_probs(batch), other.log_probs(batch), atol=1e-4)

    # several hypotheses of a source, reordered, and a source that is dropped
    states = [engine.start(batch.source, batch.source_lengths) for engine in (native, other)]
    tokens = torch.full((3,), BOS)
    rows, kept = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 2])
    for step in range(4):
        (one, first), (two, second) = (
            engine(tokens, state) for engine, state in zip((native, other), states, strict=True)
        )
        assert torch.allclose(one, two, atol=1e-4)
        if first.attention is not None:
            assert torch.allclose(first.attention, second.attention, atol=1e-5)
        states = [first, second]
        if step == 0:
            states = [state.select(rows) for state in states]
        if step == 2:
            states = [state.keep(kept) for state in states]
        tokens = torch.randint(4, 40, (len(states[0].parts),), generator=draw)


def test_in_float32_it_translates_the_same(toy: Toy, tmp_path: Path) -> None:
    export(toy.fixed, tmp_path / "out", "float32")
    run, other = Translator.load(toy.fixed, threads=1), Translator.load(tmp_path / "out", threads=3)
    for settings in (
        [],
        ["search.method=greedy"],
        ["search.method=sample", "search.seed=4"],
        ["search.batch_tokens=9"],
    ):
        one, two = (each.adjusted(settings).translate(LINES) for each in (run, other))
        assert [each.text for each in one] == [each.text for each in two]
    one, two = (each.score(LINES, LINES[::-1]) for each in (run, other))
    assert [each.log_prob for each in one] == pytest.approx([each.log_prob for each in two], abs=1e-3)


@pytest.mark.parametrize("limits", [[], ["max_ratio=0.4", "max_extra=0"], ["min_ratio=1.5"]], ids=str)
def test_a_sentence_alone_is_one_call_of_the_loop(
    toy: Toy, tmp_path: Path, limits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    export(toy.attention, tmp_path / "out", "float32")
    changes = ["search.method=greedy", *(f"search.{one}" for one in limits)]
    run, other = (Translator.load(one, threads=1).adjusted(changes) for one in (toy.attention, tmp_path / "out"))
    if "max_extra=0" not in limits:  # what does not end in time is searched step by step
        monkeypatch.setattr(Portable, "__call__", lambda *_: pytest.fail("a step by itself"))
    for line in LINES:
        (mine,), (theirs,) = run.translate([line]), other.translate([line])
        assert theirs.text == mine.text
        assert theirs.log_probs == pytest.approx(mine.log_probs, abs=1e-4)
        assert theirs.score == pytest.approx(mine.score, abs=1e-4)


@pytest.fixture(scope="module")
def listed(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy run with attention, exported in float32 with a shortlist of 5 and few frequent pieces."""
    out = tmp_path_factory.mktemp("exported") / "listed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lexicon, "FREQUENT", 4)
        assert call("export", toy.attention, "--out", out, "--precision", "float32", "--shortlist", 5).status == 0
    return out


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_shortlist_is_a_part_of_the_vocabulary(
    toy: Toy, tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lexicon, "FREQUENT", 4)
    export(toy.attention, tmp_path / "all", precision)
    export(toy.attention, tmp_path / "out", precision, shortlist=2)
    whole, listed = (
        Translator.load(tmp_path / name, threads=1).adjusted(["search.method=greedy"]) for name in ("all", "out")
    )
    engine, source, target = listed.engines[0], listed.members[0].source, listed.members[0].target
    assert isinstance(engine, Portable)
    assert engine.shortlist is not None
    same = 0
    for line in LINES:
        pieces = set(engine.shortlist.pieces(source.encode([line]), []).tolist())
        assert len(pieces) < target.vocab, "else nothing of it is tried"
        one, two = (each.translate([line])[0] for each in (whole, listed))  # by the loop
        (stepwise,) = listed.translate([line], attention=True)
        assert {*target.ids(two.tokens)} <= pieces
        assert two.text == stepwise.text
        same += {*target.ids(one.tokens)} <= pieces and one.text == two.text
    assert same >= 20


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_with_a_shortlist_the_whole_vocabulary_is_still_there(toy: Toy, tmp_path: Path, precision: str) -> None:
    export(toy.attention, tmp_path / "all", precision)
    export(toy.attention, tmp_path / "out", precision, shortlist=5)
    one, other = (Translator.load(tmp_path / name, threads=1) for name in ("all", "out"))
    found, expected = (each.score(LINES, LINES[::-1]) for each in (other, one))
    for a, b in zip(found, expected, strict=True):
        assert a.log_probs == pytest.approx(b.log_probs, abs=1e-4 if precision == "float32" else 0.3)
    together = Translator.load(f"{tmp_path / 'out'}+{tmp_path / 'all'}", threads=1)
    assert together.translate(LINES[:3])[0].text


def test_with_a_shortlist_it_translates_the_same_where_the_list_has_it(toy: Toy, listed: Path) -> None:
    run, other = Translator.load(toy.attention, threads=1), Translator.load(listed, threads=1)
    engine, source = other.engines[0], other.members[0].source
    assert isinstance(engine, Portable)
    assert engine.shortlist is not None
    known = 0
    for line, one, two in zip(LINES, run.translate(LINES), other.translate(LINES), strict=True):
        pieces = engine.shortlist.pieces(source.encode([line]), [])
        inside = set(other.members[0].target.ids(one.tokens)) <= set(pieces.tolist())
        alone = other.translate([line], attention=True)[0]
        assert set(other.members[0].target.ids(alone.tokens)) <= set(pieces.tolist())
        known += inside and alone.text == one.text
        assert not inside or two.score >= one.score - 1e-3, "what is left has no less probability"
    assert known >= 20


def test_a_prefix_may_have_what_the_shortlist_has_not(toy: Toy, listed: Path) -> None:
    other = Translator.load(listed, threads=1)
    for changes in ([], ["search.method=greedy"]):
        for beginning in Translator.load(toy.attention, threads=1).translate(LINES[10:14]):
            found = other.adjusted(changes).translate([LINES[0]], prefixes=[beginning.text])
            assert found[0].text.startswith(beginning.text)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_loop_with_a_shortlist_is_the_search_step_by_step(
    toy: Toy, tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(toy.attention, tmp_path / "out", precision, shortlist=5)
    one = Translator.load(tmp_path / "out", threads=1).adjusted(["search.method=greedy", "search.min_ratio=0.5"])
    whole = [one.translate([line])[0] for line in LINES]
    monkeypatch.setattr(Portable, "greedy", lambda *_: ([], []))
    for line, other in zip(LINES, whole, strict=True):
        (steps,) = one.translate([line])
        assert other.text == steps.text
        assert other.log_probs == pytest.approx(steps.log_probs, abs=1e-4)


def test_a_shortlist_needs_the_training_pairs(toy: Toy, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(toy.attention, tmp_path / "run"))
    checkpoint.write_recipe(folder, changed(checkpoint.read(folder).recipe, ["data.train=gone"]))
    found = call("export", folder, "--out", tmp_path / "out", "--shortlist", 5)
    assert found.status == 1
    assert "gone" in found.error
    assert not (tmp_path / "out").exists()
    assert call("export", folder, "--out", tmp_path / "out").status == 0


def test_pairs_that_training_leaves_out_teach_a_shortlist_nothing(
    toy: Toy, listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lexicon, "FREQUENT", 4)  # as in `listed`
    corpus = Path(shutil.copytree(toy.corpus, tmp_path / "corpus"))
    for side, lines in (("en", ["kala " * 4000, "kala puu"]), ("de", ["fisch " * 4000, ""])):
        file = corpus / f"train.{side}"
        file.write_text("".join(f"{line}\n" for line in lines) + file.read_text(encoding="utf-8"), encoding="utf-8")
    folder = Path(shutil.copytree(toy.attention, tmp_path / "run"))
    checkpoint.write_recipe(folder, changed(checkpoint.read(folder).recipe, [f"data.path={corpus}"]))
    found = call("export", folder, "--out", tmp_path / "out", "--precision", "float32", "--shortlist", 5)
    assert found.status == 0, found.err
    one, two = (checkpoint.load_file(each / portable.SHORTLIST) for each in (listed, tmp_path / "out"))
    assert one["likely"].equal(two["likely"])
    assert one["common"].equal(two["common"])


def test_in_int8_it_is_smaller_and_translates_nearly_the_same(toy: Toy, small: Path, tmp_path: Path) -> None:
    exact = tmp_path / "exact"
    assert call("export", toy.attention, "--out", exact, "--precision", "float32").status == 0
    shared, weights = ((folder / portable.SHARED).stat().st_size for folder in (small, exact))
    assert shared < 0.4 * weights
    run, other = (Translator.load(folder, threads=1) for folder in (toy.attention, small))
    one, two = (each.translate(LINES, attention=True) for each in (run, other))
    assert sum(a.text == b.text for a, b in zip(one, two, strict=True)) >= 27
    assert any(a.score != b.score for a, b in zip(one, two, strict=True))
    assert two[0].attention is not None
    assert two[0].attention.sum(1).tolist() == pytest.approx([1.0] * len(two[0].attention), abs=1e-4)
    assert other.alternatives(LINES[0], two[0].tokens[:1])[0].probability > 0


def test_every_verb_reads_it_like_a_run(toy: Toy, small: Path) -> None:
    found = call("translate", f"{small}+{toy.attention}", stdin="kala juo\n")
    assert found.status == 0
    assert found.out.strip()
    assert "exported     as ONNX, int8" in call("info", small).out
    assert "BLEU" in call("evaluate", small).out


def test_info_tells_of_a_shortlist(listed: Path) -> None:
    assert "exported     as ONNX, float32, shortlist of 5" in call("info", listed).out


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["export", "RUN", "--out", "SMALL"], 2, "exists: choose another folder"),
        (["export", "SMALL", "--out", "new"], 2, "is exported already"),
        (["export", "nothing", "--out", "new"], 1, "no such model folder"),
        (["translate", "SMALL", "--set", "search.precision=bf16"], 2, "an exported translator computes as"),
        (["train", "SMALL/recipe.yaml", "--out", "SMALL", "--resume"], 2, "is an exported translator"),
        (["train", "SMALL/recipe.yaml", "--out", "new", "--set", "training.init_from=SMALL"], 1, "without its weights"),
    ],
)
def test_what_does_not_fit_is_told_in_a_line(
    toy: Toy, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], status: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [arg.replace("RUN", str(toy.attention)).replace("SMALL", str(small)) for arg in args]
    found = call(*given, stdin="kala\n")
    assert found.status == status
    assert said in found.error
    assert not (tmp_path / "new").exists()


def test_a_damaged_graph_is_named(small: Path, tmp_path: Path) -> None:
    for name in (portable.ENCODER, portable.DECODER, portable.GREEDY):
        folder = Path(shutil.copytree(small, tmp_path / name))
        (folder / name).write_bytes((folder / name).read_bytes()[:1000])
        with pytest.raises(CheckpointError, match=f"{name}: onnxruntime cannot open it"):
            Translator.load(folder)
        (folder / name).unlink()
        with pytest.raises(CheckpointError, match=f"{name}: missing"):
            Translator.load(folder)
    (folder / portable.DECODER).write_bytes((small / portable.DECODER).read_bytes())
    (folder / portable.SHARED).unlink()
    with pytest.raises(CheckpointError, match=f"{portable.DECODER}: onnxruntime cannot open it"):
        Translator.load(folder)


def test_a_folder_of_links_is_refused_with_the_reason(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "linked"
    folder.mkdir()
    for file in small.iterdir():
        (folder / file.name).symlink_to(file)
    with pytest.raises(CheckpointError, match=r"decoder\.weights is a symbolic link"):
        Translator.load(folder)


def test_an_export_that_was_stopped_leaves_nothing(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write_recipe", stopped)
    with pytest.raises(KeyboardInterrupt):
        export(toy.attention, tmp_path / "out", "float32")
    assert not list(tmp_path.iterdir())


def test_a_shortlist_is_no_longer_than_the_vocabulary(toy: Toy, tmp_path: Path) -> None:
    export(toy.attention, tmp_path / "out", shortlist=100_000)
    likely = load_file(tmp_path / "out" / portable.SHORTLIST)["likely"]
    assert likely.size(1) <= Tokenizer.load(toy.attention / "target.model").vocab + 1
    with pytest.raises(CallError, match="a shortlist of -1 pieces"):
        export(toy.attention, tmp_path / "other", shortlist=-1)


def test_a_shortlist_of_something_else_is_named(toy: Toy, listed: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(listed, tmp_path / "mixed"))
    shutil.copy(toy.attention / "model.safetensors", folder / portable.SHORTLIST)
    with pytest.raises(CheckpointError, match=rf"{portable.SHORTLIST}: not of this folder"):
        Translator.load(folder)
    tensors = load_file(listed / portable.SHORTLIST)
    del tensors["bias"]
    save_file(tensors, folder / portable.SHORTLIST)
    with pytest.raises(CheckpointError, match=rf"{portable.SHORTLIST}: not of this folder"):
        Translator.load(folder)


def test_a_damaged_shortlist_is_named(listed: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(listed, tmp_path / "damaged"))
    for content in (b"", (folder / portable.SHORTLIST).read_bytes()[:500]):
        (folder / portable.SHORTLIST).write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"{portable.SHORTLIST}: not a safetensors file"):
            Translator.load(folder)


def test_without_onnx_it_says_what_to_install(
    toy: Toy, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(CallError, match=r"needs onnx and onnxruntime: pip install 'recurrent-nmt\[onnx\]'"):
        export(toy.attention, tmp_path / "out")
    with pytest.raises(CallError, match=r"needs onnx and onnxruntime: pip install 'recurrent-nmt\[onnx\]'"):
        Translator.load(small)
