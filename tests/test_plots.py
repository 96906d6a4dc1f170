"""The pictures: whole PNG files with something on them, for whatever a run, a corpus or a sentence may hold."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from nmt import plots
from nmt.errors import CheckpointError


@dataclass(frozen=True)
class Bucket:
    label: str
    count: int
    bleu: float


BUCKETS = [Bucket("1-5", 6, 40.0), Bucket("6-10", 1400, 38.5), Bucket("31+", 2, 0.0)]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer pixels, for speed."""
    monkeypatch.setattr(plots, "DPI", 40)


def pixels(path: Path) -> np.ndarray:
    """The picture, after checks that it is a PNG with more than one colour, alone in its folder."""
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert list(path.parent.iterdir()) == [path]
    image = np.asarray(imread(path))
    assert len(np.unique((image * 255).astype(np.uint8).view(np.uint32))) > 10
    return image


def run(steps: int) -> list[dict[str, object]]:
    train = [{"kind": "train", "step": s, "loss": 9 / (1 + s / 50), "learning_rate": 0.1} for s in range(steps)]
    valid = [
        {"kind": "valid", "step": s, "loss": 3.0, "bleu": s / 20, "chrf": 50 - s / 50} for s in range(9, steps, 10)
    ]
    return [*train, *valid]


@pytest.mark.parametrize(
    "records",
    [
        [],
        run(1),
        run(20)[:20],  # no validation yet
        [{}, {"kind": "train"}, {"kind": "train", "step": 1, "loss": None}, {"kind": "other", "step": 2, "loss": 1.0}],
        [{"kind": "valid", "step": s, "bleu": float(bleu)} for s, bleu in enumerate(["3", "nan", "inf", "2"])],
    ],
)
def test_curves(records: list[dict[str, object]], tmp_path: Path) -> None:
    plots.curves(records, tmp_path / "curves.png")
    pixels(tmp_path / "curves.png")


def test_a_run_without_scores_has_one_panel(tmp_path: Path) -> None:
    """A language model's."""
    for name, key in (("scored", "bleu"), ("losses", "perplexity")):
        rows: list[dict[str, object]] = [{"kind": "valid", "step": s, "loss": 3.0, key: 5.0 + s} for s in range(5)]
        plots.curves(rows, tmp_path / name / "curves.png")
    scored, losses = (pixels(tmp_path / name / "curves.png") for name in ("scored", "losses"))
    assert losses.shape[1] < 0.6 * scored.shape[1]


def test_order_of_the_records_does_not_matter_and_a_better_run_looks_different(tmp_path: Path) -> None:
    drawn = []
    for name, records in (("a", run(60)), ("b", run(60)[::-1]), ("c", run(70))):
        plots.curves(records, tmp_path / name / "curves.png")
        drawn.append(pixels(tmp_path / name / "curves.png"))
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


@pytest.mark.parametrize("count", [1, 2, 7, 79, 80, 400])
def test_smoothing_keeps_lines_straight_and_calms_noise(count: int) -> None:
    line = np.linspace(5, 2, count)
    assert np.allclose(plots._smooth(line), line)
    noise = np.random.default_rng(0).normal(size=count)
    assert plots._smooth(noise).std() <= (1.001 if count < 80 else 0.7) * noise.std()


@pytest.mark.parametrize(
    "systems",
    [
        {},
        {"one": BUCKETS[:1]},
        {"_hidden": BUCKETS, "costs $1 and $2": BUCKETS[1:], "none": []},
        {str(number): BUCKETS for number in range(8)},
        {"zero": [Bucket("0", 1, 0.0)]},
    ],
)
def test_by_length(systems: dict[str, list[Bucket]], tmp_path: Path) -> None:
    plots.by_length(systems, tmp_path / "by_length.png")
    pixels(tmp_path / "by_length.png")


