"""Pictures of a run: curves of training, BLEU by length, an attention map, what was taken for what.

The only module that knows matplotlib. It draws on `Figure` objects, never through pyplot, so there is no global state,
no window and no backend to choose, and files are written whole or not at all. `attention` is drawn like figure 3 and
`by_length` like figure 2 of Bahdanau et al. 2015; the colours are those of Okabe and Ito 2008, which colour-blind
readers can tell apart (the shapes of the markers differ too).

Letters: `S` source length, `T` target length, in pieces.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, Protocol
from unicodedata import east_asian_width

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ticker import EngFormatter, MaxNLocator

from nmt.disk import replacing

Array = npt.NDArray[np.float64]
Corner = Literal["upper right", "lower right", "best"]

DPI = 120
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
SCORES = {"bleu": "BLEU", "chrf": "chrF", "accuracy": "accuracy", "macro F1": "macro F1", "mcc": "MCC"}  # in percent
INK, QUIET, FAINT = "#333333", "#767676", "#E4E4E4"  # text; second text; lines and bars behind the data
WEIGHTS = LinearSegmentedColormap.from_list("weights", ["#FFFFFF", "#0072B2", "#00263B"])
CELL = 0.3  # inches of one piece in an attention map
LARGEST = 40.0  # inches of the longest side of an attention map
LABEL = 20  # letters of a piece beside it
WIDEST, WRITTEN = 18.0, 20  # inches of a table of classes, and up to how many it has numbers in its fields
FONTS = {  # for pieces of which DejaVu Sans has not all letters, where some of these are installed
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei", "PingFang SC", "Microsoft YaHei", "Malgun Gothic"),
    *("Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Thai", "Noto Sans Ethiopic"),
    *("Nirmala UI", "Leelawadee UI", "Arial Unicode MS"),
}


class Bucket(Protocol):
    """What `by_length` draws of the sentences of one length; `nmt.metrics.Bucket` is one."""

    @property
    def label(self) -> str: ...
    @property
    def count(self) -> int: ...
    @property
    def bleu(self) -> float: ...


class Look(Protocol):
    """What `looks` draws of a picture (H, H, 3): the words of its caption, and weights (words, G, G) of 0 to 1."""

    @property
    def picture(self) -> npt.NDArray[np.uint8]: ...
    @property
    def words(self) -> Sequence[str]: ...
    @property
    def weights(self) -> npt.NDArray[np.float32]: ...


def curves(records: Sequence[Mapping[str, object]], path: Path) -> None:
    """A run from its metrics.jsonl: the losses, and on the right the scores of the validation, if it has any."""
    scores = {name: _series(records, "valid", key) for key, name in SCORES.items()}
    there = [name for name, (steps, _) in scores.items() if len(steps)]
    unscored = not there and any(record.get("kind") == "valid" for record in records)  # a language model's
    figure = _figure(5.5 if unscored else 10, 4)
    left, *more = figure.subplots(1, 1 if unscored else 2, sharex=True, squeeze=False)[0]
    _style(left, "Loss", "step", "loss per target token")
    for axes in (left, *more):
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _losses(left, records)
    _legend(left, _drawn(left), "upper right")
    for right in more:
        _style(right, "Scores of the validation set", "step", " and ".join(there))
        for place, name in enumerate(there, start=1):  # 0 is training
            _best(right, *scores[name], name, COLOURS[place], MARKERS[place])
        _legend(right, _drawn(right), "lower right")
    _save(figure, path)


def by_length(systems: Mapping[str, Sequence[Bucket]], path: Path) -> None:
    """BLEU by source length, a line per system; grey bars below count the sentences behind each point."""
    counts = {bucket.label: bucket.count for buckets in systems.values() for bucket in buckets}
    places = {label: place for place, label in enumerate(sorted(counts, key=_first))}
    figure = _figure(6.5, 4.5)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    figure.align_ylabels()
    _style(axes, "BLEU by source length", "", "BLEU")
    _style(below, "", "source words", "sentences")
    lines: dict[str, Artist] = {}
    for place, (name, buckets) in enumerate(systems.items()):
        x, y = [places[bucket.label] for bucket in buckets], [bucket.bleu for bucket in buckets]
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        (lines[name],) = axes.plot(x, y, color=colour, marker=marker, markersize=6, linewidth=1.8)
    bars = below.bar(list(places.values()), [counts[label] for label in places], width=0.7, color=FAINT)
    below.bar_label(bars, [f"{counts[label]:,}" for label in places], color=QUIET, fontsize=9, padding=2)
    below.set_xticks(list(places.values()), list(places))
    below.set_yticks([])
    below.margins(y=0.5)
    axes.set_ylim(0, 1.1 * max((b.bleu for buckets in systems.values() for b in buckets), default=0) or 1)
    _legend(axes, lines, "best")
    _save(figure, path)


def attention(source: Sequence[str], target: Sequence[str], weights: npt.ArrayLike, path: Path) -> None:
    """What each target piece (a row) attended to; `weights` is (T, S), 0 is white and 1 dark."""
    table = np.asarray(weights, dtype=np.float64)  # (T, S)
    if table.shape != (len(target), len(source)) or table.size == 0:
        raise ValueError(f"weights are {table.shape}, the pieces of target and source {(len(target), len(source))}")
    source, target = ([_short(piece) for piece in pieces] for pieces in (source, target))
    figure, size = _canvas(source, target)
    axes = figure.subplots()
    axes.imshow(table, cmap=WEIGHTS, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    fonts = ["DejaVu Sans", *sorted(FONTS.intersection(fontManager.get_font_names()))]
    axes.set_xticks(range(len(source)), source, rotation=60, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(len(target)), target)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set(fontfamily=fonts, fontsize=size, color=INK, parse_math=False)  # a piece may hold a dollar
    axes.spines[:].set_color(FAINT)
    axes.set_xticks(np.arange(1, len(source)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(target)) - 0.5, minor=True)
    axes.grid(which="minor", color=FAINT, linewidth=0.6)
    axes.tick_params(which="minor", length=0, top=False)
    _save(figure, path)


def looks(looks: Sequence[Look], path: Path) -> None:
    """Where a captioner looked: a row a picture. For each word it fades to white where its weights are small."""
    across = max(len(look.words) for look in looks)
    figure = _figure(0.95 * (1 + across), 1.15 * len(looks))
    rows = figure.subplots(len(looks), 1 + across, squeeze=False)
    for axes in rows.flat:
        axes.axis("off")
    for row, look in zip(rows, looks, strict=True):
        row[0].imshow(look.picture)
        for axes, word, weights in zip(row[1:], look.words, look.weights, strict=False):
            cell = len(look.picture) // len(weights)
            seen = 0.2 + 0.8 * np.kron(weights / weights.max(), np.ones((cell, cell)))  # (H, H)
            axes.imshow(1 - (1 - look.picture / 255) * seen[:, :, np.newaxis])
            axes.set_title(word, color=INK, fontsize=10).set_parse_math(False)
    _save(figure, path)


def confusion(table: Sequence[Sequence[int]], labels: Sequence[str], path: Path) -> None:
    """How many of each class (a row) were taken for each (a column); a field is as dark as its share of the row."""
    counts = np.asarray(table, dtype=np.float64)  # (C, C)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = [_short(label) for label in labels]
    side = min(0.9 * len(names), WIDEST)
    cell = side / len(names)
    size = min(10.0, 72 * cell * 0.5)
    longest = size / 72 * 0.7 * max(map(_width, names))
    turned: dict[str, Any] = {"rotation": 60, "ha": "left", "rotation_mode": "anchor"} if longest > cell else {}
    figure = _figure(side + longest + 2, side + (longest if turned else 0) + 1.4)
    axes = figure.subplots()
    axes.imshow(shares, cmap=WEIGHTS, vmin=0, vmax=1, interpolation="nearest")
    _style(axes, "Taken for", "", "class")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.set_xticks(range(len(names)), names, **turned)
    axes.set_yticks(range(len(names)), names)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set(color=INK, fontsize=size, parse_math=False)
    for (row, column), share in np.ndenumerate(shares) if len(names) <= WRITTEN else ():
        text = f"{counts[row, column]:,.0f}\n{share:.0%}"
        axes.text(column, row, text, ha="center", va="center", color="white" if share > 0.5 else INK, fontsize=10)
    _save(figure, path)


def _series(records: Sequence[Mapping[str, object]], kind: str, key: str) -> tuple[Array, Array]:
    """Steps and values of the rows that have both as finite numbers, by step."""
    points = []
    for record in records:
        step, value = record.get("step"), record.get(key)
        if record.get("kind") == kind and isinstance(step, int | float) and isinstance(value, int | float):
            points.append((float(step), float(value)))
    table = np.array(sorted(point for point in points if all(map(math.isfinite, point)))).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _smooth(values: Array) -> Array:
    """A centred mean over about a fortieth of the run, so that the curve does not lag; shorter at both ends."""
    half = len(values) // 80
    sums = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    reach = np.minimum(half, np.minimum(place, place[::-1]))
    return np.asarray((sums[place + reach + 1] - sums[place - reach]) / (2 * reach + 1))


def _losses(axes: Axes, records: Sequence[Mapping[str, object]]) -> None:
    steps, losses = _series(records, "train", "loss")
    if len(steps):
        axes.plot(steps, losses, color=COLOURS[0], alpha=0.35, linewidth=1)
        axes.plot(steps, _smooth(losses), color=COLOURS[0], linewidth=1.8, label="training")
    steps, losses = _series(records, "valid", "loss")
    if len(steps):
        axes.plot(steps, losses, color=COLOURS[1], marker="o", markersize=5, linestyle="", label="validation")


def _drawn(axes: Axes) -> dict[str, Artist]:
    handles, labels = axes.get_legend_handles_labels()
    return dict(zip(labels, handles, strict=True))


def _best(axes: Axes, steps: Array, values: Array, name: str, colour: str, marker: str) -> None:
    """A curve with a ring around its highest point and the value beside it."""
    if not len(steps):
        return
    axes.plot(steps, values, color=colour, marker=marker, markersize=4, linewidth=1.8, label=name)
    place = int(np.argmax(values))
    best = (float(steps[place]), float(values[place]))
    axes.plot(*best, marker="o", markersize=11, markerfacecolor="none", markeredgecolor=colour, markeredgewidth=1.6)
    text = axes.annotate(f"{best[1]:.1f}", best, (0, 9), textcoords="offset points", ha="center", fontweight="bold")
    text.set_color(colour)


def _first(label: str) -> int:
    """The 6 of `6-10`."""
    return int("".join(takewhile(str.isdigit, label)) or 0)


def _short(piece: str) -> str:
    """A piece as a label; unknown letters in a row are one of any length."""
    return piece if len(piece) <= LABEL else f"{piece[: LABEL - 1]}…"


def _width(piece: str) -> float:
    """In letters; those of Chinese, Japanese and Korean are wider."""
    return sum(1.5 if east_asian_width(letter) in "WF" else 1.0 for letter in piece)


def _canvas(source: Sequence[str], target: Sequence[str]) -> tuple[Figure, float]:
    """A figure with a cell for each pair of pieces and room for the labels, and the size of its letters in points."""
    longest = [max(map(_width, pieces)) for pieces in (source, target)]
    cell = min(CELL, LARGEST / max(len(source), len(target)))
    size = min(10.0, 72 * cell * 0.5)
    letter = size / 72 * 0.7
    width = cell * len(source) + letter * (longest[1] + longest[0] / 2) + 0.5
    height = cell * len(target) + letter * longest[0] + 0.5
    return _figure(width, height), size


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DPI)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1, wspace=0.04)
    return figure


def _style(axes: Axes, title: str, across: str, up: str) -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=12, fontweight="bold")
    axes.set_xlabel(across, color=QUIET)
    axes.set_ylabel(up, color=QUIET)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(color=FAINT, labelcolor=QUIET)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)


def _legend(axes: Axes, handles: Mapping[str, Artist], corner: Corner) -> None:
    """Names as they are: of a system called `_best` or `$1` too, which matplotlib hides or reads as mathematics."""
    if not handles:
        axes.tick_params(length=0, labelbottom=False, labelleft=False)
        axes.grid(visible=False)
        axes.text(0.5, 0.5, "nothing to show yet", transform=axes.transAxes, ha="center", color=QUIET)
        return
    legend = axes.legend(list(handles.values()), list(handles), loc=corner, frameon=False, labelcolor=INK)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _save(figure: Figure, path: Path) -> None:
    """Write the picture; a letter that no font has becomes a box."""
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from (current )?font")
        figure.savefig(temporary, format=path.suffix[1:] or "png", facecolor="white")
