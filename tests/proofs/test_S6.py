"""S6: margins by hand, criteria against trajectories, states with two levels, and wrong variants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from proofs_numeric import S6_limits_and_stability as S6
from proofs_numeric import _flat_state
from rdm_jax import theory
from rdm_jax.dynamics import FeatureDesign, FeatureParameters, Modes, descend, mode_field, power_gains
from tests.proofs.refuting import assert_margins, exact, refuted, variants

pytestmark = pytest.mark.usefixtures("x64")
NOISE_FREE, FLAT = S6.STATEMENT.claims


def test_margins_online_by_hand():
    # g = lambda = (4, 1): kappa = 17/65, f = 1/sqrt(65 * 5), r = (-12, 48)/65; x = 1/4, 2 x (1 - x)/Lambda = 3/40
    expected = (2 * 60 / 65 - 3 / 40 * np.sqrt(325)) / 4
    assert_margins(NOISE_FREE, S6.Powers([4.0, 1.0], 2.0, [1.0, 1.0], 0.0, 1), [0, expected, 0], rtol=1e-12)


def test_margins_on_the_targets_side_by_hand():
    # h = (1/2, 1): kappa = 3/5, f = 1/sqrt(5 * 2), r = (-1/10, 2/5); 2 (1 - x)/Lambda = 1/5
    expected = 1 - np.sqrt(10) / 5
    assert_margins(NOISE_FREE, S6.Powers([4.0, 1.0], 1.0, [1.0, 1.0], 0.0, -1), [0, expected, 0], rtol=1e-12)


@pytest.mark.parametrize("spectrum", [[3.0, 3.0, 3.0], [2.0]])
def test_a_flat_spectrum_is_the_equality_set(spectrum):
    c = S6.Powers(spectrum, 2.0, [1.0] * len(spectrum), 0.0, 1)
    assert_margins(NOISE_FREE, c, [0, 0, 0])
    assert NOISE_FREE.equality(exact(c)) == [None, True, None]


def test_inverse_gains_under_a_finite_flow():
    # target, squared error: 1/h = s^a tends to 1 like exp(-a t)
    design = FeatureDesign(loss="squared", target=power_gains)
    args, start = FeatureParameters(target=-2.0), np.array([4.0, 0.25])
    flow = descend(mode_field(design), Modes(jnp.array(start)), args, learning_rate=1e-4, steps=10_000, every=10_000)
    np.testing.assert_allclose(flow.record.spectrum[-1], 1 + (start - 1) * np.exp(-2), rtol=1e-3)


def test_the_criterion_by_hand():
    # SNR = 2, slope = 1: 1 - 1/2 over 1 + 1/2
    c = _flat_state.Flat([1.0, -1.0], [1.0, 1.0], 3.0, 1.0, 1.0, 0.5, 0.0, 2, 1)
    assert_margins(FLAT, c, [0, 1 / 9], rtol=1e-12)
    # one mode at the floor with half the gain: y = 6/6.25
    c = _flat_state.Flat([1.0, -1.0, 0.0], [1.0] * 3, 3.0, 1.0, 1.0, 0.5, 0.0, 2, 1)
    assert_margins(FLAT, c, [0, ((2 * 24 / 25 - 1 - 1 / 2) / 1.5) ** 2], rtol=1e-12)
    assert_margins(FLAT, c._replace(side=-1), [0, 1 / 9], rtol=1e-12)


NOISY = mode_field(S6.NOISY)


def gap_after(start, exponent, steps=200):
    """log lambda_1 - log lambda_2 over its value at the start, under g = s^a and nu = 1."""
    args = FeatureParameters(noise=1.0, online=exponent)
    flow = descend(NOISY, Modes(jnp.array(start)), args, learning_rate=0.05, steps=steps, every=steps)
    first, second = np.log(np.asarray(flow.record.spectrum)[[0, -1], :2].T)
    return ((first - second)[1] / (first - second)[0]).item()


def test_modes_at_the_floor_can_make_a_stable_level_unstable():
    # SNR = 2 > 2/a = 5/3, but y = 0.79 with six modes at the floor: 0.6 (2 y - 1) < 1/2
    assert gap_after([3.003, 2.997] + [0.0] * 6, 1.2) < 1 < gap_after([3.003, 2.997] + [1.0] * 6, 1.2)


@pytest.mark.parametrize(("exponent", "stable"), [(1.02, True), (0.98, False)])
def test_two_over_a_is_the_threshold(exponent, stable):
    assert (gap_after([3.003, 2.997] + [0.0] * 6, exponent) < 1) == stable


def test_a_mode_at_the_floor_shrinks_and_is_held():
    spectrum, gains = jnp.array([3.0, 1.0]), jnp.array([3.0, 1.0])
    rates = theory.growth_rates(spectrum, online_gains=gains, signal=spectrum - 1)
    np.testing.assert_allclose(rates[1], -6 / 28, rtol=1e-14)  # -kappa g^2
    moved = NOISY(0.0, Modes(spectrum), FeatureParameters(noise=1.0, online=2.0)).spectrum
    assert moved[1] == 0 and moved[0] > 0, "the trace of the others grows"


@jax.jit
def flow_and_slopes(spectrum, exponent):
    def field(x):
        return NOISY(0.0, Modes(x), FeatureParameters(noise=1.0, online=exponent)).spectrum

    return field(spectrum), jax.jacfwd(field)(spectrum)


@pytest.mark.parametrize(("ratio", "exponent"), [(1.05, 1.0), (2.0, 2.0), (5.0, 0.3), (1.5, 4.0)])
@pytest.mark.parametrize(("upper", "lower"), [(1, 1), (5, 1), (1, 3), (3, 2)])
def test_states_with_two_levels_are_unstable(ratio, exponent, upper, lower):
    power = 1 + exponent / 2
    low = (ratio**power - 1) / (ratio * (ratio ** (power - 1) - 1))  # in units of nu, with U = ratio V
    spectrum = jnp.array([ratio * low] * upper + [low] * lower + [0.0] * (6 - upper - lower))
    flow, slopes = flow_and_slopes(spectrum, exponent)
    np.testing.assert_allclose(flow, 0, atol=1e-12)
    assert np.linalg.eigvals(slopes).real.max() > 1e-6


def test_squared_error_with_noise_ends_at_the_upper_edge_or_at_the_floor():
    # g = s^2, nu = 1/10: the edges solve x - 1/10 = x^2
    field = mode_field(FeatureDesign(loss="squared", online=power_gains, noise="persistent"))
    args, start = FeatureParameters(noise=0.1, online=2.0), jnp.array([2.0, 0.5, 0.13, 0.11])
    flow = descend(field, Modes(start), args, learning_rate=0.05, steps=4000, every=4000)
    upper = (1 + np.sqrt(0.6)) / 2
    np.testing.assert_allclose(flow.record.spectrum[-1], [upper, upper, upper, 0.1], rtol=2e-2)


def test_wrong_variants_are_refuted():
    rules = {"true": lambda m, c: m[1], "faster": lambda m, c: m[1] - 0.01, "slower": lambda m, c: -m[1]}
    assert refuted(variants(NOISE_FREE, rules)) == {"faster", "slower"}
    rules = {"true": lambda m, c: m[1], "unstable iff": lambda m, c: -m[1]}
    assert refuted(variants(FLAT, rules)) == {"unstable iff"}
