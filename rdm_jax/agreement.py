"""How well predictions agree with measurements, and how well chance would: plain numbers, in NumPy.

Of every function the last axis are modes and the leading axes instants, runs or seeds.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["chance", "explained_variance", "rank_correlation", "relative_error", "sign_hits"]

_Statistic = Callable[[ArrayLike, ArrayLike], float]


def relative_error(predicted: ArrayLike, measured: ArrayLike) -> float:
    """|predicted - measured| / |measured|, Euclidean over all entries.

    Args:
        predicted: any shape.
        measured: the same shape.

    Returns:
        A number; 0 is exact.

    >>> relative_error([3.0, 4.4], [3.0, 4.0]).__round__(6)
    0.08
    """
    first, second = _pair(predicted, measured)
    return float(np.linalg.norm(first - second) / np.linalg.norm(second))


def explained_variance(predicted: ArrayLike, measured: ArrayLike) -> float:
    """1 - sum (measured - predicted)^2 / sum (measured - mean)^2; no line is fitted: a wrong scale counts against it.

    Args:
        predicted: any shape.
        measured: the same shape.

    Returns:
        At most 1; 0 for a prediction no better than the mean of what was measured, negative for a worse one.

    >>> explained_variance([1.0, 2.0, 4.0], [1.0, 2.0, 3.0])
    0.5
    """
    first, second = _pair(predicted, measured)
    return float(1 - np.sum((second - first) ** 2) / np.sum((second - np.mean(second)) ** 2))


def rank_correlation(predicted: ArrayLike, measured: ArrayLike) -> float:
    """Spearman's rank correlation over the modes, averaged over the leading axes; ties share their mean rank.

    Args:
        predicted: (..., d).
        measured: (..., d).

    Returns:
        In [-1, 1]; instants at which either side is constant do not count, and NaN if all are.

    >>> rank_correlation([1.0, 2.0, 30.0], [0.1, 0.5, 0.2])
    0.5
    """
    ranks = [_ranks(values.reshape(-1, values.shape[-1])) for values in _pair(predicted, measured)]
    first, second = (values - np.mean(values, axis=1, keepdims=True) for values in ranks)
    size = np.sqrt(np.sum(first**2, axis=1) * np.sum(second**2, axis=1))
    varied = size > 0
    return float(np.mean(np.sum(first * second, axis=1)[varied] / size[varied])) if varied.any() else float("nan")


def sign_hits(predicted: ArrayLike, measured: ArrayLike) -> float:
    """Share of the entries whose signs agree.

    Args:
        predicted: any shape.
        measured: the same shape.

    Returns:
        In [0, 1].

    >>> sign_hits([1.0, -2.0, 3.0, 1.0], [0.1, 0.2, 0.3, 5.0])
    0.75
    """
    first, second = _pair(predicted, measured)
    return float(np.mean(np.sign(first) == np.sign(second)))


def chance(
    statistic: _Statistic,
    predicted: ArrayLike,
    measured: ArrayLike,
    *,
    seed: int,
    quantile: float = 0.95,
    shuffles: int = 200,
) -> float:
    """What the statistic reaches by chance: its quantile when each instant's predictions are shuffled over the modes.

    Args:
        statistic: a function of this module.
        predicted: (..., d).
        measured: (..., d).
        seed: of the shuffles.
        quantile: 0.95 for agreement (one in 20 shufflings does better), 0.05 for an error.
        shuffles: how many.

    Returns:
        A number to hold the statistic against.

    >>> values = [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]
    >>> chance(rank_correlation, values, values, seed=0) < rank_correlation(values, values)
    True
    """
    rng = np.random.default_rng(seed)
    first, second = _pair(predicted, measured)
    reached = [statistic(rng.permuted(first, axis=-1), second) for _ in range(shuffles)]
    return float(np.quantile(reached, quantile))


def _pair(predicted: ArrayLike, measured: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = np.asarray(predicted, np.float64), np.asarray(measured, np.float64)
    if first.shape != second.shape or first.size == 0:
        raise ValueError(f"predicted and measured must be alike and not empty, got {first.shape} and {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("predicted and measured must be finite; leave out what was not measured")
    return first, second


def _ranks(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half the number of smaller minus larger entries: ranks up to a constant, with ties shared."""
    return np.sum(np.sign(rows[:, :, None] - rows[:, None, :]), axis=2) / 2
