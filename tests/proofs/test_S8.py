"""S8: the lag against quadrature, margins by hand, hypotheses, and wrong variants that must be refuted."""

import numpy as np
import pytest

from proofs_numeric import S8_moving_average_lag as S8
from rdm_jax.claims import certify_instance
from tests.proofs.refuting import SMALL, assert_margins, exact, refuted, variants

pytestmark = pytest.mark.usefixtures("x64")
(LAG,) = S8.STATEMENT.claims


def entropy(spectrum):
    q = np.asarray(spectrum) / np.sum(spectrum)
    return -np.sum(q * np.log(q))


def test_the_lag_is_an_average_over_the_past():
    # modes that grew at the rate 1/2 for the last 3/4, and decayed at the rate 1/5 before, in units of beta
    ages = np.linspace(0.0, 60.0, 600_001)
    size = np.exp(-np.where(ages < 0.75, 0.5 * ages, 0.5 * 0.75 - 0.2 * (ages - 0.75)))
    expected = np.trapezoid(np.exp(-ages) * size, ages)
    assert float(S8.lag(1.5, 0.8, 0.75)) == pytest.approx(expected, rel=1e-8)


def test_margins_by_hand():
    # constant rates 0 and 1 (over beta) of the modes s = (4, 1): tau = (1, 1/2), so W_a has (4, 1/4)
    c = S8.Instance([4.0, 1.0], [1.0, 2.0], [1.0, 2.0], 1.3, 1)
    assert_margins(LAG, c, [entropy([4, 1]) - entropy([16, 1]), 0])
    # they always grew in their order: tau = (1/2, 1), W_a has (1, 1)
    falls = c._replace(now=[2.0, 1.0], before=[2.0, 1.0], direction=-1)
    assert_margins(LAG, falls, [np.log(2) - entropy([4, 1]), 0])
    assert LAG.equality(exact(c)) == [False, None]
    assert LAG.equality(exact(c._replace(now=[2.0, 2.0], before=[3.0, 3.0]))) == [True, None]


def held(c):
    return {h.name for h in LAG.hypotheses if not np.all(h.holds(exact(c)))}


def test_hypotheses_and_what_their_violation_does():
    rising = S8.Instance([4.0, 1.0], [1.0, 2.0], [1.0, 2.0], 1.3, 1)
    assert held(rising) == set()
    # erank rises now, but the small mode decayed from a size that the average remembers
    fell = rising._replace(before=[1.0, 0.45], since=0.1)
    assert held(fell) == {"past rates ordered"}
    assert certify_instance(LAG, exact(fell), which=[0])[0].verdict == "fails"
    # growth so unequal that the averages have exchanged their order: tau^2 s = (4/100, 1)
    exchanged = rising._replace(now=[10.0, 1.0], before=[10.0, 1.0], direction=-1)
    assert held(exchanged) == {"order kept"}
    assert certify_instance(LAG, exact(exchanged), which=[0])[0].verdict == "fails"


def test_wrong_variants_are_refuted():
    rules = {"true": lambda m, c: m[0], "raises": lambda m, c: -m[0], "lowers": lambda m, c: c.direction * m[0]}
    assert refuted(variants(LAG, rules, strata=SMALL)) == rules.keys() - {"true"}
