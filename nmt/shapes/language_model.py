"""A language model: the decoder alone. One to many.

    s_t = decoder(y_{t-1}, s_{t-1});  p(y_t | y_<t) = softmax(E' a_t + b)          (Mikolov et al. 2010)

A `stream` is one long text. It is cut into B pieces that are read side by side, N steps at a time; the state is carried
from chunk to chunk over the whole epoch, the gradient only within one: truncated backpropagation through time (Williams
and Peng 1990). `lines` are sentences of their own, each from <bos> to <eos>.

Letters: B rows, N steps of a chunk, V vocabulary, L layers, D width, E embedding width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt import checkpoint, tokenizer
from nmt.cells import Shares, States
from nmt.context import Context
from nmt.corpus import digest
from nmt.data import Batches, by_length, collate
from nmt.decoder import Decoder
from nmt.errors import CallError, DataError, RecipeError
from nmt.hardware import Hardware, choose
from nmt.job import Job
from nmt.loss import Loss, linear_cross_entropy
from nmt.model import sizes
from nmt.progress import say
from nmt.recipe import AnyRecipe, Cell, Dropout, Field, Section, Training, changed, model_validator
from nmt.search import Options, filtered
from nmt.shapes.report import Report
from nmt.shapes.text import Characters, TextData, lines
from nmt.stepper import Stepper
from nmt.tokenizer import BOS, EOS, NEVER, PAD, UNK, Tokenizer
from nmt.translate import Fusion

SHOWN = 200  # pieces of a sample at each validation
TOGETHER = 4096  # pieces of lines that are read at once, padding counted
CHARACTERS, PIECES = "characters.json", "target.model"


class LanguageModelData(TextData):
    unit: Literal["stream", "lines"] = Field("stream", description="one long text, or sentences of their own")


class Pieces(Section):
    """What a text is made of."""

    model: Literal["characters", "unigram", "bpe"] = "characters"
    vocab_size: int = Field(4000, ge=8)
    file: str | None = Field(None, description="a trained SentencePiece model instead, a translator's for instance")


class LanguageModelModel(Section):
    cell: Cell = "lstm"
    embed: Annotated[int, Field(ge=1)] | Literal["one-hot"] = Field(
        128, description="width of the embeddings, or one unit per piece"
    )
    layers: int = Field(2, ge=1, le=16)
    hidden: int = Field(512, ge=1)
    residual: bool = False
    tie: bool = Field(False, description="one matrix for embedding and output")
    dropout: Dropout = Dropout()


class LanguageModelTraining(Training):
    rows: int = Field(
        32, ge=1, description="pieces of the stream read side by side; lines of middle length together, about"
    )
    chunk: int = Field(100, ge=1, description="steps of the stream that a gradient goes back")
    sample: bool = Field(True, description="show what the model writes at each validation")
    metric: Literal["perplexity"] = Field("perplexity", description="picks the best model and stops early")


class Sampling(Section):
    temperature: float = Field(0.8, ge=0)
    top_k: int = Field(0, ge=0, description="0: all")
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int = Field(1, ge=0, lt=2**63)


class LanguageModelRecipe(AnyRecipe):
    task: Literal["language-model"] = "language-model"
    data: LanguageModelData
    tokenizer: Pieces = Pieces()
    model: LanguageModelModel = LanguageModelModel()
    training: LanguageModelTraining = LanguageModelTraining()
    search: Sampling = Sampling()

    @model_validator(mode="after")
    def _cross_checks(self) -> Self:
        if self.data.unit == "stream" and (self.tokenizer.file or self.tokenizer.model != "characters"):
            raise ValueError("data.unit 'stream' is read by its characters: set tokenizer.model to characters")
        if self.model.tie and self.model.embed == "one-hot":
            raise ValueError("model.tie has nothing to tie with model.embed 'one-hot': set one of them otherwise")
        return self


KIND = LanguageModelRecipe


class OneHot(nn.Module):
    """A unit per piece instead of an embedding: the first layer's input weights are then the embedding."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.num_embeddings = self.embedding_dim = vocab

    def forward(self, tokens: Tensor) -> Tensor:
        return F.one_hot(tokens, self.num_embeddings).float()


