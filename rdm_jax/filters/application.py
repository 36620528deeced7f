"""Filters applied to a batch of features: exactly, by way of its singular values.

On either side the output is Z W with the operator W = V diag(g(s)) V^T. Online, W is a constant: the gradient of
<Y, G> is G W, and never sees the decomposition. On the target side there is no gradient.

W is d x d, but never formed when n < d: with left singular vectors U of the n x n side, Z W = U diag(g) U^T Z and
G W = (G Z^T U) diag(g / s^2) U^T Z. The singular values come from the smaller Gram matrix where that loses
nothing that matters for the filter at hand, and from an orthogonal factorisation (QR, then an SVD) elsewhere.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from rdm_jax._checks import as_features, choose, poison
from rdm_jax._products import product
from rdm_jax.filters.gains import Filter, as_filter, gain
from rdm_jax.filters.operators import from_left
from rdm_jax.filters.products import filtered_by_products
from rdm_jax.spectra.decompose import null_tolerance, singular_values, small_side, small_side_by_gram
from rdm_jax.types import Array, ArrayLike, Features, Flag, Float, Gains, Int, Moment, Spectrum

__all__ = ["apply", "null_directions"]

# What a Gram matrix may add to rounding, to first order: in the output, in units of eps times its largest singular
# value; and in the operator, in units of sqrt(eps) times the largest gain, such that power(1) never needs more.
OUTPUT_LOSS = 64.0
OPERATOR_LOSS = 2.0

Function = Callable[[Spectrum], Gains]


def apply(
    filter: Filter, features: ArrayLike, *, side: str = "online", method: str = "exact", scale: str = "batch"
) -> Features:
    """Features with filtered singular values: Y = Z W, W = V diag(g(s)) V^T from the SVD Z = U diag(s) V^T.

    The SVD is of the raw batch, not centred and not normalised. Directions with s <= ``null_tolerance`` * s_max are
    rounding and get gain 0, so that power(-1) of rank-deficient features is the partial isometry U V^T of their
    rank, and the null direction that batch normalisation leaves when n <= d can't win; ``null_directions`` counts
    them. A zero matrix stays zero.

    ``"exact"`` has the accuracy of an SVD, about eps * s_max / s for the smallest s that matters. Where a Gram matrix
    takes its place, about twice as fast, that adds at most about 200 eps of the largest singular value of the output,
    and to the gradient about sqrt(eps) (3e-4 in float32) of the largest gain, both to first order. On a CPU, with a few
    hundred directions, OPENBLAS_NUM_THREADS=1 in the environment makes it faster: more threads gain LAPACK nothing
    there, and go on spinning for 20 ms on the cores that the matrix products need.

    ``"matmul"`` uses matrix products only, for power(-1), power(-1/2), power(1/2), power(1) and power(2). Small
    directions are damped, by about 30 eps (s_max / s)^2 in direction s, and rounding adds up to about sqrt(eps) of the
    largest singular value of the output; negative powers of nearly null directions lose more: see
    ``filtered_by_products``.

    The filter and the options are static: ``jax.jit(lambda z: apply(power(1), z))``. Derivatives of first order
    only, in either mode; the second is 0, because W is a constant.

    Args:
        filter: the gain, for example ``power(-0.5)``.
        features: Z (n, d), any float dtype; the arithmetic and the result have at least float32.
        side: ``"online"``: W is constant and the gradient of <Y, G> with respect to Z is G W. ``"target"``: no
            gradient at all.
        method: ``"exact"`` or ``"matmul"``.
        scale: ``"batch"``: gains are g(s), as in the published code. ``"sample"``: g(s / sqrt(n)), which does not
            depend on the batch size; recommended for ``log``, ``log1p`` and ``log1p_square``. For powers it is a
            constant factor; ``wiener`` sees s^2 / n either way.

    Returns:
        Y (n, d), with singular values |g(s) s|, in feature units times the gain's. NaN under jit if the features
        hold NaN or inf.

    Raises:
        ValueError: features not (n, d), or NaN or inf in them; an unknown side, method or scale; ``"matmul"`` with
            a filter that it does not cover.

    >>> from rdm_jax.filters import power
    >>> features = [[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]]
    >>> [[round(float(entry), 4) for entry in row] for row in apply(power(1), features)]
    [[9.0, 0.0], [0.0, 4.0], [0.0, 0.0]]

    Source: Zhuo et al. 2023, published code; docs/theory.md T1, T2.
    """
    as_filter(filter, "filter")
    choose(side, ("online", "target"), "side")
    choose(method, ("exact", "matmul"), "method")
    choose(scale, ("batch", "sample"), "scale")
    array, _ = as_features(features)
    if method == "matmul":
        return filtered_by_products(filter, array, side == "online", scale == "sample")
    return _filtered(filter, array, side == "online", scale == "sample")


def null_directions(features: ArrayLike) -> Int[Array, ""]:
    """How many of the min(n, d) directions ``apply`` takes as null: s <= ``null_tolerance`` * s_max.

    Args:
        features: (n, d).

    Returns:
        The count, an integer scalar; min(n, d) for a zero matrix. -1 under jit if the features hold NaN or inf.

    Raises:
        ValueError: features not (n, d), or NaN or inf in them.

    >>> int(null_directions([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]))
    1

    Source: docs/theory.md T2 (0 stays 0).
    """
    array, _ = as_features(features)
    values = singular_values(array)
    null = jnp.sum(values <= _cut(array) * values[0])
    return jnp.where(jnp.isfinite(values[0]), null, -1)


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _filtered(filter: Filter, features: Features, online: bool, per_sample: bool) -> Features:
    constant = jax.lax.stop_gradient(features)
    function = functools.partial(_gains, filter, features.shape[0], per_sample)
    values, vectors = _decomposed(filter, function, constant, online)
    largest = jnp.max(values)
    gains = jnp.where(values > _cut(features) * largest, function(values), 0)
    gains = poison(gains, jnp.isfinite(largest))
    operator = product(vectors * gains[None], vectors.T)
    if not online:
        features = constant
    if features.shape[0] < features.shape[1]:
        return from_left(features, operator, [_over_square(vectors, gains, values), vectors.T])
    return product(features, operator)


def _over_square(vectors: Moment, gains: Gains, values: Spectrum) -> Moment:
    """U diag(g / s^2), null directions left out; by one factor 1/s at a time, as 1/s^2 may overflow."""
    inverse = jnp.where(gains == 0, 0, 1 / values)[None]
    return vectors * inverse * (gains[None] * inverse)


def _gains(filter: Filter, rows: int, per_sample: bool, values: Spectrum) -> Gains:
    return gain(filter, values / rows**0.5, 1.0) if per_sample else gain(filter, values, float(rows))


def _decomposed(
    filter: Filter, function: Function, features: Features, online: bool
) -> tuple[Float[Array, " k"], Float[Array, "k k"]]:
    """Singular values and vectors of the smaller side, from the Gram matrix where it is good enough."""
    rows, columns = features.shape
    # Nearly square features are likely to have small singular values, and their SVD takes little longer: no attempt.
    if max(rows, columns) <= 2 * min(rows, columns) and not _is_gentle(filter):
        return small_side(features)
    values, vectors = small_side_by_gram(features)
    enough = _gram_is_enough(function, values, rows < columns, online)
    return jax.lax.cond(enough, lambda: (values, vectors), lambda: small_side(features))


def _is_gentle(filter: Filter) -> bool:
    """Whether the Gram matrix is good enough for every spectrum within range."""
    return filter.name == "power" and filter.parameters[0] >= 1


def _gram_is_enough(function: Function, values: Spectrum, wide: bool, online: bool) -> Flag:
    """Whether the Gram matrix's error, eps * s_max^2, keeps the bounds that ``apply`` states, to first order."""
    eps = float(jnp.finfo(values.dtype).eps)
    top = jnp.max(values)
    # Below the floor the values are noise, and so is the side of the cut they fall on: the worst is assumed.
    floored = jnp.maximum(values, eps**0.5 * top)
    noisy = values < 4 * eps**0.5 * top
    gains, slopes = map(jnp.abs, jax.jvp(function, (floored,), (jnp.ones_like(floored),)))
    output = slopes / 2 + jnp.where(noisy, gains / floored, 0)
    operator = slopes / (2 * floored) + jnp.where(noisy | wide, gains / floored**2, 0)
    kept = eps * top**2 * jnp.max(output) <= OUTPUT_LOSS * eps * jnp.max(gains * floored)
    steady = eps * top**2 * jnp.max(operator) <= OPERATOR_LOSS * eps**0.5 * jnp.max(gains)
    # An underflowing Gram matrix says nothing; comparisons with NaN, from an overflowing one, are false.
    visible = eps * top**2 > float(jnp.finfo(values.dtype).tiny)
    return visible & kept & (steady | (not online))


def _cut(features: Features) -> float:
    return null_tolerance(features.shape, features.dtype)
