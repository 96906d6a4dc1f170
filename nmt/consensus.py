"""Which of several translations is nearest to what the model believes as a whole (minimum Bayes risk).

    u_i = Σ_j w_j chrF2(i, j),   w_j ∝ exp(sharpness · score_j)      (Kumar and Byrne 2004; Eikema and Aziz 2020)
    chrF2(i, j) = 5 P R / (4 P + R): P, R the shares of i's and j's character n-grams that the other has, the mean
                  over n = 1 … 6 of those orders that both have     (Popović 2015; without spaces, as sacreBLEU counts)

The likeliest translation is often an odd one out, or too short; one that agrees with many others seldom is.

Letters: K candidates, G different n-grams.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ORDER = 6
BETA = 2

Matrix = NDArray[np.floating[Any]]


def ranked(texts: Sequence[str], scores: Sequence[float], sharpness: float) -> list[int]:
    """The places of the candidates, that of the greatest expected chrF2 first; among equals the likelier."""
    weights = np.exp(sharpness * (np.array(scores) - max(scores)))  # (K,)
    utility = chrf(texts) @ (weights / weights.sum())
    return sorted(range(len(texts)), key=lambda place: (-utility[place], -scores[place]))


def chrf(texts: Sequence[str]) -> Matrix:
    """chrF2, from 0 to 1, of each text (row) with each as the reference (column): (K, K)."""
    stripped = ["".join(text.split()) for text in texts]
    precision, recall, orders = np.zeros((3, len(texts), len(texts)))
    for n in range(1, ORDER + 1):
        counts = _counts(stripped, n)  # (K, G)
        matches = np.stack([np.minimum(one, counts).sum(1) for one in counts])  # (K, K), never (K, K, G)
        total = counts.sum(1)  # (K,)
        both = (total[:, None] > 0) & (total > 0)
        precision += np.where(both, matches / np.maximum(total[:, None], 1), 0)
        recall += np.where(both, matches / np.maximum(total, 1), 0)
        orders += both
    above = (1 + BETA**2) * precision * recall
    below = np.maximum(orders, 1) * (BETA**2 * precision + recall)
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _counts(texts: Sequence[str], n: int) -> Matrix:
    """How often each text has each n-gram that any of them has."""
    places: dict[str, int] = {}
    rows = [[places.setdefault(text[at : at + n], len(places)) for at in range(len(text) - n + 1)] for text in texts]
    return np.stack([np.bincount(row, minlength=len(places)) if row else np.zeros(len(places)) for row in rows])