class LanguageModel(nn.Module):
    """A decoder that knows of no source."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    @property
    def device(self) -> torch.device:
        return self.decoder.output.bias.device

    def nothing(self, rows: int) -> Context:
        """The context of no source."""
        empty = torch.zeros(1, rows, 0, device=self.device)
        return Context(empty.transpose(0, 1)[:, :0], empty[0].bool(), (empty,))

    def zero(self, rows: int) -> States:
        """The state before a text, a tuple of (L, B, D)."""
        lower = self.decoder.lower
        zero = torch.zeros(lower.layers, rows, lower.width, device=self.device)
        return (zero, zero) if lower.cell == "lstm" else (zero,)

    def forward(self, tokens: Tensor, hidden: States) -> tuple[Tensor, States]:
        """Features (B, N, E) after each of `tokens` (B, N), and the state at the end. Dropout is drawn anew."""
        state = self.decoder.start(hidden, self.nothing(tokens.size(0)))
        features, state = self.decoder.features(tokens, state)
        return features, state.lower

    def loss(self, tokens: Tensor, wanted: Tensor, hidden: States) -> tuple[Loss, States]:
        """The loss of `wanted` (B, N), padding left out, and the state at the end."""
        features, hidden = self(tokens, hidden)
        real = wanted != PAD
        return linear_cross_entropy(features[real], self.decoder.output, wanted[real]), hidden


def build(recipe: LanguageModelRecipe, vocab: int) -> LanguageModel:
    """The network of a recipe, freshly initialised."""
    model = recipe.model
    decoder = Decoder(
        vocab,
        vocab if model.embed == "one-hot" else model.embed,
        model.hidden,
        model.layers,
        model.cell,
        residual=model.residual,
        tied=model.tie,
        dropout=Shares(**model.dropout.model_dump()),
    )
    if model.embed == "one-hot":
        decoder.embedding = OneHot(vocab)  # type: ignore[assignment]  # it is used alike
    return LanguageModel(decoder)


# -- along a stream


@dataclass(frozen=True)
class Chunk:
    """N steps of B pieces of a stream, (B, N) each; the first of an epoch begins with the zero state."""

    tokens: Tensor
    wanted: Tensor
    first: bool


class Chunks:
    """A stream (n,) as chunks. Each epoch is cut elsewhere, so that no step is always the first of its chunk."""

    def __init__(self, ids: Tensor, rows: int, steps: int, seed: int, device: torch.device) -> None:
        if len(ids) <= rows * steps:
            raise RecipeError(
                f"the text has {len(ids):,} pieces, too few for training.rows={rows} of training.chunk={steps}: "
                "lower one of them"
            )
        self.ids, self.rows, self.steps, self.seed, self.device = ids, rows, steps, seed, device

    def batches(self, epoch: int) -> int:
        return (len(self.ids) - 1 - self._offset(epoch)) // self.rows // self.steps

    def fetch(self, epoch: int, number: int) -> Chunk:
        offset = self._offset(epoch)
        length = (len(self.ids) - 1 - offset) // self.rows
        starts = offset + torch.arange(self.rows).unsqueeze(1) * length + number * self.steps  # (B, 1)
        places = starts + torch.arange(self.steps + 1)  # (B, N + 1)
        ids = self.ids[places].to(self.device)
        return Chunk(ids[:, :-1], ids[:, 1:], number == 0)

    def _offset(self, epoch: int) -> int:
        """Where an epoch begins; 0 where the text has no chunk to spare."""
        spare = min(self.steps, len(self.ids) - 1 - self.rows * self.steps)
        generator = torch.Generator().manual_seed((self.seed * 7919 + epoch) % 2**63)
        return int(torch.randint(max(1, spare), (1,), generator=generator))


class Along:
    """The loss along a stream. What it carries is the state, which is saved and resumed with the training."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.hidden: States = ()

    def __call__(self, chunk: Chunk, progress: float) -> Loss:
        if chunk.first or not self.hidden:
            self.hidden = self.model.zero(chunk.tokens.size(0))
        loss, hidden = self.model.loss(chunk.tokens, chunk.wanted, self.hidden)
        whole = bool(loss.total.isfinite())  # else nothing that comes after would be
        self.hidden = tuple(part.detach() for part in hidden) if whole else ()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"hidden": list(self.hidden)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.hidden = tuple(part.to(self.model.device) for part in state["hidden"])


