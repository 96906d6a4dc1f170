"""Each key of a recipe reaches what it is for: with another value something else comes out."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from toy import Toy, pairs

from nmt import material, translation
from nmt.data import collate
from nmt.hardware import Hardware
from nmt.model import build
from nmt.recipe import changed, load, parse
from nmt.stepper import unroll
from nmt.translate import Translator

V = 20
BATCH = collate([[5, 4, 9, 3], [8], [3, 10]], [[7, 3], [6, 9, 12], []])
SMALL: dict[str, Any] = {
    "data": {"source": "en", "target": "de", "path": "x"},
    "model": {
        "cell": "gru",
        "embed": 6,
        "tie": "none",
        "encoder": {"hidden": 3, "layers": 2},
        "decoder": {"hidden": 6, "layers": 2},
        "dropout": {"embedding": 0, "layers": 0, "output": 0},
    },
}
LINES = [source for source, _ in pairs(30, seed=5)]


@pytest.mark.parametrize(
    "change",
    [
        *("cell=lstm", "embed=5", "attention=none", "attention=additive", "attention_position=after", "bridge=copy"),
        *("encoder.cell=rnn", "encoder.layers=1", "encoder.hidden=4", "encoder.direction=reversed"),
        *("encoder.summary=max", "encoder.shortcut=true", "decoder.cell=rnn", "decoder.layers=3", "decoder.hidden=5"),
        *("input_feeding=true", "residual=true", "tie=target", "tie=all"),
        *("dropout.embedding=0.5", "dropout.layers=0.5", "dropout.output=0.5", "dropout.recurrent=0.5"),
    ],
)
def test_each_key_of_a_model_has_a_say(change: str) -> None:
    found = []
    for more in ([], [f"model.{change}"]):
        torch.manual_seed(3)
        model = build(changed(parse(SMALL, "test"), more), V, V)
        for weight in model.parameters():
            if weight.dim() == 1:  # biases begin at 0, where much looks alike
                torch.nn.init.uniform_(weight, -0.5, 0.5)
        found.append(model.decoder(BATCH.target_in, model.start(BATCH.source, BATCH.source_lengths))[0])
    assert not torch.allclose(*found)


@pytest.mark.parametrize("feeding", ["false", "true"])
@pytest.mark.parametrize("kind", ["embedding", "layers", "output", "recurrent"])
def test_each_kind_of_dropout_is_on_both_sides_in_training_alone(kind: str, feeding: str) -> None:
    changes = [f"model.dropout.{kind}=0.5", f"model.input_feeding={feeding}"]
    model = build(changed(parse(SMALL, "test"), changes), V, V)
    run = partial(unroll, model.decoder) if feeding == "true" else model.decoder
    for training in (True, False):
        model.train(training)
        one, two = (model.encoder(BATCH.source, BATCH.source_lengths) for _ in range(2))
        assert torch.equal(one.memory, two.memory) is not training
        hidden = model.bridge(one.final)
        found = [run(BATCH.target_in, model.decoder.start(hidden, one))[0] for _ in range(2)]
        assert torch.equal(*found) is not training


@pytest.mark.parametrize(
    "change",
    [
        *("training.label_smoothing=0.3", "training.teacher_forcing=0.0", "training.guided_attention=1.0"),
        *("training.subword_sampling=0.3", "training.batch_tokens=60", "data.max_length=4", "model.dropout.output=0.5"),
    ],
)
def test_each_key_of_training_has_a_say(change: str, toy: Toy, cpu: Hardware) -> None:
    losses = []
    for changes in ([], [change]):
        work = translation.job(load(str(toy.recipe), changes), cpu, None)
        torch.manual_seed(5)
        losses.append([work.loss(work.stream.fetch(0, number), 0.5).total.item() for number in range(3)])
    assert losses[0] != losses[1]


def test_a_seed_draws_weights_and_batches(toy: Toy, cpu: Hardware) -> None:
    one, same, other = (
        translation.job(load(str(toy.recipe), [f"training.seed={seed}"]), cpu, None) for seed in (1, 1, 2)
    )
    weights = [work.model.encoder.embedding.weight for work in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    first = [work.stream.fetch(0, 0).source.tolist() for work in (one, same, other)]
    assert first[0] == first[1] != first[2]


@pytest.mark.parametrize(
    "change", ["model=bpe", "vocab_size=44", "normalization=nmt_nfkc_cf", "symbols=[kala]", "character_coverage=0.98"]
)
def test_each_key_of_a_tokenizer_has_a_say(change: str, toy: Toy) -> None:
    protos = []
    for changes in ([], [f"tokenizer.{change}"]):
        recipe = load(str(toy.recipe), changes)
        protos.append(material.train_tokenizers(recipe, material.load_split(recipe.data, "train"))[0].proto)
    assert protos[0] != protos[1]


@pytest.mark.parametrize(
    "change",
    [
        *("beam=1", "method=greedy", "length_penalty=0", "coverage_penalty=5", "min_ratio=2", "max_ratio=0.5"),
        *("precision=bf16", "max_source=3"),
    ],
)
def test_each_key_of_search_has_a_say(change: str, toy: Toy) -> None:
    plain = Translator.load(toy.attention, threads=1).adjusted(["search.max_extra=0"])
    other = plain.adjusted([f"search.{change}"])
    found = [[(line.text, line.score) for line in one.translate(LINES, warn=str)] for one in (plain, other)]
    assert found[0] != found[1]


@pytest.mark.parametrize("change", ["seed=2", "temperature=0.3", "top_k=2", "top_p=0.3"])
def test_each_key_of_sampling_has_a_say(change: str, toy: Toy) -> None:
    plain = Translator.load(toy.attention, threads=1).adjusted(["search.method=sample", "search.temperature=2"])
    found = [[line.text for line in one.translate(LINES)] for one in (plain, plain.adjusted([f"search.{change}"]))]
    assert found[0] != found[1]
