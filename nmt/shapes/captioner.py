"""Image captioning: a picture to many words. One to many.

    memory = CNN([picture; x; y])                  grid positions; its classifier is not there (Vinyals et al. 2015)
    final = mean over the grid                     all that a decoder without attention has
    p(y_t | y_<t) = decoder(y_{t-1}, s_{t-1}, attention over the grid)        (Xu et al. 2015)

Two channels say where a pixel is (Liu et al. 2018, CoordConv): no convolution could tell left from right. The widths
of the CNN stand for 4x4 convolutions with stride 2 and 3x3 with stride 1 by turns, so that a position of the grid
lies in the middle of what it sees, which is little: attention then looks where the shape is.

Letters: B pictures, H height and width of a picture, G of the grid, S = G·G, M width of the memory, T pieces, V
vocabulary.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from nmt import checkpoint, metrics, tokenizer
from nmt.cells import Shares, States
from nmt.context import Bridge, Context
from nmt.data import collate
from nmt.decoder import Decoder
from nmt.errors import CheckpointError
from nmt.hardware import Hardware, choose
from nmt.job import Job
from nmt.loss import Loss, linear_cross_entropy
from nmt.model import sizes
from nmt.progress import say
from nmt.recipe import AnyRecipe, Cell, Dropout, Field, Section, Training, changed, model_validator
from nmt.search import Options, Request, search
from nmt.shapes.pictures import KINDS, PictureData, Pixels, Scene, drawn, read, scenes, words, write
from nmt.shapes.report import Report
from nmt.stepper import Stepper
from nmt.tokenizer import BOS, EOS, NEVER, PAD, UNK, Tokenizer

PIECES, MAP = "target.model", "attention.png"
LONGEST = 30  # words of a caption; the grammar has 17
TOGETHER = 100  # pictures looked at at once
SHOWN = 4  # pictures in attention.png


class CaptionerModel(Section):
    channels: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (32, 64, 64, 128), min_length=1, description="widths of the convolutions"
    )
    cell: Cell = "gru"
    embed: int = Field(96, ge=1, description="width of the embeddings")
    layers: int = Field(2, ge=1, le=16)
    hidden: int = Field(192, ge=1)
    attention: Literal["none", "dot", "general", "additive"] = "general"
    attention_position: Literal["after", "between"] = Field("between", description="as of a translator")
    context_feeding: bool = Field(False, description="give the summary to every step")
    tie: bool = Field(False, description="one matrix for embedding and output")
    dropout: Dropout = Dropout(embedding=0.1, layers=0.1, output=0.1)

    @model_validator(mode="after")
    def _cross_checks(self) -> Self:
        if self.attention != "none" and self.context_feeding:
            raise ValueError("model.context_feeding is for a fixed context: set model.attention to none")
        if self.attention != "none" and self.attention_position == "between" and self.layers < 2:
            raise ValueError(
                "model.attention_position 'between' needs model.layers of 2 or more: raise it or use 'after'"
            )
        if self.attention == "dot" and self.channels[-1] != self.hidden:
            raise ValueError("model.attention 'dot' needs model.hidden as wide as the last of model.channels")
        return self


class CaptionerTraining(Training):
    batch: int = Field(64, ge=1, description="pictures together")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    metric: Literal["bleu", "perplexity"] = Field("bleu", description="picks the best model and stops early")
    samples: int = Field(3, ge=0, description="captions shown at each validation")


class CaptionerSearch(Section):
    method: Literal["greedy", "beam"] = "greedy"
    beam: int = Field(5, ge=1, le=100)
    length_penalty: float = Field(1.0, ge=0, le=100)


class CaptionerRecipe(AnyRecipe):
    task: Literal["captioning"] = "captioning"
    data: PictureData = PictureData()
    model: CaptionerModel = CaptionerModel()
    training: CaptionerTraining = CaptionerTraining()
    search: CaptionerSearch = CaptionerSearch()

    @model_validator(mode="after")
    def _whole_cells(self) -> Self:
        if self.data.size % self.cell:
            raise ValueError(
                f"data.size: {self.data.size} is not allowed: with {len(self.model.channels)} model.channels it has "
                f"to be a multiple of {self.cell}"
            )
        return self

    @property
    def cell(self) -> int:
        """Pixels of a position of the grid, both ways."""
        return 1 << (len(self.model.channels) + 1) // 2


KIND = CaptionerRecipe


class PictureEncoder(nn.Module):
    """A CNN without a classifier: pictures (B, H, H, 3) of 0 to 255 to a context over G·G positions."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        widths = [3 + 2, *channels]
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, 3 if number % 2 else 4, stride=1 if number % 2 else 2, padding=1)
            for number, (before, after) in enumerate(pairwise(widths))
        )
        self.width = widths[-1]
        for layer in self.layers:
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, pictures: Tensor) -> Context:
        x = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1  # (B, 3, H, H)
        where = torch.linspace(-1, 1, x.size(2), device=x.device)  # (H,)
        places = torch.stack(torch.meshgrid(where, where, indexing="xy"))  # (2, H, H)
        x = torch.cat([x, places.expand(x.size(0), -1, -1, -1)], dim=1)  # (B, 5, H, H)
        for layer in self.layers:
            x = F.relu(layer(x))
        memory = x.flatten(2).transpose(1, 2)  # (B, S, M)
        mask = torch.ones(memory.shape[:2], dtype=torch.bool, device=x.device)
        return Context(memory, mask, (memory.mean(1).unsqueeze(0),))


