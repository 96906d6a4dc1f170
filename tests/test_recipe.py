"""The recipe: every rule, and every message with the key, what was given and what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from nmt import run
from nmt.errors import CallError, RecipeError
from nmt.recipe import Recipe, changed, differences, dump, find, header, load, names, parse, parse_as, shipped

LEAST = {"data": {"source": "en", "target": "de", "path": "corpus"}}
TOP = "name, task, data, tokenizer, model, training, search"


def content_with(*pairs: tuple[str, object]) -> dict[str, object]:
    """The least recipe with more keys, given by their dotted paths."""
    content: dict[str, Any] = {"data": dict(LEAST["data"])}
    for key, value in pairs:
        section = content
        *parents, last = key.split(".")
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    return content


def refused(content: object, *parts: str) -> str:
    """The message for a recipe that cannot be, which has these parts."""
    with pytest.raises(RecipeError) as error:
        parse(content, "my.yaml")  # type: ignore[arg-type]
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("my.yaml: ")
    for part in parts:
        assert part in message
    return message


def written(folder: Path, content: object, name: str = "my.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return path


# -- single keys


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("modle", "did you mean 'model'?"),
        ("model.atention", "did you mean 'attention'?"),
        ("model.encoder.hiden", "did you mean 'hidden'?"),
        ("model.dropout.embeding", "did you mean 'embedding'?"),
        ("training.learning-rate", "did you mean 'learning_rate'?"),
        ("search.beam_size", "did you mean 'beam'?"),
        ("data.sourc", "did you mean 'source'?"),
        ("tokenizer.vocab", "did you mean 'vocab_size'?"),
        ("cell", "did you mean 'model.cell'?"),
        ("qqqq", f"allowed are {TOP}"),
        ("model.decoder.qqqq", "allowed are cell, layers, hidden"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(key: str, hint: str) -> None:
    refused(content_with((key, 1)), f"unknown key '{key}'", hint)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("training.epochs", "many", "a whole number is needed"),
        ("training.epochs", 2.5, "a whole number is needed"),
        ("training.epochs", None, "a whole number is needed"),
        ("training.epochs", [1], "a whole number is needed"),
        ("training.epochs", True, "a whole number is needed"),
        ("training.patience", True, "a whole number is needed"),
        ("training.subword_sampling", True, "a number is needed"),
        ("training.learning_rate", "fast", "a number is needed"),
        ("training.tensorboard", "perhaps", "true or false is needed"),
        ("training.schedule", "linear", "'cosine', 'inverse_sqrt', 'plateau' or 'constant'"),
        ("model.cell", "qrnn", "'rnn', 'lstm' or 'gru'"),
        ("model.encoder.direction", "both", "'forward', 'reversed' or 'bidirectional'"),
        ("training.clip", "much", "a number is needed"),
        ("model", 5, "keys of its own are needed"),
        ("model.encoder", [1], "keys of its own are needed"),
        ("data.path", 5, "text is needed"),
        ("data.target", False, "quotes"),  # Norwegian, unquoted
        ("data.columns", ["a"], ""),
        ("data.columns", "en", "a list is needed"),
        ("data.train", 5, "a name, or a list of one for each side"),
        ("data.valid", ["a.en", 3], "a name, or a list of one for each side"),
        ("data.test", ["a.en"], "a name, or a list of one for each side"),
        ("data.extra", 5, "a list is needed"),
        ("tokenizer.symbols", "abc", "a list is needed"),
        ("task", "summarisation", "'translation'"),
    ],
)
def test_a_wrong_kind_is_named(key: str, value: object, reason: str) -> None:
    message = refused(content_with((key, value)), key, reason)
    assert repr(value) in message or "missing" in message
    assert message.count(key) == 1, "said once, whatever it might have been"


def test_a_key_that_yaml_takes_for_a_truth_value_is_named() -> None:
    refused({**LEAST, "data": {**LEAST["data"], False: "a"}}, "data", "a key is False, no text: put it in quotes")


@pytest.mark.parametrize(
    ("key", "value", "bound"),
    [
        ("training.epochs", 0, "1"),
        ("training.batch_tokens", 0, "1"),
        ("training.accumulate", 0, "1"),
        ("training.learning_rate", 0, "0"),
        ("training.learning_rate", float("nan"), "finite"),
        ("training.learning_rate", float("inf"), "finite"),
        ("training.warmup", -1, "0"),
        ("training.weight_decay", -0.1, "0"),
        ("training.clip", 0, "0"),
        ("training.label_smoothing", 1, "1"),
        ("training.ema", 1, "1"),
        ("training.teacher_forcing", 1.1, "1"),
        ("training.subword_sampling", -0.1, "0"),
        ("training.validate_every", 0, "1"),
        ("training.patience", 0, "1"),
        ("training.threads", 0, "1"),
        ("training.seed", -1, "0"),
        ("model.embed", 0, "1"),
        ("model.encoder.layers", 0, "1"),
        ("model.encoder.layers", 17, "16"),
        ("model.decoder.hidden", 0, "1"),
        ("model.dropout.output", 1, "1"),
        ("tokenizer.vocab_size", 7, "8"),
        ("tokenizer.character_coverage", 0.97, "0.98"),
        ("data.max_length", 0, "1"),
        ("data.max_ratio", 1, "1"),
        ("data.source", "", "1 character"),
        ("search.beam", 0, "1"),
        ("search.beam", 101, "100"),
        ("search.mbr", -1, "0"),
        ("data.hold_out", -1, "0"),
        ("search.temperature", -1, "0"),
        ("search.top_p", 0, "0"),
        ("search.top_p", 1.5, "1"),
        ("search.max_ratio", 0, "0"),
        ("search.length_penalty", -1, "0"),
    ],
)
def test_out_of_range_is_named_with_the_bound(key: str, value: object, bound: str) -> None:
    _, _, reason = refused(content_with((key, value)), f"{key}: {value!r} is not allowed").partition("not allowed")
    assert bound in reason


def test_all_problems_are_said_at_once() -> None:
    refused({"model": {"cel": "gru", "embed": 0}}, "'data' is missing", "model.cel", "model.embed")


@pytest.mark.parametrize("content", [None, [], "text", 5])
def test_not_a_mapping(content: object, tmp_path: Path) -> None:
    refused(content, "is not allowed")
    with pytest.raises(RecipeError, match=f"a recipe is a mapping with the keys {TOP}"):
        load(written(tmp_path, content))


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "twice.yaml").write_text(
        "data: {source: en, target: de, path: x}\ntraining: {epochs: 5}\ntraining:\n  seed: 2\n"
    )
    with pytest.raises(RecipeError, match=r"twice\.yaml: not YAML: 'training' stands there twice.* line 3"):
        load(tmp_path / "twice.yaml")


def test_an_empty_section_can_be_changed(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("data: {source: en, target: de, path: x}\nmodel:\n  dropout:\n")
    assert load(tmp_path / "a.yaml", ["model.dropout.layers=0.25"]).model.dropout.layers == 0.25


# -- checks across keys


@pytest.mark.parametrize(
    ("pairs", "parts"),
    [
        ([("data.generator", "starter")], ["data.generator", "data.path"]),
        ([("data.path", None)], ["data needs a path", "hub", "generator"]),
        ([("data.target", "en")], ["data.source", "data.target", "'en'"]),
        ([("model.attention", "none"), ("model.input_feeding", True)], ["model.input_feeding", "model.attention"]),
        ([("model.context_feeding", True)], ["model.context_feeding", "model.attention"]),
        (
            [("model.attention", "none"), ("model.encoder", {"shortcut": True})],
            ["model.encoder.shortcut", "model.attention"],
        ),
        (
            [("model.attention", "dot"), ("model.encoder", {"shortcut": True})],
            ["model.attention 'dot'", "768", "512"],
        ),
        ([("model.decoder", {"layers": 1})], ["model.attention_position", "model.decoder.layers", "not 1", "'after'"]),
        (
            [("model.attention", "dot"), ("model.encoder", {"hidden": 100}), ("model.decoder", {"hidden": 100})],
            ["model.attention 'dot'", "200", "100", "'general'"],
        ),
        (
            [("model.attention", "dot"), ("model.encoder", {"direction": "forward"})],
            ["model.attention 'dot'", "256", "512"],
        ),
        ([("model.bridge", "copy")], ["model.bridge 'copy'", "1 layers of 512 (lstm)", "2 of 512 (lstm)", "'linear'"]),
        (
            [("model.bridge", "copy"), ("model.encoder", {"cell": "gru", "layers": 2})],
            ["model.bridge 'copy'", "2 layers of 512 (gru)", "2 of 512 (lstm)"],
        ),
        ([("tokenizer.joint", False)], ["model.tie 'all'", "tokenizer.joint"]),
        (
            [("model.dropout", {"recurrent": 0.2}), ("training.teacher_forcing", 0.5)],
            ["model.dropout.recurrent", "training.teacher_forcing"],
        ),
        (
            [("tokenizer.model", "char"), ("training.subword_sampling", 0.1)],
            ["training.subword_sampling", "tokenizer.model 'char'"],
        ),
    ],
)
def test_contradictions_are_refused(pairs: list[tuple[str, object]], parts: list[str]) -> None:
    refused(content_with(*pairs), *parts)


@pytest.mark.parametrize(
    "pairs",
    [
        [("model.attention", "none"), ("model.context_feeding", True)],
        [("model.attention", "none"), ("model.decoder", {"layers": 1})],
        [("model.attention_position", "after"), ("model.decoder", {"layers": 1})],
        [("model.attention", "dot"), ("model.encoder", {"hidden": 256}), ("model.decoder", {"hidden": 512})],
        [
            ("model.attention", "dot"),
            ("model.encoder", {"hidden": 9, "direction": "reversed"}),
            ("model.decoder", {"hidden": 9}),
        ],
        [("model.bridge", "copy"), ("model.encoder", {"layers": 2})],
        [("model.bridge", "copy"), ("model.encoder", {"layers": 2}), ("model.decoder", {"cell": "gru"})],
        [("tokenizer.joint", False), ("model.tie", "target")],
        [("tokenizer.model", "char"), ("training.subword_sampling", 0)],
        [("data.path", None), ("data.generator", "starter")],
        [("data.path", None), ("data.hub", "someone/something")],
        [("data.hub", "someone/something")],
    ],
)
def test_what_goes_together_is_allowed(pairs: list[tuple[str, object]]) -> None:
    assert parse(content_with(*pairs), "my.yaml").data.source == "en"


def test_a_cell_for_all_or_for_each_side() -> None:
    both = parse(content_with(("model.cell", "gru")), "my.yaml").model
    assert (both.encoder_cell, both.decoder_cell) == ("gru", "gru")
    one = parse(content_with(("model.cell", "gru"), ("model.decoder", {"cell": "rnn"})), "my.yaml").model
    assert (one.encoder_cell, one.decoder_cell) == ("gru", "rnn")


def test_a_recipe_is_frozen() -> None:
    recipe = parse(LEAST, "my.yaml")
    with pytest.raises(ValueError, match="frozen"):
        recipe.training.epochs = 3


# -- files


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'nowhere/my\.yaml'") as error:
        load("nowhere/my.yaml")
    assert all(name in str(error.value) for name in names("recipes"))
    assert isinstance(error.value, CallError)


@pytest.mark.parametrize(
    "content",
    ["data: [1", "data: {a: b", "a: b: c", "\t- x", "x: !!python/object/apply:os.getcwd []", "? [a]\n: {b: *c}"],
)
def test_not_yaml(content: str, tmp_path: Path) -> None:
    path = written(tmp_path, content)
    with pytest.raises(RecipeError, match="not YAML") as error:
        load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"data: \xff\xfe", b"data: {source: \xe9n}", b"a: \x00"])
def test_not_text(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=re.escape(str(path))):
        load(path)


def test_a_recipe_is_named_by_its_file_unless_it_says(tmp_path: Path) -> None:
    assert load(written(tmp_path, LEAST, "welsh.yaml")).name == "welsh"
    assert load(written(tmp_path, {**LEAST, "name": "other"}, "welsh.yaml")).name == "other"


def test_find_by_path_by_name_and_as_the_documentation_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = names("recipes")[0]
    inside = shipped("recipes") / f"{name}.yaml"
    for way in (name, f"{name}.yaml", f"recipes/{name}", f"recipes/{name}.yaml", str(inside)):
        assert find(way) == inside
    own = written(tmp_path, LEAST, f"recipes/{name}.yaml")
    assert find(f"recipes/{name}.yaml").resolve() == own, "a file that is there comes first"
    assert find(name) == inside
    for way in (f"other/{name}.yaml", f"{name}.yml", "qqqq", ".", ""):
        with pytest.raises(RecipeError, match="no recipe"):
            find(way)


def test_the_header_is_the_comment_at_the_top(tmp_path: Path) -> None:
    text = "# One: what it is\n#two\n#\n#   indented\ndata: {}\n# not this\n"
    assert header(written(tmp_path, text)) == "One: what it is\ntwo\n\n  indented"
    assert header(written(tmp_path, "data: {}\n# not this\n")) == ""
    assert header(written(tmp_path, "")) == ""


@pytest.mark.parametrize("name", names("recipes"))
def test_shipped_recipes_load_and_say_what_they_are(name: str) -> None:
    recipe = run.load(name)
    assert recipe.name == name
    assert header(find(name)).strip()
    assert parse_as(type(recipe), yaml.safe_load(dump(recipe)), name) == recipe


@pytest.mark.parametrize("name", names("tokenizers"))
def test_shipped_tokenizers_load_and_say_what_they_are(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, {**LEAST, "tokenizer": name, "model": {"tie": "none"}})
    assert load(path).tokenizer.vocab_size > 8
    assert header(shipped("tokenizers") / f"{name}.yaml").strip()


# -- the tokenizer of a recipe


def test_a_tokenizer_is_a_mapping_a_path_or_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")  # a path is relative to the recipe, not to where one stands
    name = names("tokenizers")[0]
    content = yaml.safe_load((shipped("tokenizers") / f"{name}.yaml").read_text(encoding="utf-8"))

    def size(tokenizer: object) -> int:
        path = written(tmp_path, {**LEAST, "model": {"tie": "none"}, "tokenizer": tokenizer})
        return load(path).tokenizer.vocab_size

    assert size({"vocab_size": 77}) == 77
    assert size(name) == content["vocab_size"]
    written(tmp_path, {"vocab_size": 78}, "spec/own.yaml")
    assert size("spec/own.yaml") == 78
    assert size(str(tmp_path / "spec" / "own.yaml")) == 78
    written(tmp_path, {"vocab_size": 79}, name)
    assert size(name) == 79, "a file beside the recipe comes before a shipped name"


def test_a_tokenizer_that_is_nowhere(tmp_path: Path) -> None:
    for given in ("qqqq", "spec/qqqq.yaml", "", "."):
        with pytest.raises(RecipeError, match="no file beside the recipe and no shipped name") as error:
            load(written(tmp_path, {**LEAST, "tokenizer": given}))
        assert all(name in str(error.value) for name in names("tokenizers"))


# -- changes on the command line


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        ("training.epochs=5", "training.epochs", 5),
        ("training.epochs=010", "training.epochs", 10),
        ("training.seed=1_000", "training.seed", 1000),
        ("training.learning_rate=3e-4", "training.learning_rate", 3e-4),
        ('data.path="new #1"', "data.path", "new #1"),
        ("training.patience=null", "training.patience", None),
        ("training.tensorboard=true", "training.tensorboard", True),
        ("model.encoder.hidden=64", "model.encoder.hidden", 64),
        ("model.encoder={hidden: 32, layers: 2}", "model.encoder.layers", 2),
        ("data.columns=[src, tgt]", "data.columns", ("src", "tgt")),
        ("data.path=a=b", "data.path", "a=b"),
        ('data.path="7"', "data.path", "7"),
        ("tokenizer.symbols=[<a>, <b>]", "tokenizer.symbols", ("<a>", "<b>")),
        ("tokenizer={vocab_size: 50}", "tokenizer.vocab_size", 50),
        ("name=other", "name", "other"),
    ],
)
@pytest.mark.parametrize("tokenizer", [{"vocab_size": 99}, "joint-unigram-4k", None])
def test_set(change: str, key: str, value: object, tokenizer: object, tmp_path: Path) -> None:
    content = {**LEAST, **({"tokenizer": tokenizer} if tokenizer else {})}
    recipe = load(written(tmp_path, content), [change])
    for whole in (recipe, changed(load(written(tmp_path, content)), [change])):
        found: object = whole
        for part in key.split("."):
            found = getattr(found, part)
        assert found == value


def test_the_last_change_wins(tmp_path: Path) -> None:
    path = written(tmp_path, LEAST)
    assert load(path, ["training.epochs=5", "training.epochs=6"]).training.epochs == 6
    both = load(path, ["model.encoder={hidden: 32}", "model.encoder.layers=3"]).model.encoder
    assert (both.hidden, both.layers) == (32, 3)


def test_changing_a_key_of_a_named_tokenizer_keeps_its_others(tmp_path: Path) -> None:
    path = written(tmp_path, {**LEAST, "tokenizer": "joint-bpe-8k"})
    plain, other = load(path), load(path, ["tokenizer.vocab_size=500"])
    assert differences(plain, other) == ["tokenizer.vocab_size"]
    assert load(path, ["tokenizer=joint-unigram-4k"]).tokenizer.model == "unigram"


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ("training.epochs", ["--set training.epochs", "key=value"]),
        ("=5", ["--set =5", "key=value"]),
        ("", ["key=value"]),
        ("training.epochs=[1", ["'[1' is not a YAML value"]),
        ("data.source.x=1", ["--set data.source.x=1", "'source' is a single value", "'x'"]),
        ("tokenizer.model.x=1", ["'model' is a single value"]),
        ("training.epoch=1", ["unknown key 'training.epoch'", "'epochs'"]),
        ("training..epochs=1", ["unknown key"]),
        (".training=1", ["unknown key"]),
        ("training.epochs=", ["training.epochs", "None"]),
        ("training.epochs=0", ["training.epochs: 0", "greater than or equal to 1"]),
        ("model.attention=dot", []),
        ("model.context_feeding=true", ["model.context_feeding"]),
    ],
)
def test_bad_changes(change: str, parts: list[str], tmp_path: Path) -> None:
    path = written(tmp_path, {**LEAST, "tokenizer": {"model": "bpe"}, "model": {"encoder": {"hidden": 9}}})
    recipe = load(path)
    for call in (lambda: load(path, [change]), lambda: changed(recipe, [change])):
        with pytest.raises(RecipeError) as error:
            call()
        for part in parts:
            assert part in str(error.value)


# -- writing and comparing


FULL = [
    "data.columns=[a, b]",
    "data.train=[one.txt, two.txt]",
    "tokenizer.symbols=[<ä>, ' ']",
    "training.learning_rate=1.23e-05",
    "training.validate_every=7",
    "model.encoder.cell=gru",
    "name='7'",
    "data.source='no'",
]


@pytest.mark.parametrize("changes", [[], *([change] for change in FULL), FULL])
def test_what_is_dumped_loads_as_the_same(changes: list[str], tmp_path: Path) -> None:
    recipe = load(written(tmp_path, LEAST), changes)
    again = load(written(tmp_path, dump(recipe), "again.yaml"))
    assert again == recipe
    assert dump(again) == dump(recipe)


def test_a_dump_has_every_default_filled_in(tmp_path: Path) -> None:
    recipe = load(written(tmp_path, {**LEAST, "tokenizer": "joint-unigram-4k"}))
    content = yaml.safe_load(dump(recipe))
    assert list(content) == list(Recipe.model_fields)
    for name, section in content.items():
        if isinstance(section, dict):
            assert list(section) == list(type(getattr(recipe, name)).model_fields)


def test_differences_are_dotted_keys(tmp_path: Path) -> None:
    recipe = load(written(tmp_path, LEAST))
    assert differences(recipe, recipe) == []
    other = changed(recipe, ["training.epochs=7", "model.encoder.hidden=9", "data.columns=[a, b]", "name=x"])
    expected = ["data.columns", "model.encoder.hidden", "name", "training.epochs"]
    assert differences(recipe, other) == differences(other, recipe) == expected
    assert changed(other, []) == other
    assert recipe.training.epochs == Recipe(**LEAST).training.epochs, "a change makes a copy"
