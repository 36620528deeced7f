"""S5: hand-computed margins, the squared error, and wrong variants that must be refuted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from proofs_numeric import S5_speed as S5
from rdm_jax import theory
from tests.proofs.refuting import assert_margins, exact, refuted, variants

pytestmark = pytest.mark.usefixtures("x64")
(CLAIM,) = S5.STATEMENT.claims


def instance(gaps, slopes, base, bounds, gains):
    return S5.Instance(gaps, slopes, base, *bounds, gains, [1.0] * len(gaps), [True] * len(gaps))


def test_margins_by_hand():
    # lambda = (1, 1/2), theta = (1, 1 + 2 log 2), slope 2 between 1 and 4, g = (1, 2): Var_q = (2/9) log(2)^2,
    # g^2 lambda = (1, 2), E_q[g^2] = 2, Var_{q_p} = (2/9) log(2)^2 too. The unit is theta_1 + (1 + 4) log 2.
    c = instance([0.0, np.log(2)], [0.0, 2.0], 1.0, (1.0, 4.0), [1.0, 2.0])
    variance = 2 / 9 * np.log(2) ** 2
    expected = np.array([2 * (2 - 1), 2 * (4 - 2)] * 2) * variance / (1 + 5 * np.log(2))
    assert_margins(CLAIM, c, expected, rtol=1e-12)


def test_bounds_that_are_attained():
    c = instance([0.0, 0.5, 1.5], [0.0, -0.25, -0.25], 1.0, (-0.25, -0.25), [2.0, 0.3, 1.1])
    assert CLAIM.equality(exact(c)) == [True] * 4
    assert_margins(CLAIM, c, [0.0] * 4)
    tied = instance([0.0, 0.0, 1.5], [0.0, 7.0, 0.5], 1.0, (0.5, 1.0), [1.0] * 3)
    assert CLAIM.equality(exact(tied)) == [True, False] * 2


def test_the_squared_error_has_the_same_speed():
    spectrum, target = jnp.array([3.0, 1.5, 0.4]), jnp.array([0.5, 0.8, 1.7])

    @jax.jit
    def speeds():
        rates = [theory.growth_rates(spectrum, target_gains=target, loss=loss) for loss in ("cosine", "squared")]
        return theory.entropy_rate(jnp.stack([spectrum, spectrum]), jnp.stack(rates))

    logs, shares = np.log(np.asarray(spectrum)), np.asarray(spectrum) / 4.9
    expected = -2 * np.sum(shares * (np.asarray(target) - shares @ np.asarray(target)) * logs)
    np.testing.assert_allclose(speeds(), expected, rtol=1e-12)


def test_wrong_variants_are_refuted():
    def width(m):
        """(2 C - 2 c) times the variance, in units of the margins: target side, online side."""
        return m[0] + m[1], m[2] + m[3]

    rules = {
        "the upper bound is 2% less": lambda m, c: m[1] - (c.upper > c.lower) * width(m)[0] / 50,
        "the middle of the bounds": lambda m, c: m[2] - m[3],
        "variance under q": lambda m, c: m[2] - (width(m)[0] - width(m)[1]),
        "true": lambda m, c: m[0] + m[3],
    }
    assert refuted(variants(CLAIM, rules)) == rules.keys() - {"true"}


def test_slopes_of_h_do_not_bound_the_speed_with_view_noise():
    # h = (1, 1 + 2 log 2) rises as lambda falls, but h m/lambda = (1, 0.6) does not: erank falls
    c = instance([0.0, np.log(2)], [0.0, 2.0], 1.0, (1.0, 4.0), [1.0, 2.0])._replace(ratio=[1.0, 0.25])
    assert CLAIM.ball_margin(exact(c))[0] < 0
