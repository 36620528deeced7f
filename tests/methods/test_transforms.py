"""The transforms' values, states and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rdm_jax.filters import log, log1p, power, wiener
from rdm_jax.methods import (
    Context,
    center_ema,
    center_features,
    chain,
    direct_pred,
    filtering,
    identity,
    isotropic,
    l2_normalize,
    linear_predictor,
    make_transform,
    mlp_predictor,
    negative_cosine,
    parse_filter,
    prototypes,
    squared_error,
    stop_gradient,
)
from rdm_jax.methods.filtering import filter_warnings
from tests.methods import reference

TRAIN = Context()


def two_views(rng, n=9, d=4):
    return jnp.asarray(rng.normal(size=(2, n, d)) * np.arange(1, d + 1) + [[[0.4]], [[-1.1]]], jnp.float32)


def test_unit_rows_and_a_row_of_zeros(rng):
    rows = jnp.asarray(rng.normal(size=(5, 3)), jnp.float32)
    output, _ = l2_normalize().apply({}, (), rows, TRAIN)
    np.testing.assert_allclose(output, reference.unit(rows), rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda z: l2_normalize().apply({}, (), z, TRAIN)[0].sum()))(rows.at[2].set(0))
    assert np.isfinite(gradient).all() and gradient[2].tolist() == [0, 0, 0]


def test_each_view_is_centred_by_its_own_mean(rng):
    views = two_views(rng)
    output, _ = center_features().apply({}, (), views, TRAIN)
    for view, centred in zip(reference.f64(views), output, strict=True):
        np.testing.assert_allclose(centred, view - view.mean(axis=0), atol=1e-5)
    weights = jnp.arange(9.0)[:, None] * jnp.ones((1, 4))
    gradient = jax.jit(jax.grad(lambda z: (weights * center_features().apply({}, (), z, TRAIN)[0]).sum()))(views[0])
    np.testing.assert_allclose(gradient, weights - weights.mean(axis=0, keepdims=True), atol=1e-5)


def test_moving_centre_is_old_for_both_views_and_moves_by_both(rng):
    transform = center_ema(0.9)
    _, state = transform.init(jax.random.key(0), jax.ShapeDtypeStruct((2, 9, 4), jnp.bfloat16))
    assert state.dtype == jnp.float32
    center = np.zeros(4)
    for _ in range(3):
        views = two_views(rng)
        output, state = transform.apply({}, state, views, TRAIN)
        np.testing.assert_allclose(output, reference.f64(views) - center, atol=1e-5)
        rows = reference.f64(views).reshape(18, 4)
        center = 0.9 * center + 0.1 * rows.mean(axis=0)
        np.testing.assert_allclose(state, center, rtol=1e-5)
    output, same = transform.apply({}, state, views, Context(train=False))
    np.testing.assert_array_equal(same, state)
    np.testing.assert_allclose(output, reference.f64(views) - center, atol=1e-5)


def test_gradient_passes_a_moving_centre_unchanged(rng):
    views = two_views(rng)
    gradient = jax.grad(lambda z: jnp.sum(center_ema().apply({}, jnp.ones(4), z, TRAIN)[0] * views))(views)
    np.testing.assert_array_equal(gradient, views)


def test_stop_gradient_stops_it_and_identity_does_not(rng):
    views = two_views(rng)
    loss = lambda transform: jax.grad(lambda z: jnp.sum(transform.apply({}, (), z, TRAIN)[0] ** 2))(views)  # noqa: E731
    np.testing.assert_array_equal(loss(stop_gradient()), jnp.zeros_like(views))
    np.testing.assert_array_equal(loss(identity()), 2 * views)
    assert stop_gradient().stops and not identity().stops and chain(stop_gradient(), identity()).stops


def isoloss_surrogate(z, p, target):
    """The published surrogate: z, p and target enter as arrays, all but z as constants."""
    sizes = jnp.linalg.norm(p, axis=1) * jnp.linalg.norm(target, axis=1)
    pull = target / sizes[:, None]
    push = (jnp.sum(p * target, axis=1) / (jnp.linalg.norm(p, axis=1) ** 2 * sizes))[:, None] * p
    return -jnp.mean(jnp.sum(z * (pull - push), axis=1))


def test_isotropic_has_the_gradient_of_isoloss(rng):
    z, target = two_views(rng)
    transform = isotropic(direct_pred())
    state = transform.init(jax.random.key(0), z)[1]
    p, _ = transform.apply({}, state, z, TRAIN)
    np.testing.assert_array_equal(p, direct_pred().apply({}, state, z, TRAIN)[0])

    def gradient(loss):
        return jax.jit(jax.grad(lambda z: loss(transform.apply({}, state, z, TRAIN)[0], target)))(z)

    expected = jax.jit(jax.grad(isoloss_surrogate))(z, p, target)
    np.testing.assert_allclose(gradient(negative_cosine), expected, rtol=1e-4, atol=1e-7)
    squared = gradient(squared_error)
    np.testing.assert_allclose(squared, (p - target) / len(z), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="no gradient reach the parameters"):
        isotropic(linear_predictor())


def test_flow_of_one_sample_under_a_diagonal_predictor():
    """Published closed forms, cosine loss, no view noise: z' = sum_k l_k (l_k - l_m) z_k^2 z_m / (|Dz|^3 |z|)."""
    gains, z = jnp.array([0.9, 0.5, 0.2]), jnp.array([[0.3, -0.8, 0.6]])
    target = z
    diagonal = make_transform(lambda params, state, z, context: (z * gains[None], state), lambda *_: None)
    p, squares = reference.f64(gains * z[0]), reference.f64(z[0]) ** 2
    scale = np.linalg.norm(p) ** 3 * np.linalg.norm(z)
    flow = np.array([sum(gains * (gains - gain) * squares) for gain in reference.f64(gains)]) * z[0] / scale
    for transform, slowed in ((isotropic(diagonal), 1), (diagonal, gains)):
        loss = lambda z, transform=transform: negative_cosine(transform.apply({}, (), z, TRAIN)[0], target)  # noqa: E731
        np.testing.assert_allclose(-jax.jit(jax.grad(loss))(z)[0], flow * slowed, rtol=1e-4, atol=1e-6)


