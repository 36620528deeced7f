"""T7: margins by hand, equality, the level of isotropic noise, and wrong variants that must be refuted."""

import numpy as np
import pytest

from proofs_numeric import T7_target_high_pass as T7
from proofs_numeric import _noise
from rdm_jax import theory
from tests.proofs.refuting import assert_margins, exact, refuted, variants

pytestmark = pytest.mark.usefixtures("x64")
NOISE_FREE, ISOTROPIC = T7.STATEMENT.claims
LOG2 = np.log(2)


def by_hand(difference):
    """dH/dt at lambda = (4, 1), where r differs by so much: q = (4, 1)/5 (eig) and (2, 1)/3 (sv), each case twice."""
    eig, sv = -2 * 4 / 25 * difference * 2 * LOG2, -2 / 9 * difference * LOG2
    return np.array([eig, eig, sv, sv])


def test_margins_by_hand():
    # r = h - kappa or h - 1 differs by -1; the scale is h(lambda_2) = 2.
    assert_margins(NOISE_FREE, T7.Instance([4.0, 1.0], [1.0, 2.0], [4.0, 1.0]), by_hand(-1.0) / 2)


def test_margins_with_view_noise_by_hand():
    # h m / lambda = (1/2, 1/4): noise turns the sign.
    c = T7.Instance([4.0, 1.0], [1.0, 2.0], [2.0, 0.125])
    assert_margins(NOISE_FREE, c, by_hand(0.25) / 2)


def test_small_gains_are_measured_against_the_other_term_of_the_squared_error():
    # r = h - 1, so that the rounding of 1 counts: no scale below 1.
    c = T7.Instance([4.0, 1.0], [0.125, 0.25], [4.0, 1.0])
    assert_margins(NOISE_FREE, c, by_hand(-0.125) / [0.25, 1.0, 0.25, 1.0])


@pytest.mark.parametrize("spectrum, gains", [([3.0, 2.0, 1.0], [0.7, 0.7, 0.7]), ([2.0, 2.0, 2.0], [0.1, 0.2, 0.7])])
def test_constant_gains_and_flat_spectra_are_stationary(spectrum, gains):
    c = T7.Instance(spectrum, gains, spectrum)
    assert_margins(NOISE_FREE, c, np.zeros(4))
    assert NOISE_FREE.equality(exact(c)) == [True] * 4


def test_gains_that_change_off_the_ties_are_not_stationary():
    c = T7.Instance([2.0, 2.0, 1.0], [0.1, 0.2, 0.2], [2.0, 2.0, 1.0])
    assert NOISE_FREE.equality(exact(c)) == [False] * 4
    assert all(ball > 0 for ball in NOISE_FREE.ball_margin(exact(c)))


def test_margins_with_isotropic_noise_by_hand():
    # nu = 1/2, a = -2: the level is 1, h = 1/lambda, h m / lambda = (7/32, 1/2).
    assert_margins(ISOTROPIC, _noise.Noisy([4.0, 1.0], 0.5, 2.0, 1), by_hand(-9 / 32))
    assert float(theory.target_noise_threshold(0.5, -2.0)) == 1.0


def test_below_the_level_it_falls():
    # nu = 1, a = -1/2: the level is 5, above both; h m / lambda = (3/4 2^(-1/2), 0).
    assert_margins(ISOTROPIC, _noise.Noisy([4.0, 1.0], 1.0, 0.5, -1), -by_hand(0.75 / np.sqrt(2)))


def test_wrong_variants_are_refuted():
    rules = {"true": lambda m, c: m[3], "falls": lambda m, c: -m[0], "eig faster than sv": lambda m, c: m[0] - 4 * m[2]}
    assert refuted(variants(NOISE_FREE, rules)) == rules.keys() - {"true"}


def test_a_level_one_percent_lower_is_refuted():
    rules = {"eig": lambda m, c: m[0], "sv": lambda m, c: m[2]}
    wrong = variants(ISOTROPIC, rules, dropped="level 1% off", hypotheses=_noise.HYPOTHESES[:3])
    assert refuted(wrong) == rules.keys()
