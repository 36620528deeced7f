"""The filter as it is defined, in NumPy float64: an SVD, a d x d operator, and a product."""

import numpy as np

from rdm_jax.filters import identity, log, log1p, log1p_square, power, wiener

# The gain of each, from the formulas of the published code and of docs/theory.md T3, at s > 0; n for the last.
GAINS = {
    power(1): lambda s, n: s,
    power(-0.5): lambda s, n: 1 / np.sqrt(s),
    power(-1): lambda s, n: 1 / s,
    power(-1.5): lambda s, n: 1 / (s * np.sqrt(s)),
    log(): lambda s, n: np.log(s),
    log1p(): lambda s, n: np.log(1 + s),
    log1p_square(): lambda s, n: np.log(1 + s * s),
    identity(): lambda s, n: np.ones_like(s),
    wiener(0.2, 0.1): lambda s, n: np.maximum(s * s / n - 0.2, 0) / (s * s / n + 0.1),
}


def tolerance(features, dtype=np.float32):
    """The documented cut, relative to the largest singular value."""
    return max(np.shape(features)) * float(np.finfo(dtype).eps)


def operator(features, gain, cut):
    """W = V diag(g(s)) V^T over the directions with s > cut * s_max."""
    _, values, rows = np.linalg.svd(np.asarray(features, np.float64), full_matrices=False)
    kept = values > cut * values[0]
    return (rows[kept].T * gain(values[kept], len(features))) @ rows[kept]


def published(features, gain, cut):
    """The filtered features Z W."""
    return np.asarray(features, np.float64) @ operator(features, gain, cut)


def published_gradient(features, cotangent, gain, cut):
    """The gradient of <Z W, G> with respect to Z at constant W."""
    return np.asarray(cotangent, np.float64) @ operator(features, gain, cut).T


def with_spectrum(rng, shape, values):
    """Features with the given singular values and random singular vectors."""
    left, _ = np.linalg.qr(rng.normal(size=(shape[0], len(values))))
    right, _ = np.linalg.qr(rng.normal(size=(shape[1], len(values))))
    return (left * values) @ right.T


def effective_rank(features):
    """Of the second moment's eigenvalues: exp of their entropy."""
    shares = np.linalg.svd(np.asarray(features, np.float64), compute_uv=False) ** 2
    shares = shares[shares > 0] / shares.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))
