"""Softmax at high temperature: convergence orders, and second moments of real samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rdm_jax import theory

pytestmark = pytest.mark.usefixtures("x64")

CLASSES = 4
COVARIANCE = np.array([3.0, 1.0, 0.2])


def entropy(spectrum):
    shares = spectrum / spectrum.sum()
    return -(shares * np.log(shares)).sum()


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def centred_logits(rng, mean):
    """Rows orthogonal to the constant direction with exactly this covariance's spectrum and mean, in one basis."""
    basis = np.linalg.qr(np.column_stack([np.ones(CLASSES), rng.normal(size=(CLASSES, CLASSES - 1))]))[0][:, 1:]
    samples = rng.normal(size=(30, CLASSES - 1))
    samples = np.linalg.qr(samples - samples.mean(axis=0))[0] * np.sqrt(30 * COVARIANCE)
    return (samples + mean) @ basis.T


def moment_spectrum(outputs):
    return np.sort(np.linalg.eigvalsh(outputs.T @ outputs / len(outputs)))[::-1]


def order(errors):
    """Slopes between halvings of the error's argument."""
    return np.log2(np.array(errors[:-1]) / errors[1:])


def test_the_linearisation_is_of_second_order(rng):
    logits, scales = rng.normal(size=(5, 3)) + 1, 2.0 ** np.arange(8, 12)
    errors = [np.abs(softmax(logits / t) - theory.softmax_linearisation(logits, t)).max() for t in scales]
    np.testing.assert_allclose(order(errors), 2, atol=0.02)


@pytest.mark.parametrize("mean", [[0.0, 0.0, 0.0], [1.0, -0.5, 0.3]])
def test_the_linear_models_spectrum_is_that_of_linearised_samples(rng, mean):
    mean = np.array(mean)
    outputs = np.asarray(theory.softmax_linearisation(centred_logits(rng, mean) + 7, 2.5))
    model = theory.softmax_spectrum_from_mean(COVARIANCE, CLASSES, 2.5, mean)
    np.testing.assert_allclose(model, moment_spectrum(outputs), rtol=1e-12)
    if not mean.any():
        np.testing.assert_allclose(theory.softmax_spectrum(COVARIANCE, CLASSES, 2.5), model, rtol=1e-12)


def test_without_a_coupling_the_closed_form_is_exact():
    covariance, mean = np.array([3.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.4])
    model = theory.softmax_spectrum_from_mean(covariance, CLASSES, 1.1, mean)
    np.testing.assert_allclose(theory.softmax_spectrum(covariance, CLASSES, 1.1, 1.4**2), model, rtol=1e-12, atol=1e-15)


def test_the_closed_form_is_of_fourth_order():
    """Absolute error of every eigenvalue, with a mean that is not orthogonal to the covariance."""
    mean, scales = np.array([1.0, -0.5, 0.3]), 2.0 ** np.arange(4, 8)
    errors = [
        theory.softmax_spectrum(COVARIANCE, CLASSES, t, mean @ mean)
        - theory.softmax_spectrum_from_mean(COVARIANCE, CLASSES, t, mean)
        for t in scales
    ]
    np.testing.assert_allclose(order(np.abs(errors)), 4, atol=0.05)


def test_the_covariance_modes_of_a_real_softmax_converge(rng):
    """Relative error O(1/tau) of the eigenvalues beside the constant mode, whose own error is O(1/tau^3)."""
    mean, scales = np.array([1.0, -0.5, 0.3]), 2.0 ** np.arange(8, 12)
    logits = centred_logits(rng, mean)
    predicted = np.array([theory.softmax_spectrum(COVARIANCE, CLASSES, t, mean @ mean) for t in scales])
    real = np.array([moment_spectrum(softmax(logits / t)) for t in scales])
    np.testing.assert_allclose(order(np.abs(predicted / real - 1)), [[3, 1, 1, 1]] * 3, atol=0.1)


def test_the_threshold_is_where_the_effective_rank_turns():
    tau = float(theory.sharpening_threshold(COVARIANCE, CLASSES))
    below, at, above = (entropy(theory.softmax_spectrum(COVARIANCE, CLASSES, t * tau)) for t in (0.999, 1, 1.001))
    assert at > below and at > above


def test_with_a_mean_the_linear_model_can_rise_beyond_the_threshold():
    """Where T11 is loose: two classes turn at 2 tau^2 = s^2 + b^2, not at s^2."""
    covariance, mean = np.array([1.0]), np.array([2.0])
    tau = float(theory.sharpening_threshold(covariance, 2))
    np.testing.assert_allclose(2 * tau**2, 1.0)
    turning = np.sqrt((1 + 2.0**2) / 2)
    model = jax.jit(theory.softmax_spectrum_from_mean, static_argnums=1)
    ranks = [entropy(model(covariance, 2, t, mean)) for t in (tau, 1.2, 1.5, turning, 1.01 * turning)]
    assert np.all(np.diff(ranks[:-1]) > 0) and ranks[-1] < ranks[-2]


def test_gradients_jit_and_vmap(rng):
    covariances, means = np.exp(rng.normal(size=(3, 3))), rng.normal(size=(3, 3))
    covariances[0], means[0] = [2.0, 2.0, 0.0], [0.3, 0.1, 0.0]  # repeated and zero

    def run(covariance, mean):
        exact = theory.softmax_spectrum_from_mean(covariance, 5, 1.5, mean)
        closed = theory.softmax_spectrum(covariance, 5, 1.5, jnp.sum(mean**2, axis=-1))
        return exact, closed, theory.sharpening_threshold(covariance, 5)

    loop = [run(*row) for row in zip(covariances, means, strict=True)]
    for form in (jax.jit(run), jax.jit(jax.vmap(run))):
        for position, result in enumerate(form(covariances, means)):
            np.testing.assert_allclose(result, [row[position] for row in loop], rtol=1e-12, atol=1e-15)
    gradient = jax.jit(jax.grad(lambda *x: sum(jnp.sum(jnp.sin(y)) for y in run(*x)), (0, 1)))
    assert all(np.all(np.isfinite(part)) for part in gradient(covariances[0], means[0]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.softmax_linearisation(np.ones(3), 1.0), r"shape \(n, d\)"),
        (lambda: theory.softmax_linearisation(np.ones((3, 2)), 0.0), "temperature must be positive"),
        (lambda: theory.softmax_linearisation(np.ones((3, 2)), np.ones(3)), "temperature must be a scalar"),
        (lambda: theory.softmax_spectrum(COVARIANCE, 1, 1.0), "classes must be at least 2"),
        (lambda: theory.softmax_spectrum(COVARIANCE, 4, 1.0, -1.0), "squared_mean must be nonnegative"),
        (lambda: theory.softmax_spectrum_from_mean(COVARIANCE, 4, 1.0, np.ones(2)), "mean must have the shape"),
        (lambda: theory.softmax_spectrum_from_mean(COVARIANCE, 4, 1.0, np.full(3, np.nan)), "mean holds NaN"),
        (lambda: theory.sharpening_threshold(0 * COVARIANCE, 4), "covariance_spectrum is all zero"),
    ],
)
def test_bad_input_says_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bad_input_under_jit_is_nan():
    assert np.all(np.isnan(jax.jit(theory.softmax_linearisation)(np.ones((3, 2)), -1.0)))
    assert np.all(np.isnan(jax.jit(theory.softmax_spectrum, static_argnums=1)(COVARIANCE, 4, 1.0, -1.0)))
