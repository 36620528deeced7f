"""Null levels against simulation: means of many Gaussian batches, within five standard errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from rdm_jax.spectra import null_effective_rank, null_rankme
from rdm_jax.spectra.nulls import _quadrature


def simulated(rng, n, d, batches, power, center=False):
    """Mean of the effective rank over batches of noise, and its standard error."""
    noise = rng.normal(size=(batches, n, d))
    if center:
        noise -= noise.mean(axis=1, keepdims=True)
    values = np.linalg.svd(noise, compute_uv=False)[:, : min(n - center, d)] ** power
    shares = values / values.sum(axis=1, keepdims=True)
    ranks = np.exp(-np.sum(shares * np.log(shares), axis=1))
    return ranks.mean(), ranks.std() / np.sqrt(batches)


# Sizes at which the standard error exceeds the formula's own error (5e-4 at b = 8, falling like b^-3).
@pytest.mark.parametrize(
    ("n", "d", "batches"), [(8, 8, 40000), (4, 12, 8000), (40, 12, 1000), (24, 24, 1000), (20, 60, 300), (64, 64, 100)]
)
def test_effective_rank_of_noise(x64, rng, n, d, batches):
    mean, error = simulated(rng, n, d, batches, power=2)
    assert abs(float(null_effective_rank(n, d)) - mean) < 5 * error


def test_centred_noise_has_lost_a_sample(x64, rng):
    mean, error = simulated(rng, 9, 8, 8000, power=2, center=True)
    assert abs(float(null_effective_rank(8, 8)) - mean) < 5 * error
    assert abs(float(null_effective_rank(9, 8)) - mean) > 20 * error


@pytest.mark.parametrize(("n", "d", "batches"), [(30, 90, 100), (128, 32, 100), (96, 96, 30)])
def test_rankme_of_noise(x64, rng, n, d, batches):
    mean, error = simulated(rng, n, d, batches, power=1)
    # The formula's own error is about 1.2/b^2 of the value.
    assert abs(float(null_rankme(n, d)) - mean) < 5 * error + 1.2 / max(n, d) ** 2 * mean


def test_small_sizes_keep_the_stated_error(x64, rng):
    for n, d, stated in [(2, 2, 0.06), (5, 5, 0.0025)]:
        mean, error = simulated(rng, n, d, 20000, power=2)
        assert abs(float(null_effective_rank(n, d)) / mean - 1) < stated + 5 * error / mean


def test_the_square_case_of_the_documentation():
    assert round(float(null_effective_rank(512, 512))) == 310


def test_leading_order_and_limits(x64):
    # a exp(-a/(2b)), corrections falling like 1/b.
    for n, d in [(10_000, 512), (2048, 100_000), (3000, 3000)]:
        small, large = min(n, d), max(n, d)
        assert_allclose(null_effective_rank(n, d), small * np.exp(-small / large / 2), rtol=2 / large)
    assert_allclose(null_effective_rank(10**9, 64), 64, rtol=1e-6)
    assert_allclose(null_rankme(10**9, 64), 64, rtol=1e-6)
    for level in (null_effective_rank, null_rankme):
        assert_allclose([level(1, 1), level(1, 9), level(9, 1)], 1)
        assert_allclose(level(30, 70), level(70, 30))


def test_quadrature_integrates_the_marchenko_pastur_law(x64):
    """Its mean is 1 and its second moment 1 + y."""
    angle, weight = _quadrature()
    for ratio in (0.1, 0.7, 1.0):
        x = 1 + ratio + 2 * np.sqrt(ratio) * np.cos(angle)
        law = 2 / np.pi * weight * np.sin(angle) ** 2 / x
        assert_allclose([law.sum(), law @ x, law @ x**2], [1, 1, 1 + ratio], rtol=1e-10)


@pytest.mark.parametrize("level", [null_effective_rank, null_rankme])
def test_sizes_broadcast_trace_and_are_checked(level):
    sizes = jnp.array([16, 64, 300])
    each = [level(n, 64) for n in (16, 64, 300)]
    assert_allclose(level(sizes, 64), each, rtol=1e-6)
    assert_allclose(jax.jit(jax.vmap(level, (0, None)))(sizes, 64), each, rtol=1e-6)
    for n, d in [(0, 4), (4, -1), (np.nan, 3), (np.inf, 3)]:
        with pytest.raises(ValueError, match="n >= 1 samples in d >= 1 dimensions"):
            level(n, d)
        assert np.isnan(jax.jit(level)(float(n), float(d)))
