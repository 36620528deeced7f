"""Softmax at a high temperature: the linear regime of sharpening, for uncentred outputs (docs/theory.md T11)."""

import jax.numpy as jnp

from rdm_jax._checks import as_features, as_floating, poison, require
from rdm_jax.theory import _modes
from rdm_jax.types import Array, ArrayLike, Batched, Features, Flag, Spectrum

__all__ = ["sharpening_threshold", "softmax_linearisation", "softmax_spectrum", "softmax_spectrum_from_mean"]


def softmax_linearisation(logits: ArrayLike, temperature: ArrayLike) -> Features:
    """First order of a softmax in 1/tau: softmax(y / tau) = (1/K) (1 + (y - mean_k y) / tau) + O(1/tau^2).

    Args:
        logits: (n, K) y, one row per sample.
        temperature: tau > 0, a scalar in the unit of the logits.

    Returns:
        (n, K) rows that sum to 1 (entries may be negative for small tau). NaN under jit for invalid input.

    Raises:
        ValueError: logits that are not a finite (n, K) batch; a temperature that is not a positive finite scalar.

    Source: docs/theory.md T11.

    >>> [round(float(p), 4) for p in softmax_linearisation(jnp.array([[3.0, 1.0]]), 10.0)[0]]
    [0.55, 0.45]
    """
    scores, finite = as_features(logits, "logits")
    tau, valid = _modes.read_scale(temperature, scores, "temperature")
    centered = scores - jnp.mean(scores, axis=-1, keepdims=True)
    return poison((1 + centered / tau) / scores.shape[-1], finite & valid)


def softmax_spectrum(
    covariance_spectrum: ArrayLike, classes: int, temperature: ArrayLike, squared_mean: ArrayLike = 0.0
) -> Spectrum:
    """Spectrum of softmax outputs at a high temperature: the constant mode, then those of the logits' covariance.

    (1/K + |b|^2 / (K tau)^2, eig(Cov(y~)) / (K tau)^2),    y~ = y - mean_k y, b = E[y~]

    These are the eigenvalues of the linear model's second moment u u^T + Cov / (K tau)^2, u = 1/K + b/(K tau), if
    Cov b = 0 (so for b = 0); otherwise up to O(tau^-4), which for the covariance's modes is a relative O(tau^-2).
    ``softmax_spectrum_from_mean`` is exact in the linear model.

    Args:
        covariance_spectrum: (..., k) eigenvalues of Cov(y~), in the squared unit of the logits.
        classes: K >= 2.
        temperature: tau > 0, a scalar in the unit of the logits.
        squared_mean: |b|^2 >= 0, in the squared unit of the logits; a scalar or one per spectrum.

    Returns:
        (..., k + 1) eigenvalues of the outputs' uncentred second moment. NaN under jit for invalid input.

    Raises:
        ValueError: invalid spectrum; fewer than 2 classes; a temperature or squared_mean out of range.

    Source: docs/theory.md T11.

    >>> [round(float(x), 4) for x in softmax_spectrum(jnp.array([2.0, 1.0]), 4, 0.5, 3.0)]  # (K tau)^2 = 4
    [1.0, 0.5, 0.25]
    """
    eigenvalues, scale, valid = _read_linear_model(covariance_spectrum, classes, temperature)
    squared, squared_valid = _modes.read_per_batch(squared_mean, eigenvalues, "squared_mean")
    modes = jnp.concatenate([1 / classes + squared * scale, eigenvalues * scale], axis=-1)
    return poison(modes, (valid & squared_valid)[..., None])


