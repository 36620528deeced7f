"""Wiener predictors against the regressions they solve, and the size of the rank difference against its definition."""

from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdm_jax import theory

pytestmark = pytest.mark.usefixtures("x64")

SPECTRUM = np.array([5.0, 2.5, 1.2, 0.4])
SIGNAL = np.array([4.1, 1.3, 0.9, 0.1])
GAINS = np.array([0.9, 0.7, 0.1, 0.6])


def entropy(spectrum):
    shares = spectrum[spectrum > 0] / spectrum.sum()
    return -(shares * np.log(shares)).sum()


def test_threshold_is_the_ratio_of_the_filters():
    target = np.array([1.0, 2.0, 3.0, 4.0])
    theta = theory.wiener_threshold(SPECTRUM, online_gains=GAINS, target_gains=target, signal=SIGNAL)
    np.testing.assert_allclose(theta * GAINS * SPECTRUM, target * SIGNAL, rtol=1e-14)
    np.testing.assert_allclose(theory.wiener_threshold(SPECTRUM, online_gains=GAINS), 1 / GAINS, rtol=1e-14)


def test_threshold_is_zero_where_the_online_output_is():
    spectrum, gains = np.array([2.0, 1.0, 0.0, 0.0]), np.array([0.5, 0.0, np.inf, np.nan])

    def total(spectrum, gains):
        return jnp.sum(theory.wiener_threshold(spectrum, online_gains=gains, signal=spectrum / 2))

    assert theory.wiener_threshold(spectrum, online_gains=gains).tolist() == [2, 0, 0, 0]
    for gradient in jax.jit(jax.grad(total, (0, 1)))(spectrum, gains):
        assert np.all(np.isfinite(gradient)) and np.all(gradient[1:] == 0)


def ridge_regression(features, second_view, ridge):
    """argmin_W E|W z - z+|^2 + rho |W|^2 by least squares on stacked rows; of minimal norm if rho = 0."""
    count, size = features.shape
    inputs = np.vstack([features, np.sqrt(count * ridge) * np.eye(size)])
    outputs = np.vstack([second_view, np.zeros((size, size))])
    return np.linalg.lstsq(inputs, outputs, rcond=1e-10)[0].T


@pytest.mark.parametrize("ridge", [0.0, 0.7])
@pytest.mark.parametrize("rank", [4, 2])
def test_predictor_solves_the_ridge_regression(rng, rank, ridge):
    features = rng.normal(size=(50, rank)) @ rng.normal(size=(rank, 4))
    second_view = features @ rng.normal(size=(4, 4)) + rng.normal(size=(50, 4))
    signal_moment, feature_moment = second_view.T @ features / 50, features.T @ features / 50
    predictor = theory.wiener_predictor(signal_moment, feature_moment, ridge)
    np.testing.assert_allclose(predictor, ridge_regression(features, second_view, ridge), atol=1e-11)


def test_predictor_is_differentiable(rng):
    half = rng.normal(size=(9, 4))
    signal, feature, direction = rng.normal(size=(4, 4)), half.T @ half / 9, np.ones((4, 4))

    def value(signal, feature, ridge):
        return jnp.sum(jnp.sin(theory.wiener_predictor(signal, feature, ridge)))

    value = jax.jit(value)
    gradients = jax.jit(jax.grad(value, (0, 1, 2)))(signal, feature, 0.3)
    step = 1e-6
    for position, change in enumerate([direction, direction, 1.0]):
        forward, backward = [signal, feature, 0.3], [signal, feature, 0.3]
        forward[position], backward[position] = forward[position] + step * change, backward[position] - step * change
        slope = (value(*forward) - value(*backward)) / (2 * step)
        np.testing.assert_allclose(np.sum(gradients[position]), slope, rtol=1e-7)


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_isotropic_gains_are_the_predictor_in_its_eigenbasis(ridge):
    noise = 0.4
    predictor = theory.wiener_predictor(np.diag(SPECTRUM - noise), np.diag(SPECTRUM), ridge)
    np.testing.assert_allclose(theory.wiener_gains(SPECTRUM, noise, ridge), np.diag(predictor), rtol=1e-13, atol=1e-15)


def test_isotropic_gains_are_clipped_and_masked():
    spectrum = np.array([2.0, 0.5, 0.0, 0.0])
    assert theory.wiener_gains(spectrum, 1.0).tolist() == [0.5, 0, 0, 0]
    gradient = jax.jit(jax.grad(lambda *x: jnp.sum(theory.wiener_gains(*x)), (0, 1, 2)))(spectrum, 1.0, 0.0)
    np.testing.assert_allclose(gradient[0], [0.25, 0, 0, 0])  # nu / lambda^2
    np.testing.assert_allclose(gradient[1:], [-0.5, -0.25])


