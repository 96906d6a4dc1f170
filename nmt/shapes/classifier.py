"""A classifier of lines of text: the encoder alone, and one vector for a line. Many to one.

    m_1 … m_S = encoder(x);  v = pool(m_1 … m_S);  p(y | x) = softmax(W v + b)

    last       v = the last state, of both directions
    mean, max  v = mean or maximum of m_s over s                   (Conneau et al. 2017, section 3.2)
    attention  v = Σ softmax(q·m_s / √M) m_s, the query q learnt   (Yang et al. 2016, section 2.2)

Several such nets can be trained side by side, each from its own first weights; their probabilities are averaged
(Hansen and Salamon 1990).

Letters: B lines, S length of a line, M width of the encoder's output, C classes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from nmt import checkpoint, plots, tokenizer
from nmt.attention import Dot
from nmt.cells import Dropout, Shares
from nmt.corpus import digest, locate, read_lines
from nmt.data import Batch, Batches, by_length, collate
from nmt.encoder import Encoder
from nmt.errors import CheckpointError, DataError
from nmt.hardware import Hardware, choose
from nmt.job import Job
from nmt.loss import Loss, cross_entropy
from nmt.material import seed_of
from nmt.model import sizes
from nmt.progress import say
from nmt.recipe import AnyRecipe, Cell, Field, Section, Training, changed, model_validator
from nmt.recipe import Dropout as DropoutShares
from nmt.shapes import bag, scores
from nmt.shapes.report import Report
from nmt.shapes.words import SHORTEST, Spelled, Spelling, Words, dropped, spelled
from nmt.tokenizer import Tokenizer

TOGETHER = 64  # lines that are classified at once
STEPS = 4096  # of them, padding counted, at most
SHOWN = 10  # labels in a message
CLASSES, WORDS, NGRAMS, PIECES = "classes.json", "words.json", "ngrams.json", "source.model"

Vocabulary = Words | Spelled | Tokenizer


class ClassifierData(Section):
    """Two files a split, line for line: `train.text` has the lines, `train.label` the class of each, one word."""

    path: str = Field(description="folder with the files, from here, or under $NMT_DATA or data/")
    train: str = "train"
    valid: str = "valid"
    test: str = "test"


class Pieces(Section):
    """What a line is made of."""

    model: Literal["words", "unigram", "bpe"] = Field("words", description="words: what stands between spaces")
    least: int = Field(2, ge=1, description="how often a word occurs in the train split; others are unknown")
    ngrams: int = Field(0, ge=0, le=8, description="letters of the longest n-grams that help to know a word; 0: none")
    vocab_size: int = Field(4000, ge=8, description="pieces of a unigram or bpe model")

    @model_validator(mode="after")
    def _letters_of_words(self) -> Self:
        if self.ngrams and (self.model != "words" or self.ngrams < SHORTEST):
            raise ValueError(f"tokenizer.ngrams is for words and has {SHORTEST} letters or more: 4 for instance")
        return self


class ClassifierModel(Section):
    cell: Cell = "gru"
    embed: int = Field(128, ge=1, description="width of the embeddings")
    layers: int = Field(1, ge=1, le=16)
    hidden: int = Field(64, ge=1, description="width of one direction")
    direction: Literal["forward", "reversed", "bidirectional"] = "bidirectional"
    residual: bool = False
    pooling: Literal["last", "mean", "max", "attention"] = "max"
    members: int = Field(1, ge=1, le=64, description="nets trained side by side, whose probabilities are averaged")
    dropout: DropoutShares = Field(DropoutShares(), description="output: of the pooled vector")


class ClassifierTraining(Training):
    rows: int = Field(32, ge=1, description="lines of middle length together, about")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    word_dropout: float = Field(0.0, ge=0, lt=1, description="share of input pieces replaced by <unk>")
    metric: Literal["accuracy", "macro F1"] = Field("accuracy", description="picks the best model and stops early")


class ClassifierRecipe(AnyRecipe):
    task: Literal["classification"] = "classification"
    data: ClassifierData
    tokenizer: Pieces = Pieces()
    model: ClassifierModel = ClassifierModel()
    training: ClassifierTraining = ClassifierTraining()


KIND = ClassifierRecipe


# -- the network


class Classifier(nn.Module):
    """An encoder whose memory is pooled to one vector. Owns its weights."""

    def __init__(self, encoder: Encoder, pooling: str, classes: int, dropout: float = 0.0) -> None:
        """`pooling` is the encoder's summary, or `attention`."""
        super().__init__()
        self.encoder = encoder
        self.attention = pooling == "attention"
        if self.attention:
            self.query = nn.Parameter(torch.zeros(1, 1, encoder.width))  # begins as the mean
            self.look = Dot(encoder.width, encoder.width)
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(encoder.width, classes)

    def pool(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The vector (B, M) of each line of tokens (B, S), of which the first `lengths` (B,) are real."""
        context = self.encoder(tokens, lengths)
        if not self.attention:
            return context.final[0][-1]  # type: ignore[no-any-return]
        query = self.query.expand(tokens.size(0), 1, -1)  # (B, 1, M)
        pooled, _ = self.look(query, self.look.prepare(context.memory), context.memory, context.mask)
        return pooled.squeeze(1)  # type: ignore[no-any-return]

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, C)."""
        pooled = self.dropout(self.pool(tokens, lengths).unsqueeze(1)).squeeze(1)
        return self.output(pooled)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Labelled:
    """Padded lines and the class of each, (B,)."""

    lines: Batch
    classes: Tensor


class Committee(nn.Module):
    """Classifiers that learn side by side and answer together."""

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def loss(self, batch: Labelled, smoothing: float = 0.0) -> Loss:
        """The sum of the members' losses, so that each learns nearly as if alone (gradients are clipped together);
        `nll` is their mean."""
        lines = batch.lines
        losses = [
            cross_entropy(member(lines.source, lines.source_lengths), batch.classes, smoothing)
            for member in self.members
        ]
        whole = sum(losses[1:], losses[0])
        return Loss(whole.total, len(batch.classes), whole.nll / len(losses))

    def log_probs(self, lines: Batch) -> Tensor:
        """log of the mean of the members' probabilities, (B, C)."""
        found = [member(lines.source, lines.source_lengths).float().log_softmax(1) for member in self.members]
        return torch.stack(found).logsumexp(0) - math.log(len(found))


def build(recipe: ClassifierRecipe, vocab: int, classes: int) -> Committee:
    """The network of a recipe, freshly initialised."""
    model, drop = recipe.model, recipe.model.dropout

    def member() -> Classifier:
        encoder = Encoder(
            vocab,
            model.embed,
            model.hidden,
            model.layers,
            model.cell,
            model.direction,
            "last" if model.pooling == "attention" else model.pooling,
            model.residual,
            Shares(drop.embedding, drop.layers, 0.0, drop.recurrent),
        )
        if recipe.tokenizer.ngrams:
            encoder.embedding = Spelling(encoder.embedding)  # type: ignore[assignment]
        return Classifier(encoder, model.pooling, classes, drop.output)

    return Committee(member() for _ in range(model.members))


# -- data


@dataclass(frozen=True)
class Split:
    """Lines of text and the label of each."""

    name: str
    lines: list[str]
    labels: list[str]

    def classes(self, known: Sequence[str]) -> Tensor:
        """The numbers (N,) of the labels among those that are known. Raises DataError for another."""
        numbers = {label: number for number, label in enumerate(known)}
        for line, label in enumerate(self.labels, start=1):
            if label not in numbers:
                raise DataError(
                    f"{self.name}.label: line {line}: label '{label}' never occurs in the train split, "
                    f"which has {', '.join(known[:SHOWN])}{', ...' * (len(known) > SHOWN)}: correct it or leave it out"
                )
        return torch.tensor([numbers[label] for label in self.labels])


def read(data: ClassifierData, split: str) -> Split:
    """The lines and labels of `train`, `valid` or `test`. Raises DataError."""
    stem = {"train": data.train, "valid": data.valid, "test": data.test}[split]
    name = f"{data.path}/{stem}"
    lines, labels = (list(read_lines(locate(data.path) / f"{stem}.{side}")) for side in ("text", "label"))
    if not any(line.strip() for line in lines):
        raise DataError(f"{name}.text: no text in it: put one line for each line of {name}.label there")
    if len(lines) != len(labels):
        raise DataError(
            f"{name}.text has {len(lines):,} lines, {name}.label {len(labels):,}: each line needs one label"
        )
    for number, label in enumerate(labels, start=1):
        if len(label.split()) != 1:
            raise DataError(f"{name}.label: line {number}: '{label}' is not one word: write one label a line")
    return Split(name, lines, [label.strip() for label in labels])


def labels_of(train: Split) -> list[str]:
    """The labels of a train split, in order. Raises DataError where there is nothing to choose from."""
    found = sorted(set(train.labels))
    if len(found) == 1:
        raise DataError(f"{train.name}.label: every line is '{found[0]}': a classifier needs two labels or more")
    return found


def known_labels(folder: Path) -> list[str]:
    """The labels of a trained model."""
    return checkpoint.read_list(folder / CLASSES, "labels")


def vocabulary_of(recipe: ClassifierRecipe, lines: Sequence[str]) -> Vocabulary:
    """The words or pieces of a recipe, from the lines of its train split."""
    spec = recipe.tokenizer
    if spec.model == "words" and spec.ngrams:
        return Spelled.of(lines, spec.least, spec.ngrams)
    if spec.model == "words":
        return Words.of(lines, spec.least)
    return tokenizer.train(lines, spec.model, spec.vocab_size)


def files_of(vocabulary: Vocabulary) -> dict[str, bytes]:
    """What `known_vocabulary` reads."""
    if isinstance(vocabulary, Spelled):
        return {**files_of(vocabulary.words), NGRAMS: checkpoint.list_bytes(vocabulary.ngrams)}
    return {WORDS if isinstance(vocabulary, Words) else PIECES: vocabulary.proto}


def known_vocabulary(folder: Path) -> Vocabulary:
    """The words or pieces of a trained model."""
    if not (folder / WORDS).is_file():
        return Tokenizer.load(folder / PIECES)
    words, ngrams = Words.load(folder / WORDS), folder / NGRAMS
    return Spelled(words, checkpoint.read_list(ngrams, "n-grams")) if ngrams.is_file() else words


def padded(ids: Sequence[Sequence[int]]) -> Batch:
    """A batch of lines that has no other side; <eos> ends each, so that an empty one is a line too."""
    return collate(ids, [[]] * len(ids))


@dataclass(frozen=True)
class Lines:
    """Lines of ids, or of the features of words, and what makes a batch of some."""

    ids: Sequence[Sequence[Any]]
    padded: Callable[[Sequence[Sequence[Any]]], Batch] = padded

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: Iterable[int]) -> Batch:
        return self.padded([self.ids[row] for row in rows])


