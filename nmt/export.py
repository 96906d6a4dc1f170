"""A trained translator as ONNX graphs, which any ONNX runtime computes without torch: `nmt export`.

    encoder.onnx   source (B, S), lengths (B,)                         ->  memory, keys, summary, parts
    decoder.onnx   tokens (N,), parts, memory, keys, padding, summary  ->  log_probs (N, V), parts, attention
    greedy.onnx    the same for one row, steps, shortest               ->  places (T, 1), log_probs (T, 1)

`parts` (N, ·) is the decoder's state, every layer's side by side, as in `nmt.stepper`; `padding` (B, 1, S) is added to
the scores, 0 on real positions and minus infinity elsewhere. A graph has those of them that its model needs. In int8,
weights are rounded per column, embeddings as a whole, inputs as they come (dynamic quantisation; a GRU encoder's
recurrence stays float32). The greedy graph is the decoder's in a loop, `steps` times at most, its end not within the
`shortest` first; the two share their weights, which lie beside them in decoder.weights. With a shortlist
(`nmt.lexicon`) the output layer is not in the graphs but given to them: `pieces` (V,), the vocabulary of this call,
`weights` (E, V), `scales` and `bias` (V,).

Letters: B sources, N = B·K rows, S source length, T target length, D width, E embedding width, M memory width, V
vocabulary.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from nmt import attention, checkpoint, disk, lexicon
from nmt.cells import Layer, Recurrent
from nmt.context import Bridge
from nmt.decoder import Decoder
from nmt.encoder import Encoder
from nmt.errors import CallError
from nmt.hardware import choose
from nmt.material import known, load_split
from nmt.model import Seq2Seq
from nmt.portable import DECODER, ENCODER, GREEDY, MISSING, SHARED, SHORTLIST
from nmt.progress import say
from nmt.recipe import Recipe, changed
from nmt.tokenizer import EOS, NEVER, UNK
from nmt.translate import Member

if TYPE_CHECKING:
    from onnx import ModelProto

PRECISIONS = ("float32", "int8")
OPSET, IR = 17, 8  # of 2022, so that older runtimes read them too
LEARNT_FROM = 100_000  # pairs at most, for a shortlist
LARGE, PAGE = 1024, 4096  # bytes of what lies in a file of its own, and where it may begin, so that it can be mapped
# the gates in ONNX's order, as places in torch's: i o f c of i f g o, z r n of r z n
_ORDER = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}


def export(folder: Path, out: Path, precision: str = "int8", shortlist: int = 0) -> int:
    """Write the translator in `folder` to the new folder `out`, which `Translator.load` opens like any other.

    With a `shortlist` it writes only pieces that are frequent, copied or among so many of the likeliest for one of the
    source's pieces, learnt from the training pairs; sentences that are translated together share these. The size in
    bytes. Raises CallError for a precision that is not in PRECISIONS, for a shortlist below 0, for an `out` that is
    there, for a folder that is itself exported, and where onnx is missing; DataError where the pairs cannot be read;
    CheckpointError where `folder` is no translator's, or `out` cannot be written.
    """
    if precision not in PRECISIONS:
        raise CallError(f"no precision '{precision}': choose one of {', '.join(PRECISIONS)}")
    if shortlist < 0:
        raise CallError(f"a shortlist of {shortlist} pieces: give a number above 0, or 0 for none")
    if out.exists():
        raise CallError(f"{out} exists: choose another folder with --out, or remove it")
    saved = checkpoint.read(folder)
    if saved.exported:
        raise CallError(f"{folder} is exported already: export the run that it comes from")
    member = Member.load(saved, choose("cpu", "float32"))
    assert isinstance(member.model, Seq2Seq)
    try:
        with torch.no_grad():
            given = precision if shortlist else None
            graphs = {ENCODER: encoder_graph(member.model), DECODER: decoder_graph(member.model.decoder, given)}
            graphs = {name: rounded(one) if precision == "int8" else one for name, one in graphs.items()}
            graphs[GREEDY] = greedy_graph(graphs[DECODER])
            weights = apart([graphs[DECODER], graphs[GREEDY]])
    except ImportError:
        raise CallError(f"exporting {MISSING}") from None
    with disk.new(out) as part:
        if shortlist:
            output = member.model.decoder.output
            tensors = output_layer(output.weight, output.bias, precision) | _lexicon(saved.recipe, member, shortlist)
            checkpoint.write_tensors(part / SHORTLIST, tensors)
        disk.write_bytes(part / SHARED, weights)
        for name, graph in graphs.items():
            disk.write_bytes(part / name, graph.SerializeToString())
        for side in ("source.model", "target.model"):
            disk.write_bytes(part / side, (folder / side).read_bytes())
        checkpoint.write_recipe(part, changed(saved.recipe, ["search.precision=float32"]))  # the graphs have their own
        disk.write_json(part / checkpoint.INFO, saved.info | {"exported": precision, "shortlist": shortlist})
    return sum(file.stat().st_size for file in out.iterdir())


def _lexicon(recipe: Recipe, member: Member, count: int) -> dict[str, Tensor]:
    """The tables that a shortlist is made from, learnt from the training pairs."""
    pairs = load_split(known(recipe), "train")
    say("learning which pieces become which")
    rows = np.random.default_rng(0).permutation(len(pairs))[:LEARNT_FROM].tolist()  # from all over the corpus
    sides = ((member.source, pairs.source), (member.target, pairs.target))
    sources, targets = (tokenizer.encode([lines[row] for row in rows]) for tokenizer, lines in sides)
    fit = range(1, recipe.data.max_length + 1)  # of others training saw nothing either
    kept = [pair for pair in zip(sources, targets, strict=True) if all(len(side) in fit for side in pair)]
    likely = lexicon.learn(kept).likely(member.source.vocab, min(count, member.target.vocab))
    if member.source.fingerprint == member.target.fingerprint:  # a piece may be copied
        likely = np.column_stack([likely, np.arange(len(likely), dtype=np.int32)])
    common = lexicon.common((target for _, target in kept), member.target)
    return {"likely": torch.from_numpy(likely), "common": torch.from_numpy(common)}


def output_layer(weight: Tensor, bias: Tensor, precision: str) -> dict[str, Tensor]:
    """Weights (V, E) and biases (V,) as the graphs are given them; int8 ones are scaled by row, in 7 bits as all."""
    weight, bias = weight.detach(), bias.detach()
    if precision == "float32":
        return {"weights": weight, "bias": bias}
    scales = weight.abs().amax(1).clamp_min(1e-12) / 63
    return {"weights": (weight / scales.unsqueeze(1)).round().to(torch.int8), "scales": scales, "bias": bias}


def rounded(model: ModelProto) -> ModelProto:
    """The same graph with its weights in int8."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folder = Path(tempfile.mkdtemp())
    root = logging.getLogger()
    level = root.level
    try:
        root.setLevel(logging.ERROR)  # it advises on graphs that are not made like ours
        # signed weights have the fast kernels; of 7 bits, since with 8 a processor without VNNI or AMX overflows
        quantize_dynamic(model, folder / "model.onnx", per_channel=True, weight_type=QuantType.QInt8, reduce_range=True)
        return onnx.load(folder / "model.onnx")
    finally:
        root.setLevel(level)
        shutil.rmtree(folder)


