"""A tag for every step: many to many, in step. Words of a translation, good or bad; frames, by what moves in them.

    h_t = reader(x)_t                                               both directions, or one
    c_t = attention(q_t, source),  q_t = h_t                        where there is a source
    p(tag_t) = softmax(W upper([h; c])_t + b)

With `guess` the reader first guesses each piece from what stands around it and from the source, and what it makes of
the piece that is really there goes along (the predictor-estimator of Kim et al. 2017, section 3, trained in one):

    q_t = [→h_{t-1}; ←h_{t+1}];  g_t = tanh(V [q_t; c_t]);  p(x_t | all others, source) = softmax(E g_t + b)
    upper reads [h_t; c_t; g_t; g_t * E x_t; log p(x_t | ...)]

A word of several pieces is tagged at the first, the last, or the mean of them.

Letters: B rows, T steps, S source length, W words (T where a step is a word), C tags, F numbers of a frame,
E embedding width, M width of the reader.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from nmt import checkpoint, tokenizer
from nmt.attention import ATTENTIONS, Attention
from nmt.cells import Dropout, Recurrent, Shares
from nmt.data import Batches, by_length, pad
from nmt.encoder import Encoder
from nmt.errors import CallError, DataError
from nmt.formats import read_lines, read_pairs
from nmt.hardware import Hardware, choose
from nmt.job import Job
from nmt.loss import Loss, cross_entropy
from nmt.model import sizes
from nmt.recipe import AnyRecipe, Cell, Field, Section, Training, model_validator
from nmt.recipe import Dropout as Drop
from nmt.shapes import frames, scores
from nmt.shapes.report import Report
from nmt.shapes.tagged import Example, TaggedData, baselines, digest, gold, read, words_of
from nmt.shapes.words import dropped
from nmt.tokenizer import EOS, UNK, Tokenizer

PIECES = "target.model"
NONE = -1  # the tag of padding
TOGETHER = 4096  # steps that are tagged at once, padding counted
LONGEST = 5_000  # words of a line to tag, at most: what joins its pieces grows with their square
LARGEST = float(np.finfo(np.float32).max)


class Pieces(Section):
    """What words are made of; one vocabulary for both sides."""

    model: Literal["unigram", "bpe", "char"] = "unigram"
    vocab_size: int = Field(4000, ge=8)


class TaggerModel(Section):
    cell: Cell = "lstm"
    embed: int = Field(128, ge=1, description="width of the embeddings; frames have none")
    hidden: int = Field(128, ge=1, description="width of one direction")
    layers: int = Field(1, ge=1, le=16, description="of the reader, and of the encoder of the source")
    upper: int = Field(1, ge=0, le=16, description="layers over what was read and attended, 0: none")
    direction: Literal["forward", "bidirectional"] = "bidirectional"
    attention: Literal["none", "dot", "general", "additive"] = Field("none", description="of each step to the source")
    guess: bool = Field(False, description="guess each piece from the others and the source, and judge it by that")
    word: Literal["first", "last", "mean"] = Field("mean", description="which of its pieces stand for a word")
    dropout: Drop = Drop()


class TaggerTraining(Training):
    batch_steps: int = Field(1000, ge=1, description="rows times the longest side, padding counted")
    guess_weight: float = Field(0.3, gt=0, description="of the loss of guessed pieces")
    word_dropout: float = Field(0.0, ge=0, lt=1, description="share of pieces replaced by <unk>")
    metric: Literal["mcc", "accuracy"] = Field("mcc", description="picks the best model and stops early")


class TaggerRecipe(AnyRecipe):
    task: Literal["tagging"] = "tagging"
    data: TaggedData
    tokenizer: Pieces = Pieces()
    model: TaggerModel = TaggerModel()
    training: TaggerTraining = TaggerTraining()

    @model_validator(mode="after")
    def _cross_checks(self) -> Self:
        model = self.model
        if bool(self.data.source) != (model.attention != "none"):
            raise ValueError(
                f"data.source is {self.data.source!r} and model.attention '{model.attention}': "
                "a source is read by attention, and attention needs a source: set both or neither"
            )
        if model.guess and (self.data.generator or model.direction == "forward" or model.layers > 1):
            raise ValueError(
                "model.guess needs pieces that one layer reads in both directions: "
                "set data.path, model.layers=1 and model.direction=bidirectional, or guess to false"
            )
        if self.training.word_dropout and self.data.generator:
            raise ValueError("training.word_dropout is for pieces: set it to 0 where frames are read")
        return self


KIND = TaggerRecipe


# -- the network


@dataclass(frozen=True)
class Batch:
    """Padded rows."""

    steps: Tensor  # (B, T) pieces, or (B, T, F) frames
    lengths: Tensor  # (B,)
    tags: Tensor  # (B, W), NONE on padding
    words: Tensor | None  # (B, W, T), the share of each step in each word; none where a step is a word
    source: Tensor | None  # (B, S), ending with <eos>
    source_lengths: Tensor | None  # (B,)


class Guess(nn.Module):
    """Pieces from what stands around them; the output weights are the embedding (V, E)."""

    def __init__(self, seen: int, embedding: nn.Embedding) -> None:
        super().__init__()
        self.readout = nn.Linear(seen, embedding.embedding_dim)
        self.output = nn.Linear(embedding.embedding_dim, embedding.num_embeddings)
        self.output.weight = embedding.weight
        nn.init.zeros_(self.output.bias)

    def forward(self, seen: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, T, E) of what should stand at each step, and the log-probability (B, T) of what does."""
        features = torch.tanh(self.readout(seen))
        logits = self.output(features).float().transpose(1, 2)  # (B, V, T)
        return features, -F.cross_entropy(logits, pieces, reduction="none")


