"""Effective ranks: hand-solved spectra, the definitions in NumPy float64, and gradients at the bad points."""

import functools
import itertools
import math

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose

from rdm_jax.spectra import (
    alpha_req,
    effective_rank,
    effective_rank_influence,
    eigenvalues,
    feature_effective_rank,
    lidar,
    numerical_rank,
    participation_ratio,
    rank_difference,
    rankme,
    renyi_effective_rank,
    second_moment,
    stable_rank,
)

EPS = float(np.finfo(np.float32).eps)
OF_SPECTRUM = {
    "effective_rank": effective_rank,
    "renyi 0": lambda spectrum: renyi_effective_rank(spectrum, 0),
    "renyi 1/2": lambda spectrum: renyi_effective_rank(spectrum, 0.5),
    "renyi 3": lambda spectrum: renyi_effective_rank(spectrum, 3),
    "renyi inf": lambda spectrum: renyi_effective_rank(spectrum, math.inf),
    "participation_ratio": participation_ratio,
    "stable_rank": stable_rank,
    "numerical_rank": numerical_rank,
    "alpha_req": alpha_req,
}
OF_FEATURES = {
    "rankme": rankme,
    "feature_effective_rank": feature_effective_rank,
    "rank_difference": lambda features: rank_difference(features, jnp.eye(*jnp.shape(features))),
    "lidar": lambda features: lidar(features, jnp.arange(len(features)) // 2),
}
SPECTRA = hnp.arrays(np.float32, 6, elements=st.floats(0, 100, width=32)).filter(lambda s: s.max() > 1e-2)


def by_name(functions):
    return pytest.mark.parametrize("function", functions.values(), ids=functions.keys())


def perplexity(values):
    """The definition: exp(-sum q log q), a term at a time, in float64."""
    shares = [float(value) / float(sum(values)) for value in values if value > 0]
    return math.exp(-sum(share * math.log(share) for share in shares))


@functools.lru_cache
def gradient_of(function):
    """Compiled once for each function, not once for each primitive in it."""
    return jax.jit(jax.grad(function))


@functools.partial(jax.jit, static_argnums=0)
def forward_slope(function, point, direction):
    return jax.jvp(function, (point,), (direction,))[1]


def slope_along(function, point, direction, step=1e-6):
    compiled = jax.jit(function)
    return (float(compiled(point + step * direction)) - float(compiled(point - step * direction))) / (2 * step)


# Values.


def test_two_value_spectra_by_hand():
    # (3, 1)/4: entropy log 4 - (3/4) log 3; no other measure here gives this number.
    assert_allclose(effective_rank([3.0, 1.0]), 4 / 3**0.75, rtol=4 * EPS)
    assert_allclose(participation_ratio([3.0, 1.0]), 1.6, rtol=4 * EPS)
    assert_allclose(stable_rank([3.0, 1.0]), 4 / 3, rtol=4 * EPS)
    # (sum sqrt q)^2 = 1 + sqrt(3)/2, and (28/64)^(-1/2).
    assert_allclose(renyi_effective_rank([3.0, 1.0], 0.5), 1 + math.sqrt(3) / 2, rtol=4 * EPS)
    assert_allclose(renyi_effective_rank([3.0, 1.0], 3), 8 / math.sqrt(28), rtol=4 * EPS)


def test_the_two_conventions_differ_and_say_which():
    features = np.diag([3.0, 1.0])
    assert_allclose(rankme(features), 4 / 3**0.75, rtol=8 * EPS)
    assert_allclose(feature_effective_rank(features), 10 / 9**0.9, rtol=8 * EPS)


def test_orders_meet_the_named_measures(rng):
    spectrum = rng.exponential(size=9).astype(np.float32)
    spectrum[4] = 0
    assert_allclose(renyi_effective_rank(spectrum, 0), 8, rtol=4 * EPS)
    assert_allclose(renyi_effective_rank(spectrum, 1), effective_rank(spectrum), rtol=4 * EPS)
    assert_allclose(renyi_effective_rank(spectrum, 2), participation_ratio(spectrum), rtol=8 * EPS)
    assert_allclose(renyi_effective_rank(spectrum, jnp.inf), stable_rank(spectrum), rtol=8 * EPS)


@pytest.mark.parametrize("order", [0.0, 1e-3, 0.3, 0.4999, 0.5001, 0.9, 1.3, 1.4999, 1.5001, 4.0, 40.0, 500.0])
def test_any_order_is_the_definition(order):
    spectrum = np.array([5.0, 5, 2, 1e-2, 1e-6, 0])
    logs = np.log(spectrum[:5] / spectrum.sum())
    # log sum exp by hand: 500 * log q is beyond the range of exp.
    top = order * logs[0]
    expected = math.exp((top + math.log(np.exp(order * logs - top).sum())) / (1 - order))
    assert_allclose(renyi_effective_rank(spectrum, order), expected, rtol=20 * EPS)


def test_orders_near_one_lose_no_digits():
    spectrum = np.array([8.0, 3, 1, 1e-3])
    shares = spectrum / spectrum.sum()
    for excess in (2.0**-23, 2.0**-20, 1e-5, 1e-4, -1e-4, -(2.0**-23)):
        exact = np.longdouble(np.float32(1 + excess))
        sums = np.sum(shares.astype(np.longdouble) ** exact)
        expected = float(np.exp(np.log1p(sums - 1) / (1 - exact)))
        # The textbook form divides a rounding error of eps by the excess: wrong by up to 1 here.
        assert_allclose(renyi_effective_rank(spectrum, np.float32(1 + excess)), expected, rtol=8 * EPS)


def test_orders_near_one_follow_the_cumulants(x64):
    shares = np.array([0.6, 0.3, 0.08, 0.02])
    logs = np.log(shares)
    entropy = -(shares @ logs)
    variance = shares @ (logs + entropy) ** 2
    for excess in (1e-15, 1e-12, 1e-9, -1e-9, 1e-7):
        found = math.log(renyi_effective_rank(shares, 1 + excess))
        # H_(1+e) = H - e Var/2 + O(e^2).
        assert_allclose(found, entropy - ((1 + excess) - 1) * variance / 2, rtol=1e-14)
    derivative = gradient_of(lambda order: jnp.log(renyi_effective_rank(shares, order)))
    assert_allclose(derivative(1.0), -variance / 2, rtol=1e-12)
    assert_allclose(derivative(1.01), -variance / 2, rtol=0.02)


@given(spectrum=SPECTRA, scale=st.sampled_from([1e-30, 1e-3, 7.0, 1e30]))
def test_ranks_see_neither_scale_nor_order_nor_zeros(spectrum, scale):
    for function in (effective_rank, participation_ratio, stable_rank):
        rank = float(function(spectrum))
        assert 1 - 8 * EPS <= rank <= 6 * (1 + 8 * EPS)
        padded = np.append(np.roll(spectrum, 2), np.float32([0, 0])) * np.float32(scale)
        # Multiplying may push small values below the range of float32; they weigh less than 1e-6.
        assert_allclose(function(padded), rank, rtol=1e-4)


@given(spectrum=SPECTRA)
def test_renyi_ranks_fall_with_the_order_and_match_numpy(spectrum):
    ranks = [float(renyi_effective_rank(spectrum, order)) for order in (0.0, 0.5, 0.99, 1.0, 1.01, 2.0, math.inf)]
    assert all(later <= earlier * (1 + 16 * EPS) for earlier, later in itertools.pairwise(ranks))
    assert_allclose(ranks[3], perplexity(spectrum.astype(np.float64)), rtol=32 * EPS)


def test_leading_axes_batch_and_vmap_over_orders(rng):
    spectra = rng.exponential(size=(2, 3, 5)).astype(np.float32)
    for function in OF_SPECTRUM.values():
        each = [[function(spectrum) for spectrum in row] for row in spectra]
        assert_allclose(function(spectra), each, rtol=16 * EPS)
        assert_allclose(jax.jit(jax.vmap(function))(spectra), each, rtol=16 * EPS)
    orders = jnp.array([0.0, 0.7, 1.0, 3.0, jnp.inf])
    together = jax.vmap(renyi_effective_rank, (None, 0))(spectra[0, 0], orders)
    assert_allclose(together, [renyi_effective_rank(spectra[0, 0], order) for order in orders], rtol=16 * EPS)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32"])
def test_narrow_dtypes_are_widened(dtype):
    spectrum = jnp.array([3, 1], dtype)
    assert effective_rank(spectrum).dtype == jnp.float32
    assert_allclose(effective_rank(spectrum), 4 / 3**0.75, rtol=4 * EPS)
    features = jnp.array([[3, 0], [0, 1]], dtype)
    assert_allclose(rankme(features), 4 / 3**0.75, rtol=8 * EPS)
    assert_allclose(feature_effective_rank(features), 10 / 9**0.9, rtol=8 * EPS)


def test_numerical_rank_counts_above_the_tolerance():
    spectrum = [1.0, 0.5, 1e-3, 1e-9, 0.0]
    assert numerical_rank(spectrum) == 3
    assert numerical_rank(spectrum, 1e-10) == 4
    assert numerical_rank(spectrum, rtol=0.5) == 1  # strictly above
    assert numerical_rank(spectrum, rtol=0) == 4
    for rtol in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"rtol must be in \[0, 1\)"):
            numerical_rank(spectrum, rtol=rtol)


