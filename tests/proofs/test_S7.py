"""S7: hand-computed margins, the quoted counterexample, and wrong variants that must be refuted."""

import numpy as np
import pytest

from proofs_numeric import S7_finite_step as S7
from rdm_jax.claims import certify_instance
from tests.proofs.refuting import assert_margins, exact, refuted, variants

pytestmark = pytest.mark.usefixtures("x64")
(CLAIM,) = S7.STATEMENT.claims


def test_margins_by_hand():
    # lambda = (2, 1), g = (1, 1/2): kappa = 2.5/2.25 = 10/9, r = (-1/9, 2/9). A step of 9/10: (1.62, 1.44).
    c = S7.Instance([2.0, 1.0], [1.0, 0.5], 0.9)
    before, after = np.array([2, 1]) / 3, np.array([1.62, 1.44]) / 3.06
    entropies = [-np.sum(q * np.log(q)) for q in (before, after)]
    expected = [before[0] - after[0], entropies[1] - entropies[0], np.log(np.sum(before**2) / np.sum(after**2))]
    assert_margins(CLAIM, c, expected, rtol=1e-12)


def test_largest_steps_by_hand():
    # From the same rates: 1 - eta/9 >= 0; sqrt(2)(1 - eta/9) >= 1 + 2 eta/9; v = 2/81 < r_d^2.
    overshoot, order, growth = S7.largest_steps(np.array([2.0, 1.0]), np.array([1.0, 0.5]))
    root = np.sqrt(2)
    np.testing.assert_allclose([overshoot, order], [9, 9 * (root - 1) / (root + 2)], rtol=1e-12)
    assert growth == 1e6, "no bound: the last mode grows more than v asks"


def test_the_quoted_example_lowers_the_rank_and_breaks_the_third_condition_only():
    assert certify_instance(CLAIM, S7.QUOTED, which=[1])[0].verdict == "fails"
    broken = {h.name for h in CLAIM.hypotheses if not np.all(h.holds(S7.QUOTED))}
    assert broken == {"last mode grows enough"}


def test_one_part_in_a_thousand_further_the_quoted_example_loses_its_order():
    further = S7.QUOTED._replace(step=S7.QUOTED.step + type(S7.QUOTED.step)(1, 1000))
    broken = {h.name for h in CLAIM.hypotheses if not np.all(h.holds(further))}
    assert broken == {"last mode grows enough", "order kept"}


def test_equality_is_no_step_or_a_constant_filter():
    assert CLAIM.equality(exact(S7.Instance([2.0, 1.0], [1.0, 0.5], 0.0))) == [True] * 3
    assert CLAIM.equality(exact(S7.Instance([2.0, 1.0], [0.5, 0.5], 1.0))) == [True] * 3
    assert CLAIM.equality(exact(S7.Instance([2.0, 1.0], [1.0, 0.5], 1.0))) == [False] * 3


def test_wrong_variants_are_refuted():
    rules = {"the rank falls": lambda m, c: -m[1], "true": lambda m, c: m[0] + m[1] + m[2]}
    assert refuted(variants(CLAIM, rules)) == {"the rank falls"}
    for dropped, which in (("order lost", 1), ("last mode left behind", 0)):
        rules = {CLAIM.conclusions[which].name: lambda m, c, i=which: m[i]}
        assert refuted(variants(CLAIM, rules, dropped=dropped, hypotheses=())) == set(rules)
