"""Centering against samples whose mean is really subtracted, and its peak and slope against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdm_jax import theory

pytestmark = pytest.mark.usefixtures("x64")

SPECTRUM = np.array([1.2, 5.0, 0.4, 2.5])


def entropy(spectrum):
    shares = spectrum[spectrum > 0] / spectrum.sum()
    return -(shares * np.log(shares)).sum()


def samples_with(rng, spectrum, mean):
    """Samples with second moment exactly diag(spectrum) and exactly this mean."""
    count = 40
    frame = np.linalg.qr(np.column_stack([np.ones(count), rng.normal(size=(count, len(mean)))]))[0]
    frame[:, 0] = 1 / np.sqrt(count)
    rest = np.diag(spectrum) - np.outer(mean, mean)
    return np.sqrt(count) * (np.outer(frame[:, 0], mean) + frame[:, 1:] @ np.linalg.cholesky(rest).T)


def centered(samples, fraction):
    rest = samples - fraction * samples.mean(axis=0)
    return np.sort(np.linalg.eigvalsh(rest.T @ rest / len(rest)))[::-1]


@pytest.mark.parametrize("fraction", [0.0, 0.4, 1.0])
def test_along_the_top_eigenvector(rng, fraction):
    mean = np.array([0.0, 1.9, 0.0, 0.0])
    expected = centered(samples_with(rng, SPECTRUM, mean), fraction)
    result = theory.centered_spectrum(SPECTRUM, 1.9**2, fraction)
    np.testing.assert_allclose(np.sort(result)[::-1], expected, rtol=1e-12)
    np.testing.assert_array_equal(np.delete(result, 1), np.delete(SPECTRUM, 1))
    np.testing.assert_allclose(theory.centered_spectrum_from_mean(SPECTRUM, mean, fraction), expected, rtol=1e-12)


@pytest.mark.parametrize("fraction", [0.0, 0.4, 1.0])
def test_in_any_direction(rng, fraction):
    mean = np.array([-0.3, 1.1, 0.2, 0.6])
    expected = centered(samples_with(rng, SPECTRUM, mean), fraction)
    np.testing.assert_allclose(theory.centered_spectrum_from_mean(SPECTRUM, mean, fraction), expected, rtol=1e-12)


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_the_effective_rank_peaks_at_the_peak(number):
    rest = np.exp(np.random.default_rng(number).normal(size=4))
    peak = float(theory.centering_peak(rest))
    below, at, above = (entropy(np.append(rest, x * peak)) for x in (0.999, 1, 1.001))
    assert at > below and at > above and peak <= rest.max() * (1 + 1e-15)


def test_first_order_is_the_slope_of_the_entropy():
    """Signs of both kinds: a mean along a large mode raises the entropy, along a small one lowers it."""
    for mean in (np.array([0.2, 1.0, 0.0, 0.3]), np.array([0.1, 0.0, 0.6, 0.0]), np.array([-0.3, 1.1, 0.2, 0.6])):
        step = 1e-5
        ends = [entropy(np.linalg.eigvalsh(np.diag(SPECTRUM) - sign * step * np.outer(mean, mean))) for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * step)
        first = theory.centering_first_order(SPECTRUM, mean) / SPECTRUM.sum()
        np.testing.assert_allclose(first, slope, rtol=1e-7)
    large, small = (theory.centering_first_order(SPECTRUM, np.eye(4)[mode]) for mode in (1, 2))
    assert large > 0 > small


def test_the_example_of_the_statement():
    """T10: (2, 1, 0) -> (0, 1, 0), which lowers the effective rank to 1."""
    assert theory.centered_spectrum(np.array([2.0, 1.0, 0.0, 0.0]), 2.0).tolist() == [0, 1, 0, 0]


def value(spectrum, mean):
    squared = jnp.sum(mean**2)
    parts = (
        jnp.sum(theory.centered_spectrum(spectrum, squared, 0.7) ** 2),
        jnp.sum(theory.centered_spectrum_from_mean(spectrum, mean, 0.7) ** 2),
        theory.centering_first_order(spectrum, mean),
        theory.centering_peak(spectrum),
    )
    return sum(parts)


VALUE_AND_GRADIENTS = jax.jit(jax.value_and_grad(value, (0, 1)))


def test_padding_changes_neither_values_nor_gradients():
    mean = np.array([-0.3, 1.1, 0.2, 0.6])
    plain = VALUE_AND_GRADIENTS(SPECTRUM, mean)
    padded = VALUE_AND_GRADIENTS(np.append(SPECTRUM, [0.0, 0.0]), np.append(mean, [0.0, 0.0]))
    np.testing.assert_allclose(padded[0], plain[0], rtol=1e-13)
    for wide, narrow in zip(padded[1], plain[1], strict=True):
        np.testing.assert_allclose(wide, np.append(narrow, [0.0, 0.0]), rtol=1e-12, atol=1e-14)


def test_gradients_are_finite_at_repeated_eigenvalues():
    for gradient in VALUE_AND_GRADIENTS(np.array([2.0, 2.0, 1.0, 0.0]), np.array([0.5, 0.5, 0.0, 0.0]))[1]:
        assert np.all(np.isfinite(gradient))


def test_jit_and_vmap_are_the_plain_loop(rng):
    spectra = 1 + np.exp(rng.normal(size=(3, 4)))
    means = 0.4 * rng.normal(size=(3, 4))
    fractions = np.array([0.2, 0.7, 1.0])

    def run(spectrum, mean, fraction):
        return (
            theory.centered_spectrum(spectrum, fraction / 2, fraction),
            theory.centered_spectrum_from_mean(spectrum, mean, fraction),
            theory.centering_first_order(spectrum, mean),
            theory.centering_peak(spectrum),
        )

    loop = [run(*row) for row in zip(spectra, means, fractions, strict=True)]
    for form in (jax.jit(run), jax.jit(jax.vmap(run))):
        for position, result in enumerate(form(spectra, means, fractions)):
            np.testing.assert_allclose(result, [row[position] for row in loop], rtol=1e-12)


def test_bad_input():
    with pytest.raises(ValueError, match="squared_mean exceeds the largest eigenvalue"):
        theory.centered_spectrum(SPECTRUM, 5.1)
    with pytest.raises(ValueError, match="mean is too long for this second moment"):
        theory.centered_spectrum_from_mean(SPECTRUM, np.array([1.0, 0.0, 0.5, 0.0]))
    with pytest.raises(ValueError, match="fraction must be nonnegative"):
        theory.centered_spectrum(SPECTRUM, 1.0, -0.5)
    with pytest.raises(ValueError, match="rest is all zero"):
        theory.centering_peak(np.zeros(4))
    assert np.all(np.isnan(jax.jit(theory.centered_spectrum)(SPECTRUM, 5.1)))
    assert np.all(np.isnan(jax.jit(theory.centered_spectrum_from_mean)(SPECTRUM, np.array([1.0, 0.0, 0.5, 0.0]))))
    assert np.isnan(jax.jit(theory.centering_peak)(np.zeros(4)))
    # a second moment of one direction has a mean of its full length
    full = theory.centered_spectrum_from_mean(np.array([4.0, 0.0, 0.0, 0.0]), np.array([2.0, 0.0, 0.0, 0.0]))
    assert full.tolist() == [0, 0, 0, 0]
