"""How well growth rates and the speed of the effective rank were predicted, beside what shuffled modes reach.

A rate's absolute size is not predicted: the optimiser's steps and the network's kernel scale it. What counts is which
modes grow faster than the whole spectrum; and for the rank, its sign.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from rdm_jax.agreement import (
    chance,
    partial_rank_correlation,
    rank_correlation,
    scaled_explained_variance,
    shuffled,
    sign_hits,
)

__all__ = ["Rates", "entropy_speed", "judge_rates", "judge_signs", "ladder", "relative_rates"]

RESOLVED = 1e-3  # of the largest eigenvalue: smaller ones are not followed
LEAST = 4  # modes that an instant must have to count
SHUFFLES = 100
RUNGS = ("predicted", "free", "flow", "measured")
STEPS = tuple(f"{before} -> {after}" for before, after in pairwise(RUNGS))


class Rates(NamedTuple):
    """Growth rates (instants, d) less their mean under the spectrum, which count, log lambda, the instants' seeds."""

    predicted: np.ndarray
    free: np.ndarray
    flow: np.ndarray
    measured: np.ndarray
    mask: np.ndarray
    logs: np.ndarray
    seed: np.ndarray


def relative_rates(
    spectrum: np.ndarray,
    kept: np.ndarray,
    seed: np.ndarray,
    *,
    predicted: np.ndarray,
    free: np.ndarray,
    flow: np.ndarray,
    measured: np.ndarray,
) -> Rates:
    """Rates at the instants at which four modes or more are resolved and were found again.

    Args:
        spectrum: (instants, d) eigenvalues, largest first.
        kept: (instants, d) which modes were found again (``follow``).
        seed: (instants,) of the run that each belongs to.
        predicted: (instants, d) from the measured state.
        free: likewise of free features.
        flow: likewise of the gradient flow; NaN, as for ``free``, where they were not computed.
        measured: from one probe to the next.

    Returns:
        The rates.

    >>> values = np.array([[4.0, 3.0, 2.0, 1.0]])
    >>> same = dict.fromkeys(("predicted", "free", "flow", "measured"), values)
    >>> rate = relative_rates(values, values > 0, np.zeros(1), **same)
    >>> rate.predicted.round(2).tolist()
    [[1.0, 0.0, -1.0, -2.0]]
    """
    shares = spectrum / spectrum.sum(-1, keepdims=True)
    four = (predicted, free, flow, measured)
    apart = [values - np.sum(shares * values, -1, keepdims=True) for values in four]
    mask = kept & (spectrum > RESOLVED * spectrum[..., :1])
    enough = mask.sum(-1) >= LEAST
    logs = np.log(np.maximum(spectrum, 1e-30))
    return Rates(*(values[enough] for values in (*apart, mask, logs, seed)))


def judge_rates(rate: Rates, seed: int) -> dict[str, dict[str, float]]:
    """Agreement of predicted and measured rates, what shuffled modes reach, and the spread over the runs' seeds.

    Args:
        rate: of ``relative_rates``.
        seed: of the shuffles.

    Returns:
        ``rank correlation``, the same ``beyond`` the order of the eigenvalues, and ``explained variance`` after one
        scale factor, each with ``measured``, ``chance`` (one shuffling in 20 does better) and ``spread``; NaN where
        no instant counts.

    >>> values = np.array([[4.0, 3.0, 2.0, 1.0]])
    >>> same = dict.fromkeys(("predicted", "free", "flow", "measured"), values)
    >>> rate = relative_rates(values, values > 0, np.zeros(1), **same)
    >>> round(judge_rates(rate, 0)["rank correlation"]["measured"], 4)
    1.0
    """
    names: dict[str, Callable[[np.ndarray], Callable[..., float]]] = {
        "rank correlation": lambda own: rank_correlation,
        "beyond": lambda own: partial(partial_rank_correlation, given=rate.logs[own]),
        "explained variance": lambda own: scaled_explained_variance,
    }
    everything = np.ones(len(rate.mask), bool)
    if not len(rate.mask):
        return {name: dict.fromkeys(("measured", "chance", "spread"), float("nan")) for name in names}
    found = {}
    for name, make in names.items():
        by_seed = [_of(make(own), rate, own) for own in (rate.seed == one for one in np.unique(rate.seed))]
        ends = rate.predicted, rate.measured, rate.mask
        found[name] = {
            "measured": _of(make(everything), rate, everything),
            "chance": chance(make(everything), *ends, seed=seed, shuffles=SHUFFLES),
            "spread": _spread(by_seed),
        }
    return found


