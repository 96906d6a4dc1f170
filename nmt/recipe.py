"""The recipe: everything that decides what is trained, on what and how, as one typed and frozen value.

A recipe is a YAML file with the sections below. `load` reads one (a path, or the name of a shipped recipe), applies
`--set a.b=value` changes, and returns a `Recipe`; `dump` writes it back with every default filled in. Unknown keys,
wrong kinds and contradictions are `RecipeError`s that name the dotted key, what was given and what is allowed. A recipe
with another `task` than translation has other sections: their shape says which, and `load_as` reads them.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic import Field as Field  # for the recipes of the shapes
from pydantic import model_validator as model_validator
from pydantic.fields import FieldInfo

from nmt.errors import RecipeError

Cell = Literal["rnn", "lstm", "gru"]
Task = Literal["translation", "language-model", "classification", "captioning", "tagging"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, content: Any) -> Any:
        """`epochs: yes` is not 1."""
        if not isinstance(content, dict):
            return content
        return {key: _word(cls.model_fields.get(key), value) for key, value in content.items()}


def _word(field: FieldInfo | None, value: object) -> object:
    """A truth value as a word, where a number is wanted, which pydantic would make of it."""
    if not isinstance(value, bool) or field is None:
        return value
    kinds = get_args(field.annotation) or (field.annotation,)
    return str(value) if bool not in kinds and (int in kinds or float in kinds) else value


class Data(Section):
    """Where the sentence pairs come from, and which are left out."""

    source: str = Field(min_length=1, description="language of the source side: a suffix, a column or a key")
    target: str = Field(min_length=1)
    path: str | None = Field(
        None, description="folder (or file) with the corpus, from here, or under $NMT_DATA or data/"
    )
    hub: str | None = Field(None, description="data set on the hub, fetched when the folder is not there")
    hub_config: str | None = None
    generator: Literal["starter"] | None = Field(None, description="a corpus that nmt writes itself")
    columns: tuple[str, str] | None = Field(
        None, description="source and target column of TSV, CSV, JSON lines, Parquet, hub"
    )
    train: str | tuple[str, str] = Field("train", description="file stem or hub split, one file, or one file per side")
    valid: str | tuple[str, str] = "valid"
    test: str | tuple[str, str] = "test"
    extra: tuple[str, ...] = Field((), description="more training pairs: files, or folders with train.*; a list or one")
    extra_times: int = Field(
        1, ge=1, description="how often each extra pair is there (drop_duplicates takes all but one)"
    )
    mix: float | None = Field(None, ge=0, description="pairs of train, drawn, for each extra one; null: all of train")
    known: tuple[str, ...] = Field((), description="files that mix draws from besides train: what a tuned model knew")
    hold_out: int = Field(0, ge=0, description="pairs taken out of train for valid, and as many for test, 0: none")
    max_length: int = Field(128, ge=1, description="pieces; longer training pairs are left out")
    max_ratio: float = Field(4.0, gt=1, description="pieces of the longer side over the shorter (short pairs exempt)")
    drop_duplicates: bool = True
    drop_identical: bool = Field(True, description="leave out training pairs whose two sides are equal")

    @field_validator("train", "valid", "test", mode="before")
    @classmethod
    def _one_or_two(cls, given: object, about: ValidationInfo) -> object:
        two = isinstance(given, list | tuple) and len(given) == 2 and all(isinstance(name, str) for name in given)
        if isinstance(given, str) or two:
            return given
        raise ValueError(
            f"data.{about.field_name}: {given!r} is not allowed: give a name, or a list of one for each side"
        )

    @field_validator("extra", "known", mode="before")
    @classmethod
    def _or_one(cls, given: object) -> object:
        return (given,) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.generator and (self.path or self.hub):
            raise ValueError("data.generator writes the corpus itself: leave out data.path and data.hub")
        if not (self.generator or self.path or self.hub):
            raise ValueError("data needs a path, a hub data set or a generator: for instance `path: my-corpus`")
        if self.hold_out and (self.generator or (self.valid, self.test) != ("valid", "test")):
            raise ValueError("data.hold_out makes valid and test: leave out data.valid, data.test and data.generator")
        if self.known and self.mix is None:
            raise ValueError(
                "data.known is for data.mix, which draws from train and from these: set that, or name them in extra"
            )
        if self.mix is not None and not self.extra:
            raise ValueError(
                "data.mix is for data.extra, the files to mix pairs of train with: name some, or leave it out"
            )
        if self.generator and (self.train, self.valid, self.test) != ("train", "valid", "test"):
            raise ValueError(
                "data.generator writes train, valid and test: leave these out; pairs of your own go into data.extra"
            )
        if self.source == self.target:
            raise ValueError(f"data.source and data.target are both '{self.source}': name two languages")
        return self


class Tokenizer(Section):
    """A SentencePiece specification (Kudo and Richardson 2018)."""

    model: Literal["unigram", "bpe", "char"] = "unigram"
    vocab_size: int = Field(4000, ge=8)
    joint: bool = Field(True, description="one vocabulary for both sides, or one per side")
    character_coverage: float = Field(1.0, ge=0.98, le=1.0)
    byte_fallback: bool = Field(False, description="spell unknown characters as bytes: nothing is ever unknown")
    normalization: Literal["nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity"] = Field(
        "nmt_nfkc", description="of both sides; what it changes (…, ½, ZWNJ) is never written; identity: nothing"
    )
    symbols: tuple[str, ...] = Field((), description="pieces that are never split")


class Dropout(Section):
    """Shares of units dropped, one mask per sequence (Gal and Ghahramani 2016)."""

    embedding: float = Field(0.2, ge=0, lt=1)
    layers: float = Field(0.2, ge=0, lt=1, description="between recurrent layers")
    output: float = Field(0.2, ge=0, lt=1, description="encoder memory and decoder output")
    recurrent: float = Field(0.0, ge=0, lt=1, description="recurrent weights, in 256ths (Merity et al. 2018)")


class EncoderModel(Section):
    cell: Cell | None = Field(None, description="null: model.cell")
    layers: int = Field(1, ge=1, le=16)
    hidden: int = Field(256, ge=1, description="width of one direction")
    direction: Literal["forward", "reversed", "bidirectional"] = "bidirectional"
    summary: Literal["last", "mean", "max"] = Field("last", description="last state, or the outputs pooled over steps")
    shortcut: bool = Field(False, description="attention sees the embeddings beside the states (Kuang et al. 2018)")


class DecoderModel(Section):
    cell: Cell | None = Field(None, description="null: model.cell")
    layers: int = Field(2, ge=1, le=16)
    hidden: int = Field(512, ge=1)


class Model(Section):
    cell: Cell = "lstm"
    embed: int = Field(256, ge=1, description="width of the embeddings")
    encoder: EncoderModel = EncoderModel()
    decoder: DecoderModel = DecoderModel()
    bridge: Literal["linear", "copy", "zero"] = "linear"
    attention: Literal["none", "dot", "general", "additive"] = "general"
    attention_position: Literal["after", "between"] = Field(
        "between", description="after the decoder stack, or between its first layer and the rest"
    )
    input_feeding: bool = Field(False, description="give the attentional state to the next step (Luong et al. 2015)")
    context_feeding: bool = Field(False, description="give the summary to every step (Cho et al. 2014)")
    residual: bool = False
    tie: Literal["none", "target", "all"] = "all"
    dropout: Dropout = Dropout()

    @model_validator(mode="after")
    def _cross_checks(self) -> Self:
        if self.attention == "none" and self.input_feeding:
            raise ValueError("model.input_feeding needs attention: set model.attention or leave input_feeding out")
        if self.attention == "none" and self.encoder.shortcut:
            raise ValueError("model.encoder.shortcut is for attention: set model.attention or leave shortcut out")
        if self.attention != "none" and self.context_feeding:
            raise ValueError("model.context_feeding is for a fixed context: set model.attention to none")
        if self.attention != "none" and self.attention_position == "between" and self.decoder.layers < 2:
            raise ValueError(
                f"model.attention_position 'between' needs model.decoder.layers of 2 or more, not "
                f"{self.decoder.layers}: raise it or use 'after'"
            )
        width = self.encoder.hidden * (2 if self.encoder.direction == "bidirectional" else 1)
        if self.bridge == "copy":
            self._copies(width)
        memory = width + (self.embed if self.encoder.shortcut else 0)
        if self.attention == "dot" and memory != self.decoder.hidden:
            raise ValueError(
                f"model.attention 'dot' needs a memory as wide as the decoder's states, not {memory} and "
                f"{self.decoder.hidden}: change a width or use 'general'"
            )
        return self

    def _copies(self, width: int) -> None:
        """Refuses a bridge that copies between states of unequal shapes; `width` is the encoder's."""
        given = (self.encoder.layers, width, self.encoder_cell == "lstm" or self.decoder_cell != "lstm")
        if given != (self.decoder.layers, self.decoder.hidden, True):
            raise ValueError(
                f"model.bridge 'copy' needs equal shapes: the encoder has {self.encoder.layers} layers of {width} "
                f"({self.encoder_cell}), the decoder {self.decoder.layers} of {self.decoder.hidden} "
                f"({self.decoder_cell}): make them equal or use 'linear'"
            )

    @property
    def encoder_cell(self) -> Cell:
        return self.encoder.cell or self.cell

    @property
    def decoder_cell(self) -> Cell:
        return self.decoder.cell or self.cell


