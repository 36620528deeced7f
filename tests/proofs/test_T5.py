"""T5: hand-computed margins, the stationary filters, the quoted example, and wrong variants that must be refuted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import arb

from proofs_numeric import T5_online_low_pass_cosine as T5
from proofs_numeric import _growth
from rdm_jax import theory
from tests.proofs.refuting import assert_margins, exact, floats, refuted, variants

pytestmark = pytest.mark.usefixtures("x64")
CLAIM = T5.STATEMENT.claims[0]


def instance(spectrum, gains, share=1.0, noise=0.0, loss=_growth.COSINE, convention=T5.EIG):
    return T5.Instance(spectrum, gains, share, noise, loss, convention)


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_margins_by_hand(share):
    # As in S1: dH/dt = (4/27) log 2, E[p.t]/E|z|^2 = 5/6, lambda_1 r_1 = -2/9; all proportional to the share.
    assert_margins(CLAIM, instance([2.0, 1.0], [1.0, 0.5], share), [8 / 45 * np.log(2), 4 / 45])


def test_margins_of_singular_values_by_hand():
    # s = (2, 1): kappa = (9/2)/(17/4), r = (-1, 4)/17, dH/dt = -(2/9)(r_1 - r_2) log 2; E[p.t]/E|z|^2 = 0.9.
    c = instance([4.0, 1.0], [1.0, 0.5], convention=T5.SV)
    assert_margins(CLAIM, c, [2 / 9 * 5 / 17 * np.log(2) / 0.9, 4 / 17 / 4.5])


def test_margins_with_view_noise_by_hand():
    # m = (3/2, 1/2), kappa = (3/2 + 1/4)/(9/4) = 7/9: r = (-1/36, 1/18), power 7/4.
    c = instance([2.0, 1.0], [1.0, 0.5], noise=0.5)
    assert_margins(CLAIM, c, [4 / 9 * 1 / 12 * np.log(2) * 12 / 7, 1 / 18 * 4 / 7])


def test_gains_of_zero_and_one_other_value_are_stationary():
    c = instance([3.0, 2.0, 1.0], [0.7, 0.7, 0.0])
    assert_margins(CLAIM, c, [0, 0])
    assert CLAIM.equality(exact(c)) == [True, True]
    assert CLAIM.equality(exact(c._replace(gains=[0.7, 0.6, 0.0]))) == [False, False]


def test_unequal_gains_on_equal_eigenvalues_split_them():
    rates = jax.jit(lambda gains: theory.growth_rates(jnp.ones(2), online_gains=gains))(jnp.array([1.0, 0.5]))
    assert rates[1] > 0 > rates[0]  # so the largest eigenvalue grows, against the conclusion on top sums
    tied = floats(instance([1.0, 1.0], [1.0, 0.5]))
    assert not np.all(_growth.equal_at_ties(tied.gains, tied.spectrum))


def numpy_rate(singular, gains):
    """dH/dt of the singular values from the definition, by a central difference."""
    spectrum = singular**2
    rates = gains * (1 - gains * np.sum(gains * spectrum) / np.sum(gains**2 * spectrum))

    def entropy(time):
        shares = singular * np.exp(rates * time)
        shares = shares / shares.sum()
        return -np.sum(shares * np.log(shares))

    return (entropy(1e-4) - entropy(-1e-4)) / 2e-4


@pytest.mark.parametrize("name", T5.TAILS)
def test_singular_values_can_fall(name):
    large, gains, small, gain, count = T5.TAILS[name]
    certified = T5.certified_tail(large, gains, small, gain, count)
    assert float(certified["eig"]) > 0 > float(certified["sv"])
    assert certified["sv"] in T5.STATEMENT.text and certified["eig"] in T5.STATEMENT.text
    singular, filter_ = (np.array([float(x) for x in (*v, *[t] * count)]) for v, t in ((large, small), (gains, gain)))
    np.testing.assert_allclose(float(certified["sv"]), numpy_rate(singular, filter_), rtol=1e-4)
    curve = T5._curve(large, gains, small, gain, [1, count])
    np.testing.assert_allclose(curve[1][1], float(certified["sv"]), rtol=1e-5)


def test_an_uncertain_number_is_not_quoted():
    with pytest.raises(ArithmeticError, match="neither a sign"):
        _growth.certain_digits({"zero": arb(0, 1e-9)})


def test_wrong_variants_are_refuted():
    rules = {"true": lambda m, c: m[0], "falls": lambda m, c: -m[0], "top sums grow": lambda m, c: -m[1]}
    assert refuted(variants(CLAIM, rules)) == rules.keys() - {"true"}
