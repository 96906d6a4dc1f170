"""What an encoder gives, and what a decoder starts from."""

from __future__ import annotations

import itertools

import pytest
import torch

from nmt.cells import CELLS, Shares, States
from nmt.context import BRIDGES, Bridge
from nmt.encoder import DIRECTIONS, SUMMARIES, Encoder

B, S, V = 3, 6, 11
LENGTHS = torch.tensor([6, 2, 4])

PAIRS = list(itertools.product(CELLS, CELLS))
DEPTHS = [(1, 1), (2, 2), (1, 3), (3, 1), (2, 3)]
WIDTHS = [(4, 4), (6, 4), (4, 6)]


def final_of(cell: str, layers: int, width: int) -> States:
    """Random final states of an encoder."""
    return tuple(torch.randn(layers, B, width) for _ in range(2 if cell == "lstm" else 1))


def copies(cells: tuple[str, str], layers: tuple[int, int], widths: tuple[int, int]) -> bool:
    """Whether a decoder can take the states over as they are."""
    return layers[0] == layers[1] and widths[0] == widths[1] and not (cells[1] == "lstm" and cells[0] != "lstm")


@pytest.mark.parametrize("kind", BRIDGES)
@pytest.mark.parametrize("cells", PAIRS)
@pytest.mark.parametrize("layers", DEPTHS)
def test_bridge_over_its_grid(kind: str, cells: tuple[str, str], layers: tuple[int, int]) -> None:
    for widths in WIDTHS:
        if kind == "copy" and not copies(cells, layers, widths):
            continue
        bridge = Bridge(kind, cells, layers, widths)
        final = final_of(cells[0], layers[0], widths[0])
        state = bridge(final)
        shape = (layers[1], B, widths[1])
        assert [part.shape for part in state] == [shape] * (2 if cells[1] == "lstm" else 1)
        for number, part in enumerate(state):
            carried = number < (2 if cells == ("lstm", "lstm") else 1)
            if kind == "zero" or not carried:
                assert not part.any()
            elif kind == "copy":
                assert torch.equal(part, final[number])
            else:
                for layer in range(layers[1]):
                    source = max(0, layers[0] - layers[1] + layer)  # layers meet at the top
                    w = bridge.maps[number * layers[1] + layer]
                    expected = torch.tanh(final[number][source] @ w.weight.T + w.bias)
                    torch.testing.assert_close(part[layer], expected)


@pytest.mark.parametrize(
    ("cells", "layers", "widths"),
    [
        (("gru", "gru"), (1, 2), (4, 4)),
        (("gru", "gru"), (2, 2), (8, 4)),
        (("gru", "lstm"), (1, 1), (4, 4)),
        (("rnn", "lstm"), (3, 2), (4, 5)),
    ],
)
def test_copy_refuses_unequal_shapes_and_names_both(
    cells: tuple[str, str], layers: tuple[int, int], widths: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match="copy") as caught:
        Bridge("copy", cells, layers, widths)
    for cell, depth, width in zip(cells, layers, widths, strict=True):
        assert cell in str(caught.value)
        assert f"{depth} " in str(caught.value)
        assert f"of {width}" in str(caught.value)


def test_unknown_names_are_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="linear, copy, zero"):
        Bridge("magic", ("gru", "gru"), (1, 1), (4, 4))
    with pytest.raises(ValueError, match="forward, reversed, bidirectional"):
        Encoder(V, 4, 4, direction="sideways")
    with pytest.raises(ValueError, match="last, mean, max"):
        Encoder(V, 4, 4, summary="median")