class Training(Section):
    """What the training loop needs to know, whatever it trains."""

    seed: int = Field(1, ge=0, lt=2**63)
    epochs: int = Field(20, ge=1)
    accumulate: int = Field(1, ge=1, description="batches per update")
    learning_rate: float = Field(3e-3, gt=0)
    warmup: int = Field(400, ge=0, description="updates of linear warm-up")
    schedule: Literal["cosine", "inverse_sqrt", "plateau", "constant"] = "cosine"
    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights, 0: off")
    validate_every: int | None = Field(None, ge=1, description="updates; null: each epoch")
    metric: str = Field("perplexity", description="picks the best model and stops early; of perplexity less is better")
    keep: Literal["best", "last"] = Field("best", description="which weights: of the best validation or of the last")
    patience: int | None = Field(None, ge=1, description="validations without a better score before stopping")
    checkpoint_minutes: float = Field(5.0, ge=0)
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads; null: all cores")
    tensorboard: bool = False


class TranslationTraining(Training):
    batch_tokens: int = Field(2500, ge=1, description="sentences times the longest side, padding counted")
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    teacher_forcing: float = Field(1.0, ge=0, le=1, description="share of gold previous words at the end of training")
    teacher_forcing_schedule: Literal["constant", "linear", "inverse_sigmoid"] = "constant"
    subword_sampling: float = Field(
        0.0, ge=0, le=1, description="unigram: inverse temperature alpha; bpe: share of merges dropped; 0: off"
    )
    guided_attention: float = Field(
        0.0,
        ge=0,
        description="weight at the start of attention agreeing with a lexicon's alignment (Chen et al. 2016)",
    )
    teacher: str | None = Field(
        None, description="a model folder, or several as a+b, whose pieces are used and probabilities learnt too"
    )
    teacher_share: float = Field(0.5, gt=0, le=1, description="of the loss (Kim and Rush 2016, section 3.1)")
    validate_sentences: int = Field(1000, ge=1, description="pairs of valid that a validation looks at, from the top")
    metric: Literal["bleu", "chrf", "perplexity"] = Field("bleu", description="picks the best model and stops early")
    samples: int = Field(3, ge=0, description="translations shown at each validation")
    init_from: str | None = Field(None, description="a model folder whose weights and tokenizers to start from")


