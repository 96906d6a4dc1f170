"""The training loop over a toy model: what an update is, and stopping anywhere without a trace."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from nmt import checkpoint, trainer
from nmt.errors import CheckpointError, StoppedError, TrainingError
from nmt.group import Group
from nmt.hardware import Hardware
from nmt.loss import Loss, cross_entropy
from nmt.recipe import Training, TranslationTraining
from nmt.trainer import Trainer, learning_rate, optimizer
from nmt.translation import forcing

V, D = 7, 5
CPU = Hardware(torch.device("cpu"), "float32", 1)

Batch = tuple[Tensor, Tensor]


class Toy(nn.Module):
    """Says which piece comes next from the one before."""

    def __init__(self, dropout: float = 0.0, seed: int = 1) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(V, D)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(D, V)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.dropout(self.embedding(x)))  # type: ignore[no-any-return]


class Stream:
    """Batches of unequal sizes that depend on the epoch and the number alone."""

    def __init__(self, count: int = 7) -> None:
        self.count = count

    def batches(self, epoch: int) -> int:
        return self.count

    def fetch(self, epoch: int, number: int) -> Batch:
        draw = torch.Generator().manual_seed(1000 * epoch + number)
        x = torch.randint(V, (2 + int(torch.randint(6, (1,), generator=draw)),), generator=draw)
        return x, (x * 3 + 1) % V


VALID = (torch.arange(V), (torch.arange(V) * 3 + 1) % V)


class Bench:
    """A trainer over the toy, with everything that happens written down."""

    def __init__(
        self,
        folder: Path,
        stream: Stream | None = None,
        dropout: float = 0.0,
        seed: int = 1,
        scores: Iterator[float] | None = None,
        before_loss: Callable[[int], None] = lambda call: None,
        spoil: Callable[[int, Loss], Loss] = lambda call, loss: loss,
        **settings: Any,
    ) -> None:
        defaults = {"epochs": 3, "warmup": 3, "learning_rate": 0.05, "ema": 0.9, "metric": "perplexity", "clip": 1.0}
        self.settings = Training(**(defaults | settings))
        self.folder = folder
        self.model = Toy(dropout, seed)
        self.scores = scores
        self.before_loss, self.spoil = before_loss, spoil
        self.events: list[str] = []
        self.weights: list[dict[str, Tensor]] = []  # at each call of the loss
        self.rates: list[float] = []
        self.progress: list[float] = []
        self.gradients: list[Tensor] = []  # at each step of the optimiser
        self.improvements: list[Mapping[str, Any]] = []
        torch.manual_seed(5)
        self.trainer = Trainer(
            self.model,
            self.loss,
            stream or Stream(),
            self.validate,
            self.improvements.append,
            self.settings,
            CPU,
            folder,
        )
        step = self.trainer.optimizer.step

        def watched(*arguments: Any, **named: Any) -> Any:
            grads = [weight.grad for weight in self.model.parameters() if weight.grad is not None]
            self.gradients.append(torch.cat([grad.flatten().clone() for grad in grads]))
            return step(*arguments, **named)

        self.trainer.optimizer.step = watched  # type: ignore[method-assign]

    def loss(self, batch: Batch, progress: float) -> Loss:
        call = len(self.rates)
        self.events.append("loss")
        self.weights.append(self.now())
        self.rates.append(self.trainer.optimizer.param_groups[0]["lr"])
        self.progress.append(progress)
        self.before_loss(call)
        assert self.model.training
        return self.spoil(call, cross_entropy(self.model(batch[0]), batch[1], 0.1))

    def validate(self, quick: bool) -> dict[str, Any]:
        self.events.append("quick" if quick else "validate")
        assert not self.model.training
        with torch.no_grad():
            loss = float(cross_entropy(self.model(VALID[0]), VALID[1]).nll) / V
        score = loss if self.scores is None or quick else next(self.scores)
        return {"loss": loss, "perplexity": score, "bleu": score}

    def now(self) -> dict[str, Tensor]:
        return {name: weight.clone() for name, weight in checkpoint.parameters(self.model).items()}

    def go_on(self) -> Bench:
        """Resume from what is in the folder."""
        state = checkpoint.read_state(self.folder)
        assert state is not None
        self.trainer.resume(state)
        return self

    def run(self) -> Bench:
        self.trainer.run()
        return self

    def best(self) -> dict[str, Tensor]:
        return load_file(self.folder / checkpoint.WEIGHTS)

    def rows(self, *kinds: str) -> list[dict[str, Any]]:
        """metrics.jsonl without what depends on the clock."""
        lines = (self.folder / checkpoint.METRICS).read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        clock = ("minutes", "tokens_per_second")
        return [{k: v for k, v in row.items() if k not in clock} for row in rows if not kinds or row["kind"] in kinds]


def identical(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def same_run(one: Bench, other: Bench) -> None:
    """Weights, averages, the best so far, the optimiser, the reports: bit for bit the same."""
    assert identical(one.now(), other.now())
    assert identical(one.trainer.average, other.trainer.average)
    assert identical(one.best(), other.best())
    assert one.rows() == other.rows()
    states = [bench.trainer.optimizer.state_dict()["state"] for bench in (one, other)]
    for mine, theirs in zip(states[0].values(), states[1].values(), strict=True):
        assert identical(mine, theirs)
    positions = [dict(vars(bench.trainer.position), seconds=0) for bench in (one, other)]
    assert positions[0] == positions[1]


@pytest.fixture(autouse=True)
def _report_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "REPORT_EVERY", 3)


# -- schedules


def settings_with(**values: Any) -> Training:
    return Training(**({"learning_rate": 0.8, "warmup": 10} | values))


@pytest.mark.parametrize("schedule", ["cosine", "inverse_sqrt", "plateau", "constant"])
@pytest.mark.parametrize("warmup", [0, 1, 10])
def test_warm_up_is_linear(schedule: str, warmup: int) -> None:
    settings = settings_with(schedule=schedule, warmup=warmup)
    rates = [learning_rate(settings, updates, 0.0) for updates in range(warmup or 1)]
    assert rates == pytest.approx([0.8 * (at + 1) / (warmup or 1) for at in range(warmup or 1)])


def test_cosine_falls_from_the_peak_to_0() -> None:
    rates = [learning_rate(settings_with(), 500, at / 20) for at in range(21)]
    assert rates == sorted(rates, reverse=True)
    assert [rates[0], rates[10], rates[20]] == pytest.approx([0.8, 0.4, 0.0])
    assert learning_rate(settings_with(), 500, 1.5) == pytest.approx(0.0)


def test_inverse_sqrt_halves_when_updates_grow_four_times() -> None:
    settings = settings_with(schedule="inverse_sqrt")
    rates = [learning_rate(settings, 10 * times - 1, 0.5) for times in (1, 4, 16)]
    assert rates == pytest.approx([0.8, 0.4, 0.2])
    assert learning_rate(settings_with(schedule="inverse_sqrt", warmup=0), 99, 0.5) == pytest.approx(0.08)


@pytest.mark.parametrize("schedule", ["plateau", "constant"])
def test_constant_by_itself(schedule: str) -> None:
    assert {learning_rate(settings_with(schedule=schedule), n, n / 100) for n in range(10, 100)} == {0.8}


@pytest.mark.parametrize("schedule", ["cosine", "inverse_sqrt", "constant"])
def test_the_schedule_is_followed(schedule: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path, schedule=schedule).run()
    assert bench.progress == pytest.approx([at / 21 for at in range(21)])
    expected = [learning_rate(bench.settings, at, progress) for at, progress in enumerate(bench.progress)]
    assert bench.rates == pytest.approx(expected)


def test_plateau_halves_when_a_validation_is_not_the_best(tmp_path: Path) -> None:
    scores = iter([5.0, 4.0, 4.1, 4.5, 3.0])
    bench = Bench(tmp_path, Stream(2), scores=scores, epochs=5, schedule="plateau", warmup=0).run()
    assert bench.rates == pytest.approx([0.05 * factor for factor in (1, 1, 1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25)])


@pytest.mark.parametrize("last", [0.0, 0.4, 1.0])
def test_forcing(last: float) -> None:
    def at(schedule: str, progress: float) -> float:
        return forcing(TranslationTraining(teacher_forcing=last, teacher_forcing_schedule=schedule), progress)  # type: ignore[arg-type]

    steps = [at / 10 for at in range(11)]
    assert [at("constant", progress) for progress in steps] == [last] * 11
    assert [at("linear", progress) for progress in steps] == pytest.approx([1 - (1 - last) * p for p in steps])
    sigmoid = [at("inverse_sigmoid", progress) for progress in steps]
    assert sigmoid == sorted(sigmoid, reverse=True)
    assert [sigmoid[0], sigmoid[5], sigmoid[-1]] == pytest.approx([1, (1 + last) / 2, last], abs=0.01)


# -- one update


class Gathered(Stream):
    """The batches of another stream, so many at a time as one."""

    def __init__(self, stream: Stream, together: int) -> None:
        super().__init__(-(-stream.count // together))
        self.stream, self.together = stream, together

    def fetch(self, epoch: int, number: int) -> Batch:
        first = number * self.together
        group = range(first, min(first + self.together, self.stream.count))
        parts = [self.stream.fetch(epoch, at) for at in group]
        return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


@pytest.mark.parametrize("together", [2, 3, 7, 10])
def test_accumulated_batches_equal_a_big_one(together: int, tmp_path: Path) -> None:
    constant = {"schedule": "constant", "clip": 0.2}
    small = Bench(tmp_path / "small", Stream(7), accumulate=together, **constant)
    big = Bench(tmp_path / "big", Gathered(Stream(7), together), **constant)
    for bench in (small, big):
        bench.folder.mkdir()
        bench.run()
    assert len(small.gradients) == len(big.gradients) == 3 * -(-7 // together)
    for one, other in zip(small.gradients, big.gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    for name, weight in small.now().items():
        torch.testing.assert_close(weight, big.now()[name], rtol=1e-3, atol=1e-4)
    assert small.trainer.position.tokens == big.trainer.position.tokens
    for one_row, other_row in zip(small.rows("train"), big.rows("train"), strict=True):
        assert one_row["loss"] == pytest.approx(other_row["loss"], rel=1e-4)


def test_the_gradient_is_that_of_the_mean_over_tokens(tmp_path: Path) -> None:
    bench = Bench(tmp_path, clip=1e9, epochs=1).run()
    model, stream = Toy(), Stream()
    for number, gradient in enumerate(bench.gradients):
        x, y = stream.fetch(0, number)
        model.load_state_dict(bench.weights[number])
        mean = nn.functional.cross_entropy(model(x), y, label_smoothing=0.1)
        expected = torch.cat([grad.flatten() for grad in torch.autograd.grad(mean, list(model.parameters()))])
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("clip", [0.05, 0.5, 1e9])
def test_the_gradient_is_clipped_by_norm(clip: float, tmp_path: Path) -> None:
    free, bench = (Bench(tmp_path, clip=limit, epochs=1, learning_rate=1e-9).run() for limit in (1e9, clip))
    for raw, gradient in zip(free.gradients, bench.gradients, strict=True):
        expected = raw * min(1.0, clip / float(raw.norm()))
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("ema", [0.0, 0.5, 0.9])
def test_averaged_weights_equal_the_formula(ema: float, tmp_path: Path) -> None:
    seen: list[dict[str, Tensor]] = []
    bench = Bench(tmp_path, ema=ema)
    validate = bench.trainer.validate

    def watched(quick: bool) -> Mapping[str, Any]:
        seen.append(bench.now())
        return validate(quick)

    bench.trainer.validate = watched
    bench.run()
    own = [*bench.weights, bench.now()]  # own[n] is after n updates
    average = own[0]
    expected = [average]
    for n in range(21):
        decay = min(ema, (1 + n) / (10 + n)) if ema else 0.0
        average = {name: decay * average[name] + (1 - decay) * own[n + 1][name] for name in average}
        if n % 7 == 6:
            expected.append(average)
    for validated, formula in zip(seen, expected, strict=True):
        for name, weight in validated.items():
            torch.testing.assert_close(weight, formula[name], rtol=1e-4, atol=1e-6)


def test_training_goes_on_from_its_own_weights_after_a_validation(tmp_path: Path) -> None:
    often, never = Bench(tmp_path, validate_every=1), Bench(tmp_path)
    assert identical(often.run().now(), never.run().now())


def test_only_matrices_decay() -> None:
    model = Toy()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    adam = optimizer(model, Training(weight_decay=0.5, learning_rate=0.1))
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    adam.step()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.detach(), before[name].detach() * (0.95 if weight.dim() > 1 else 1.0))


def test_the_toy_is_learnt(tmp_path: Path) -> None:
    bench = Bench(tmp_path, epochs=20, dropout=0.1).run()
    losses = [row["loss"] for row in bench.rows("valid")]
    assert losses[-1] < 0.2 * losses[0]


# -- validation


def test_a_quick_validation_comes_before_the_first_update(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Stream(2), epochs=2).run()
    assert bench.events == ["quick", "loss", "loss", "validate", "loss", "loss", "validate"]


def test_a_validation_that_fails_fails_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path)

    def broken(quick: bool) -> Mapping[str, Any]:
        raise RuntimeError("no such metric")

    bench.trainer.validate = broken
    with pytest.raises(RuntimeError, match="no such metric"):
        bench.run()
    assert bench.events == []
    assert bench.model.training


@pytest.mark.parametrize(
    ("every", "expected"), [(None, [7, 14, 21]), (5, [5, 10, 15, 20, 21]), (7, [7, 14, 21]), (50, [21])]
)
def test_when_it_validates(every: int | None, expected: list[int], tmp_path: Path) -> None:
    bench = Bench(tmp_path, validate_every=every).run()
    rows = bench.rows("valid")
    assert [row["step"] for row in rows] == expected
    assert [row["epoch"] for row in rows] == pytest.approx([step / 7 for step in expected])


@pytest.mark.parametrize(
    ("metric", "scores", "bests"),
    [
        ("bleu", [1.0, 3.0, 2.0, 2.9, 4.0], [0, 1, 4]),
        ("perplexity", [9.0, 7.0, 8.0, 7.1, 6.5], [0, 1, 4]),
        ("perplexity", [9.0, math.nan, 8.0, math.nan, 6.5], [0, 2, 4]),
    ],
)
def test_the_best_is_kept(metric: str, scores: list[float], bests: list[int], tmp_path: Path) -> None:
    kept: list[dict[str, Tensor]] = []
    bench = Bench(tmp_path, Stream(2), scores=iter(scores), metric=metric, epochs=5)
    validate = bench.trainer.validate

    def watched(quick: bool) -> Mapping[str, Any]:
        if not quick:
            kept.append(bench.now())
            if len(kept) > 1:
                last = max(best for best in bests if best < len(kept) - 1)
                assert identical(bench.best(), kept[last])
        return validate(quick)

    bench.trainer.validate = watched
    bench.run()
    assert identical(bench.best(), kept[bests[-1]])
    assert [figures[metric] for figures in bench.improvements] == [scores[best] for best in bests]
    assert [row["best"] for row in bench.rows("valid")] == [at in bests for at in range(5)]
    assert (bench.trainer.position.best, bench.trainer.position.best_updates) == (scores[bests[-1]], 10)


def test_of_equal_scores_the_one_of_the_lower_loss_is_better(tmp_path: Path) -> None:
    """BLEU of very short sentences is 0 for long."""
    bench = Bench(tmp_path, Stream(2), scores=itertools.repeat(0.0), metric="bleu", epochs=3, patience=1).run()
    rows = bench.rows("valid")
    assert [row["best"] for row in rows] == [True] * 3
    assert rows[0]["loss"] > rows[1]["loss"] > rows[2]["loss"]
    worse = Bench(
        tmp_path / "worse", Stream(2), scores=itertools.repeat(0.0), metric="bleu", epochs=3, learning_rate=1e-9
    )
    worse.trainer.position.best, worse.trainer.position.best_loss = 0.0, 0.0
    assert not any(row["best"] for row in worse.run().rows("valid"))


@pytest.mark.parametrize(
    ("patience", "scores", "validations"),
    [
        (1, [3.0, 4.0, 5.0, 4.9, 6.0], 4),
        (2, [3.0, 2.0, 2.9, 9.0, 9.0], 3),
        (2, [3.0, 2.0, 4.0, 3.0, 3.0, 9.0], 5),
        (None, [3.0, 2.0, 1.0, 1.0, 1.0, 1.0], 6),
    ],
)
@pytest.mark.parametrize("every", [None, 1])
def test_patience(
    patience: int | None, scores: list[float], validations: int, every: int | None, tmp_path: Path
) -> None:
    stream = Stream(2 if every is None else 1)
    bench = Bench(
        tmp_path, stream, scores=iter(scores), metric="bleu", epochs=6, patience=patience, validate_every=every
    ).run()
    assert bench.events.count("validate") == validations
    assert bench.trainer.position.finished
    assert Bench(tmp_path, stream, metric="bleu", epochs=6, patience=patience).go_on().run().events == []


# -- losses that are not finite


NAN = torch.tensor(math.nan)


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda loss: Loss(loss.total * math.nan, loss.count, NAN),
        lambda loss: Loss(loss.total * math.inf, loss.count, NAN * math.inf),
        lambda loss: Loss(loss.total * math.nan, loss.count, loss.nll),  # finite, with a gradient that is not
        lambda loss: Loss(loss.total * 1e38 * 1e38, loss.count, loss.nll),
    ],
)
def test_an_update_that_is_not_finite_is_skipped(spoilt: Callable[[Loss], Loss], tmp_path: Path) -> None:
    bad = {2, 3, 11}
    bench = Bench(tmp_path, spoil=lambda call, loss: spoilt(loss) if call in bad else loss).run()
    for call in range(20):
        assert identical(bench.weights[call], bench.weights[call + 1]) == (call in bad)
    at = bench.trainer.position
    assert (at.skipped, at.skipped_in_a_row, at.updates) == (3, 0, 21)
    assert bench.rows("train")[-1]["skipped"] == 3
    assert all(math.isfinite(row["loss"]) for row in bench.rows())
    assert all(weight.isfinite().all() for weight in [*bench.now().values(), *bench.trainer.average.values()])


def test_losses_that_stay_so_stop_the_training_with_advice(tmp_path: Path) -> None:
    first = Bench(tmp_path, epochs=1).run()
    before = (tmp_path / checkpoint.STATE).read_bytes()
    spoil = {"spoil": lambda call, loss: Loss(loss.total * math.nan, loss.count, NAN)}
    bench = Bench(tmp_path, epochs=50, validate_every=1000, **spoil).go_on()
    with pytest.raises(TrainingError, match="not finite") as error:
        bench.run()
    for advice in ("training.learning_rate", "0.05", "training.warmup", "training.precision=float32"):
        assert advice in str(error.value)
    assert len(bench.rates) == trainer.MOST_SKIPPED
    assert identical(bench.now(), first.now())
    assert (tmp_path / checkpoint.STATE).read_bytes() == before


# -- stopping and going on


WAYS = {
    "plain": {},
    "validated often, with dropout": {"dropout": 0.3, "validate_every": 4},
    "accumulated, plateau, no average": {"accumulate": 3, "schedule": "plateau", "ema": 0.0, "dropout": 0.2},
    "inverse square root": {"schedule": "inverse_sqrt", "validate_every": 5, "accumulate": 2},
}
ways = pytest.mark.parametrize("way", WAYS)


def signalled(at: set[int], number: int = signal.SIGTERM) -> Callable[[int], None]:
    """Sends this process a signal at these calls of the loss."""
    return lambda call: os.kill(os.getpid(), number) if call in at else None


def apart(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


@ways
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_and_going_on_equals_never_stopping(way: str, number: int, tmp_path: Path) -> None:
    through = Bench(apart(tmp_path, "through"), **WAYS[way]).run()
    calls, folder = len(through.rates), apart(tmp_path, "stopped")
    draw = random.Random(f"{way} {number}")
    stops, done, bench = 0, 0, Bench(folder, **WAYS[way])
    while done + (stop := draw.randrange(2, 9)) <= calls:
        bench.before_loss = signalled({stop - 1}, number)  # in an update some calls of the loss from here
        with pytest.raises(StoppedError, match=folder.name) as stopped:
            bench.run()
        assert stopped.value.status == 128 + number
        stops, done = stops + 1, done + len(bench.rates)
        torch.manual_seed(99)  # whatever happened in between
        bench = Bench(folder, seed=draw.randrange(100), **WAYS[way]).go_on()
    bench.before_loss = lambda call: None
    bench.run()
    assert stops >= 2
    assert done + len(bench.rates) == calls, "nothing is computed twice"
    same_run(bench, through)


@pytest.mark.parametrize("call", [0, 6, 7, 19, 20])
def test_stopping_at_the_edges(call: int, tmp_path: Path) -> None:
    """In the first update, in the last of an epoch, in the first of the next, and in the very last."""
    through = Bench(apart(tmp_path, "through"), dropout=0.3).run()
    folder = apart(tmp_path, "stopped")
    with pytest.raises(StoppedError):
        Bench(folder, dropout=0.3, before_loss=signalled({call})).run()
    bench = Bench(folder, dropout=0.3, seed=9).go_on().run()
    assert len(bench.rates) == 20 - call
    assert "quick" not in bench.events
    same_run(bench, through)


@ways
@pytest.mark.parametrize("seed", range(2))
def test_crashing_and_going_on_equals_never_stopping(way: str, seed: int, tmp_path: Path) -> None:
    """From the last checkpoint; what was reported after it is reported again, not twice."""
    through = Bench(apart(tmp_path, "through"), **WAYS[way]).run()
    folder = apart(tmp_path, "crashed")

    def crash(call: int) -> None:
        if call == limit:
            raise ZeroDivisionError

    limit = random.Random(seed).randrange(11, len(through.rates))  # after the first validation
    with pytest.raises(ZeroDivisionError):
        Bench(folder, before_loss=crash, **WAYS[way]).run()
    bench = Bench(folder, seed=9, **WAYS[way]).go_on().run()
    same_run(bench, through)
    steps = [(row["kind"], row["step"]) for row in bench.rows()]
    assert len(set(steps)) == len(steps)


def test_crashing_while_the_best_weights_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    through = Bench(apart(tmp_path, "through"), dropout=0.3).run()
    folder = apart(tmp_path, "crashed")
    bench = Bench(folder, dropout=0.3)
    saves = itertools.count()
    save = bench.trainer.save

    def crash() -> None:
        if next(saves) == 2:
            raise KeyboardInterrupt
        save()

    monkeypatch.setattr(bench.trainer, "save", crash)  # at the second validation, after weights and rows
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    assert len(bench.rows("valid")) == 2
    same_run(Bench(folder, dropout=0.3, seed=9).go_on().run(), through)


def test_a_place_that_the_epoch_no_longer_has_is_not_gone_on_from(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        Bench(tmp_path, Stream(7), before_loss=signalled({5}, signal.SIGINT)).run()
    with pytest.raises(ValueError, match="its corpus was larger"):
        Bench(tmp_path, Stream(3)).go_on()


@pytest.mark.parametrize("first", [1, 3])
def test_more_epochs_go_on(first: int, tmp_path: Path) -> None:
    constant = {"schedule": "constant", "dropout": 0.2}
    through = Bench(apart(tmp_path, "through"), epochs=5, **constant).run()
    folder = apart(tmp_path, "longer")
    Bench(folder, epochs=first, **constant).run()
    same_run(Bench(folder, epochs=5, seed=9, **constant).go_on().run(), through)


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    bench = Bench(tmp_path).run()
    again = Bench(tmp_path, seed=9).go_on().run()
    assert again.events == []
    same_run(again, bench)


def test_handlers_are_put_back(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(StoppedError):
        Bench(tmp_path, before_loss=signalled({3}, signal.SIGINT)).run()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_group_stops_for_a_signal_that_one_of_it_was_sent(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Stream(4))

    class Told(Group):
        """Two processes, the other of which was told to stop before the second update."""

        def sums(self, *numbers: float) -> list[float]:
            return [*numbers[:-1], float(signal.SIGTERM if bench.trainer.position.updates == 1 else 0)]

        def gather(self, weights: object) -> None: ...

        def draw(self, seed: int, updates: int) -> None: ...

        def same(self, value: Any) -> Any:
            return value

    bench.trainer.group = Told(0, 2)
    with pytest.raises(StoppedError, match="SIGTERM"):
        bench.run()
    assert bench.trainer.position.updates == 2
    assert (tmp_path / "training" / "state.pt").is_file()


def test_the_last_weights_are_kept_where_they_are_wanted(tmp_path: Path) -> None:
    scores = [1.0, 3.0, 2.0]
    bench = Bench(tmp_path, Stream(2), scores=iter(scores), metric="bleu", keep="last", ema=0.0).run()
    assert identical(bench.best(), bench.now())
    assert [figures["bleu"] for figures in bench.improvements] == scores
    assert bench.trainer.position.best == 3.0


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="terminals do not hang up here")
@pytest.mark.parametrize(("handler", "stops"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_a_closed_terminal_stops_it_but_for_nohup(handler: signal.Handlers, stops: bool, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, handler)
    try:
        bench = Bench(tmp_path, before_loss=signalled({3}, signal.SIGHUP))
        if stops:
            with pytest.raises(StoppedError, match="SIGHUP"):
                bench.run()
        else:
            assert bench.run().trainer.position.finished
        assert signal.getsignal(signal.SIGHUP) is handler
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("batches", [1, 7])
def test_checkpoints_come_by_the_clock(batches: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However short the epochs are."""
    clock = itertools.count(step=10.0)  # seconds, a call each
    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    bench = Bench(tmp_path, Stream(batches), epochs=42 // batches, validate_every=1000, checkpoint_minutes=2)
    saves: list[int] = []
    save = bench.trainer.save

    def watched() -> None:
        saves.append(bench.trainer.position.updates)
        save()

    monkeypatch.setattr(bench.trainer, "save", watched)
    bench.run()
    assert saves[0] == 0, "before there are weights that would lie there without a state"
    gaps = [b - a for a, b in itertools.pairwise(saves[:-2])]  # the last two are those of the end
    assert len(gaps) >= 3
    assert 2 <= min(gaps) <= max(gaps) <= 12


# -- reports


def test_reports_are_means_over_their_window(tmp_path: Path) -> None:
    bench = Bench(tmp_path, clip=1e9).run()
    model, stream, expected = Toy(), Stream(), []
    for call, weights in enumerate(bench.weights):
        model.load_state_dict(weights)
        expected.append(
            cross_entropy(model(stream.fetch(call // 7, call % 7)[0]), stream.fetch(call // 7, call % 7)[1])
        )
    for at, row in enumerate(bench.rows("train")):
        window = expected[3 * at : 3 * at + 3]
        loss = sum(float(one.nll) for one in window) / sum(one.count for one in window)
        norms = [float(gradient.norm()) for gradient in bench.gradients[3 * at : 3 * at + 3]]
        assert row["step"] == 3 * at + 3
        assert row["epoch"] == pytest.approx((3 * at + 3) / 7, abs=1e-3)
        assert row["loss"] == pytest.approx(loss, rel=1e-4)
        assert row["perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)
        assert row["gradient_norm"] == pytest.approx(sum(norms) / 3, rel=1e-4)
        assert row["learning_rate"] == bench.rates[3 * at + 2]
    assert len(bench.rows("train")) == 7


def test_a_report_that_cannot_be_written_names_its_file(tmp_path: Path) -> None:
    (tmp_path / checkpoint.METRICS).mkdir()
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: cannot be written: Is a directory.* --resume"):
        Bench(tmp_path).run()


def test_tensorboard_that_is_not_installed_explains_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match=r"training\.tensorboard.*pip install tensorboard"):
        Bench(tmp_path, tensorboard=True)
