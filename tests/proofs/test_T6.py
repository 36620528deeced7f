"""T6: hand-computed margins, the example of sharpness, two modes, and wrong variants that must be refuted."""

import numpy as np
import pytest

from proofs_numeric import T6_squared_error as T6
from tests.proofs.refuting import TWO_MODES, assert_margins, exact, refuted, variants

pytestmark = pytest.mark.usefixtures("x64")
HALF, PAIR = T6.STATEMENT.claims
LOG2 = np.log(2)


def test_margins_by_hand():
    # r = (0, 1/4), q = (2, 1)/3: dH/dt = log(2)/9, and q_1 (r_1 - 1/12) = -1/18. In units of 19/12.
    c = T6.Instance([2.0, 1.0], [1.0, 0.5], 1.0, 0.0, 1)
    singular = np.sqrt(2) / (1 + np.sqrt(2)) ** 2 * LOG2 / 8
    margins = np.array([LOG2 / 9, singular, 1 / 18]) * 12 / 19
    assert_margins(HALF, c, margins)
    assert_margins(HALF, c._replace(side=-1), -margins)
    # (g_1 + g_2 - share)/(g_1 + g_2 + share) = 1/5
    assert_margins(PAIR, c, [margins[0] / 5, 0])


def test_margins_with_a_share_and_noise_by_hand():
    # m = (1/2, 0), r = (1/8, -1/4), scale (1/2 (1/2 + 1) + 1/2 (0 + 1/2))/3 = 1/3; sides: g_1 + g_2 - share = 1/2.
    c = T6.Instance([2.0, 1.0], [0.5, 0.5], 0.5, 0.5, 1)
    rates = np.array([0.5 * (0.25 - 0.5), 0.5 * (0 - 0.5)])
    rise = -4 / 9 * (rates[0] - rates[1]) * LOG2
    assert_margins(PAIR, c, [rise * 3 / 3, rise * 3])


def test_the_example_of_sharpness():
    example = T6.certified_example()
    assert round(float(example["dH/dt / delta^2"]), 3) == -0.308
    assert example["dH/dt / delta^2"] in T6.STATEMENT.text
    rise = T6._rise(np.array([2.0, 1.0]), np.array([0.5, 0.4]))
    np.testing.assert_allclose(rise, 0.01 * float(example["dH/dt / delta^2"]), rtol=1e-5)


def test_a_gain_below_one_half_need_not_lower_the_rank():
    assert T6._rise(np.array([2.0, 1.0]), np.array([0.9, 0.2])) > 0


def test_stationary_iff_the_gains_are_constant():
    c = T6.Instance([2.0, 1.0], [0.7, 0.7], 1.0, 0.0, 1)
    assert HALF.equality(exact(c)) == [True] * 3
    assert HALF.equality(exact(c._replace(gains=[0.7, 0.6]))) == [False] * 3
    for gains, still in (([0.7, 0.7], True), ([0.75, 0.25], True), ([0.7, 0.2], False)):
        assert PAIR.equality(exact(c._replace(gains=gains)))[0] is still


def test_violations_become_rarer_with_the_number_of_modes():
    falling = T6.record(0)["falling"]
    for shares in falling.values():
        assert abs(shares[0] - 0.5) < 0.025  # five standard errors of 10,000 draws
        assert np.all(np.diff(shares) <= 0) and shares[-1] < 0.12


def test_wrong_variants_are_refuted():
    rules = {
        "true": lambda m, c: m[0],
        "rises on both sides": lambda m, c: c.side * m[0],
        "sv reversed": lambda m, c: -m[1],
        "sums reversed": lambda m, c: -m[2],
    }
    assert refuted(variants(HALF, rules)) == rules.keys() - {"true"}


def test_a_wrong_threshold_is_refuted_for_two_modes():
    def threshold(part):
        return lambda m, c: m[0] * (c.gains[0] + c.gains[1] - c.share) * (c.gains[0] + c.gains[1] - part * c.share)

    rules = {"the true one": threshold(1.0), "2% lower": threshold(0.98), "2% higher": threshold(1.02)}
    assert refuted(variants(PAIR, rules, TWO_MODES)) == {"2% lower", "2% higher"}