@torch.inference_mode()
def along(model: LanguageModel, ids: Tensor, rows: int = 1, steps: int = 1000) -> float:
    """Nats per piece of a stream (n,), read in `rows` pieces, the state carried over chunks of any length."""
    length = (len(ids) - 1) // rows
    hidden, total = model.zero(rows), 0.0
    at = torch.arange(rows).unsqueeze(1) * length
    for start in range(0, length, steps):
        places = at + torch.arange(start, min(start + steps, length) + 1)  # (B, N + 1)
        chunk = ids[places].to(model.device)
        loss, hidden = model.loss(chunk[:, :-1], chunk[:, 1:], hidden)
        total += float(loss.nll)
    return total / (length * rows)


# -- sentences of their own


class Sentences:
    """Lines as batches of about equal length, `rows` of them where they have the middle length."""

    def __init__(self, ids: Sequence[Sequence[int]], rows: int, seed: int, device: torch.device) -> None:
        self.ids, self.device = ids, device
        lengths = np.array([len(line) + 1 for line in ids])
        self.plan = Batches(lengths, lengths, rows * int(np.median(lengths)), seed)

    def batches(self, epoch: int) -> int:
        return len(self.plan.plan(epoch))

    def fetch(self, epoch: int, number: int) -> Chunk:
        return _batch([self.ids[row] for row in self.plan.plan(epoch)[number]], self.device)


def _batch(ids: Sequence[Sequence[int]], device: torch.device) -> Chunk:
    batch = collate([[]] * len(ids), ids).to(device)
    return Chunk(batch.target_in, batch.target_out, True)


@torch.inference_mode()
def over(model: LanguageModel, ids: Sequence[Sequence[int]]) -> tuple[float, int]:
    """Nats of all lines together, <eos> counted, and how many pieces that are."""
    total, count = 0.0, 0
    for rows in by_length([len(line) + 1 for line in ids], TOGETHER):
        chunk = _batch([ids[row] for row in rows], model.device)
        loss, _ = model.loss(chunk.tokens, chunk.wanted, model.zero(len(chunk.tokens)))
        total, count = total + float(loss.nll), count + loss.count
    return total, count


# -- the job


@dataclass(frozen=True)
class Text:
    """A split as ids: a stream (n,), or lines."""

    ids: Tensor | list[list[int]]
    letters: int  # characters, for bits per character
    digest: str = ""  # of its lines

    def nats(self, model: LanguageModel, rows: int = 1) -> tuple[float, int, int]:
        """Nats of what is read, a stream but for the ends of its rows, and how many pieces and characters that is."""
        if isinstance(self.ids, Tensor):
            rows = max(1, min(rows, len(self.ids) - 1))
            count = (len(self.ids) - 1) // rows * rows
            return along(model, self.ids, rows) * count, count, count
        return *over(model, self.ids), self.letters


def read(recipe: LanguageModelRecipe, split: str, vocabulary: Characters | Tokenizer) -> Text:
    """A split of a recipe's text."""
    found = lines(recipe.data, split)
    if recipe.data.unit == "stream" and isinstance(vocabulary, Characters):
        ids = np.fromiter(chain.from_iterable(vocabulary.encode(f"{line}\n") for line in found), np.int64)
        return Text(torch.from_numpy(ids), len(ids), digest(found))
    encoded = map(vocabulary.encode, found) if isinstance(vocabulary, Characters) else vocabulary.encode(found)
    kept = [(ids, line) for line, ids in zip(found, encoded, strict=True) if ids]
    if not kept:
        raise DataError(f"data.{split}: no line of it has a piece: is that the text?")
    texts = [line for _, line in kept]
    return Text([ids for ids, _ in kept], sum(len(line) + 1 for line in texts), digest(texts))