def softmax_spectrum_from_mean(
    covariance_spectrum: ArrayLike, classes: int, temperature: ArrayLike, mean: ArrayLike
) -> Spectrum:
    """Spectrum of the linear model of softmax outputs for logits with any mean: eigenvalues of u u^T + Cov/(K tau)^2.

    u = (1/sqrt(K), b_1/(K tau), ...) in the basis of the constant direction and Cov(y~)'s eigenvectors. Where b and Cov
    are not orthogonal the constant mode is tilted towards b and takes up a part of the covariance.

    Args:
        covariance_spectrum: (..., k) eigenvalues of Cov(y~), in the squared unit of the logits.
        classes: K >= 2.
        temperature: tau > 0, a scalar in the unit of the logits.
        mean: (..., k) coordinates of b = E[y~] in Cov(y~)'s eigenbasis, in the unit of the logits; here modes with
            eigenvalue 0 count.

    Returns:
        (..., k + 1) eigenvalues of the linear model's uncentred second moment, largest first. NaN under jit for invalid
        input.

    Raises:
        ValueError: invalid spectrum; fewer than 2 classes; a temperature out of range; a mean of another shape or not
            finite.

    Source: docs/theory.md T11 (sharper: the statement's eigenvalues are its leading order in 1/tau).

    >>> model = softmax_spectrum_from_mean(jnp.array([8.0]), 2, 1.0, jnp.array([2.0]))  # [[1/2, 1/sqrt 2], [., 3]]
    >>> [round(float(x), 4) for x in model]  # trace 3.5, determinant 1
    [3.1861, 0.3139]
    """
    eigenvalues, scale, valid = _read_linear_model(covariance_spectrum, classes, temperature)
    center = as_floating(mean, "mean")
    if center.shape != eigenvalues.shape:
        raise ValueError(f"mean must have the shape of covariance_spectrum, {eigenvalues.shape}, got {center.shape}")
    finite = jnp.all(jnp.isfinite(center), axis=-1)
    require(finite, "mean holds NaN or inf; check what it was computed from")
    constant = jnp.zeros_like(eigenvalues[..., :1])
    diagonal = jnp.concatenate([constant, eigenvalues * scale], axis=-1)
    direction = jnp.concatenate([constant + classes**-0.5, center * jnp.sqrt(scale)], axis=-1)
    return poison(_modes.rank_one_update(diagonal, direction, 1.0), (valid & finite)[..., None])


def sharpening_threshold(covariance_spectrum: ArrayLike, classes: int) -> Batched:
    """The temperature above which erank (eig) of softmax outputs falls as tau grows: K tau^2 = Lambda_rest/erank_rest.

    Lambda_rest and erank_rest are those of eig(Cov(y~)). In the linear model it is the exact turning point for b = 0,
    and sufficient where Cov b = 0; for other means b the model's erank can still rise above it (classes = 2,
    variance s^2: exactly until 2 tau^2 = s^2 + b^2).

    Args:
        covariance_spectrum: (..., k) eigenvalues of Cov(y~), in the squared unit of the logits, not all 0.
        classes: K >= 2.

    Returns:
        (...) temperature in the unit of the logits. NaN under jit for invalid input.

    Raises:
        ValueError: invalid spectrum; fewer than 2 classes.

    Source: docs/theory.md T11.

    >>> round(float(sharpening_threshold(jnp.array([8.0, 8.0]), 2)), 4)
    2.0
    """
    _check_classes(classes)
    eigenvalues, valid = _modes.read_spectrum(covariance_spectrum, "covariance_spectrum")
    return poison(jnp.sqrt(_modes.entropy_peak(eigenvalues) / classes), valid)


def _check_classes(classes: int) -> None:
    if classes < 2:
        raise ValueError(f"classes must be at least 2 (a softmax over one class is constant), got {classes}")


def _read_linear_model(
    covariance_spectrum: ArrayLike, classes: int, temperature: ArrayLike
) -> tuple[Spectrum, Array, Flag]:
    """Eigenvalues of the logits' covariance, the factor 1/(K tau)^2, and whether both are valid."""
    _check_classes(classes)
    eigenvalues, valid = _modes.read_spectrum(covariance_spectrum, "covariance_spectrum")
    tau, tau_valid = _modes.read_scale(temperature, eigenvalues, "temperature")
    return eigenvalues, 1 / (classes * tau) ** 2, valid & tau_valid
