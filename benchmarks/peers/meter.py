"""What every system under measurement tells: updates as they happen, a line of JSON at the end. Python alone."""

from __future__ import annotations

import contextlib
import json
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

WARM = 5  # updates that are not counted: memory is mapped and kernels are made in them


class Meter:
    """Counts target tokens (the end of the sentence among them, padding not) until so many updates are done."""

    def __init__(self, updates: int, warm: int = WARM) -> None:
        self.updates, self.warm, self.done, self.before = updates, warm, 0, 0
        self.began = time.perf_counter()
        self.first = 0.0

    def tick(self, total: int) -> None:
        """An update is done, and so many tokens in all. Leaves the process after the last one."""
        self.done += 1
        if self.done == 1:
            self.first = time.time()
        if self.done == self.warm:
            self.began, self.before = time.perf_counter(), total
        if self.done == self.warm + self.updates:
            self.tell(total - self.before)

    def tell(self, tokens: int) -> NoReturn:
        seconds = time.perf_counter() - self.began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"tokens/s": tokens / seconds, "MB": peak, "first update": self.first}), flush=True)
        raise SystemExit


def tell_decoding(decode: Callable[[], Sequence[Sequence[str]]], out: Path) -> None:
    """Translate a test set once, and tell how fast; the pieces of each translation go to a file, a line each."""
    began = time.perf_counter()
    found = decode()
    seconds = time.perf_counter() - began
    out.write_text("".join(" ".join(pieces) + "\n" for pieces in found), encoding="utf-8")
    pieces = sum(len(one) + 1 for one in found)  # with the end of each
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {"tokens/s": pieces / seconds, "sentences/s": len(found) / seconds, "pieces": pieces / len(found)}
    print(json.dumps(figures | {"MB": peak, "file": str(out)}), flush=True)


class _EnoughError(Exception):
    pass


def train_until(updates: int, train: Callable[[Callable[..., None]], None], save: Callable[..., None]) -> None:
    """Train, and after so many updates save and leave; `train` calls what it is given after each, as `save` is."""
    done = 0

    def tick(*told: object) -> None:
        nonlocal done
        done += 1
        if done == updates:
            save(*told)
            raise _EnoughError

    with contextlib.suppress(_EnoughError):
        train(tick)
