"""What a recipe trains on: its corpus, filtered and tokenised, and the batches of each epoch.

gather(recipe) -> Material;  TrainingStream(material, ...).fetch(epoch, number) -> Batch
"""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path

import torch

from nmt import checkpoint, corpus, disk, holdout, lexicon, starter, tokenizer
from nmt.corpus import Corpus, Overlap
from nmt.data import Batch, Batches, Filtered, TrainingSet, prepare
from nmt.errors import CallError, CheckpointError, RecipeError
from nmt.formats import MissingColumnsError
from nmt.group import ALONE, Group
from nmt.hardware import cores
from nmt.progress import say
from nmt.recipe import Data, Recipe, TranslationTraining
from nmt.recipe import Tokenizer as TokenizerSpec
from nmt.tokenizer import Tokenizer

SOURCE, TARGET = "source.model", "target.model"  # the tokenizers of a model folder


@cache
def _starter(whole: bool) -> dict[str, list[starter.Pair]]:
    """The starter corpus, or its test split alone, which is the same and takes a quarter of the time."""
    return starter.corpus() if whole else starter.corpus(train=0, valid=0)


def load_split(data: Data, split: str) -> Corpus:
    """The pairs of `train`, `valid` or `test`. Raises DataError, RecipeError."""
    found = _split(data, split)
    if split != "train":
        return found
    if data.known:
        found = corpus.mixed(found, [extra(data, path) for path in data.known])
    if not data.extra:
        return found
    return corpus.mixed(found, [extra(data, path) for path in data.extra], data.extra_times, data.mix)


def extra(data: Data, path: str) -> Corpus:
    """The pairs of an extra file, which may have the columns of the others, or those of corrections."""
    with contextlib.suppress(MissingColumnsError):
        return corpus.load("train", data.source, data.target, path, columns=data.columns, key="data.extra")
    return corpus.load("train", data.source, data.target, path, key="data.extra")


def lineage(recipe: Recipe) -> Iterator[Recipe]:
    """A recipe and, where it was tuned, those of the runs before it. Raises CheckpointError where one is gone."""
    yield recipe
    seen: set[Path] = set()
    while recipe.data.mix is not None and recipe.training.init_from is not None:
        parent = Path(recipe.training.init_from).resolve()
        if parent in seen:
            raise CheckpointError(f"{parent}: what it was before it was tuned was replaced by it")
        seen.add(parent)
        recipe = checkpoint.read(parent).recipe
        yield recipe


def known(recipe: Recipe) -> Data:
    """All that a translator has learnt from: also what it knew before it was tuned, and then each pair once."""
    data = recipe.data
    files = tuple(dict.fromkeys((*data.known, *data.extra)))
    again = {"drop_duplicates": True} if data.mix is not None else {}  # tuning turns it off
    return data.model_copy(update={"known": (), "extra": files, "extra_times": 1, "mix": None, **again})


def _split(data: Data, split: str) -> Corpus:
    """The same without the extra pairs."""
    if data.generator is None:
        place = data.train if data.hold_out else {"train": data.train, "valid": data.valid, "test": data.test}[split]
        part = "train" if data.hold_out else split
        where = (data.path, data.hub, data.hub_config, data.columns)
        found = corpus.load(place, data.source, data.target, *where, part=part)
        return holdout.load(found, data.hold_out, split) if data.hold_out else found
    if {data.source, data.target} != {"en", "de"}:
        raise RecipeError(f"data.generator 'starter' writes en and de, not {data.source} and {data.target}")
    pairs = _starter(split != "test")[split]
    english, german = [pair.source for pair in pairs], [pair.target for pair in pairs]
    sides = (english, german) if data.source == "en" else (german, english)
    return corpus.from_pairs(*sides, f"starter {split}")


def test_parts(data: Data) -> dict[str, list[int]]:
    """The parts of the test set that are scored on their own as well."""
    if data.generator is None:
        return {}
    novel = [pair.novel for pair in _starter(False)["test"]]
    return {
        "combinations seen in training": [row for row, new in enumerate(novel) if not new],
        "combinations never seen": [row for row, new in enumerate(novel) if new],
    }


def train_tokenizers(recipe: Recipe, train: Corpus) -> tuple[Tokenizer, Tokenizer]:
    """Tokenizers for the source and the target side, trained on the training split; one and the same if joint.

    They are kept in the cache, under a fingerprint of the corpus and the specification.
    """
    spec = recipe.tokenizer
    sides = (
        [("joint", (train.source, train.target))] if spec.joint else [("s", (train.source,)), ("t", (train.target,))]
    )
    stamp = f"{tokenizer.VERSION} {train.fingerprint} {spec.model_dump_json()}"
    found = []
    for side, texts in sides:
        file = corpus.cache("tokenizers") / f"{hashlib.sha256(f'{stamp} {side}'.encode()).hexdigest()[:32]}.model"
        with contextlib.suppress(CheckpointError):  # not there yet, or damaged
            found.append(Tokenizer.load(file))
            continue
        say(f"training the tokenizer on {len(train):,} pairs")
        found.append(_train_tokenizer(spec, chain(*texts)))
        disk.write_bytes(file, found[-1].proto)
    return found[0], found[-1]


