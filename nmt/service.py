"""One translator for many who ask at once: what waits is translated together.

A single thread translates. While it works, questions gather; the next batch is the oldest of them and all others that
the same call can answer, so sixteen visitors cost little more than one. No more than `room` questions wait: beyond
that one is refused at once, with a clear "busy".
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch

from nmt.errors import NmtError
from nmt.recipe import Search
from nmt.translate import Alternative, Scored, Translation, Translator


class BusyError(NmtError):
    """Too much is waiting already."""


class _Kind(Protocol):
    """A kind of question; those of equal kinds are answered in one call."""

    def answer(self, translator: Translator, asked: Sequence[tuple[str, Any]]) -> Sequence[Any]: ...


@dataclass(frozen=True)
class _Translate:
    nbest: int
    attention: bool
    settings: Search | None

    def answer(self, translator: Translator, asked: Sequence[tuple[str, str]]) -> Sequence[Translation]:
        lines, prefixes = ([pair[side] for pair in asked] for side in (0, 1))
        return translator.translate(lines, self.nbest, prefixes, self.attention, self.settings)


@dataclass(frozen=True)
class _Score:
    def answer(self, translator: Translator, asked: Sequence[tuple[str, str]]) -> Sequence[Scored]:
        return translator.score([source for source, _ in asked], [target for _, target in asked])


@dataclass(frozen=True)
class _Alternatives:
    count: int

    def answer(self, translator: Translator, asked: Sequence[tuple[str, Sequence[str]]]) -> Sequence[list[Alternative]]:
        return [translator.alternatives(line, pieces, self.count) for line, pieces in asked]


@dataclass(frozen=True)
class _Question:
    kind: _Kind
    asked: tuple[str, Any]
    reply: Future[Any]


class Service:
    """A queue in front of a translator. Close it, or use it in a `with`."""

    def __init__(self, translator: Translator, room: int = 1000, batch: int = 64) -> None:
        """`room`: sentences that may wait. `batch`: sentences translated together."""
        self.translator = translator
        self.room, self.batch = room, batch
        self._waiting: deque[_Question] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="nmt-service", daemon=True)
        self._thread.start()

    def translate(
        self,
        lines: Sequence[str],
        nbest: int = 1,
        prefixes: Sequence[str] | None = None,
        attention: bool = False,
        settings: Search | None = None,
    ) -> list[Future[Translation]]:
        """What `Translator.translate` will give for each line.

        Raises BusyError; ValueError for prefixes of another number.
        """
        pairs = zip(lines, prefixes if prefixes is not None else [""] * len(lines), strict=True)
        return self._ask(_Translate(nbest, attention, settings), list(pairs))

    def score(self, sources: Sequence[str], targets: Sequence[str]) -> list[Future[Scored]]:
        """What `Translator.score` will give for each pair. Raises BusyError."""
        return self._ask(_Score(), list(zip(sources, targets, strict=True)))

    def alternatives(self, line: str, pieces: Sequence[str], count: int = 8) -> Future[list[Alternative]]:
        """What `Translator.alternatives` will give. Raises BusyError."""
        return self._ask(_Alternatives(count), [(line, pieces)])[0]

    def _ask(self, kind: _Kind, asked: Sequence[tuple[str, Any]]) -> list[Future[Any]]:
        questions = [_Question(kind, one, Future()) for one in asked]
        with self._changed:
            if self._closed:
                raise BusyError("the translator is closed")
            if len(self._waiting) + len(questions) > self.room:
                raise BusyError(
                    f"busy: {len(self._waiting)} sentences are waiting, there is room for {self.room}: "
                    f"try again in a moment, or send less at once"
                )
            self._waiting.extend(questions)
            self._changed.notify()
        return [question.reply for question in questions]

    def _work(self) -> None:
        # a thread keeps the number it has when it first asks: not that of a moment in which another model shares them
        torch.get_num_threads()
        while questions := self._next():
            self._answer([question for question in questions if question.reply.set_running_or_notify_cancel()])

    def _answer(self, questions: Sequence[_Question]) -> None:
        try:
            replies = questions[0].kind.answer(self.translator, [one.asked for one in questions]) if questions else []
        except BaseException as error:  # the thread must live on
            if len(questions) == 1:
                questions[0].reply.set_exception(error)
            else:  # one of them cannot be answered, and the others should not learn why
                for question in questions:
                    self._answer([question])
            return
        for question, reply in zip(questions, replies, strict=True):
            question.reply.set_result(reply)

    def _next(self) -> list[_Question]:
        """The oldest question and those that can be answered with it; none once it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return []
            kind = self._waiting[0].kind
            chosen = [one for one in self._waiting if one.kind == kind][: self.batch]
            taken = set(map(id, chosen))
            self._waiting = deque(one for one in self._waiting if id(one) not in taken)
            return chosen

    def close(self) -> None:
        """Stop after the batch under way; what still waits is refused."""
        with self._changed:
            self._closed = True
            left, self._waiting = self._waiting, deque()
            self._changed.notify()
        for question in left:
            if question.reply.set_running_or_notify_cancel():
                question.reply.set_exception(BusyError("the translator was closed"))
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
