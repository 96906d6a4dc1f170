"""A captioner: pictures that are what their captions say, a model that looks where it should, and `nmt caption`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from toy import Children, Toy, call, kill_midway

from nmt.errors import DataError
from nmt.hardware import Hardware
from nmt.recipe import parse_as
from nmt.shapes import captioner
from nmt.shapes.captioner import (
    Captioner,
    CaptionerRecipe,
    CaptionerSearch,
    Gallery,
    PictureEncoder,
    cells,
    describe,
    focus,
    gallery,
    job,
    vocabulary_of,
)
from nmt.shapes.pictures import (
    COLOURS,
    KINDS,
    RELATIONS,
    SIZES,
    PictureData,
    Shape,
    drawn,
    is_held_out,
    read,
    scene,
    scenes,
    words,
)
from nmt.tokenizer import PAD, UNK

FEW = PictureData(train=300, valid=60, test=60)
SMALL: dict[str, Any] = {
    "task": "captioning",
    "data": {"size": 24, "shapes": 2, "colours": 3, "kinds": 2, "train": 120, "valid": 16, "test": 20},
    "model": {"channels": [8, 16, 16], "embed": 24, "hidden": 32}
    | {"dropout": {"embedding": 0.0, "layers": 0.0, "output": 0.0}},
    "training": {"epochs": 2, "batch": 20, "learning_rate": 0.01, "warmup": 5, "ema": 0.5, "threads": 1}
    | {"precision": "float32", "device": "cpu", "samples": 1},
}
WIDE = {"channels": [16, 24], "hidden": 64}
FIXED = {"attention": "none", "context_feeding": True}


def recipe_of(**changes: Any) -> CaptionerRecipe:
    content = SMALL | {key: SMALL.get(key, {}) | value for key, value in changes.items()}
    return parse_as(CaptionerRecipe, content, "test")


def trained(recipe: CaptionerRecipe, updates: int, cpu: Hardware) -> tuple[Captioner, Gallery]:
    """A model after some updates, and what it learnt from."""
    work = job(recipe, cpu, None)
    model, stream = work.model, work.stream
    assert isinstance(model, Captioner)
    optimizer = torch.optim.Adam(model.parameters(), recipe.training.learning_rate)
    for update in range(updates):
        epoch, number = divmod(update, stream.batches(0))
        optimizer.param_groups[0]["lr"] = recipe.training.learning_rate * min(1, 2 * (1 - update / updates))
        loss = work.loss(stream.fetch(epoch, number), update / updates)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval(), gallery(recipe.data, "train", vocabulary_of(recipe.data))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small recipe, in the folder of the test."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "shapes.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


# -- pictures


def test_a_picture_depends_on_seed_split_and_number_alone() -> None:
    found = scenes(FEW, "test")
    again = [scene(FEW, "test", number) for number in reversed(range(60))][::-1]
    assert again == found, "not on those drawn before"
    assert np.array_equal(drawn(FEW, found, "test"), drawn(FEW, again, "test"))
    assert found[:10] != scenes(FEW, "valid")[:10]
    assert found != scenes(FEW.model_copy(update={"seed": 2}), "test")
    assert len({picture.tobytes() for picture in drawn(FEW, found, "test")}) == 60
    assert scenes(FEW.model_copy(update={"test": 30}), "test") == found[:30], "more pictures leave those before"


SAID = re.compile(rf"an? (?:(small|large) )?({'|'.join(COLOURS)}) ({'|'.join(KINDS)})")


def measured(picture: np.ndarray, colour: str) -> tuple[float, float, int]:
    """The middle (x, y) and the width of what has a colour in a picture, from its pixels alone."""
    off = np.abs(picture / 255 - np.array(COLOURS[colour])).max(axis=2)  # (H, H)
    y, x = np.nonzero(off < 0.18)
    return (x.min() + x.max()) / 2, (y.min() + y.max()) / 2, int(x.max() - x.min()) + 1


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_caption_is_true_of_the_pixels_of_its_picture(split: Any) -> None:
    sizes = {"small": 7, "": 11, "large": 15}
    found = scenes(FEW, split)[:60]
    for one, picture in zip(found, drawn(FEW, found, split), strict=True):
        said = SAID.findall(one.caption)
        relations = re.findall("|".join(RELATIONS), one.caption)
        assert len(said) == len(one.shapes) == len(relations) + 1
        assert [colour for _, colour, _ in said] == [c for c in COLOURS if c in one.caption], "as in the rainbow"
        (x, y, _), *others = places = [measured(picture, colour) for _, colour, _ in said]
        assert [width for _, _, width in places] == [sizes[size] for size, _, _ in said]
        for told, (to_x, to_y, _) in zip(relations, others, strict=True):
            ways = {"left of": to_x - x, "right of": x - to_x, "above": to_y - y, "below": y - to_y}
            assert max(ways, key=lambda way: ways[way]) == told


def test_each_kind_of_shape_looks_otherwise_at_every_size() -> None:
    from nmt.shapes.pictures import _mask

    for half in {round(pixels * size) for size in SIZES.values() for pixels in (24, 28, 32, 40, 128)}:
        masks = [_mask(kind, half) for kind in KINDS]
        for number, one in enumerate(masks):
            assert one.any(axis=0).all(), "it fills its box"
            assert one.any(axis=1).all()
            assert all((one != other).sum() >= 4 for other in masks[:number])


def test_shapes_neither_touch_nor_leave_the_picture() -> None:
    for one in scenes(FEW, "train"):
        covered = np.zeros((40, 40), int)
        for shape in one.shapes:
            left, top, right, bottom = shape.box
            assert 0 < left < right < 40
            assert 0 < top < bottom < 40
            covered[top:bottom, left:right] += 1
        assert covered.max() == 1


def test_held_out_statements_are_never_in_train_and_in_each_second_picture_of_valid_and_test() -> None:
    def statements(split: Any) -> list[set[tuple[str, ...]]]:
        return [
            {(*SAID.findall(one.caption)[0][1:], relation) for relation in RELATIONS if relation in one.caption}
            for one in scenes(FEW.model_copy(update={"train": 1500}), split)
        ]

    seen = set().union(*statements("train"))
    every = {(c, k, r) for c in list(COLOURS)[:4] for k in KINDS for r in RELATIONS}
    held_out = {one for one in every if is_held_out(*one)}
    assert every - seen == held_out
    for places in ((0, 1), (0, 2), (1, 2)):
        assert {tuple(one[p] for p in places) for one in every} <= {tuple(one[p] for p in places) for one in seen}
    for split in ("valid", "test"):
        marked = [scene.unseen for scene in scenes(FEW, split)]
        assert marked == [True, False] * 30
        assert marked == [any(is_held_out(*one) for one in found) for found in statements(split)]


def test_a_word_is_a_piece_and_every_caption_is_known() -> None:
    for data in (FEW, recipe_of().data):
        vocabulary = vocabulary_of(data)
        captions = [one.caption for one in scenes(data, "train")]
        ids = vocabulary.encode(captions)
        assert all(UNK not in line for line in ids)
        assert list(map(len, ids)) == [len(caption.split()) for caption in captions]
        assert vocabulary.decode(ids) == captions
        assert vocabulary.vocab == 4 + len(words(data))


# -- the model


@pytest.mark.parametrize("channels", [[24], [24, 24, 32], [24, 24, 24, 32]])
def test_a_position_of_the_grid_sees_what_is_around_it_and_knows_where_it_is(channels: list[int]) -> None:
    recipe = recipe_of(model={"channels": channels}, data={"size": 48})
    encoder = PictureEncoder(channels)
    picture = torch.full((1, 48, 48, 3), 90.0, requires_grad=True)
    context = encoder(picture)
    grid = 48 // recipe.cell
    assert context.memory.shape == (1, grid * grid, channels[-1])
    assert torch.allclose(context.final[0][0], context.memory.mean(1))
    across, down = grid // 2, grid // 2 - 1
    context.memory[0, down * grid + across].sum().backward()
    assert picture.grad is not None
    y, x = picture.grad[0].abs().sum(2).nonzero(as_tuple=True)
    for low, high, place in ((x.min(), x.max(), across), (y.min(), y.max(), down)):
        middle = (place + 0.5) * recipe.cell - 0.5
        assert abs((low + high) / 2 - middle) <= 1, "it is in the middle of what it sees"
        assert high - low <= 22
    memory = context.memory[0].view(grid, grid, -1)
    assert not torch.allclose(memory[grid // 2, 1], memory[grid // 2, -2]), "left is not right"
    assert not torch.allclose(memory[1, grid // 2], memory[-2, grid // 2]), "above is not below"


def test_the_box_of_a_shape_in_the_grid_grows_by_one_position() -> None:
    inside = cells(Shape("circle", "red", "", 10, 5, 2).box, 40, 4).view(10, 10)  # columns 8 to 12, rows 3 to 7
    rows, columns = inside.nonzero(as_tuple=True)
    assert (int(columns.min()), int(columns.max())) == (1, 4)
    assert (int(rows.min()), int(rows.max())) == (0, 2)
    assert int(inside.sum()) == 4 * 3


@pytest.mark.parametrize("model", [{}, FIXED | {"cell": "lstm"}])
def test_thirty_two_pictures_are_learnt_by_heart(
    model: dict[str, Any], cpu: Hardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captioner, "TOGETHER", 7)
    recipe = recipe_of(model=model | WIDE, data={"train": 32}, training={"batch": 32})
    one, known = trained(recipe, 200, cpu)
    vocabulary = vocabulary_of(recipe.data)
    said = describe(one, known.pictures, vocabulary, recipe.search, attention=True)
    right = sum(caption.text == wanted for caption, wanted in zip(said, known.captions, strict=True))
    assert right >= 31
    beam = describe(one, known.pictures, vocabulary, CaptionerSearch(method="beam", beam=3))
    assert sum(one.text == two.text for one, two in zip(said, beam, strict=True)) >= 31
    if recipe.model.attention == "none":
        assert all(caption.attention is None for caption in said)
    else:
        assert all(c.attention is not None and c.attention.shape == (len(c.words), 144) for c in said)


def test_it_looks_at_the_shape_that_it_names(cpu: Hardware) -> None:
    model = WIDE | {"layers": 1, "attention_position": "after"}
    recipe = recipe_of(data={"train": 1500, "test": 100}, model=model, training={"batch": 60})
    one, _ = trained(recipe, 250, cpu)
    vocabulary = vocabulary_of(recipe.data)
    found = focus(one, gallery(recipe.data, "test", vocabulary), vocabulary, recipe.cell)
    assert found["attention on shape"] > 2 * found["area of shape"] > 0.2


def test_padding_is_no_part_of_the_loss(cpu: Hardware) -> None:
    recipe = recipe_of(data={"shapes": 3, "size": 40})
    work = job(recipe, cpu, None)
    assert isinstance(work.model, Captioner)
    work.model.eval()
    known = gallery(recipe.data, "train", vocabulary_of(recipe.data))
    together = known.take(range(8), cpu.device)
    assert bool((together.wanted == PAD).any())
    alone = sum(float(work.model.loss(known.take([row], cpu.device)).nll) for row in range(8))
    assert float(work.model.loss(together).nll) == pytest.approx(alone, rel=1e-4)
    assert work.model.loss(together).count == sum(len(known.ids[row]) + 1 for row in range(8))


# -- the whole way


def test_it_is_trained_evaluated_and_captions_files(small: Path) -> None:
    done = call("train", small, "--set", "training.epochs=6")
    assert done.status == 0, done.err
    assert "120 pictures of 24 x 24" in done.err
    assert "  caption      a" in done.err
    report = json.loads(call("evaluate", "runs/shapes", "--json").out)
    figures, (baseline,) = report["figures"], report["baselines"].values()
    assert figures["pictures"] == 20
    assert figures["unseen"] == 10
    assert figures["BLEU"] > baseline["BLEU"] > 0
    assert {"BLEU seen", "BLEU unseen", "attention on shape"} <= figures.keys()
    assert "|tok:13a|" in report["more"]
    assert Path("runs/shapes/attention.png").read_bytes().startswith(b"\x89PNG")
    text = call("evaluate", "runs/shapes", "--beam", "2").out
    assert "BLEU unseen" in text
    assert "always 'a" in text
    files = [f"runs/shapes/test-{number}.png" for number in (1, 2, 3, 4)]
    said = call("caption", "runs/shapes", *files)
    data = recipe_of().data
    assert said.out.count("\n") == 4
    assert set(said.out.split()) <= set(words(data))
    assert said.err == ""
    assert said.out.startswith(call("caption", "runs/shapes", files[0]).out), "each on its own"
    pictures = drawn(data, scenes(data, "test"), "test")
    assert all(np.array_equal(np.asarray(Image.open(file)), pictures[n]) for n, file in enumerate(files))


def test_without_attention_there_is_no_picture_of_it(small: Path) -> None:
    fixed = [f"--set=model.{key}={value}" for key, value in FIXED.items()]
    assert call("train", small, *fixed, "--set=training.epochs=1").status == 0
    report = json.loads(call("evaluate", "runs/shapes", "--json").out)
    assert "attention on shape" not in report["figures"]
    assert not Path("runs/shapes/attention.png").exists()


def test_a_resumed_run_is_one_that_never_stopped(small: Path, children: Children) -> None:
    options = ("--set", "training.epochs=3", "--set", "training.checkpoint_minutes=0")
    assert call("train", small, *options, "--out", "whole").status == 0
    child = children.start("train", small, *options, "--out", "broken")
    kill_midway(child, Path("broken"))
    assert call("train", small, *options, "--out", "broken", "--resume").status == 0
    assert Path("broken/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


# -- what is wrong is said


def test_files_that_are_no_pictures_are_refused_and_others_are_made_to_fit(small: Path, toy: Toy) -> None:
    assert call("train", small, "--set", "training.epochs=1").status == 0
    Path("words.png").write_text("no picture")
    Path("empty.png").touch()
    Image.new("RGB", (24, 24)).save("whole.png")
    Path("half.png").write_bytes(Path("whole.png").read_bytes()[:50])
    for name, message in {
        "nowhere.png": "cannot be read: No such file",
        "words.png": "not a picture that can be read: give a PNG file",
        "empty.png": "not a picture",
        "half.png": "cannot be read",
        ".": "cannot be read: Is a directory",
    }.items():
        done = call("caption", "runs/shapes", "whole.png", name)
        assert done.status == 1
        assert done.error.startswith(name)
        assert message in done.error
        assert done.out == ""
    for mode in ("L", "P", "RGBA", "LA", "1", "I;16"):
        Image.new(mode, (30, 20)).save("other.png")
        done = call("caption", "runs/shapes", "other.png")
        assert done.status == 0, done.err
        assert "other.png: 30 x 20 pixels, resized to 24 x 24" in done.err
    assert "a model for translation, not for captioning" in call("caption", toy.fixed, "whole.png").error
    assert call("caption", "runs/shapes").status == 2


def test_pictures_are_read_as_they_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = np.tile(np.arange(0, 240, 10, dtype=np.uint8), (24, 1))
    for name, picture in {"8": Image.fromarray(ramp), "16": Image.fromarray(ramp.astype(np.uint16) * 257)}.items():
        picture.save(tmp_path / f"{name}.png")
        assert np.array_equal(read(tmp_path / f"{name}.png", 24)[0], np.stack([ramp] * 3, axis=2))
    hidden = Image.new("RGBA", (24, 24), (200, 0, 0, 0))
    hidden.save(tmp_path / "hidden.png")
    assert (read(tmp_path / "hidden.png", 24)[0] == 255).all(), "nothing is seen of it on white"
    for most in (100, 400):  # an error, a warning
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        with pytest.raises(DataError, match=f"more than {most} pixels: make it smaller"):
            read(tmp_path / "8.png", 24)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.size=30"], "data.size: 30 is not allowed: with 3 model.channels it has to be a multiple of 4"),
        (["data.kinds=9"], "data.kinds: 9 is not allowed"),
        (["model.context_feeding=true"], "set model.attention to none"),
        (["model.layers=1"], "needs model.layers of 2 or more"),
        (["model.attention=dot"], "as wide as the last of model.channels"),
        (["model.channels=[]"], "model.channels"),
        (["model.channels=[8,0]"], "model.channels"),
        (["search.length_penalty=1000"], "search.length_penalty"),
        (["data.size=16"], "data.size: 16 is not allowed"),
        (["model.chanels=[3]"], "did you mean 'channels'"),
        (["training.metric=chrf"], "training.metric: 'chrf' is not allowed"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(changes: list[str], message: str, small: Path) -> None:
    done = call("train", small, *(part for change in changes for part in ("--set", change)))
    assert done.status == 2
    assert message in done.error
    assert not Path("runs/shapes").exists()