def encoded(vocabulary: Vocabulary, lines: Sequence[str]) -> Lines:
    """Lines as a vocabulary reads them."""
    return Lines(vocabulary.encode(lines), spelled if isinstance(vocabulary, Spelled) else padded)


class LabelledLines:
    """Lines as batches of about equal length; words are dropped anew in each epoch."""

    def __init__(self, lines: Lines, classes: Tensor, settings: ClassifierTraining, device: torch.device) -> None:
        self.lines, self.classes, self.settings, self.device = lines, classes, settings, device
        lengths = np.array([len(line) + 1 for line in lines.ids])
        self.plan = Batches(lengths, lengths, settings.rows * int(np.median(lengths)), settings.seed)

    def batches(self, epoch: int) -> int:
        return len(self.plan.plan(epoch))

    def fetch(self, epoch: int, number: int) -> Labelled:
        rows = self.plan.plan(epoch)[number]
        lines = self.lines.batch(rows)
        if self.settings.word_dropout:
            generator = torch.Generator().manual_seed(seed_of(self.settings.seed, epoch, number))
            lines = replace(lines, source=dropped(lines.source, self.settings.word_dropout, generator))
        return Labelled(lines.to(self.device), self.classes[torch.from_numpy(rows)].to(self.device))


@torch.inference_mode()
def log_probs(model: Committee, lines: Lines, most: int | None = None) -> Tensor:
    """log p (N, C) of the classes of each line, or of the first so many."""
    groups = list(by_length([len(line) + 1 for line in lines.ids[:most]], STEPS))
    found = [model.log_probs(lines.batch(group).to(model.device)).cpu() for group in groups]
    return torch.cat(found)[torch.tensor(list(chain(*groups))).argsort()]


