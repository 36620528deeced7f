"""Isotropic noise: band, thresholds and the symmetric design against their equations and a hand-written integrator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdm_jax import theory

pytestmark = pytest.mark.usefixtures("x64")

SPECTRUM = np.array([9.0, 4.0, 2.7, 1.5])


def threshold(spectrum, noise, exponent):
    return (spectrum - noise) * spectrum ** (-1 - exponent / 2)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from([0.1, 0.5, 1.0, 3.0]))
def test_edges_solve_the_equation_on_either_side_of_the_peak(number, exponent):
    rng = np.random.default_rng(number)
    noise = np.exp(rng.normal())
    spectrum = noise * (1 + np.exp(2 * rng.normal(size=4)))
    band = theory.noise_band(spectrum, noise, exponent)
    weights = spectrum ** (1 + exponent)
    kappa = np.sum(weights * threshold(spectrum, noise, exponent)) / np.sum(weights)
    np.testing.assert_allclose(band.kappa, kappa, rtol=1e-12)
    assert noise < band.lower_edge <= band.peak <= band.upper_edge
    for edge in (band.lower_edge, band.upper_edge):
        # relative rounding of the edge moves lambda - nu by eps lambda
        np.testing.assert_allclose(edge - noise, kappa * edge ** (1 + exponent / 2), rtol=1e-12, atol=1e-14 * edge)


def test_the_peak_is_where_the_threshold_is_largest():
    band = theory.noise_band(SPECTRUM, 1.3, 0.7)
    grid = np.linspace(1.31, 40, 200001)
    np.testing.assert_allclose(grid[np.argmax(threshold(grid, 1.3, 0.7))], band.peak, atol=grid[1] - grid[0])


def test_modes_grow_inside_the_band_and_shrink_outside():
    band = theory.noise_band(SPECTRUM, 1.3, 1.0)
    rates = theory.growth_rates(SPECTRUM, online_gains=np.sqrt(SPECTRUM), signal=SPECTRUM - 1.3)
    inside = (float(band.lower_edge) < SPECTRUM) & (float(band.upper_edge) > SPECTRUM)
    assert (np.asarray(rates) > 0).tolist() == inside.tolist() == [False, True, True, False]


def test_the_band_of_a_flat_spectrum():
    peak = 1.3 * (1 + 2 / 0.7)
    at_peak = theory.noise_band(np.full(4, peak), 1.3, 0.7)
    # a double root: sqrt(eps) is all that can be had
    np.testing.assert_allclose([at_peak.lower_edge, at_peak.upper_edge], peak, rtol=1e-6)
    above = theory.noise_band(np.full(4, 2 * peak), 1.3, 0.7)
    np.testing.assert_allclose(above.upper_edge, 2 * peak, rtol=1e-13)
    at_floor = theory.noise_band(np.full(4, 1.3), 1.3, 0.7)
    np.testing.assert_allclose(at_floor, [peak, 1.3, np.inf, 0], rtol=1e-14)


def test_a_steep_filter_and_wide_spectrum_do_not_overflow():
    with jax.enable_x64(False):
        band = jax.jit(theory.noise_band)(np.float32([1e8, 3.0, 2.0, 1.5]), np.float32(1.0), np.float32(6.0))
    assert all(np.isfinite(band)) and band.lower_edge < band.peak < band.upper_edge
    # one mode carries everything: kappa is its theta, and it sits at the upper edge
    np.testing.assert_allclose([band.upper_edge, band.kappa], [1e8, 1e-24], rtol=1e-4)


def test_gradients_of_the_band():
    def edges(spectrum, noise, exponent):
        band = theory.noise_band(spectrum, noise, exponent)
        return jnp.stack([band.lower_edge, band.upper_edge, band.kappa, band.peak])

    edges, jacobian = jax.jit(edges), jax.jit(jax.jacobian(edges, (0, 1, 2)))
    arguments, step = (np.append(SPECTRUM, 0.0), np.array(1.3), np.array(0.7)), 1e-6
    jacobians = jacobian(*arguments)
    assert np.all(np.asarray(jacobians[0])[:, -1] == 0)
    changes = [(np.append(np.eye(4)[1], 0.0), 0, 0), (np.zeros(5), 1, 0), (np.zeros(5), 0, 1)]
    columns = [jacobians[0][:, 1], jacobians[1], jacobians[2]]
    for change, column in zip(changes, columns, strict=True):
        ends = [edges(*(a + s * c for a, c in zip(arguments, change, strict=True))) for s in (step, -step)]
        np.testing.assert_allclose(column, (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("exponent", [-0.3, -1.0, -2.0])
@pytest.mark.parametrize("loss", ["cosine", "squared"])
def test_the_target_threshold_separates_rising_from_falling(rng, exponent, loss):
    level = float(theory.target_noise_threshold(0.8, exponent))
    for side, sign in ((np.linspace(1.0, 3.0, 4), 1), (np.linspace(0.95 * 0.8 / level + 0.05, 1.0, 4), -1)):
        spectrum = level * side
        gains = spectrum ** (exponent / 2)
        rates = theory.growth_rates(spectrum, target_gains=gains, signal=spectrum - 0.8, loss=loss)
        assert sign * theory.entropy_rate(spectrum, rates) > 1e-6


@pytest.mark.parametrize("exponent", [0.5, 2.0])
def test_the_flat_state_decays_at_the_rate_of_its_margin(exponent):
    """Both signs of the margin; the departure (1, .5, -.5, -1) keeps the mean of log lambda."""
    noise, small = 0.7, 1e-6
    critical = noise * (1 + float(theory.stability_threshold(exponent)))
    for level in (0.8 * critical, 1.5 * critical):
        spectrum = level * np.exp(small * np.array([1.0, 0.5, -0.5, -1.0]))
        rates = theory.growth_rates(spectrum, online_gains=spectrum ** (exponent / 2), signal=spectrum - noise)
        margin = theory.flat_stability_margin(level, noise, exponent / 2)
        theta, gain = (level - noise) / level ** (1 + exponent / 2), level ** (exponent / 2)
        np.testing.assert_allclose(2 * rates[0] / small, -2 * theta * gain**2 * margin, rtol=1e-5)
        assert (margin > 0) == (level > critical)
    np.testing.assert_allclose(theory.flat_stability_margin(critical, noise, exponent / 2), 0, atol=1e-15)
    np.testing.assert_allclose(critical, theory.target_noise_threshold(noise, -exponent), rtol=1e-15)


def flow(spectrum, noise):
    """d lambda / dt = 2 r lambda / Lambda with r = m / lambda - kappa, from the table's symmetric row."""
    signal = spectrum - noise
    return 2 * (signal - signal.sum() / spectrum.sum() * spectrum) / spectrum.sum()


