"""Training as `nmt train` does it, an update at a time, for the benchmarks that measure it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nmt import hardware, translation
from nmt.data import Batch
from nmt.recipe import Recipe
from nmt.trainer import Trainer


@contextmanager
def training(spec: Recipe, threads: int) -> Iterator[Trainer[Batch]]:
    """A trainer of a fresh model, on the CPU; nothing of it is kept."""
    machine = hardware.choose("cpu", spec.training.precision, threads)
    job = translation.job(spec, machine, None)
    with tempfile.TemporaryDirectory() as scratch:
        yield Trainer(
            job.model, job.loss, job.stream, job.validate, lambda _: None, spec.training, machine, Path(scratch)
        )
