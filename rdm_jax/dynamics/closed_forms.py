"""What the linear dynamics conserve, where they end, and how eigenspaces align (docs/theory.md T13, T14, S8)."""

from typing import NamedTuple

from rdm_jax.types import Array, ArrayLike, Batched, Moment

__all__ = [
    "AlignmentBound",
    "FixedPoints",
    "alignment_bound",
    "alignment_threshold",
    "commutator",
    "conserved_matrix",
    "conserved_modes",
    "critical_weight_decay",
    "fixed_points",
    "lag_rank_difference",
    "plateau",
]


class FixedPoints(NamedTuple):
    """Of a mode under weight decay: the predictor at the basin's edge p-, and the stable state p+, s+, lambda+."""

    edge: Batched
    predictor: Batched
    encoder: Batched
    spectrum: Batched


class AlignmentBound(NamedTuple):
    """``matrix``: K (d, d); ``decay``: 2 lambda_min(K), so that |L|_F falls at least at this rate (if positive)."""

    matrix: Moment
    decay: Batched


def conserved_modes(predictor: ArrayLike, encoder: ArrayLike, predictor_rate: ArrayLike = 1.0) -> Array:
    """c_j = s_j - p_j^2 / alpha_p, which is c_j(0) exp(-2 eta t) along the flow, whatever the noise and target.

    Args:
        predictor: (..., k) p_j.
        encoder: (..., k) s_j.
        predictor_rate: alpha_p > 0.

    Returns:
        (..., k) in the unit of s.

    Source: docs/theory.md T13 (a).

    >>> float(conserved_modes(2.0, 3.0, 4.0))
    2.0
    """
    raise NotImplementedError


def conserved_matrix(predictor: ArrayLike, encoder: ArrayLike, predictor_rate: ArrayLike = 1.0) -> Array:
    """C = W W^T - W_p^T W_p / alpha_p, which is C(0) exp(-2 eta t) for any X, X', W_a and learned W_p.

    Args:
        predictor: (..., d, d) W_p.
        encoder: (..., d, k) W.
        predictor_rate: alpha_p > 0.

    Returns:
        (..., d, d).

    Source: docs/theory.md T13 (a); not for a symmetrised predictor.

    >>> conserved_matrix([[2.0, 0.0], [0.0, 0.0]], [[1.0], [3.0]], 2.0).tolist()
    [[-1.0, 3.0], [3.0, 9.0]]
    """
    raise NotImplementedError


def critical_weight_decay(noise: ArrayLike, *, signal: ArrayLike = 1.0, target_ratio: ArrayLike = 1.0) -> Batched:
    """The weight decay above which every balanced mode collapses: tau^2 x^2 / (4 (x + xi)).

    Args:
        noise: (...) xi (or sigma^2) >= 0.
        signal: (...) x > 0.
        target_ratio: (...) tau.

    Returns:
        (...) eta in the unit of 1 / time.

    Raises:
        ValueError: noise negative or not finite; a signal that is not positive.

    Source: docs/theory.md T13 (c), T15.

    >>> round(float(critical_weight_decay(0.3)), 6)
    0.192308
    """
    raise NotImplementedError


def fixed_points(
    noise: ArrayLike,
    weight_decay: ArrayLike,
    *,
    signal: ArrayLike = 1.0,
    predictor_rate: ArrayLike = 1.0,
    target_ratio: ArrayLike = 1.0,
) -> FixedPoints:
    """The non-trivial fixed points of a balanced mode, the roots of (x + xi) p^2 - tau x p + eta = 0.

    p+- = (tau x +- sqrt(tau^2 x^2 - 4 eta (x + xi))) / (2 (x + xi)),    s = p^2 / alpha_p,    lambda = (x + xi) s

    A mode with p < p- collapses, one above ends at p+.

    Args:
        noise: (...) xi (or sigma^2) >= 0.
        weight_decay: (...) eta, at most ``critical_weight_decay``.
        signal: (...) x > 0.
        predictor_rate: (...) alpha_p > 0.
        target_ratio: (...) tau > 0.

    Returns:
        FixedPoints of (...) arrays. NaN under jit above the critical weight decay.

    Raises:
        ValueError: a weight decay above the critical one, or negative; as ``critical_weight_decay``.

    Source: docs/theory.md T13 (c), T15.

    >>> [round(float(value), 6) for value in fixed_points(0.3, 0.01)]
    [0.010133, 0.759097, 0.576229, 0.749097]
    """
    raise NotImplementedError


