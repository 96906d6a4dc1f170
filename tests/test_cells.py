"""The recurrent stack: equal to torch.nn, blind to padding, step by step as well as at once."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from nmt.cells import CELLS, Dropout, Recurrent, thinned

B, T, X, D = 4, 7, 5, 6  # X: input width
LENGTHS = torch.tensor([3, 7, 1, 5])

cells = pytest.mark.parametrize("cell", CELLS)
directions = pytest.mark.parametrize("both", [False, True])
depths = pytest.mark.parametrize("layers", [1, 3])


def twin(stack: Recurrent, cell: str, both: bool) -> nn.RNNBase:
    """The torch.nn module with the weights of a stack."""
    theirs: nn.RNNBase = CELLS[cell](X, D, stack.layers, batch_first=True, bidirectional=both)
    for number in range(stack.layers):
        for suffix, side in (("", stack.forwards), ("_reverse", stack.backwards)):
            if side is not None:
                for name, weight in side[number].rnn.named_parameters():
                    getattr(theirs, f"{name.removesuffix('_l0')}_l{number}{suffix}").data.copy_(weight)
    return theirs


def side_by_side(state: Tensor, both: bool) -> Tensor:
    """A final state of torch.nn, (layers x directions, B, D), in our layout (L, B, width)."""
    if not both:
        return state
    return torch.cat([state[0::2], state[1::2]], dim=2)


def randomise(module: nn.Module) -> None:
    """Weights and biases all over, so that nothing is hidden by a zero."""
    for weight in module.parameters():
        nn.init.uniform_(weight, -0.7, 0.7)


def stacked(cell: str, layers: int, both: bool, residual: bool = False) -> Recurrent:
    stack = Recurrent(cell, X, D, layers, both=both, residual=residual)
    randomise(stack)
    return stack


@cells
@directions
@depths
def test_equals_torch(cell: str, both: bool, layers: int) -> None:
    stack = stacked(cell, layers, both)
    x = torch.randn(B, T, X)
    out, state = stack(x)
    expected, final = twin(stack, cell, both)(x)
    torch.testing.assert_close(out, expected)
    for part, other in zip(state, final if cell == "lstm" else (final,), strict=True):
        torch.testing.assert_close(part, side_by_side(other, both))


@cells
@directions
@depths
def test_equals_torch_on_packed_sequences(cell: str, both: bool, layers: int) -> None:
    stack = stacked(cell, layers, both)
    x = torch.randn(B, T, X)
    out, state = stack(x, lengths=LENGTHS)
    packed = nn.utils.rnn.pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    outs, final = twin(stack, cell, both)(packed)
    expected, _ = nn.utils.rnn.pad_packed_sequence(outs, batch_first=True)
    real = torch.arange(T) < LENGTHS.unsqueeze(1)
    torch.testing.assert_close(out[real], expected[real])
    for part, other in zip(state, final if cell == "lstm" else (final,), strict=True):
        torch.testing.assert_close(part, side_by_side(other, both))


@cells
@directions
@pytest.mark.parametrize("residual", [False, True])
def test_padding_changes_nothing(cell: str, both: bool, residual: bool) -> None:
    """Outputs, final states and gradients of a padded batch are those of its rows alone, whatever the padding holds."""
    stack = stacked(cell, 2, both, residual)
    x = torch.randn(B, T, X)
    x[torch.arange(T) >= LENGTHS.unsqueeze(1)] *= 50
    x.requires_grad_()
    weights = torch.randn(T, stack.width)

    def objective(out: Tensor, state: tuple[Tensor, ...], length: int) -> Tensor:
        return (out * weights[:length]).sum() + sum((part * weights[:2]).sum() for part in state)

    out, state = stack(x, lengths=LENGTHS)
    rows = [(out[row, :n], tuple(part[:, row] for part in state), n) for row, n in enumerate(LENGTHS.tolist())]
    wanted = [x, *stack.parameters()]
    together = torch.autograd.grad(torch.stack([objective(*row) for row in rows]).sum(), wanted)

    alone = [torch.zeros_like(weight) for weight in wanted]
    for row, (padded_out, padded_state, n) in enumerate(rows):
        own_out, own_state = stack(x[row : row + 1, :n])
        torch.testing.assert_close(padded_out, own_out[0])
        for part, own in zip(padded_state, own_state, strict=True):
            torch.testing.assert_close(part, own[:, 0])
        loss = objective(own_out[0], tuple(own[:, 0] for own in own_state), n)
        alone = [a + g for a, g in zip(alone, torch.autograd.grad(loss, wanted), strict=True)]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert not together[0][torch.arange(T) >= LENGTHS.unsqueeze(1)].any()


@cells
def test_a_layer_begins_orthogonal_and_remembering(cell: str) -> None:
    _, recurrent, *biases = Recurrent(cell, X, D).forwards[0].weights()
    for gate in recurrent.detach().split(D):
        torch.testing.assert_close(gate @ gate.t(), torch.eye(D))
    for number, gate in enumerate(sum(bias.detach() for bias in biases).split(D)):
        assert gate.eq(float(cell == "lstm" and number == 1)).all(), "the forget gate alone is open"


@cells
def test_more_padding_is_bit_for_bit_the_same_state(cell: str) -> None:
    stack = stacked(cell, 1, False)
    x = torch.randn(B, T, X)
    states = []
    for extra in (1, 9):
        padded = torch.cat([x, torch.randn(B, extra, X)], dim=1)
        states.append(stack(padded, lengths=LENGTHS)[1])
    for one, other in zip(*states, strict=True):
        assert torch.equal(one, other)


@cells
@directions
def test_padding_changes_nothing_in_bfloat16(cell: str, both: bool) -> None:
    stack = stacked(cell, 1, both).bfloat16()
    x = torch.randn(B, T, X).bfloat16()
    _, state = stack(x, lengths=LENGTHS)
    for row, n in enumerate(LENGTHS.tolist()):
        _, own = stack(x[row : row + 1, :n])
        for part, alone in zip(state, own, strict=True):
            torch.testing.assert_close(part[:, row], alone[:, 0], rtol=0.02, atol=0.02)


@cells
@depths
@pytest.mark.parametrize("residual", [False, True])
def test_step_equals_sequence(cell: str, layers: int, residual: bool) -> None:
    stack = stacked(cell, layers, False, residual)
    x = torch.randn(B, T, X)
    whole, end = stack(x)
    outs, state = [], None
    for step in torch.split(x, 1, dim=1):
        out, state = stack(step, state)
        outs.append(out)
    torch.testing.assert_close(torch.cat(outs, dim=1), whole)
    assert state is not None
    for one, other in zip(state, end, strict=True):
        torch.testing.assert_close(one, other)


@cells
@pytest.mark.parametrize(("inputs", "both"), [(D, False), (X, False), (2 * D, True), (X, True)])
def test_residual_adds_the_input_where_widths_agree(cell: str, inputs: int, both: bool) -> None:
    stack = Recurrent(cell, inputs, D, 3, both=both, residual=True)
    x = torch.randn(B, T, inputs)
    out, _ = stack(x)
    expected = x
    for number in range(3):
        single = Recurrent(cell, expected.size(2), D, both=both)
        single.forwards[0] = stack.forwards[number]
        if single.backwards is not None and stack.backwards is not None:
            single.backwards[0] = stack.backwards[number]
        own, _ = single(expected)
        expected = own + expected if own.shape == expected.shape else own
    torch.testing.assert_close(out, expected)


@cells
@directions
@depths
def test_what_an_output_can_see(cell: str, both: bool, layers: int) -> None:
    """Reading forwards, an output sees what came before and itself; in both directions, all real steps."""
    stack = stacked(cell, layers, both)
    x = torch.randn(1, T, X, requires_grad=True)
    length = 5
    out, _ = stack(x, lengths=torch.tensor([length]))
    for step in range(length):
        (grad,) = torch.autograd.grad(out[0, step].sum(), x, retain_graph=True)
        seen = grad[0].abs().sum(1) > 0
        assert seen.tolist() == [at <= step or both for at in range(length)] + [False] * (T - length)


@cells
def test_final_state_of_the_backward_half_is_its_output_at_the_first_step(cell: str) -> None:
    stack = stacked(cell, 2, True)
    out, state = stack(torch.randn(B, T, X), lengths=LENGTHS)
    last = out[torch.arange(B), LENGTHS - 1]
    torch.testing.assert_close(state[0][-1, :, :D], last[:, :D])
    torch.testing.assert_close(state[0][-1, :, D:], out[:, 0, D:])


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_dropout_draws_one_mask_per_sequence(p: float) -> None:
    width = 2000
    out = Dropout(p)(torch.ones(3, T, width))
    assert (out == out[:, :1]).all(), "the mask must be the same at all steps of a sequence"
    assert not torch.equal(out[0], out[1])
    torch.testing.assert_close(out.unique(), torch.tensor([0.0, 1 / (1 - p)]))
    share = (out[:, 0] == 0).float().mean().item()
    assert share == pytest.approx(p, abs=4 * (p * (1 - p) / (3 * width)) ** 0.5)


@cells
@directions
def test_dropout_is_between_layers_and_only_in_training(cell: str, both: bool) -> None:
    x = torch.randn(B, T, X)
    for layers, training in itertools.product((1, 2), (True, False)):
        stack = Recurrent(cell, X, D, layers, dropout=0.5, both=both).train(training)
        one, other = stack(x)[0], stack(x)[0]
        assert torch.equal(one, other) == (layers == 1 or not training)
    plain = Recurrent(cell, X, D, 2, both=both)
    plain.load_state_dict(stack.state_dict())
    torch.testing.assert_close(stack.eval()(x)[0], plain(x)[0])


@cells
def test_dropout_masks_are_held_when_passed_in(cell: str) -> None:
    stack = Recurrent(cell, X, D, 3, dropout=0.5)
    x = torch.randn(B, T, X)
    masks = stack.masks(x)
    whole, _ = stack(x, masks=masks)
    outs, state = [], None
    for step in torch.split(x, 1, dim=1):
        out, state = stack(step, state, masks=masks)
        outs.append(out)
    torch.testing.assert_close(torch.cat(outs, dim=1), whole)
    assert not torch.allclose(stack(x, masks=stack.masks(x))[0], whole)


@cells
@directions
def test_recurrent_weights_are_dropped_in_training_alone_once_for_all_steps(cell: str, both: bool) -> None:
    x = torch.randn(B, T, X)
    stack = Recurrent(cell, X, D, both=both, drop_recurrent=0.5)
    one, other = stack(x)[0], stack(x)[0]
    assert torch.equal(one[:, 0, :D], other[:, 0, :D]), "the first step has no state that they could multiply"
    assert not torch.allclose(one[:, 1:, :D], other[:, 1:, :D])
    dropped = stack.forwards[0].dropped()[1]
    kept = stack.forwards[0].weights()[1]
    torch.testing.assert_close(dropped, torch.where(dropped == 0, 0, 2 * kept))
    plain = Recurrent(cell, X, D, both=both)
    plain.load_state_dict(stack.state_dict())
    torch.testing.assert_close(stack.eval()(x)[0], plain(x)[0])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.9, 0.999])
def test_thinning_drops_its_share_and_keeps_the_mean(share: float) -> None:
    weight = torch.ones(301, 303, requires_grad=True)  # no multiple of the eight bytes that are drawn at once
    found = thinned(weight, share)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert abs(float((found == 0).float().mean()) - share) < 0.01
    assert abs(float(found.mean().detach()) - 1) < 0.1
    assert weight.grad is not None
    assert weight.grad.equal(found.detach()), "what is dropped has no gradient"


# -- one step: the recurrent net as a feed-forward net


@cells
def test_one_step_from_zero_is_the_feed_forward_equation(cell: str) -> None:
    stack = stacked(cell, 2, False)
    x = torch.randn(B, 1, X)
    want = x[:, 0]
    for layer in stack.forwards:
        inputs, _, bias, hidden_bias = layer.weights()  # type: ignore[operator]
        gates = want @ inputs.T + bias
        if cell == "rnn":
            want = torch.tanh(gates + hidden_bias)
        elif cell == "lstm":
            i, _, g, o = torch.chunk(gates + hidden_bias, 4, dim=1)
            want = o.sigmoid() * torch.tanh(i.sigmoid() * g.tanh())
        else:
            (r, z), n = torch.chunk(gates + hidden_bias, 3, dim=1)[:2], gates[:, 2 * D :]
            want = (1 - z.sigmoid()) * torch.tanh(n + r.sigmoid() * hidden_bias[2 * D :])
    torch.testing.assert_close(stack(x)[0][:, 0], want)


def test_the_joined_matrix_gives_what_the_two_products_give() -> None:
    stack = stacked("rnn", 1, False)
    inputs, recurrent, bias, hidden_bias = stack.forwards[0].weights()  # type: ignore[operator]
    joined = torch.cat([inputs, recurrent], dim=1)  # [W_xh W_hh]
    x, h = torch.randn(B, X), torch.randn(B, D)
    apart = x @ inputs.T + h @ recurrent.T
    together = torch.cat([x, h], dim=1) @ joined.T
    torch.testing.assert_close(together, apart)
    out, _ = stack(x.unsqueeze(1), (h.unsqueeze(0),))
    torch.testing.assert_close(out[:, 0], torch.tanh(together + bias + hidden_bias))