# Features.


@pytest.mark.parametrize("shape", [(30, 8), (8, 30), (12, 12), (1, 5)])
@pytest.mark.parametrize("normalize", [False, True])
def test_feature_ranks_follow_the_definition(rng, shape, normalize):
    features = rng.normal(size=shape) * np.arange(1, shape[1] + 1) ** -1.0 + 0.3
    rows = features / np.linalg.norm(features, axis=1, keepdims=True) if normalize else features
    expected = perplexity(np.linalg.svd(rows, compute_uv=False) ** 2)
    assert_allclose(feature_effective_rank(features, normalize=normalize), expected, rtol=50 * EPS)
    if shape[0] > 1:
        expected = perplexity(np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)[: min(shape[0] - 1, 30)] ** 2)
        assert_allclose(feature_effective_rank(features, center=True, normalize=normalize), expected, rtol=200 * EPS)
    assert_allclose(rankme(features), perplexity(np.linalg.svd(features, compute_uv=False)), rtol=50 * EPS)


@pytest.mark.parametrize("shape", [(300, 120), (120, 300)])
@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_collapsed_features_in_float32(rng, shape, scale):
    """Five directions of 120: what the rest is rounded to must not count."""
    features = (rng.normal(size=(shape[0], 5)) * [9, 4, 2, 1, 1]) @ rng.normal(size=(5, shape[1]))
    features = (features * scale).astype(np.float32)
    values = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    # 115 directions of relative size eps each add eps log(1/eps): 2e-4. By the Gram matrix RankMe would be 3% off.
    assert_allclose(rankme(features), perplexity(values[:5]), rtol=5e-4)
    assert_allclose(feature_effective_rank(features), perplexity(values[:5] ** 2), rtol=5e-4)


