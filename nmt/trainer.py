"""The training loop, over anything that has a loss.

    gradient = Σ over the real target tokens of an update / their number, clipped by norm
    averaged weights  w̄ ← d w̄ + (1 - d) w,  d = min(ema, (1 + updates) / (10 + updates))
    cosine        lr = peak · ½ (1 + cos π·progress)
    inverse_sqrt  lr = peak · √(warmup / updates)                  (Vaswani et al. 2017, section 5.3)
    plateau       lr halves when a validation is not the best

Progress runs from 0 to 1 over the epochs, so that no schedule needs to know the number of updates beforehand.
Everything that decides the next update is in the training state: a resumed run equals one that never stopped, bit
for bit on a CPU with the same number of threads.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from nmt import checkpoint
from nmt.errors import CheckpointError, StoppedError, TrainingError, ending
from nmt.group import ALONE, Group
from nmt.hardware import Hardware
from nmt.loss import Loss
from nmt.progress import Bar
from nmt.recipe import Training

REPORT_EVERY = 50  # updates between rows of metrics.jsonl
MOST_SKIPPED = 25  # updates in a row without a finite loss or gradient before giving up

B_co = TypeVar("B_co", covariant=True)
Validate = Callable[[bool], Mapping[str, Any]]


class Carried(Protocol):
    """What goes from one batch to the next beside the weights: the state of a recurrent net along a text."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Stream(Protocol[B_co]):
    """Batches in an order that depends on the epoch alone."""

    def batches(self, epoch: int) -> int:
        """How many batches the epoch has."""

    def fetch(self, epoch: int, number: int) -> B_co:
        """Batch `number` of the epoch."""


B = TypeVar("B")


@dataclass
class Position:
    """Where a run is, all of it in the training state."""

    epoch: int = 0
    batch: int = 0
    updates: int = 0
    tokens: int = 0
    seconds: float = 0.0  # of training, validation left out
    skipped: int = 0
    skipped_in_a_row: int = 0
    best: float | None = None
    best_loss: float = math.inf  # of the best
    best_updates: int = 0
    since_best: int = 0
    plateau: float = 1.0
    finished: bool = False


@dataclass
class Window:
    """Sums since the last report."""

    loss: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    norm: float = 0.0
    updates: int = 0


