"""From features to assignments: prototypes, sharpening, softmax, Sinkhorn-Knopp, and a queue of past features.

Assignments are rows of probabilities over K clusters. Their spectra are stated without the constant mode, the
direction (1, ..., 1) in which every row of probabilities has the same component: compare y - mean_k y of the logits
with q - 1/K of the assignments (``without_constant_mode``).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rdm_jax._checks import as_floating, require
from rdm_jax.methods._rows import unit_rows
from rdm_jax.methods.centering import center_features
from rdm_jax.methods.transform import Context, Number, Transform, each_view, make_transform, read_epoch, read_width
from rdm_jax.theory import sinkhorn_knopp
from rdm_jax.types import Array, ArrayLike, Gains, Outputs, PRNGKeyArray, Scalar, Spectrum, Views

__all__ = [
    "QueueState",
    "linear_schedule",
    "prototypes",
    "queued",
    "sharpen",
    "sinkhorn",
    "softmax",
    "without_constant_mode",
]

Schedule = Number | Callable[[Scalar], Scalar]


class QueueState(NamedTuple):
    """Past inputs, newest first (views, size, d) or (size, d), how many rows are filled, and the inner state."""

    features: Array
    filled: Array
    inner: Any


def linear_schedule(first: Number, last: Number, epochs: int) -> Callable[[Scalar], Scalar]:
    """A value that changes linearly from epoch to epoch: ``first`` in epoch 0, ``last`` from epoch ``epochs`` - 1 on.

    As published, DINO's teacher temperature takes ``epochs`` equally spaced values, ends included, one an epoch.

    Args:
        first: in epoch 0.
        last: in epoch ``epochs`` - 1 and after.
        epochs: at least 2.

    Returns:
        A function of the epoch, which may be traced and fractional.

    Raises:
        ValueError: fewer than 2 epochs.

    >>> [round(float(linear_schedule(1.0, 2.0, 3)(jnp.array(epoch))), 4) for epoch in (0.0, 1.9, 2.0, 9.0)]
    [1.0, 1.5, 2.0, 2.0]

    Source: Caron et al. 2021 (DINO), published code.
    """
    if epochs < 2:
        raise ValueError(f"a schedule needs at least 2 epochs, got {epochs}; pass a number for a constant")

    def schedule(epoch: Scalar) -> Scalar:
        share = jnp.clip(jnp.floor(epoch) / (epochs - 1), 0, 1)
        return first + (last - first) * share

    return schedule


def prototypes(count: int, *, frozen_epochs: Number = 0, name: str = "prototypes") -> Transform:
    """Scores against prototypes of unit length: y = Z W^T, W_k = V_k / |V_k|.

    Args:
        count: K, how many.
        frozen_epochs: no gradient reaches them while the epoch is below it. To keep weight decay and momentum from
            them as well, a trainer masks the updates of ``Transform.frozen``.
        name: of the parameters V (K, d); branches that share it share the prototypes.

    Returns:
        The transform, from (n, d) to (n, K). Theory is silent about it: the response is None.

    Raises:
        ValueError: fewer than 2 prototypes; a negative number of epochs.

    >>> scores, _ = prototypes(2).apply({"prototypes": jnp.array([[2.0, 0.0], [3.0, 4.0]])}, (), jnp.eye(2), Context())
    >>> [[round(float(score), 4) for score in row] for row in scores]
    [[1.0, 0.6], [0.0, 0.8]]

    Source: Caron et al. 2020 (SwAV), 2021 (DINO).
    """
    if count < 2 or frozen_epochs < 0:
        raise ValueError(f"prototypes needs count >= 2 and frozen_epochs >= 0, got {count} and {frozen_epochs}")

    def init(key: PRNGKeyArray, features: Any) -> tuple[dict[str, Any], Any]:
        dtype = jnp.promote_types(features.dtype, jnp.float32)
        return {name: unit_rows(jax.random.normal(key, (count, features.shape[-1]), dtype))}, ()

    def apply(params: dict[str, Any], state: Any, features: Views, context: Context) -> tuple[Outputs, Any]:
        weights = params[name]
        if frozen_epochs > 0:
            frozen = read_epoch(context, f"whether {name} are frozen, for {frozen_epochs} epochs,") < frozen_epochs
            weights = jnp.where(frozen, jax.lax.stop_gradient(weights), weights)
        return features @ unit_rows(weights).T, state

    frozen = ((name, frozen_epochs),) if frozen_epochs > 0 else ()
    return make_transform(apply, lambda *_: None, init, names=(name,), frozen=frozen)


def sharpen(temperature: Schedule) -> Transform:
    """Logits over a temperature: y / tau.

    Args:
        temperature: tau > 0, or a function of the epoch such as ``linear_schedule(0.04, 0.07, 50)``.

    Returns:
        The transform. Its response is the constant 1 / tau.

    Raises:
        ValueError: a temperature that is not positive.

    >>> sharpen(0.5).apply({}, (), jnp.array([[1.0, 2.0]]), Context())[0].tolist()
    [[2.0, 4.0]]

    Source: docs/theory.md T11.
    """
    if not callable(temperature):
        require(temperature > 0, f"temperature must be positive, got {temperature}")

    def divided(values: Array, context: Context) -> Array:
        return values / _at(temperature, context, "the temperature", values)

    return make_transform(
        lambda params, state, features, context: (divided(features, context), state),
        lambda spectrum, context: divided(jnp.ones_like(spectrum), context),
    )


def softmax() -> Transform:
    """Rows of logits to probabilities: exp(y_k) / sum exp(y_k); put ``sharpen`` before it for a temperature.

    Returns:
        The transform. Its response is the linear regime of small logits, p = (1/K)(1 + y - mean_k y) + O(y^2), without
        the constant mode: ``spectrum`` are eigenvalues of the second moment of y - mean_k y, and the gain 1 / K takes
        them to those of p - 1/K. K is the length of the spectrum, or ``context.width``.

    >>> [round(float(p), 4) for p in softmax().apply({}, (), jnp.log(jnp.array([[1.0, 3.0]])), Context())[0][0]]
    [0.25, 0.75]
    >>> softmax().response([2.0, 0.0], Context()).tolist()
    [0.5, 0.5]

    Source: docs/theory.md T11.
    """
    return make_transform(
        lambda params, state, features, context: (jax.nn.softmax(features, axis=-1), state),
        lambda spectrum, context: jnp.full_like(spectrum, 1 / read_width(spectrum, context)),
    )


def sinkhorn(iterations: int = 3, epsilon: Schedule = 0.05) -> Transform:
    """Scores to balanced assignments by Sinkhorn-Knopp, for each view over its whole batch; rows sum to 1.

    n times ``rdm_jax.theory.sinkhorn_knopp`` in SwAV's order, clusters first, computed with logarithms.

    Args:
        iterations: of normalising clusters to n/K each, then samples to 1 each.
        epsilon: entropic regularisation eps > 0 in the unit of the scores, or a function of the epoch.

    Returns:
        The transform. Its response is the linear regime of scores small against eps, q = (1/K)(1 + y''/eps) +
        O(1/eps^2) with double centred y'', without the constant mode: ``spectrum`` are eigenvalues of the second moment
        of y' = y - mean_k y, ``context.mean`` is the mean of y', and g_i = sqrt(1 - mu_i^2 / lambda_i) / (K eps) takes
        them to those of q - 1/K, measured in the eigenbasis of the input. None if the mean is not known. K is the
        length of the spectrum, or ``context.width``.

    Raises:
        ValueError: fewer than 1 iteration; an epsilon that is not positive.

    >>> plan, _ = sinkhorn(50, 1.0).apply({}, (), jnp.log(jnp.array([[4.0, 1.0], [1.0, 1.0]])), Context())
    >>> [round(float(share), 4) for share in plan[0]]
    [0.6667, 0.3333]

    Source: Caron et al. 2020 (SwAV); docs/theory.md T12.
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    if not callable(epsilon):
        require(epsilon > 0, f"epsilon must be positive, got {epsilon}")
    center = center_features()

    def apply(params: dict[str, Any], state: Any, features: Views, context: Context) -> tuple[Views, Any]:
        scale = _at(epsilon, context, "epsilon", features)

        def one(scores: Views, state: Any) -> tuple[Views, Any]:
            return len(scores) * sinkhorn_knopp(scores, scale, iterations, "columns-first"), state

        return each_view(one, features, state)

    def response(spectrum: Spectrum, context: Context) -> Gains | None:
        gains = center.response(spectrum, context)
        return (
            None if gains is None else gains / (read_width(spectrum, context) * _at(epsilon, context, "epsilon", gains))
        )

    def carry(spectrum: ArrayLike, context: Context) -> Context:
        scaled = sharpen(epsilon).carry(spectrum, center.carry(spectrum, context))
        return softmax().carry(spectrum, scaled)

    return make_transform(apply, response, carry=carry)


