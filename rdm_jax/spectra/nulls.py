"""Null levels: what a rank measure shows for isotropic Gaussian noise, where the true rank is d.

The eigenvalues x of the second moment of n such samples in d dimensions spread out after the Marchenko-Pastur
law, so every rank comes out below min(n, d). With a = min(n, d), b = max(n, d), y = a/b and unit mean, a sum
over the eigenvalues of a b-by-a matrix has the mean

    E sum_i f(x_i) = a int f dMP_y + (f(x_-) + f(x_+))/4 - (1/2 pi) int_0^pi f(x(t)) dt + O(1/b),
    x(t) = 1 + y + 2 sqrt(y) cos t,   x_-+ = (1 -+ sqrt(y))^2

for real entries (Bai and Silverstein 2004). Subtracting the mean row costs one sample: the level of *centred*
features is that of n - 1.
"""

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from rdm_jax._checks import as_floating, poison, require
from rdm_jax.types import Array, ArrayLike, Batched, Flag

_NODES = 256  # of the quadrature: square roots at the edge of the law then carry an error below 1e-6
_HARMONICS = 32  # of the variance: the terms fall like k^-5


def null_effective_rank(n: ArrayLike, d: ArrayLike) -> Batched:
    """Mean effective rank ("eig") of n isotropic Gaussian samples in d dimensions: about a exp(-a/(2b)).

    a = min(n, d), b = max(n, d). exp(E H + Var H / 2), with the entropy's mean and variance to order 1/b^2. The
    error falls like 1/b^3: 6% at 2 x 2, 0.2% at 5 x 5, below 0.1% from b = 8 on.

    Args:
        n: samples, >= 1; of centred features n - 1 (the mean row costs one).
        d: feature dimensions, >= 1.

    Returns:
        The level, in [1, min(n, d)]; broadcast over the shapes of n and d.

    Raises:
        ValueError: n or d below 1. Under a trace the result is NaN instead.

    >>> print(f"{null_effective_rank(512, 512):.0f} {null_effective_rank(1, 7):.1f}")
    310 1.0

    Source: Marchenko and Pastur 1967; Page 1993 (the leading order); Bai and Silverstein 2004 (the rest).
    """
    small, large, valid = _sizes(n, d)
    return poison(_entropy_level(small, large), valid)


def null_rankme(n: ArrayLike, d: ArrayLike) -> Batched:
    """Mean RankMe ("sv") of n isotropic Gaussian samples in d dimensions.

    exp(H) of the mean singular-value spectrum, by quadrature over the Marchenko-Pastur law with its first
    correction. The error falls like 1/b^2, b = max(n, d): 1.5% at 8 x 8, below 0.5% from b = 16 on.

    Args:
        n: samples, >= 1; of centred features n - 1 (the mean row costs one).
        d: feature dimensions, >= 1.

    Returns:
        The level, in [1, min(n, d)]; broadcast over the shapes of n and d.

    Raises:
        ValueError: n or d below 1. Under a trace the result is NaN instead.

    >>> print(f"{null_rankme(512, 512):.0f} {null_rankme(1, 7):.1f}")
    412 1.0

    Source: Marchenko and Pastur 1967; Bai and Silverstein 2004.
    """
    small, large, valid = _sizes(n, d)
    return poison(_singular_level(small, large), valid)


def _sizes(n: ArrayLike, d: ArrayLike) -> tuple[Batched, Batched, Flag]:
    rows, columns = jnp.broadcast_arrays(as_floating(n, "n"), as_floating(d, "d"))
    valid = (rows >= 1) & (columns >= 1) & jnp.isfinite(rows + columns)
    require(valid, f"a null level needs n >= 1 samples in d >= 1 dimensions, got n={n}, d={d}")
    return jnp.minimum(rows, columns), jnp.maximum(rows, columns), valid


@jax.jit
def _entropy_level(small: Batched, large: Batched) -> Batched:
    ratio = small / large
    root, size = jnp.sqrt(ratio), small * large / 2
    # For f(x) = x log x the law gives y/2, and the correction in the module's docstring has this closed form.
    correction = ((1 + root) ** 2 * jnp.log1p(root) + _square_log(1 - root)) / 2 - ratio
    trace = jax.scipy.special.digamma(size + 1) - jnp.log(size)
    entropy = jnp.log(small) + trace - ratio / 2 - correction / small + 1 / (4 * large**2)
    return jnp.where(small == 1, 1, jnp.exp(entropy + _entropy_variance(small, ratio) / 2))


@jax.jit
def _singular_level(small: Batched, large: Batched) -> Batched:
    total = _mean_sum(jnp.sqrt, small, small / large)
    weighted = _mean_sum(lambda x: jnp.sqrt(x) * jnp.log(jnp.where(x > 0, x, 1)) / 2, small, small / large)
    return jnp.where(small == 1, 1, total * jnp.exp(-weighted / total))


def _square_log(x: Array) -> Array:
    return x**2 * jnp.log(jnp.where(x > 0, x, 1))


def _entropy_variance(small: Batched, ratio: Batched) -> Batched:
    """(2/a^2) sum_{k >= 2} (y^k / k) (1/(k-1) - y/(k+1))^2: the cosine coefficients of x log x at fixed trace."""
    k = jnp.arange(2, _HARMONICS, dtype=ratio.dtype).reshape((-1,) + (1,) * ratio.ndim)
    terms = ratio[None] ** k / k * (1 / (k - 1) - ratio[None] / (k + 1)) ** 2
    return 2 * jnp.sum(terms, axis=0) / small**2


def _mean_sum(function: Callable[[Array], Array], small: Batched, ratio: Batched) -> Batched:
    """The mean of sum_i f(x_i), as in the module's docstring."""
    nodes, weights = _quadrature()
    angle = jnp.asarray(nodes, ratio.dtype).reshape((-1,) + (1,) * ratio.ndim)
    weight = jnp.asarray(weights, ratio.dtype).reshape(angle.shape)
    root = jnp.sqrt(ratio)
    # |1 + sqrt(y) e^it|^2 as a sum of squares: no cancellation at the edge x = 0 of y = 1.
    x = (1 - root[None]) ** 2 + 4 * root[None] * jnp.cos(angle / 2) ** 2
    law = 2 / jnp.pi * jnp.sum(weight * jnp.sin(angle) ** 2 * function(x) / x, axis=0)
    edges = (function((1 - root) ** 2) + function((1 + root) ** 2)) / 4
    return small * law + edges - jnp.sum(weight * function(x), axis=0) / (2 * jnp.pi)


@lru_cache
def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on [0, pi]."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return np.pi * (nodes + 1) / 2, np.pi * weights / 2
