"""Progress for people: bars and lines on standard error, so that standard output stays clean for results.

On a terminal long work shows a bar; in a file or a pipe, a plain line at most every half minute. Of several processes
that train together, the first one speaks.
"""

from __future__ import annotations

import contextlib
import os
import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

INTERVAL = 30.0  # seconds between plain lines
LONGEST = 300  # letters shown of a side of a pair


class _Patient(Console):
    """A console whose reader may go, and whose disk may be full: then less is said, and the work goes on."""

    def print(self, *objects: Any, **options: Any) -> None:
        with contextlib.suppress(OSError):
            super().print(*objects, **options)

    def on_broken_pipe(self) -> None:
        self.quiet = True


def console() -> Console:
    """A console on the standard error of this moment, where it has one."""
    silent = int(os.environ.get("WORLD_SIZE") or 1) > 1 and os.environ.get("RANK") != "0"
    # without emoji `:dog:` in a text stays
    return _Patient(stderr=True, highlight=False, soft_wrap=True, emoji=False, quiet=silent)


def say(message: str) -> None:
    """One plain line; markup in it is text."""
    console().print(message, markup=False)


def shown(source: str, target: str) -> str:
    """A pair as an example, in a line."""
    return " → ".join(f"{text[:LONGEST]}{'...' * (len(text) > LONGEST)}" for text in (source, target))


class Bar:
    """A progress bar over a known amount of work, with a line of figures beside it."""

    def __init__(self, label: str, total: float) -> None:
        self.label, self.total = label, total
        self.console = console()
        self.spoken = time.monotonic()
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.progress.add_task(label, total=total, figures="")

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def update(self, done: float, figures: str = "") -> None:
        """`done` of the total is done."""
        self.progress.update(self.task, completed=done, figures=figures)
        now = time.monotonic()
        if not self.console.is_terminal and now - self.spoken >= INTERVAL:
            self.spoken = now
            left = _left(self.progress.tasks[0].time_remaining)
            self.say(f"{self.label} {done / self.total:.0%}{left} {figures}".rstrip())

    def say(self, message: str) -> None:
        """A line above the bar."""
        self.progress.console.print(message, markup=False)


def _left(seconds: float | None) -> str:
    if not seconds:
        return ""
    return f", {seconds / 60:.0f} min left" if seconds > 90 else f", {seconds:.0f} s left"
