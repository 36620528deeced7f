"""T2: hand-computed margins, quoted counterexamples, and wrong variants that must be refuted."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flint import fmpq

from proofs_numeric import T2_high_pass_target_filter as T2
from tests.proofs.refuting import assert_margins, refuted, variants

pytestmark = pytest.mark.usefixtures("x64")
GENERAL, POWERS = T2.STATEMENT.claims
FLAT = np.log(2)
EIG = -0.8 * np.log(0.8) - 0.2 * np.log(0.2)  # s = (2, 1): q = (4/5, 1/5)
SV = -2 / 3 * np.log(2 / 3) - 1 / 3 * np.log(1 / 3)


def test_margins_by_hand():
    # u = h s = (1, 1)
    assert_margins(GENERAL, T2.Filtered([2.0, 1.0], [0.5, 1.0]), [FLAT - EIG, FLAT - SV])


def test_margins_of_powers_by_hand():
    # a = -1/2: u = sqrt(s), so that the eigenvalues are (2, 1); b = 1, f = 0: H(lambda^0) - H(lambda)
    c = T2.Power([2.0, 1.0, 0.0], -0.5, 1.0, 0.0)
    half = -np.array([0.0, 1.0]) @ [0, 0] + np.log(1 + 2**0.5) - 2**0.5 * np.log(2**0.5) / (1 + 2**0.5)
    assert_margins(POWERS, c, [SV - EIG, half - SV, FLAT - EIG, 0.0])


def test_the_rate_is_minus_b_times_the_variance():
    # lambda^b = (9, 1) for s = (3, 1), b = 1: variance .9 * .1 * (log 9)^2; a finite difference of the entropy agrees.
    entropy = [T2.entropies(np.array([9.0**b, 1.0])) for b in (1 - 1e-5, 1 + 1e-5)]
    np.testing.assert_allclose((entropy[1] - entropy[0]) / 2e-5, -0.09 * np.log(9) ** 2, rtol=1e-8)
    assert_margins(POWERS, T2.Power([3.0, 1.0], 0.0, 1.0, 1.0), [0.0, 0.0, 0.0, 0.0])


def test_exponents_beyond_the_range_are_certified_counterexamples():
    rows = T2.certified_powers()
    assert {row["exponent"] for row in rows} >= {"-101/100", "-3/2", "-3", "-201/100", "1/100"}
    assert all(row["verdicts"] == ["fails", "fails"] for row in rows)


def test_thresholds():
    # (1, eps): the threshold is -2; (1, .1, .1) has none, since erank = 1.76 < 2
    low, high = T2.threshold([fmpq(1), fmpq(1, 3)])
    assert low <= -2 <= high and high - low < 1e-3
    assert T2.threshold([fmpq(10), fmpq(1), fmpq(1)]) is None


def test_wrong_variants_are_refuted():
    rules = {"reversed, eig": lambda m, c: -m[0], "reversed, sv": lambda m, c: -m[1], "true": lambda m, c: m[0]}
    assert refuted(variants(GENERAL, rules)) == rules.keys() - {"true"}


def test_the_range_of_two_modes_is_not_that_of_three():
    def build(raw, dropped):
        c = POWERS.build(raw, dict.fromkeys(dropped, jnp.asarray(False)))
        return c._replace(exponent=-2 * jnp.sin(raw.angle) ** 2)

    rules = {"a >= -2, eig": lambda m, c: m[0], "a >= -2, sv": lambda m, c: m[1], "true": lambda m, c: m[2]}
    wide = variants(POWERS, rules, hypotheses=POWERS.hypotheses[:2])
    assert refuted(dataclasses.replace(wide, build=lambda raw, _: build(raw, [a.name for a in POWERS.ablations]))) == (
        rules.keys() - {"true"}
    )
