"""Closed-form predictors: functions of a moving average of the features' second moment, on its own eigenvectors."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rdm_jax.methods.transform import Context, Number, Transform, make_transform
from rdm_jax.spectra import eigensystem
from rdm_jax.types import Array, Gains, Moment, PRNGKeyArray, Spectrum, Views

__all__ = ["CorrelationState", "direct_copy", "direct_pred", "direct_set"]


class CorrelationState(NamedTuple):
    """Moving average of the second moment (d, d), and whether it has seen a batch (0 or 1)."""

    moment: Array
    seen: Array


def direct_pred(*, momentum: Number = 0.3, epsilon: Number = 0.01, floor: Number = 1e-4) -> Transform:
    """DirectPred: W = Q diag(p) Q^T with p = max(sqrt(l / l_max) + eps, floor), C = Q diag(l) Q^T.

    C <- rho C + (1 - rho) E[z z^T], over all views at once, the batch at hand included; the first batch sets it. W is a
    constant for the gradient. With ``Context(train=False)`` C stays as it is.

    Args:
        momentum: rho in [0, 1).
        epsilon: eps, added to all eigenvalues of W; may be negative, hence the floor.
        floor: the smallest eigenvalue of W.

    Returns:
        The transform, for the online side. Its response is p as a function of the spectrum: that of a converged C.

    Raises:
        ValueError: a momentum outside [0, 1).

    >>> [round(float(gain), 4) for gain in direct_pred(epsilon=0.1).response([4.0, 1.0, 0.0], Context())]
    [1.1, 0.6, 0.1]

    Source: Tian, Chen and Ganguli 2021 (DirectPred).
    """
    return _closed_form(lambda spectrum: jnp.maximum(_safe_power(_relative(spectrum), 0.5) + epsilon, floor), momentum)


def direct_copy(*, momentum: Number = 0.3, epsilon: Number = 0.01) -> Transform:
    """DirectCopy: W = C + eps I; C as for ``direct_pred``.

    Args:
        momentum: rho in [0, 1).
        epsilon: eps >= 0, in the unit of C.

    Returns:
        The transform, for the online side. Its response is lambda + eps.

    Raises:
        ValueError: a momentum outside [0, 1); a negative epsilon.

    >>> direct_copy(epsilon=0.5).response([4.0, 1.0, 0.0], Context()).tolist()
    [4.5, 1.5, 0.5]

    Source: Wang et al. 2021 (DirectCopy).
    """
    _check_epsilon(epsilon)
    return _closed_form(lambda spectrum: spectrum + epsilon, momentum)


def direct_set(
    exponent: Number = 0.5, *, momentum: Number = 0.998, epsilon: Number = 0.0, normalize: bool = True
) -> Transform:
    """Any power: W = Q diag((l / l_max + eps)^a) Q^T, or (l + eps)^a without ``normalize``; C as for ``direct_pred``.

    The predictor of IsoLoss, which needs ``isotropic`` around it for its gradient. eps lies inside the power, where
    DirectPred adds it outside.

    Args:
        exponent: a > 0.
        momentum: rho in [0, 1).
        epsilon: eps >= 0; without unit, or with ``normalize=False`` in the unit of C.
        normalize: whether eigenvalues are taken relative to the largest.

    Returns:
        The transform, for the online side. Its response is that power of the spectrum.

    Raises:
        ValueError: an exponent that is not positive; a momentum outside [0, 1); a negative epsilon.

    >>> direct_set(0.5).response([4.0, 1.0, 0.0], Context()).tolist()
    [1.0, 0.5, 0.0]

    Source: Halvagal, Laborieux and Zenke 2023, and their published code.
    """
    _check_epsilon(epsilon)
    if exponent <= 0:
        raise ValueError(f"exponent must be positive, got {exponent}: others make the predictor high-pass, or constant")

    def function(spectrum: Spectrum) -> Gains:
        return _safe_power((_relative(spectrum) if normalize else spectrum) + epsilon, exponent)

    return _closed_form(function, momentum)


def _closed_form(function: Callable[[Spectrum], Gains], momentum: Number) -> Transform:
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}: 1 would never move the correlation")

    def init(key: PRNGKeyArray, features: Any) -> tuple[dict[str, Any], Any]:
        d, dtype = features.shape[-1], jnp.promote_types(features.dtype, jnp.float32)
        return {}, CorrelationState(jnp.zeros((d, d), dtype), jnp.zeros((), jnp.int32))

    def apply(params: dict[str, Any], state: CorrelationState, features: Views, context: Context) -> tuple[Views, Any]:
        moment = jnp.where(context.train, _average(state, features, momentum), state.moment)
        values, vectors = eigensystem(moment)
        predictor = jnp.matmul(vectors * function(values)[None], vectors.T, precision="highest")
        seen = jnp.where(context.train, 1, state.seen)
        return features @ jax.lax.stop_gradient(predictor), CorrelationState(moment, seen)

    return make_transform(apply, lambda spectrum, context: function(spectrum), init, side="online")


def _average(state: CorrelationState, features: Views, momentum: Number) -> Moment:
    rows = jax.lax.stop_gradient(features).reshape(-1, features.shape[-1])
    batch = jnp.matmul(rows.T, rows, precision="highest") / len(rows)
    kept = jnp.where(state.seen > 0, momentum, 0.0)
    return kept * state.moment + (1 - kept) * batch


def _relative(spectrum: Spectrum) -> Spectrum:
    largest = jnp.max(spectrum, axis=-1, keepdims=True)
    return spectrum / jnp.where(largest > 0, largest, 1)


def _safe_power(values: Spectrum, exponent: Number) -> Gains:
    positive = values > 0
    return jnp.where(positive, jnp.where(positive, values, 1) ** exponent, 0)


def _check_epsilon(epsilon: Number) -> None:
    if epsilon < 0:
        raise ValueError(f"epsilon must be at least 0, got {epsilon}")
