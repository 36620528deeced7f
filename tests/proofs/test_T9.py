"""T9: margins by hand, a spectrum on both edges, the examples of either sign, and wrong variants."""

import numpy as np
import pytest

from proofs_numeric import T9_noise_band as T9
from proofs_numeric import _noise
from tests.proofs.refuting import assert_margins, exact, refuted, variants

pytestmark = pytest.mark.usefixtures("x64")
SURE, BAND = T9.STATEMENT.claims


def test_margins_above_the_peak_by_hand():
    # nu = 1, a = 2, lambda* = 2: g = (2, 1), theta = (3/8, 1/2), q_p = (8, 1)/9, kappa = 7/18.
    rate = -2 * 8 / 81 * (3 / 8 - 1 / 2) * np.log(2)
    assert_margins(SURE, _noise.Noisy([4.0, 2.0], 1.0, 2.0, 1), [rate, 1 / 2 - 7 / 18])


def test_margins_below_the_peak_by_hand():
    # lambda* = 2, g = (5/4, 1), theta = (12/25, 3/8): theta grows with lambda; q_p = (125, 64)/189.
    c = _noise.Noisy([2.0, 1.6], 1.0, 2.0, -1)
    q, theta = np.array([125, 64]) / 189, np.array([0.4, 0.375])
    kappa = q @ theta
    rate = -2 * q[0] * q[1] * (theta[0] - theta[1]) * np.log(1.25)
    assert_margins(SURE, c, [-rate, theta[0] - kappa], rtol=1e-12)


def test_margins_of_the_band_by_hand():
    # In units of nu: theta* = 1/4, kappa = 7/36, edges 1.357 and 3.786, theta(3) = 2/9.
    rate = 2 / 81 * np.log(2)
    c = T9.Band([4.0, 2.0], [1.0, 1.0], 2.0, 0, 3.0)
    expected = [1 / 36, 0, 1 / 18, 0, 1 / 36, rate, 1 / 72]
    assert_margins(BAND, c, expected, rtol=1e-12)
    assert_margins(BAND, c._replace(probe=1.3), [1 / 4 - 0.3 / 1.69, 0, 1 / 18, 0, 7 / 36 - 0.3 / 1.69, rate, 1 / 72])
    assert BAND.equality(exact(c)) == [False, True, False, None, None, False, False]


def test_a_spectrum_on_both_edges_is_stationary():
    # theta(3) = theta(3/2) = 2/9 for nu = 1, a = 2, as not_checked says.
    theta, kappa, rate = T9._ball_table(list(exact(T9.Band([3.0, 1.5], [], 0, 0, 0)).spectrum), [1, 1], 2)
    assert all((value - kappa).contains(0) and value.rad() < 1e-13 for value in theta)
    assert rate.contains(0)


def test_three_modes_have_a_hill():
    c = T9.Band([10.0, 3.0, 1.25], [1.0, 1.0, 1.0], 1.0, 1, 3.0)
    theta = [(1 - 1 / x) / np.sqrt(x / 1.25) for x in c.spectrum]
    ball = BAND.ball_margin(exact(c))[1]
    np.testing.assert_allclose(float(ball.mid()), theta[1] - min(theta[0], theta[2]), rtol=1e-14)


def test_the_examples_have_either_sign():
    first, second = (T9.certified_pattern(*example) for example in T9.EXAMPLES)
    assert first["signs"] == second["signs"] == "-+-"
    assert float(first["rate"]) > 0 > float(second["rate"])


def numpy_rate(spectrum, noise, a):
    """dH/dt over E_q[g^2], from the definition, by a central difference; g = 1 at the smallest eigenvalue."""
    gains = (spectrum / spectrum[-1]) ** (a / 2)
    signal = spectrum - noise
    rates = gains * (signal / spectrum - gains * np.sum(gains * signal) / np.sum(gains**2 * spectrum))

    def entropy(time):
        q = spectrum * np.exp(2 * rates * time)
        q = q / q.sum()
        return -np.sum(q * np.log(q))

    return (entropy(1e-4) - entropy(-1e-4)) / 2e-4 * np.sum(spectrum) / np.sum(gains**2 * spectrum)


@pytest.mark.parametrize("example", T9.EXAMPLES)
def test_the_examples_against_a_difference(example):
    spectrum, noise, a = example
    expected = numpy_rate(np.array(spectrum), noise, a)
    np.testing.assert_allclose(float(T9.certified_pattern(*example)["rate"]), expected, rtol=1e-5)


def test_wrong_variants_are_refuted():
    rules = {
        "true": lambda m, c: m[2],
        "falls above the peak": lambda m, c: -m[5],
        "kappa well below the peak": lambda m, c: m[2] - 0.05,
    }
    assert refuted(variants(BAND, rules)) == rules.keys() - {"true"}


def test_a_peak_one_percent_off_is_refuted():
    wrong = variants(SURE, {"rate": lambda m, c: m[0]}, dropped="level 1% off", hypotheses=_noise.HYPOTHESES[:3])
    assert refuted(wrong) == {"rate"}