def apart(models: Sequence[ModelProto]) -> bytes:
    """Take the larger constants out of graphs that have the same ones, to lie in the file SHARED: its content."""
    from onnx import TensorProto

    content, places = bytearray(), {}
    for constant in (one for model in models for one in _constants(model)):
        data = constant.raw_data
        if len(data) < LARGE:
            continue
        if constant.name not in places:
            content += bytes(-len(content) % PAGE)
            places[constant.name] = len(content)
            content += data
        constant.ClearField("raw_data")
        constant.data_location = TensorProto.EXTERNAL
        where = {"location": SHARED, "offset": places[constant.name], "length": len(data)}
        for key, value in where.items():
            constant.external_data.add(key=key, value=str(value))
    return bytes(content)


def _constants(model: ModelProto) -> list[Any]:
    """Those of a graph and of the loops in it."""
    inner = [attribute.g for node in model.graph.node for attribute in node.attribute if attribute.HasField("g")]
    return [one for graph in (model.graph, *inner) for one in graph.initializer]


class _Graph:
    """A graph being written: operations take and give names."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def input(self, name: str, shape: tuple[str | int, ...], kind: str = "FLOAT") -> str:
        from onnx import TensorProto, helper

        self.inputs.append(helper.make_tensor_value_info(name, getattr(TensorProto, kind), shape))
        return name

    def output(self, name: str, value: str, shape: tuple[str | int, ...], kind: str = "FLOAT") -> None:
        from onnx import TensorProto, helper

        self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, getattr(TensorProto, kind), shape))

    def constant(self, value: Tensor | float | Iterable[int]) -> str:
        from onnx import numpy_helper

        if isinstance(value, float):
            value = torch.tensor(value)
        tensor = value if isinstance(value, Tensor) else torch.tensor(list(value), dtype=torch.int64)
        name = f"{self.name}_constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(tensor.detach().contiguous().numpy(), name))
        return name

    def run(self, kind: str, *inputs: str, **attributes: Any) -> str:
        return self.several(kind, 1, *inputs, **attributes)[0]

    def several(self, kind: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        from onnx import helper

        names = [f"{self.name}_{kind.lower()}_{len(self.nodes)}_{number}" for number in range(count)]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names

    def linear(self, x: str, weight: Tensor, bias: Tensor | None = None) -> str:
        """x Wᵀ + b."""
        product = self.run("MatMul", x, self.constant(weight.t()))
        return product if bias is None else self.run("Add", product, self.constant(bias))

    def concat(self, parts: list[str], axis: int) -> str:
        return parts[0] if len(parts) == 1 else self.run("Concat", *parts, axis=axis)

    def split(self, x: str, sizes: list[int]) -> list[str]:
        """Along the last axis."""
        return [x] if len(sizes) == 1 else self.several("Split", len(sizes), x, self.constant(sizes), axis=-1)

    def unsqueeze(self, x: str, axis: int) -> str:
        return self.run("Unsqueeze", x, self.constant([axis]))

    def squeeze(self, x: str, axis: int) -> str:
        return self.run("Squeeze", x, self.constant([axis]))

    def size(self, x: str, axis: int) -> str:
        """The size of an axis of x, as a list of one."""
        return self.run("Slice", self.run("Shape", x), self.constant([axis]), self.constant([axis + 1]))

    def reshape(self, x: str, *shape: int) -> str:
        """0 leaves a size, -1 is what remains."""
        return self.run("Reshape", x, self.constant(shape))

    def finish(self) -> ModelProto:
        from onnx import checker, helper

        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="nmt")
        model.ir_version = IR
        checker.check_model(model)
        return model


# ---- Encoder ---------------------------------------------------------------------------------------------------------


def encoder_graph(model: Seq2Seq) -> ModelProto:
    """Encoder and bridge, and what the decoder's step needs of each source once."""
    graph, encoder, decoder = _Graph("encoder"), model.encoder, model.decoder
    source = graph.input("source", ("B", "S"), "INT64")
    lengths = graph.input("lengths", ("B",), "INT64")
    turned = graph.run("Transpose", source, perm=[1, 0])  # (S, B)
    words = graph.run("Gather", _embedding(graph, encoder), turned)  # (S, B, E)
    x = graph.run("ReverseSequence", words, lengths, time_axis=0, batch_axis=1) if encoder.reversed else words
    short = graph.run("Cast", lengths, to=6)  # int32, as ONNX's layers want it
    states, final = _stack(graph, encoder.stack, x, short)
    if encoder.reversed:
        states = graph.run("ReverseSequence", states, lengths, time_axis=0, batch_axis=1)
    if encoder.summary != "last":
        final[-1][0] = _pooled(graph, encoder, graph.run("Transpose", states, perm=[1, 0, 2]), lengths)
    memory = graph.concat([states, words] if encoder.shortcut else [states], 2)
    memory = graph.run("Transpose", memory, perm=[1, 0, 2])  # (B, S, M)
    if (kind := decoder.attention) is not None:
        map = kind.keys if isinstance(kind, (attention.General, attention.Additive)) else None
        keys, width = memory if map is None else graph.linear(memory, map.weight, map.bias), decoder.lower.width
        if not isinstance(kind, attention.Additive):
            keys = graph.run("Mul", graph.run("Transpose", keys, perm=[0, 2, 1]), graph.constant(width**-0.5))
        graph.output("memory", memory, ("B", "S", encoder.width))
        graph.output("keys", keys, _keys(kind, width))
    if decoder.context_feeding:
        graph.output("summary", final[-1][0], ("B", encoder.final_width))
    parts = _bridged(graph, model.bridge, final)
    if decoder.input_feeding:
        parts.append(_zeros(graph, parts[0], decoder.embed))
    graph.output("parts", graph.concat(parts, 1), ("B", sum(_widths(decoder))))
    return graph.finish()


