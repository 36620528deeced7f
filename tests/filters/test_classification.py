"""Classification: hand-made cases, planted near misses, ties, and every pair compared in plain Python."""

import math

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdm_jax.filters import classify, compose, identity, log, log1p, log1p_square, power, wiener

FIELDS = ("low_pass", "high_pass", "order_preserving", "nonnegative", "positive")
SPREAD = [30.0, 5.0, 1.2, 0.4, 0.01]
# What theory.md's T1 and T2 say of the published filters, on a spectrum on both sides of 1.
KNOWN = {
    identity(): "YYYYY",
    power(1): "Y-YYY",
    power(0.25): "Y-YYY",
    power(-0.3): "-YYYY",
    power(-0.7): "-YYYY",
    power(-1): "-YYYY",
    power(-1.01): "-Y-YY",
    power(-2): "-Y-YY",
    log(): "Y----",
    log1p(): "Y-YYY",
    log1p_square(): "Y-YYY",
    wiener(0.5, 0.1): "Y-YY-",
    wiener(0.0, 0.0): "YYYYY",
    compose(power(1), power(-0.5)): "YYYYY",
    compose(power(-0.5), power(-0.5)): "-YYYY",
}


def letters(result):
    return "".join("Y" if bool(holds) else "-" for holds in result)


@pytest.mark.parametrize("filter", KNOWN, ids=repr)
def test_named_filters(filter):
    result = classify(filter, SPREAD)
    assert result._fields == FIELDS
    assert letters(result) == KNOWN[filter]
    assert letters(classify(filter, SPREAD[::-1])) == KNOWN[filter]


def test_log_is_a_filter_only_above_one():
    assert letters(classify(log(), [9.0, 4.0, 1.5])) == "Y-YYY"
    assert letters(classify(log(), [9.0, 4.0, 1.0])) == "Y-YY-"
    assert letters(classify(log(), [9.0, 4.0, 0.9])) == "Y-Y--"
    assert letters(classify(log(), [9.0, 0.3, 0.1])) == "Y----"  # 0.3 log 0.3 = -0.36, 0.1 log 0.1 = -0.23


def test_samples_reach_the_wiener_filter():
    # lambda = 4 and 1 per sample of 4 rows: both above the noise; of 16 rows 1 and 1/4.
    assert letters(classify(wiener(0.5, 1.0), [4.0, 2.0], samples=4)) == "Y-YYY"
    assert letters(classify(wiener(0.5, 1.0), [4.0, 2.0], samples=16)) == "Y-YY-"


@pytest.mark.parametrize("place", range(1, 5))
def test_one_entry_out_of_order_by_a_hundredth_is_seen(place):
    gains = np.sqrt(SPREAD)
    gains[place] = gains[place - 1] * 1.01
    assert letters(classify(gains, SPREAD))[0] == "-"
    gains = 1 / np.sqrt(SPREAD)
    gains[place] = gains[place - 1] / 1.01
    assert letters(classify(gains, SPREAD))[1] == "-"
    outputs = np.array(SPREAD)
    outputs[place] = outputs[place - 1] * 1.01
    assert letters(classify(outputs / SPREAD, SPREAD))[2] == "-"


def test_ties_imply_nothing_but_face_their_neighbours():
    # Two equal singular values with different gains: still monotone both ways within the tie.
    assert letters(classify([1.0, 2.0], [3.0, 3.0])) == "YYYYY"
    assert letters(classify([2.0, 1.0, 2.0], [3.0, 2.0, 2.0])) == "Y-YYY"
    assert letters(classify([2.0, 1.0, 2.1], [3.0, 2.0, 2.0])) == "--YYY"
    assert letters(classify([1.0, 1.0, 2.1], [3.0, 2.0, 2.0])) == "-Y-YY"


def test_only_the_support_counts():
    assert letters(classify([2.0, 1.0, 9.0, -9.0], [3.0, 1.0, 0.0, 0.0])) == "Y-YYY"
    assert letters(classify([1.0, 1.5, 0.0], [3.0, 2.0, 0.0])) == "-YYYY"


@given(
    hnp.arrays(np.float32, 5, elements=st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.5])),
    hnp.arrays(np.float32, 5, elements=st.sampled_from([-1.0, 0.0, 0.25, 1.0, 2.0])),
)
def test_is_the_definition_over_all_pairs(values, gains):
    """Small exact numbers: no rounding, so no slack either."""
    pairs = [(a, b) for a in range(5) for b in range(5) if values[a] > values[b] > 0]
    support = [gain for gain, value in zip(gains, values, strict=True) if value > 0]
    expected = (
        all(gains[a] >= gains[b] for a, b in pairs),
        all(gains[a] <= gains[b] for a, b in pairs),
        all(gains[a] * values[a] >= gains[b] * values[b] for a, b in pairs),
        all(gain >= 0 for gain in support),
        all(gain > 0 for gain in support),
    )
    assert tuple(map(bool, classify(gains, values))) == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_does_not_cost_the_order(x64, rng, dtype):
    """g(s) s is 1 for power(-1), up to rounding of either sign, which must not be read as a lost order."""
    values = np.sort(np.exp(rng.uniform(-9, 9, size=4000))).astype(dtype)
    near = (1 + np.arange(4000) * float(np.finfo(dtype).eps)).astype(dtype)
    for spectrum in (values, near):
        for exponent in (-1, -0.999, -0.3, 0.0, 0.3, 1):
            result = classify(power(exponent), spectrum)
            assert result.order_preserving and result.positive
            assert result.low_pass if exponent >= 0 else result.high_pass


def test_leading_axes_batch_and_jit_changes_nothing():
    values, gains = np.array([[3.0, 1.0], [1.0, 3.0]]), np.array([[1.0, 2.0], [1.0, 2.0]])
    plain = classify(gains, values)
    assert np.asarray(plain.low_pass).tolist() == [False, True]
    assert np.asarray(plain.high_pass).tolist() == [True, False]
    for other in (jax.jit(classify)(gains, values), jax.vmap(classify)(gains, values)):
        assert all(np.array_equal(a, b) for a, b in zip(plain, other, strict=True))


def test_bad_input():
    with pytest.raises(ValueError, match=r"one shape \(\.\.\., k\), got \(3,\) and \(2,\)"):
        classify([1.0, 1.0, 1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="singular_values finite and >= 0"):
        classify([1.0, 1.0], [1.0, -2.0])
    with pytest.raises(ValueError, match="gains must be finite"):
        classify([1.0, math.nan], [1.0, 2.0])
    assert letters(jax.jit(classify)(jnp.array([1.0, math.nan]), jnp.ones(2))) == "-----"
    assert letters(jax.jit(lambda s: classify(power(1), s))(jnp.array([1.0, -1.0]))) == "-----"
