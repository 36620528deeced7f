"""What subtracting the mean does to the spectrum (docs/theory.md T10)."""

import jax
import jax.numpy as jnp

from rdm_jax._checks import poison, require, rounding
from rdm_jax.theory import _modes
from rdm_jax.types import Array, ArrayLike, Batched, Flag, Spectrum

__all__ = ["centered_spectrum", "centered_spectrum_from_mean", "centering_first_order", "centering_peak"]


def centered_spectrum(spectrum: ArrayLike, squared_mean: ArrayLike, fraction: ArrayLike = 1.0) -> Spectrum:
    """Eigenvalues after subtracting k mu where mu lies along the top eigenvector: lambda_1 -> x, the rest unchanged.

    x = lambda_1 - k (2 - k) |mu|^2,    from E[(z - k mu)(z - k mu)^T] = C - (2 k - k^2) mu mu^T

    Args:
        spectrum: (..., d) eigenvalues lambda of the (uncentred) second moment, in any order.
        squared_mean: |mu|^2 in [0, lambda_1], in the unit of lambda; a scalar or one per spectrum.
        fraction: k >= 0, how much of the mean is subtracted; a scalar or one per spectrum.

    Returns:
        (..., d) eigenvalues in the places given (x may no longer be the largest). NaN under jit for invalid input.

    Raises:
        ValueError: invalid spectrum; squared_mean or fraction negative or not finite; squared_mean above lambda_1.

    Source: docs/theory.md T10.

    >>> [round(float(x), 4) for x in centered_spectrum(jnp.array([4.0, 1.0]), 2.0, 0.5)]  # 4 - 3/4 * 2
    [2.5, 1.0]
    """
    eigenvalues, valid = _modes.read_spectrum(spectrum)
    squared, squared_valid = _modes.read_per_batch(squared_mean, eigenvalues, "squared_mean")
    part, part_valid = _modes.read_per_batch(fraction, eigenvalues, "fraction")
    top = jax.nn.one_hot(jnp.argmax(eigenvalues, axis=-1), eigenvalues.shape[-1], dtype=eigenvalues.dtype)
    left = jnp.max(eigenvalues, axis=-1, keepdims=True) - squared
    possible = jnp.all(left >= -rounding(eigenvalues)[..., None], axis=-1)
    require(possible, "squared_mean exceeds the largest eigenvalue: |mu|^2 <= lambda_1 since the covariance is >= 0")
    centered = jnp.maximum(eigenvalues - part * (2 - part) * squared * top, 0)
    return poison(centered, (valid & squared_valid & part_valid & possible)[..., None])


def centered_spectrum_from_mean(spectrum: ArrayLike, mean: ArrayLike, fraction: ArrayLike = 1.0) -> Spectrum:
    """Eigenvalues of C - k (2 - k) mu mu^T: what is left after subtracting k mu, for a mean in any direction.

    Args:
        spectrum: (..., d) eigenvalues lambda of the (uncentred) second moment C, in any order.
        mean: (..., d) coordinates v_i^T mu in C's eigenbasis, in the unit of sqrt(lambda), with
            sum((v_i^T mu)^2 / lambda_i) <= 1; ignored off the support.
        fraction: k >= 0, how much of the mean is subtracted; a scalar or one per spectrum.

    Returns:
        (..., d) eigenvalues, largest first. NaN under jit for invalid input.

    Raises:
        ValueError: invalid spectrum; mean not finite, or too long for this second moment; fraction negative or not
            finite.

    Source: docs/theory.md T10.

    >>> centered = centered_spectrum_from_mean(jnp.array([3.0, 3.0]), jnp.array([1.0, 1.0]))  # 3 - |mu|^2 along mu
    >>> [round(float(x), 4) for x in centered]
    [3.0, 1.0]
    """
    eigenvalues, moments, valid = _read_mean(spectrum, mean)
    part, part_valid = _modes.read_per_batch(fraction, eigenvalues, "fraction")
    centered = _modes.rank_one_update(eigenvalues, moments, -part * (2 - part))
    return poison(centered, (valid & part_valid)[..., None])


def centering_peak(rest: ArrayLike) -> Batched:
    """The top eigenvalue at which the effective rank (eig) peaks, all others fixed: x* = Lambda_rest / erank(rest).

    H as a function of x is unimodal, and x* <= the largest of the rest: centering along the top eigenvector raises
    erank whenever what it leaves is at least x*.

    Args:
        rest: (..., d - 1) the other eigenvalues lambda_2, ..., not all 0.

    Returns:
        (...) x* in the unit of lambda. NaN under jit for invalid input.

    Raises:
        ValueError: invalid spectrum.

    Source: docs/theory.md T10.

    >>> round(float(centering_peak(jnp.array([3.0, 3.0]))), 4)
    3.0
    """
    eigenvalues, valid = _modes.read_spectrum(rest, "rest")
    return poison(_modes.entropy_peak(eigenvalues), valid)


def centering_first_order(spectrum: ArrayLike, mean: ArrayLike) -> Batched:
    """First order of centering (eig): sum_i (v_i^T mu)^2 (log q_i + H); small means raise erank iff it is positive.

    With C - eps mu mu^T, dH/d eps = (this sum) / Lambda at eps = 0. Since H = -E_q[log q], log q_i + H is
    log lambda_i - E_q[log lambda], which is how it is evaluated.

    Args:
        spectrum: (..., d) eigenvalues lambda of the (uncentred) second moment, in any order.
        mean: (..., d) coordinates v_i^T mu in its eigenbasis, in the unit of sqrt(lambda); ignored off the support.

    Returns:
        (...) sum in nats times the unit of lambda. NaN under jit for invalid input.

    Raises:
        ValueError: invalid spectrum; mean not finite on the support.

    Source: docs/theory.md T10.

    >>> round(float(centering_first_order(jnp.array([4.0, 1.0]), jnp.array([1.0, 0.0]))), 4)  # 0.2 log 4
    0.2773
    """
    eigenvalues, valid = _modes.read_spectrum(spectrum)
    moments, usable = _modes.read_per_mode(mean, eigenvalues, "mean", nonnegative=False)
    logs = _modes.log_deviation(eigenvalues, eigenvalues)
    return poison(jnp.sum(moments**2 * jnp.broadcast_to(logs, moments.shape), axis=-1), valid & usable)


def _read_mean(spectrum: ArrayLike, mean: ArrayLike) -> tuple[Spectrum, Array, Flag]:
    eigenvalues, valid = _modes.read_spectrum(spectrum)
    moments, usable = _modes.read_per_mode(mean, eigenvalues, "mean", nonnegative=False)
    eigenvalues = jnp.broadcast_to(eigenvalues, moments.shape)
    # eigenvalues are known to within rounding of the largest, so a small mode may seem overfull by that much
    excess = jnp.maximum(moments**2 - rounding(eigenvalues)[..., None], 0)
    possible = jnp.sum(excess / _modes.only(eigenvalues > 0, eigenvalues, 1.0), axis=-1) <= 1
    require(possible, "mean is too long for this second moment: C - mu mu^T would have a negative eigenvalue")
    return eigenvalues, moments, valid & usable & possible