def _embedding(graph: _Graph, part: Encoder | Decoder) -> str:
    """The table (V, E) of a side, scaled as its module does."""
    return graph.constant(part.embedding.weight * part.embedding.embedding_dim**0.5)


def _stack(graph: _Graph, stack: Recurrent, x: str, lengths: str) -> tuple[str, list[list[str]]]:
    """Outputs (S, B, 2·D or D) and the final state of each layer, as wide."""
    final: list[list[str]] = []
    sides = [side for side in (stack.forwards, stack.backwards) if side is not None]
    for pair in zip(*sides, strict=True):
        layers = [layer for layer in pair if isinstance(layer, Layer)]
        out, end = _layer(graph, layers, x, lengths)
        x = graph.run("Add", x, out) if stack.residual and layers[0].inputs == stack.width else out
        final.append(end)
    return x, final


def _layer(graph: _Graph, layers: list[Layer], x: str, lengths: str) -> tuple[str, list[str]]:
    """One layer in one direction or both: outputs (S, B, 2·D or D) and its final state, as wide."""
    kind, hidden = layers[0].cell, layers[0].hidden
    blocks = [[_ordered(weight, kind, hidden) for weight in layer.weights()] for layer in layers]
    inputs, recurrent = (graph.constant(torch.stack([block[place] for block in blocks])) for place in (0, 1))
    biases = graph.constant(torch.stack([torch.cat(block[2:]) for block in blocks]))
    extra = {"linear_before_reset": 1} if kind == "gru" else {}
    out, *end = graph.several(
        kind.upper(), 3 if kind == "lstm" else 2, x, inputs, recurrent, biases, lengths,
        hidden_size=hidden, direction="bidirectional" if len(layers) == 2 else "forward", **extra,
    )  # fmt: skip
    out = graph.reshape(graph.run("Transpose", out, perm=[0, 2, 1, 3]), 0, 0, -1)  # from (S, ·, B, D)
    return out, [graph.reshape(graph.run("Transpose", one, perm=[1, 0, 2]), 0, -1) for one in end]


