"""Filters and closed-form predictors as functions ``gains(spectrum, signal, parameters)`` with array parameters.

spectrum: (..., d) eigenvalues lambda of E[z z^T]; signal: (..., d) m_i, the part of lambda_i that the views share. A
function, unlike a ``rdm_jax.filters.Filter``, takes its numbers as arrays, so that exponents, ridges or noises can be
mapped over. Off the support (lambda = 0) the gain is 0 or finite, and multiplies nothing.
"""

from functools import cache
from typing import NamedTuple

from rdm_jax.dynamics.designs import GainFunction
from rdm_jax.filters import Filter
from rdm_jax.types import ArrayLike, Batched, Gains

__all__ = [
    "LagParameters",
    "direct_copy_gains",
    "direct_pred_gains",
    "filter_gains",
    "isoloss_gains",
    "lagging_gains",
    "power_gains",
    "ridge_gains",
]


class LagParameters(NamedTuple):
    """Of ``lagging_gains``: ridge rho >= 0 in the unit of lambda, progress alpha t >= 0 in the unit of 1 / lambda."""

    ridge: Batched
    progress: Batched


def power_gains(spectrum: ArrayLike, signal: ArrayLike, exponent: ArrayLike) -> Gains:
    """Powers of the singular value: g = s^a = lambda^(a/2), 0 off the support.

    Args:
        spectrum: (..., d) eigenvalues lambda of E[z z^T].
        signal: not used.
        exponent: a, a scalar.

    Returns:
        (..., d) gains on singular values.

    Source: Zhuo et al. 2023; ``rdm_jax.filters.power`` with a number that may be traced.

    >>> [float(gain) for gain in power_gains(jnp.array([4.0, 0.0]), jnp.array([4.0, 0.0]), -1.0)]
    [0.5, 0.0]
    """
    raise NotImplementedError


def ridge_gains(spectrum: ArrayLike, signal: ArrayLike, ridge: ArrayLike) -> Gains:
    """The optimal linear predictor under a penalty rho |W|^2: g = m / (lambda + rho); the Wiener filter for rho = 0.

    Args:
        spectrum: (..., d) eigenvalues lambda of E[z z^T].
        signal: (..., d) m >= 0.
        ridge: rho >= 0 in the unit of lambda, a scalar.

    Returns:
        (..., d) gains on singular values.

    Source: docs/theory.md T3, S2.

    >>> [float(gain) for gain in ridge_gains(jnp.array([3.0, 1.0]), jnp.array([2.0, 0.5]), 1.0)]
    [0.5, 0.25]
    """
    raise NotImplementedError


def lagging_gains(spectrum: ArrayLike, signal: ArrayLike, parameters: LagParameters) -> Gains:
    """A ridge predictor trained from zero for a fixed while: g = m / (lambda + rho) (1 - exp(-alpha t (lambda + rho))).

    Args:
        spectrum: (..., d) eigenvalues lambda of E[z z^T].
        signal: (..., d) m >= 0.
        parameters: ridge and progress.

    Returns:
        (..., d) gains on singular values.

    Source: docs/theory.md S2 (``rdm_jax.theory.lagging_predictor_gains``).

    >>> gains = lagging_gains(jnp.array([2.0, 1.0]), jnp.array([1.0, 1.0]), LagParameters(0.0, jnp.log(2.0)))
    >>> [round(float(gain), 4) for gain in gains]
    [0.375, 0.5]
    """
    raise NotImplementedError


def isoloss_gains(spectrum: ArrayLike, signal: ArrayLike, exponent: ArrayLike) -> Gains:
    """Predictor eigenvalues lambda^a of the correlation E[z z^T] (DirectPred's a = 1/2 without its normalisation).

    Args:
        spectrum: (..., d) eigenvalues lambda of E[z z^T].
        signal: not used.
        exponent: a, a scalar.

    Returns:
        (..., d) predictor eigenvalues, 0 off the support.

    Source: Halvagal, Laborieux and Zenke 2023.

    >>> [float(gain) for gain in isoloss_gains(jnp.array([4.0, 0.0]), jnp.array([4.0, 0.0]), 0.5)]
    [2.0, 0.0]
    """
    raise NotImplementedError


def direct_pred_gains(spectrum: ArrayLike, signal: ArrayLike, offset: ArrayLike) -> Gains:
    """DirectPred's predictor: p = max(sqrt(lambda / lambda_max) + eps, 1e-4).

    The published code takes lambda from a moving average of the correlation; here it is the actual one.

    Args:
        spectrum: (..., d) eigenvalues lambda of E[z z^T].
        signal: not used.
        offset: eps, without unit (0.01 in the published code), a scalar.

    Returns:
        (..., d) predictor eigenvalues.

    Source: Tian, Chen and Ganguli 2021 and its published code.

    >>> [round(float(gain), 4) for gain in direct_pred_gains(jnp.array([4.0, 1.0, 0.0]), jnp.zeros(3), 0.01)]
    [1.01, 0.51, 0.01]
    """
    raise NotImplementedError


def direct_copy_gains(spectrum: ArrayLike, signal: ArrayLike, offset: ArrayLike) -> Gains:
    """DirectCopy's predictor W_p = E[z z^T] + eps I: p = lambda + eps.

    Args:
        spectrum: (..., d) eigenvalues lambda of E[z z^T].
        signal: not used.
        offset: eps in the unit of lambda, a scalar.

    Returns:
        (..., d) predictor eigenvalues.

    Source: Wang, Chen, Du and Tian 2021.

    >>> [float(gain) for gain in direct_copy_gains(jnp.array([4.0, 0.0]), jnp.zeros(2), 0.25)]
    [4.25, 0.25]
    """
    raise NotImplementedError


@cache
def filter_gains(filter: Filter, samples: int = 1) -> GainFunction:
    """A ``rdm_jax.filters.Filter`` as a gain function: g(sqrt(n lambda)), without parameters (pass ``()``).

    Equal filters give the same function, so designs made from them are equal.

    Args:
        filter: for example ``rdm_jax.filters.log1p()``.
        samples: n, the rows of the batch whose raw singular values the filter is meant for; 1: the scale of sqrt(lambda).

    Returns:
        ``gains(spectrum, signal, parameters)``.

    Source: Zhuo et al. 2023, published code.

    >>> from rdm_jax import filters
    >>> gains = filter_gains(filters.log1p_square(), samples=3)
    >>> round(float(gains(jnp.array([1.0]), jnp.array([1.0]), ())[0]), 4)  # log(1 + 3)
    1.3863
    """
    raise NotImplementedError
