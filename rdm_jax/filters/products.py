"""Power filters by matrix products only: no eigh and no svd, which accelerators are slow at.

With A the smaller Gram matrix, scaled so that its eigenvalues lie in [0, 1], and B = A + r I, a coupled
Newton-Schulz iteration gives B^(1/2) and B^(-1/2) together, and applied to B^(1/2) the fourth roots. The number of
steps is fixed by the dtype: r bounds B's eigenvalues from below. r is 8 eps, the rounding of A, so that directions
lost in it, null ones above all, are damped by (s^2 / (s^2 + r))^2 and not blown up.
"""

import functools
import math

import jax
import jax.numpy as jnp

from rdm_jax._checks import poison
from rdm_jax._products import product
from rdm_jax.filters.gains import Filter
from rdm_jax.filters.operators import from_left
from rdm_jax.types import Features, Flag, Moment, Scalar

EXPONENTS = (-1.0, -0.5, 0.5, 1.0, 2.0)
RIDGE = 8.0  # in units of eps


def filtered_by_products(filter: Filter, features: Features, online: bool, per_sample: bool) -> Features:
    """Features with singular values s^(1 + a), for a = -1, -1/2, 1/2, 1 or 2; see ``apply``.

    The gain is s^a (1 + r)^(a/2) / (1 + r)^2 with r = 8 eps * size / s^2 (a = 2 has r = 0), size between s_max^2
    and sqrt(k) s_max^2 for k = min(n, d): (tr A^4)^(1/4) for the Gram matrix A. So direction s is damped by about
    20 eps size / s^2, and one below about 1e-3 s_max in float32 (4e-8 in float64) to 0, smoothly: there is no sharp cut
    as there is with ``"exact"``. Rounding in the iteration adds up to about sqrt(eps) / 2 (2e-4 in float32) of the
    largest singular value of the output: in all directions, and the more of it the more of them are small.

    Gains of a < 0 are uncertain in directions near 1e-3 s_max, by a few percent of the largest gain, and in null
    directions by all of it. Those don't show in the output, because features have nothing there, nor in the gradient
    if n < d. If n >= d they do: take ``"exact"`` for negative powers of features that may have null directions.

    Args:
        filter: ``power`` of one of these exponents.
        features: (n, d), finite.
        online: whether gradients pass, at constant operator.
        per_sample: whether the gain is that of s / sqrt(n).

    Returns:
        (n, d). NaN if the iteration did not converge, or for NaN in the features.

    Raises:
        ValueError: another filter.
    """
    if filter.name != "power" or filter.parameters[0] not in EXPONENTS:
        covered = ", ".join(f"power({exponent:g})" for exponent in EXPONENTS)
        raise ValueError(f"method='matmul' covers {covered}; for {filter} use method='exact'")
    return _filtered(filter.parameters[0], features, online, per_sample)


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _filtered(exponent: float, features: Features, online: bool, per_sample: bool) -> Features:
    constant = jax.lax.stop_gradient(features)
    peak = jnp.max(jnp.abs(constant))
    unit = jnp.where(peak > 0, peak, 1)
    wide = features.shape[0] < features.shape[1]
    gram, size = _scaled_gram((constant.T if wide else constant) / unit)
    operator, factors, valid = _operator(gram, exponent)
    scale = jnp.sqrt(size) * unit * (features.shape[0] ** -0.5 if per_sample else 1.0)
    operator = poison(operator * scale**exponent, valid)
    if not online:
        features = constant
    if not wide:
        return product(features, operator)
    # The two 1 / (sqrt(size) unit) are those of Z / s on either side of the factors.
    inverse = 1 / (jnp.sqrt(size) * unit)
    first, *rest = factors
    return from_left(features, operator, [first * (scale**exponent * inverse) * inverse, *rest])


def _scaled_gram(tall: Features) -> tuple[Moment, Scalar]:
    """The Gram matrix with eigenvalues in [0, 1], and what it was divided by."""
    gram = product(tall.T, tall)
    # At least the largest eigenvalue, and closer to it than the Frobenius norm.
    size = jnp.sqrt(jnp.linalg.norm(product(gram, gram)))
    size = jnp.where(size > 0, size, 1)
    return gram / size, size


def _operator(gram: Moment, exponent: float) -> tuple[Moment, list[Moment], Flag]:
    """A^(a/2), factors whose product is A^(a/2 - 1), both with null directions damped, and whether they converged."""
    if exponent == 2:
        identity = jnp.eye(len(gram), dtype=gram.dtype)
        return gram, [identity], jnp.all(jnp.isfinite(gram))
    ridge = RIDGE * float(jnp.finfo(gram.dtype).eps)
    identity = jnp.eye(len(gram), dtype=gram.dtype)
    root, inverse, valid = _roots(gram + ridge * identity, ridge)
    chosen = root if exponent == 1 else inverse
    if abs(exponent) == 0.5:
        fourth, inverse_fourth, also = _roots(root, math.sqrt(ridge))
        chosen, valid = (fourth if exponent > 0 else inverse_fourth), valid & also
    damping = identity - ridge * product(inverse, inverse)
    return product(damping, chosen, damping), [inverse, damping, chosen, inverse], valid


def _roots(matrix: Moment, lowest: float) -> tuple[Moment, Moment, Flag]:
    """Square root and inverse square root of a matrix with eigenvalues in [lowest, 1], and whether they converged.

    Coupled Newton-Schulz, Y <- Y H, P <- H P, H = c (3 - c^2 P Y) / 2, from Y = B, P = I. Every eigenvalue x^2 of
    P Y moves as x <- c x (3 - c^2 x^2) / 2.

    Source: Higham, Functions of Matrices, 2008, section 6.7; the scaling c: Chen and Chow 2014.
    """
    identity = jnp.eye(len(matrix), dtype=matrix.dtype)

    def step(carry: tuple[Moment, Moment, Moment], scale: Scalar) -> tuple[tuple[Moment, Moment, Moment], None]:
        root, inverse, both = carry
        factor = scale / 2 * (3 * identity - scale**2 * both)
        root, inverse = product(root, factor), product(factor, inverse)
        return (root, inverse, product(inverse, root)), None

    scales = jnp.array(_scales(math.sqrt(lowest), float(jnp.finfo(matrix.dtype).eps)), matrix.dtype)
    (root, inverse, both), _ = jax.lax.scan(step, (matrix, identity, matrix), scales)
    residual = jnp.linalg.norm(both - identity) / math.sqrt(len(matrix))
    return root, inverse, residual < 1e-2


def _scales(lowest: float, eps: float) -> list[float]:
    """The c of every step: the one that maps both ends of [lowest, 1] to the same value, until that is 1."""
    scales = []
    while 1 - lowest > eps:
        scale = math.sqrt(3 / (1 + lowest + lowest**2))
        scales.append(scale)
        lowest = scale * lowest * (3 - (scale * lowest) ** 2) / 2
    return scales