def vocabulary_of(recipe: LanguageModelRecipe) -> Characters | Tokenizer:
    """The pieces of a recipe, trained on its text where they are not given."""
    spec = recipe.tokenizer
    if spec.file is not None:
        return Tokenizer.load(Path(spec.file))
    found = lines(recipe.data, "train")
    if spec.model == "characters":
        return Characters.of("\n".join(found) + "\n")
    return tokenizer.train(found, spec.model, spec.vocab_size)


def known(folder: Path) -> Characters | Tokenizer:
    """The pieces of a trained model."""
    own = folder / CHARACTERS
    return Characters.load(own) if own.is_file() else Tokenizer.load(folder / PIECES)


class Validation:
    """Perplexity of the valid split, and something that the model writes."""

    def __init__(self, model: LanguageModel, recipe: LanguageModelRecipe, vocabulary: Characters | Tokenizer) -> None:
        self.model, self.recipe, self.vocabulary = model, recipe, vocabulary
        self.text = read(recipe, "valid", vocabulary)

    def __call__(self, quick: bool) -> dict[str, Any]:
        text = Text(self.text.ids[:200], 200) if quick else self.text
        figures = _figures(*text.nats(self.model, rows=1 if quick else 8))
        if self.recipe.training.sample and not quick:
            pieces = generate(self.model, self.recipe, _opening(self.recipe, self.vocabulary))
            say("  " + "".join(spell(self.vocabulary, pieces, SHOWN)).strip().replace("\n", "\n  "))
        return figures


def _figures(nats: float, count: int, letters: int) -> dict[str, float]:
    loss = nats / count
    return {
        "loss": loss,
        "perplexity": math.exp(min(loss, 50.0)),
        "bits per character": nats / letters / math.log(2),
    }


def job(recipe: AnyRecipe, hardware: Hardware, folder: Path | None) -> Job[Chunk]:
    """Everything to train a recipe; `folder` is that of a run that is resumed."""
    assert isinstance(recipe, LanguageModelRecipe)
    settings = recipe.training
    vocabulary = known(folder) if folder else vocabulary_of(recipe)
    text = read(recipe, "train", vocabulary)
    torch.manual_seed(settings.seed)
    model = build(recipe, vocabulary.vocab).to(hardware.device)
    stream: Chunks | Sentences
    if isinstance(text.ids, Tensor):
        stream = Chunks(text.ids, settings.rows, settings.chunk, settings.seed, hardware.device)
        said = f"a stream of {len(text.ids):,} pieces, {settings.rows} rows of {stream.batches(0):,} chunks"
    else:
        stream = Sentences(text.ids, settings.rows, settings.seed, hardware.device)
        said = f"{len(text.ids):,} lines"
    loss, validation = Along(model), Validation(model, recipe, vocabulary)
    return Job(
        model,
        stream,
        loss,
        validation,
        {
            "parameters": sizes(model),
            "vocabulary": {"target": vocabulary.vocab},
            "data": {
                "train": len(text.ids),
                "characters": text.letters,
                "text of train": text.digest,
                "text of valid": validation.text.digest,
            },
        },
        {CHARACTERS if isinstance(vocabulary, Characters) else PIECES: vocabulary.proto},
        said,
        loss,
    )


# -- using it


@dataclass(frozen=True)
class Loaded:
    """A trained language model."""

    model: LanguageModel
    recipe: LanguageModelRecipe
    vocabulary: Characters | Tokenizer


def load(folder: Path, changes: Iterable[str] = (), device: str = "auto", threads: int | None = None) -> Loaded:
    """Open a model folder; `changes` are of its search. Raises CheckpointError, RecipeError."""
    saved = checkpoint.read_as(LanguageModelRecipe, folder)
    vocabulary = known(folder)
    model = build(saved.recipe, vocabulary.vocab)
    checkpoint.restore(model, saved.weights(), folder)
    machine = choose(device, "float32", threads)
    return Loaded(model.to(machine.device).eval(), changed(saved.recipe, changes), vocabulary)


