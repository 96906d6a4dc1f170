"""What a training run is given by its task: everything that `run` does not do for all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic

from torch import nn

from nmt.loss import Loss
from nmt.trainer import B, Carried, Stream, Validate


@dataclass(frozen=True)
class Job(Generic[B]):
    """A model and what trains it."""

    model: nn.Module
    stream: Stream[B | None]
    loss: Callable[[B, float], Loss]  # of a batch, at a progress of 0 to 1
    validate: Validate
    info: Mapping[str, Any]  # what model.json says of it, `parameters` and `data` among it
    files: Mapping[str, bytes]  # what the model needs beside its weights, tokenizers for instance
    said: str  # of the data, in a line
    carried: Carried | None = None