def _ordered(weight: Tensor, kind: str, hidden: int) -> Tensor:
    """The gates of a weight or bias (G·D, ...) in ONNX's order."""
    gates = torch.split(weight, hidden)
    return torch.cat([gates[place] for place in _ORDER[kind]])


def _pooled(graph: _Graph, encoder: Encoder, states: str, lengths: str) -> str:
    """The mean or maximum of states (B, S, ·) over the real positions."""
    steps = graph.run("Gather", graph.run("Shape", states), graph.constant(torch.tensor(1)))
    places = graph.run("Range", graph.constant(torch.tensor(0)), steps, graph.constant(torch.tensor(1)))  # (S,)
    real = graph.unsqueeze(graph.run("Less", places, graph.unsqueeze(lengths, 1)), 2)  # (B, S, 1)
    nothing = graph.constant(-torch.inf if encoder.summary == "max" else 0.0)
    kept = graph.run("Where", real, states, nothing)
    if encoder.summary == "max":
        return graph.run("ReduceMax", kept, axes=[1], keepdims=0)
    total = graph.run("ReduceSum", kept, graph.constant([1]), keepdims=0)
    return graph.run("Div", total, graph.unsqueeze(graph.run("Cast", lengths, to=1), 1))


def _bridged(graph: _Graph, bridge: Bridge, final: list[list[str]]) -> list[str]:
    """The decoder's first state, each layer's parts after one another, (B, D) each."""
    parts = []
    for layer, source in enumerate(bridge.sources):
        for part in range(bridge.parts):
            if bridge.kind == "zero" or part >= bridge.carried:
                parts.append(_zeros(graph, final[0][0], bridge.width))
            elif bridge.kind == "copy":
                parts.append(final[layer][part])
            else:
                map = bridge.maps[part * bridge.layers + layer]
                assert isinstance(map, nn.Linear)
                parts.append(graph.run("Tanh", graph.linear(final[source][part], map.weight, map.bias)))
    return parts