def queued(inner: Transform, size: int, start: Number = 0) -> Transform:
    """Apply a transform to the batch and a queue of past inputs together, and keep the rows of the batch.

    Each view has a queue of its own. Inputs enter it, without gradient and newest first, after they were used, from the
    first step on; ``inner`` sees them with its parameters of today. The queue takes part once it is full and the epoch
    has reached ``start``. With ``Context(train=False)`` it stays as it is.

    Args:
        inner: a transform whose rows depend on the whole batch, such as ``chain(prototypes(3000), sinkhorn())``.
        size: rows of the queue; over the whole mesh, not of one device.
        start: the epoch from which on it is used.

    Returns:
        The transform; its response is that of ``inner``.

    Raises:
        ValueError: a size below 1.

    >>> mean = make_transform(lambda p, s, z, c: (z - z.mean(axis=-2, keepdims=True), s), lambda *_: None)
    >>> transform = queued(mean, 1)
    >>> _, state = transform.init(jax.random.key(0), jnp.zeros((2, 1)))
    >>> _, state = transform.apply({}, state, jnp.array([[6.0], [0.0]]), Context(epoch=0))
    >>> transform.apply({}, state, jnp.array([[0.0], [3.0]]), Context(epoch=0))[0].tolist()  # mean of 0, 3 and 6
    [[-3.0], [0.0]]

    Source: Caron et al. 2020 (SwAV), published code.
    """
    if size < 1:
        raise ValueError(f"size is the number of rows in the queue, at least 1, got {size}; for none leave it out")

    def init(key: PRNGKeyArray, features: Any) -> tuple[dict[str, Any], Any]:
        params, state = inner.init(key, features)
        shape = (*features.shape[:-2], size, features.shape[-1])
        past = jnp.zeros(shape, jnp.promote_types(features.dtype, jnp.float32))
        return params, QueueState(past, jnp.zeros((), jnp.int32), state)

    def apply(params: dict[str, Any], state: QueueState, features: Views, context: Context) -> tuple[Outputs, Any]:
        rows = features.shape[-2]
        wide = jnp.concatenate([features, state.features.astype(features.dtype)], axis=-2)

        def beside() -> tuple[Outputs, Any]:
            output, after = inner.apply(params, state.inner, wide, context)
            return output[..., :rows, :], after

        active = state.filled >= size
        if start > 0:
            active &= read_epoch(context, f"whether the queue is used, from epoch {start} on,") >= start
        output, after = jax.lax.cond(active, beside, lambda: inner.apply(params, state.inner, features, context))
        past = jnp.where(context.train, jax.lax.stop_gradient(wide)[..., :size, :], state.features)
        filled = jnp.where(context.train, jnp.minimum(state.filled + rows, size), state.filled)
        return output, QueueState(past, filled, after)

    checked = make_transform(apply, inner.response, init, inner.carry)
    return inner._replace(init=checked.init, apply=checked.apply)


def without_constant_mode(features: ArrayLike) -> Views:
    """Rows without their mean: y - mean_k y, of logits or of assignments.

    Args:
        features: (n, K) or (views, n, K).

    Returns:
        The same shape, with rows that sum to 0.

    >>> without_constant_mode(jnp.array([[0.25, 0.75]])).tolist()
    [[-0.25, 0.25]]

    Source: docs/theory.md T11, T12.
    """
    array = as_floating(features, "features")
    return array - jnp.mean(array, axis=-1, keepdims=True)


def _at(value: Schedule, context: Context, what: str, beside: Array) -> Scalar:
    """The value, or a schedule's at the epoch, in the dtype of the array beside it."""
    return jnp.asarray(value(read_epoch(context, what)) if callable(value) else value, beside.dtype)
