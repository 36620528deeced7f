"""L1: hand-computed margins, the balls' sorted shares, and wrong variants that must be refuted."""

import pytest
from flint import arb

from proofs_numeric import L1_monotone_ratio_majorization as L1
from proofs_numeric import _common
from tests.proofs.refuting import TWO_MODES, assert_margins, refuted, variants

pytestmark = pytest.mark.usefixtures("x64")
CLAIM = L1.STATEMENT.claims[0]


def test_margins_by_hand():
    # w lambda = (2, 1/2): share 4/5 instead of 2/3; and (2 - 1/2)/2.
    assert_margins(CLAIM, L1.Instance([2.0, 1.0], [1.0, 0.5], 1.0), [4 / 5 - 2 / 3, 3 / 4])


def test_the_least_partial_sum_counts():
    # lambda^2 = (9, 4, 1), w lambda^2 = (9, 4, 0): shares 9/13 - 9/14 and 1 - 13/14, steps 5/9 and 4/9.
    assert_margins(CLAIM, L1.Instance([3.0, 2.0, 1.0], [1.0, 1.0, 0.0], 2.0), [9 / 13 - 9 / 14, 4 / 9])


def test_modes_off_the_support_do_not_count():
    # w sqrt(lambda) = (2, 1/2, 0): shares 4/5 - 2/3.
    assert_margins(CLAIM, L1.Instance([4.0, 1.0, 0.0], [1.0, 0.5, 7.0], 0.5), [4 / 5 - 2 / 3, 3 / 4])
    assert_margins(CLAIM, L1.Instance([4.0, 0.0], [1.0, 0.5], 0.5), [0.0, 0.0])


def test_largest_shares_sorts_and_encloses():
    shares = _common.largest_shares([arb(1), arb(4, 0.5), arb(3.75, 0.5)])
    assert shares[0].contains(arb(4.5) / 9.75) and shares[0].contains(arb(3.75) / 8)
    assert [float(share) for share in _common.largest_shares([arb(1), arb(3)])] == [0.75, 1.0]


def pair_bound(c):
    """q_1 q_2 (w_1 - w_2)/w_1: the least partial sum of two modes is at least this, nearly attained as w_2 -> w_1."""
    first, second = (x**c.exponent for x in (c.spectrum[0], c.spectrum[1]))
    return first * second / (first + second) ** 2 * (1 - c.weights[1] / c.weights[0])


def of_full_rank(tape, d):
    raw = CLAIM.sample(tape, d)
    return raw._replace(spectrum=raw.spectrum._replace(keep=d))


def test_wrong_variants_are_refuted():
    rules = {
        "the true bound": lambda m, c: m[0] - 0.98 * pair_bound(c),
        "a bound 2% too strong": lambda m, c: m[0] - 1.02 * pair_bound(c),
        "majorized instead": lambda m, c: -m[0],
        "order reversed": lambda m, c: -m[1],
    }
    assert refuted(variants(CLAIM, rules, TWO_MODES, sample=of_full_rank)) == rules.keys() - {"the true bound"}