def test_ranks_of_features_do_not_see_rotation_or_the_moment_route(rng):
    features = (rng.normal(size=(40, 6)) * [5, 3, 2, 1, 1, 0.5] + 1).astype(np.float32)
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0].astype(np.float32)
    for center in (False, True):
        rank = feature_effective_rank(features, center=center)
        moved = feature_effective_rank(features @ rotation, center=center)
        assert_allclose(moved, rank, rtol=50 * EPS)
        assert_allclose(effective_rank(eigenvalues(second_moment(features, center=center))), rank, rtol=50 * EPS)
    assert abs(float(feature_effective_rank(features, center=True) - feature_effective_rank(features))) > 0.1


def test_rank_difference_is_target_minus_online(rng):
    online, target = np.diag([3.0, 1.0]), np.diag([1.0, 1.0])
    assert_allclose(rank_difference(online, target), 2 - 10 / 9**0.9, rtol=1e-6)
    assert_allclose(rank_difference(target, online), 10 / 9**0.9 - 2, rtol=1e-6)
    wide = rng.normal(size=(2, 5))
    expected = perplexity(np.linalg.svd(wide, compute_uv=False) ** 2) - 10 / 9**0.9
    assert_allclose(rank_difference(online, wide), expected, rtol=1e-5)
    shifted = rng.normal(size=(9, 3)) * [3, 1, 1] + 4, rng.normal(size=(9, 3)) + 4
    for options in ({"center": True}, {"normalize": True}, {"center": True, "normalize": True}):
        ranks = [float(feature_effective_rank(branch, **options)) for branch in shifted]
        assert_allclose(rank_difference(*shifted, **options), ranks[1] - ranks[0], rtol=1e-5)
    with pytest.raises(ValueError, match=r"same samples, got shapes \(2, 2\) and \(3, 2\)"):
        rank_difference(online, np.ones((3, 2)))