class Captioner(nn.Module):
    """A picture encoder, a bridge and a decoder."""

    def __init__(self, encoder: PictureEncoder, bridge: Bridge, decoder: Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.bridge = bridge
        self.decoder = decoder

    @property
    def device(self) -> torch.device:
        return self.decoder.output.bias.device

    def look(self, pictures: Tensor) -> tuple[States, Context]:
        """The decoder's first state and the context of pictures (B, H, H, 3)."""
        context = self.encoder(pictures)
        return self.bridge(context.final), context

    def forward(self, pictures: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features (B, T, E) after each of `tokens` (B, T), and where was looked, (B, T, S)."""
        features, state = self.decoder.features(tokens, self.decoder.start(*self.look(pictures)))
        return features, state.attention

    def loss(self, batch: Captioned, smoothing: float = 0.0) -> Loss:
        """The loss of the captions, padding left out."""
        features, _ = self(batch.pictures, batch.tokens)
        real = batch.wanted != PAD
        return linear_cross_entropy(features[real], self.decoder.output, batch.wanted[real], smoothing)


def build(recipe: CaptionerRecipe, vocab: int) -> Captioner:
    """The network of a recipe, freshly initialised."""
    model = recipe.model
    encoder = PictureEncoder(model.channels)
    decoder = Decoder(
        vocab,
        model.embed,
        model.hidden,
        model.layers,
        model.cell,
        encoder.width,
        model.attention,
        model.attention_position,
        context_feeding=model.context_feeding,
        tied=model.tie,
        dropout=Shares(**model.dropout.model_dump()),
    )
    # to the bridge a summary is the last state of one layer without a cell state
    bridge = Bridge("linear", ("gru", model.cell), (1, model.layers), (encoder.width, model.hidden))
    return Captioner(encoder, bridge, decoder)


# -- pictures with captions


@dataclass(frozen=True)
class Captioned:
    """Pictures (B, H, H, 3) and their captions, tokens and wanted (B, T) each."""

    pictures: Tensor
    tokens: Tensor
    wanted: Tensor


@dataclass(frozen=True)
class Gallery:
    """A split: its scenes, pictures (n, H, H, 3) and the ids of the captions."""

    scenes: list[Scene]
    pictures: Pixels
    ids: list[list[int]]

    @property
    def captions(self) -> list[str]:
        return [scene.caption for scene in self.scenes]

    def take(self, rows: Sequence[int], device: torch.device) -> Captioned:
        batch = collate([[]] * len(rows), [self.ids[row] for row in rows])
        pictures = torch.from_numpy(self.pictures[rows])
        return Captioned(pictures.to(device), batch.target_in.to(device), batch.target_out.to(device))


def gallery(data: PictureData, split: Literal["train", "valid", "test"], vocabulary: Tokenizer) -> Gallery:
    """Draw a split."""
    found = scenes(data, split)
    return Gallery(found, drawn(data, found, split), vocabulary.encode([scene.caption for scene in found]))


def vocabulary_of(data: PictureData) -> Tokenizer:
    """A piece a word, every word of the grammar."""
    known = words(data)
    return tokenizer.train(known, "word", UNK + 1 + len(known))


class Pictures:
    """The training split in batches, in another order each epoch."""

    def __init__(self, gallery: Gallery, size: int, seed: int, device: torch.device) -> None:
        self.gallery, self.size, self.seed, self.device = gallery, size, seed, device

    def batches(self, epoch: int) -> int:
        return -(-len(self.gallery.ids) // self.size)

    def fetch(self, epoch: int, number: int) -> Captioned:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.gallery.ids))
        return self.gallery.take(order[number * self.size :][: self.size].tolist(), self.device)


# -- the job


class Validation:
    """Perplexity of the valid split and BLEU of its captions, of the unseen ones on its own too."""

    def __init__(self, model: Captioner, recipe: CaptionerRecipe, vocabulary: Tokenizer) -> None:
        self.model, self.recipe, self.vocabulary = model, recipe, vocabulary
        self.gallery = gallery(recipe.data, "valid", vocabulary)

    def __call__(self, quick: bool) -> dict[str, Any]:
        count = min(16, len(self.gallery.ids)) if quick else len(self.gallery.ids)
        nll = _nats(self.model, self.gallery, count)
        said = describe(self.model, self.gallery.pictures[:count], self.vocabulary, CaptionerSearch())
        if not quick:
            for row in range(min(count, self.recipe.training.samples)):
                say(f"  reference    {self.gallery.captions[row]}\n  caption      {said[row].text}")
        bleu = _bleu([one.text for one in said], self.gallery.scenes[:count])
        return {
            "loss": nll,
            "perplexity": math.exp(min(nll, 50.0)),
            "bleu": bleu["BLEU"].value,
            "bleu unseen": bleu["BLEU unseen"].value,
            "signature": bleu["BLEU"].signature,
            "decoding": "greedy, valid split",
        }


@torch.inference_mode()
def _nats(model: Captioner, gallery: Gallery, count: int) -> float:
    """Nats per piece of the first captions, <eos> counted."""
    total = Loss(torch.zeros(()), 0, torch.zeros((), device=model.device))
    for at in range(0, count, TOGETHER):
        total += model.loss(gallery.take(range(at, min(at + TOGETHER, count)), model.device))
    return float(total.nll) / total.count


def _bleu(said: Sequence[str], scenes: Sequence[Scene]) -> dict[str, metrics.Score]:
    """BLEU of captions: all of them, those of seen combinations, those of unseen ones."""
    parts = {
        "BLEU": range(len(scenes)),
        "BLEU seen": [row for row, scene in enumerate(scenes) if not scene.unseen],
        "BLEU unseen": [row for row, scene in enumerate(scenes) if scene.unseen],
    }
    return {
        name: metrics.bleu([said[row] for row in rows], [scenes[row].caption for row in rows])
        for name, rows in parts.items()
    }


def job(recipe: AnyRecipe, hardware: Hardware, folder: Path | None) -> Job[Captioned]:
    """Everything to train a recipe; `folder` is that of a run that is resumed."""
    assert isinstance(recipe, CaptionerRecipe)
    settings = recipe.training
    vocabulary = Tokenizer.load(folder / PIECES) if folder else vocabulary_of(recipe.data)
    train = gallery(recipe.data, "train", vocabulary)
    torch.manual_seed(settings.seed)
    model = build(recipe, vocabulary.vocab).to(hardware.device)
    different = len(set(train.captions))
    return Job(
        model,
        Pictures(train, settings.batch, settings.seed, hardware.device),
        lambda batch, progress: model.loss(batch, settings.label_smoothing),
        Validation(model, recipe, vocabulary),
        {
            "parameters": sizes(model),
            "vocabulary": {"target": vocabulary.vocab},
            "data": {"train": len(train.ids), "captions": different},
        },
        {PIECES: vocabulary.proto},
        f"{len(train.ids):,} pictures of {recipe.data.size} x {recipe.data.size}, {different:,} different captions",
    )


# -- using it


@dataclass(frozen=True)
class Caption:
    """What is said of a picture, and where was looked for each of its words, (words, S)."""

    text: str
    words: list[str]
    attention: Tensor | None


@torch.inference_mode()
def describe(
    model: Captioner, pictures: Pixels, vocabulary: Tokenizer, settings: CaptionerSearch, attention: bool = False
) -> list[Caption]:
    """A caption for each picture (n, H, H, 3), with the `attention` where asked for and there is some."""
    options = Options(settings.method, settings.beam, length_penalty=settings.length_penalty)
    attention = attention and model.decoder.attention is not None
    step, captions = Stepper(model.decoder), []
    for at in range(0, len(pictures), TOGETHER):
        shown = torch.from_numpy(pictures[at : at + TOGETHER]).to(model.device)
        place, requests = step.start(*model.look(shown)), [Request(LONGEST)] * len(shown)
        found = search(step, place, requests, options, BOS, EOS, NEVER, attention, model.device)
        for (best,) in found:
            (text,) = vocabulary.decode([best.ids])
            captions.append(Caption(text, text.split(), None if best.attention is None else best.attention[:-1]))
    return captions


@torch.inference_mode()
def focus(model: Captioner, gallery: Gallery, vocabulary: Tokenizer, cell: int) -> dict[str, float]:
    """How much of the attention is on a shape when its kind is named, and how much of the picture that is.

    The shape is its box, grown by one position of the grid all around, since a position sees more than its own pixels.
    """
    kinds = {ids[0] for ids in vocabulary.encode(KINDS)} - {UNK}
    masses, areas = [], []
    for at in range(0, len(gallery.ids), TOGETHER):
        rows = range(at, min(at + TOGETHER, len(gallery.ids)))
        batch = gallery.take(rows, model.device)
        _, attention = model(batch.pictures, batch.tokens)  # (B, T, S)
        assert attention is not None
        for row, weights, wanted in zip(rows, attention.cpu(), batch.wanted.tolist(), strict=True):
            named = [step for step, piece in enumerate(wanted) if piece in kinds]
            for step, shape in zip(named, gallery.scenes[row].shapes, strict=True):
                inside = cells(shape.box, gallery.pictures.shape[1], cell)  # (S,)
                masses.append(float(weights[step][inside].sum()))
                areas.append(float(inside.float().mean()))
    return {"attention on shape": float(np.mean(masses)), "area of shape": float(np.mean(areas))}


def cells(box: tuple[int, int, int, int], size: int, cell: int) -> Tensor:
    """The positions (S,) of the grid that a box touches, and those around them."""
    left, top, right, bottom = box
    first, after = (torch.tensor([low, high]) // cell for low, high in ((left, top), (right - 1, bottom - 1)))
    places = torch.arange(size // cell)
    across = (places >= first[0] - 1) & (places <= after[0] + 1)
    down = (places >= first[1] - 1) & (places <= after[1] + 1)
    return (down.unsqueeze(1) & across).flatten()


@dataclass(frozen=True)
class Look:
    """What `plots.looks` draws: a picture (H, H, 3), words, and weights (words, G, G)."""

    picture: Pixels
    words: list[str]
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class Loaded:
    """A trained captioner."""

    model: Captioner
    recipe: CaptionerRecipe
    vocabulary: Tokenizer


def load(folder: Path, changes: Iterable[str] = (), device: str = "auto") -> Loaded:
    """Open a model folder; `changes` are of its search. Raises CheckpointError, RecipeError."""
    saved = checkpoint.read_as(CaptionerRecipe, folder)
    vocabulary = Tokenizer.load(folder / PIECES)
    model = build(saved.recipe, vocabulary.vocab)
    checkpoint.restore(model, saved.weights(), folder)
    recipe = changed(saved.recipe, changes)
    return Loaded(model.to(choose(device, "float32").device).eval(), recipe, vocabulary)


def caption(one: Loaded, files: Sequence[Path]) -> list[str]:
    """What a model says of picture files; one of another size than it was trained on is resized. Raises DataError."""
    size, pictures = one.recipe.data.size, []
    for file in files:
        picture, had = read(file, size)
        if had != (size, size):
            say(f"{file}: {had[0]} x {had[1]} pixels, resized to {size} x {size}")
        pictures.append(picture)
    return [said.text for said in describe(one.model, np.stack(pictures), one.vocabulary, one.recipe.search)]


def evaluate(folder: Path, changes: Iterable[str] = ()) -> Report:
    """What the model says of its test split; draws `attention.png` where it has some."""
    one = load(folder, changes)
    test = gallery(one.recipe.data, "test", one.vocabulary)
    said = describe(one.model, test.pictures, one.vocabulary, one.recipe.search, attention=True)
    bleu = _bleu([caption.text for caption in said], test.scenes)
    right = [caption.text == wanted for caption, wanted in zip(said, test.captions, strict=True)]
    figures: dict[str, float | int] = {
        "pictures": len(said),
        "unseen": sum(scene.unseen for scene in test.scenes),
        **{name: score.value for name, score in bleu.items()},
        "right": float(np.mean(right)),
    }
    if said[0].attention is not None:
        figures |= focus(one.model, test, one.vocabulary, one.recipe.cell)
        _show(test, said[:SHOWN], folder)
    often = Counter(scene.caption for scene in scenes(one.recipe.data, "train")).most_common(1)[0][0]
    constant = _bleu([often] * len(said), test.scenes)
    baselines = {f"always '{often}'": {name: score.value for name, score in constant.items()}}
    return Report(f"{one.recipe.name} test", figures, baselines, f"  BLEU: {bleu['BLEU'].signature}")


def _show(test: Gallery, said: Sequence[Caption], folder: Path) -> None:
    """The first test pictures with the attention for each word, and as files to try `nmt caption` with."""
    from nmt import plots  # matplotlib takes its time

    looks = []
    for number, caption in enumerate(said):
        assert caption.attention is not None
        grid = math.isqrt(caption.attention.size(1))
        weights = caption.attention.view(-1, grid, grid).numpy(force=True)  # (words, G, G)
        looks.append(Look(test.pictures[number], caption.words, weights))
    try:
        plots.looks(looks, folder / MAP)
        for number, look in enumerate(looks, start=1):
            write(look.picture, folder / f"test-{number}.png")
    except CheckpointError as error:
        say(f"warning: {error}")
