"""Have a translator read its training pairs once more, and more of them, and keep what it is reminded of by them.

It then looks there while it writes (see `nmt.examples`): nothing is trained, so that pairs which came later, what
people corrected for instance, have a say after as long as they take to read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from nmt import checkpoint, corpus, disk, hardware
from nmt.data import Array, Batch, Batches, TrainingSet
from nmt.errors import CallError
from nmt.examples import FILE, Compressed, Examples, stamped
from nmt.material import gather, known, overlaps, warn_of
from nmt.model import Seq2Seq
from nmt.progress import Bar, say
from nmt.tokenizer import PAD
from nmt.translate import Member

SAMPLE = 100_000  # positions that the keys are made for
BATCH = 4_000  # pieces that are read at once


def remember(folder: Path, files: Sequence[Path] = ()) -> Examples:
    """Write the examples of a translator into its folder: the pairs of its recipe, and those of `files`.

    Raises CheckpointError for a folder that is no translator's, CallError for one that was exported, DataError where
    the pairs are not there or not what they should be.
    """
    saved = checkpoint.read(folder)
    if saved.exported:
        raise CallError(f"{folder}: an exported translator cannot read on: use the run that it comes from")
    with disk.locked(folder):
        disk.clean(folder)
        machine = hardware.choose()
        member = Member.load(saved, machine)
        assert isinstance(member.model, Seq2Seq)
        data, more = known(saved.recipe), [str(corpus.locate(str(file), None).resolve()) for file in files]
        data = data.model_copy(update={"extra": tuple(dict.fromkeys((*data.extra, *more)))})
        recipe = saved.recipe.model_copy(update={"data": data})
        material = gather(recipe, (member.source, member.target))
        warn_of(overlaps(recipe, material.corpus, material.valid))
        say(f"reading {material.filtered}")
        found = _read(member.model, material.train, machine, member.stamp)
        found.write(folder, more)
    size = (folder / FILE).stat().st_size / 1e6
    if not recipe.search.examples:
        say(f"warning: {folder}: its recipe has search.examples=0: it looks at them only with another share in --set")
    say(f"{folder / FILE}: {len(found):,} pairs, {len(found.pieces):,} places in their targets, {size:,.0f} MB")
    return found


def _read(model: Seq2Seq, train: TrainingSet, machine: hardware.Hardware, stamp: str) -> Examples:
    """What the model makes of all pairs, batch by batch."""
    plan = Batches(train.source_lengths, train.target_lengths, BATCH).plan(0)  # in random order
    first = _first(model, train, plan, machine)
    compressed = Compressed(torch.cat(list(first)))
    parts: list[tuple[Tensor, ...]] = []
    with Bar("reading", len(plan)) as bar:
        for number, rows in enumerate(plan, start=1):
            batch = train.batch(rows)
            keys = compressed(first.popleft() if first else _features(model, batch, machine))
            source = torch.arange(batch.source.size(1)) < batch.source_lengths.unsqueeze(1) - 1  # without <eos>
            target = batch.target_out != PAD
            pieces, sources = batch.target_out[target].int(), batch.source[source].int()
            parts.append((keys, pieces, target.sum(1).int(), sources, source.sum(1).int()))
            bar.update(number)
    keys, pieces, sizes, sources, source_sizes = (torch.cat(part) for part in zip(*parts, strict=True))
    return Examples(
        keys,
        pieces,
        sizes,
        sources,
        source_sizes,
        compressed.basis,
        compressed.step,
        compressed.variance,
        stamped(stamp),
    )


def _first(model: Seq2Seq, train: TrainingSet, plan: Sequence[Array], machine: hardware.Hardware) -> deque[Tensor]:
    """The features (P, E) of each of the first batches, a sample."""
    found: deque[Tensor] = deque()
    for rows in plan:
        found.append(_features(model, train.batch(rows), machine))
        if sum(map(len, found)) >= SAMPLE:
            break
    return found


def _features(model: Seq2Seq, batch: Batch, machine: hardware.Hardware) -> Tensor:
    """What the output layer takes at each real position of the targets, (P, E)."""
    with machine.autocast():
        features = model.features(batch.to(machine.device)).float().cpu()
    return features[batch.target_out != PAD]
