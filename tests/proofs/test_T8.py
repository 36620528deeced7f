"""T8: margins by hand, the closed form against an integrated flow, a constant vector, and wrong variants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from proofs_numeric import T8_symmetric_design as T8
from rdm_jax import spectra, theory
from tests.proofs.refuting import assert_margins, exact, floats, refuted, variants

pytestmark = pytest.mark.usefixtures("x64")
MONOTONE, CLOSED_FORM, COLLAPSE = T8.STATEMENT.claims
LOG2 = np.log(2)


def log_rank(*spectrum):
    q = np.array(spectrum) / np.sum(spectrum)
    return -np.sum(q * np.log(q))


@pytest.mark.parametrize("side", [1, -1])
def test_margins_by_hand(side):
    # r differs by 2/5 at lambda = (4, 1): dH/dt = -2 (4/25)(2/5) log 4 (eig), -(2/9)(2/5) log 2 (sv).
    eig, sv = -side * 4 / 25 * 1.6 * LOG2, -side * 2 / 9 * 0.4 * LOG2
    assert_margins(MONOTONE, T8.Instance([4.0, 1.0], [0.9, 0.5], side), [eig, eig, sv, sv, 0])


def test_without_noise_the_spectrum_is_stationary():
    c = T8.Instance([4.0, 1.0], [1.0, 1.0], -1)
    assert_margins(MONOTONE, c, np.zeros(5))
    assert MONOTONE.equality(exact(c))[:4] == [True] * 4


def test_margins_of_the_closed_form_by_hand():
    c = T8.Spreading([5.0, 3.0], [1.0, 1.0], 2.0)
    assert_margins(CLOSED_FORM, c, [0, log_rank(5, 3) - log_rank(6, 2)], rtol=1e-12)


def test_the_closed_form_is_what_the_flow_gives():
    spectrum, noise, time, steps = np.array([5.0, 3.0, 2.5]), 0.75, 6.0, 400

    def slope(x):  # lambda' = 2 r lambda/Lambda with r = m/lambda - kappa
        return 2 * (x - noise - x * np.sum(x - noise) / np.sum(x)) / np.sum(x)

    x, h = spectrum, time / steps
    for _ in range(steps):
        k1 = slope(x)
        k2 = slope(x + h / 2 * k1)
        k3 = slope(x + h / 2 * k2)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(x + h * k3))
    np.testing.assert_allclose(theory.symmetric_spectrum(spectrum, noise, time), x, rtol=1e-10)


def test_the_noise_of_unequal_modes_is_seen():
    c = T8.Spreading([5.0, 3.0], [1.0, 0.5], 2.0)
    # at (6, 2): m = (5, 3/2), r = (5/6 - 13/16, 3/4 - 13/16)/8; the closed form has lambda' = (1/8, -1/8)
    wrong = abs(1 / 8 - 2 * (5 / 6 - 13 / 16) / 8 * 6)
    ball = CLOSED_FORM.ball_margin(exact(c))[0]
    np.testing.assert_allclose(float(ball.mid()), 2 * wrong, rtol=1e-14)
    np.testing.assert_allclose(jax.jit(CLOSED_FORM.margin)(floats(c))[0], -wrong, rtol=1e-12)


def batch(first, second, fraction=1.0):
    return T8.Batch([[float(a), float(b)] for a, b in zip(first, second, strict=True)], fraction)


def test_total_variance_by_hand():
    # unit vectors 1 and -1, three each: variance 1 against 5/9; the views of the second datum differ
    assert_margins(COLLAPSE, batch([1, 1, 1, -1, -1, -1], [0] * 6), [4 / 9, 0])


@pytest.mark.parametrize("last", [(-5, 0), (-5, -10), (-500, -1)])
def test_the_bound_is_attained_with_one_outlier_on_a_line(last):
    rows = [np.array(last) * -share for share in (0.25, 0.125, 0.25, 0.25, 0.125)]
    c = batch(*np.array([*rows, np.array(last)]).T)
    assert_margins(COLLAPSE, c, [0, 0], rtol=1e-12)
    assert COLLAPSE.equality(exact(c)) == [True, None]
    assert COLLAPSE.equality(exact(batch([1, 1, 1, -1, -1, -1], [0] * 6))) == [False, None]


def test_a_constant_unit_vector_has_trace_one_and_no_variance():
    c = batch([0.6] * 6, [0.8] * 6, fraction=0.0)
    assert_margins(COLLAPSE, c, [-5 / 9, 0], rtol=1e-12)
    moment = spectra.second_moment(jnp.array(c.features), normalize=True)
    np.testing.assert_allclose([jnp.trace(moment), spectra.effective_rank(spectra.eigenvalues(moment))], 1, rtol=1e-12)


def test_wrong_variants_are_refuted():
    rules = {"true": lambda m, c: m[2], "rises": lambda m, c: -m[0], "eig faster than sv": lambda m, c: m[0] - 4 * m[2]}
    assert refuted(variants(MONOTONE, rules)) == rules.keys() - {"true"}


def test_a_bound_one_percent_higher_is_refuted():
    rules = {"true": lambda m, c: m[0] + 1e-12, "higher": lambda m, c: m[0] - 0.01 * 5 / 9}
    assert refuted(variants(COLLAPSE, rules, COLLAPSE.strata[:1])) == {"higher"}