def _train_tokenizer(spec: TokenizerSpec, lines: Iterable[str]) -> Tokenizer:
    return tokenizer.train(
        lines,
        spec.model,
        spec.vocab_size,
        spec.character_coverage,
        spec.byte_fallback,
        spec.normalization,
        spec.symbols,
        cores(),
    )


@dataclass(frozen=True)
class Material:
    """What a recipe trains on."""

    corpus: Corpus
    train: TrainingSet
    valid: Corpus
    filtered: Filtered
    batches: Batches
    source: Tokenizer
    target: Tokenizer


def gather(recipe: Recipe, tokenizers: tuple[Tokenizer, Tokenizer] | None = None) -> Material:
    """Read, filter and tokenise the corpus; train the tokenizers unless they are given."""
    pairs = load_split(recipe.data, "train")
    valid = load_split(recipe.data, "valid")
    tokenizers = tokenizers or train_tokenizers(recipe, pairs)
    data = recipe.data
    if data.extra and data.extra_times > 1 and data.drop_duplicates:
        say(f"warning: data.extra_times={data.extra_times} is in vain without data.drop_duplicates=false")
    train, filtered = prepare(
        pairs, *tokenizers, data.max_length, data.max_ratio, data.drop_duplicates, data.drop_identical
    )
    settings = recipe.training
    batches = Batches(train.source_lengths, train.target_lengths, settings.batch_tokens, settings.seed)
    return Material(pairs, train, valid, filtered, batches, *tokenizers)


def inherited(recipe: Recipe, folder: Path | None = None) -> tuple[Tokenizer, Tokenizer] | None:
    """The tokenizers that are not trained: of the run `folder` that is resumed, that one begins from, or that teaches.

    Raises CallError, CheckpointError where they are not there.
    """
    if folder is None:
        settings = recipe.training
        begun = [("init_from", Path(settings.init_from))] if settings.init_from else []
        taught = [("teacher", one) for one in checkpoint.split(settings.teacher)] if settings.teacher else []
        for key, place in [*begun, *taught]:
            if not place.is_dir():
                raise CallError(f"training.{key}: {place}: no such model folder")
            folder = folder or place
        if folder and recipe.tokenizer != checkpoint.read(folder).recipe.tokenizer:
            say(f"the pieces are those of {folder}, not what the recipe's tokenizer says")
    return (Tokenizer.load(folder / SOURCE), Tokenizer.load(folder / TARGET)) if folder else None


class TrainingStream:
    """The batches of a training set, with subword sampling drawn anew in each epoch.

    With `training.guided_attention` they have the alignment of a lexicon that is learnt first.
    In a group of processes, this one's share of each, or None where a batch has too few rows for all.
    """

    def __init__(
        self, material: Material, settings: TranslationTraining, device: torch.device, group: Group = ALONE
    ) -> None:
        self.material, self.settings, self.device, self.group = material, settings, device, group
        self.lexicon = lexicon.learn(material.train.pairs()) if settings.guided_attention else None

    def batches(self, epoch: int) -> int:
        return len(self.material.batches.plan(epoch))

    def fetch(self, epoch: int, number: int) -> Batch | None:
        rows = self.material.batches.plan(epoch)[number][self.group.rank :: self.group.size]
        if not len(rows):
            return None
        if self.settings.subword_sampling:
            seed = seed_of(self.settings.seed, epoch, number)
            batch = self.material.train.sampled(rows, seed, self.settings.subword_sampling)
        else:
            batch = self.material.train.batch(rows)
        if self.lexicon is not None:
            alignment = self.lexicon.alignment(batch.source.numpy(), batch.target_out.numpy())
            batch = replace(batch, alignment=torch.from_numpy(alignment))
        return batch.to(self.device)


def seed_of(seed: int, epoch: int, number: int) -> int:
    """The seed of what is drawn for batch `number` of an epoch, the same in any process."""
    return zlib.crc32(f"{seed} {epoch} {number}".encode())


def warn_of(found: Mapping[str, Overlap]) -> None:
    """Says which of these sets have sentences that are trained on."""
    for part, one in found.items():
        if one.sources:
            say(f"warning: {part} has {one}: its scores flatter")


def overlaps(recipe: Recipe, train: Corpus, valid: Corpus) -> dict[str, Overlap]:
    """How much of the valid and test splits occurs in the training split; a corpus need not have a test split."""
    found = {"valid": corpus.overlap(train, valid)}
    with contextlib.suppress(corpus.MissingSplitError):
        found["test"] = corpus.overlap(train, load_split(recipe.data, "test"))
    return found
