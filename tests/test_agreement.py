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


@pytest.mark.parametrize(
    ("first", "second", "said"), [([1.0], [1.0, 2.0], "alike"), ([math.nan], [1.0], "finite"), ([], [], "empty")]
)
def test_bad_input_gets_a_sentence(first, second, said):
    with pytest.raises(ValueError, match=said):
        agreement.relative_error(first, second)