def test_lagging_gains_are_the_trained_predictor():
    """Euler steps of W' = E[z+ z^T] - W (C_z + rho I) from 0, Richardson-extrapolated."""
    ridge, time = 0.3, 0.8

    def trained(steps):
        gains = np.zeros(4)
        for _ in range(steps):
            gains = gains + time / steps * (SIGNAL - gains * (SPECTRUM + ridge))
        return gains

    expected = 2 * trained(20000) - trained(10000)  # error of second order in the step, about 1e-8
    np.testing.assert_allclose(theory.lagging_predictor_gains(SPECTRUM, SIGNAL, ridge, time), expected, rtol=1e-6)


def test_lagging_gains_reach_the_ridge_solution_and_start_linearly():
    late = theory.lagging_predictor_gains(SPECTRUM, SIGNAL, 0.3)
    np.testing.assert_allclose(late, SIGNAL / (SPECTRUM + 0.3), rtol=1e-14)
    early = theory.lagging_predictor_gains(SPECTRUM, SIGNAL, 0.3, 1e-12)
    np.testing.assert_allclose(early, 1e-12 * SIGNAL, rtol=1e-11)  # 1 - exp(-x) is x (1 - x/2)


def test_lagging_gains_have_finite_gradients_when_converged_and_padded():
    def total(spectrum, signal, ridge, progress):
        return jnp.sum(theory.lagging_predictor_gains(spectrum, signal, ridge, progress))

    spectrum, signal = np.append(SPECTRUM, 0.0), np.append(SIGNAL, np.nan)
    run = jax.jit(jax.grad(total, (0, 1, 2)))
    for progress in (0.7, np.inf):
        gradients = run(spectrum, signal, 0.0, progress)
        assert all(np.all(np.isfinite(gradient)) for gradient in gradients)
        assert gradients[0][-1] == gradients[1][-1] == 0
    np.testing.assert_allclose(gradients[1][:-1], 1 / SPECTRUM, rtol=1e-14)


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_a_shrunk_or_lagging_predictor_raises_the_rank(number):
    """S2, for any commuting signal; exact and converged it is stationary."""
    rng = np.random.default_rng(number)
    signal, noise = np.exp(2 * rng.normal(size=(2, 4)))
    spectrum = signal + noise
    for ridge, progress, sign in ((0.5, jnp.inf, 1), (0.0, 0.3, 1), (0.0, jnp.inf, 0)):
        gains = theory.lagging_predictor_gains(spectrum, signal, ridge, progress)
        rate = theory.entropy_rate_wiener(spectrum, online_gains=gains, signal=signal)
        assert rate > 0 if sign else abs(rate) < 1e-14


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_predicted_rank_difference_is_that_of_the_outputs(number):
    rng = np.random.default_rng(number)
    spectrum, gains = np.exp(2 * rng.normal(size=(2, 4)))
    gains = gains * (rng.uniform(size=4) < 0.7) + (np.arange(4) == 0)
    online, target = np.exp(entropy(gains**2 * spectrum)), np.exp(entropy(spectrum))
    np.testing.assert_allclose(theory.predicted_rank_difference(spectrum, gains), target - online, atol=1e-13)
    kl, covariance = theory.rank_difference_decomposition(spectrum, gains)
    np.testing.assert_allclose(kl + covariance, np.log(target / online), atol=1e-13)
    shares, weights = gains**2 * spectrum / np.sum(gains**2 * spectrum), spectrum / spectrum.sum()
    alive = shares > 0
    np.testing.assert_allclose(kl, np.sum(shares[alive] * np.log(shares[alive] / weights[alive])), atol=1e-13)
    assert kl >= np.sum(np.abs(shares - weights)) ** 2 / 2 - 1e-15  # Pinsker


def test_the_rank_differences_of_the_statement():
    """docs/theory.md S1: m = (4, 2, 1, .3), nu = 1; the filter s, and the exact Wiener predictor."""
    spectrum = np.array([5.0, 3.0, 2.0, 1.3])
    assert round(sum(map(float, theory.rank_difference_decomposition(spectrum, np.sqrt(spectrum)))), 3) == 0.275
    wiener = theory.wiener_gains(spectrum, 1.0)
    assert round(float(theory.predicted_rank_difference(spectrum, wiener)), 2) == 1.02


@pytest.mark.parametrize("spread", [1e-1, 3e-2, 1e-5, 1e-10])
def test_the_terms_keep_their_digits_for_nearly_constant_gains(spread):
    gains = 1 + spread * np.array([0.31, 0.02, -0.17, -0.23])
    with localcontext() as context:
        context.prec = 60
        lam, g = ([Decimal(float(x)) for x in array] for array in (SPECTRUM, gains))
        weights, shares = ([x / sum(y) for x in y] for y in (lam, [a * b * b for a, b in zip(lam, g, strict=True)]))
        kl = sum(p * (p / q).ln() for p, q in zip(shares, weights, strict=True))
        covariance = sum((p - q) * q.ln() for p, q in zip(shares, weights, strict=True))
        ranks = [(-sum(x * x.ln() for x in q)).exp() for q in (weights, shares)]
    terms = theory.rank_difference_decomposition(SPECTRUM, gains)
    np.testing.assert_allclose(terms, [float(kl), float(covariance)], rtol=1e-12)
    difference = theory.predicted_rank_difference(SPECTRUM, gains)
    np.testing.assert_allclose(difference, float(ranks[0] - ranks[1]), rtol=1e-12)


