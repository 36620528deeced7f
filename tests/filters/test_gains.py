"""Gains: hand-solved values, the outputs that the published code states, composition, and senseless parameters."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from rdm_jax import filters
from rdm_jax.filters import Filter, compose, identity, log, log1p, log1p_square, power, wiener

EPS = float(np.finfo(np.float32).eps)
VALUES = [7.0, 2.5, 1.0, 0.3]
# Output singular values as the published code states them (recipes of Zhuo et al. 2023), a value at a time.
PUBLISHED = {
    power(1): lambda s: s**2,
    power(-0.3): lambda s: s**0.7,
    power(-0.7): lambda s: s**0.3,
    power(-1): lambda s: 1.0,
    log(): lambda s: s * math.log(s),
    log1p(): lambda s: s * math.log(1 + s),
    log1p_square(): lambda s: s * math.log(1 + s * s),
}
EVERY = [*PUBLISHED, identity(), power(2.5), wiener(0.4, 0.2), compose(log1p(), power(-0.5))]


@pytest.mark.parametrize("filter", PUBLISHED, ids=repr)
def test_outputs_are_those_of_the_published_code(filter):
    expected = [PUBLISHED[filter](value) for value in VALUES]
    assert_allclose(filter.gains(VALUES) * np.array(VALUES), expected, rtol=8 * EPS)


def test_gains_by_hand():
    assert_allclose(power(-0.5).gains([4.0, 0.25]), [0.5, 2.0], rtol=4 * EPS)
    assert_allclose(power(3).gains([2.0]), [8.0], rtol=4 * EPS)
    assert_allclose(log().gains([math.e**2, 1.0, math.exp(-3)]), [2, 0, -3], rtol=4 * EPS, atol=EPS)
    assert_allclose(identity().gains([5.0, 0.0]), [1, 1])
    # lambda = 8 and 2: (8 - 2)/(8 + 4), and nothing at the noise floor or below.
    assert_allclose(wiener(2.0, 4.0).gains([8**0.5, 2**0.5, 1.0]), [0.5, 0, 0], atol=4 * EPS)


@pytest.mark.parametrize("filter", EVERY, ids=repr)
def test_null_directions_have_a_finite_gain_and_slope(filter):
    slope = jax.grad(lambda s: jnp.sum(filter.gains(s)))(jnp.array([2.0, 0.0]))
    assert np.all(np.isfinite(slope)) and np.isfinite(filter.gains([0.0])[0])


@pytest.mark.parametrize("filter", [power(-1), power(-0.3), log(), wiener(0.0, 0.0)], ids=repr)
def test_null_directions_stay_null_where_the_formula_is_infinite(filter):
    assert filter.gains([3.0, 0.0])[1] == 0


@pytest.mark.parametrize("filter", EVERY, ids=repr)
def test_derivative_is_that_of_the_gain(filter, x64):
    step, at = 1e-6, jnp.array([3.0, 1.7, 0.9])
    slopes = jax.jvp(filter.gains, (at,), (jnp.ones_like(at),))[1]
    # Central differences in float64 are good to about 1e-10 here.
    assert_allclose(slopes, (filter.gains(at + step) - filter.gains(at - step)) / (2 * step), rtol=1e-8, atol=1e-9)


def test_wiener_sees_the_moment_per_sample_and_the_others_do_not():
    batch = np.array([12.0, 6.0, 3.0])
    expected = [(9 - 1) / (9 + 3), (2.25 - 1) / (2.25 + 3), 0]  # lambda = s^2 / 16
    assert_allclose(wiener(1, 3).gains(batch, samples=16), expected, rtol=8 * EPS)
    assert_allclose(wiener(1, 3).gains(batch / 4), expected, rtol=8 * EPS)
    assert_allclose(power(1).gains(batch, samples=16), batch)


def test_composition_filters_the_first_filters_output():
    # s = 2 -> s^2 = 4 -> 4 log 5: a gain of 2 log 5; the other way round 2 log 3 squared: 2 (log 3)^2.
    assert_allclose(compose(power(1), log1p()).gains([2.0]), [2 * math.log(5)], rtol=8 * EPS)
    assert_allclose(compose(log1p(), power(1)).gains([2.0]), [2 * math.log(3) ** 2], rtol=8 * EPS)
    # Per sample throughout: s = 6 of 9 rows, lambda = 4; doubled, lambda = 16.
    doubled = compose(power(0), wiener(1, 0)).gains([6.0], samples=9)
    assert_allclose(doubled, [0.75], rtol=8 * EPS)


def test_composition_takes_the_size_of_a_negative_output():
    # log maps s = 1/e to -1/e: its size goes on, its sign is kept.
    assert_allclose(compose(log(), power(-1)).gains([math.exp(-2)]), [-math.exp(2)], rtol=8 * EPS)


@given(st.floats(-0.9, 2), st.floats(-0.9, 2), st.floats(-0.9, 2))
def test_powers_compose_by_their_outputs_exponents(a, b, c):
    values, total = np.array([3.0, 1.0, 0.5]), (1 + a) * (1 + b) * (1 + c) - 1
    left, right = compose(compose(power(a), power(b)), power(c)), compose(power(a), compose(power(b), power(c)))
    # A filter is static: each of these would be compiled anew.
    with jax.disable_jit():
        gains = left.gains(values), right.gains(values)
    # Rounding is amplified by the exponents, at most 27.
    assert_allclose(gains, [values**total] * 2, rtol=200 * EPS)


@pytest.mark.parametrize("filter", EVERY, ids=repr)
def test_a_filter_is_a_value(filter):
    again = eval(repr(filter), vars(filters).copy())
    assert again == filter and hash(again) == hash(filter) and again is not filter
    assert filter != power(17) and len({filter, again, power(17)}) == 2
    with pytest.raises(AttributeError):
        filter.name = "other"


@pytest.mark.parametrize("filter", EVERY, ids=repr)
def test_filters_are_static_under_jit_and_batch_over_leading_axes(filter):
    values = jnp.array([[3.0, 1.5], [0.7, 0.0]])
    together = jax.jit(Filter.gains, static_argnums=0)(filter, values)
    # Compiled and not, logarithms and powers may differ by rounding.
    assert_allclose(together, [filter.gains(row) for row in values], rtol=8 * EPS)
    assert_allclose(together, jax.vmap(filter.gains)(values), rtol=8 * EPS)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_exponents_must_be_finite(bad):
    with pytest.raises(ValueError, match="exponent must be finite, got"):
        power(bad)


def test_noise_and_ridge_are_variances():
    with pytest.raises(ValueError, match=r"noise is a variance in feature units squared and must be >= 0, got -0\.1"):
        wiener(-0.1, 0.0)
    with pytest.raises(ValueError, match="ridge is a variance"):
        wiener(0.1, -2.0)
    with pytest.raises(ValueError, match="noise must be finite"):
        wiener(math.nan, 0.0)


def test_parameters_are_known_before_tracing():
    with pytest.raises(ValueError, match="exponent must be a number known before tracing"):
        jax.jit(lambda a: power(a).gains(jnp.ones(2)))(1.0)
    with pytest.raises(ValueError, match="f must be a Filter such as"):
        inspect.unwrap(compose)("log", power(1))
    with pytest.raises(ValueError, match="got 'log2p': did you mean 'log1p'"):
        Filter("log2p")


@pytest.mark.parametrize("bad", [[1.0, -0.1], [math.nan], [math.inf]])
def test_singular_values_must_be_finite_and_nonnegative(bad):
    with pytest.raises(ValueError, match="singular_values must be finite and >= 0"):
        power(1).gains(bad)
    assert np.all(np.isnan(jax.jit(power(1).gains)(jnp.array(bad))))


def test_a_batch_has_rows():
    with pytest.raises(ValueError, match="samples is the number of rows n >= 1 of the batch, got 0"):
        wiener(1, 1).gains([1.0], samples=0)
