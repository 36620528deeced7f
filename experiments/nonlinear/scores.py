"""How well rates agree where only some modes count; otherwise as ``rdm_jax.agreement``.

Arrays are (instants, d), with a mask of the modes that count; instants with fewer than four of them are left out.
"""

from collections.abc import Callable, Mapping

import numpy as np

LEAST = 4
SHUFFLES = 100
Statistic = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


def rank_correlation(predicted: np.ndarray, measured: np.ndarray, mask: np.ndarray) -> float:
    """Spearman's, over the modes that count, averaged over instants."""
    first, second = (centred(ranks(values, mask), mask) for values in (predicted, measured))
    size = np.sqrt(np.sum(first**2, -1) * np.sum(second**2, -1))
    counted = (mask.sum(-1) >= LEAST) & (size > 0)
    return float(np.mean(np.sum(first * second, -1)[counted] / size[counted])) if counted.any() else np.nan


def partial_rank_correlation(order: np.ndarray) -> Statistic:
    """The same for what is left of both sides' ranks once those of a third quantity are regressed out, by instant."""

    def statistic(predicted: np.ndarray, measured: np.ndarray, mask: np.ndarray) -> float:
        third = centred(ranks(order, mask), mask)
        size = np.maximum(np.sum(third**2, -1, keepdims=True), 1e-30)
        left = []
        for values in (predicted, measured):
            rank = centred(ranks(values, mask), mask)
            left.append(rank - np.sum(rank * third, -1, keepdims=True) / size * third)
        norm = np.sqrt(np.sum(left[0] ** 2, -1) * np.sum(left[1] ** 2, -1))
        counted = (mask.sum(-1) >= LEAST) & (norm > 1e-9)
        return float(np.mean(np.sum(left[0] * left[1], -1)[counted] / norm[counted])) if counted.any() else np.nan

    return statistic


def explained(predicted: np.ndarray, measured: np.ndarray, mask: np.ndarray) -> float:
    """Share of sum measured^2 that the prediction explains after one scale factor >= 0 for the whole run."""
    counted = mask & (mask.sum(-1, keepdims=True) >= LEAST)
    first, second = predicted[counted], measured[counted]
    if not np.any(first) or not np.any(second):
        return np.nan
    return float(max(np.sum(first * second), 0) ** 2 / (np.sum(first**2) * np.sum(second**2)))


def chance(statistic: Statistic, predicted: np.ndarray, measured: np.ndarray, mask: np.ndarray, seed: int) -> float:
    """What one in twenty shufflings of the modes that count exceeds."""
    rng = np.random.default_rng(seed)
    reached = [statistic(shuffled(predicted, mask, rng), measured, mask) for _ in range(SHUFFLES)]
    return float(np.quantile(reached, 0.95))


def shuffled(values: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each instant's values permuted over the modes that count."""
    places = np.argsort(~mask, axis=-1, kind="stable")
    drawn = np.argsort(np.where(mask, rng.random(mask.shape), 2), axis=-1, kind="stable")
    out = np.empty_like(values)
    np.put_along_axis(out, places, np.take_along_axis(values, drawn, -1), -1)
    return out


def ranks(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Half the number of smaller minus larger ones among those that count."""
    return np.sum(np.sign(values[:, :, None] - values[:, None, :]) * mask[:, None, :], axis=2) / 2


def centred(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Without their mean over the modes that count, 0 elsewhere."""
    mean = np.sum(values * mask, -1, keepdims=True) / np.maximum(mask.sum(-1, keepdims=True), 1)
    return (values - mean) * mask


def spread(values: np.ndarray) -> Mapping[str, np.ndarray]:
    """Mean, least and largest over the seeds, the first axis."""
    return {"mean": np.mean(values, 0), "low": np.min(values, 0), "high": np.max(values, 0)}
