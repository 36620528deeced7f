"""Filters and closed-form predictors as functions ``gains(spectrum, signal, parameters)`` with array parameters.

spectrum: (..., d) eigenvalues lambda of E[z z^T]; signal: (..., d) m, the part of lambda that the views share. Unlike a
``rdm_jax.filters.Filter`` such a function takes its numbers as arrays, so that exponents, ridges or offsets can be
mapped over; and it may depend on m. A gain must be finite off the support (lambda = 0), where it multiplies nothing.
"""

from functools import cache
from typing import NamedTuple

import jax.numpy as jnp

from rdm_jax import theory
from rdm_jax._checks import as_floating
from rdm_jax.dynamics.designs import GainFunction
from rdm_jax.filters import Filter
from rdm_jax.filters.gains import gain
from rdm_jax.types import Array, ArrayLike, Gains

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

DIRECT_PRED_FLOOR = 1e-4  # of the published code


class LagParameters(NamedTuple):
    """Of ``lagging_gains``: ridge rho >= 0 in the unit of lambda, progress alpha t >= 0 in the unit of 1 / lambda."""

    ridge: ArrayLike
    progress: ArrayLike


def power_gains(spectrum: ArrayLike, signal: ArrayLike, exponent: ArrayLike) -> Gains:
    """Powers of the singular value: g = s^a = lambda^(a/2).

    Args:
        spectrum: (..., d) eigenvalues lambda of E[z z^T].
        signal: not used.
        exponent: a, a scalar.

    Returns:
        (..., d) gains on singular values, 0 off the support.

    Source: Zhuo et al. 2023; ``rdm_jax.filters.power`` with a number that may be traced.

    >>> [float(gain) for gain in power_gains(jnp.array([4.0, 0.0]), jnp.array([4.0, 0.0]), -1.0)]
    [0.5, 0.0]
    """
    return _power(spectrum, as_floating(exponent, "exponent") / 2)


def ridge_gains(spectrum: ArrayLike, signal: ArrayLike, ridge: ArrayLike) -> Gains:
    """The optimal linear predictor under a penalty rho |W|^2: g = m / (lambda + rho); the Wiener filter if rho = 0.

    Args:
        spectrum: (..., d) eigenvalues lambda of E[z z^T].
        signal: (..., d) m >= 0.
        ridge: rho >= 0 in the unit of lambda, a scalar.

    Returns:
        (..., d) gains on singular values, 0 off the support.

    Source: docs/theory.md T3, S2 (``rdm_jax.theory.lagging_predictor_gains``).

    >>> [float(gain) for gain in ridge_gains(jnp.array([3.0, 1.0]), jnp.array([2.0, 0.5]), 1.0)]
    [0.5, 0.25]
    """
    return theory.lagging_predictor_gains(spectrum, signal, ridge)


def lagging_gains(spectrum: ArrayLike, signal: ArrayLike, parameters: LagParameters) -> Gains:
    """A ridge predictor trained from zero for a fixed while: g = m / (lambda + rho) (1 - exp(-alpha t (lambda + rho))).

    Args:
        spectrum: (..., d) eigenvalues lambda of E[z z^T].
        signal: (..., d) m >= 0.
        parameters: ridge and progress, scalars.

    Returns:
        (..., d) gains on singular values, 0 off the support.

    Source: docs/theory.md S2 (``rdm_jax.theory.lagging_predictor_gains``).

    >>> gains = lagging_gains(jnp.array([2.0, 1.0]), jnp.array([1.0, 1.0]), LagParameters(0.0, jnp.log(2.0)))
    >>> [round(float(gain), 4) for gain in gains]  # 1/2 (1 - 1/4), 1 - 1/2
    [0.375, 0.5]
    """
    return theory.lagging_predictor_gains(spectrum, signal, parameters.ridge, parameters.progress)


def isoloss_gains(spectrum: ArrayLike, signal: ArrayLike, exponent: ArrayLike) -> Gains:
    """Predictor eigenvalues p = lambda^a of the correlation E[z z^T].

    Args:
        spectrum: (..., d) eigenvalues lambda of E[z z^T].
        signal: not used.
        exponent: a, a scalar; 1/2 is DirectPred without its normalisation, 1 is DirectCopy without its offset.

    Returns:
        (..., d) predictor eigenvalues, 0 off the support.

    Source: Halvagal, Laborieux and Zenke 2023.

    >>> [float(gain) for gain in isoloss_gains(jnp.array([4.0, 0.0]), jnp.array([4.0, 0.0]), 0.5)]
    [2.0, 0.0]
    """
    return _power(spectrum, as_floating(exponent, "exponent"))


def direct_pred_gains(spectrum: ArrayLike, signal: ArrayLike, offset: ArrayLike) -> Gains:
    """DirectPred's predictor eigenvalues, p = max(sqrt(lambda / lambda_max) + eps, 1e-4).

    The published code takes lambda from a moving average of the correlation; here it is that of the moment.

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
    eigenvalues = as_floating(spectrum, "spectrum")
    largest = jnp.max(eigenvalues, axis=-1, keepdims=True)
    share = eigenvalues / jnp.where(largest > 0, largest, 1)
    return jnp.maximum(_power(share, jnp.array(0.5, share.dtype)) + as_floating(offset, "offset"), DIRECT_PRED_FLOOR)


def direct_copy_gains(spectrum: ArrayLike, signal: ArrayLike, offset: ArrayLike) -> Gains:
    """DirectCopy's predictor eigenvalues, p = lambda + eps: the predictor is E[z z^T] + eps I.

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
    return as_floating(spectrum, "spectrum") + as_floating(offset, "offset")


@cache
def filter_gains(filter: Filter, samples: int = 1) -> GainFunction:
    """A ``rdm_jax.filters.Filter`` as such a function, g(sqrt(n lambda)); its parameters are ``()``.

    Equal filters give the same function, so designs made from them are equal.

    Args:
        filter: for example ``rdm_jax.filters.log1p()``.
        samples: n, the rows of the batch whose raw singular values the filter is meant for; 1: it sees sqrt(lambda).

    Returns:
        ``gains(spectrum, signal, parameters)``.

    Source: Zhuo et al. 2023, published code.

    >>> from rdm_jax import filters
    >>> gains = filter_gains(filters.log1p_square(), samples=3)
    >>> round(float(gains(jnp.array([1.0]), jnp.array([1.0]), ())[0]), 4)  # log(1 + 3)
    1.3863
    """

    def gains(spectrum: ArrayLike, signal: ArrayLike, parameters: tuple[()] = ()) -> Gains:
        return gain(filter, _power(jnp.asarray(spectrum) * samples, jnp.array(0.5)), float(samples))

    return gains


def _power(spectrum: ArrayLike, exponent: Array) -> Array:
    values = as_floating(spectrum, "spectrum")
    positive = values > 0
    return jnp.where(positive, jnp.where(positive, values, 1) ** exponent.astype(values.dtype), 0)
