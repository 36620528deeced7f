"""S1: hand-computed margins, the quoted example, the table of growth rates, and wrong variants that must be refuted."""

import jax
import numpy as np
import pytest

from proofs_numeric import S1_wiener_threshold as S1
from proofs_numeric import _growth
from tests.proofs.refuting import assert_margins, exact, floats, refuted, variants

pytestmark = pytest.mark.usefixtures("x64")
WIENER, TABLE = S1.STATEMENT.claims
LOG2 = np.log(2)


def instance(online, target, theta, direction, slope=None, loss=_growth.COSINE):
    return S1.Instance([2.0, 1.0], online, target, theta, slope or online, direction, loss)


def test_margins_of_an_online_filter_by_hand():
    # q_p = (8, 1)/9, kappa = 10/9, E_q[g^2] = 3/4: dH/dt = (4/27) log 2; E[p.t]/E|z|^2 = 5/6; lambda_1 r_1 = -2/9.
    c = instance([1.0, 0.5], [1.0, 1.0], [1.0, 2.0], 1)
    assert_margins(WIENER, c, [8 / 45 * LOG2, 4 / 45, 0, 0])
    assert_margins(WIENER, c._replace(direction=-1), [-8 / 45 * LOG2, -4 / 45, 0, 0])
    assert_margins(WIENER, c._replace(direction=0), [0, 0, 0, 0])


def test_margins_of_a_target_filter_by_hand():
    # theta = h = (1, 3), kappa = 5/3: r = (-2, 4)/3, dH/dt = (8/9) log 2.
    assert_margins(WIENER, instance([1.0, 1.0], [1.0, 3.0], [1.0, 3.0], 1), [8 / 15 * LOG2, 4 / 15, 0, 0])


def test_the_identities_fail_for_the_squared_error():
    # r = g^2 (theta - 1) = (0, 1/4) instead of (-1, 2)/9: dH/dt = log(2)/9, and sum(lambda |error|) = 1/4.
    c = instance([1.0, 0.5], [1.0, 1.0], [1.0, 2.0], 1, loss=_growth.SQUARED)
    expected = [2 / 15 * LOG2, 0.0, -2 / 45 * LOG2, -0.1]
    np.testing.assert_allclose(jax.jit(WIENER.margin)(floats(c)), expected, rtol=1e-13, atol=1e-15)
    balls = [float(ball.mid()) for ball in WIENER.ball_margin(exact(c))]
    np.testing.assert_allclose(np.abs(balls), np.abs(expected), rtol=1e-13, atol=1e-15)


def test_stationary_iff_theta_is_constant():
    def still(theta, direction=1):
        return WIENER.equality(exact(instance([1.0, 0.5], [1.0, 3.0], theta, direction)))[:2]

    assert still([2.0, 2.0]) == [True, True]
    assert still([1.0, 2.0]) == [False, False]
    assert still([1.0, 2.0], direction=0) == [True, True]


def test_the_example_of_the_consequence_for_c2():
    example = _growth.certain_digits(S1.certified_example())
    first, wiener = example["g(s) = s"], example["Wiener"]
    assert round(float(first["log-rank difference"]), 3) == 0.275
    assert round(float(first["dH/dt"]), 3) == -0.042
    assert round(float(wiener["rank difference"]), 2) == 1.02
    for digits in (first["log-rank difference"], first["dH/dt"], wiener["rank difference"]):
        assert digits in S1.STATEMENT.text
    signal = np.array([4.0, 2.0, 1.0, 0.3])
    difference, rise, _ = S1._measures(signal + 1, signal, np.sqrt(signal + 1))
    np.testing.assert_allclose(difference, float(first["log-rank difference"]), rtol=1e-5)
    np.testing.assert_allclose(rise, float(first["scaled dH/dt"]), rtol=1e-5)
    difference, rise, theta = S1._measures(signal + 1, signal, signal / (signal + 1))
    np.testing.assert_allclose(difference, float(wiener["log-rank difference"]), rtol=1e-5)
    np.testing.assert_allclose([rise, *(theta - 1)], 0, atol=1e-15)


def test_the_plane_shows_both_signs_of_the_rate_at_a_positive_rank_difference():
    record = S1.record(0)
    assert record["low-pass instances"] > 5000
    assert 0.2 < record["of these falling"] < 0.8
    for name, sign in (("nonincreasing", 1), ("nondecreasing", -1)):
        assert len(record["points"][name][1]) > 100
        assert np.all(sign * np.array(record["points"][name][1]) >= 0)


def test_the_table_by_hand_and_through_the_target():
    # All samples z = (1, 0): lambda r = h g - g^2, or -(g - h)^2 where the target moves too; |p|^2 + |t|^2 = 5.
    c = S1._table.Instance([[[1.0, 0.0]] * 3] * 2, [2.0, 1.0], [1.0, 1.0], 0, 0)
    assert_margins(TABLE, c, [0, 0])
    moving = c._replace(through=1)
    np.testing.assert_allclose(jax.jit(TABLE.margin)(floats(moving)), [-0.2, 0], atol=1e-15)
    np.testing.assert_allclose([float(ball.mid()) for ball in TABLE.ball_margin(exact(moving))], [0.2, 0], atol=1e-15)


def test_wrong_variants_are_refuted():
    rules = {
        "the true sign": lambda m, c: m[0],
        "reversed": lambda m, c: -m[0],
        "rises in both directions": lambda m, c: c.direction * m[0],
        "top sums grow": lambda m, c: -m[1],
    }
    assert refuted(variants(WIENER, rules)) == rules.keys() - {"the true sign"}
