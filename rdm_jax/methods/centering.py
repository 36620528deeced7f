"""Centering and normalising: by the batch's mean, by a moving average of it, by each row's length."""

from typing import Any

import jax
import jax.numpy as jnp

from rdm_jax._checks import as_floating
from rdm_jax.methods._rows import unit_rows
from rdm_jax.methods.transform import Context, Number, Transform, beside_rows, make_transform
from rdm_jax.types import Array, ArrayLike, Gains, PRNGKeyArray, Spectrum, Views

__all__ = ["center_ema", "center_features", "l2_normalize"]


def l2_normalize() -> Transform:
    """Each row to unit length: z / |z|; a row of zeros stays zero.

    Returns:
        The transform. Theory is silent about its spectrum: the response is None.

    >>> [round(float(x), 4) for x in l2_normalize().apply({}, (), jnp.array([[3.0, 4.0]]), Context())[0][0]]
    [0.6, 0.8]

    Source: docs/theory.md T8 (why centering must come first).
    """
    return make_transform(lambda params, state, features, context: (unit_rows(features), state), lambda *_: None)


def center_features() -> Transform:
    """Subtract the batch's mean row: z - mean(z), for each view by its own mean; gradients pass through the mean.

    Returns:
        The transform. Its response is g_i^2 = 1 - mu_i^2 / lambda_i with ``context.mean``: what the filter measures in
        the eigenbasis of the input. These are the eigenvalues after centering, too, where the mean lies along an
        eigenvector (``rdm_jax.theory.centered_spectrum``). None if the mean is not known.

    >>> centered, _ = center_features().apply({}, (), jnp.array([[1.0], [3.0]]), Context())
    >>> centered.tolist()
    [[-1.0], [1.0]]
    >>> [round(float(g), 4) for g in center_features().response([4.0, 1.0], Context(mean=[0.0, 0.6]))]
    [1.0, 0.8]

    Source: Zhuo et al. 2023 (SymSimSiam); docs/theory.md T10.
    """

    def apply(params: dict[str, Any], state: Any, features: Views, context: Context) -> tuple[Views, Any]:
        return features - jnp.mean(features, axis=-2, keepdims=True), state

    return make_transform(
        apply,
        lambda spectrum, context: _gains(spectrum, context.mean, context.mean),
        carry=lambda spectrum, context: _centered_context(context, context.mean),
    )


def center_ema(momentum: Number = 0.9) -> Transform:
    """Subtract a moving average of the mean row, which is updated afterwards by the mean of all views.

    z - c,    c <- momentum c + (1 - momentum) mean(z)

    All views are centred by the same c, that of the steps before, which starts at 0; the mean that updates it is over
    the rows of all views, as published (DINO updates once a step, after the loss, from both teacher views). With
    ``Context(train=False)`` the centre stays as it is. No gradient passes through it.

    Args:
        momentum: of the centre, in [0, 1).

    Returns:
        The transform. Its response is g_i^2 = 1 - (2 mu_i c_i - c_i^2) / lambda_i with ``context.mean`` and
        ``context.center``: what the filter measures in the eigenbasis of the input. None if the mean is not known.

    Raises:
        ValueError: a momentum outside [0, 1).

    >>> transform = center_ema(0.75)
    >>> features = jnp.array([[1.0], [3.0]])
    >>> output, center = transform.apply({}, jnp.zeros(1), features, Context())
    >>> output.tolist(), center.tolist()
    ([[1.0], [3.0]], [0.5])

    Source: Caron et al. 2021 (DINO); docs/theory.md T10.
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}: 1 would never move the centre")

    def init(key: PRNGKeyArray, features: Any) -> tuple[dict[str, Any], Any]:
        return {}, jnp.zeros(features.shape[-1], jnp.promote_types(features.dtype, jnp.float32))

    def apply(params: dict[str, Any], center: Array, features: Views, context: Context) -> tuple[Views, Any]:
        mean = jnp.mean(jax.lax.stop_gradient(features), axis=tuple(range(features.ndim - 1)))
        moved = momentum * center + (1 - momentum) * mean
        return features - beside_rows(center, features), jnp.where(context.train, moved, center)

    return make_transform(
        apply,
        lambda spectrum, context: _gains(spectrum, context.mean, _reached(context)),
        init,
        lambda spectrum, context: _centered_context(context, _reached(context)),
    )


def _reached(context: Context) -> ArrayLike | None:
    return context.mean if context.center is None else context.center


def _gains(spectrum: Spectrum, mean: ArrayLike | None, center: ArrayLike | None) -> Gains | None:
    """g^2 = 1 - (2 mu c - c^2) / lambda: the diagonal of E[(z - c)(z - c)^T] in C's eigenbasis, over lambda."""
    if mean is None or center is None:
        return None
    middle, point = as_floating(mean, "mean"), as_floating(center, "center")
    on = spectrum > 0
    removed = (2 * middle - point) * point / jnp.where(on, spectrum, 1)
    return jnp.where(on, jnp.sqrt(jnp.maximum(1 - removed, 0)), 0)


def _centered_context(context: Context, center: ArrayLike | None) -> Context:
    """After z - c: E[z+ z^T] loses what C loses, so that view noise stays as it is; the mean is mu - c."""
    if context.mean is None or center is None:
        return context._replace(signal=None, noise=None, mean=None, center=None)
    middle, point = as_floating(context.mean, "mean"), as_floating(center, "center")
    signal = None if context.signal is None else as_floating(context.signal, "signal") - (2 * middle - point) * point
    return context._replace(signal=signal, mean=middle - point, center=None)