def integrate(spectrum, noise, time, steps=400):
    """Fourth-order Runge-Kutta; at these sizes its error is about 1e-11."""
    step = time / steps
    for _ in range(steps):
        one = flow(spectrum, noise)
        two = flow(spectrum + step / 2 * one, noise)
        three = flow(spectrum + step / 2 * two, noise)
        four = flow(spectrum + step * three, noise)
        spectrum = spectrum + step / 6 * (one + 2 * two + 2 * three + four)
    return spectrum


def test_the_symmetric_design_follows_its_closed_form():
    horizon = float(theory.symmetric_horizon(SPECTRUM, 1.0))
    for time in (0.3 * horizon, horizon * (1 - 1e-12)):
        closed = theory.symmetric_spectrum(SPECTRUM, 1.0, time)
        np.testing.assert_allclose(closed, integrate(SPECTRUM, 1.0, time), rtol=1e-9)
    np.testing.assert_allclose(closed[3], 1.0, rtol=1e-10)
    padded = jax.jit(theory.symmetric_spectrum)(np.append(SPECTRUM, [0.0, 0.0]), 1.0, time)
    np.testing.assert_allclose(padded, np.append(closed, [0.0, 0.0]), rtol=1e-13)
    np.testing.assert_allclose(theory.symmetric_spectrum(SPECTRUM, 1.0, 0.0), SPECTRUM, rtol=1e-15)


