"""Feature flow as arrays: free features that descend the loss of the batch, by automatic differentiation.

Time is that of gradient flow of each sample, z' = -n dL/dz.
"""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rdm_jax._checks import as_features, as_floating, as_spectrum, poison, require
from rdm_jax.dynamics._numbers import read_number, require_branch
from rdm_jax.dynamics._operators import Basis, basis_of, from_gains, operator, product
from rdm_jax.dynamics.designs import FeatureDesign
from rdm_jax.dynamics.features import FeatureParameters
from rdm_jax.dynamics.integrate import Field
from rdm_jax.types import Array, ArrayLike, Features, Flag, Moment, PRNGKeyArray, Scalar

__all__ = ["ViewFeatures", "feature_field", "views_with_spectrum"]


class ViewFeatures(NamedTuple):
    """State: features (n, d); the second view (None unless the noise is free); W_p (d, d) (None unless learned)."""

    first: Array
    second: Array | None = None
    predictor: Array | None = None


class Outputs(NamedTuple):
    """An instant of one order of the views: z, G with p = G z, E[t | z], E[t t^T], and the basis of E[z z^T]."""

    features: Features
    online: Moment
    target: Features
    target_moment: Moment
    basis: Basis


@cache
def feature_field(design: FeatureDesign) -> Field:
    """The exact flow of the features, ``field(t, ViewFeatures, FeatureParameters)``: z' = -n dL/dz by ``jax.grad``.

    L is the mean over the batch of |p - t|^2 / 2, of -cos(p, t), or the mean-field cosine. Filters are matrices in the
    eigenbasis of the batch's own second moment, constant under the gradient, as the target is.

    - no noise: both branches see the same features.
    - persistent noise: the exact conditional mean E[z+ | z] = C_m C_z^-1 z, C_m = C_z - nu I, stands for the second
      view; directions that have come down to nu stay there.
    - free noise: both views are state, each is online in one of the two orders; p is of the one, t of the other.
    - a learned predictor follows the squared error: W_p' = alpha (E[t z^T] - W_p (C_z + rho I)).

    Args:
        design: on free features.

    Returns:
        The field, the same object for equal designs. It raises a ValueError for parameters out of range and a state
        that does not fit the design; under jit its derivative is NaN.

    Source: docs/theory.md, part B; S3 for the cosine of each sample.

    >>> field = feature_field(FeatureDesign(loss="squared", noise="persistent"))
    >>> field(0.0, ViewFeatures(jnp.array([[2.0]])), FeatureParameters(noise=1.0)).first.tolist()  # (3/4 - 1) 2
    [[-0.5]]
    """

    def field(t: Any, state: ViewFeatures, args: FeatureParameters) -> ViewFeatures:
        first, second, valid = read_views(design, state)
        noise, noise_valid = read_number(args.noise, "noise", first.dtype)
        rate, rate_valid = read_number(args.predictor_rate, "predictor_rate", first.dtype, positive=True)
        ridge, ridge_valid = read_number(args.ridge, "ridge", first.dtype)
        valid = valid & noise_valid & rate_valid & ridge_valid
        orders = [outputs_of(design, state, args, first, second, noise)]
        if second is not None:
            orders.append(outputs_of(design, state, args, second, first, noise))
        moved = [poison(_descent(design, order, noise), valid) for order in orders]
        learned = [_regression(order, ridge) for order in orders]
        return ViewFeatures(
            first=moved[0],
            second=moved[1] if second is not None else None,
            predictor=poison(rate * sum(learned) / len(learned), valid) if design.learns_predictor else None,
        )

    return field


def read_views(design: FeatureDesign, state: ViewFeatures) -> tuple[Features, Features | None, Flag]:
    """The features as arrays that fit the design."""
    first, valid = as_features(state.first, "first")
    require_branch(
        state.second is not None, design.noise == "free", "second", "it is a state only if the noise is free"
    )
    require_branch(
        state.predictor is not None, design.learns_predictor, "predictor", "it has one only if online='learned'"
    )
    second = None
    if state.second is not None:
        second, finite = as_features(state.second, "second")
        valid = valid & finite
        if second.shape != first.shape:
            raise ValueError(f"both views must have one shape, got {first.shape} and {second.shape}")
    if state.predictor is not None and jnp.shape(state.predictor) != (first.shape[1],) * 2:
        raise ValueError(f"predictor must be (d, d) beside features {first.shape}, got {jnp.shape(state.predictor)}")
    return first, second, valid


def outputs_of(
    design: FeatureDesign,
    state: ViewFeatures,
    args: FeatureParameters,
    own: Features,
    other: Features | None,
    noise: Array,
) -> Outputs:
    """What both branches put out, with ``own`` online and ``other`` (None: the same view) on the target side."""
    own, other = jax.lax.stop_gradient((own, other))
    basis = _basis(design, own, other, noise)
    online = state.predictor if state.predictor is not None else _filter(design.online, basis, args.online)
    if other is not None:
        basis_behind, seen, moment = _basis(design, other, own, noise), other, moment_of(other)
    else:
        seen = _conditional_mean(own, basis) if design.noise == "persistent" else own
        basis_behind, moment = basis, moment_of(own)
    target = _filter(design.target, basis_behind, args.target)
    return Outputs(own, online, product(seen, target), product(target, moment, target), basis)


