"""What the test split says of a trained model, for people and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Report:
    """Figures by name, those of baselines by baseline, and anything more to read."""

    test: str
    figures: Mapping[str, float | int]
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    more: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        rows = [self.test, *(f"  {name:<20} {_number(value)}" for name, value in self.figures.items())]
        for baseline, figures in self.baselines.items():
            rows += [f"  {baseline}", *(f"    {name:<18} {_number(value)}" for name, value in figures.items())]
        return "\n".join([*rows, *([self.more] if self.more else [])])


def _number(value: float | int) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