def test_buckets_stand_in_the_order_of_their_lengths(tmp_path: Path) -> None:
    drawn = []
    for name, buckets in (("a", BUCKETS), ("b", BUCKETS[::-1])):
        plots.by_length({"y": buckets}, tmp_path / name / "p.png")
        drawn.append(pixels(tmp_path / name / "p.png"))
    assert np.array_equal(*drawn)
    assert sorted(["31+", "6-10", "0", "11-15"], key=plots._first) == ["0", "6-10", "11-15", "31+"]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (["▁A", "▁man", "</s>"], ["▁Ein", "▁Mann", ".", "</s>"]),
        (["a"], ["▁Donaudampfschifffahrtsgesellschaftskapitän"]),
        (["▁他", "学习", "中文", "हिन्दी", "ไทย", "עברית", "العربية"], ["▁он", "🙂", "<0x0A>"]),
        (["$x$", "$", "\\frac{", "_", "^", "%", "", " "], ["$\\bad$", "&", "#"]),
        (["x"] * 70, ["y"] * 3),
        (["日" * 5_000], ["?" * 5_000]),  # unknown letters are one piece
    ],
)
def test_attention(source: list[str], target: list[str], tmp_path: Path) -> None:
    weights = np.random.default_rng(0).dirichlet(np.ones(len(source)), len(target))  # (T, S)
    plots.attention(source, target, weights, tmp_path / "attention.png")
    pixels(tmp_path / "attention.png")


def test_an_attention_map_grows_with_both_lengths_up_to_a_limit() -> None:
    def inches(source: int, target: int) -> tuple[float, float]:
        width, height = plots._canvas(["x"] * source, ["y"] * target)[0].get_size_inches()
        return float(width), float(height)

    assert inches(20, 10)[0] > inches(10, 10)[0]
    assert inches(10, 20)[1] > inches(10, 10)[1]
    assert max(inches(5000, 5000)) < plots.LARGEST + 2


def test_attention_is_dark_where_the_weight_is(tmp_path: Path) -> None:
    plots.attention(["a", "b"], ["c", "d"], [[1.0, 0.0], [0.0, 1.0]], tmp_path / "attention.png")
    image = pixels(tmp_path / "attention.png")[..., :3].sum(axis=-1)
    rows, columns = np.nonzero(image < 0.5)  # the darkest cells
    assert np.corrcoef(rows, columns)[0, 1] > 0.4


def test_a_table_of_many_classes_is_no_larger_than_a_page(tmp_path: Path) -> None:
    count = 60
    plots.confusion(np.eye(count).tolist(), [f"class {n}" for n in range(count)], tmp_path / "confusion.png")
    assert max(pixels(tmp_path / "confusion.png").shape) < (plots.WIDEST + 4) * plots.DPI


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    for source, target in ((["a"], ["b", "c", "d"]), ([], [])):
        with pytest.raises(ValueError, match="weights are"):
            plots.attention(source, target, np.ones((len(source), len(target))), tmp_path / "attention.png")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_picture_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "attention.png"
    plots.attention(["a"], ["b"], np.ones((1, 1)), path)
    before = path.read_bytes()

    def fail(self: Figure, file: Path, format: str, facecolor: str) -> None:
        file.write_bytes(b"half a pic")
        raise OSError("no space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(CheckpointError, match=r"attention\.png: cannot be written: no space"):
        plots.attention(["c"], ["d"], np.ones((1, 1)), path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    pixels(path)


def test_files_are_as_readable_as_any_other(tmp_path: Path) -> None:
    plots.attention(["a"], ["b"], np.ones((1, 1)), tmp_path / "a.png")
    (tmp_path / "plain").touch()
    assert os.stat(tmp_path / "a.png").st_mode == os.stat(tmp_path / "plain").st_mode


def test_no_global_state() -> None:
    code = "import sys, nmt.plots; assert not {'matplotlib.pyplot', 'torch', 'datasets'}.intersection(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
