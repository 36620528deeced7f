"""T1: hand-computed margins, the quoted counterexample, and wrong variants that must be refuted."""

import numpy as np
import pytest

from proofs_numeric import T1_low_pass_online_filter as T1
from tests.proofs.refuting import assert_margins, exact, refuted, variants

pytestmark = pytest.mark.usefixtures("x64")
(CLAIM,) = T1.STATEMENT.claims


def entropy(weights):
    shares = np.array(weights) / np.sum(weights)
    return -np.sum(shares * np.log(shares))


def test_margins_by_hand():
    # lambda = (4, 1), g = (1, 1/2): online (4, 1/4). Order 2: the participation ratio. All exceed the tolerance 1/20.
    c = T1.Instance([4.0, 1.0], [1.0, 0.5], 2.0, 0.05)
    participation = np.log(25 / 17) - np.log(4.25**2 / 16.0625)
    expected = [
        entropy([4, 1]) - entropy([16, 1]),
        entropy([2, 1]) - entropy([4, 1]),
        participation,
        participation,
        np.log(5 / 4) - np.log(4.25 / 4),
        0.0 + (1 / 4 > 0.05) - (0.25 / 4 > 0.05),
    ]
    assert_margins(CLAIM, c, expected)


def test_the_numerical_rank_falls_where_the_filter_pushes_a_mode_below_the_tolerance():
    assert_margins_last = T1.Instance([4.0, 1.0], [1.0, 0.5], 0.0, 0.125)
    assert [float(ball.mid()) for ball in CLAIM.ball_margin(exact(assert_margins_last))][-1] == 1


def test_the_quoted_signed_filter_raises_the_effective_rank():
    """theory.md: lambda = (4, 1), g = (.5, -1) takes erank from 1.65 to 2."""
    balls = CLAIM.ball_margin(exact(T1.Instance([4.0, 1.0], [0.5, -1.0], 1.0, 0.1)))
    assert float(balls[0].mid()) == pytest.approx(np.log(1.6493848) - np.log(2), rel=1e-6)


def test_equality_is_a_constant_filter_on_the_support():
    assert CLAIM.equality(exact(T1.Instance([4.0, 1.0, 0.0], [2.0, 2.0, 0.0], 3.0, 0.1)))[:5] == [True] * 5
    uneven = T1.Instance([4.0, 1.0], [2.0, 1.0], 0.0, 0.1)
    assert CLAIM.equality(exact(uneven))[:5] == [False, False, True, False, False]


def test_wrong_variants_are_refuted():
    rules = {
        "the rank falls": lambda m, c: -m[0],
        "eigenvalues gain no more than singular values": lambda m, c: m[1] - m[0],
        "no less at any order than at 1": lambda m, c: m[2] - m[0],
        "true": lambda m, c: m[0] + m[1],
    }
    assert refuted(variants(CLAIM, rules)) == set(rules) - {"true"}
    loose = variants(CLAIM, {"any gains": lambda m, c: m[0]}, dropped="any order", hypotheses=())
    assert refuted(loose) == {"any gains"}