# alpha-ReQ and LiDAR.


def test_alpha_req_recovers_a_power_law_in_any_order(rng):
    spectrum = 5 * np.arange(1.0, 41) ** -1.7
    assert_allclose(alpha_req(rng.permutation(spectrum)), 1.7, rtol=1e-4)
    assert_allclose(alpha_req(np.ones(5)), 0, atol=1e-6)


def test_alpha_req_is_a_least_squares_line(rng):
    spectrum = np.sort(rng.exponential(size=30))[::-1] * np.arange(1.0, 31) ** -1
    log_rank, log_value = np.log(np.arange(1.0, 31)), np.log(spectrum)
    assert_allclose(alpha_req(spectrum), -np.polyfit(log_rank, log_value, 1)[0], rtol=1e-4)
    cut = slice(3, 20)
    expected = -np.polyfit(log_rank[cut], log_value[cut], 1)[0]
    assert_allclose(alpha_req(spectrum, first=4, last=20), expected, rtol=1e-4)
    padded = np.append(spectrum, [1e-12, 0, 0])
    assert_allclose(alpha_req(padded), -np.polyfit(log_rank, log_value, 1)[0], rtol=1e-4)


def test_alpha_req_refuses_a_fit_without_two_points():
    with pytest.raises(ValueError, match="fewer than two"):
        alpha_req([1.0, 0.0, 0.0])
    assert np.isnan(jax.jit(alpha_req)(jnp.array([1.0, 0.0, 0.0])))
    for options in ({"first": 0}, {"last": 4}, {"first": 3}, {"first": 2, "last": 2}):
        with pytest.raises(ValueError, match="1 <= first < last <= 3"):
            alpha_req([3.0, 2.0, 1.0], **options)


def lidar_by_groups(features, groups, ridge):
    """Thilak et al. 2023 from the definition, group by group, with the symmetric inverse root."""
    n, d = features.shape
    mean, between, within = features.mean(axis=0), np.zeros((d, d)), ridge * np.eye(d)
    for group in set(groups):
        rows = features[np.asarray(groups) == group]
        centre = rows.mean(axis=0)
        between += len(rows) / n * np.outer(centre - mean, centre - mean)
        within += (rows - centre).T @ (rows - centre) / n
    values, vectors = np.linalg.eigh(within)
    root = vectors / np.sqrt(values) @ vectors.T
    return perplexity(np.clip(np.linalg.eigvalsh(root @ between @ root), 0, None))


@pytest.mark.parametrize("d", [4, 30])
def test_lidar_follows_the_definition(x64, rng, d):
    groups = [7, 7, 7, -2, -2, 0, 0, 0, 0, 900, 5, 5]
    centres = {group: rng.normal(size=d) * np.arange(1, d + 1) for group in set(groups)}
    features = np.stack([centres[group] for group in groups]) + rng.normal(size=(12, d)) * 0.3 + 5
    expected = lidar_by_groups(features, groups, 1e-4)
    assert_allclose(lidar(features, groups), expected, rtol=1e-8)
    assert_allclose(jax.jit(lidar)(features, np.array(groups)), expected, rtol=1e-8)
    assert_allclose(lidar(features, groups, ridge=0.5), lidar_by_groups(features, groups, 0.5), rtol=1e-8)
    assert 1 <= expected <= len(set(groups)) - 1


def test_lidar_of_two_axes_by_hand():
    # Within-group variance (1, 4), between-group variance (4, 4): the ratio of the directions is 4 to 1.
    centres = np.array([[2.0, 2], [2, -2], [-2, 2], [-2, -2]])
    offsets = np.array([[1.0, 2], [1, -2], [-1, -2], [-1, 2]])
    rows = (centres[None] + offsets[:, None]).reshape(16, 2)
    assert_allclose(lidar(rows, np.tile(np.arange(4), 4), ridge=1e-6), 5 / 4**0.8, rtol=1e-4)


def test_lidar_refuses_what_has_no_answer():
    rows = np.array([[1.0, 0], [0, 1], [2, 2]])
    for groups, message in [
        ([0, 1, 2], "single row"),
        ([4, 4, 4], "all group means are equal"),
        ([0, 0], "3 integers"),
        ([0.0, 0.0, 1.0], "3 integers"),
    ]:
        with pytest.raises(ValueError, match=message):
            lidar(rows, groups)
        if len(groups) == 3 and message != "3 integers":
            assert np.isnan(jax.jit(lidar)(rows, np.array(groups)))
    with pytest.raises(ValueError, match="ridge must be positive"):
        lidar(rows, [0, 0, 1], ridge=0.0)


