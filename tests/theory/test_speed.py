"""Speed bounds: they bracket the rate that the growth rates give, and are attained by a linear filter."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdm_jax import theory

pytestmark = pytest.mark.usefixtures("x64")


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_bounds_bracket_the_rate_of_a_target_filter(number):
    rng = np.random.default_rng(number)
    spectrum, gains = np.exp(rng.normal(size=4)), np.exp(rng.normal(size=4))
    bounds = theory.speed_bounds(spectrum, *theory.slope_range(spectrum, gains))
    for loss in ("cosine", "squared"):
        rate = theory.entropy_rate(spectrum, theory.growth_rates(spectrum, target_gains=gains, loss=loss))
        assert bounds.lower - 1e-12 <= rate <= bounds.upper + 1e-12


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_bounds_bracket_the_rate_of_an_online_filter_with_noise(number):
    rng = np.random.default_rng(number)
    spectrum, online = np.exp(rng.normal(size=4)), np.exp(rng.normal(size=4))
    options = {"online_gains": online, "signal": spectrum * rng.uniform(size=4)}
    slopes = theory.slope_range(spectrum, theory.wiener_threshold(spectrum, **options))
    bounds = theory.speed_bounds(spectrum, *slopes, online_gains=online)
    rate = theory.entropy_rate(spectrum, theory.growth_rates(spectrum, **options))
    assert bounds.lower - 1e-12 <= rate <= bounds.upper + 1e-12


@pytest.mark.parametrize("online", [None, np.array([1.0, 0.2, 3.0, 0.5])])
def test_a_threshold_linear_in_log_lambda_attains_both_bounds(online):
    """theta = 7 - 0.5 log lambda, through the target gains."""
    spectrum = np.array([0.3, 9.0, 1.7, 4.0])
    target = (7 - 0.5 * np.log(spectrum)) * (1 if online is None else online)
    rates = theory.growth_rates(spectrum, online_gains=online, target_gains=target)
    bounds = theory.speed_bounds(spectrum, 0.5, 0.5, online_gains=online)
    np.testing.assert_allclose(bounds, theory.entropy_rate(spectrum, rates), rtol=1e-13)


def test_slopes_are_those_of_all_pairs(rng):
    spectrum, values = np.exp(rng.normal(size=4)), rng.normal(size=4)
    order = np.argsort(spectrum)
    slopes = -np.diff(values[order]) / np.diff(np.log(spectrum[order]))
    measured = theory.slope_range(spectrum, values)
    np.testing.assert_allclose(measured, [slopes.min(), slopes.max()], rtol=1e-12)


def test_slopes_at_ties_padding_and_alone():
    tied = np.array([np.e, 1.0, 1.0, 0.0])
    np.testing.assert_allclose(theory.slope_range(tied, np.array([0.0, 2.0, 2.0, np.nan])), [2.0, 2.0], rtol=1e-14)
    assert theory.slope_range(tied, np.array([0.0, 2.0, 3.0, 9.0])) == (-np.inf, np.inf)
    assert theory.slope_range(np.full(4, 3.0), np.ones(4)) == (0, 0)
    assert theory.slope_range(np.array([3.0, 0.0, 0.0, 0.0]), np.arange(4.0)) == (0, 0)
    assert theory.slope_range(np.array([3.0]), np.array([1.0])) == (0, 0)


def test_slopes_of_nearly_equal_eigenvalues_keep_their_digits():
    spectrum = 3 * (1 + 1e-9 * np.arange(4))
    exact = 1 / np.log1p((spectrum[1:] - spectrum[:-1]) / spectrum[:-1])
    measured = theory.slope_range(spectrum, -np.arange(4.0))
    np.testing.assert_allclose(measured, [exact.min(), exact.max()], rtol=1e-14)


def test_padding_changes_neither_bounds_nor_gradients():
    def value(spectrum, values, online):
        slopes = theory.slope_range(spectrum, values)
        bounds = theory.speed_bounds(spectrum, *slopes, online_gains=online)
        return bounds.lower + 2 * bounds.upper

    arguments = np.array([5.0, 0.4, 1.2, 3.1]), np.array([0.1, 0.7, 0.2, 0.3]), np.array([0.9, 0.3, 0.5, 0.8])
    run = jax.jit(jax.value_and_grad(value, (0, 1, 2)))
    plain = run(*arguments)
    padded = run(*(np.append(x, [fill, fill]) for x, fill in zip(arguments, (0, np.nan, np.inf), strict=True)))
    np.testing.assert_allclose(padded[0], plain[0], rtol=1e-14)
    for wide, narrow in zip(padded[1], plain[1], strict=True):
        np.testing.assert_allclose(wide, np.append(narrow, [0.0, 0.0]), rtol=1e-12, atol=1e-15)
    flat = run(*(np.ones(4),) * 3)
    assert all(np.all(np.isfinite(gradient)) for gradient in flat[1])


def test_jit_and_vmap_are_the_plain_loop(rng):
    spectra, values, online = np.exp(rng.normal(size=(3, 3, 4)))

    def run(spectrum, values, online):
        return theory.speed_bounds(spectrum, *theory.slope_range(spectrum, values), online_gains=online)

    loop = np.array([run(*row) for row in zip(spectra, values, online, strict=True)]).T
    np.testing.assert_allclose(jax.jit(jax.vmap(run))(spectra, values, online), loop, rtol=1e-13)
    np.testing.assert_allclose(jax.jit(run)(spectra, values, online), loop, rtol=1e-13)


def test_bad_input():
    spectrum = np.array([2.0, 1.0, 0.5, 0.1])
    with pytest.raises(ValueError, match="lower_slope must not exceed"):
        theory.speed_bounds(spectrum, 2.0, 1.0)
    with pytest.raises(ValueError, match="values must be finite"):
        theory.slope_range(spectrum, np.array([np.nan, 1.0, 2.0, 3.0]))
    assert np.all(np.isnan(jax.jit(theory.speed_bounds)(spectrum, 2.0, 1.0)))