class Trainer(Generic[B]):
    """Trains `model` into `folder`.

    `loss(batch, progress)` is the loss of a batch; `validate(quick)` returns figures under the averaged weights,
    among them the one that picks the best model; with `quick` it only has to show that validating works.
    `improved(figures)` is told when weights were written, the best or the last. `carried` is saved and resumed with all
    else. In a group of processes, each gives its share of a batch, or None where there is nothing for it.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[B, float], Loss],
        stream: Stream[B | None],
        validate: Validate,
        improved: Callable[[Mapping[str, Any]], None],
        settings: Training,
        hardware: Hardware,
        folder: Path,
        carried: Carried | None = None,
        group: Group = ALONE,
    ) -> None:
        self.model, self.loss, self.stream = model, loss, stream
        self.validate, self.improved = validate, improved
        self.settings, self.hardware, self.folder = settings, hardware, folder
        self.carried, self.group = carried, group
        self.position = Position()
        self.window = Window()
        self.optimizer = optimizer(model, settings)
        self.scaler = torch.amp.GradScaler(enabled=hardware.precision == "fp16")
        self.weights = checkpoint.parameters(model)
        self.average = {name: weight.clone() for name, weight in self.weights.items()} if settings.ema else {}
        self.metrics = _Metrics(folder / checkpoint.METRICS, settings.tensorboard and group.first)
        self.signal = 0  # that this process was sent
        self.heard = 0  # that one of the group was sent before the last update
        self.saved = time.monotonic()

    # -- the loop

    def run(self) -> Position:
        """Train to the end. Raises StoppedError after a signal, TrainingError where it cannot go on."""
        if self.position.updates == 0 and self.group.first:
            with self._averaged():
                self.validate(True)
            self.save()  # so that there are never weights without a state
        with self._catching_signals(), Bar("training", self.settings.epochs) as self.bar:
            while self.position.epoch < self.settings.epochs and not self._out_of_patience():
                self._epoch()
            if self._out_of_patience() and self.group.first:
                self.bar.say(f"{self.position.since_best} validations without a better one: training ends here")
        self.position.finished = True
        self.save()
        return self.position

    def _epoch(self) -> None:
        at = self.position
        batches = self.stream.batches(at.epoch)
        while at.batch < batches:
            started = time.monotonic()
            group = range(at.batch, min(at.batch + self.settings.accumulate, batches))
            self.update([self.stream.fetch(at.epoch, number) for number in group], at.epoch + at.batch / batches)
            at.batch = group.stop
            if at.batch >= batches:
                at.epoch, at.batch, batches = at.epoch + 1, 0, 0
            at.seconds += time.monotonic() - started
            self.window.seconds += time.monotonic() - started
            self._show(at.epoch + (at.batch / batches if batches else 0.0))
            if self._validation_due(batches == 0):
                self._validate()
                self.save()
            elif time.monotonic() - self.saved > 60 * self.settings.checkpoint_minutes:
                self.save()
            # a group stops for what all know of, or some would wait for others that are gone
            if stopping := self.signal if self.group.size == 1 else self.heard:
                self.save()
                raise StoppedError(stopping, str(self.folder))
            if self._out_of_patience():
                return

    def update(self, batches: Sequence[B | None], epochs: float) -> None:
        """One update of the weights over batches, so many epochs after the start."""
        at, settings = self.position, self.settings
        progress = epochs / settings.epochs
        rate = learning_rate(settings, at.updates, progress) * at.plateau
        for weights in self.optimizer.param_groups:
            weights["lr"] = rate
        self.group.draw(settings.seed, at.updates)
        total, count = 0.0, 0
        for batch in batches:
            if batch is None:
                continue
            with self.hardware.autocast():
                loss = self.loss(batch, progress)
            self.scaler.scale(loss.total).backward()  # type: ignore[no-untyped-call]
            total, count = total + float(loss.nll), count + loss.count
        total, tokens, heard = self.group.sums(total, count, self.signal)
        self.heard = (self.signal or signal.SIGTERM) if heard else 0
        norm = self._step(int(tokens)) if math.isfinite(total) else math.nan
        self.optimizer.zero_grad(set_to_none=True)
        self._count(total, int(tokens), norm)

    def _step(self, count: int) -> float:
        """One step of the optimiser over `count` tokens; the norm of the gradient, before clipping."""
        self.group.gather(list(self.model.parameters()))
        self.scaler.unscale_(self.optimizer)
        grads = [weight.grad for weight in self.model.parameters() if weight.grad is not None]
        norm = float(nn.utils.get_total_norm(grads)) / count
        torch._foreach_mul_(grads, min(1.0, self.settings.clip / norm if norm else 1.0) / count)
        if not math.isfinite(norm) and not self.scaler.is_enabled():
            return norm
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average and math.isfinite(norm):
            updates = self.position.updates
            decay = min(self.settings.ema, (1 + updates) / (10 + updates))
            torch._foreach_lerp_(list(self.average.values()), list(self.weights.values()), 1 - decay)
        return norm

    def _count(self, total: float, count: int, norm: float) -> None:
        at, window = self.position, self.window
        at.updates += 1
        if not math.isfinite(norm):
            at.skipped += 1
            at.skipped_in_a_row += 1
            if at.skipped_in_a_row >= MOST_SKIPPED:
                raise TrainingError(
                    f"the loss was not finite for {MOST_SKIPPED} updates in a row: lower training.learning_rate "
                    f"(now {self.settings.learning_rate}), raise training.warmup, or set training.precision=float32, "
                    f"and train anew with --out; the last checkpoint is untouched"
                )
            return
        at.skipped_in_a_row = 0
        at.tokens += count
        window.loss += total
        window.tokens += count
        window.norm += norm
        window.updates += 1

    # -- validation, reports

    def _validation_due(self, epoch_ended: bool) -> bool:
        every = self.settings.validate_every
        last = epoch_ended and self.position.epoch == self.settings.epochs
        return last or (epoch_ended if every is None else self.position.updates % every == 0)

    def _validate(self) -> None:
        if self.group.first:
            self._judge()
        vars(self.position).update(vars(self.group.same(self.position)))

    def _judge(self) -> None:
        at = self.position
        with self._averaged():
            figures = dict(self.validate(False))
            score, loss = float(figures[self.settings.metric]), float(figures["loss"])
            sign = -1 if self.settings.metric == "perplexity" else 1
            # equal scores are told apart by the loss: BLEU of very short sentences is 0 for long
            better = math.isfinite(score) and (
                at.best is None or (sign * score, -loss) > (sign * at.best, -at.best_loss)
            )
            if better:
                at.best, at.best_loss, at.best_updates, at.since_best = score, loss, at.updates, 0
            else:
                at.since_best += 1
                at.plateau *= 0.5 if self.settings.schedule == "plateau" else 1.0
            if better or self.settings.keep == "last":
                checkpoint.write_weights(self.folder, self.average or self.weights)
                self.improved(figures)
        self.metrics.write({"kind": "valid", "step": at.updates, "epoch": self._epochs(), **figures, "best": better})
        shown = ", ".join(f"{name} {value:.2f}" for name, value in figures.items() if isinstance(value, float))
        self.bar.say(f"epoch {self._epochs():.2f}, update {at.updates}: {shown}{' (best)' if better else ''}")

    def _epochs(self) -> float:
        return self.position.epoch + self.position.batch / max(1, self.stream.batches(self.position.epoch))

    def _show(self, epochs: float) -> None:
        at, window = self.position, self.window
        if not window.updates or window.updates + at.skipped_in_a_row < REPORT_EVERY:
            return
        loss = window.loss / window.tokens
        row = {
            "kind": "train",
            "step": at.updates,
            "epoch": round(epochs, 4),
            "loss": loss,
            "perplexity": math.exp(min(loss, 50.0)),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "gradient_norm": window.norm / window.updates,
            "tokens_per_second": window.tokens / window.seconds,
            "minutes": at.seconds / 60,
            "skipped": at.skipped,
        }
        if self.group.first:
            self.metrics.write(row)
        self.window = Window()
        self.bar.update(
            epochs,
            f"loss {loss:.3f}  ppl {row['perplexity']:.1f}  lr {row['learning_rate']:.2g}  "
            f"norm {row['gradient_norm']:.2f}  {row['tokens_per_second']:,.0f} tokens/s"
            + (f"  {at.skipped} updates skipped" if at.skipped else ""),
        )

    def _out_of_patience(self) -> bool:
        return self.settings.patience is not None and self.position.since_best >= self.settings.patience

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """Within, the model has the averaged weights and is in evaluation mode."""
        own = {name: weight.clone() for name, weight in self.weights.items()} if self.average else {}
        for name, weight in self.average.items():
            self.weights[name].copy_(weight)
        self.model.eval()
        try:
            yield
        finally:
            self.model.train()
            for name, weight in own.items():
                self.weights[name].copy_(weight)

    # -- stopping and going on

    @contextlib.contextmanager
    def _catching_signals(self) -> Iterator[None]:
        def note(number: int, _: object) -> None:
            self.signal = number

        caught = [signal.SIGINT, *ending()]
        before = [signal.signal(number, note) for number in caught]
        try:
            yield
        finally:
            for number, handler in zip(caught, before, strict=True):
                signal.signal(number, handler)

    def save(self) -> None:
        """Write the training state."""
        if not self.group.first:
            return
        cuda = torch.cuda.get_rng_state(self.hardware.device) if self.hardware.device.type == "cuda" else None
        state = {
            "position": asdict(self.position),
            "window": asdict(self.window),
            "weights": self.weights,
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": cuda,
            "carried": self.carried.state_dict() if self.carried else {},
            "metrics": self.metrics.size(),
        }
        checkpoint.write_state(self.folder, state)
        self.saved = time.monotonic()

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a training state that `save` wrote."""
        self.position = Position(**state["position"])
        self.position.finished = False
        if self.position.batch > self.stream.batches(self.position.epoch):
            raise ValueError("its corpus was larger")
        self.window = Window(**state["window"])
        for name, weight in self.weights.items():
            weight.copy_(state["weights"][name])
        for name, weight in self.average.items():
            weight.copy_(state["average"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None and self.hardware.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"], self.hardware.device)
        if self.carried:
            self.carried.load_state_dict(state["carried"])
        self.metrics.cut(state["metrics"])


class _Metrics:
    """metrics.jsonl, and TensorBoard where asked for."""

    def __init__(self, path: Path, tensorboard: bool) -> None:
        self.path = path
        self.board = _board(path.parent / "tensorboard") if tensorboard else None

    def write(self, row: Mapping[str, Any]) -> None:
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        except OSError as error:
            raise CheckpointError(
                f"{self.path}: cannot be written: {error.strerror}: make room, go on with --resume"
            ) from None
        if self.board is not None:
            for name, value in row.items():
                if isinstance(value, float):
                    self.board.add_scalar(f"{row['kind']}/{name}", value, row["step"])

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, size: int) -> None:
        """Forget the rows written after the state that is resumed: they will be written again."""
        if self.path.exists():
            with open(self.path, "r+b") as file:
                file.truncate(min(size, self.size()))


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise TrainingError(
            "training.tensorboard: tensorboard is not installed: `pip install tensorboard`, or set this to false"
        ) from None
    return SummaryWriter(folder)


def learning_rate(settings: Training, updates: int, progress: float) -> float:
    """The learning rate of the update after `updates`, at `progress` from 0 to 1 through the training."""
    warm = min(1.0, (updates + 1) / settings.warmup) if settings.warmup else 1.0
    if settings.schedule == "cosine":
        return settings.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    if settings.schedule == "inverse_sqrt":
        return settings.learning_rate * min(warm, math.sqrt(max(1, settings.warmup) / (updates + 1)))
    return settings.learning_rate * warm


def optimizer(model: nn.Module, settings: Training) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019); biases are not decayed."""
    matrices: list[Tensor] = [weight for weight in model.parameters() if weight.dim() > 1]
    vectors: list[Tensor] = [weight for weight in model.parameters() if weight.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), fused=True)