def _zeros(graph: _Graph, like: str, width: int) -> str:
    """Zeros (B, width) for the rows of `like`."""
    shape = graph.concat([graph.size(like, 0), graph.constant([width])], 0)
    return graph.run("Expand", graph.constant(torch.zeros(1, width)), shape)


# ---- Decoder ---------------------------------------------------------------------------------------------------------


def _widths(decoder: Decoder) -> list[int]:
    """The widths of what `parts` holds side by side."""
    states = [layer.hidden for layer in _layers(decoder) for _ in range(2 if layer.cell == "lstm" else 1)]
    return states + ([decoder.embed] if decoder.input_feeding else [])


def _layers(decoder: Decoder) -> list[Layer]:
    stacks = [decoder.lower, *([decoder.upper] if decoder.upper is not None else [])]
    return [layer for stack in stacks for layer in stack.forwards if isinstance(layer, Layer)]


def decoder_graph(decoder: Decoder, given: str | None = None) -> ModelProto:
    """One step: `Decoder.forward` with T = 1, for N = B·K rows.

    `given` is the precision of an output layer that comes with each call.
    """
    graph, layers, widths = _Graph("decoder"), _layers(decoder), _widths(decoder)
    memory_width = decoder.readout.in_features - layers[-1].hidden
    tokens = graph.input("tokens", ("N",), "INT64")
    states = graph.split(graph.input("parts", ("N", sum(widths))), widths)
    inputs = [graph.run("Gather", _embedding(graph, decoder), tokens)]  # (N, E)
    inputs += [states.pop()] if decoder.input_feeding else []
    context: str | None = None
    if decoder.context_feeding:
        context = _each(graph, graph.input("summary", ("B", memory_width)), tokens, memory_width)
        inputs.append(context)
    x = graph.concat(inputs, 1)
    ends, weights = [], ""
    for number, layer in enumerate(layers):
        out, after = _cell(graph, layer, x, [states.pop(0) for _ in range(2 if layer.cell == "lstm" else 1)])
        out = graph.run("Add", x, out) if decoder.lower.residual and layer.inputs == layer.hidden else out
        x = out
        ends += after
        if number + 1 == decoder.lower.layers and decoder.attention is not None:
            context, weights = _attended(graph, decoder, out, memory_width)
            if decoder.upper is not None:
                x = graph.concat([out, context], 1)
    seen = [x] if context is None else [x, context]
    features = graph.run("Tanh", graph.linear(graph.concat(seen, 1), decoder.readout.weight, decoder.readout.bias))
    ends += [features] if decoder.input_feeding else []
    if given is None:
        logits = graph.linear(features, decoder.output.weight, decoder.output.bias)
    else:
        logits = _given(graph, features, decoder.embed, given)
    vocab = "V" if given else decoder.output.out_features
    graph.output("log_probs", graph.run("LogSoftmax", logits, axis=1), ("N", vocab))
    graph.output("next_parts", graph.concat(ends, 1), ("N", sum(widths)))
    if weights:
        graph.output("attention", weights, ("N", 1, "S"))
    return graph.finish()


