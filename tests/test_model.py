"""The translator as a network, over the grid of its parts: what must hold whatever the recipe says."""

from __future__ import annotations

import itertools
import os
import platform
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cache, reduce
from operator import add

import pytest
import torch
from torch import Tensor

from nmt.attention import ATTENTIONS
from nmt.cells import CELLS, Shares
from nmt.context import BRIDGES, Bridge
from nmt.data import Batch, collate
from nmt.decoder import POSITIONS, Decoder, State
from nmt.encoder import DIRECTIONS, Encoder
from nmt.errors import RecipeError
from nmt.hardware import trains_in_bf16
from nmt.model import Seq2Seq, build, sizes
from nmt.recipe import parse
from nmt.search import Options, Request, search
from nmt.stepper import Stepper, unroll
from nmt.tokenizer import BOS, EOS, PAD, UNK

V, W = 11, 13  # pieces of the source and of the target
TIES = ("none", "target", "all")


@dataclass(frozen=True)
class Point:
    """One point of the grid."""

    cell: str = "gru"
    attention: str = "general"
    position: str = "after"
    layers: int = 2
    input_feeding: bool = False
    context_feeding: bool = False

    def __str__(self) -> str:
        feeds = ("-input" if self.input_feeding else "") + ("-context" if self.context_feeding else "")
        return f"{self.cell}-{self.attention}-{self.position}-{self.layers}{feeds}"

    @property
    def valid(self) -> bool:
        if self.attention == "none":
            return self.position == "after" and not self.input_feeding
        if self.input_feeding and self.context_feeding:  # FEW has both
            return False
        return self.position == "after" or self.layers > 1


GRID = [
    point
    for parts in itertools.product(CELLS, ATTENTIONS, POSITIONS, (1, 2), (False, True), (False, True))
    if (point := Point(*parts)).valid
]
FEW = [
    Point(),
    Point("lstm", "additive", "between", 3, True),
    Point("rnn", "dot", "between", 2, True, True),
    Point("lstm", "none", layers=2, context_feeding=True),
    Point("gru", "none", layers=1),
    Point("lstm", "dot", "after", 1, True),
]
grid = pytest.mark.parametrize("point", GRID, ids=str)
some = pytest.mark.parametrize("point", list(dict.fromkeys(FEW + GRID[::7])), ids=str)
few = pytest.mark.parametrize("point", FEW, ids=str)


@cache
def make(point: Point, dropout: float = 0.0, residual: bool = False) -> Seq2Seq:
    """A model with every bias away from zero. Tests share it: they change no weight and leave no gradient."""
    encoder = Encoder(V, 5, 3, point.layers, point.cell, residual=residual, dropout=Shares(*(dropout,) * 3))
    decoder = Decoder(
        W,
        5,
        6,
        point.layers,
        point.cell,
        encoder.width,
        point.attention,
        point.position,
        point.input_feeding,
        point.context_feeding,
        residual,
        False,
        Shares(*(dropout,) * 3),
    )
    bridge = Bridge("linear", (point.cell, point.cell), (point.layers, point.layers), (encoder.width, 6))
    model = Seq2Seq(encoder, bridge, decoder)
    for weight in model.parameters():
        if weight.dim() == 1:
            torch.nn.init.uniform_(weight, -0.5, 0.5)
    return model


PAIRS = [([5, 4, 9, 3], [7, 3]), ([8], [6, 9, 12, 4]), ([3, 10], []), ([7, 7, 4], [4, 4, 11])]


def batch_of(pairs: list[tuple[list[int], list[int]]]) -> Batch:
    return collate([source for source, _ in pairs], [target for _, target in pairs])


BATCH = batch_of(PAIRS)


def begin(model: Seq2Seq, batch: Batch = BATCH) -> State:
    return model.start(batch.source, batch.source_lengths)


def stepwise(model: Seq2Seq, tokens: Tensor, state: State) -> tuple[Tensor, Tensor | None]:
    """Logits (N, T, W) and attention (N, T, S) of steps with T = 1."""
    logits, looks = [], []
    for token in torch.split(tokens, 1, dim=1):
        out, state = model.decoder(token, state)
        logits.append(out)
        if state.attention is not None:
            looks.append(state.attention)
    return torch.cat(logits, dim=1), torch.cat(looks, dim=1) if looks else None


