"""Learned and closed-form predictors against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rdm_jax.methods import Context, direct_copy, direct_pred, direct_set, linear_predictor, mlp_predictor
from tests.methods import reference

TRAIN = Context()


def two_views(rng, n=16, d=3):
    return jnp.asarray(rng.normal(size=(2, n, d)) * [2.0, 1.0, 0.3] + [[[0.4]], [[-1.1]]], jnp.float32)


def disturbed(params, rng):
    return jax.tree.map(lambda leaf: leaf + jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), params)


@pytest.mark.parametrize("hidden", [(5,), (5, 4)])
def test_perceptron_by_value_with_statistics_of_each_view(hidden, rng, key):
    transform = mlp_predictor(hidden)
    views = two_views(rng)
    params, state = transform.init(key, views)
    params = disturbed(params, rng)
    assert "bias" not in params["predictor"]["linear0"]
    output, after = jax.jit(lambda p, s, z: transform.apply(p, s, z, TRAIN))(params, state, views)
    running = {f"norm{layer}": [np.zeros(width), np.ones(width)] for layer, width in enumerate(hidden)}
    for view, rows in zip(reference.f64(views), output, strict=True):
        expected, statistics = reference.perceptron(view, params["predictor"], len(hidden))
        np.testing.assert_allclose(rows, expected, rtol=1e-3, atol=1e-4)
        for layer, (mean, variance) in enumerate(statistics):
            old = running[f"norm{layer}"]
            running[f"norm{layer}"] = [0.9 * old[0] + 0.1 * mean, 0.9 * old[1] + 0.1 * variance]
    for name, (mean, variance) in running.items():
        np.testing.assert_allclose(after[name]["mean"], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(after[name]["var"], variance, rtol=1e-4)
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_running_statistics_serve_when_not_training(rng, key):
    transform = mlp_predictor((4,), activation="gelu")
    views = two_views(rng)
    params, state = transform.init(key, views)
    state = jax.tree.map(lambda leaf: leaf + 0.5, state)
    output, same = transform.apply(params, state, views, Context(train=False))
    jax.tree.map(np.testing.assert_array_equal, same, state)
    layers = params["predictor"]
    normed = (views @ layers["linear0"]["kernel"] - 0.5) / np.sqrt(1.5 + 1e-5)
    expected = jax.nn.gelu(normed) @ layers["linear1"]["kernel"]
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)


def test_batch_norm_needs_to_know_whether_it_trains(rng, key):
    transform = mlp_predictor((4,))
    views = two_views(rng)
    params, state = transform.init(key, views)
    with pytest.raises(ValueError, match=r"make Context\(train=...\) inside the jitted step"):
        jax.jit(transform.apply)(params, state, views, TRAIN)


def test_batch_norm_is_for_single_precision(key, x64):
    views = jnp.ones((2, 4, 3))
    with pytest.raises(ValueError, match="pass features in float32, or batch_norm=False"):
        mlp_predictor((4,)).init(key, views)
    transform = mlp_predictor((4,), batch_norm=False)
    assert transform.apply(*transform.init(key, views), views, TRAIN)[0].dtype == jnp.float64


def test_initial_parameters_of_many_seeds_at_once(key):
    keys = jax.random.split(key, 3)
    for transform in (mlp_predictor((4,)), linear_predictor(scale=2.0)):
        init = lambda key, transform=transform: transform.init(key, jnp.zeros((5, 3)))[0]  # noqa: E731
        together = jax.vmap(init)(keys)
        alone = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(init, keys))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), together, alone)


def test_scale_of_the_initial_matrix(key):
    params, _ = linear_predictor(scale=3.0).init(key, jax.ShapeDtypeStruct((2, 4, 50), jnp.float32))
    # The standard deviation of 2500 normal numbers is known to 1/sqrt(5000); five of these.
    assert float(params["predictor"].std()) == pytest.approx(3 / 50**0.5, rel=0.07)


def test_matrix_acts_from_the_left(rng):
    views, matrix = two_views(rng), rng.normal(size=(3, 3))
    output, _ = linear_predictor().apply({"predictor": jnp.asarray(matrix, jnp.float32)}, (), views, TRAIN)
    np.testing.assert_allclose(output[1, 5], matrix @ reference.f64(views)[1, 5], rtol=1e-4)


CLOSED_FORMS = {
    "direct_pred": (direct_pred, reference.direct_pred),
    "direct_pred, floor": (
        lambda **options: direct_pred(epsilon=-0.5, floor=0.2, **options),
        lambda values: reference.direct_pred(values, -0.5, 0.2),
    ),
    "direct_copy": (direct_copy, lambda values: values + 0.01),
    "direct_set": (lambda **options: direct_set(0.7, epsilon=0.1, **options), lambda x: (x / x.max() + 0.1) ** 0.7),
    "direct_set, raw": (
        lambda **options: direct_set(2, epsilon=0.1, normalize=False, **options),
        lambda values: (values + 0.1) ** 2,
    ),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_closed_form_of_the_moving_average(name, rng, key):
    make, function = CLOSED_FORMS[name]
    transform = make(momentum=0.3)
    _, state = transform.init(key, two_views(rng))
    step = jax.jit(transform.apply)
    moment = None
    for _ in range(3):
        views = two_views(rng)
        rows = reference.f64(views).reshape(32, 3)
        batch = rows.T @ rows / 32
        moment = batch if moment is None else 0.3 * moment + 0.7 * batch
        output, state = step({}, state, views, TRAIN)
        matrix = reference.predictor_matrix(moment, function)
        np.testing.assert_allclose(output, reference.f64(views) @ matrix, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(state.moment, moment, rtol=1e-4, atol=1e-5)
    _, same = step({}, state, two_views(rng), Context(train=False))
    jax.tree.map(np.testing.assert_array_equal, same, state)


def test_the_operator_is_a_constant_for_the_gradient(rng, key):
    views = two_views(rng)
    _, state = direct_pred().init(key, views)
    matrix = reference.predictor_matrix(
        np.einsum("vni,vnj->ij", *[reference.f64(views)] * 2) / 32, reference.direct_pred
    )
    gradient = jax.grad(lambda z: jnp.sum(direct_pred().apply({}, state, z, TRAIN)[0] * views[::-1]))(views)
    np.testing.assert_allclose(gradient, reference.f64(views)[::-1] @ matrix, rtol=1e-3, atol=1e-4)


def test_collapsed_features_leave_the_predictor_finite(key):
    for make in (direct_pred, direct_copy, direct_set):
        _, state = make().init(key, jnp.zeros((4, 3)))
        output, _ = make().apply({}, state, jnp.zeros((4, 3)), TRAIN)
        assert output.tolist() == [[0.0] * 3] * 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: direct_pred(momentum=1), r"momentum must be in \[0, 1\)"),
        (lambda: direct_copy(epsilon=-0.1), "epsilon must be at least 0"),
        (lambda: direct_set(0.0), "exponent must be positive"),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