class Tagger(nn.Module):
    """Reader, attention to a source where there is one, a second recurrent part, a tag for each word."""

    def __init__(
        self,
        reader: Encoder,
        source: Encoder | None,
        attention: Attention | None,
        guess: Guess | None,
        upper: Recurrent | None,
        output: nn.Linear,
        drop: Dropout,
    ) -> None:
        super().__init__()
        self.reader, self.source, self.attention, self.guess = reader, source, attention, guess
        self.upper, self.output, self.drop = upper, output, drop

    @property
    def device(self) -> torch.device:
        return self.output.bias.device

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Logits (B, W, C) of the tags, and the log-probability (B, T) of each piece if they are guessed."""
        read = self.reader(batch.steps, batch.lengths)
        states = read.memory.masked_fill(~read.mask.unsqueeze(2), 0.0)  # (B, T, M)
        query = around(states) if self.guess else states
        seen = [query]
        if self.source is not None and self.attention is not None:
            context = self.source(batch.source, batch.source_lengths)
            keys = self.attention.prepare(context.memory)
            seen.append(self.attention(query, keys, context.memory, context.mask)[0])
        parts, there = [states, *seen[1:]], None
        if self.guess is not None:
            features, there = self.guess(torch.cat(seen, dim=2), batch.steps)
            parts += [features, features * self.reader.embedding(batch.steps), there.unsqueeze(2)]
        x = torch.cat([part.to(states.dtype) for part in parts], dim=2)  # (B, T, ·)
        if self.upper is not None:
            x, _ = self.upper(x, lengths=batch.lengths)
        if batch.words is not None:
            x = x.masked_fill(~read.mask.unsqueeze(2), 0.0)
            x = torch.matmul(batch.words.to(x.dtype), x)  # (B, W, ·)
        return self.output(self.drop(x)), there

    def loss(self, batch: Batch, guess_weight: float = 1.0, word_dropout: float = 0.0) -> Loss:
        """The loss of the tags, padding left out, with that of the guessed pieces; it counts the words."""
        seen = hidden(batch, word_dropout)
        logits, there = self(seen)
        real = batch.tags != NONE
        loss = cross_entropy(logits[real], batch.tags[real])
        if there is None:
            return loss
        return replace(loss, total=loss.total - guess_weight * there[seen.steps > UNK].sum())


def around(states: Tensor) -> Tensor:
    """What both directions know (B, T, M) of each step without having read it; nothing beyond the ends."""
    forwards, backwards = states.chunk(2, dim=2)
    return torch.cat([F.pad(forwards[:, :-1], (0, 0, 1, 0)), F.pad(backwards[:, 1:], (0, 0, 0, 1))], dim=2)


def hidden(batch: Batch, share: float) -> Batch:
    """A batch with that share of its pieces replaced by <unk>."""
    if not share:
        return batch
    source = None if batch.source is None else dropped(batch.source, share)
    return replace(batch, steps=dropped(batch.steps, share), source=source)


def build(recipe: TaggerRecipe, vocab: int) -> Tagger:
    """The network of a recipe, freshly initialised; `vocab` is not looked at for frames."""
    model, framed = recipe.model, recipe.data.generator is not None
    drop = Shares(**model.dropout.model_dump())

    def encoder() -> Encoder:
        embed = frames.WIDTH if framed else model.embed
        return Encoder(vocab, embed, model.hidden, model.layers, model.cell, model.direction, dropout=drop)

    reader, source, attention, guess = encoder(), None, None, None
    if framed:
        reader.embedding = nn.Identity()  # type: ignore[assignment]  # a frame is read as it is
    width = read = reader.width
    if kind := ATTENTIONS[model.attention]:
        source = encoder()
        source.embedding.weight = reader.embedding.weight
        attention = kind(read, source.width)
        width += source.width
    if model.guess:
        guess = Guess(width, reader.embedding)
        width += 2 * model.embed + 1
    upper = None
    if model.upper:
        both = model.direction == "bidirectional"
        upper = Recurrent(
            model.cell, width, model.hidden, model.upper, drop.layers, both, drop_recurrent=drop.recurrent
        )
        width = upper.width
    output = nn.Linear(width, len(recipe.data.labels))
    return Tagger(reader, source, attention, guess, upper, output, Dropout(drop.output))


# -- the data


class Rows:
    """Examples as tensors, batch by batch."""

    def __init__(self, examples: Sequence[Example], pieces: Tokenizer | None, word: str, device: torch.device) -> None:
        self.examples, self.pieces, self.word, self.device = examples, pieces, word, device
        self.spelt: list[list[list[int]]] = []  # the pieces of each word of each row
        self.sources: list[list[int]] = []
        if pieces is not None:
            known = {word: ids or [UNK] for word, ids in _spelt({w for one in examples for w in one.words}, pieces)}
            self.spelt = [[known[word] for word in one.words] for one in examples]
            self.sources = [[*ids, EOS] for ids in pieces.encode([one.source for one in examples])]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Steps of each row."""
        if not self.spelt:
            return np.array([len(one.words) for one in self.examples])
        return np.array([sum(map(len, words)) for words in self.spelt])

    @property
    def source_lengths(self) -> NDArray[np.int64]:
        return np.array([len(ids) for ids in self.sources]) if self.sources else self.lengths

    def batch(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> Batch:
        chosen = [self.examples[row] for row in rows]
        tags = nn.utils.rnn.pad_sequence([torch.tensor(one.tags) for one in chosen], True, NONE)
        if not self.spelt:
            seen = [torch.tensor(one.frames) for one in chosen]
            steps, lengths = nn.utils.rnn.pad_sequence(seen, True), torch.tensor([len(one) for one in seen])
            return Batch(steps.to(self.device), lengths.to(self.device), tags.to(self.device), None, None, None)
        spelt = [self.spelt[row] for row in rows]
        steps = pad([[piece for word in words for piece in word] for words in spelt])  # (B, T)
        lengths = torch.tensor([sum(map(len, words)) for words in spelt])
        sources = [self.sources[row] for row in rows]
        ends = torch.tensor([len(ids) for ids in sources])
        parts = (steps, lengths, tags, shares(spelt, steps.size(1), self.word), pad(sources), ends)
        return Batch(*(part.to(self.device) for part in parts))


def _spelt(words: Iterable[str], pieces: Tokenizer) -> Iterator[tuple[str, list[int]]]:
    listed = sorted(words)
    return zip(listed, pieces.encode(listed), strict=True)


def shares(spelt: Sequence[Sequence[Sequence[int]]], steps: int, kind: str) -> Tensor:
    """The share (B, W, T) of each of the steps in each word: of its first, its last or all its pieces."""
    found = np.zeros((len(spelt), max(map(len, spelt)), steps), np.float32)
    for row, words in enumerate(spelt):
        start = 0
        for word, ids in enumerate(words):
            end = start + len(ids)
            first, last = {"first": (start, start + 1), "last": (end - 1, end), "mean": (start, end)}[kind]
            found[row, word, first:last] = 1 / (last - first)
            start = end
    return torch.from_numpy(found)


class Stream:
    """Rows as batches of about equal length."""

    def __init__(self, rows: Rows, settings: TaggerTraining) -> None:
        self.rows = rows
        self.plan = Batches(rows.source_lengths, rows.lengths, settings.batch_steps, settings.seed)

    def batches(self, epoch: int) -> int:
        return len(self.plan.plan(epoch))

    def fetch(self, epoch: int, number: int) -> Batch:
        return self.rows.batch(self.plan.plan(epoch)[number])


# -- the job


@torch.inference_mode()
def probabilities(model: Tagger, rows: Rows, together: int = TOGETHER) -> list[NDArray[np.float64]]:
    """What the model gives each tag, (W, C) for each row."""
    found: list[NDArray[np.float64]] = [np.empty(0)] * len(rows.examples)
    for chosen in by_length(np.maximum(rows.lengths, rows.source_lengths).tolist(), together):
        logits, _ = model(rows.batch(chosen))
        for row, shares in zip(chosen, logits.double().softmax(2).cpu().numpy(), strict=True):
            found[row] = shares[: len(rows.examples[row].words)]
    return found


def _figures(shares: scores.Shares, true: scores.Ids, threshold: float | None, labels: Sequence[str]) -> dict[str, Any]:
    table = scores.confusion(true, scores.choose(shares, threshold), len(labels))
    nats = float(-np.log(shares[np.arange(len(true)), true].clip(1e-12)).mean())
    return {"loss": nats} | scores.figures(table, labels)


class Validation:
    """Figures of the valid split; of two tags, with the threshold that is best there."""

    def __init__(self, model: Tagger, rows: Rows, labels: Sequence[str]) -> None:
        self.model, self.rows, self.labels = model, rows, labels

    def __call__(self, quick: bool) -> dict[str, Any]:
        rows = Rows(self.rows.examples[:64], self.rows.pieces, self.rows.word, self.rows.device) if quick else self.rows
        shares, true = np.concatenate(probabilities(self.model, rows)), gold(rows.examples)
        at = scores.threshold(shares, true)
        return _figures(shares, true, at, self.labels) | ({} if at is None else {"threshold": at})


def _pieces(recipe: TaggerRecipe, examples: Sequence[Example]) -> Tokenizer | None:
    """Pieces trained on both sides of the training split; frames have none."""
    if recipe.data.generator:
        return None
    text = [" ".join(one.words) for one in examples] + [one.source for one in examples]
    return tokenizer.train(text, recipe.tokenizer.model, recipe.tokenizer.vocab_size)


def job(recipe: AnyRecipe, hardware: Hardware, folder: Path | None) -> Job[Batch]:
    """Everything to train a recipe; `folder` is that of a run that is resumed."""
    assert isinstance(recipe, TaggerRecipe)
    settings, word, device = recipe.training, recipe.model.word, hardware.device
    examples, valid = read(recipe.data, "train"), read(recipe.data, "valid")
    if len(found := set(gold(examples).tolist())) == 1:
        only = recipe.data.labels[found.pop()]
        raise DataError(f"data.train: every tag is '{only}': a tagger needs two tags or more")
    pieces = _known(recipe, folder) if folder else _pieces(recipe, examples)
    rows = Rows(examples, pieces, word, device)
    torch.manual_seed(settings.seed)
    model = build(recipe, pieces.vocab if pieces else 1).to(device)
    words = int(sum(len(one.words) for one in examples))
    return Job(
        model,
        Stream(rows, settings),
        lambda batch, progress: model.loss(batch, settings.guess_weight, settings.word_dropout),
        Validation(model, Rows(valid, pieces, word, device), recipe.data.labels),
        {
            "parameters": sizes(model),
            "vocabulary": {"target": pieces.vocab} if pieces else {},
            "data": {
                "train": len(examples),
                "valid": len(valid),
                "words": words,
                "text of train": digest(examples),
                "text of valid": digest(valid),
            },
        },
        {PIECES: pieces.proto} if pieces else {},
        f"{len(examples):,} rows of {words:,} {'words' if pieces else 'frames'} to train on, {len(valid):,} valid",
    )


# -- using it


@dataclass(frozen=True)
class Loaded:
    """A trained tagger, with its threshold where it knows two tags."""

    model: Tagger
    recipe: TaggerRecipe
    pieces: Tokenizer | None
    threshold: float | None

    def rows(self, examples: Sequence[Example]) -> Rows:
        return Rows(examples, self.pieces, self.recipe.model.word, self.model.device)


def _known(recipe: TaggerRecipe, folder: Path) -> Tokenizer | None:
    return None if recipe.data.generator else Tokenizer.load(folder / PIECES)


def load(folder: Path, device: str = "auto") -> Loaded:
    """Open a model folder. Raises CheckpointError."""
    saved = checkpoint.read_as(TaggerRecipe, folder)
    pieces = _known(saved.recipe, folder)
    model = build(saved.recipe, pieces.vocab if pieces else 1)
    checkpoint.restore(model, saved.weights(), folder)
    threshold = (saved.info.get("best") or {}).get("threshold")
    return Loaded(model.to(choose(device, "float32").device).eval(), saved.recipe, pieces, threshold)


def evaluate(folder: Path, changes: Iterable[str] = ()) -> Report:
    """What the model makes of its test split, beside what can be had without a net."""
    for change in changes:
        raise CallError(f"--set {change}: a tagger has nothing to change after training: leave it out")
    one = load(folder)
    data, labels = one.recipe.data, one.recipe.data.labels
    test = read(data, "test")
    shares, true = np.concatenate(probabilities(one.model, one.rows(test))), gold(test)
    figures = {"rows": len(test), "words": len(true)} | _figures(shares, true, one.threshold, labels)
    return Report(f"{one.recipe.name} test", figures, baselines(data, test))


def lines(one: Loaded, files: Sequence[Path], given: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Source and text of each line to tag: of two files, or of lines with a tab between the two.

    A model without a source takes one file, or lines as they are. Raises CallError, DataError.
    """
    sides = 2 if one.recipe.data.source else 1
    if files and len(files) != sides:
        what = "two files, source and translation" if sides == 2 else "one file"
        raise CallError(f"this model tags {what}, not {len(files)}")
    if len(files) == 2:
        yield from read_pairs(files, ("", ""))
        return
    where = str(files[0]) if files else "standard input"
    for number, line in enumerate(read_lines(files[0]) if files else given, start=1):
        source, tab, text = line.rpartition("\t")
        if sides == 2 and (not tab or "\t" in source):
            raise DataError(f"{where}: line {number}: write source, a tab, and its translation in one line")
        yield (source, text) if sides == 2 else ("", line)


def tag(one: Loaded, given: Iterable[tuple[str, str]], together: int = 64) -> Iterator[list[str]]:
    """The tags of the words of each text, read with its source, in order. A frame is written as its numbers: x,y."""
    numbers = count(1)
    given = iter(given)
    while group := list(islice(given, together)):
        examples = []
        for source, text in group:
            words, number = words_of(text), next(numbers)
            if len(words) > LONGEST:
                raise DataError(
                    f"line {number} has {len(words):,} words, at most {LONGEST:,} are tagged at once: break it in two"
                )
            seen = None if one.pieces else _frames(words, number)
            examples.append(Example(words, seen, source, [NONE] * len(words)))
        full = [example for example in examples if example.words]
        found = iter(probabilities(one.model, one.rows(full)) if full else [])
        for example in examples:
            chosen = scores.choose(next(found), one.threshold).tolist() if example.words else []
            yield [one.recipe.data.labels[tag] for tag in chosen]


def _frames(words: Sequence[str], number: int) -> NDArray[np.float32]:
    try:
        seen = np.array([[float(part) for part in word.split(",")] for word in words])
    except ValueError:  # no numbers, or not the same count of them
        seen = np.empty((0, 0))
    if words and (seen.ndim != 2 or seen.shape[1] != frames.WIDTH or not (np.abs(seen) < LARGEST).all()):
        raise DataError(f"line {number}: write each frame as {frames.WIDTH} numbers with a comma between: 0.5,-0.25")
    return seen.astype(np.float32)