def close(one: State, other: State) -> None:
    """The moving parts of two states are equal."""
    for a, b in zip(one.lower + one.upper, other.lower + other.upper, strict=True):
        torch.testing.assert_close(a, b)
    for a, b in ((one.feed, other.feed), (one.attention, other.attention)):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a, b)


# -- one forward for teacher forcing and for decoding


@grid
@torch.no_grad()
def test_step_equals_sequence(point: Point) -> None:
    model = make(point)
    whole, end = model.decoder(BATCH.target_in, begin(model))
    logits, looks = stepwise(model, BATCH.target_in, begin(model))
    torch.testing.assert_close(logits, whole)
    assert (looks is None) == (point.attention == "none")
    if looks is not None:
        torch.testing.assert_close(end.attention, looks)
        torch.testing.assert_close(looks.sum(2), torch.ones(looks.shape[:2]))


def by_the_equations(decoder: Decoder, tokens: Tensor, state: State) -> Tensor:
    """Logits (N, T, W) by the equations at the head of nmt/decoder.py, step by step."""
    source, lower, upper = state.source, state.lower, state.upper
    feed = torch.zeros(tokens.size(0), 1, decoder.embed)
    logits = []
    for token in torch.split(tokens, 1, dim=1):
        x = decoder.embedding(token)
        x = torch.cat([x, feed], dim=2) if decoder.input_feeding else x
        x = torch.cat([x, source.summary], dim=2) if decoder.context_feeding else x
        out, lower = decoder.lower(x, lower)
        seen = source.summary if decoder.context_feeding else torch.zeros(tokens.size(0), 1, 0)
        if decoder.attention is not None:
            seen, _ = decoder.attention(out, source.keys, source.memory, source.mask)
        if decoder.upper is not None:
            out, upper = decoder.upper(torch.cat([out, seen], dim=2), upper)
        feed = torch.tanh(decoder.readout(torch.cat([out, seen], dim=2)))
        logits.append(decoder.output(feed))
    return torch.cat(logits, dim=1)


@some
@torch.no_grad()
def test_the_decoder_equals_its_equations(point: Point) -> None:
    model = make(point)
    logits, _ = model.decoder(BATCH.target_in, begin(model))
    torch.testing.assert_close(logits, by_the_equations(model.decoder, BATCH.target_in, begin(model)))


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_the_state_begins_with_the_bridge_and_the_summary_is_the_top_layer(cell: str) -> None:
    model = make(Point(cell, "additive", "between", 3, True))
    context = model.encoder(BATCH.source, BATCH.source_lengths)
    state = begin(model)
    assert state.lower[0].size(0) == 1, "attention sits between the first layer and the rest"
    for number, part in enumerate(model.bridge(context.final)):
        torch.testing.assert_close(torch.cat([state.lower[number], state.upper[number]]), part)
    torch.testing.assert_close(state.source.summary[:, 0], context.final[0][-1])
    torch.testing.assert_close(state.source.memory, context.memory)


@few
@torch.no_grad()
def test_a_sequence_may_be_cut_anywhere(point: Point) -> None:
    model = make(point, residual=True)
    whole, end = model.decoder(BATCH.target_in, begin(model))
    for cut in range(1, BATCH.target_in.size(1)):
        first, state = model.decoder(BATCH.target_in[:, :cut], begin(model))
        second, state = model.decoder(BATCH.target_in[:, cut:], state)
        torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
        close(replace(state, attention=None), replace(end, attention=None))


@few
@torch.no_grad()
def test_dropout_masks_are_held_over_the_steps(point: Point) -> None:
    """In training too, step by step gives what one call gives: the masks are the sequence's, not the step's."""
    model = make(point, dropout=0.4)
    state = begin(model)
    whole, _ = model.decoder(BATCH.target_in, state)
    logits, _ = stepwise(model, BATCH.target_in, state)
    torch.testing.assert_close(logits, whole)
    assert not torch.allclose(model.decoder(BATCH.target_in, begin(model))[0], whole), "another sequence, other masks"


