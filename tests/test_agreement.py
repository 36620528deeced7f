"""Agreement between predictions and measurements, against SciPy, hand-made numbers and known distributions."""

import math

import numpy as np
import pytest
from scipy import stats

from rdm_jax import agreement


def test_rank_correlation_is_scipys_averaged_over_instants(rng):
    first, second = rng.integers(0, 4, (5, 7)), rng.normal(size=(5, 7))
    expected = np.mean([stats.spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)])
    assert agreement.rank_correlation(first, second) == pytest.approx(expected, abs=1e-12)


def test_a_constant_instant_does_not_count():
    assert agreement.rank_correlation([[1, 2, 3], [5, 5, 5]], [[1, 2, 3], [1, 3, 2]]) == 1
    assert math.isnan(agreement.rank_correlation([1, 1], [1, 2]))


def test_explained_variance_counts_a_wrong_scale():
    measured = np.array([1.0, 2.0, 4.0])
    assert agreement.explained_variance(measured, measured) == 1
    assert agreement.explained_variance(np.full(3, measured.mean()), measured) == 0
    assert agreement.explained_variance(2 * measured, measured) == pytest.approx(1 - 21 / (14 / 3))


def test_relative_error_and_sign_hits():
    assert agreement.relative_error([0.0, 0.0], [3.0, 4.0]) == 1
    assert agreement.sign_hits([1.0, -1.0, 2.0], [3.0, -5.0, -1.0]) == pytest.approx(2 / 3)


def test_chance_is_what_shuffled_modes_reach(rng):
    # 5 modes: the correlation of random ranks has the standard deviation 1/2; of the mean over 100 instants, 0.05
    values = rng.normal(size=(100, 5))
    reached = agreement.chance(agreement.rank_correlation, values, values, seed=1, shuffles=400)
    assert reached == pytest.approx(1.645 * 0.05, abs=0.02)
    errors = [agreement.chance(agreement.relative_error, values, values, seed=1, quantile=q) for q in (0.05, 0.95)]
    assert 0 < errors[0] < errors[1]


def test_chance_shuffles_within_an_instant_only():
    values = np.array([[1.0, 1.0], [7.0, 7.0]])
    assert agreement.chance(agreement.relative_error, values, values, seed=0) == 0


@pytest.fixture
def table(rng):
    """Predicted and measured values of some modes at several instants, and which count."""
    predicted = rng.normal(size=(6, 9))
    measured = predicted + rng.normal(size=(6, 9))
    mask = rng.random((6, 9)) < 0.7
    mask[0] = False
    mask[1] = np.arange(9) < 1  # too few modes: these instants do not count
    return predicted, measured, mask


def counting(mask):
    return [row for row in range(len(mask)) if mask[row].sum() >= 2]


def test_rank_correlation_is_spearmans_over_the_modes_that_count(table):
    predicted, measured, mask = table
    rows = counting(mask)
    expected = np.mean([stats.spearmanr(predicted[i][mask[i]], measured[i][mask[i]])[0] for i in rows])
    assert 0 < len(rows) < len(mask)
    assert agreement.rank_correlation(predicted, measured, mask) == pytest.approx(expected, abs=1e-12)


def test_partial_rank_correlation_takes_the_third_ranks_out(table, rng):
    predicted, measured, mask = table
    order = rng.normal(size=mask.shape)
    found = agreement.partial_rank_correlation(predicted, measured, mask, given=order)
    expected = []
    for i in counting(mask):
        xy, xz, yz = (
            stats.spearmanr(a[i][mask[i]], b[i][mask[i]])[0]
            for a, b in ((predicted, measured), (predicted, order), (measured, order))
        )
        expected.append((xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2)))
    assert found == pytest.approx(np.mean(expected), abs=1e-12)
    # A prediction that is nothing but the order says nothing beyond it.
    assert np.isnan(agreement.partial_rank_correlation(order, measured, mask, given=order))


def test_explained_variance_is_that_of_the_best_factor(table):
    predicted, measured, mask = table
    x, y = predicted[mask], measured[mask]
    residual = y - (x @ y / (x @ x)) * x
    assert agreement.scaled_explained_variance(predicted, measured, mask) == pytest.approx(
        1 - residual @ residual / (y @ y)
    )
    assert agreement.scaled_explained_variance(-measured, measured, mask) == 0  # a factor below 0 is no prediction


def test_shuffling_keeps_to_the_modes_that_count(table, rng):
    predicted, _, mask = table
    drawn = agreement.shuffled(predicted, mask, rng)
    np.testing.assert_array_equal(drawn[~mask], predicted[~mask])
    for row in range(len(mask)):
        np.testing.assert_allclose(np.sort(drawn[row][mask[row]]), np.sort(predicted[row][mask[row]]))
    assert np.any(drawn != predicted)
    assert 0 < agreement.chance(agreement.rank_correlation, predicted, predicted, mask, seed=0) < 0.9


@pytest.mark.parametrize(
    ("first", "second", "said"), [([1.0], [1.0, 2.0], "alike"), ([math.nan], [1.0], "finite"), ([], [], "empty")]
)
def test_bad_input_gets_a_sentence(first, second, said):
    with pytest.raises(ValueError, match=said):
        agreement.relative_error(first, second)