class Search(Section):
    method: Literal["beam", "greedy", "sample"] = "beam"
    beam: int = Field(5, ge=1, le=100)
    length_penalty: float = Field(
        1.0, ge=0, le=20, description="exponent of ((5 + length) / 6) (Wu et al. 2016, eq. 14)"
    )
    coverage_penalty: float = Field(
        0.0, ge=0, le=100, description="weight of the coverage term (Wu et al. 2016, eq. 14)"
    )
    mbr: float = Field(
        0.0,
        ge=0,
        le=1e9,
        description="choose from the beam by consensus, so sharply (minimum Bayes risk), 0: by score alone",
    )
    reverse: str | None = Field(
        None, description="a model folder of the opposite direction, which judges the beam: does it lead back?"
    )
    reverse_weight: float = Field(0.2, ge=0, le=100)
    min_ratio: float = Field(0.0, ge=0, le=1000, description="least target pieces per source piece")
    max_ratio: float = Field(2.0, gt=0, le=1000, description="most target pieces per source piece, ...")
    max_extra: int = Field(20, ge=0, le=10_000, description="... plus this many")
    temperature: float = Field(1.0, ge=0, le=100)
    top_k: int = Field(0, ge=0, description="0: all")
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int = Field(1, ge=0, lt=2**63)
    max_source: int = Field(256, ge=1, description="pieces; a longer line is translated in parts")
    batch_tokens: int = Field(4000, ge=1, description="hypotheses times source pieces searched at once")
    language_model: str | None = Field(None, description="a model folder whose language model has a say")
    language_model_weight: float = Field(0.1, ge=0, le=100)
    examples: float = Field(
        0.5, ge=0, lt=1, description="share of what was read in what is written, after `nmt remember`; 0: none"
    )
    examples_penalty: float = Field(
        0.6,
        ge=0,
        le=20,
        description="added to length_penalty where there are examples, which make translations shorter",
    )
    precision: Literal["float32", "bf16"] = Field("float32", description="bf16: faster where the CPU computes in it")