@some
@torch.no_grad()
def test_padding_changes_no_logits(point: Point) -> None:
    model = make(point)
    wide = batch_of([*PAIRS, ([4] * 9, [5] * 8)])
    logits, _ = model.decoder(wide.target_in, begin(model, wide))
    for row, pair in enumerate(PAIRS):
        alone = batch_of([pair])
        own, _ = model.decoder(alone.target_in, begin(model, alone))
        torch.testing.assert_close(logits[row, : own.size(1)], own[0])


@few
@torch.no_grad()
def test_what_pads_a_source_does_not_matter(point: Point) -> None:
    model = make(point)
    real = torch.arange(BATCH.source.size(1)) < BATCH.source_lengths.unsqueeze(1)
    other = replace(BATCH, source=torch.where(real, BATCH.source, torch.randint(V, BATCH.source.shape)))
    one, two = (model.decoder(BATCH.target_in, begin(model, batch))[0] for batch in (BATCH, other))
    torch.testing.assert_close(one, two)


@some
def test_the_future_is_not_seen(point: Point) -> None:
    model = make(point)
    tokens = BATCH.target_in[1:2]
    whole, _ = model.decoder(tokens, begin(model, batch_of(PAIRS[1:2])))
    changed = tokens.clone()
    changed[:, 3:] = 7
    other, _ = model.decoder(changed, begin(model, batch_of(PAIRS[1:2])))
    torch.testing.assert_close(other[:, :3], whole[:, :3])
    assert not torch.isclose(other[:, 3:], whole[:, 3:]).all(dim=2).any()


# -- parameters


@grid
def test_all_parameters_get_gradients_and_the_sides_share_none(point: Point) -> None:
    model = make(point)
    names, weights = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(model.loss(BATCH, 0.1).total, weights, allow_unused=True)
    for name, gradient in zip(names, gradients, strict=True):
        assert gradient is not None, name
        assert gradient.any(), name
        assert gradient.isfinite().all(), name
    sides = [{weight.data_ptr() for weight in part.parameters()} for part in model.children()]
    assert not any(one & other for one, other in itertools.combinations(sides, 2))


BASE = {"data": {"source": "en", "target": "de", "path": "x"}}


def built(**model: object) -> Seq2Seq:
    content = {
        "embed": 6,
        "encoder": {"hidden": 3, "layers": 2},
        "decoder": {"hidden": 6, "layers": 2},
        "dropout": {"embedding": 0, "layers": 0, "output": 0},
        **model,
    }
    return build(parse(BASE | {"model": content}, "test"), V, V if model.get("tie", "all") == "all" else W)


@pytest.mark.parametrize("tie", TIES)
def test_ties_share_exactly_what_they_say(tie: str) -> None:
    model = built(tie=tie)
    weights = [model.encoder.embedding.weight, model.decoder.embedding.weight, model.decoder.output.weight]
    expected = {"none": [0, 1, 2], "target": [0, 1, 1], "all": [0, 0, 0]}[tie]
    shared = [next(first for first, other in enumerate(weights) if other is weight) for weight in weights]
    assert shared == expected
    distinct = len({id(weight) for weight in weights})
    assert len(list(model.parameters())) == len(list(built(tie="none").parameters())) - (3 - distinct)
    one, other = dict(model.encoder.named_parameters()), dict(model.decoder.named_parameters())
    common = {id(weight) for weight in one.values()} & {id(weight) for weight in other.values()}
    assert len(common) == (1 if tie == "all" else 0)


@pytest.mark.parametrize("tie", TIES)
@few
def test_sizes_add_up(tie: str, point: Point) -> None:
    feeds = {"input_feeding": point.input_feeding and point.attention != "none"}
    feeds["context_feeding"] = point.attention == "none"
    between = {"attention_position": point.position, "decoder": {"hidden": 6, "layers": point.layers}}
    model = built(tie=tie, cell=point.cell, attention=point.attention, **feeds, **between)
    counts = sizes(model)
    assert sum(counts.values()) == sum(weight.numel() for weight in model.parameters())
    assert list(counts) == ["encoder", "bridge", "decoder"]


