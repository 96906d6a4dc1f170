"""Many ask at once: everybody gets what they would have got alone, and what waits is answered together."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import torch
from toy import Toy, pairs, until

from nmt.errors import CallError, NmtError
from nmt.service import BusyError, Service
from nmt.translate import Translation, Translator

LINES = [source for source, _ in pairs(40, seed=6)]


@pytest.fixture(scope="module")
def translator(toy: Toy) -> Translator:
    return Translator.load(toy.attention, threads=1)


@pytest.fixture
def service(translator: Translator) -> Iterator[Service]:
    with Service(translator, room=100, batch=16) as service:
        yield service


class Slow:
    """A translator that waits to be told, and remembers what came together."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.calls: list[tuple[list[str], int]] = []

    def translate(self, lines: Sequence[str], nbest: int, *others: Any) -> list[Translation]:
        assert self.go.wait(30)
        self.calls.append((list(lines), nbest))
        if "bad" in lines:
            raise CallError("bad line")
        if "worse" in lines:
            raise RuntimeError("a bug")
        return [Translation(line.upper(), 0.0, [], [], []) for line in lines]


def under_way(service: Service) -> Future[Translation]:
    """The translation of "a", which a slow translator has begun, so that what comes now waits."""
    reply = service.translate(["a"])[0]
    until(lambda: not service._waiting)
    return reply


def test_sixteen_who_ask_at_once_get_what_each_would_get_alone(service: Service, translator: Translator) -> None:
    alone = [one.text for one in translator.translate(LINES)]
    with ThreadPoolExecutor(16) as visitors:
        found = list(visitors.map(lambda line: service.translate([line])[0].result(60).text, LINES))
    assert found == alone


def test_all_that_a_translator_answers(service: Service, translator: Translator) -> None:
    line, text = LINES[0], translator.translate(LINES[:1])[0].text
    one = service.translate([line], nbest=3, attention=True)[0].result(60)
    assert one.text == text
    assert len(one.alternatives) == 2
    assert one.attention is not None
    greedy = translator.settings.model_copy(update={"method": "greedy"})
    assert service.translate([line], settings=greedy)[0].result(60).alternatives == []
    assert service.score([line], [text])[0].result(60) == translator.score([line], [text])[0]
    others = service.alternatives(line, one.tokens[:1], 3).result(60)
    assert [(other.piece, other.probability) for other in others] == [
        (other.piece, other.probability) for other in translator.alternatives(line, one.tokens[:1], 3)
    ]
    prefix = text.split()[0]
    assert service.translate([line], prefixes=[prefix])[0].result(60).text.startswith(prefix)


def test_it_computes_with_the_threads_that_there_were_when_it_began() -> None:
    class Counting:
        def translate(self, lines: Sequence[str], *others: Any) -> list[Translation]:
            return [Translation(str(torch.get_num_threads()), 0.0, [], [], []) for _ in lines]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with Service(Counting()) as service:  # type: ignore[arg-type]
            until(lambda: bool(service._changed._waiters))  # type: ignore[attr-defined]
            torch.set_num_threads(1)  # as while another model shares out the cores
            assert service.translate(["a"])[0].result(30).text == "3"
    finally:
        torch.set_num_threads(before)


def test_what_waits_is_answered_together_the_oldest_first() -> None:
    slow = Slow()
    with Service(slow, batch=3) as service:  # type: ignore[arg-type]
        first = under_way(service)
        rest = [
            service.translate([line], nbest)[0] for line, nbest in [("b", 1), ("c", 2), ("d", 1), ("e", 1), ("f", 1)]
        ]
        slow.go.set()
        assert [one.result(30).text for one in [first, *rest]] == ["A", "B", "C", "D", "E", "F"]
    assert slow.calls == [(["a"], 1), (["b", "d", "e"], 1), (["c"], 2), (["f"], 1)]


def test_an_error_is_told_to_those_who_asked_and_the_work_goes_on() -> None:
    slow = Slow()
    slow.go.set()
    with Service(slow) as service:  # type: ignore[arg-type]
        with pytest.raises(CallError, match="bad line"):
            service.translate(["bad"])[0].result(30)
        assert service.translate(["good"])[0].result(30).text == "GOOD"


@pytest.mark.parametrize(("line", "kind"), [("bad", CallError), ("worse", RuntimeError)])
def test_an_error_is_told_to_nobody_else_whose_question_was_taken_with_it(line: str, kind: type[Exception]) -> None:
    slow = Slow()
    with Service(slow) as service:  # type: ignore[arg-type]
        first = under_way(service)
        good, bad, other = (service.translate([one])[0] for one in ("good", line, "other"))
        slow.go.set()
        assert [one.result(30).text for one in (first, good, other)] == ["A", "GOOD", "OTHER"]
        with pytest.raises(kind):
            bad.result(30)


def test_what_is_called_off_is_not_translated() -> None:
    slow = Slow()
    with Service(slow) as service:  # type: ignore[arg-type]
        first = under_way(service)
        second, third = service.translate(["b", "c"])
        assert second.cancel()
        slow.go.set()
        assert [first.result(30).text, third.result(30).text] == ["A", "C"]
    assert slow.calls == [(["a"], 1), (["c"], 1)]


def test_too_much_at_once_is_refused_and_nothing_of_it_waits() -> None:
    slow = Slow()
    with Service(slow, room=3) as service:  # type: ignore[arg-type]
        under_way(service)
        service.translate(["b", "c"])
        with pytest.raises(BusyError, match="busy: 2 sentences are waiting, there is room for 3"):
            service.translate(["d", "e"])
        waiting = service.translate(["f"])[0]
        closing = threading.Thread(target=service.close)
        closing.start()
        until(lambda: service._closed)
        slow.go.set()
        closing.join(30)
    with pytest.raises(NmtError, match="closed"):
        waiting.result(30)
    with pytest.raises(BusyError, match="closed"):
        service.translate(["g"])