class AnyRecipe(Section):
    """What the recipes of all tasks have. `name` is the stem of the file it was read from."""

    name: str = "recipe"
    task: Task
    if TYPE_CHECKING:  # each kind has it in its own place
        training: Training


R = TypeVar("R", bound=AnyRecipe)


class Recipe(AnyRecipe):
    """A whole recipe for translation."""

    task: Literal["translation"] = "translation"
    data: Data
    tokenizer: Tokenizer = Tokenizer()
    model: Model = Model()
    training: TranslationTraining = TranslationTraining()
    search: Search = Search()

    @model_validator(mode="after")
    def _across_sections(self) -> Self:
        if self.model.tie == "all" and not self.tokenizer.joint:
            raise ValueError("model.tie 'all' needs tokenizer.joint: true, since one embedding serves both sides")
        if self.training.guided_attention and self.model.attention == "none":
            raise ValueError("training.guided_attention guides attention: set model.attention, or leave it out")
        if self.training.teacher_forcing < 1 and self.model.dropout.recurrent:
            raise ValueError(
                "model.dropout.recurrent is drawn once for a sequence, which training.teacher_forcing below 1 takes "
                "step by step: set one of them to its default, 0 or 1"
            )
        if self.training.subword_sampling and self.tokenizer.model == "char":
            raise ValueError("training.subword_sampling has nothing to sample with tokenizer.model 'char': set it to 0")
        return self


def shipped(folder: Literal["recipes", "tokenizers", "demo"]) -> Path:
    """The folder of files that travel with the package: beside it in a checkout, inside it in a wheel."""
    inside = Path(__file__).parent / folder
    return inside if inside.is_dir() else Path(__file__).parent.parent / folder


def names(folder: Literal["recipes", "tokenizers"]) -> list[str]:
    """The names of the shipped recipes or tokenizer specifications."""
    return sorted(file.stem for file in shipped(folder).glob("*.yaml"))