# -- figures


def figures(table: scores.Ids) -> dict[str, float]:
    """Accuracy and macro F1 in percent, of a confusion (C, C); a class that no line has or is given does not count."""
    right, seen = table.diagonal(), table.sum(0) + table.sum(1)
    there = seen > 0
    return {
        "accuracy": 100 * float(right.sum() / table.sum()),
        "macro F1": 100 * float((2 * right[there] / seen[there]).mean()),
    }


def confusion(gold: Tensor, guessed: Tensor, classes: int) -> scores.Ids:
    """How often each class (a row) was taken for each (a column), (C, C)."""
    return scores.confusion(gold.numpy(), guessed.numpy(), classes)


class Validation:
    """Accuracy, macro F1 and loss on the valid split."""

    def __init__(self, model: Committee, lines: Lines, classes: Tensor, labels: int) -> None:
        self.model, self.lines, self.classes, self.labels = model, lines, classes, labels

    def __call__(self, quick: bool) -> dict[str, Any]:
        most = TOGETHER if quick else None
        gold = self.classes[:most]
        found = log_probs(self.model, self.lines, most)
        loss = -float(found.gather(1, gold.unsqueeze(1)).mean())
        table = confusion(gold, found.argmax(1), self.labels)
        return {"loss": loss, **figures(table)}


# -- the job


