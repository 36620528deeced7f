"""T10: margins and quoted examples by hand, the peak by brute force, the first order, and wrong variants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from proofs_numeric import T10_centering as T10
from rdm_jax import theory
from tests.proofs.refuting import assert_margins, exact, refuted, variants

pytestmark = pytest.mark.usefixtures("x64")
CENTERING, TURNING_POINT = T10.STATEMENT.claims


def entropy(*spectrum):
    q = np.array([x for x in spectrum if x > 0])
    q = q / q.sum()
    return -np.sum(q * np.log(q))


def test_margins_by_hand():
    # (4, 1) -> (4 - 3/4 * 2, 1) -> (2, 1)
    c = T10.Instance([4.0, 1.0], 2.0, 0.5, 1.0)
    sv = entropy(np.sqrt(2), 1) - entropy(np.sqrt(2.5), 1)
    assert_margins(CENTERING, c, [entropy(2, 1) - entropy(2.5, 1), sv], rtol=1e-12)


def test_the_quoted_counterexample():
    c = T10.Instance([2.0, 1.0, 0.0], 2.0, 0.0, 1.0)
    assert_margins(CENTERING, c, [-entropy(2, 1), -entropy(np.sqrt(2), 1)])
    found = CENTERING.ball_margin(exact(c))[0]
    assert found < 0
    assert found.str(8, radius=False) == "-0.63651417"


def test_equality():
    spectra = {
        "no mean": ([3.0, 1.0], 0.0, 0.0, 1.0),
        "rank one": ([3.0, 0.0], 1.0, 0.0, 1.0),
        "same part": ([3.0, 1.0], 1.0, 0.5, 0.5),
    }
    for c in spectra.values():
        assert CENTERING.equality(exact(T10.Instance(*c))) == [True, True]
    assert CENTERING.equality(exact(T10.Instance([3.0, 1.0], 1.0, 0.0, 0.5))) == [False, False]


def test_margins_of_the_turning_point_by_hand():
    # H(3/4, 1/4) = log 4 - (3/4) log 3: x* = 4/exp(H) = 3^(3/4)
    c = T10.Exact([3.0, 1.0], 2.5, 4.0, 1)
    expected = [entropy(2.5, 3, 1) - entropy(4, 3, 1), np.log(3) / 4]
    assert_margins(TURNING_POINT, c, expected, rtol=1e-12)
    assert_margins(
        TURNING_POINT, T10.Exact([3.0, 1.0], 0.0, 2.0, -1), [entropy(2, 3, 1) - entropy(3, 1), np.log(3) / 4]
    )


def test_the_peak_by_brute_force(rng):
    rest = rng.exponential(size=5)
    grid = np.linspace(0, 2 * rest.max(), 200_001)[1:]
    mass = rest.sum() + grid
    values = np.log(mass) - (grid * np.log(grid) + np.sum(rest * np.log(rest))) / mass
    np.testing.assert_allclose(theory.centering_peak(rest), grid[np.argmax(values)], atol=grid[1] - grid[0])


def test_the_side_is_decided_exactly():
    assert T10.on_its_side(exact(T10.Exact([2.0, 2.0], 2.0, 3.0, 1)._replace(low=2.0 + 1e-12)))
    assert not T10.on_its_side(exact(T10.Exact([2.0, 2.0], 2.0 - 1e-12, 3.0, 1)))
    assert not T10.on_its_side(exact(T10.Exact([2.0, 2.0], 1.0, 2.0 + 1e-12, -1)))


def test_the_first_order_of_any_mean(rng):
    spectrum, mean = np.array([3.0, 1.0, 0.5]), rng.standard_normal(3) * 0.1
    q = spectrum / spectrum.sum()
    slope = np.sum(mean**2 * (np.log(q) + entropy(*spectrum))) / spectrum.sum()
    finite = [entropy(*np.linalg.eigvalsh(np.diag(spectrum) - e * np.outer(mean, mean))) for e in (1e-4, -1e-4)]
    np.testing.assert_allclose((finite[0] - finite[1]) / 2e-4, slope, rtol=1e-5)
    np.testing.assert_allclose(theory.centering_first_order(spectrum, mean) / spectrum.sum(), slope, rtol=1e-12)


def test_how_often_a_random_mean_lowers_the_rank():
    rates = T10.lowering_rates(jax.random.key(3), modes=6, draws=300)
    uniform, alike = (np.array(rates[name]) for name in T10.DIRECTIONS)
    assert uniform[0] > 0.8 and 0.4 < alike[0] < 0.8  # five standard errors are 0.14
    assert uniform[-1] < 0.05 and alike[-1] < 0.05
    assert jnp.all(uniform >= alike - 0.14)


def test_wrong_variants_are_refuted():
    rules = {"true": lambda m, c: m[0], "falls": lambda m, c: -m[0], "sv rises more": lambda m, c: m[1] - m[0]}
    assert refuted(variants(CENTERING, rules)) == rules.keys() - {"true"}


def test_a_peak_one_percent_off_is_refuted():
    rules = {"rises": lambda m, c: m[0], "lambda_2 well above x*": lambda m, c: m[1] - 0.01}
    wrong = variants(TURNING_POINT, rules, dropped="peak 1% off", hypotheses=TURNING_POINT.hypotheses[:2])
    assert refuted(wrong) == rules.keys()