# Gradients at the bad points, in float64.


@pytest.mark.parametrize("spectrum", [(1.0, 1, 1, 1), (4.0, 2, 2, 1), (3.0, 1, 0, 0), (1.0, 1e-12, 1e-200, 0)])
def test_gradient_of_effective_rank_in_closed_form(x64, spectrum):
    spectrum = np.array(spectrum)
    shares = spectrum[spectrum > 0] / spectrum.sum()
    entropy = -(shares @ np.log(shares))
    expected = np.zeros(4)
    expected[spectrum > 0] = -(np.log(shares) + entropy) / spectrum.sum() * math.exp(entropy)
    assert_allclose(gradient_of(effective_rank)(jnp.asarray(spectrum)), expected, rtol=1e-11, atol=1e-13)
    # Order 1 is the same function, gradient included.
    assert_allclose(gradient_of(renyi_effective_rank)(jnp.asarray(spectrum), 1.0), expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("spectrum", [(1.0, 1, 1, 1), (4.0, 2, 2, 1), (3.0, 1, 0, 0)])
@pytest.mark.parametrize("order", [1.25, 2.0, 5.0])
def test_gradient_of_higher_orders_is_right_at_zero_eigenvalues_too(x64, spectrum, order):
    spectrum = np.array(spectrum)
    total, powers = spectrum.sum(), np.sum(spectrum**order)
    rank = (powers / total**order) ** (1 / (1 - order))
    expected = rank * order / (1 - order) * (spectrum ** (order - 1) / powers - 1 / total)
    found = gradient_of(renyi_effective_rank)(jnp.asarray(spectrum), order)
    assert_allclose(found, expected, rtol=1e-11, atol=1e-13)
    if order == 2:
        assert_allclose(gradient_of(participation_ratio)(jnp.asarray(spectrum)), expected, rtol=1e-11, atol=1e-13)


def test_gradient_near_order_one_is_that_of_order_one(x64):
    spectrum = jnp.array([4.0, 2.0, 1.0, 0.5])
    at_one = gradient_of(effective_rank)(spectrum)
    for excess in (1e-12, 1e-8, -1e-8):
        assert_allclose(gradient_of(renyi_effective_rank)(spectrum, 1 + excess), at_one, atol=10 * abs(excess) + 1e-14)


def test_gradient_of_the_extreme_orders(x64):
    spectrum = jnp.array([4.0, 2.0, 2.0, 0.0])
    # sum/max: (1/4, ...), and through the maximum -8/16.
    expected = [0.25 - 0.5, 0.25, 0.25, 0.25]
    assert_allclose(gradient_of(stable_rank)(spectrum), expected, atol=1e-12)
    assert_allclose(gradient_of(renyi_effective_rank)(spectrum, jnp.inf), expected, atol=1e-12)
    assert_allclose(gradient_of(renyi_effective_rank)(spectrum, 0.0), np.zeros(4), atol=1e-12)
    assert_allclose(gradient_of(numerical_rank)(spectrum), np.zeros(4))


POINTS = {
    "generic": [5.0, 3, 2, 1],
    "repeated": [2.0, 2, 2, 1],
    "flat": [1.0, 1, 1, 1],
    "rank-deficient": [3.0, 1, 0, 0],
    "repeated and deficient": [2.0, 2, 0, 0],
    "tiny": [1.0, 1, 1e-9, 1e-9],
}


@pytest.mark.parametrize("values", POINTS.values(), ids=POINTS.keys())
@pytest.mark.parametrize("shape", [(7, 4), (4, 7)])
@pytest.mark.parametrize("function", [feature_effective_rank, rankme])
def test_feature_gradients_are_difference_quotients(x64, rng, values, shape, function):
    if values == POINTS["tiny"] and function is rankme:
        pytest.skip("s log s bends within the step of the difference quotient")
    left, right = np.linalg.qr(rng.normal(size=(shape[0], 4)))[0], np.linalg.qr(rng.normal(size=(shape[1], 4)))[0]
    features = jnp.asarray(left * np.array(values) @ right.T)
    direction = rng.normal(size=shape)
    gradient = gradient_of(function)(features)
    assert np.isfinite(gradient).all()
    # What leaves 0 does so evenly, |t| or t^2 log t, and drops out of the central difference; t |t| log |t| stays.
    assert_allclose(jnp.vdot(gradient, direction), slope_along(function, features, direction), rtol=1e-6, atol=3e-5)
    forward = forward_slope(function, features, jnp.asarray(direction))
    assert_allclose(forward, jnp.vdot(gradient, direction), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("options", [{"center": True}, {"normalize": True}, {"center": True, "normalize": True}])
def test_feature_gradients_with_options(x64, rng, options):
    features, direction = jnp.asarray(rng.normal(size=(3, 5)) + 1), rng.normal(size=(3, 5))

    def function(x):
        return feature_effective_rank(x, **options)

    # Three centred rows have one null direction exactly.
    found = jnp.vdot(gradient_of(function)(features), direction)
    assert_allclose(found, slope_along(function, features, direction), rtol=1e-6, atol=1e-8)


def test_gradient_of_rankme_at_tiny_values(x64, rng):
    left, right = np.linalg.qr(rng.normal(size=(6, 3)))[0], np.linalg.qr(rng.normal(size=(4, 3)))[0]
    values = np.array([2.0, 1, 1e-8])
    shares = values / values.sum()
    entropy = -(shares @ np.log(shares))
    slopes = -(np.log(shares) + entropy) / values.sum() * math.exp(entropy)
    gradient = gradient_of(rankme)(jnp.asarray(left * values @ right.T))
    # The directions of the smallest value are known to eps / 1e-8 only.
    assert_allclose(gradient, left * slopes @ right.T, atol=1e-6)


@by_name(OF_FEATURES)
def test_feature_gradients_are_finite_where_features_are_degenerate(function):
    row = np.array([[1.0, 2.0, -1.0]])
    for features in (np.repeat(row, 4, axis=0) + np.eye(4, 3), np.eye(4, 3), np.eye(4, 3) * 1e-20):
        assert np.isfinite(gradient_of(function)(jnp.asarray(features, jnp.float32))).all()


# Influence of rows.


def skewed_rows(rng, n, d):
    """Rows of a spectrum that falls off, with a mean and heavy tails, in a basis of no axis."""
    rows = rng.standard_t(8, size=(n, d)) * 0.6 ** np.arange(d) + np.eye(d)[1]
    return rows @ np.linalg.qr(rng.normal(size=(d, d)))[0]


def rank_with_weights(rows, weights):
    return perplexity(np.linalg.eigvalsh((rows.T * weights) @ rows))


def test_influence_is_the_slope_in_a_rows_weight(rng, x64):
    rows = skewed_rows(rng, 30, 4)
    influence = effective_rank_influence(rows, second_moment(rows))
    step = 1e-5 * np.eye(30)
    slopes = [rank_with_weights(rows, 1 + h) - rank_with_weights(rows, 1 - h) for h in step]
    # A weight of 1 + h among n rows moves the moment by h / n; central differences are off by h^2.
    assert_allclose(influence, 30 * np.array(slopes) / 2e-5, rtol=1e-6, atol=1e-7)
    assert_allclose(np.mean(influence), 0, atol=1e-13)


def test_influence_of_other_rows_and_of_views(rng, x64):
    rows, others = skewed_rows(rng, 30, 4), rng.normal(size=(2, 7, 4))
    moment = second_moment(rows)
    found = effective_rank_influence(others, moment)
    step = 1e-5
    for view, row in ((0, 2), (1, 6)):
        added = np.outer(others[view, row], others[view, row])
        ranks = [perplexity(np.linalg.eigvalsh(np.asarray(moment) + sign * step * added)) for sign in (1, -1)]
        assert_allclose(found[view, row], (ranks[0] - ranks[1]) / (2 * step), rtol=1e-6)


def test_a_null_direction_has_no_influence(rng):
    rows = np.append(skewed_rows(rng, 30, 3), np.zeros((30, 1)), axis=1)
    alone = effective_rank_influence(rows[:, :3], second_moment(rows[:, :3]))
    assert_allclose(effective_rank_influence(rows, second_moment(rows)), alone, rtol=1e-4, atol=1e-5)


def test_standard_error_from_influence_is_that_of_the_bootstrap(rng):
    rows = skewed_rows(rng, 400, 4)
    error = np.sqrt(np.mean(np.square(effective_rank_influence(rows, second_moment(rows)))) / 400)
    drawn = [rank_with_weights(rows, np.bincount(rng.integers(400, size=400), minlength=400)) for _ in range(1000)]
    # 1000 draws give a standard deviation to 1 / sqrt(2000), 2.2%; the tails' kurtosis and the bias of order 1/n add.
    assert_allclose(error, np.std(drawn), rtol=0.1)


@pytest.mark.parametrize(
    ("features", "moment", "message"),
    [
        (np.ones((5, 3)), np.eye(2), r"moment must be \(d, d\) for features \(..., n, d\), got \(2, 2\) and \(5, 3\)"),
        (np.ones(3), np.eye(3), r"got \(3, 3\) and \(3,\)"),
        (np.full((5, 3), np.nan), np.eye(3), "hold NaN or inf"),
        (np.ones((5, 3)), np.diag([1.0, np.inf, 1.0]), "hold NaN or inf"),
        (np.zeros((5, 3)), np.zeros((3, 3)), "the moment is zero"),
    ],
)
def test_influence_of_nothing_is_refused_and_nan_under_jit(features, moment, message):
    with pytest.raises(ValueError, match=message):
        effective_rank_influence(features, moment)
    if np.shape(moment) == (3, 3) and np.ndim(features) == 2:
        assert np.isnan(jax.jit(effective_rank_influence)(features, moment)).all()


# What is undefined.


@by_name(OF_SPECTRUM)
@pytest.mark.parametrize(
    ("spectrum", "message"),
    [
        ([0.0, 0.0], "all zero"),
        ([1.0, np.nan], "NaN or inf"),
        ([np.inf, 1.0], "NaN or inf"),
        ([1.0, -0.01], "negative value beyond rounding"),
        ([[1.0, 1.0], [0.0, 0.0]], "all zero"),
        (3.0, "at least one value"),
        (np.zeros((2, 0)), "at least one value"),
        ([1.0, 1j], "must be real"),
        ("spectrum", "numeric array"),
    ],
)
def test_undefined_spectra_are_refused(function, spectrum, message):
    with pytest.raises(ValueError, match=message):
        function(spectrum)


@by_name(OF_SPECTRUM)
def test_undefined_spectra_are_nan_under_jit_and_spoil_no_neighbour(function):
    spectra = jnp.array([[4.0, 2.0, 1.0], [0, 0, 0], [1, np.nan, 1], [1, -0.1, 1], [np.inf, 1, 1]])
    found = jax.jit(function)(spectra)
    assert np.isnan(found[1:]).all()
    assert_allclose(found[0], function(spectra[0]), rtol=8 * EPS)


def test_bad_orders_are_refused():
    for order in (-0.5, math.nan, -math.inf):
        with pytest.raises(ValueError, match=r"order must be in \[0, inf\]"):
            renyi_effective_rank([2.0, 1.0], order)
        assert np.isnan(jax.jit(renyi_effective_rank)(jnp.array([2.0, 1.0]), order))
    with pytest.raises(ValueError, match="order must be a scalar"):
        renyi_effective_rank([2.0, 1.0], [1.0, 2.0])


@by_name(OF_FEATURES)
@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((4, 3)), "all zero|all group means are equal"),
        (np.array([[1.0, np.nan], [1, 2]]), "NaN or inf"),
        (np.ones(3), r"shape|integers"),
        (np.ones((2, 0)), "shape"),
        (np.ones((2, 2)) * 1j, "must be real"),
    ],
)
def test_undefined_features_are_refused(function, features, message):
    with pytest.raises(ValueError, match=message):
        function(features)


@by_name(OF_FEATURES)
def test_undefined_features_are_nan_under_jit(function):
    for features in (np.zeros((4, 3)), np.array([[1.0, np.inf], [1, 2]])):
        assert np.isnan(jax.jit(function)(features))


def test_centred_single_and_constant_rows_have_no_rank():
    for features in (np.array([[3.0, 4.0]]), np.full((5, 2), 0.1)):
        assert_allclose(feature_effective_rank(features), 1, rtol=8 * EPS)
        with pytest.raises(ValueError, match="all zero"):
            feature_effective_rank(features, center=True)