def ladder(rate: Rates) -> dict[str, float]:
    """Rank correlation of each pair of neighbouring rates: where a prediction is lost.

    Args:
        rate: of ``relative_rates``.

    Returns:
        By step, such as ``predicted -> free``; NaN where a rate was not computed.

    >>> values = np.array([[4.0, 3.0, 2.0, 1.0]])
    >>> same = dict.fromkeys(("predicted", "free", "measured"), values)
    >>> rate = relative_rates(values, values > 0, np.zeros(1), flow=-values, **same)
    >>> ladder(rate)
    {'predicted -> free': 1.0, 'free -> flow': -1.0, 'flow -> measured': -1.0}
    """
    found = {}
    for step, (first, second) in zip(STEPS, pairwise(RUNGS), strict=True):
        both = getattr(rate, first), getattr(rate, second)
        known = len(rate.mask) > 0 and all(np.isfinite(values[rate.mask]).all() for values in both)
        found[step] = rank_correlation(*both, rate.mask) if known else float("nan")
    return found


def entropy_speed(spectrum: np.ndarray, rates: np.ndarray) -> np.ndarray | np.float64:
    """dH/dt = -2 Cov_q(r, log lambda) of each instant.

    Args:
        spectrum: (..., d) eigenvalues.
        rates: (..., d) growth rates r.

    Returns:
        (...).

    >>> round(float(entropy_speed(np.array([3.0, 1.0]), np.array([0.0, 1.0]))), 4)  # the smaller one grows
    0.412

    Source: docs/theory.md L2; in NumPy, as records are read back from JSON.
    """
    shares = spectrum / spectrum.sum(-1, keepdims=True)
    logs = np.log(np.maximum(spectrum, 1e-30))
    logs = logs - np.sum(shares * logs, -1, keepdims=True)
    return -2 * np.sum(shares * rates * logs, -1)


def judge_signs(spectrum: np.ndarray, rates: np.ndarray, speed: np.ndarray, seed: int) -> dict[str, float]:
    """How often the rank moved as predicted, beside shuffled modes and beside always naming the more frequent sign.

    Args:
        spectrum: (instants, d) eigenvalues.
        rates: (instants, d) predicted growth rates.
        speed: (instants,) measured d log erank/dt.
        seed: of the shuffles.

    Returns:
        ``hits``, ``chance``, ``frequent`` (shares of the instants) and ``explained`` (of the squared speed, after one
        scale factor); NaN without instants.

    >>> spectrum = np.array([[3.0, 1.0], [3.0, 1.0]])
    >>> rates = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> judge_signs(spectrum, rates, np.array([0.5, -0.5]), 0)["hits"]
    1.0
    """
    if not len(speed):
        return dict.fromkeys(("hits", "chance", "frequent", "explained"), float("nan"))
    rng = np.random.default_rng(seed)
    mask, predicted = spectrum > RESOLVED * spectrum[:, :1], entropy_speed(spectrum, rates)
    reached = [sign_hits(entropy_speed(spectrum, shuffled(rates, mask, rng)), speed) for _ in range(SHUFFLES)]
    rises = float(np.mean(speed > 0))
    return {
        "hits": sign_hits(predicted, speed),
        "chance": float(np.quantile(reached, 0.95)),
        "frequent": max(rises, 1 - rises),
        "explained": scaled_explained_variance(predicted, speed),
    }


def _spread(by_seed: list[float]) -> float:
    known = [value for value in by_seed if np.isfinite(value)]
    return float(np.std(known)) if known else float("nan")


def _of(statistic: Callable[..., float], rate: Rates, own: np.ndarray) -> float:
    return statistic(rate.predicted[own], rate.measured[own], rate.mask[own])