@pytest.mark.parametrize("direction", DIRECTIONS[1:])
@pytest.mark.parametrize(("one", "other"), list(itertools.product(CELLS, CELLS)))
@pytest.mark.parametrize("bridge", BRIDGES)
def test_build_joins_any_two_sides(direction: str, one: str, other: str, bridge: str) -> None:
    width = 3 if direction == "bidirectional" else 6
    choices = {
        "encoder": {"cell": one, "direction": direction, "hidden": width, "layers": 2},
        "decoder": {"cell": other, "hidden": 6, "layers": 2},
        "bridge": bridge,
    }
    if bridge == "copy" and other == "lstm" and one != "lstm":
        with pytest.raises(RecipeError, match="copy"):
            built(**choices)
        return
    model = built(tie="target", **choices)
    logits, state = model.decoder(BATCH.target_in, begin(model))
    assert logits.shape == (*BATCH.target_in.shape, W)
    assert len(state.lower) == len(begin(model).lower) == (2 if other == "lstm" else 1)
    loss = model.loss(BATCH)
    loss.total.backward()
    idle = {name for name, weight in model.encoder.named_parameters() if weight.grad is None or not weight.grad.any()}
    assert not idle


def test_a_decoder_refuses_what_does_not_go_together() -> None:
    for match, arguments in {
        "between decoder layers": {"attention": "general", "position": "between", "layers": 1},
        "input feeding": {"input_feeding": True},
        "after, between": {"attention": "general", "position": "before"},
    }.items():
        with pytest.raises(ValueError, match=match):
            Decoder(W, 5, 6, memory=6, **arguments)  # type: ignore[arg-type]


# -- the state is a value


def moved(model: Seq2Seq, tokens: Tensor, batch: Batch = BATCH) -> State:
    return model.decoder(tokens, begin(model, batch))[1]


@few
@torch.no_grad()
def test_a_state_is_never_changed_in_place(point: Point) -> None:
    model = make(point)
    state = begin(model)
    before = [part.clone() for part in state.lower + state.upper]
    one, _ = model.decoder(BATCH.target_in, state)
    other, _ = model.decoder(BATCH.target_in, state)
    assert torch.equal(one, other)
    assert all(torch.equal(a, b) for a, b in zip(before, state.lower + state.upper, strict=True))


@some
@torch.no_grad()
def test_keep_equals_those_sources_alone(point: Point) -> None:
    model = make(point)
    tokens = BATCH.target_in[:, :2]
    chosen = torch.tensor([3, 1])
    pairs = batch_of([PAIRS[i] for i in chosen.tolist()])
    kept, alone = moved(model, tokens).keep(chosen), moved(model, tokens[chosen], pairs)
    width = pairs.source.size(1)
    if kept.attention is not None:
        kept = replace(kept, attention=kept.attention[:, :, :width])
    close(kept, alone)
    following = torch.tensor([[4], [9]])
    torch.testing.assert_close(model.decoder(following, kept)[0], model.decoder(following, alone)[0])


