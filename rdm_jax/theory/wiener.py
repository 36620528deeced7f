"""The Wiener filter: threshold, predictors, and the rank difference they predict (docs/theory.md S1-S4, T3)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rdm_jax._checks import as_floating, poison, require, rounding
from rdm_jax.spectra import effective_rank
from rdm_jax.spectra.decompose import eigensystem
from rdm_jax.theory import _modes
from rdm_jax.types import Array, ArrayLike, Batched, Flag, Gains, Moment, Spectrum

__all__ = [
    "RankDifferenceTerms",
    "lagging_predictor_gains",
    "predicted_rank_difference",
    "rank_difference_decomposition",
    "wiener_gains",
    "wiener_predictor",
    "wiener_threshold",
]


class RankDifferenceTerms(NamedTuple):
    """The two terms that add up to log erank(target) - log erank(online), in nats."""

    kl: Batched
    covariance: Batched


def wiener_threshold(
    spectrum: ArrayLike,
    *,
    online_gains: ArrayLike | None = None,
    target_gains: ArrayLike | None = None,
    signal: ArrayLike | None = None,
) -> Gains:
    """How far the actual filter is from the Wiener filter: theta_i = h_i m_i / (lambda_i g_i).

    Under the mean-field cosine erank rises iff theta is negatively correlated with log lambda under the online
    spectrum q_p: surely if theta is nonincreasing in lambda (the filter is more low-pass than m / lambda).

    Args:
        spectrum: (..., d) eigenvalues lambda of the second moment.
        online_gains: (..., d) gains g >= 0; None: 1.
        target_gains: (..., d) gains h >= 0; None: 1.
        signal: (..., d) m in the unit of lambda; None: no view noise, m = lambda.

    Returns:
        (..., d) theta, without unit for gains without unit; 0 where lambda = 0 or g = 0 (mask these: they have
        no weight in q_p). NaN under jit for invalid input.

    Raises:
        ValueError: invalid spectrum; gains negative, or gains or signal not finite, on the support.

    Source: docs/theory.md S1.

    >>> spectrum, signal, low_pass = jnp.array([4.0, 2.0]), jnp.array([3.0, 1.0]), jnp.array([1.0, 0.5])
    >>> [float(theta) for theta in wiener_threshold(spectrum, online_gains=low_pass, signal=signal)]
    [0.75, 1.0]
    """
    modes = _modes.read_modes(spectrum, online_gains, target_gains, signal)
    return poison(_modes.per_gain(modes.target * modes.ratio, modes), modes.valid[..., None])


def wiener_gains(spectrum: ArrayLike, noise: ArrayLike, ridge: ArrayLike = 0.0) -> Gains:
    """Gains of the optimal linear predictor under isotropic view noise: g = max(lambda - nu, 0) / (lambda + rho).

    Args:
        spectrum: (..., d) eigenvalues lambda of the second moment (signal and noise together).
        noise: nu >= 0 in the unit of lambda; a scalar or one per spectrum.
        ridge: rho >= 0 in the unit of lambda; a scalar or one per spectrum.

    Returns:
        (..., d) gains on singular values in [0, 1], 0 off the support. NaN under jit for invalid input.

    Raises:
        ValueError: invalid spectrum; noise or ridge negative or not finite.

    Source: docs/theory.md T3 (the clip at 0 is for noise that exceeds lambda by estimation error).

    >>> [round(float(g), 4) for g in wiener_gains(jnp.array([4.0, 2.0, 0.5]), 1.0, 1.0)]
    [0.6, 0.3333, 0.0]
    """
    eigenvalues, valid = _modes.read_spectrum(spectrum)
    floor, floor_valid = _modes.read_per_batch(noise, eigenvalues, "noise")
    shrink, shrink_valid = _modes.read_per_batch(ridge, eigenvalues, "ridge")
    on = eigenvalues > 0
    gains = jnp.maximum(eigenvalues - floor, 0) / _modes.only(on, eigenvalues + shrink, 1.0)
    return poison(_modes.only(on, gains), (valid & floor_valid & shrink_valid)[..., None])


def wiener_predictor(signal_moment: ArrayLike, feature_moment: ArrayLike, ridge: ArrayLike = 0.0) -> Moment:
    """The optimal linear predictor W = C_m (C_z + rho I)^-1 = argmin E|W z - z+|^2 + rho |W|_F^2.

    Of minimal norm where C_z + rho I is singular: eigenvalues within rounding of 0 are inverted to 0. Differentiable
    where the rank of C_z + rho I does not change.

    Args:
        signal_moment: (d, d) C_m = E[z+ z^T]; it need not be symmetric, nor commute with C_z.
        feature_moment: (d, d) C_z = E[z z^T].
        ridge: rho >= 0, a scalar in the unit of the moments.

    Returns:
        (d, d) matrix that acts on features from the left. NaN under jit for invalid input.

    Raises:
        ValueError: moments that are not two finite square matrices of one size; a ridge that is negative or not
            finite; a C_z that is not a second moment.

    Source: docs/theory.md T3.

    >>> predictor = wiener_predictor(jnp.diag(jnp.array([3.0, 0.0])), jnp.diag(jnp.array([4.0, 0.0])), 2.0)
    >>> [round(float(w), 4) for w in jnp.diag(predictor)]
    [0.5, 0.0]
    """
    signal, feature = as_floating(signal_moment, "signal_moment"), as_floating(feature_moment, "feature_moment")
    if signal.ndim != 2 or signal.shape != feature.shape or signal.shape[0] != signal.shape[1]:
        raise ValueError(f"both moments must be (d, d) for one d, got {signal.shape} and {feature.shape}")
    shrink = as_floating(ridge, "ridge")
    valid = jnp.all(jnp.isfinite(signal)) & jnp.isfinite(shrink) & (shrink >= 0)
    require(valid, "signal_moment must be finite and ridge finite and nonnegative; check what they were computed from")
    inverse = _ridge_inverse(feature, shrink)
    first = jax.lax.stop_gradient(_product(signal, inverse))
    # one step of refinement: it changes nothing but rounding, and carries the gradient that eigensystem stops
    residual = signal - _product(first, feature) - shrink * first
    return poison(first + _product(residual, inverse), valid)


def lagging_predictor_gains(
    spectrum: ArrayLike, signal: ArrayLike, ridge: ArrayLike = 0.0, progress: ArrayLike = jnp.inf
) -> Gains:
    """Gains of a ridge predictor that gradient flow has trained from zero for a while, features held fixed.

    g_i = m_i / (lambda_i + rho) (1 - exp(-alpha t (lambda_i + rho))),    W' = alpha (E[z+ z^T] - W (C_z + rho I))

    Args:
        spectrum: (..., d) eigenvalues lambda of the second moment.
        signal: (..., d) m >= 0 in the unit of lambda.
        ridge: rho >= 0 in the unit of lambda; a scalar or one per spectrum.
        progress: alpha t >= 0 in the unit of 1 / lambda, inf for a converged predictor; scalar or one per spectrum.

    Returns:
        (..., d) gains on singular values, 0 off the support. NaN under jit for invalid input.

    Raises:
        ValueError: invalid spectrum; signal, ridge or progress negative or NaN.

    Source: docs/theory.md S2.

    >>> gains = lagging_predictor_gains(jnp.array([2.0, 1.0]), jnp.array([1.0, 1.0]), 0.0, jnp.log(2.0))
    >>> [round(float(g), 4) for g in gains]  # 1/2 (1 - 1/4), 1 - 1/2
    [0.375, 0.5]
    """
    eigenvalues, valid = _modes.read_spectrum(spectrum)
    moments, moments_valid = _modes.read_per_mode(signal, eigenvalues, "signal")
    shrink, shrink_valid = _modes.read_per_batch(ridge, eigenvalues, "ridge")
    reached, reached_valid = _modes.read_per_batch(progress, eigenvalues, "progress", finite=False)
    on = eigenvalues > 0
    stiffness = _modes.only(on, eigenvalues + shrink, 1.0)
    gains = moments / stiffness * _learned_share(stiffness, reached)
    return poison(_modes.only(on, gains), (valid & moments_valid & shrink_valid & reached_valid)[..., None])


def predicted_rank_difference(spectrum: ArrayLike, gains: ArrayLike) -> Batched:
    """Rank difference (eig) that a filter on the online features makes: erank(lambda) - erank(g^2 lambda).

    Evaluated as erank(g^2 lambda) (exp(D) - 1) with D from ``rank_difference_decomposition``, so that a nearly constant
    filter still gets all digits.

    Args:
        spectrum: (..., d) eigenvalues lambda of the target's second moment.
        gains: (..., d) gains g >= 0 on singular values, not all 0 on the support.

    Returns:
        (...) erank(target) - erank(online). NaN under jit for invalid input.

    Raises:
        ValueError: invalid spectrum; gains negative or not finite, or all 0, on the support.

    Source: docs/theory.md T3, S4.

    >>> round(float(predicted_rank_difference(jnp.array([1.0, 1.0]), jnp.array([1.0, 0.0]))), 4)
    1.0
    """
    eigenvalues, factors, valid = _read_gains(spectrum, gains)
    kl, spread = _decompose(eigenvalues, factors)
    online = effective_rank(_modes.relative(factors) ** 2 * _modes.relative(eigenvalues))
    return poison(online * jnp.expm1(kl + spread), valid)


def rank_difference_decomposition(spectrum: ArrayLike, gains: ArrayLike) -> RankDifferenceTerms:
    """Size of the rank difference (eig) as two terms, both nonnegative for a low-pass filter.

    log erank(t) - log erank(p) = KL(q_p || q_t) + Cov_{q_t}(w, log lambda) / E_{q_t}[w],    w = g^2

    with q_t = lambda / sum(lambda), q_p = w lambda / sum(w lambda). With u = w / E_{q_t}[w], KL is summed as
    E_{q_t}[u log u - u + 1], no term of which is negative.

    Args:
        spectrum: (..., d) eigenvalues lambda of the target's second moment.
        gains: (..., d) gains g >= 0 on singular values, not all 0 on the support.

    Returns:
        RankDifferenceTerms(kl, covariance), each (...) in nats. NaN under jit for invalid input.

    Raises:
        ValueError: invalid spectrum; gains negative or not finite, or all 0, on the support.

    Source: docs/theory.md S4.

    >>> terms = rank_difference_decomposition(jnp.array([1.0, 1.0]), jnp.array([1.0, 0.0]))
    >>> round(float(terms.kl), 4), round(float(terms.covariance), 4)  # log 2, and a flat spectrum has no covariance
    (0.6931, 0.0)
    """
    eigenvalues, factors, valid = _read_gains(spectrum, gains)
    kl, spread = _decompose(eigenvalues, factors)
    return RankDifferenceTerms(kl=poison(kl, valid), covariance=poison(spread, valid))


def _read_gains(spectrum: ArrayLike, gains: ArrayLike) -> tuple[Spectrum, Gains, Flag]:
    eigenvalues, valid = _modes.read_spectrum(spectrum)
    factors, usable = _modes.read_per_mode(gains, eigenvalues, "gains")
    nonzero = jnp.max(factors, axis=-1) > 0
    require(nonzero, "gains are 0 on the whole support: the online output vanishes and has no effective rank")
    return jnp.broadcast_to(eigenvalues, factors.shape), factors, valid & usable & nonzero


def _ridge_inverse(feature: Moment, ridge: Array) -> Moment:
    """(C + rho I)^-1 on the eigenvectors whose lambda + rho is not rounding, 0 on the others."""
    values, vectors = eigensystem(feature)
    shifted = values + jax.lax.stop_gradient(ridge)
    kept = shifted > rounding(values)
    inverse = _modes.only(kept, 1 / jnp.where(kept, shifted, 1))
    return _product(vectors * inverse[None, :], vectors.T)


def _product(left: Moment, right: Moment) -> Moment:
    return jnp.matmul(left, right, precision="highest")


def _learned_share(stiffness: Array, progress: Array) -> Array:
    # inf times a derivative of 0 is NaN, so a converged predictor is a case of its own
    converged = jnp.isinf(progress)
    return jnp.where(converged, 1, -jnp.expm1(-jnp.where(converged, 0, progress) * stiffness))


def _decompose(spectrum: Spectrum, gains: Gains) -> tuple[Batched, Batched]:
    excess = _squared_excess(gains, spectrum)
    kl = _modes.weighted_mean(_modes.only(spectrum > 0, _bregman(excess)), spectrum)[..., 0]
    return kl, _modes.covariance(excess, _modes.log_deviation(spectrum, spectrum), spectrum)


def _squared_excess(gains: Gains, weights: Array) -> Array:
    """w / E[w] - 1 for w = g^2; a difference of squares as a product, so that nearly constant gains lose no digits."""
    scale = jax.lax.stop_gradient(jnp.max(gains, axis=-1, keepdims=True))
    mean = _modes.weighted_mean(gains, weights)
    from_mean = (gains - mean) / scale * ((gains + mean) / scale)
    return _modes.deviation(from_mean, weights) / _modes.weighted_mean((gains / scale) ** 2, weights)


def _bregman(excess: Array) -> Array:
    """u log u - u + 1 for u = 1 + excess >= 0, to relative rounding also near u = 1."""
    near = jnp.abs(excess) < 0.2
    small, large = _modes.only(near, excess), jnp.where(near, 0, excess)
    log = jnp.log1p(_modes.only(large > -1, large))
    return jnp.where(near, _bregman_near_one(small), (1 + large) * log - large)


def _bregman_near_one(excess: Array) -> Array:
    # log(1 + x) = 2 atanh(y), 1 + x = (1 + y) / (1 - y) with y = x / (2 + x): |y| < 0.12, so nine terms reach 1e-17
    y = excess / (2 + excess)
    beyond = jnp.polyval(jnp.array([1 / (2 * k + 1) for k in range(9, 0, -1)], y.dtype), y**2) * y**2
    return 2 * y * (beyond + y * (1 + beyond)) / (1 - y)
