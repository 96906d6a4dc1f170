"""Pictures of coloured shapes with a caption each, written by a grammar: nothing to download.

    caption    what  relation  what  [and  relation  what]
    what       a [small | large]  colour  kind
    relation   above | below | left of | right of                  the first shape to the one that follows

A caption is a function of its picture, so that a captioner can come near BLEU 100: shapes are told in the order of the
rainbow, each picture has a colour only once, and a relation goes by the longer of the two distances between centres.

Held out are the statements (colour, kind, relation) of `is_held_out`, such as a red circle above something: they are
never in train, though each two of the three are, and every second picture of valid and test makes one. A scene depends
on (seed, split, number) alone.

Letters: H height and width of a picture, in pixels; x goes right, y goes down.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from nmt.disk import replacing
from nmt.errors import DataError
from nmt.recipe import Field, Section

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Split = Literal["train", "valid", "test"]
Pixels = NDArray[np.uint8]  # (..., H, H, 3)

COLOURS = {
    "red": (0.90, 0.12, 0.12),
    "orange": (1.00, 0.55, 0.05),
    "yellow": (0.95, 0.92, 0.15),
    "green": (0.10, 0.65, 0.20),
    "blue": (0.12, 0.25, 0.90),
    "purple": (0.60, 0.15, 0.70),
}
KINDS = ("circle", "square", "triangle", "diamond", "cross")
SIZES = {"small": 3 / 40, "": 5 / 40, "large": 7 / 40}  # half the width of a shape, over that of the picture
RELATIONS = ("above", "below", "left of", "right of")
GAP = 2  # pixels at least between two shapes, and between the two distances that decide a relation
NOISE, SHADE = 0.03, 0.06  # of a pixel, of a shape's colour; of 1
GREY = (0.2, 0.8)  # the background


class PictureData(Section):
    """Which pictures are drawn, and how many of each split."""

    size: int = Field(40, ge=24, le=256, description="pixels, both ways")
    shapes: int = Field(3, ge=2, le=3, description="the most in a picture; 2 are the least")
    colours: int = Field(len(COLOURS), ge=3, le=len(COLOURS), description="the first of the rainbow")
    kinds: int = Field(len(KINDS), ge=2, le=len(KINDS), description="the first of circle, square, triangle, ...")
    train: int = Field(20_000, ge=1)
    valid: int = Field(500, ge=2)
    test: int = Field(1000, ge=2)
    seed: int = Field(1, ge=0)


@dataclass(frozen=True)
class Shape:
    """One shape: its middle and half its width, in pixels."""

    kind: str
    colour: str
    size: str
    x: int
    y: int
    half: int

    def __str__(self) -> str:
        words = " ".join(word for word in (self.size, self.colour, self.kind) if word)
        return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Its first column and row, and those after its last."""
        return self.x - self.half, self.y - self.half, self.x + self.half + 1, self.y + self.half + 1


@dataclass(frozen=True)
class Scene:
    """The shapes of a picture, in the order of the rainbow."""

    shapes: tuple[Shape, ...]

    @property
    def caption(self) -> str:
        first, *others = self.shapes
        return f"{first} " + " and ".join(f"{relation(first, other)} {other}" for other in others)

    @property
    def unseen(self) -> bool:
        """Whether it makes a statement that is held out."""
        first, *others = self.shapes
        return any(is_held_out(first.colour, first.kind, relation(first, other)) for other in others)


def relation(one: Shape, other: Shape) -> str:
    """Where one shape is, seen from the other."""
    across, down = one.x - other.x, one.y - other.y
    if abs(across) > abs(down):
        return "left of" if across < 0 else "right of"
    return "above" if down < 0 else "below"


def is_held_out(colour: str, kind: str, relation: str) -> bool:
    """One statement in five, such that any two of its three parts are also found without it."""
    return (list(COLOURS).index(colour) + KINDS.index(kind) + RELATIONS.index(relation)) % 5 == 0


def scene(data: PictureData, split: Split, number: int) -> Scene:
    """Scene `number` of a split; of valid and test each second one is unseen, beginning with the first."""
    draw = random.Random(f"{data.seed} {split} {number}")
    wanted = split != "train" and number % 2 == 0
    count = 2 + int(draw.random() * (data.shapes - 1))
    while True:
        shapes = _shapes(data, count, draw)
        if _clear(shapes) and Scene(shapes).unseen == wanted:
            return Scene(shapes)