def find(name: str) -> Path:
    """The file of a recipe given as a path or as the name of a shipped one."""
    path = Path(name)
    if path.is_file():
        return path
    inside = shipped("recipes") / f"{path.stem}.yaml"
    # `recipes/starter-en-de.yaml` works from any folder, as the documentation writes it
    if inside.is_file() and path.parent in (Path("."), Path("recipes")) and path.suffix in ("", ".yaml"):
        return inside
    raise RecipeError(f"no recipe '{name}': give the path of a YAML file or one of {', '.join(names('recipes'))}")


def header(path: Path) -> str:
    """The comment a recipe begins with: what it trains, what to expect, where its data come from."""
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:].removeprefix(" "))
    return "\n".join(lines)


def task(name: str | os.PathLike[str]) -> Task:
    """The task of a recipe given by path or shipped name. Raises RecipeError for one that does not exist."""
    path = find(os.fspath(name))
    given: Task = _read(path).get("task", "translation")
    if given not in get_args(Task):
        raise RecipeError(f"{path}: task: {given!r} is not allowed: choose one of {', '.join(get_args(Task))}")
    return given


def load(name: str | os.PathLike[str], changes: Iterable[str] = ()) -> Recipe:
    """Read a recipe for translation by path or shipped name and apply changes of the form `a.b=value`.

    Raises RecipeError for a file that is not there, is not YAML, or says something a recipe cannot say.
    """
    return load_as(Recipe, name, changes)


def load_as(kind: type[R], name: str | os.PathLike[str], changes: Iterable[str] = ()) -> R:
    """The same for a recipe of any kind."""
    path = find(os.fspath(name))
    content = _read(path)
    specified = "tokenizer" in kind.model_fields
    for change in changes:
        if specified and change.startswith("tokenizer."):  # a key of what the recipe names
            content["tokenizer"] = _tokenizer(content.get("tokenizer", {}), path)
        _set(content, change)
    if specified:
        content["tokenizer"] = _tokenizer(content.get("tokenizer", {}), path)
    content.setdefault("name", path.stem)
    return parse_as(kind, content, str(path))


def parse(content: Mapping[str, Any], where: str) -> Recipe:
    """A recipe for translation from plain values; `where` names their origin in messages."""
    return parse_as(Recipe, content, where)


def parse_as(kind: type[R], content: Mapping[str, Any], where: str) -> R:
    """The same for a recipe of any kind."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        problems = [_explain(kind, dict(problem)) for problem in error.errors()]
        raise RecipeError(f"{where}: " + "; ".join(problems)) from None


def dump(recipe: AnyRecipe) -> str:
    """The recipe as YAML, every default filled in."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def changed(recipe: R, changes: Iterable[str]) -> R:
    """A copy of a recipe with `a.b=value` changes."""
    content = recipe.model_dump(mode="json")
    for change in changes:
        _set(content, change)
    return parse_as(type(recipe), content, "--set")


def setting(key: str, value: object) -> str:
    """A change for `changed` that gives a key this value, whatever is in it."""
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def differences(old: AnyRecipe, new: AnyRecipe) -> list[str]:
    """The dotted keys in which two recipes differ."""
    one, two = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    return sorted(key for key in one | two if one.get(key) != two.get(key))


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]*)$")