def plateau(
    noise: ArrayLike,
    weight_decay: ArrayLike,
    *,
    signal: ArrayLike = 1.0,
    predictor_rate: ArrayLike = 1.0,
    target_ratio: ArrayLike = 1.0,
) -> FixedPoints:
    """The same for commuting X = diag(x), X' = diag(xi), a mode each; modes above their critical weight decay are at 0.

    Args:
        noise: (..., k) xi >= 0.
        weight_decay: eta >= 0.
        signal: (..., k) x > 0.
        predictor_rate: alpha_p > 0.
        target_ratio: tau > 0.

    Returns:
        FixedPoints of (..., k) arrays; for collapsed modes the edge is inf and the others 0.

    Raises:
        ValueError: as ``fixed_points``, but for the weight decay.

    Source: docs/theory.md T15.

    >>> [round(float(p), 6) for p in plateau(jnp.array([0.3, 30.0]), 0.01).predictor]
    [0.759097, 0.0]
    """
    raise NotImplementedError


def commutator(first: ArrayLike, second: ArrayLike) -> Array:
    """L = A B - B A; of F = W W^T and W_p it vanishes iff they share an eigenbasis.

    Args:
        first: (..., d, d) A.
        second: (..., d, d) B.

    Returns:
        (..., d, d).

    Source: docs/theory.md T14.

    >>> commutator([[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]]).tolist()
    [[1.0, 0.0], [0.0, -1.0]]
    """
    raise NotImplementedError


def alignment_bound(
    predictor: ArrayLike,
    encoder: ArrayLike,
    *,
    noise: ArrayLike,
    weight_decay: ArrayLike = 0.0,
    predictor_rate: ArrayLike = 1.0,
    target_ratio: ArrayLike = 1.0,
) -> AlignmentBound:
    """How fast the eigenspaces of a symmetrised predictor align: L' = -(K L + L K) for L = [W W^T, W_p].

    K = (1 + sigma^2) (W_p^2 + (alpha_p / 2) W W^T) - tau W_p + (3/2) eta I

    Args:
        predictor: W_p (d, d), symmetric.
        encoder: W (d, k).
        noise: sigma^2 >= 0 (X = I, X' = sigma^2 I).
        weight_decay: eta.
        predictor_rate: alpha_p.
        target_ratio: tau of W_a = tau W.

    Returns:
        AlignmentBound(K, 2 lambda_min(K)).

    Raises:
        ValueError: a predictor that is not symmetric, or shapes that do not fit.

    Source: docs/theory.md T14.

    >>> float(alignment_bound([[0.5]], [[1.0]], noise=0.0, weight_decay=0.1).decay)  # 2 (0.25 + 0.5 - 0.5 + 0.15)
    0.8
    """
    raise NotImplementedError


def alignment_threshold(noise: ArrayLike, *, target_ratio: ArrayLike = 1.0) -> Batched:
    """The weight decay above which eigenspaces align from any start: tau^2 / (6 (1 + sigma^2)).

    Args:
        noise: (...) sigma^2 >= 0.
        target_ratio: (...) tau.

    Returns:
        (...) eta in the unit of 1 / time.

    Raises:
        ValueError: noise negative or not finite.

    Source: docs/theory.md T14.

    >>> float(alignment_threshold(1.0, target_ratio=3.0))
    0.75
    """
    raise NotImplementedError


def lag_rank_difference(rank_rate: ArrayLike, target_rate: ArrayLike) -> Batched:
    """Rank difference that the lag of a moving average makes alone: -(1 / beta) d erank/dt, up to O(beta^-2).

    Args:
        rank_rate: (...) d erank/dt of W x.
        target_rate: (...) beta > 0.

    Returns:
        (...) erank(W_a x) - erank(W x).

    Raises:
        ValueError: a rate beta that is not positive.

    Source: docs/theory.md S8.

    >>> float(lag_rank_difference(0.5, 4.0))
    -0.125
    """
    raise NotImplementedError