def test_the_symmetric_flow_is_the_one_of_the_growth_rates():
    rates = theory.growth_rates(SPECTRUM, signal=SPECTRUM - 1.0) * theory.common_factor(SPECTRUM)
    np.testing.assert_allclose(2 * rates * SPECTRUM, flow(SPECTRUM, 1.0), rtol=1e-12)


def test_the_symmetric_design_composes_in_time():
    half = theory.symmetric_spectrum(SPECTRUM, 1.0, 2.0)
    whole = theory.symmetric_spectrum(SPECTRUM, 1.0, 5.0)
    np.testing.assert_allclose(theory.symmetric_spectrum(half, 1.0, 3.0), whole, rtol=1e-13)


def test_beyond_the_horizon_there_is_no_closed_form():
    late = 1.01 * float(theory.symmetric_horizon(SPECTRUM, 1.0))
    with pytest.raises(ValueError, match="below the noise"):
        theory.symmetric_spectrum(SPECTRUM, 1.0, late)
    assert np.all(np.isnan(jax.jit(theory.symmetric_spectrum)(SPECTRUM, 1.0, late)))
    assert theory.symmetric_horizon(np.full(4, 2.0), 1.0) == np.inf
    assert theory.symmetric_horizon(np.full(4, 2.0), 2.0) == 0
    assert theory.symmetric_horizon(np.array([3.0, 1.0, 2.0, 5.0]), 1.0) == 0


def test_a_plain_number_beside_a_float32_spectrum_keeps_float32():
    spectrum = np.array([2.7, 1.7, 0.7, 0.7], np.float32)
    unmoved = theory.symmetric_spectrum(spectrum, np.float32(0.7), 0.0)
    assert unmoved.dtype == np.float32
    np.testing.assert_allclose(unmoved, spectrum, rtol=1e-6)


def test_jit_and_vmap_are_the_plain_loop(rng):
    noise, exponent = np.array([0.5, 1.0, 2.0]), np.array([0.3, 1.0, 2.0])
    spectra = noise[:, None] * (1 + np.exp(rng.normal(size=(3, 4))))

    def run(spectrum, noise, exponent):
        horizon = theory.symmetric_horizon(spectrum, noise)
        return *theory.noise_band(spectrum, noise, exponent), horizon, theory.symmetric_spectrum(spectrum, noise, 0.1)

    loop = [run(*row) for row in zip(spectra, noise, exponent, strict=True)]
    for form in (jax.jit(run), jax.jit(jax.vmap(run))):
        for position, result in enumerate(form(spectra, noise, exponent)):
            np.testing.assert_allclose(result, [row[position] for row in loop], rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.noise_band(SPECTRUM, 0.0, 1.0), "noise must be positive"),
        (lambda: theory.noise_band(SPECTRUM, 1.0, -1.0), "exponent must be positive"),
        (lambda: theory.noise_band(SPECTRUM, 1.6, 1.0), "below the noise"),
        (lambda: theory.symmetric_spectrum(SPECTRUM, 1.0, -1.0), "time must be nonnegative"),
        (lambda: theory.target_noise_threshold(1.0, 0.0), "exponent must be a number other than 0"),
        (lambda: theory.target_noise_threshold(-1.0, -0.5), "noise must be nonnegative"),
        (lambda: theory.flat_stability_margin(1.0, 1.0, 0.5), "level > noise"),
    ],
)
def test_bad_input_says_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bad_input_under_jit_is_nan():
    assert np.all(np.isnan(jax.jit(theory.noise_band)(SPECTRUM, 1.6, 1.0)))
    assert np.isnan(jax.jit(theory.target_noise_threshold)(1.0, 0.0))
    assert np.isnan(jax.jit(theory.flat_stability_margin)(1.0, 1.0, 0.5))
    assert np.isnan(jax.jit(theory.symmetric_horizon)(SPECTRUM, -1.0))
