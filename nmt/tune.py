"""A trained translator learns more pairs: what people corrected on its page, or another kind of text.

Each new pair is seen many times, among others that the model knows already, so that it forgets little of them (Chu et
al. 2017, section 3). What was measured is in docs/trials.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from nmt import checkpoint, corpus, examples, material, run
from nmt.corpus import Corpus
from nmt.errors import CallError
from nmt.progress import say, shown
from nmt.recipe import Recipe, changed, setting
from nmt.remember import remember
from nmt.translate import Translator

SETTINGS = (
    "data.mix=3",
    "data.drop_duplicates=false",
    "data.drop_identical=false",  # what was corrected to stay as it is, a name say, is to be learnt too
    "training.epochs=1",
    "training.batch_tokens=400",
    "training.accumulate=1",
    "training.learning_rate=0.0005",
    "training.schedule=cosine",  # by others it may fall at once, there being no warm-up
    "training.warmup=0",
    "training.guided_attention=0",  # it has learnt to look
    "training.teacher=null",
    "training.keep=last",  # valid is of the old ones, ...
    "training.patience=null",  # ... on which it may get no better
    "training.validate_every=null",
)
LEARNT = "learnt"  # the key of model.json that tells from which pairs
SEEN, LEAST, MOST = 1200, 3, 60  # how often new pairs are seen, all together, and each of them at least and at most
TRIED, SHOWN = 200, 3  # new pairs that are translated before and after, and of those that failed the ones printed


def tune(
    old: Path, files: Sequence[Path], changes: Iterable[str] = (), folder: Path | None = None, resume: bool = False
) -> Path:
    """Train a translator on, with more pairs, into a new folder, `<old>-tuned` unless given; the folder.

    Says how many of the new pairs it has learnt. One that remembers what it has read does so afterwards too. Raises
    CheckpointError for a folder that is no translator's, CallError without files or where `folder` was tuned with
    others, DataError for what is wrong with them, and what `nmt.run.train` raises.
    """
    saved = checkpoint.read(old)
    saved.weights()  # before the long work: an exported translator has none
    recipe = saved.recipe
    if not files:
        raise CallError("nothing to learn from: name a file of sentence pairs")
    places = [str(corpus.locate(str(file), None).resolve()) for file in files]  # found from any folder later
    pairs = [material.extra(recipe.data, place) for place in places]
    count = sum(map(len, pairs))
    first = next((pair for one in pairs for pair in zip(one.source[:1], one.target[:1], strict=True)), None)
    if first:
        say(f"{count:,} pairs to learn, {recipe.data.source} to {recipe.data.target}, first: {shown(*first)}")
    new = folder or old.resolve().with_name(f"{old.resolve().name}-tuned")
    times, learnt = repetitions(count), [one.digest for one in pairs]
    if resume and (new / checkpoint.INFO).is_file():
        if checkpoint.read_json(new / checkpoint.INFO).get(LEARNT, learnt) != learnt:
            raise CallError(
                f"{new} was tuned with other pairs, of which it has learnt: choose another folder with --out"
            )
        times = checkpoint.read_recipe(Recipe, new).data.extra_times
    own = {
        "training.init_from": str(old.resolve()),
        "data.extra": places,
        "data.extra_times": times,
        "data.known": material.known(recipe).extra,
    }
    settings = [*SETTINGS, *(setting(key, value) for key, value in own.items()), *changes]
    before = run.translator(str(old))  # before the long work, in case it cannot be used
    more = [Path(file) for file in examples.files(old)]
    for gone in (file for file in more if not file.exists()):
        say(f"warning: {gone} is gone, which {old} was shown: what it remembered of that is left out")
    run.train(changed(recipe, settings), new, resume)
    checkpoint.update_info(new, {LEARNT: learnt})
    if examples.count(old):
        remember(new, [file for file in more if file.exists()])
    _tell(pairs, before, run.translator(str(new)))
    return new


def repetitions(count: int) -> int:
    """How often each of so many new pairs is seen."""
    return max(LEAST, min(MOST, SEEN // max(1, count)))


def _tell(pairs: Sequence[Corpus], before: Translator, after: Translator) -> None:
    """Says what became of the first new pairs."""
    some = [pair for one in pairs for pair in zip(one.source[:TRIED], one.target[:TRIED], strict=True)][:TRIED]
    sources = [source for source, _ in some]
    old, new = ([one.text for one in model.translate(sources)] for model in (before, after))
    learnt, known = (sum(text == target for text, (_, target) in zip(texts, some, strict=True)) for texts in (new, old))
    say(f"of {len(some):,} new sentences, {learnt:,} are now translated as given; before it were {known:,}")
    failed = [(pair, text) for pair, text in zip(some, new, strict=True) if text != pair[1]]
    for (source, target), text in failed[:SHOWN]:
        say(f"  {source}\n    given  {target}\n    now    {text}")
    if failed:
        say("what is not learnt yet needs more sentences with the same words, or a higher training.learning_rate")