def _given(graph: _Graph, features: str, width: int, precision: str) -> str:
    """Logits from features (N, E) with the output layer of this call."""
    bias = graph.input("bias", ("V",))
    if precision == "float32":
        product = graph.run("MatMul", features, graph.input("weights", (width, "V")))
        return graph.run("Add", product, bias)
    weights = graph.input("weights", (width, "V"), "INT8")
    scales = graph.input("scales", ("V",))
    low, scale, zero = graph.several("DynamicQuantizeLinear", 3, features)
    product = graph.run("Cast", graph.run("MatMulInteger", low, weights, zero), to=1)
    return graph.run("Add", graph.run("Mul", product, graph.run("Mul", scales, scale)), bias)


def _cell(graph: _Graph, layer: Layer, x: str, state: list[str]) -> tuple[str, list[str]]:
    """One layer's step: output and state (N, D)."""
    inputs, recurrent, bias, hidden_bias = layer.weights()
    h, hidden = state[0], layer.hidden
    if layer.cell == "gru":
        given = graph.split(graph.linear(x, inputs, bias), [hidden] * 3)
        own = graph.split(graph.linear(h, recurrent, hidden_bias), [hidden] * 3)
        r, z = (graph.run("Sigmoid", graph.run("Add", given[gate], own[gate])) for gate in (0, 1))
        n = graph.run("Tanh", graph.run("Add", given[2], graph.run("Mul", r, own[2])))
        h = graph.run("Add", n, graph.run("Mul", z, graph.run("Sub", h, n)))  # (1 - z)·n + z·h
        return h, [h]
    joined = graph.concat([x, h], 1)
    gates = graph.linear(joined, torch.cat([inputs, recurrent], dim=1), bias + hidden_bias)
    if layer.cell == "rnn":
        h = graph.run("Tanh", gates)
        return h, [h]
    i, f, g, o = graph.split(gates, [hidden] * 4)
    kept = graph.run("Mul", graph.run("Sigmoid", f), state[1])
    c = graph.run("Add", kept, graph.run("Mul", graph.run("Sigmoid", i), graph.run("Tanh", g)))
    h = graph.run("Mul", graph.run("Sigmoid", o), graph.run("Tanh", c))
    return h, [h, c]


def _attended(graph: _Graph, decoder: Decoder, query: str, width: int) -> tuple[str, str]:
    """Contexts (N, M) and weights (N, 1, S); the hypotheses of a source share its memory."""
    kind, hidden = decoder.attention, decoder.lower.width
    sources = graph.input("memory", ("B", "S", width))
    assert kind is not None
    keys = graph.input("keys", _keys(kind, hidden))
    padding = graph.input("padding", ("B", 1, "S"))
    shape = graph.concat([graph.size(sources, 0), graph.constant([-1, hidden])], 0)
    grouped = graph.run("Reshape", query, shape)  # (B, K, D)
    if isinstance(kind, attention.Additive):
        queries = graph.unsqueeze(graph.linear(grouped, kind.queries.weight), 2)
        sums = graph.run("Tanh", graph.run("Add", queries, graph.unsqueeze(keys, 1)))  # (B, K, S, D)
        scores = graph.squeeze(graph.linear(sums, kind.energy.weight), 3)
    else:
        scores = graph.run("MatMul", grouped, keys)
    weights = graph.run("Softmax", graph.run("Add", scores, padding), axis=2)  # (B, K, S)
    context = graph.reshape(graph.run("MatMul", weights, sources), -1, width)  # (N, M)
    flat = graph.concat([graph.constant([-1, 1]), graph.size(weights, 2)], 0)
    return context, graph.run("Reshape", weights, flat)