def views_with_spectrum(key: PRNGKeyArray, n: int, spectrum: ArrayLike, signal: ArrayLike) -> tuple[Features, Features]:
    """Two views with exactly C_z = V diag(lambda) V^T each, and E[z+ z^T] = V diag(m) V^T, for a random rotation V.

    Args:
        key: a jax random key.
        n: samples, at least 2 d.
        spectrum: (d,) eigenvalues lambda >= 0.
        signal: (d,) m with |m_i| <= lambda_i.

    Returns:
        Both views, (n, d) each. NaN under jit for invalid input.

    Raises:
        ValueError: an invalid spectrum, a signal above it, shapes that differ, or too few samples.

    Source: docs/theory.md, notation.

    >>> first, second = views_with_spectrum(jax.random.key(0), 8, [3.0, 1.0], [2.0, 0.5])
    >>> print(f"{(first**2).sum() / 8:.4f} {(first * second).sum() / 8:.4f}")
    4.0000 2.5000
    """
    eigenvalues, valid = as_spectrum(spectrum)
    moments = as_floating(signal, "signal").astype(eigenvalues.dtype)
    d = eigenvalues.shape[-1]
    if eigenvalues.ndim != 1 or moments.shape != eigenvalues.shape or n < 2 * d:
        raise ValueError(
            f"need spectrum and signal (d,) alike and n >= 2 d, got {eigenvalues.shape}, {moments.shape} and n = {n}"
        )
    bounded = jnp.all(jnp.abs(moments) <= eigenvalues)
    require(bounded, "signal must lie within the spectrum, |m_i| <= lambda_i: the views share at most all of a mode")
    rows, columns = jax.random.split(key)
    left = jnp.linalg.qr(jax.random.normal(rows, (n, 2 * d), eigenvalues.dtype))[0] * n**0.5
    right = jnp.linalg.qr(jax.random.normal(columns, (d, d), eigenvalues.dtype))[0]
    shared = left[:, :d] * jnp.sqrt((eigenvalues + moments) / 2)[None]
    apart = left[:, d:] * jnp.sqrt((eigenvalues - moments) / 2)[None]
    first, second = (poison(product(view, right.T), valid & bounded) for view in (shared + apart, shared - apart))
    return first, second


def _descent(design: FeatureDesign, order: Outputs, noise: Array) -> Features:
    """-n dL/dz, without the directions that persistent noise holds up."""
    gradient = jax.grad(_loss)(order.features, order, design)
    slope = -len(order.features) * gradient
    if design.noise != "persistent":
        return slope
    free = (order.basis.spectrum > noise).astype(slope.dtype)
    return product(slope, from_gains(order.basis, free))


def _loss(features: Features, order: Outputs, design: FeatureDesign) -> Scalar:
    """The loss up to a constant; of the target only E[t | z] and E|t|^2 enter, but for the cosine of each sample."""
    outputs = _predicted(features, order.online, design)
    overlaps, sizes = jnp.sum(outputs * order.target, axis=1), jnp.sum(outputs**2, axis=1)
    if design.loss == "squared":
        return jnp.mean(sizes / 2 - overlaps)
    if design.loss == "cosine":
        return -jnp.mean(overlaps) / jnp.sqrt(jnp.mean(sizes) * jnp.trace(order.target_moment))
    return -jnp.mean(overlaps / jnp.sqrt(sizes * jnp.sum(order.target**2, axis=1)))


def _predicted(features: Features, online: Moment, design: FeatureDesign) -> Features:
    if not design.isotropic:
        return product(features, online.T)
    # the value of the filtered features, with the gradient of the features as they are
    fixed = jax.lax.stop_gradient(features)
    return product(fixed, online.T) + features - fixed


def _regression(order: Outputs, ridge: Array) -> Moment:
    features, size = order.features, len(order.features)
    return product(order.target.T, features) / size - product(order.online, moment_of(features)) - ridge * order.online


def _conditional_mean(features: Features, basis: Basis) -> Features:
    """E[z+ | z] = C_m C_z^-1 z."""
    on = basis.spectrum > 0
    share = jnp.where(on, basis.signal / jnp.where(on, basis.spectrum, 1), 0)
    return product(features, from_gains(basis, share))


def _basis(design: FeatureDesign, own: Features, other: Features | None, noise: Array) -> Basis:
    moment = moment_of(own)
    if other is not None:
        return basis_of(moment, product(other.T, own) / len(own))
    offset = noise if design.noise == "persistent" else 0
    return basis_of(moment, moment - offset * jnp.eye(len(moment), dtype=moment.dtype))


def _filter(function: Any, basis: Basis, parameters: Any) -> Moment:
    if function is None:
        return jnp.eye(len(basis.vectors), dtype=basis.vectors.dtype)
    return operator(basis, function, parameters)


def moment_of(features: Features) -> Moment:
    """E[z z^T] of the batch."""
    return product(features.T, features) / len(features)
