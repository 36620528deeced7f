"""T12: double centering and the linear model by hand, means in any direction, frequencies, and wrong variants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from proofs_numeric import T12_sinkhorn_knopp as T12
from rdm_jax import theory
from tests.proofs.refuting import assert_margins, exact, refuted, variants

pytestmark = pytest.mark.usefixtures("x64")
RAW_OUTPUTS, DOUBLE_CENTERING = T12.STATEMENT.claims


def entropy(spectrum):
    q = np.array([x for x in spectrum if x > 1e-300])
    q = q / q.sum()
    return -np.sum(q * np.log(q))


def scores(columns):
    """Six samples whose row-centred scores are (a, -a), with a = (2, 4, 2, 4, 2, 4)/2 - ..., and a direction."""
    rows = [[2.0, 0.0], [4.0, 0.0]] * 3
    return T12.Scores(rows, 0.5, [1.0, 0.0], columns)


def test_double_centering_by_hand():
    # row-centred (1, -1) and (2, -2): mean square of the first entry 5/2, of its departure from the mean 3/2: 1/4
    assert_margins(DOUBLE_CENTERING, scores(1), [0, 0])
    assert_margins(
        RAW_OUTPUTS, T12.Outputs([3.0, 1.0], 2.0, 5.0, 0.25, 0.0, 0), [entropy([2, 3, 1]) - entropy([5, 3, 1])]
    )


def test_a_row_step_alone_leaves_the_mean():
    # 5/2 - 1/4, over the scale (4 + 16)/2 + eps^2
    wrong = (5 / 2 - 1 / 4) / (10 + 0.25)
    np.testing.assert_allclose(float(DOUBLE_CENTERING.ball_margin(exact(scores(0)))[0].mid()), wrong, rtol=1e-14)
    c = T12.Scores(*(jnp.asarray(x) for x in scores(0)))
    np.testing.assert_allclose(jax.jit(DOUBLE_CENTERING.margin)(c), [-wrong, 0], rtol=1e-12, atol=1e-15)


def test_margins_with_a_mean_along_an_eigenvector_by_hand():
    # the online block [[2, 2 sqrt 2], [2 sqrt 2, 4 + 8]] has trace 14 and determinant 16
    c = T12.Outputs([8.0, 3.0], 4.0, 2.0, 0.0, 2.0, 0)
    assert_margins(RAW_OUTPUTS, c, [entropy([4, 8, 3]) - entropy([7 + 33**0.5, 7 - 33**0.5, 3])], rtol=1e-12)


def test_the_rank_difference_holds_for_means_in_any_direction(rng):
    for _ in range(300):
        covariance, mean = np.exp(2 * rng.standard_normal(4)), rng.standard_normal(4) * np.exp(rng.standard_normal())
        target = covariance.sum() / np.exp(entropy(covariance)) * np.exp(rng.exponential())
        level = max(target - mean @ mean, 1e-3 * target)
        u = np.concatenate([[np.sqrt(level)], mean])
        online = np.outer(u, u)
        online[1:, 1:] += np.diag(covariance)
        assert entropy([target, *covariance]) > entropy(np.maximum(np.linalg.eigvalsh(online), 0))


def test_columns_first_and_rows_first_agree_with_double_centering(rng):
    matrix = rng.standard_normal((4, 3))
    centered = matrix - matrix.mean(0) - matrix.mean(1, keepdims=True) + matrix.mean()
    for order in T12.ORDERS:
        plan = np.asarray(theory.sinkhorn_knopp(matrix, 1e4, 2, order)) * 12
        np.testing.assert_allclose((plan - 1) * 1e4, centered, atol=1e-3)


def test_frequencies():
    rates = T12.positive_rates(jax.random.key(7), jnp.array([1.0, 16.0]), draws=100, samples=32, classes=4)
    assert all(rates[f"{name}, raw, half the temperature"] == [1.0, 1.0] for name in T12.SAMPLERS)
    assert 0.25 < rates["equal scales, raw, equal temperature"][1] < 0.75  # five standard errors around 1/2
    assert rates["nonzero mean, raw, equal temperature"][0] > 0.75


def test_a_hotter_target_is_refuted():
    rules = {"erank": lambda m, c: m[0]}
    wrong = variants(RAW_OUTPUTS, rules, dropped="hotter target", hypotheses=RAW_OUTPUTS.hypotheses[:3])
    assert refuted(wrong) == rules.keys()