def _keys(kind: attention.Attention, width: int) -> tuple[str | int, ...]:
    """The shape of the keys, which for a product lie ready for it, scaled."""
    return ("B", "S", width) if isinstance(kind, attention.Additive) else ("B", width, "S")


def greedy_graph(step: ModelProto) -> ModelProto:
    """The decoder's graph in a loop for one row, until its end is written."""
    from onnx import helper

    graph, body = _Graph("greedy"), _Graph("step")
    start = [graph.input("steps", (), "INT64"), "", graph.input("begin", (1,), "INT64"), graph.input("start", (1, "P"))]
    shortest = graph.input("shortest", (), "INT64")
    graph.inputs += [one for one in step.graph.input if one.name not in ("tokens", "parts")]
    vocab = step.graph.output[0].type.tensor_type.shape.dim[1].dim_value  # 0 where it comes with the call
    pieces = None if vocab else graph.input("pieces", ("V",), "INT64")
    count = graph.constant([vocab]) if pieces is None else graph.run("Shape", pieces)
    barred, early = (_barred(graph, which, count) for which in (NEVER, (*NEVER, EOS)))

    turn = body.input("turn", (), "INT64")
    body.input("go", (), "BOOL")
    body.input("tokens", (1,), "INT64")
    body.inputs.append(next(one for one in step.graph.input if one.name == "parts"))
    body.nodes += step.graph.node
    body.constants += step.graph.initializer
    bars = body.run("Where", body.run("Less", turn, shortest), early, barred)
    log_probs = body.run("Add", "log_probs", bars)
    place = body.run("ArgMax", log_probs, axis=1, keepdims=0)  # (1,)
    going = body.run("Not", body.run("Equal", place, body.constant([EOS])))
    body.output("go_on", body.squeeze(going, 0), (), "BOOL")
    body.output("next_tokens", place if pieces is None else body.run("Gather", pieces, place), (1,), "INT64")
    body.outputs.append(next(one for one in step.graph.output if one.name == "next_parts"))
    body.output("place", place, (1,), "INT64")
    body.output("log_prob", body.run("ReduceMax", log_probs, axes=[1], keepdims=0), (1,))
    inner = helper.make_graph(body.nodes, body.name, body.inputs, body.outputs, body.constants)
    *_, places, found = graph.several("Loop", 4, *start, body=inner)
    graph.output("places", places, ("T", 1), "INT64")
    graph.output("place_log_probs", found, ("T", 1))
    return graph.finish()


def _barred(graph: _Graph, pieces: Sequence[int], count: str) -> str:
    """What is added to the log p of all pieces, so that these, which are among the first, are not written."""
    first = torch.zeros(UNK + 1)
    first[list(pieces)] = -torch.inf
    rest = graph.run("Sub", count, graph.constant([len(first)]))
    return graph.concat([graph.constant(first), graph.run("ConstantOfShape", rest)], 0)


def _each(graph: _Graph, summary: str, rows: str, width: int) -> str:
    """The summaries (B, M) for every row (N, M)."""
    count = graph.size(summary, 0)  # B
    total = graph.run("Shape", rows)  # N
    shape = graph.concat([count, graph.run("Div", total, count), graph.constant([width])], 0)
    return graph.reshape(graph.run("Expand", graph.unsqueeze(summary, 1), shape), -1, width)