def evaluate(folder: Path, changes: Iterable[str] = ()) -> Report:
    """What the model makes of its test split, read in one pass."""
    one = load(folder, changes)
    nats, count, letters = read(one.recipe, "test", one.vocabulary).nats(one.model)
    counts: dict[str, float | int] = {"pieces": count, "characters": letters}
    return Report(f"{one.recipe.name} test", counts | _figures(nats, count, letters))


def fusion(folder: str, device: str, threads: int | None) -> Fusion:
    """A language model of lines as search wants it, to help a translator. Raises CheckpointError, CallError."""
    one = load(Path(folder), device=device, threads=threads)
    if isinstance(one.vocabulary, Characters):
        raise CallError(f"search.language_model: {folder} writes characters: train one of lines in the same pieces")
    step = Stepper(one.model.decoder)
    return Fusion(
        step, lambda rows: step.start(one.model.zero(rows), one.model.nothing(rows)), one.vocabulary.fingerprint
    )


@torch.inference_mode()
def generate(model: LanguageModel, recipe: LanguageModelRecipe, prompt: Sequence[int]) -> Iterator[int]:
    """Pieces sampled after a prompt, one after the other, until <eos>, which a stream never has."""
    settings = recipe.search
    never = [*NEVER, EOS] if recipe.data.unit == "stream" else NEVER
    options = Options("sample", temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p)
    generator = torch.Generator().manual_seed(settings.seed)
    step = Stepper(model.decoder)
    place = step.start(model.zero(1), model.nothing(1))
    log_probs = torch.empty(0)
    for piece in prompt:
        log_probs, place = step(torch.tensor([piece], device=model.device), place)
    while True:
        log_probs[:, never] = -torch.inf
        piece = int(torch.multinomial(filtered(log_probs, options).cpu()[0], 1, generator=generator))
        if piece == EOS:
            return
        yield piece
        log_probs, place = step(torch.tensor([piece], device=model.device), place)


def _opening(recipe: LanguageModelRecipe, vocabulary: Characters | Tokenizer) -> list[int]:
    """What a text begins after: the end of a line of a stream, or <bos>."""
    if recipe.data.unit == "stream" and isinstance(vocabulary, Characters):
        return vocabulary.encode("\n")
    return [BOS]


def write(one: Loaded, prompt: str, length: int) -> Iterator[str]:
    """A prompt, and what a model writes after it, `length` pieces at most, as it comes. Raises CallError."""
    if isinstance(one.vocabulary, Characters):
        encode = one.vocabulary.encode
    else:
        pieces = one.vocabulary
        prompt = prompt.rstrip()  # a piece has the space before it

        def encode(text: str) -> list[int]:
            return pieces.encode([text])[0]

    given = encode(prompt)
    if prompt != tokenizer.whole(prompt):
        raise CallError("the prompt is not UTF-8: write it in that")
    if UNK in given:
        unknown = "".join(letter for letter in dict.fromkeys(prompt) if UNK in encode(letter))
        raise CallError(f"the prompt has characters that this model has never seen: leave out {unknown!r}")
    opening = _opening(one.recipe, one.vocabulary)
    written = spell(one.vocabulary, generate(one.model, one.recipe, [*opening, *given]), length, given)
    return chain([prompt], written)


def spell(
    vocabulary: Characters | Tokenizer, pieces: Iterator[int], length: int, given: Sequence[int] = ()
) -> Iterator[str]:
    """The text of `length` pieces at most, as they come, after those that are given."""
    if isinstance(vocabulary, Characters):
        yield from (vocabulary.decode([piece]) for piece in islice(pieces, length))
        return
    ids, shown = list(given), len(vocabulary.decode([list(given)])[0])
    for piece in islice(pieces, length):
        ids.append(piece)
        text = vocabulary.decode([ids])[0]
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # half a letter, of which more bytes may come
            yield text[shown:]
            shown = len(text)
    yield vocabulary.decode([ids])[0][shown:]