def job(recipe: AnyRecipe, hardware: Hardware, folder: Path | None) -> Job[Labelled]:
    """Everything to train a recipe; `folder` is that of a run that is resumed."""
    assert isinstance(recipe, ClassifierRecipe)
    settings = recipe.training
    train, valid = read(recipe.data, "train"), read(recipe.data, "valid")
    labels = known_labels(folder) if folder else labels_of(train)
    vocabulary = known_vocabulary(folder) if folder else vocabulary_of(recipe, train.lines)
    classes = train.classes(labels)
    validation = valid.classes(labels)
    torch.manual_seed(settings.seed)
    model = build(recipe, vocabulary.vocab, len(labels)).to(hardware.device)
    counts = Counter(train.labels)
    return Job(
        model,
        LabelledLines(encoded(vocabulary, train.lines), classes, settings, hardware.device),
        lambda batch, progress: model.loss(batch, settings.label_smoothing),
        Validation(model, encoded(vocabulary, valid.lines), validation, len(labels)),
        {
            "parameters": sizes(model),
            "vocabulary": {"source": vocabulary.vocab},
            "data": {
                "train": len(train.lines),
                "valid": len(valid.lines),
                "labels": dict(sorted(counts.items())),
                "text of train": digest(train.lines, train.labels),
                "text of valid": digest(valid.lines, valid.labels),
            },
        },
        {**files_of(vocabulary), CLASSES: checkpoint.list_bytes(labels)},
        f"{len(train.lines):,} lines of {len(labels)} classes, {vocabulary.vocab:,} pieces",
    )


# -- using it


@dataclass(frozen=True)
class Loaded:
    """A trained classifier."""

    model: Committee
    recipe: ClassifierRecipe
    vocabulary: Vocabulary
    labels: list[str]

    def log_probs(self, lines: Sequence[str]) -> Tensor:
        """log p (N, C) of the labels of each line."""
        return log_probs(self.model, encoded(self.vocabulary, lines))


def load(folder: Path, changes: Iterable[str] = (), device: str = "auto") -> Loaded:
    """Open a model folder. Raises CheckpointError, RecipeError."""
    saved = checkpoint.read_as(ClassifierRecipe, folder)
    vocabulary, labels = known_vocabulary(folder), known_labels(folder)
    model = build(saved.recipe, vocabulary.vocab, len(labels))
    checkpoint.restore(model, saved.weights(), folder)
    model.to(choose(device, "float32").device).eval()
    return Loaded(model, changed(saved.recipe, changes), vocabulary, labels)


def classify(one: Loaded, lines: Iterable[str]) -> Iterator[tuple[str, float]]:
    """The label of each line and its probability, as lines come, some at a time."""
    waiting = iter(lines)
    while some := list(islice(waiting, TOGETHER)):
        best = one.log_probs(some).max(1)
        for value, number in zip(best.values.exp().tolist(), best.indices.tolist(), strict=True):
            yield one.labels[number], value


def evaluate(folder: Path, changes: Iterable[str] = ()) -> Report:
    """What the model makes of its test split, beside logistic regression on the same train split."""
    one = load(folder, changes)
    train, valid, test = (read(one.recipe.data, split) for split in ("train", "valid", "test"))
    gold, labels = test.classes(one.labels), len(one.labels)
    table = confusion(gold, one.log_probs(test.lines).argmax(1), labels)
    picture = folder / "confusion.png"
    try:
        plots.confusion(table.tolist(), one.labels, picture)
    except CheckpointError as error:
        say(f"warning: {error}")
    guessed, penalty = bag.guesses(
        (train.lines, train.classes(one.labels)), (valid.lines, valid.classes(one.labels)), test.lines, labels
    )
    baseline = f"logistic regression on unigrams and bigrams, λ={penalty:g}"
    return Report(
        f"{one.recipe.name} test",
        {"lines": len(gold), **figures(table)},
        _alone(one, test.lines, gold) | {baseline: figures(confusion(gold, guessed, labels))},
        _counts(table, one.labels),
    )


def _alone(one: Loaded, lines: Sequence[str], gold: Tensor) -> dict[str, dict[str, float]]:
    """How far the members of a committee are from each other; nothing of one that is alone anyway."""
    read, members = encoded(one.vocabulary, lines), one.model.members
    if len(members) == 1:
        return {}
    right = [log_probs(Committee([member]), read).argmax(1) == gold for member in members]
    found = [100 * float(hits.double().mean()) for hits in right]
    return {
        f"a member of {len(members)} alone, accuracy": {
            "lowest": min(found),
            "mean": sum(found) / len(found),
            "highest": max(found),
        }
    }


def _counts(table: scores.Ids, labels: Sequence[str]) -> str:
    """A confusion table to read."""
    width = max(7, *map(len, labels), len(f"{table.max():,}")) + 1
    rows = [[label, *(f"{count:,}" for count in row)] for label, row in zip(labels, table.tolist(), strict=True)]
    return "\n".join(
        ["  lines of a class (row) taken for another (column)"]
        + ["    " + "".join(f"{field:>{width}}" for field in row) for row in [["", *labels], *rows]]
    )
