"""How good a choice among names is: accuracy, F1 of each name, and a correlation that no majority can flatter.

    F1 = 2 TP / (2 TP + FP + FN)
    MCC = (c s - Σ p_k t_k) / √((s² - Σ p_k²)(s² - Σ t_k²))                      (Matthews 1975; Gorodkin 2004)

where c of s choices are right, p_k times k was chosen, and t_k times it was true; of two names this is the correlation
of the two columns. It is 0 where the choice knows nothing, and taken as 0 where one name is always chosen.

Letters: n choices, C names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Shares = NDArray[np.float64]


def confusion(gold: Ids, chosen: Ids, names: int) -> Ids:
    """How often what was true (a row) was taken for what (a column), (C, C)."""
    table: Ids = np.bincount(gold * names + chosen, minlength=names * names).astype(np.int64)
    return table.reshape(names, names)


def figures(table: Ids, names: Sequence[str]) -> dict[str, float]:
    """MCC, accuracy and the F1 of each name, from a confusion, all in percent."""
    true, chosen, right = table.sum(1), table.sum(0), np.diag(table)
    overall = {"mcc": 100 * mcc(table), "accuracy": float(100 * right.sum() / max(1, table.sum()))}
    both = np.maximum(true + chosen, 1)
    return overall | {f"F1 {name}": float(200 * right[i] / both[i]) for i, name in enumerate(names)}


def mcc(table: Ids) -> float:
    """The correlation of a confusion."""
    return float(_mcc(table.astype(np.float64)))


def _mcc(tables: NDArray[np.float64]) -> Any:
    """Of one or many confusions, (..., C, C)."""
    true, chosen, right = tables.sum(-1), tables.sum(-2), np.trace(tables, axis1=-2, axis2=-1)
    total = true.sum(-1)
    spread = (total**2 - (chosen**2).sum(-1)) * (total**2 - (true**2).sum(-1))
    return (right * total - (true * chosen).sum(-1)) / np.sqrt(np.where(spread > 0, spread, np.inf))


def choose(shares: Shares, threshold: float | None = None) -> Ids:
    """The likeliest name (n,) by its share (n, C); of two, the second where its share reaches the threshold."""
    if threshold is None:
        return np.asarray(shares.argmax(1), np.int64)
    return np.asarray(shares[:, 1] >= threshold, np.int64)


def threshold(shares: Shares, gold: Ids) -> float | None:
    """The threshold for the second of two names that gives the highest MCC; none where there are more names, or one
    of the two alone."""
    if shares.shape[1] != 2 or gold.min() == gold.max():
        return None
    order = np.argsort(-shares[:, 1], kind="stable")
    scores, hits = shares[order, 1], gold[order]
    last = np.append(scores[1:] != scores[:-1], True)  # equal shares are chosen together
    tp = np.cumsum(hits)[last].astype(np.float64)
    fp = np.arange(1, len(hits) + 1)[last] - tp
    fn, tn = hits.sum() - tp, len(hits) - hits.sum() - fp
    tables = np.stack([np.stack([tn, fp], -1), np.stack([fn, tp], -1)], -2)  # (cuts, 2, 2)
    return float(scores[last][int(np.argmax(_mcc(tables)))])
