"""Features with a prescribed spectrum: exact for the given batch, not only in expectation."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from rdm_jax._checks import as_floating, as_spectrum, poison, require
from rdm_jax._products import product
from rdm_jax.types import Array, ArrayLike, Features, Flag, PRNGKeyArray


def features_with_spectrum(
    key: PRNGKeyArray, n: int, spectrum: ArrayLike, *, mean: ArrayLike | None = None
) -> Features:
    """Random features whose second moment has exactly the given eigenvalues.

    Z = sqrt(n) U diag(sqrt(lambda)) V^T, with U and V random orthonormal columns. With ``mean``, U is orthogonal to
    the constant and the mean row is added: then it is the *covariance* (over n) that has the eigenvalues.

    Args:
        key: a jax random key.
        n: samples.
        spectrum: (d,) eigenvalues, nonnegative, any order; at most n of them nonzero (n - 1 with ``mean``).
        mean: (d,) the exact mean row; None leaves it random.

    Returns:
        (n, d) features.

    Raises:
        ValueError: a spectrum as ``effective_rank`` refuses it or not of one axis, more nonzero eigenvalues than
            n samples can carry, or a mean of another shape. Under a trace the result is NaN instead.

    >>> features = features_with_spectrum(jax.random.key(0), 8, [3.0, 1.0])
    >>> print(f"{(features**2).sum() / 8:.4f}")
    4.0000

    Source: docs/theory.md, notation.
    """
    values, valid, left, right = _factors(key, n, spectrum, centred=mean is not None)
    features = product(left * jnp.sqrt(n * values)[None], right.T)
    if mean is None:
        return poison(features, valid)
    middle, finite = _vector(mean, spectrum, "mean")
    return poison(features + middle[None], valid & finite)


def branches_with_filter(key: PRNGKeyArray, n: int, spectrum: ArrayLike, gains: ArrayLike) -> tuple[Features, Features]:
    """A target with exactly the given spectrum, and an online branch that is the target filtered.

    target = sqrt(n) U diag(sqrt(lambda)) V^T, online = target V diag(g) V^T: aligned eigenspaces, relative filter g.

    Args:
        key: a jax random key.
        n: samples.
        spectrum: (d,) eigenvalues of the target, nonnegative, any order; at most n of them nonzero.
        gains: (d,) gain of each of these eigenvalues, on singular values.

    Returns:
        online (n, d) and target (n, d).

    Raises:
        ValueError: as ``features_with_spectrum``, or gains of another shape or not finite. Under a trace the
            result is NaN instead.

    >>> online, target = branches_with_filter(jax.random.key(0), 8, [3.0, 1.0], [2.0, 1.0])
    >>> print(f"{(online**2).sum() / 8:.4f} {(target**2).sum() / 8:.4f}")
    13.0000 4.0000

    Source: docs/theory.md, notation (aligned eigenspaces, relative filter).
    """
    factors, gains_valid = _vector(gains, spectrum, "gains")
    values, valid, left, right = _factors(key, n, spectrum, centred=False)
    largest = jnp.argsort(-as_spectrum(spectrum)[0])[: len(values)]
    scaled = left * jnp.sqrt(n * values)[None]
    online = product(scaled * factors[largest][None], right.T)
    return poison(online, valid & gains_valid), poison(product(scaled, right.T), valid & gains_valid)


def _factors(
    key: PRNGKeyArray, n: int, spectrum: ArrayLike, centred: bool
) -> tuple[Float[Array, " k"], Flag, Float[Array, "n k"], Float[Array, "d k"]]:
    """The k largest eigenvalues, whether all is sound, and random orthonormal columns (n, k) and (d, k)."""
    values, valid = as_spectrum(spectrum)
    k = min(n - centred, values.shape[-1])
    if values.ndim != 1 or k < 1:
        raise ValueError(f"need a spectrum of shape (d,) and n >= {1 + centred} samples, got {values.shape} and n={n}")
    ordered = jnp.sort(values, descending=True)
    carried = jnp.all(ordered[k:] == 0)
    require(carried, f"{n} samples carry at most {k} nonzero eigenvalues here, got more: raise n or set the rest to 0")
    rows, columns = jax.random.split(key)
    noise = jax.random.normal(rows, (n, k), values.dtype)
    left = _orthonormal(noise - jnp.mean(noise, axis=0, keepdims=True) if centred else noise)
    right = _orthonormal(jax.random.normal(columns, (values.shape[0], k), values.dtype))
    return ordered[:k], valid & carried, left, right


def _orthonormal(columns: Float[Array, "n k"]) -> Float[Array, "n k"]:
    basis, triangle = jnp.linalg.qr(columns)
    # QR fixes the signs by its own rule; those of the triangle undo it, and the basis is uniform.
    return basis * jnp.sign(jnp.diagonal(triangle))[None]


def _vector(given: ArrayLike, spectrum: ArrayLike, name: str) -> tuple[Array, Flag]:
    vector, like = as_floating(given, name), as_floating(spectrum, "spectrum")
    if vector.shape != like.shape:
        raise ValueError(f"{name} must have the spectrum's shape {like.shape}, got {vector.shape}")
    finite = jnp.all(jnp.isfinite(vector))
    require(finite, f"{name} hold NaN or inf")
    return vector.astype(like.dtype), finite
