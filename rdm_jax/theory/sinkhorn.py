"""Sinkhorn-Knopp assignments, and their linear regime (docs/theory.md T12)."""

import math
from functools import partial

import jax
import jax.numpy as jnp

from rdm_jax._checks import as_features, poison
from rdm_jax.theory import _modes
from rdm_jax.types import Array, ArrayLike, Features

__all__ = ["sinkhorn_knopp", "sinkhorn_linearisation"]

# Axes of (samples, clusters) in the order in which an iteration normalises: a row is summed over axis 1.
_ORDERS = {"rows-first": (1, 0), "columns-first": (0, 1)}


def sinkhorn_knopp(scores: ArrayLike, epsilon: ArrayLike, iterations: int = 3, order: str = "rows-first") -> Features:
    """Assignments of total mass 1 from k full iterations on exp(S / eps): rows to 1/n each, columns to 1/K each.

    The half-step that comes last holds exactly; many iterations give the fixed point, where both do. Computed with
    logarithms, so no epsilon overflows. SwAV's order is "columns-first" (clusters, then samples), and it multiplies
    the result by n.

    Args:
        scores: (n, K) S, one row per sample, one column per cluster.
        epsilon: eps > 0, a scalar in the unit of the scores.
        iterations: k >= 1 full iterations (a row and a column step each), static under jit.
        order: "rows-first" or "columns-first".

    Returns:
        (n, K) nonnegative assignments that sum to 1. NaN under jit for invalid input.

    Raises:
        ValueError: scores that are not a finite (n, K) batch; an epsilon that is not a positive finite scalar; fewer
            than 1 iteration; another order.

    Source: docs/theory.md T12; Cuturi 2013, Caron et al. 2020 (SwAV).

    >>> plan = sinkhorn_knopp(jnp.array([[jnp.log(4.0), 0.0], [0.0, 0.0]]), 1.0, 50)  # a/b = sqrt(4), a + b = 1/2
    >>> [round(float(p), 4) for p in plan[0]]
    [0.3333, 0.1667]
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    if order not in _ORDERS:
        raise ValueError(f'order must be "rows-first" or "columns-first", got {order!r}')
    matrix, finite = as_features(scores, "scores")
    scale, valid = _modes.read_scale(epsilon, matrix, "epsilon")
    return poison(jnp.exp(_iterate(matrix / scale, iterations, _ORDERS[order])), finite & valid)


def sinkhorn_linearisation(scores: ArrayLike, epsilon: ArrayLike) -> Features:
    """First order of Sinkhorn-Knopp in 1/eps, the same for every k >= 1 and either order: double centering.

    (1/(n K)) (1 + (S - row mean - column mean + grand mean) / eps) + O(1/eps^2)

    Args:
        scores: (n, K) S, one row per sample, one column per cluster.
        epsilon: eps > 0, a scalar in the unit of the scores.

    Returns:
        (n, K) assignments with rows summing to 1/n and columns to 1/K (entries may be negative for small eps). NaN
        under jit for invalid input.

    Raises:
        ValueError: scores that are not a finite (n, K) batch; an epsilon that is not a positive finite scalar.

    Source: docs/theory.md T12.

    >>> [round(float(p), 4) for p in sinkhorn_linearisation(jnp.array([[4.0, 0.0], [0.0, 0.0]]), 10.0)[0]]
    [0.275, 0.225]
    """
    matrix, finite = as_features(scores, "scores")
    scale, valid = _modes.read_scale(epsilon, matrix, "epsilon")
    centered = matrix - jnp.mean(matrix, axis=0, keepdims=True)
    centered = centered - jnp.mean(centered, axis=1, keepdims=True)
    return poison((1 + centered / scale) / matrix.size, finite & valid)


@partial(jax.jit, static_argnums=(1, 2))
def _iterate(logs: Array, iterations: int, axes: tuple[int, int]) -> Array:
    def once(_: ArrayLike, logs: Array) -> Array:
        for axis in axes:
            logs = logs - jax.nn.logsumexp(logs, axis=axis, keepdims=True) - math.log(logs.shape[1 - axis])
        return logs

    return jax.lax.fori_loop(0, iterations, once, logs)