def value_of_terms(spectrum, gains):
    kl, covariance = theory.rank_difference_decomposition(spectrum, gains)
    return kl + 2 * covariance + theory.predicted_rank_difference(spectrum, gains)


TERMS_AND_GRADIENTS = jax.jit(jax.value_and_grad(value_of_terms, (0, 1)))


@pytest.mark.parametrize("fill", [0.0, 3.0, np.inf, np.nan])
def test_padding_changes_neither_the_terms_nor_their_gradients(fill):
    plain = TERMS_AND_GRADIENTS(SPECTRUM, GAINS)
    padded = TERMS_AND_GRADIENTS(np.append(SPECTRUM, 0.0), np.append(GAINS, fill))
    np.testing.assert_allclose(padded[0], plain[0], rtol=1e-14)
    for wide, narrow in zip(padded[1], plain[1], strict=True):
        np.testing.assert_allclose(wide, np.append(narrow, 0.0), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("gains", [[1.0, 1.0, 1.0, 1.0], [1.0, 0.5, 0.0, 0.2], [1.0, 1.0 + 1e-9, 1.0, 1.0]])
def test_gradients_of_the_terms_are_finite_and_right(gains):
    gains, spectrum = np.array(gains), np.array([2.0, 1.0, 1.0, 0.3])
    gradient = TERMS_AND_GRADIENTS(spectrum, gains)[1][1]
    step = 1e-6 * np.eye(4)
    evaluated = [TERMS_AND_GRADIENTS(spectrum, np.abs(gains + x))[0] for x in (*step, *-step)]
    np.testing.assert_allclose(gradient, np.subtract(evaluated[:4], evaluated[4:]) / 2e-6, atol=1e-8)


def test_jit_and_vmap_are_the_plain_loop(rng):
    spectra, signals = np.exp(rng.normal(size=(2, 3, 4)))

    def everything(spectrum, signal, noise, ridge):
        gains = theory.lagging_predictor_gains(spectrum, signal, ridge, 0.5)
        terms = theory.rank_difference_decomposition(spectrum, gains)
        others = theory.wiener_gains(spectrum, noise, ridge), theory.wiener_threshold(spectrum, online_gains=gains)
        return (*terms, theory.predicted_rank_difference(spectrum, gains), *others, gains)

    numbers = np.array([0.1, 0.2, 0.0]), np.array([0.0, 0.3, 0.1])
    loop = [everything(*row) for row in zip(spectra, signals, *numbers, strict=True)]
    for run in (jax.jit(everything), jax.jit(jax.vmap(everything))):
        for position, result in enumerate(run(spectra, signals, *numbers)):
            np.testing.assert_allclose(result, [row[position] for row in loop], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.wiener_gains(SPECTRUM, -1.0), "noise must be nonnegative and finite"),
        (lambda: theory.wiener_gains(SPECTRUM, np.ones(2)), "a scalar or one number per spectrum"),
        (lambda: theory.wiener_predictor(np.eye(2), np.eye(3)), r"both moments must be \(d, d\)"),
        (lambda: theory.wiener_predictor(np.eye(2), np.eye(2), -0.1), "ridge finite and nonnegative"),
        (lambda: theory.lagging_predictor_gains(SPECTRUM, -SIGNAL), "signal must be finite and nonnegative"),
        (lambda: theory.lagging_predictor_gains(SPECTRUM, SIGNAL, 0.0, -1.0), "progress must be nonnegative"),
        (lambda: theory.predicted_rank_difference(SPECTRUM, 0 * GAINS), "gains are 0 on the whole support"),
        (lambda: theory.rank_difference_decomposition(-SPECTRUM, GAINS), "negative value"),
    ],
)
def test_bad_input_says_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bad_input_under_jit_is_nan():
    assert np.all(np.isnan(jax.jit(theory.wiener_gains)(SPECTRUM, -1.0)))
    assert np.all(np.isnan(jax.jit(theory.wiener_predictor)(np.eye(2), np.eye(2), -1.0)))
    assert np.isnan(jax.jit(theory.predicted_rank_difference)(SPECTRUM, 0 * GAINS))
    assert np.all(np.isnan(jax.jit(theory.lagging_predictor_gains)(SPECTRUM, SIGNAL, np.nan)))
