"""How near training comes to what this machine can do: python benchmarks/limit.py [RECIPE] [--threads N] [--rounds N]

Each update is done twice: as it is, and with every matrix product and every recurrent layer in it also run alone, on
the same numbers, three times, of which the quickest counts. So there are two limits on an update:

    kernels    its products and recurrent layers one after the other, at the rate each has alone, and nothing else
    products   all floating-point operations of it at the rate of its quickest large product

Shares of them are the median and range over rounds. Without RECIPE the yardstick's model; the corpus is in $NMT_DATA.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from training import training

from nmt import recipe
from nmt.trainer import Trainer

WARM, REPEATS, LARGE = 12, 3, 1e9
ATEN = torch.ops.aten
RECURRENT = (ATEN.mkldnn_rnn_layer.default, ATEN.mkldnn_rnn_layer_backward.default)
# where the two factors of a product stand among the arguments
PRODUCTS = {ATEN.mm.default: 0, ATEN.bmm.default: 0, ATEN.addmm.default: 1, ATEN.baddbmm.default: 1}


@dataclass
class Alone(TorchDispatchMode):
    """Runs each product and recurrent layer alone as well, and sums seconds and operations."""

    seconds: dict[str, float] = field(default_factory=lambda: {"products": 0.0, "recurrent": 0.0})
    operations: dict[str, float] = field(default_factory=lambda: {"products": 0.0, "recurrent": 0.0})
    rate: float = 0.0  # operations a second of the quickest large product

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        result = call(*args, **(kwargs or {}))
        if call in RECURRENT:
            kind, count = "recurrent", _recurrent(call, args)
        elif call in PRODUCTS:
            kind, count = "products", _product(*args[PRODUCTS[call] :][:2])
        else:
            return result
        took = min(_timed(call, args, kwargs) for _ in range(REPEATS))
        self.seconds[kind] += took
        self.operations[kind] += count
        if kind == "products" and count > LARGE:
            self.rate = max(self.rate, count / took)
        return result


def _timed(call: Any, args: Any, kwargs: Mapping[str, Any] | None) -> float:
    started = time.perf_counter()
    call(*args, **(kwargs or {}))
    return time.perf_counter() - started


def _product(one: torch.Tensor, other: torch.Tensor) -> float:
    return 2.0 * one.numel() * other.size(-1)


def _recurrent(call: Any, args: Any) -> float:
    steps = args[0].size(0) * args[0].size(1)
    forward = 2.0 * steps * (args[1].numel() + args[2].numel())  # (G·D, I) and (G·D, D)
    return forward if call is RECURRENT[0] else 2 * forward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default=str(Path(__file__).parent / "yardstick.yaml"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=6, help="in a round")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    spec = recipe.load(given.recipe, [f"training.threads={given.threads}"])
    with training(spec, given.threads) as trainer:
        print(f"{given.recipe} on {trainer.hardware}, torch {torch.__version__}")
        measure(trainer, given.rounds, given.updates)


def measure(trainer: Trainer[Any], rounds: int, updates: int) -> None:
    batches = [trainer.stream.fetch(0, number) for number in range(WARM + updates)]
    for batch in batches:
        trainer.update([batch], 0.0)
    shares: dict[str, list[float]] = {"kernels": [], "products": []}
    rates, parts = [], []
    for _ in range(rounds):
        before, started = trainer.position.tokens, time.perf_counter()
        for batch in batches[WARM:]:
            trainer.update([batch], 0.0)
        whole = time.perf_counter() - started
        rates.append((trainer.position.tokens - before) / whole)
        with Alone() as alone:
            for batch in batches[WARM:]:
                trainer.update([batch], 0.0)
        kernels = sum(alone.seconds.values())
        shares["kernels"].append(kernels / whole)
        shares["products"].append(sum(alone.operations.values()) / alone.rate / whole)
        parts.append([1e3 * part / updates for part in (*alone.seconds.values(), whole - kernels)])
    flops = sum(alone.operations.values()) / updates
    print(f"{statistics.median(rates):,.0f} target tokens/s; {flops / 1e9:.0f} GFLOP an update")
    print(f"quickest product {alone.rate / 1e9:,.0f} GFLOP/s", end="")
    for kind, seconds in alone.seconds.items():
        print(f"; {kind} alone {alone.operations[kind] / max(seconds, 1e-9) / 1e9:,.0f}", end="")
    middle = [statistics.median(column) for column in zip(*parts, strict=True)]
    print(
        f"\nan update: {middle[0]:.0f} ms of products, {middle[1]:.0f} of recurrent layers, {middle[2]:.0f} of the rest"
    )
    for name, found in shares.items():
        print(f"share of the limit of {name}: {statistics.median(found):.0%} ({min(found):.0%} to {max(found):.0%})")


if __name__ == "__main__":
    main()