def test_prototypes_have_unit_rows_and_are_frozen_for_their_epochs(rng):
    transform = prototypes(6, frozen_epochs=2)
    z = two_views(rng)
    params, state = transform.init(jax.random.key(0), z)
    params = {"prototypes": params["prototypes"] * jnp.arange(1.0, 7.0)[:, None]}
    scores, _ = transform.apply(params, state, z, Context(epoch=0))
    expected = reference.f64(z) @ reference.unit(params["prototypes"]).T
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)

    @jax.jit
    def gradient(epoch):
        return jax.grad(lambda p: jnp.sum(transform.apply(p, (), z, Context(epoch=epoch))[0] ** 2))(params)[
            "prototypes"
        ]

    assert np.all(gradient(1.9) == 0) and np.all(np.abs(gradient(2.0)).max(axis=1) > 1e-3)
    assert transform.frozen == (("prototypes", 2),) and prototypes(6).frozen == ()
    with pytest.raises(ValueError, match=r"frozen, for 2 epochs, depends on the epoch: pass Context\(epoch"):
        transform.apply(params, state, z, TRAIN)


def test_a_filter_acts_on_each_view_by_itself(rng):
    views = two_views(rng)
    for side in ("online", "target"):
        output, _ = filtering(power(-0.5), side=side).apply({}, (), views, TRAIN)
        expected = [reference.filtered(view, lambda s: s**-0.5) for view in views]
        np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)
    assert (
        filtering(parse_filter("power:1"), side="target").stops
        and not filtering(parse_filter("power:1"), side="online").stops
    )


