"""A data model whose view noise is known: latent factors with chosen variances, mixed into inputs.

Factor j of a sample has a content c_j ~ N(0, a_j) that its views share and a nuisance e_j ~ N(0, b_j) that each view
draws anew: u = c + e. So a factor with b_j = 0 is clean, and one with a_j = 0 pure nuisance. The inputs are

    x = Q phi(R u),    phi(v) = v, or erf(k v) sqrt(pi) / (2 k) for steepness k > 0,

R orthogonal and the columns of Q orthonormal, both random. phi is odd, invertible and has slope 1 at 0, and Gaussian
variables keep closed-form moments under it: that is why it is not another sigmoid.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rdm_jax._checks import as_floating, poison, require
from rdm_jax.types import Array, ArrayLike, Moment, PRNGKeyArray, Scalar, Views

__all__ = ["InputMoments", "LatentModel", "input_moments", "latent_model", "two_views"]


class LatentModel(NamedTuple):
    """Variances a (k,) and b (k,), the rotation R (k, k), the mixing Q (d, k), and the steepness; a pytree."""

    signal: Array
    noise: Array
    rotation: Array
    mixing: Array
    steepness: Array


class InputMoments(NamedTuple):
    """Of the inputs: C_m = E[x+ x^T] and C_v = E Cov(x | content), each (d, d); C_x is their sum."""

    signal: Moment
    noise: Moment


def latent_model(
    key: PRNGKeyArray, signal: ArrayLike, noise: ArrayLike, *, width: int | None = None, steepness: ArrayLike = 0.0
) -> LatentModel:
    """A data model with these variances and a random mixing.

    Args:
        key: a jax random key, of the mixing.
        signal: (k,) variances a_j >= 0 of the contents, not all 0.
        noise: (k,) variances b_j >= 0 of the nuisances, or one for all: isotropic view noise.
        width: d >= k, of the inputs; None: k.
        steepness: k >= 0 of the mixing's nonlinearity, in units of 1 / u; 0 mixes linearly. May be traced.

    Returns:
        The model.

    Raises:
        ValueError: variances negative, not finite or of different shapes; fewer inputs than factors; a steepness that
            is negative. Under a trace the variances are NaN instead.

    >>> model = latent_model(jax.random.key(0), [4.0, 1.0], 0.5, width=3)
    >>> model.noise.tolist(), model.mixing.shape
    ([0.5, 0.5], (3, 2))
    """
    contents, valid = _variances(signal, "signal")
    require(jnp.any(contents > 0), "signal is all zero: there is nothing that the views share")
    nuisances, noise_valid = _variances(noise, "noise")
    if contents.ndim != 1 or nuisances.shape not in ((), contents.shape):
        raise ValueError(f"signal is (k,), noise the same or one number; got {contents.shape} and {nuisances.shape}")
    k = len(contents)
    d = k if width is None else width
    if d < k:
        raise ValueError(f"width {d} is below the {k} factors: the inputs would not determine them; give width >= {k}")
    bend = as_floating(steepness, "steepness")
    require(bend >= 0, f"steepness must be at least 0, got {steepness}")
    inner, outer = jax.random.split(key)
    nuisances = jnp.broadcast_to(poison(nuisances, noise_valid), (k,))
    return LatentModel(poison(contents, valid), nuisances, _orthonormal(inner, k, k), _orthonormal(outer, d, k), bend)


def two_views(model: LatentModel, key: PRNGKeyArray, index: Array | int, samples: int) -> Views:
    """Two views of a fresh batch, a function of (key, index) only.

    Args:
        model: of the data.
        key: a jax random key, of the run.
        index: of the batch, a whole number that may be traced.
        samples: n, rows of the batch.

    Returns:
        (2, n, d) inputs.

    >>> model = latent_model(jax.random.key(0), [4.0, 1.0], 0.0)
    >>> first, second = two_views(model, jax.random.key(1), 7, 5)
    >>> bool(jnp.all(first == second))  # no view noise
    True
    """
    content, nuisance = jax.random.split(jax.random.fold_in(key, index))
    shape = (samples, len(model.signal))
    shared = jnp.sqrt(model.signal)[None] * jax.random.normal(content, shape)
    own = jnp.sqrt(model.noise)[None, None] * jax.random.normal(nuisance, (2, *shape))
    return _bent(_product(shared[None] + own, model.rotation.T), model.steepness) @ model.mixing.T


def input_moments(model: LatentModel) -> InputMoments:
    """C_m and C_v of the inputs in closed form.

    C_m = Q K(S_m) Q^T and C_m + C_v = Q K(S) Q^T with S_m = R diag(a) R^T, S = R diag(a + b) R^T and, under the
    nonlinearity, K(T)_ij = (pi / 4 k^2) (2 / pi) arcsin(2 k^2 T_ij / sqrt((1 + 2 k^2 S_ii) (1 + 2 k^2 S_jj))).

    Args:
        model: of the data.

    Returns:
        InputMoments(signal, noise).

    >>> moments = input_moments(latent_model(jax.random.key(0), [4.0, 1.0], 0.5))
    >>> round(float(jnp.trace(moments.signal)), 4), round(float(jnp.trace(moments.noise)), 4)
    (5.0, 1.0)

    Source: Williams 1997, the covariance of a network of error functions.
    """
    rotated = [_congruence(model.rotation, jnp.diag(values)) for values in (model.signal, model.signal + model.noise)]
    scale = jnp.diag(rotated[1])
    shared, both = (_congruence(model.mixing, _bent_moment(moment, scale, model.steepness)) for moment in rotated)
    return InputMoments(shared, both - shared)


def _variances(value: ArrayLike, name: str) -> tuple[Array, Array]:
    array = as_floating(value, name)
    valid = jnp.all((array >= 0) & jnp.isfinite(array))
    require(valid, f"{name} must be variances, finite and at least 0, got {value}")
    return array, valid


def _orthonormal(key: PRNGKeyArray, rows: int, columns: int) -> Array:
    return jnp.linalg.qr(jax.random.normal(key, (rows, columns)))[0]


def _bent(values: Array, steepness: Scalar) -> Array:
    safe = jnp.where(steepness > 0, steepness, 1)
    return jnp.where(steepness > 0, jax.lax.erf(safe * values) * (jnp.sqrt(jnp.pi) / (2 * safe)), values)


def _bent_moment(moment: Moment, variances: Array, steepness: Scalar) -> Moment:
    safe = jnp.where(steepness > 0, steepness, 1)
    square = 2 * safe**2
    lengths = jnp.sqrt(1 + square * variances)
    angles = jnp.arcsin(square * moment / (lengths[:, None] * lengths[None, :]))
    return jnp.where(steepness > 0, angles / square, moment)


def _congruence(basis: Array, moment: Array) -> Array:
    return _product(_product(basis, moment), basis.T)


def _product(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, precision="highest")