class _Loader(yaml.SafeLoader):
    """That of plain YAML, but for keys that stand twice, all but the last of which would be lost, and for numbers:
    those to the base of 8 (010) and of 60 (1:30) are text, of which 010 is then read as 10."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, _INTEGER if tag == "tag:yaml.org,2002:int" else form) for tag, form in forms]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for name, _ in node.value:
            if isinstance(name, yaml.ScalarNode) and name.value in seen:
                problem = f"'{name.value}' stands there twice: make one of them"
                raise yaml.constructor.ConstructorError(None, None, problem, name.start_mark)
            seen.add(str(name.value))
        return super().construct_mapping(node, deep)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # bytes that are no UTF-8, a 13th month
        reason = " ".join(str(error).split()).replace('"<unicode string>", ', "")
        raise RecipeError(f"{path}: not YAML: {reason}") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: a recipe is a mapping with the keys {', '.join(Recipe.model_fields)}")
    return {key: value for key, value in content.items() if value is not None}  # an empty section: its defaults


def _tokenizer(given: Any, recipe: Path) -> Any:
    """A recipe's `tokenizer`: a path relative to the recipe, an inline mapping, or a shipped name, in that order."""
    if not isinstance(given, str):
        return given
    beside = recipe.parent / given
    inside = shipped("tokenizers") / f"{given}.yaml"
    for path in (beside, inside):
        if path.is_file():
            return _read(path)
    raise RecipeError(
        f"{recipe}: tokenizer: '{given}' is no file beside the recipe and no shipped name: "
        f"give a mapping, a path or one of {', '.join(names('tokenizers'))}"
    )


def _set(content: dict[str, Any], change: str) -> None:
    key, equals, value = change.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {change}: write key=value, for instance --set training.epochs=5")
    *parents, last = key.split(".")
    section = content
    for parent in parents:
        if section.get(parent) is None:  # an empty section: its defaults
            section[parent] = {}
        inner = section[parent]
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {change}: '{parent}' is a single value here, it has no key '{last}'")
        section = inner
    try:
        if " #" in value and value[0] not in "'\"[{":
            raise ValueError("a comment: the end would be lost")
        section[last] = yaml.load(value, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError):  # a 13th month
        raise RecipeError(f"--set {change}: '{value}' is not a YAML value: put it in quotes if it is text") from None


_QUOTES = "put it in quotes, YAML reads no, yes, on and off as false and true"
_NEEDED = {
    "int_": "a whole number is needed",
    "float_": "a number is needed",
    "bool_": "true or false is needed",
    "string_type": "text is needed",
    "tuple_type": "a list is needed",
    "model_type": "keys of its own are needed",
}


def _explain(kind: type[AnyRecipe], problem: dict[str, Any]) -> str:
    """One pydantic error as a line: dotted key, what was given, what is allowed."""
    where = [str(part) for part in problem["loc"]]
    key = ".".join(where)
    if problem["type"] == "extra_forbidden":
        allowed = _keys(kind, where[:-1])
        near = difflib.get_close_matches(where[-1], allowed, n=1) or _sections_with(kind, key)
        hint = f"did you mean '{near[0]}'?" if near else f"allowed are {', '.join(allowed)}"
        return f"unknown key '{key}': {hint}"
    if problem["type"] == "invalid_key":
        return f"{key}: a key is {problem['input']!r}, no text: {_QUOTES}"
    message = next(
        (said for start, said in _NEEDED.items() if problem["type"].startswith(start)),
        str(problem["msg"]).removeprefix("Value error, "),
    )
    if problem["type"] == "value_error":
        return message
    if problem["type"] == "missing":
        return f"'{key}' is missing: add it"
    if problem["type"] == "string_type" and isinstance(problem["input"], bool):
        message += f": {_QUOTES}"
    return f"{key}: {problem['input']!r} is not allowed: {message[0].lower() + message[1:]}"


def _sections_with(kind: type[AnyRecipe], key: str) -> list[str]:
    """The places where a key that stands at the top would be right."""
    sections = ((name, field.annotation) for name, field in kind.model_fields.items())
    return [
        f"{name}.{key}"
        for name, section in sections
        if isinstance(section, type) and issubclass(section, BaseModel) and key in section.model_fields
    ]


def _keys(kind: type[AnyRecipe], where: list[str]) -> list[str]:
    section: type[BaseModel] = kind
    for part in where:
        inner = section.model_fields[part].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, BaseModel)
        section = inner
    return list(section.model_fields)
