"""Exact application: the published formulas in NumPy float64, values and gradients, and the null directions."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from rdm_jax.filters import apply, compose, identity, log, log1p, null_directions, power, wiener
from rdm_jax.filters.application import _gains, _gram_is_enough
from tests.filters.reference import (
    GAINS,
    effective_rank,
    operator,
    published,
    published_gradient,
    tolerance,
    with_spectrum,
)

EPS = float(np.finfo(np.float32).eps)
SHAPES = [(5, 3), (3, 5), (4, 4), (1, 6), (6, 1), (1, 1)]


def value_and_gradient(filter, features, cotangent, **options):
    value, pullback = jax.vjp(lambda z: apply(filter, z, **options), jnp.asarray(features))
    return value, pullback(jnp.asarray(cotangent, value.dtype))[0]


def assert_close(actual, expected, tolerance):
    """By the largest entry: entries themselves may cancel to nothing."""
    assert_allclose(actual, expected, rtol=0, atol=tolerance * np.max(np.abs(expected)))


# The published formulas.


def check_against_the_published_formulas(filter, shape, rng):
    """A Gram matrix may cost sqrt(eps) = 1.5e-8 of a gradient: these are well-conditioned, and lose far less."""
    features, cotangent = 3 * rng.normal(size=shape), rng.normal(size=shape)
    cut = tolerance(features, np.float64)
    value, gradient = value_and_gradient(filter, features, cotangent)
    assert_close(value, published(features, GAINS[filter], cut), 1e-10)
    assert_close(gradient, published_gradient(features, cotangent, GAINS[filter], cut), 1e-10)


@pytest.mark.parametrize("filter", GAINS, ids=repr)
@pytest.mark.parametrize("shape", [(12, 31), (31, 12)], ids=str)
def test_values_and_gradients_are_the_published_ones(filter, shape, x64, rng):
    check_against_the_published_formulas(filter, shape, rng)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape(shape, x64, rng):
    check_against_the_published_formulas(power(-0.5), shape, rng)


@pytest.mark.parametrize("filter", [power(1), power(-0.5), power(-1), log1p()], ids=repr)
@pytest.mark.parametrize("shape", [(24, 60), (60, 24), (32, 32)], ids=str)
def test_accuracy_in_32_bits(filter, shape, rng):
    """The documented bounds; an SVD's own error is up to eps * condition times a gain's sensitivity."""
    for condition in (4, 1e2, 1e4):
        values = 50 * np.geomspace(1, 1 / condition, min(shape))
        features = with_spectrum(rng, shape, values).astype(np.float32)
        cotangent = rng.normal(size=shape).astype(np.float32)
        value, gradient = value_and_gradient(filter, features, cotangent)
        gain, cut, svd = GAINS[filter], tolerance(features), 10 * EPS * condition
        assert_close(value, published(features, gain, cut), 200 * EPS + svd)
        assert_close(gradient, published_gradient(features, cotangent, gain, cut), EPS**0.5 + svd)


@pytest.mark.parametrize("shape", [(20, 50), (50, 20)], ids=str)
def test_small_directions_have_the_accuracy_of_an_svd(shape, rng):
    """Ten digits of s_max^2 would be needed of a Gram matrix to tell these apart; float32 has seven."""
    values = np.geomspace(1, 1e-5, 20)
    features = with_spectrum(rng, shape, values).astype(np.float32)
    outputs = np.linalg.svd(np.asarray(apply(power(-0.5), features), np.float64), compute_uv=False)
    exact = np.sqrt(np.linalg.svd(features.astype(np.float64), compute_uv=False))
    # An SVD's error is eps * s_max in s, and so eps * s_max / (2 s) of sqrt(s): 6e-3 at the end, times a small factor.
    kept = exact**2 > tolerance(features)
    assert np.sum(kept) >= 19
    assert_allclose(outputs[kept], exact[kept], rtol=3e-2)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (5, 5)], ids=str)
def test_repeated_singular_values(shape, rng):
    """All alike, the operator is g(c) times a projection, whichever basis the solver took."""
    features = with_spectrum(rng, shape, np.full(min(shape), 3.0)).astype(np.float32)
    cotangent = rng.normal(size=shape).astype(np.float32)
    value, gradient = value_and_gradient(power(2), features, cotangent)
    projection = features.T @ features / 9
    assert_allclose(value, 9 * features, atol=200 * EPS)
    assert_allclose(gradient, 9 * cotangent @ projection, atol=400 * EPS)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_operator_is_a_constant(shape, x64, rng):
    """Along Z itself the derivative is Z W = Y, not the 2 Y that squaring would have; the second derivative is 0."""
    features = jnp.asarray(rng.normal(size=shape))
    value, along = jax.jvp(lambda z: apply(power(1), z), (features,), (features,))
    assert_close(along, value, 1e-12)
    _, second = jax.jvp(lambda z: jax.jvp(lambda y: apply(log1p(), y), (z,), (features,))[1], (features,), (features,))
    assert_allclose(second, 0)


def test_gradient_in_the_row_space_only(rng):
    """W has the row space of Z: a cotangent outside of it gets nothing."""
    features = np.zeros((3, 5), np.float32)
    features[:, :3] = rng.normal(size=(3, 3)) + 3 * np.eye(3)
    cotangent = np.zeros((3, 5), np.float32)
    cotangent[:, 3:] = 1
    _, gradient = value_and_gradient(power(-0.5), features, cotangent)
    assert_allclose(gradient, 0, atol=4 * EPS)


@pytest.mark.parametrize(
    ("filter", "method"),
    [(power(-1), "exact"), (power(1), "exact"), (log(), "exact"), (power(-1), "matmul"), (power(2), "matmul")],
    ids=str,
)
def test_the_target_side_has_the_values_and_no_gradient(filter, method, rng):
    for shape in [(4, 7), (7, 4)]:
        features = rng.normal(size=shape).astype(np.float32)
        value, gradient = value_and_gradient(filter, features, np.ones(shape), side="target", method=method)
        # Online the factorisation may be another one, for the gradient's sake.
        assert_close(value, apply(filter, features, method=method), 300 * EPS)
        assert not np.any(gradient)


def _shapes(jaxpr):
    for equation in jaxpr.eqns:
        yield from (variable.aval.shape for variable in equation.outvars)
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            if hasattr(inner, "jaxpr") or hasattr(inner, "eqns"):
                yield from _shapes(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize("method", ["exact", "matmul"])
@pytest.mark.parametrize("shape", [(3, 50), (50, 3)], ids=str)
def test_no_array_is_larger_than_the_features(method, shape):
    def both(features, cotangent):
        return value_and_gradient(power(-0.5), features, cotangent, method=method)

    jaxpr = jax.make_jaxpr(both)(jnp.ones(shape), jnp.ones(shape)).jaxpr
    shapes = set(_shapes(jaxpr))
    assert (3, 3) in shapes and max(map(np.prod, shapes)) == 150


# Null directions.


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (9, 9)], ids=str)
@pytest.mark.parametrize("rank", [1, 3, 7])
def test_whitening_is_the_partial_isometry_of_the_rank(shape, rank, rng):
    features = with_spectrum(rng, shape, np.geomspace(5, 0.5, rank)).astype(np.float32)
    left, _, right = np.linalg.svd(features.astype(np.float64), full_matrices=False)
    value, gradient = value_and_gradient(power(-1), features, np.ones(shape))
    assert_allclose(value, left[:, :rank] @ right[:rank], atol=300 * EPS)
    expected = published_gradient(features, np.ones(shape), GAINS[power(-1)], tolerance(features))
    assert_close(gradient, expected, 1000 * EPS)
    assert null_directions(features) == min(shape) - rank


def test_the_null_direction_of_batch_normalisation_does_not_win(rng):
    """n <= d and centred columns: one null direction; published code gives it all of the output for a = -1.5."""
    raw, axis = rng.normal(size=(256, 2048)) * np.arange(1, 2049) ** -0.5, rng.normal(size=2048)
    raw -= 2 * np.outer(raw @ axis, axis) / (axis @ axis)  # mixes the columns, which are rescaled next
    features = ((raw - raw.mean(0)) / raw.std(0)).astype(np.float32)
    values = np.linalg.svd(features, compute_uv=False)
    assert effective_rank(np.diag(values**-0.5)) < 1.01
    assert null_directions(features) == 1
    kept = values[values > tolerance(features) * values[0]]
    assert len(kept) == 255
    filtered = apply(power(-1.5), features, side="target")
    assert_allclose(effective_rank(filtered), effective_rank(np.diag(kept**-0.5)), rtol=1e-3)


def test_null_directions_by_hand():
    assert null_directions(np.diag([2.0, 1.0, 0.0])) == 1
    assert null_directions(np.zeros((2, 5))) == 2
    assert null_directions(np.diag([1.0, 2 * 3 * EPS, 0.5 * 3 * EPS])) == 1  # the cut is at 3 eps
    assert jax.jit(null_directions)(jnp.array([[jnp.nan, 1.0]])) == -1


def test_a_zero_matrix_stays_zero():
    for method in ("exact", "matmul"):
        for shape in ((3, 5), (5, 3)):
            value, gradient = value_and_gradient(power(-1), np.zeros(shape), np.ones(shape), method=method)
            assert not np.any(value) and not np.any(gradient)


# Identities of the filters.


@given(st.sampled_from([(7, 12), (12, 7)]), st.integers(0, 5))
def test_effective_ranks_of_filtered_features(shape, seed):
    """Eigenvalue effective rank: at a = -1/2 the RankMe of the input, at a = -1 its rank."""
    features = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    shares = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    shares /= shares.sum()
    rankme = np.exp(-np.sum(shares * np.log(shares)))
    assert_allclose(effective_rank(apply(power(-0.5), features)), rankme, rtol=1e-4)
    assert_allclose(effective_rank(apply(power(-1), features)), 7, rtol=1e-4)
    assert_allclose(apply(power(0), features), features, atol=300 * EPS)


@pytest.mark.parametrize("pair", [(power(1), log1p()), (log(), power(-0.5)), (wiener(0.1, 0.2), power(1))], ids=str)
def test_composition_is_one_filter_after_another(pair, x64, rng):
    features = 4 * rng.normal(size=(6, 9))
    assert_close(apply(compose(*pair), features), apply(pair[1], apply(pair[0], features)), 1e-9)


def test_the_wiener_filter_is_the_ridge_predictor(x64, rng):
    """C_m (C_z + rho)^-1 with C_m = C_z - nu (T3), where no eigenvalue is below the noise."""
    features, nu, rho = rng.normal(size=(40, 6)), 0.1, 0.3
    moment = features.T @ features / 40
    assert np.linalg.eigvalsh(moment)[0] > nu
    predictor = (moment - nu * np.eye(6)) @ np.linalg.inv(moment + rho * np.eye(6))
    for scale in ("batch", "sample"):
        assert_close(apply(wiener(nu, rho), features, scale=scale), features @ predictor, 1e-10)


@pytest.mark.parametrize("filter", [log(), log1p(), power(-0.5), wiener(0.3, 0.2)], ids=repr)
def test_the_sample_scale_does_not_see_the_batch_size(filter, x64, rng):
    features = 2 * rng.normal(size=(5, 8))
    repeated = np.concatenate([features] * 4)
    assert_close(apply(filter, repeated, scale="sample")[:5], apply(filter, features, scale="sample"), 1e-10)
    root = np.sqrt(5)
    expected = published(features, lambda s, n: GAINS.get(filter, _wiener)(s / root, 1), 1e-12)
    assert_close(apply(filter, features, scale="sample"), expected, 1e-10)


def _wiener(s, n):
    return np.maximum(s**2 / n - 0.3, 0) / (s**2 / n + 0.2)


def test_the_batch_scale_of_the_log_family_does(rng):
    features = rng.normal(size=(5, 8)).astype(np.float32)
    once, thrice = apply(log1p(), features), apply(log1p(), np.concatenate([features] * 9))[:5]
    assert np.linalg.norm(thrice - once) > 0.5 * np.linalg.norm(once)


# Numbers that are hard on float32.


@pytest.mark.parametrize("unit", [1e-30, 1e-18, 1e-12, 1e12, 1e18, 1e30])
@pytest.mark.parametrize("shape", [(6, 10), (10, 6)], ids=str)
@pytest.mark.parametrize("method", ["exact", "matmul"])
def test_the_scale_of_the_features_does_not_matter(unit, shape, method, rng):
    """The Gram matrix over- or underflows at either end; so does g / s^2, which the gradient needs for n < d."""
    features = with_spectrum(rng, shape, np.geomspace(1, 0.2, 6)).astype(np.float32)
    value, gradient = value_and_gradient(power(-1), unit * features, np.ones(shape), method=method)
    assert_allclose(value, published(features, GAINS[power(-1)], tolerance(features)), atol=2000 * EPS)
    if shape == (10, 6) or unit in (1e-12, 1e12):
        expected = published_gradient(features, np.ones(shape), GAINS[power(-1)], tolerance(features))
        assert_close(unit * gradient, expected, 5000 * EPS)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_computed_in_32_bits(dtype, rng):
    features = jnp.asarray(300 * rng.normal(size=(6, 4)), dtype)
    value, gradient = value_and_gradient(power(2), features, np.ones((6, 4)))
    assert value.dtype == jnp.float32 and gradient.dtype == dtype
    # About 1e9: float16 ends at 65504.
    expected = published(np.asarray(features, np.float64), lambda s, n: s**2, 1e-6)
    assert_close(value, expected, 200 * EPS)


def test_integers_and_lists_are_features():
    assert_allclose(apply(power(1), [[0, 2], [1, 0]]), [[0, 4], [1, 0]], atol=8 * EPS)


# Choosing between Gram matrix and SVD.


def gram_is_enough(filter, values, wide=True, online=True):
    return bool(_gram_is_enough(lambda s: _gains(filter, 64, False, s), jnp.asarray(values, jnp.float32), wide, online))


@pytest.mark.parametrize("condition", [2, 1e2, 1e4, 1e6])
def test_the_default_filter_is_always_fast(condition):
    assert gram_is_enough(power(1), np.geomspace(40, 40 / condition, 64))
    assert gram_is_enough(power(1), [*np.geomspace(40, 1, 63), 0.0])


def test_whitening_is_fast_only_where_it_is_accurate():
    assert gram_is_enough(power(-1), np.geomspace(40, 4, 64))
    assert not gram_is_enough(power(-1), np.geomspace(40, 1, 64))
    assert not gram_is_enough(power(-1), [*np.geomspace(40, 4, 63), 0.0])
    assert not gram_is_enough(power(-0.5), np.geomspace(40, 0.4, 64))
    # Only the gradient of the wide side divides by s^2.
    assert not gram_is_enough(identity(), np.geomspace(40, 0.4, 64))
    assert gram_is_enough(identity(), np.geomspace(40, 0.4, 64), wide=False)
    assert gram_is_enough(identity(), np.geomspace(40, 0.4, 64), online=False)


def test_a_gram_matrix_out_of_range_is_not_enough():
    assert not gram_is_enough(power(1), [np.inf, np.inf])
    assert not gram_is_enough(power(1), [np.nan, np.nan])
    assert not gram_is_enough(power(1), [1e-17, 5e-18])
    assert not gram_is_enough(power(1), [0.0, 0.0])


# Transformations and errors.


@pytest.mark.parametrize("filter", [power(-1), log1p()], ids=repr)
@pytest.mark.parametrize("shape", [(4, 7), (7, 4)], ids=str)
def test_jit_and_vmap_change_nothing(filter, shape, rng):
    batch = jnp.asarray(rng.normal(size=(3, *shape)), jnp.float32)
    singly = jnp.stack([apply(filter, features) for features in batch])
    assert_allclose(jax.vmap(lambda z: apply(filter, z))(batch), singly, atol=500 * EPS)
    jitted = jax.jit(apply, static_argnums=0, static_argnames=("side", "method", "scale"))
    assert_allclose(jitted(filter, batch[1], side="online"), singly[1], atol=500 * EPS)


@pytest.mark.parametrize("method", ["exact", "matmul"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("shape", [(3, 5), (5, 3)], ids=str)
def test_features_that_are_not_finite(method, bad, shape):
    features = np.ones(shape, np.float32)
    features[1, 2] = bad
    with pytest.raises(ValueError, match="hold NaN or inf; drop those rows"):
        apply(power(-1), features, method=method)
    value, gradient = jax.jit(lambda z: value_and_gradient(power(-1), z, np.ones(shape), method=method))(features)
    assert np.all(np.isnan(value)) and np.all(np.isnan(gradient))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"side": "onlin"}, "side must be one of 'online', 'target'; got 'onlin': did you mean 'online'"),
        ({"method": "matmull"}, "method must be one of 'exact', 'matmul'; got 'matmull': did you mean 'matmul'"),
        ({"scale": "samples"}, "scale must be one of 'batch', 'sample'; got 'samples': did you mean 'sample'"),
    ],
    ids=str,
)
def test_unknown_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        apply(power(1), np.eye(3), **options)


def test_wrong_input():
    with pytest.raises(ValueError, match=r"features must have shape \(n, d\)"):
        apply(power(1), np.ones((2, 3, 4)))
    with pytest.raises(ValueError, match=r"filter must be a Filter such as .*, got 'power:1'"):
        inspect.unwrap(apply)("power:1", np.eye(3))


def test_the_reference_is_the_definition(rng):
    """The test's own helper: W v_i = g(s_i) v_i, and 0 across; W of the identity filter projects."""
    features = with_spectrum(rng, (4, 6), np.array([3.0, 2.0, 1.0]))
    weights = operator(features, GAINS[power(1)], 1e-9)
    assert_allclose(features @ weights @ weights, features @ features.T @ features, atol=1e-12)
    assert_allclose(np.linalg.matrix_rank(weights), 3)