def scenes(data: PictureData, split: Split) -> list[Scene]:
    """All scenes of a split."""
    count = {"train": data.train, "valid": data.valid, "test": data.test}[split]
    return [scene(data, split, number) for number in range(count)]


def _shapes(data: PictureData, count: int, draw: random.Random) -> tuple[Shape, ...]:
    """Shapes anywhere in the picture. Of the random numbers only `random` is the same in every Python."""
    rainbow = list(COLOURS)[: data.colours]
    while len(rainbow) > count:
        del rainbow[int(draw.random() * len(rainbow))]
    shapes = []
    for colour in rainbow:
        kind = KINDS[int(draw.random() * data.kinds)]
        size = list(SIZES)[int(draw.random() * len(SIZES))]
        half = round(SIZES[size] * data.size)
        free = data.size - 2 * half - 2  # a pixel of background all around
        x, y = (1 + half + int(draw.random() * free) for _ in range(2))
        shapes.append(Shape(kind, colour, size, x, y, half))
    return tuple(shapes)


def _clear(shapes: Sequence[Shape]) -> bool:
    """Whether no two shapes touch and no relation of the first is in doubt."""
    for number, one in enumerate(shapes):
        for other in shapes[number + 1 :]:
            across, down = abs(one.x - other.x), abs(one.y - other.y)
            if max(across, down) <= one.half + other.half + GAP:
                return False
            if number == 0 and abs(across - down) < GAP:
                return False
    return True


def drawn(data: PictureData, scenes: Sequence[Scene], split: Split) -> Pixels:
    """The pictures (n, H, H, 3) of the first scenes of a split."""
    pictures = np.empty((len(scenes), data.size, data.size, 3), np.uint8)
    key = ("train", "valid", "test").index(split)
    for number, one in enumerate(scenes):
        pictures[number] = draw(one, data.size, np.random.default_rng([data.seed, key, number]))
    return pictures


def draw(scene: Scene, size: int, noise: np.random.Generator) -> Pixels:
    """A scene (H, H, 3) on a grey background, with noise on every pixel."""
    picture = np.full((size, size, 3), GREY[0] + (GREY[1] - GREY[0]) * noise.random())
    for shape in scene.shapes:
        left, top, right, bottom = shape.box
        colour = np.array(COLOURS[shape.colour]) + SHADE * (2 * noise.random(3) - 1)
        picture[top:bottom, left:right][_mask(shape.kind, shape.half)] = colour
    picture += NOISE * noise.standard_normal(picture.shape)
    return (255 * picture.clip(0, 1)).round().astype(np.uint8)


def _mask(kind: str, half: int) -> NDArray[np.bool_]:
    """Which pixels (2·half + 1, 2·half + 1) of its box a shape covers."""
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    if kind == "circle":
        return np.asarray(x**2 + y**2 <= (half + 0.3) ** 2)
    if kind == "triangle":
        return np.asarray(2 * abs(x) <= y + half)
    if kind == "diamond":
        return np.asarray(abs(x) + abs(y) <= half)
    if kind == "cross":
        return np.asarray(np.minimum(abs(x), abs(y)) <= half // 3)
    return np.ones(x.shape, bool)


def words(data: PictureData) -> list[str]:
    """Every word of the grammar."""
    sizes = [size for size in SIZES if size]
    rest = [*list(COLOURS)[: data.colours], *KINDS[: data.kinds]]
    return ["a", "an", "and", *sizes, *rest, *dict.fromkeys(" ".join(RELATIONS).split())]


def read(path: Path, size: int) -> tuple[Pixels, tuple[int, int]]:
    """A picture file as (H, H, 3), resized where it is larger or smaller, and the width and height it had.

    Raises DataError for a file that is not there or is no picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                had, colours = image.size, _rgb(image)
                return np.asarray(colours if had == (size, size) else colours.resize((size, size))), had
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        most = f"{Image.MAX_IMAGE_PIXELS:,}"
        raise DataError(f"{path}: more than {most} pixels: make it smaller") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: not a picture that can be read: give a PNG file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}: give a PNG file") from None
    except (SyntaxError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}: give another PNG file") from None


def _rgb(image: Picture) -> Picture:
    """A picture in colours, as it is seen on white; of 16 bits a pixel the upper 8."""
    from PIL import Image

    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    seen = Image.new("RGBA", image.size, "white")
    seen.alpha_composite(image.convert("RGBA"))
    return seen.convert("RGB")


def write(picture: Pixels, path: Path) -> None:
    """A picture (H, H, 3) as a PNG file."""
    from PIL import Image

    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