@pytest.mark.parametrize("kind", ["copy", "linear"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
def test_both_directions_reach_the_first_state(kind: str, cell: str, layers: int) -> None:
    encoder = Encoder(V, 5, 4, layers, cell, "bidirectional")
    bridge = Bridge(kind, (cell, cell), (layers, layers), (8, 8))
    state = bridge(encoder(torch.randint(V, (B, S)), LENGTHS).final)
    for part in state:
        encoder.zero_grad()
        part[-1].sum().backward(retain_graph=True)
        for name, weight in encoder.stack.named_parameters():
            assert weight.grad is not None, name
            assert weight.grad.any(), name


@pytest.mark.parametrize("kind", ["copy", "linear"])
@pytest.mark.parametrize("cells", PAIRS)
def test_the_cell_state_is_carried_when_both_have_one(kind: str, cells: tuple[str, str]) -> None:
    if not copies(cells, (2, 2), (4, 4)):
        kind = "linear"
    bridge = Bridge(kind, cells, (2, 2), (4, 4))
    final = final_of(cells[0], 2, 4)
    state = bridge(final)
    if cells == ("lstm", "lstm"):
        other = bridge((final[0], final[1] + 1))
        assert torch.equal(other[0], state[0])
        assert not torch.isclose(other[1], state[1]).any()
    elif cells[0] == "lstm":
        assert torch.equal(bridge((final[0], final[1] + 1))[0], state[0])


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("summary", SUMMARIES)
def test_an_encoder_does_not_see_padding(direction: str, cell: str, summary: str) -> None:
    encoder = Encoder(V, 5, 4, 2, cell, direction, summary, residual=True)
    tokens = torch.randint(V, (B, S))
    context = encoder(tokens, LENGTHS)
    assert context.mask.tolist() == [[at < n for at in range(S)] for n in LENGTHS.tolist()]
    for row, n in enumerate(LENGTHS.tolist()):
        alone = encoder(tokens[row : row + 1, :n], torch.tensor([n]))
        torch.testing.assert_close(context.memory[row, :n], alone.memory[0])
        for part, own in zip(context.final, alone.final, strict=True):
            torch.testing.assert_close(part[:, row], own[:, 0])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_summaries_of_the_top_layer(cell: str, direction: str) -> None:
    tokens = torch.randint(V, (B, S))
    contexts = {}
    last = Encoder(V, 5, 4, 2, cell, direction)
    for summary in SUMMARIES:
        encoder = Encoder(V, 5, 4, 2, cell, direction, summary)
        encoder.load_state_dict(last.state_dict())
        contexts[summary] = encoder(tokens, LENGTHS)
    for row, n in enumerate(LENGTHS.tolist()):
        real = contexts["last"].memory[row, :n]
        torch.testing.assert_close(contexts["mean"].final[0][-1, row], real.mean(0))
        torch.testing.assert_close(contexts["max"].final[0][-1, row], real.amax(0))
    for summary in ("mean", "max"):  # the layers below and the cell state are the last ones
        assert torch.equal(contexts[summary].final[0][:-1], contexts["last"].final[0][:-1])
        assert all(map(torch.equal, contexts[summary].final[1:], contexts["last"].final[1:]))


@pytest.mark.parametrize("cell", CELLS)
def test_reversed_reads_from_the_other_end(cell: str) -> None:
    forward = Encoder(V, 5, 4, 2, cell, "forward")
    back = Encoder(V, 5, 4, 2, cell, "reversed")
    back.load_state_dict(forward.state_dict())
    tokens = torch.randint(V, (B, S))
    turned = tokens.clone()
    for row, n in enumerate(LENGTHS.tolist()):
        turned[row, :n] = tokens[row, :n].flip(0)
    one, other = forward(tokens, LENGTHS), back(turned, LENGTHS)
    for part, same in zip(one.final, other.final, strict=True):
        torch.testing.assert_close(part, same)
    for row, n in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(one.memory[row, :n], other.memory[row, :n].flip(0))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_with_a_shortcut_the_memory_ends_with_the_embeddings(direction: str) -> None:
    plain = Encoder(V, 5, 4, 2, "gru", direction, "mean")
    short = Encoder(V, 5, 4, 2, "gru", direction, "mean", shortcut=True)
    short.load_state_dict(plain.state_dict())
    tokens = torch.randint(V, (B, S))
    one, other = plain(tokens, LENGTHS), short(tokens, LENGTHS)
    assert short.width == plain.width + 5
    assert short.final_width == plain.final_width == plain.width
    assert torch.equal(other.memory, torch.cat([one.memory, plain.embedding(tokens)], dim=2))
    assert all(map(torch.equal, one.final, other.final))


def test_embeddings_reach_the_layers_with_unit_variance() -> None:
    for width in (16, 256):
        encoder = Encoder(500, width, 4)
        x = encoder.embedding(torch.arange(500))
        assert x.std().item() == pytest.approx(1.0, rel=0.05)


def test_dropout_is_off_in_evaluation() -> None:
    encoder = Encoder(V, 5, 4, 2, dropout=Shares(0.5, 0.5, 0.5))
    tokens = torch.randint(V, (B, S))
    assert not torch.equal(encoder(tokens, LENGTHS).memory, encoder(tokens, LENGTHS).memory)
    encoder.eval()
    plain = Encoder(V, 5, 4, 2).eval()
    plain.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(encoder(tokens, LENGTHS).memory, plain(tokens, LENGTHS).memory)