@some
@torch.no_grad()
def test_hypotheses_share_the_memory_and_equal_separate_computing(point: Point) -> None:
    """K hypotheses of each source, reordered and dropped, are what each would be with its source to itself."""
    model = make(point)
    draw = torch.Generator().manual_seed(1)
    k = 3
    histories = torch.randint(3, W, (len(PAIRS) * k, 3), generator=draw)  # (N, 3)
    state = begin(model).select(torch.arange(len(PAIRS)).repeat_interleave(k))
    logits, state = model.decoder(histories, state)
    assert state.source.memory.size(0) == len(PAIRS)
    rows = torch.cat([place * k + torch.randint(k, (2,), generator=draw) for place in range(len(PAIRS))])
    state = state.select(rows).keep(torch.tensor([0, 1, 3]))
    rows = rows[[0, 1, 2, 3, 6, 7]]
    following = torch.randint(3, W, (len(rows), 1), generator=draw)
    after, _ = model.decoder(following, state)
    for place, row in enumerate(rows.tolist()):
        alone = batch_of([PAIRS[row // k]])
        own, end = model.decoder(histories[row : row + 1], begin(model, alone))
        torch.testing.assert_close(logits[row], own[0])
        torch.testing.assert_close(after[place], model.decoder(following[place : place + 1], end)[0][0])


# -- the loss


@few
def test_the_loss_does_not_depend_on_how_a_batch_is_split(point: Point) -> None:
    model = make(point)
    whole = model.loss(BATCH, 0.1)
    weights = list(model.parameters())
    expected = torch.autograd.grad(whole.total, weights)
    for groups in ([[0], [1], [2], [3]], [[3, 0], [2, 1]], [[1], [0, 2, 3]]):
        split = reduce(add, (model.loss(batch_of([PAIRS[i] for i in group]), 0.1) for group in groups))
        assert split.count == whole.count == (BATCH.target_out != PAD).sum()
        torch.testing.assert_close(split.total, whole.total)
        torch.testing.assert_close(split.nll, whole.nll)
        for one, other in zip(torch.autograd.grad(split.total, weights), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@few
@torch.no_grad()
def test_log_probs_are_the_loss_piece_by_piece(point: Point) -> None:
    model = make(point)
    log_probs = model.log_probs(BATCH)
    assert not log_probs[BATCH.target_out == PAD].any()
    torch.testing.assert_close(-log_probs.sum(), model.loss(BATCH).total)
    for row, pair in enumerate(PAIRS):
        alone = model.loss(batch_of([pair]))
        torch.testing.assert_close(-log_probs[row].sum(), alone.nll)


@few
def test_scheduled_sampling_with_gold_words_is_teacher_forcing(point: Point) -> None:
    model = make(point)
    state = begin(model)
    forced, _ = model.decoder.features(BATCH.target_in, state)
    torch.testing.assert_close(model._scheduled(BATCH.target_in, state, 1.0)[0], forced)
    torch.testing.assert_close(model.loss(BATCH, forcing=1 - 1e-9).total, model.loss(BATCH).total)
    assert not torch.isclose(model.loss(BATCH, forcing=0.0).total, model.loss(BATCH).total)


@few
def test_scheduled_sampling_without_gold_words_feeds_the_models_own(point: Point) -> None:
    model = make(point)
    tokens, state, logits = BATCH.target_in[:, :1], begin(model), []
    for _ in range(BATCH.target_in.size(1)):
        out, state = model.decoder(tokens, state)
        tokens = out.argmax(2)
        logits.append(out)
    real = BATCH.target_out != PAD
    expected = torch.nn.functional.cross_entropy(torch.cat(logits, 1)[real], BATCH.target_out[real], reduction="sum")
    loss = model.loss(BATCH, forcing=0.0)
    torch.testing.assert_close(loss.total, expected)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss.total, list(model.parameters())))


# -- attention that is shown where to look


@pytest.mark.parametrize("point", [one for one in GRID if one.attention != "none"], ids=str)
@pytest.mark.parametrize("way", ["forced", "scheduled"])
def test_attention_is_guided_by_an_alignment(point: Point, way: str) -> None:
    model = make(point)
    alignment = torch.rand(BATCH.target_out.size(1), *BATCH.source.shape).transpose(0, 1)  # (B, T, S)
    batch = replace(BATCH, alignment=alignment * (BATCH.target_out != PAD).unsqueeze(2))
    looked = model.decoder.features(BATCH.target_in, begin(model))[1].attention
    assert looked is not None
    expected = -2.0 * (batch.alignment * looked.clamp_min(1e-6).log()).sum()
    flags = {"forced": {}, "scheduled": {"forcing": 1 - 1e-9}}[way]
    loss, plain = model.loss(batch, guidance=2.0, **flags), model.loss(BATCH, guidance=2.0, **flags)
    torch.testing.assert_close(loss.total - plain.total, expected, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(loss.nll, plain.nll)
    assert loss.count == plain.count


# -- the step made ready for search


def same_steps(model: Seq2Seq, precision: str, tolerance: float) -> None:
    """The stepper against the decoder: along a sequence, after hypotheses moved, after a source was dropped."""
    stepper = Stepper(model.decoder, precision)
    with torch.inference_mode():
        context = model.encoder(BATCH.source, BATCH.source_lengths)
        place, state = stepper.start(model.bridge(context.final), context), begin(model)
        tokens = torch.tensor([BOS] * 4)
        for number in range(6):
            logits, state = model.decoder(tokens.unsqueeze(1), state)
            log_probs, place = stepper(tokens, place)
            torch.testing.assert_close(log_probs, logits[:, 0].log_softmax(1), atol=tolerance, rtol=tolerance)
            if state.attention is not None:
                torch.testing.assert_close(place.attention, state.attention, atol=tolerance, rtol=tolerance)
            if number == 1:  # two hypotheses of each source
                rows = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
                state, place, tokens = state.select(rows), place.select(rows), tokens[rows]
            if number == 3:
                sources = torch.tensor([0, 2, 3])
                state, place, tokens = state.keep(sources), place.keep(sources), tokens[:6]
            tokens = (tokens * 5 + 3 * torch.arange(len(tokens)) + number) % W


@grid
def test_the_stepper_is_the_decoder(point: Point) -> None:
    same_steps(make(point), "float32", 1e-5)


@few
def test_the_stepper_is_the_decoder_with_residual_connections(point: Point) -> None:
    same_steps(make(point, residual=True), "float32", 1e-5)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("feeding", [False, True])
def test_the_stepper_passes_on_the_input_of_the_first_layer(cell: str, feeding: bool) -> None:
    encoder = Encoder(V, 6, 3, cell=cell)
    decoder = Decoder(W, 3 if feeding else 6, 6, 2, cell, 6, "dot", "between", input_feeding=feeding, residual=True)
    same_steps(Seq2Seq(encoder, Bridge("linear", (cell, cell), (1, 2), (6, 6)), decoder), "float32", 1e-5)


@few
def test_the_stepper_is_the_decoder_without_a_table(point: Point, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nmt.stepper.LARGEST", 0)
    same_steps(make(point), "float32", 1e-5)


@few
def test_the_stepper_in_bf16_is_close(point: Point) -> None:
    same_steps(make(point), "bf16", 0.1)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="an instruction set of x86_64 is taken away")
def test_a_cpu_without_bf16_computes_it_all_the_same() -> None:
    script = (
        "import torch; from nmt.stepper import product; w, x = torch.randn(6, 8), torch.randn(3, 8)\n"
        "assert not torch.ops.mkldnn._is_mkldnn_bf16_supported()\n"
        "torch.testing.assert_close(product(w, None, torch.bfloat16)(x), x @ w.t(), rtol=0.05, atol=0.1)"
    )
    env = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    found = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_the_stepper_refuses_an_unknown_precision() -> None:
    with pytest.raises(ValueError, match=r"int4.*float32, bf16"):
        Stepper(make(FEW[0]).decoder, "int4")


@pytest.mark.parametrize("point", [one for one in GRID if one.input_feeding], ids=str)
@pytest.mark.parametrize("residual", [False, True])
def test_unrolling_is_the_decoder_with_the_same_gradients(point: Point, residual: bool) -> None:
    model = make(point, 0.3, residual)
    tokens = BATCH.target_in
    state = model.start(BATCH.source, BATCH.source_lengths)
    (slow, after), (fast, attention) = model.decoder.features(tokens, state), unroll(model.decoder, tokens, state)
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(attention, after.attention)
    outer = torch.randn_like(slow)
    weights = [weight for weight in model.parameters() if weight is not model.decoder.output.weight]
    both = [torch.autograd.grad(one, weights, outer, retain_graph=True, allow_unused=True) for one in (slow, fast)]
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-4)


@pytest.mark.skipif(not trains_in_bf16(), reason="this CPU does not compute LSTMs in bfloat16")
@pytest.mark.parametrize("cell", CELLS)
def test_unrolling_in_bf16_is_close(cell: str) -> None:
    model = make(Point(cell, "general", "between", 2, True))
    weights = [weight for weight in model.parameters() if weight is not model.decoder.output.weight]
    found = []
    for low in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            features, _ = unroll(model.decoder, BATCH.target_in, model.start(BATCH.source, BATCH.source_lengths))
        found.append([features, *torch.autograd.grad(features.sum(), weights, allow_unused=True)])
    for one, other in zip(*found, strict=True):
        if one is not None:
            torch.testing.assert_close(other.float(), one, atol=0.05 * one.abs().max().item() + 1e-3, rtol=0.05)


# -- searching with it


@few
@pytest.mark.parametrize("method", ["beam", "sample"])
def test_search_says_what_forced_decoding_says(point: Point, method: str) -> None:
    model = make(point)

    def step(tokens: Tensor, state: State) -> tuple[Tensor, State]:
        logits, state = model.decoder(tokens.unsqueeze(1), state)
        return logits[:, 0].log_softmax(1), state

    requests = [Request(limit, source=source) for limit, (source, _) in zip((5, 2, 7, 4), PAIRS, strict=True)]
    options = Options(method, beam=4, nbest=3, length_penalty=0.0)
    found = search(step, begin(model), requests, options, BOS, EOS, (PAD, BOS, UNK), attention=True)
    for (source, _), hypotheses in zip(PAIRS, found, strict=True):
        for one in hypotheses:
            batch = batch_of([(source, one.ids)])
            with torch.no_grad():
                expected = model.log_probs(batch)[0]
                _, end = model.decoder(batch.target_in, begin(model, batch))
            steps, width = len(one.log_probs), len(source) + 1
            torch.testing.assert_close(torch.tensor(one.log_probs), expected[:steps])
            assert one.score == pytest.approx(expected.sum().item(), rel=1e-4)
            if end.attention is None:
                assert one.attention is None
            else:
                assert one.attention is not None
                torch.testing.assert_close(one.attention[:, :width], end.attention[0, :steps, :width])


# -- it learns

LEARNERS = [Point("gru", "none", layers=1, context_feeding=True), Point("lstm", "general", "between", 2)]


def learner(point: Point, vocab: int, embed: int = 32, width: int = 64) -> Seq2Seq:
    encoder = Encoder(vocab, embed, width // 2, 1, point.cell)
    choices = (encoder.width, point.attention, point.position)
    decoder = Decoder(vocab, embed, width, point.layers, point.cell, *choices, context_feeding=point.context_feeding)
    bridge = Bridge("linear", (point.cell, point.cell), (1, point.layers), (encoder.width, width))
    return Seq2Seq(encoder, bridge, decoder)


@pytest.mark.parametrize("task", ["copy", "reverse"])
@pytest.mark.parametrize("point", LEARNERS, ids=str)
def test_copying_and_reversing_are_learnt(point: Point, task: str) -> None:
    """More than 95 % of the pieces of fresh sequences right, in seconds."""
    draw = torch.Generator().manual_seed(3)

    def pairs(count: int) -> Batch:
        lengths = torch.randint(1, 5, (count,), generator=draw).tolist()
        sources = [torch.randint(4, 10, (n,), generator=draw).tolist() for n in lengths]
        return batch_of([(source, source if task == "copy" else source[::-1]) for source in sources])

    model = learner(point, vocab=10)
    optimizer = torch.optim.Adam(model.parameters(), lr=8e-3)
    test = pairs(200)
    real, share = test.target_out != PAD, 0.0
    for _ in range(40):
        for _ in range(15):
            loss = model.loss(pairs(32))
            optimizer.zero_grad()
            (loss.total / loss.count).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        with torch.no_grad():
            logits, _ = model.decoder(test.target_in, begin(model, test))
        share = (logits.argmax(2) == test.target_out)[real].float().mean().item()
        if share > 0.95:
            return
    pytest.fail(f"only {share:.1%} are right after 600 updates")
