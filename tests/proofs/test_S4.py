"""S4: hand-computed terms, an independent NumPy version, and wrong variants that must be refuted."""

import numpy as np
import pytest

from proofs_numeric import S4_size_of_the_rank_difference as S4
from tests.proofs.refuting import assert_margins, refuted, variants

pytestmark = pytest.mark.usefixtures("x64")
(CLAIM,) = S4.STATEMENT.claims


def entropy(spectrum):
    shares = spectrum[spectrum > 0] / spectrum.sum()
    return -np.sum(shares * np.log(shares))


def terms(spectrum, gains):
    """KL(q_p || q_t) and the log-rank difference, from their definitions."""
    online = gains**2 * spectrum
    p, t = online / online.sum(), spectrum / spectrum.sum()
    passed = p > 0
    return np.sum(p[passed] * np.log(p[passed] / t[passed])), entropy(spectrum) - entropy(online), np.abs(p - t).sum()


def test_margins_by_hand():
    # q_t = (3/4, 1/4), w = (1, 0): q_p = (1, 0), KL = log 4/3, V = 1/2; Cov/E[w] = (1/4) log 3 from E_p - E_t of log.
    covariance = np.log(3) / 4
    pinsker = np.log(4 / 3) + covariance - 1 / 8
    assert_margins(CLAIM, S4.Instance([3.0, 1.0], [1.0, 0.0], [0.0, 1.0]), [pinsker, covariance, np.log(4 / 3), 0.0])


def test_margins_against_numpy(rng):
    spectrum, gains, any_gains = (np.sort(rng.exponential(size=6))[::-1] for _ in range(3))
    any_gains = rng.permutation(any_gains)
    kl, difference, gap = terms(spectrum, gains)
    c = S4.Instance(spectrum.tolist(), gains.tolist(), any_gains.tolist())
    assert_margins(CLAIM, c, [difference - gap**2 / 2, difference - kl, kl, 0.0], rtol=1e-11)


def test_wrong_variants_are_refuted():
    def gap(c):
        """||q_p - q_t||_1^2 / 2, in floats or balls."""
        online = c.gains * c.gains * c.spectrum
        difference = abs(online / online.sum() - c.spectrum / c.spectrum.sum()).sum()
        return difference * difference / 2

    rules = {
        "without the half": lambda m, c: m[0] - gap(c),
        "KL alone": lambda m, c: m[2] - m[1],
        "covariance alone": lambda m, c: m[1] - gap(c),
        "true": lambda m, c: m[0] + m[3],
    }
    assert refuted(variants(CLAIM, rules)) == rules.keys() - {"true"}


def test_a_constant_two_per_cent_larger_is_refuted():
    # two bands, w = 1 +- d: the difference is d^2/2 + d^4/12 + ..., less than 0.51 d^2 for d < 0.3
    gains = [1.05**0.5, 0.95**0.5]
    kl, difference, gap = terms(np.ones(2), np.array(gains))
    assert 0.5 * gap**2 < difference < 0.51 * gap**2
    assert_margins(CLAIM, S4.Instance([1.0, 1.0], gains, gains), [difference - gap**2 / 2, 0.0, kl, 0.0], rtol=1e-8)
