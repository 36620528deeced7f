"""Matrix products only: the stated gain in NumPy float64, the iteration on scalars, and what does not converge."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from rdm_jax.filters import apply, identity, log1p, power
from rdm_jax.filters.products import EXPONENTS, _roots, _scales
from tests.filters.reference import published, published_gradient, tolerance, with_spectrum

EPS = float(np.finfo(np.float32).eps)
SHAPES = [(7, 11), (11, 7), (6, 6), (1, 5), (5, 1)]


def stated(features, exponent, eps):
    """The documented gain s^a (1 + r)^(a/2) / (1 + r)^2, r = 8 eps size / s^2, size = (tr A^4)^(1/4)."""
    values = np.linalg.svd(np.asarray(features, np.float64), compute_uv=False)
    ridge = 8 * eps * np.sum(values**8) ** 0.25

    def gain(s, n):
        r = ridge / s**2 if exponent != 2 else 0.0
        return s**exponent * (1 + r) ** (exponent / 2) / (1 + r) ** 2

    return gain


def value_and_gradient(exponent, features, cotangent, **options):
    function = lambda z: apply(power(exponent), z, method="matmul", **options)  # noqa: E731
    value, pullback = jax.vjp(function, jnp.asarray(features))
    return value, pullback(jnp.asarray(cotangent, value.dtype))[0]


def assert_close(actual, expected, tolerance):
    assert_allclose(actual, expected, rtol=0, atol=tolerance * np.max(np.abs(expected)))


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_values_and_gradients(exponent, x64, rng):
    for shape in SHAPES if exponent == -1 else SHAPES[:2]:
        features, cotangent = 3 * rng.normal(size=shape), rng.normal(size=shape)
        value, gradient = value_and_gradient(exponent, features, cotangent)
        gain = stated(features, exponent, float(np.finfo(np.float64).eps))
        # The iteration's rounding is eps times the Gram matrix's condition, here below 1e4.
        assert_close(value, published(features, gain, 0), 1e-10)
        assert_close(gradient, published_gradient(features, cotangent, gain, 0), 1e-10)


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("shape", [(20, 50), (50, 20)], ids=str)
def test_accuracy_in_32_bits(exponent, shape, rng):
    """Stated: a relative error of about 20 eps size / s^2, size within a factor 20^(1/4) of s_max^2."""
    features = with_spectrum(rng, shape, 40 * np.geomspace(1, 0.05, 20)).astype(np.float32)
    cotangent = rng.normal(size=shape).astype(np.float32)
    value, gradient = value_and_gradient(exponent, features, cotangent)
    exact, cut = (lambda s, n: s**exponent), tolerance(features)
    bound = 40 * EPS / 0.05**2
    assert_close(value, published(features, exact, cut), bound)
    assert_close(gradient, published_gradient(features, cotangent, exact, cut), bound)
    assert_close(value, apply(power(exponent), features), bound)


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_the_damping_is_the_stated_one(exponent, rng):
    """Directions at and below the ridge, which a sharp cut would keep or drop."""
    values = np.array([1.0, 0.3, 4e-3, 1e-3, 3e-4])
    features = with_spectrum(rng, (5, 8), values).astype(np.float32)
    left, exact, right = np.linalg.svd(features.astype(np.float64), full_matrices=False)
    value, _ = value_and_gradient(exponent, features, features)
    gains = np.diag(left.T @ np.asarray(value, np.float64) @ right.T) / exact
    expected = stated(features, exponent, EPS)(exact, 5)
    # In outputs, because gains are only known up to the output's rounding over s; the Gram matrix's own rounding,
    # about eps, is what the ridge of 8 eps is there to cover.
    outputs, noise = np.abs(gains * exact), 8 * EPS * np.max(np.abs(gains * exact))
    assert_allclose(outputs[:3], (expected * exact)[:3], rtol=0.1, atol=noise)
    assert np.all(outputs[3:] < 1.5 * exact[3:] ** (1 + exponent) + noise)


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("shape", [(8, 30), (30, 8)], ids=str)
def test_null_directions_are_damped(exponent, shape, rng):
    features = with_spectrum(rng, shape, np.array([5.0, 3.0, 1.0])).astype(np.float32)
    value, gradient = value_and_gradient(exponent, features, np.ones(shape))
    exact, cut = (lambda s, n: s**exponent), tolerance(features)
    assert_close(value, published(features, exact, cut), 3000 * EPS)
    # Across null directions G is multiplied by rounding alone: less than the smallest kept gain, however high 1/s is.
    expected = published_gradient(features, np.ones(shape), exact, cut)
    assert np.linalg.norm(gradient - expected) < 0.1 * np.linalg.norm(expected)


def test_the_sample_scale_is_honoured(x64, rng):
    features = rng.normal(size=(6, 9))
    for exponent in (-0.5, 2):
        scaled, plain = (
            np.stack(value_and_gradient(exponent, features, np.ones((6, 9)), scale=scale))
            for scale in ("sample", "batch")
        )
        assert_allclose(scaled, plain * 6 ** (-exponent / 2), rtol=1e-12)


@pytest.mark.parametrize("lowest", [1e-4, 1e-2, 0.5])
def test_the_steps_bring_every_value_to_one(lowest):
    """On scalars: the coupled iteration is x -> c x (3 - c^2 x^2) / 2 for x^2 = p y."""
    x = np.geomspace(lowest, 1, 1000)
    scales = _scales(lowest, EPS)
    for scale in scales:
        x = scale * x * (3 - (scale * x) ** 2) / 2
    assert_allclose(x, 1, atol=4 * EPS)
    # Unscaled it would grow by 3/2 a step at first; scaled by 3 sqrt(3)/2.
    assert len(scales) < np.log(1 / lowest) / np.log(2.4) + 6


def test_roots_by_hand():
    root, inverse, converged = _roots(jnp.array([[0.5, 0.3], [0.3, 0.5]]), 0.2)  # eigenvalues 0.8 and 0.2
    a, b = 0.8**0.5, 0.2**0.5
    assert_allclose(root, np.array([[a + b, a - b], [a - b, a + b]]) / 2, atol=16 * EPS)
    assert_allclose(inverse, np.linalg.inv(root), rtol=64 * EPS)
    assert converged


@pytest.mark.parametrize("eigenvalues", [(1.0, -0.01), (1.0, 1e-6), (3.5, 0.5), (np.nan, 1.0)], ids=str)
def test_outside_its_domain_the_iteration_says_so(eigenvalues):
    assert not _roots(jnp.diag(jnp.array(eigenvalues)), 0.01)[2]


@pytest.mark.parametrize("filter", [log1p(), identity(), power(-0.3), power(0), power(3)], ids=repr)
def test_other_filters_need_the_exact_method(filter):
    with pytest.raises(ValueError, match=r"covers power\(-1\), power\(-0.5\), .* use method='exact'"):
        apply(filter, np.eye(3), method="matmul")


def test_vmap_is_a_loop(rng):
    batch = jnp.asarray(rng.normal(size=(3, 5, 8)), jnp.float32)
    together = jax.vmap(lambda z: apply(power(-0.5), z, method="matmul"))(batch)
    singly = [apply(power(-0.5), features, method="matmul") for features in batch]
    assert_allclose(together, singly, atol=500 * EPS)