@pytest.mark.parametrize(
    ("text", "filter"),
    [("power:-0.5", power(-0.5)), ("log", log()), ("log1p", log1p()), ("wiener:0.5, 1", wiener(0.5, 1))],
)
def test_filters_by_name(text, filter):
    assert parse_filter(text) == filter


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pover:1", "did you mean 'power'"),
        ("power", "filter 'power' is written power:EXPONENT, got 'power'"),
        ("log:1", "filter 'log' is written log, got 'log:1'"),
        ("wiener:1", "written wiener:NOISE,RIDGE"),
        ("power:x", "exponent must be a number"),
    ],
)
def test_names_of_filters_that_are_none(text, message):
    with pytest.raises(ValueError, match=message):
        parse_filter(text)


@pytest.mark.parametrize(
    ("filter", "side", "words"),
    [
        (power(1), "online", []),
        (power(-0.5), "target", []),
        (power(-1), "target", []),
        (power(1), "target", ["low-pass, and on the target side"]),
        (power(-0.5), "online", ["high-pass, and on the online side"]),
        (power(-1.5), "target", ["does not keep the order"]),
        (power(0), "online", ["constant gain"]),
        (log(), "online", ["negative gains"]),
    ],
)
def test_what_theory_has_against_a_filter(filter, side, words):
    found = filter_warnings(filter, side)
    assert len(found) == len(words) and all(word in text for word, text in zip(words, found, strict=True))
    assert jax.jit(lambda x: x * len(filter_warnings(filter, side)))(1) == len(words)


def test_options_of_a_filter_are_checked_when_it_is_built():
    for options, message in (
        ({"side": "left"}, "side must be one of"),
        ({"side": "online", "scale": "bath"}, "did you mean 'batch'"),
        ({"side": "online", "method": "matmul"}, "covers power"),
    ):
        with pytest.raises(ValueError, match=message):
            filtering(log1p(), **options)


def test_chains_that_make_no_sense():
    with pytest.raises(ValueError, match="two transforms of this chain have parameters named 'predictor'"):
        chain(linear_predictor(), mlp_predictor())
    assert chain(linear_predictor(), mlp_predictor(name="second")).names == ("predictor", "second")
    with pytest.raises(ValueError, match="for the online side and one for the target side"):
        chain(linear_predictor(), stop_gradient())


def test_a_chain_sees_the_width_that_the_step_before_leaves(key):
    params, state = chain(prototypes(6), linear_predictor()).init(key, jax.ShapeDtypeStruct((2, 9, 4), jnp.float32))
    assert params["prototypes"].shape == (6, 4) and params["predictor"].shape == (6, 6) and state == ((), ())


@pytest.mark.parametrize("shape", [(3,), (0, 2), (2, 3, 0)])
def test_features_of_another_shape_are_refused(shape):
    for transform, state in ((identity(), ()), (chain(identity()), ((),))):
        with pytest.raises(ValueError, match="features must have shape"):
            transform.apply({}, state, jnp.zeros(shape), TRAIN)


def test_a_state_keeps_its_dtypes():
    grows = make_transform(
        lambda params, state, z, context: (z, state + 1.5), lambda *_: None, lambda key, z: ({}, jnp.int32(0))
    )
    assert grows.apply({}, jnp.int32(0), jnp.ones((1, 1)), TRAIN)[1].dtype == jnp.int32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: center_ema(1.0), r"momentum must be in \[0, 1\)"),
        (lambda: prototypes(1), "count >= 2"),
        (lambda: prototypes(3, frozen_epochs=-1), "frozen_epochs >= 0"),
        (lambda: linear_predictor(scale=-1), "at least 0"),
        (lambda: mlp_predictor((0,)), "at least 1 unit"),
        (lambda: mlp_predictor(activation="rely"), "did you mean 'relu'"),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
