"""What the linear dynamics conserve, where they end, and how eigenspaces align (docs/theory.md T13, T14, T15, S8)."""

from typing import NamedTuple

import jax.numpy as jnp

from rdm_jax._checks import as_floating, poison, require, rounding
from rdm_jax.dynamics._numbers import read_number
from rdm_jax.spectra import eigenvalues
from rdm_jax.types import Array, ArrayLike, Batched, Flag, Moment

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
    """Of a balanced mode: its predictor at the basin's edge, p-, and its stable state p+, s+, lambda+ = (x + xi) s+."""

    edge: Batched
    predictor: Batched
    encoder: Batched
    spectrum: Batched


class AlignmentBound(NamedTuple):
    """``matrix``: K (d, d). ``decay``: 2 lambda_min(K), the rate at which |L|_F falls at least (if it is positive)."""

    matrix: Moment
    decay: Batched


def conserved_modes(predictor: ArrayLike, encoder: ArrayLike, predictor_rate: ArrayLike = 1.0) -> Array:
    """c_j = s_j - p_j^2 / alpha_p, which is c_j(0) exp(-2 eta t) along the flow, whatever noise and target are.

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
    return as_floating(encoder, "encoder") - as_floating(predictor, "predictor") ** 2 / jnp.asarray(predictor_rate)


def conserved_matrix(predictor: ArrayLike, encoder: ArrayLike, predictor_rate: ArrayLike = 1.0) -> Array:
    """C = W W^T - W_p^T W_p / alpha_p, which is C(0) exp(-2 eta t) for any X, X' and W_a and any learned W_p.

    Not for a symmetrised predictor, unless the branches are aligned.

    Args:
        predictor: (..., d, d) W_p.
        encoder: (..., d, k) W.
        predictor_rate: alpha_p > 0.

    Returns:
        (..., d, d).

    Source: docs/theory.md T13 (a).

    >>> conserved_matrix([[2.0, 0.0], [0.0, 0.0]], [[1.0], [3.0]], 2.0).tolist()
    [[-1.0, 3.0], [3.0, 9.0]]
    """
    head, weights = as_floating(predictor, "predictor"), as_floating(encoder, "encoder")
    return _product(weights, weights.mT) - _product(head.mT, head) / jnp.asarray(predictor_rate)


def critical_weight_decay(noise: ArrayLike, *, signal: ArrayLike = 1.0, target_ratio: ArrayLike = 1.0) -> Batched:
    """The weight decay above which a balanced mode collapses from any start: tau^2 x^2 / (4 (x + xi)).

    Args:
        noise: (...) xi >= 0, an eigenvalue of X' (sigma^2 in T13).
        signal: (...) x > 0, an eigenvalue of X.
        target_ratio: (...) tau > 0.

    Returns:
        (...) eta in the unit of 1 / time. NaN under jit for invalid input.

    Raises:
        ValueError: noise negative, signal or target ratio not positive, or not finite.

    Source: docs/theory.md T13 (c).

    >>> round(float(critical_weight_decay(0.3)), 6)
    0.192308
    """
    drive, moment, valid = _drive(noise, signal, target_ratio)
    return poison(drive**2 / (4 * moment), valid)


def fixed_points(
    noise: ArrayLike,
    weight_decay: ArrayLike,
    *,
    signal: ArrayLike = 1.0,
    predictor_rate: ArrayLike = 1.0,
    target_ratio: ArrayLike = 1.0,
) -> FixedPoints:
    """The non-trivial fixed points of a balanced mode, roots of (x + xi) p^2 - tau x p + eta = 0; s = p^2 / alpha_p.

    p+ = (tau x + sqrt(tau^2 x^2 - 4 eta (x + xi))) / (2 (x + xi)),    p- = eta / ((x + xi) p+)

    A mode that starts balanced below p- collapses, one above ends at p+.

    Args:
        noise: (...) xi >= 0, an eigenvalue of X' (sigma^2 in T13).
        weight_decay: (...) eta >= 0, at most ``critical_weight_decay``.
        signal: (...) x > 0, an eigenvalue of X.
        predictor_rate: (...) alpha_p > 0.
        target_ratio: (...) tau > 0.

    Returns:
        FixedPoints of (...) arrays. NaN under jit for invalid input, and above the critical weight decay.

    Raises:
        ValueError: a weight decay above the critical one; numbers out of range.

    Source: docs/theory.md T13 (c).

    >>> [round(float(value), 6) for value in fixed_points(0.3, 0.01)]
    [0.010133, 0.759097, 0.576229, 0.749097]
    """
    found, exists, valid = _roots(noise, weight_decay, signal, predictor_rate, target_ratio)
    require(
        exists,
        f"weight_decay {weight_decay} exceeds the critical value tau^2 x^2 / (4 (x + xi)) = "
        f"{critical_weight_decay(noise, signal=signal, target_ratio=target_ratio)}: there the only "
        "fixed point is 0, to which every mode collapses; lower it, or use plateau, which has such modes at 0",
    )
    return FixedPoints(*(poison(value, valid & exists) for value in found))


def plateau(
    noise: ArrayLike,
    weight_decay: ArrayLike,
    *,
    signal: ArrayLike = 1.0,
    predictor_rate: ArrayLike = 1.0,
    target_ratio: ArrayLike = 1.0,
) -> FixedPoints:
    """Where balanced modes end that start above their edge, for commuting X = diag(x), X' = diag(xi): p+, s+, lambda+.

    As ``fixed_points``, but modes whose critical weight decay is exceeded are at 0.

    Args:
        noise: (..., k) xi >= 0, eigenvalues of X'.
        weight_decay: eta >= 0.
        signal: (..., k) x > 0, eigenvalues of X.
        predictor_rate: alpha_p > 0.
        target_ratio: tau > 0.

    Returns:
        FixedPoints of (..., k) arrays; of a collapsed mode the edge is inf and the rest 0. NaN under jit for invalid
        input.

    Raises:
        ValueError: numbers out of range.

    Source: docs/theory.md T15 (the plateau of the anisotropic case).

    >>> [round(float(p), 6) for p in plateau(jnp.array([0.3, 30.0]), 0.01).predictor]
    [0.759097, 0.0]
    """
    found, exists, valid = _roots(noise, weight_decay, signal, predictor_rate, target_ratio)
    collapsed = (jnp.inf, 0.0, 0.0, 0.0)
    return FixedPoints(*(poison(jnp.where(exists, x, y), valid) for x, y in zip(found, collapsed, strict=True)))


def commutator(first: ArrayLike, second: ArrayLike) -> Array:
    """L = A B - B A; that of W W^T and a symmetric W_p is 0 iff they share an eigenbasis.

    Args:
        first: (..., d, d) A.
        second: (..., d, d) B.

    Returns:
        (..., d, d).

    Source: docs/theory.md T14.

    >>> commutator([[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]]).tolist()
    [[1.0, 0.0], [0.0, -1.0]]
    """
    left, right = as_floating(first, "first"), as_floating(second, "second")
    return _product(left, right) - _product(right, left)


def alignment_bound(
    predictor: ArrayLike,
    encoder: ArrayLike,
    *,
    noise: ArrayLike,
    weight_decay: ArrayLike = 0.0,
    predictor_rate: ArrayLike = 1.0,
    target_ratio: ArrayLike = 1.0,
) -> AlignmentBound:
    """How fast the eigenspaces align under a symmetrised predictor: L' = -(K L + L K) for L = [W W^T, W_p].

    K = (1 + sigma^2) (W_p^2 + (alpha_p / 2) W W^T) - tau W_p + (3/2) eta I,    X = I, X' = sigma^2 I, W_a = tau W

    While lambda_min(K) >= k > 0, |L|_F decays at least as exp(-2 k t).

    Args:
        predictor: W_p (d, d), symmetric.
        encoder: W (d, k).
        noise: sigma^2 >= 0.
        weight_decay: eta >= 0.
        predictor_rate: alpha_p > 0.
        target_ratio: tau.

    Returns:
        AlignmentBound(K, 2 lambda_min(K)). NaN under jit for invalid input.

    Raises:
        ValueError: a predictor that is not symmetric; shapes that do not fit; numbers out of range.

    Source: docs/theory.md T14.

    >>> round(float(alignment_bound([[0.5]], [[1.0]], noise=0.0, weight_decay=0.1).decay), 4)  # 2 (.25 + .5 - .5 + .15)
    0.8
    """
    head, weights = as_floating(predictor, "predictor"), as_floating(encoder, "encoder")
    if head.ndim != 2 or head.shape != (len(weights), len(weights)):
        raise ValueError(f"predictor must be (d, d) and encoder (d, k) for one d, got {head.shape} and {weights.shape}")
    sigma, sigma_valid = read_number(noise, "noise", head.dtype)
    eta, eta_valid = read_number(weight_decay, "weight_decay", head.dtype)
    alpha, alpha_valid = read_number(predictor_rate, "predictor_rate", head.dtype, positive=True)
    tau, tau_valid = read_number(target_ratio, "target_ratio", head.dtype, sign=False)
    symmetric = jnp.max(jnp.abs(head - head.T)) <= jnp.max(rounding(head))
    require(symmetric, "predictor must be symmetric: the statement is about the symmetrised dynamics")
    size = _product(head, head) + alpha / 2 * _product(weights, weights.T)
    matrix = (1 + sigma) * size - tau * head + 1.5 * eta * jnp.eye(len(head), dtype=head.dtype)
    valid = sigma_valid & eta_valid & alpha_valid & tau_valid & symmetric
    return AlignmentBound(poison(matrix, valid), poison(2 * _smallest_eigenvalue(matrix), valid))


def alignment_threshold(noise: ArrayLike, *, target_ratio: ArrayLike = 1.0) -> Batched:
    """The weight decay above which eigenspaces align from any start: tau^2 / (6 (1 + sigma^2)).

    There lambda_min(K) >= (3/2) eta - tau^2 / (4 (1 + sigma^2)) > 0 (see ``alignment_bound``).

    Args:
        noise: (...) sigma^2 >= 0.
        target_ratio: (...) tau > 0.

    Returns:
        (...) eta in the unit of 1 / time. NaN under jit for invalid input.

    Raises:
        ValueError: noise negative, target ratio not positive, or not finite.

    Source: docs/theory.md T14.

    >>> float(alignment_threshold(1.0, target_ratio=3.0))
    0.75
    """
    drive, moment, valid = _drive(noise, 1.0, target_ratio)
    return poison(drive**2 / (6 * moment), valid)


def lag_rank_difference(rank_rate: ArrayLike, target_rate: ArrayLike) -> Batched:
    """Rank difference that the lag of a moving average makes by itself: -(1 / beta) d erank/dt, up to O(beta^-2).

    Args:
        rank_rate: (...) d erank/dt of W x.
        target_rate: (...) beta > 0.

    Returns:
        (...) erank(W_a x) - erank(W x). NaN under jit for invalid input.

    Raises:
        ValueError: beta not positive and finite.

    Source: docs/theory.md S8.

    >>> float(lag_rank_difference(0.5, 4.0))
    -0.125
    """
    speed = as_floating(rank_rate, "rank_rate")
    beta, valid = read_number(target_rate, "target_rate", speed.dtype, positive=True)
    return poison(-speed / beta, valid)


def _drive(noise: ArrayLike, signal: ArrayLike, target_ratio: ArrayLike) -> tuple[Array, Array, Flag]:
    """tau x, x + xi, and where they are in range."""
    xi, x, tau = (as_floating(v, n) for v, n in ((noise, "noise"), (signal, "signal"), (target_ratio, "target_ratio")))
    quiet, driven = jnp.isfinite(xi) & (xi >= 0), jnp.isfinite(x * tau) & (x > 0) & (tau > 0)
    require(quiet, f"noise must be nonnegative and finite: it is a variance; got {noise}")
    require(driven, f"signal and target_ratio must be positive and finite, got {signal} and {target_ratio}")
    return tau * x, x + xi, quiet & driven


def _roots(
    noise: ArrayLike, weight_decay: ArrayLike, signal: ArrayLike, predictor_rate: ArrayLike, target_ratio: ArrayLike
) -> tuple[FixedPoints, Flag, Flag]:
    """The fixed points, where they exist, and where the numbers are in range."""
    drive, moment, valid = _drive(noise, signal, target_ratio)
    eta, eta_valid = read_number(weight_decay, "weight_decay", moment.dtype)
    alpha, alpha_valid = read_number(predictor_rate, "predictor_rate", moment.dtype, positive=True)
    discriminant = drive**2 - 4 * eta * moment
    # at the critical value itself the difference is rounding, of either sign
    exists = discriminant >= -8 * jnp.finfo(moment.dtype).eps * drive**2
    upper = (drive + jnp.sqrt(jnp.maximum(discriminant, 0))) / (2 * moment)
    # the product of the roots, since their difference cancels where eta is small
    lower = eta / (moment * upper)
    return (
        FixedPoints(lower, upper, upper**2 / alpha, moment * upper**2 / alpha),
        exists,
        valid & eta_valid & alpha_valid,
    )


def _smallest_eigenvalue(matrix: Moment) -> Array:
    """Of a symmetric matrix that need not be positive: shifted by its norm it is a moment."""
    shift = jnp.linalg.norm(matrix)
    return eigenvalues((matrix + matrix.T) / 2 + shift * jnp.eye(len(matrix), dtype=matrix.dtype))[-1] - shift


def _product(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, precision="highest")
