"""How well predictions agree with measurements, and how well chance would: plain numbers, in NumPy.

Of every function the last axis are modes and the leading axes instants, runs or seeds. A mask says which modes count;
instants at which fewer than two do are left out.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "chance",
    "explained_variance",
    "partial_rank_correlation",
    "rank_correlation",
    "relative_error",
    "scaled_explained_variance",
    "shuffled",
    "sign_hits",
]

_Statistic = Callable[..., float]
_Values = NDArray[np.float64]
_Mask = NDArray[np.bool_]


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


def scaled_explained_variance(predicted: ArrayLike, measured: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Share of sum measured^2 that the prediction explains after one scale factor >= 0 for all entries.

    max(<predicted, measured>, 0)^2 / (|predicted|^2 |measured|^2).

    Args:
        predicted: (..., d), known up to a factor.
        measured: (..., d).
        mask: (..., d) which count; None: all.

    Returns:
        In [0, 1]; 0 also if the best factor would be negative, NaN if either side is 0.

    >>> round(scaled_explained_variance([1.0, 2.0, 4.0], [2.0, 4.0, 8.5]), 4)
    0.9994
    """
    first, second = _pair(predicted, measured, mask)
    size = float(np.sum(first**2) * np.sum(second**2))
    return float(max(np.sum(first * second), 0)) ** 2 / size if size > 0 else float("nan")


def rank_correlation(predicted: ArrayLike, measured: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Spearman's rank correlation over the modes, averaged over the leading axes; ties share their mean rank.

    Args:
        predicted: (..., d).
        measured: (..., d).
        mask: (..., d) which count; None: all.

    Returns:
        In [-1, 1]; instants at which either side is constant do not count, and NaN if all are.

    >>> rank_correlation([1.0, 2.0, 30.0], [0.1, 0.5, 0.2])
    0.5
    """
    first, second = _pair(predicted, measured, mask)
    own = _counted(mask, first)
    return _mean_correlation(_centred_ranks(first, own), _centred_ranks(second, own), own)


def partial_rank_correlation(
    predicted: ArrayLike, measured: ArrayLike, mask: ArrayLike | None = None, *, given: ArrayLike
) -> float:
    """Rank correlation of what is left of both sides' ranks once those of a third quantity are regressed out.

    Args:
        predicted: (..., d).
        measured: (..., d).
        mask: (..., d) which count; None: all.
        given: (..., d) the third quantity, such as the eigenvalues: their order alone then counts for nothing.

    Returns:
        In [-1, 1]; instants at which either side has nothing left do not count, and NaN if none has.

    >>> round(partial_rank_correlation([1.0, 2.0, 3.0, 5.0], [1.0, 3.0, 2.0, 4.0], given=[1.0, 2.0, 4.0, 3.0]), 3)
    0.873
    """
    first, second = _pair(predicted, measured, mask)
    own = _counted(mask, first)
    third = _centred_ranks(np.broadcast_to(np.asarray(given, np.float64), np.shape(measured)), own)
    size = np.maximum(np.sum(third**2, axis=-1, keepdims=True), 1e-30)
    ranks = [_centred_ranks(values, own) for values in (first, second)]
    one, two = (rank - np.sum(rank * third, axis=-1, keepdims=True) / size * third for rank in ranks)
    return _mean_correlation(one, two, own)


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
    mask: ArrayLike | None = None,
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
        mask: (..., d) which modes count, and are shuffled; None: all.
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
    first, second = _pair(predicted, measured, mask)
    if mask is None:
        reached = [statistic(rng.permuted(first, axis=-1), second) for _ in range(shuffles)]
    else:
        own = _counted(mask, first)
        reached = [statistic(shuffled(first, own, rng), second, own) for _ in range(shuffles)]
    return float(np.quantile(reached, quantile))


def shuffled(values: _Values, mask: _Mask, rng: np.random.Generator) -> _Values:
    """Each instant's values permuted over the modes that count.

    Args:
        values: (..., d).
        mask: (..., d) which count.
        rng: draws the permutations.

    Returns:
        (..., d).

    >>> shuffled(np.arange(3.0), np.array([True, False, False]), np.random.default_rng(0)).tolist()
    [0.0, 1.0, 2.0]
    """
    places = np.argsort(~mask, axis=-1, kind="stable")
    drawn = np.argsort(np.where(mask, rng.random(mask.shape), 2), axis=-1, kind="stable")
    out = np.empty_like(values)
    np.put_along_axis(out, places, np.take_along_axis(values, drawn, -1), -1)
    return out


def _pair(predicted: ArrayLike, measured: ArrayLike, mask: ArrayLike | None = None) -> tuple[_Values, _Values]:
    """Both sides in float64, 0 where the mask leaves them out."""
    first, second = np.asarray(predicted, np.float64), np.asarray(measured, np.float64)
    if first.shape != second.shape or first.size == 0:
        raise ValueError(f"predicted and measured must be alike and not empty, got {first.shape} and {second.shape}")
    if mask is not None:
        own = _counted(mask, first)
        first, second = np.where(own, first, 0), np.where(own, second, 0)
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("predicted and measured must be finite; leave out what was not measured")
    return first, second


def _counted(mask: ArrayLike | None, like: _Values) -> _Mask:
    own = np.ones(like.shape, bool) if mask is None else np.asarray(mask, bool)
    if own.shape != like.shape:
        raise ValueError(f"the mask must be as the values, got {own.shape} and {like.shape}")
    return own


def _centred_ranks(values: _Values, mask: _Mask) -> _Values:
    """Half the number of smaller minus larger entries among those that count: ranks up to a constant, ties shared."""
    ranks = np.sum(np.sign(values[..., :, None] - values[..., None, :]) * mask[..., None, :], axis=-1) / 2
    mean = np.sum(ranks * mask, axis=-1, keepdims=True) / np.maximum(mask.sum(-1, keepdims=True), 1)
    return (ranks - mean) * mask


def _mean_correlation(first: _Values, second: _Values, mask: _Mask) -> float:
    """Over instants with two modes or more at which neither side is constant."""
    size = np.sqrt(np.sum(first**2, axis=-1) * np.sum(second**2, axis=-1))
    counted = (mask.sum(-1) >= 2) & (size > 1e-9)
    return float(np.mean(np.sum(first * second, axis=-1)[counted] / size[counted])) if counted.any() else float("nan")
