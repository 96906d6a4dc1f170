"""An exported translator (`nmt export`), computed by onnxruntime instead of torch: the same translations, sooner.

In int8 a sentence takes less than half the time, the folder a third of the space. `nmt.export` has the graphs.

Letters: B sources, N = B·K rows, S source length, T target length, M memory width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nmt import lexicon
from nmt.checkpoint import read_tensors
from nmt.data import Batch
from nmt.errors import CallError, CheckpointError
from nmt.stepper import Place
from nmt.tokenizer import PAD

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

ENCODER, DECODER, GREEDY, SHARED = "encoder.onnx", "decoder.onnx", "greedy.onnx", "decoder.weights"
SHORTLIST = "shortlist.safetensors"
MISSING = "needs onnx and onnxruntime: pip install 'recurrent-nmt[onnx]'"


@dataclass(frozen=True, kw_only=True)
class Listed(Place):
    """A place of a search that may write some pieces only: which, and their output layer as the graphs want it."""

    pieces: Tensor  # (L,)
    output: Mapping[str, Any]


class Shortlist:
    """The output layer of an exported folder, of which each search takes a part.

    `wanted` are the inputs of its decoder. Raises CheckpointError for a file that is not what they need.
    """

    def __init__(self, file: Path, wanted: Sequence[str]) -> None:
        tensors = read_tensors(file)
        if tensors.keys() != {"likely", "common", *({"weights", "scales", "bias"} & set(wanted))}:
            raise CheckpointError(f"{file}: not of this folder: export the run again with `nmt export`")
        self.likely, self.common = (tensors.pop(name).numpy() for name in ("likely", "common"))
        self.weights = tensors.pop("weights")  # (V, E)
        self.rows = tensors  # (V,) each

    def pieces(self, sources: Iterable[Sequence[int]], also: Iterable[Sequence[int]]) -> Tensor:
        """Those (L,) that translations of these sources may have, and some more; the special ones are the first."""
        chosen = lexicon.shortlist(self.likely, self.common, sources)
        return torch.from_numpy(np.unique(np.concatenate([chosen, *(np.array(one, np.int64) for one in also)])))

    @cached_property
    def everything(self) -> Tensor:
        return torch.arange(len(self.weights))

    def part(self, pieces: Tensor) -> dict[str, Any]:
        """The output layer for these pieces alone."""
        parts = {"weights": self.weights[pieces].t().contiguous()}
        parts |= {name: rows[pieces] for name, rows in self.rows.items()}
        return {name: part.numpy() for name, part in parts.items()}

    @cached_property
    def whole(self) -> dict[str, Any]:
        return self.part(self.everything)


class Portable:
    """The graphs of an exported folder as an `Engine`. Raises CheckpointError where they cannot be opened, CallError
    without onnxruntime.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        if (folder / SHARED).is_symlink():  # as in the folders of a cache
            raise CheckpointError(
                f"{folder / SHARED} is a symbolic link, which onnxruntime does not follow: copy the folder by cp -rL"
            )
        self.encoder, self.decoder, self.loop = (_open(folder / name) for name in (ENCODER, DECODER, GREEDY))
        self.workers = threads  # an operation of a step is too short to share: the batches are shared out
        self.given = [one.name for one in self.encoder.get_outputs()]
        self.wanted = [one.name for one in self.decoder.get_inputs()]
        self.shortlist = Shortlist(folder / SHORTLIST, self.wanted) if "weights" in self.wanted else None

    def start(self, source: Tensor, lengths: Tensor, pieces: Tensor | None = None) -> Place:
        """With a shortlist `pieces` (L,) are what may be written, and the step's pieces are places in it."""
        found = self.encoder.run(None, {"source": source.numpy(), "lengths": lengths.numpy()})
        of = {name: torch.from_numpy(value) for name, value in zip(self.given, found, strict=True)}
        nothing = torch.empty(len(source), 0)
        padding = torch.zeros(source.shape).masked_fill(source == PAD, -torch.inf).unsqueeze(1)  # (B, 1, S)
        fixed = (of.get("memory", nothing), padding, of.get("keys", nothing), None, of.get("summary"))
        if self.shortlist is None:
            return Place(*fixed, of["parts"])
        output = self.shortlist.whole if pieces is None else self.shortlist.part(pieces)
        return Listed(
            *fixed, of["parts"], pieces=self.shortlist.everything if pieces is None else pieces, output=output
        )

    def __call__(self, tokens: Tensor, state: Place) -> tuple[Tensor, Place]:
        pieces = state.pieces[tokens] if isinstance(state, Listed) else tokens
        feed = {"tokens": pieces.numpy(), "parts": state.parts.numpy()} | self._fixed(state)
        log_probs, parts, *rest = map(torch.from_numpy, self.decoder.run(None, feed))
        return log_probs, replace(state, parts=parts, attention=rest[0] if rest else None)

    def greedy(self, begin: int, state: Place, longest: int, shortest: int) -> tuple[list[int], list[float]]:
        """The whole of a greedy search for one source: its pieces, the end last if it came, and their log p."""
        feed = {"begin": np.array([begin]), "start": state.parts.numpy()} | self._fixed(state)
        feed |= {"steps": np.array(longest), "shortest": np.array(shortest)}
        if isinstance(state, Listed):
            feed["pieces"] = state.pieces.numpy()
        places, log_probs = self.loop.run(None, feed)
        return places[:, 0].tolist(), log_probs[:, 0].tolist()

    def _fixed(self, state: Place) -> dict[str, Any]:
        """What a step is given of its sources."""
        fixed = {"memory": state.memory, "keys": state.keys, "padding": state.mask, "summary": state.summary}
        given = {name: value.numpy() for name, value in fixed.items() if name in self.wanted and value is not None}
        return given | (dict(state.output) if isinstance(state, Listed) else {})

    def log_probs(self, batch: Batch) -> Tensor:
        state = self.start(batch.source, batch.source_lengths)
        found = []
        for read, written in zip(batch.target_in.unbind(1), batch.target_out.unbind(1), strict=True):
            log_probs, state = self(read.contiguous(), state)
            found.append(log_probs.gather(1, written.unsqueeze(1)).masked_fill(written.unsqueeze(1) == PAD, 0.0))
        return torch.cat(found, dim=1)  # (B, T)


def _open(path: Path) -> InferenceSession:
    try:
        import onnxruntime
    except ImportError:
        raise CallError(f"{path.parent} is an exported translator, which {MISSING}") from None
    if not path.is_file():
        raise CheckpointError(f"{path}: missing: export the run again with `nmt export`")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # they keep memory for each shape, for nothing
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds have no common name
        reason = str(error).splitlines()[0][:200]
        raise CheckpointError(f"{path}: onnxruntime cannot open it ({reason}): export the run again") from None
