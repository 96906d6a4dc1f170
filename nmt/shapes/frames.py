"""A dot that moves in a noisy picture: what is it doing now? Nothing of it can be seen in one frame.

    p_t = p_{t-1} + v_t;  frame_t = p_t + noise

v_t is nothing (still), one step to the left or to the right, or one step along a circle. Each movement lasts for a
while, then another begins; the noise of a frame is as large as several steps, so that two frames tell little.

Letters: T frames.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

KINDS = ("still", "left", "right", "circling")
COUNTS = {"train": 2000, "valid": 300, "test": 1000}  # sequences
FRAMES = 80
SHORTEST, LONGEST = 12, 30  # frames of one movement
STEP, NOISE = 0.1, 0.15
TURN = 2 * np.pi / 20  # of a circle, in a frame

WIDTH = 2  # numbers of a frame

Sequence = tuple[NDArray[np.float32], list[int]]  # frames (T, 2) and the kind of movement at each


def draw(split: Literal["train", "valid", "test"] | str) -> list[Sequence]:
    """The sequences of a split, always the same."""
    random = np.random.default_rng([7, list(COUNTS).index(split)])
    return [_sequence(random) for _ in range(COUNTS[split])]


def _sequence(random: np.random.Generator) -> Sequence:
    kinds: list[int] = []
    steps: list[NDArray[np.float64]] = []
    while len(kinds) < FRAMES:
        others = [kind for kind in range(len(KINDS)) if not kinds or kind != kinds[-1]]
        kind, length = int(random.choice(others)), int(random.integers(SHORTEST, LONGEST + 1))
        kinds += [kind] * length
        steps.append(STEP * _movement(KINDS[kind], length, random))
    places = random.normal(0, 1, 2) + np.cumsum(np.concatenate(steps), axis=0)  # (T, 2)
    frames = places + random.normal(0, NOISE, places.shape)
    return frames[:FRAMES].astype(np.float32), kinds[:FRAMES]


def _movement(kind: str, length: int, random: np.random.Generator) -> NDArray[np.float64]:
    """The way from frame to frame, (length, 2), in steps."""
    if kind == "circling":
        angles = random.uniform(0, 2 * np.pi) + TURN * random.choice([-1, 1]) * np.arange(length)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    across = {"still": 0.0, "left": -1.0, "right": 1.0}[kind]
    return np.tile([across, 0.0], (length, 1))


def cells(seen: NDArray[np.float32]) -> list[str]:
    """Frames (T, 2) as the fields of a board they lie in: what can be counted of one frame alone."""
    return [f"{across} {up}" for across, up in np.floor(2 * seen).astype(int).tolist()]
