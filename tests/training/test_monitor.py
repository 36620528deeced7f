import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rdm_jax.methods import Context, get
from rdm_jax.spectra import eigenvalues, features_with_spectrum, second_moment
from rdm_jax.training import (
    Encoded,
    Encoder,
    init_state,
    make_step,
    mlp_encoder,
    mode_rates,
    probe_state,
    velocities,
)

VARIANCES = np.array([4.0, 2.0, 1.0, 0.25], np.float32)
LINEAR = Encoder(
    lambda key, example: ({"weights": jnp.eye(example.shape[-1])}, {}),
    lambda params, stats, inputs, train: Encoded(inputs @ params["weights"], {}, stats),
)
MEAN_FIELD = {
    "online-filter": ("rdm_simsiam", {"filter": "power:0.8"}),
    "target-filter-and-sum-of-pairs": ("rdm_byol", {"side": "target", "weights": "shared"}),
    "closed-form-predictor": ("directpred", {"weights": "shared", "momentum": 0.0}),
    "gradient-as-through-the-identity": ("isoloss", {"weights": "shared", "momentum": 0.0}),
}


@pytest.fixture(scope="module")
def views():
    """Two views with one and the same second moment, whose noise is neither isotropic nor aligned with it."""
    white = np.asarray(features_with_spectrum(jax.random.key(0), 96, np.ones(8)))
    white = white @ np.linalg.inv(np.linalg.cholesky(white.T @ white / 96).T)
    turned = np.linalg.qr(np.random.default_rng(5).normal(size=(4, 4)))[0]
    shared = np.array([0.9, 0.7, 0.5, 0.2])
    second = white[:, :4] @ (turned * shared) @ turned.T + white[:, 4:] @ (turned * (1 - shared**2) ** 0.5) @ turned.T
    basis = np.linalg.qr(np.random.default_rng(6).normal(size=(4, 4)))[0]
    return np.stack([white[:, :4], second]).astype(np.float32) * VARIANCES**0.5 @ basis.T


def motions(method, state, views, encoder=LINEAR):
    return jax.jit(lambda state: velocities(encoder, method, state, views, Context(epoch=0.0)))(state)


@pytest.mark.parametrize("design", MEAN_FIELD)
def test_predicted_rates_are_those_of_free_features_in_the_mean_field(views, design):
    """Predicted from moments, against the gradient of the real loss, absolute scale included."""
    name, options = MEAN_FIELD[design]
    method = get(name, loss="mean_field_cosine", **options)
    state = init_state(LINEAR, method, optax.sgd(0.1), jax.random.key(0), views)
    moving = motions(method, state, views)
    found = probe_state(LINEAR, method, state, views)
    np.testing.assert_allclose(found.rates, mode_rates(moving.features, moving.free), rtol=2e-3, atol=1e-5)


def test_the_flow_of_a_linear_network_is_the_free_one_times_the_inputs_variance(views):
    method = get("rdm_simsiam")
    moving = motions(method, init_state(LINEAR, method, optax.sgd(0.1), jax.random.key(0), views), views)
    free, flow = (mode_rates(moving.features, way) for way in (moving.free, moving.flow))
    np.testing.assert_allclose(flow, VARIANCES * free, rtol=1e-3, atol=1e-5)


def test_the_flow_is_what_a_small_step_does(views):
    encoder, method, rate = mlp_encoder((16,), projector=(), features=4), get("byol", hidden=(6,)), 1e-3
    state = init_state(encoder, method, optax.sgd(rate), jax.random.key(2), views)
    moving = motions(method, state, views, encoder)
    after, _ = jax.jit(make_step(encoder, method, optax.sgd(rate)))(state, views)
    features = motions(method, after, views, encoder).features
    before, now = (np.asarray(eigenvalues(second_moment(z.reshape(-1, 4)))) for z in (moving.features, features))
    found = np.log(now / before) / 2 / rate
    np.testing.assert_allclose(mode_rates(moving.features, moving.flow), found, rtol=0.03, atol=0.03 * abs(found).max())


def test_a_head_carries_the_motion(views):
    """Centred unit features stay unit features: no motion along themselves."""
    method = get("symsimsiam")
    moving = motions(method, init_state(LINEAR, method, optax.sgd(0.1), jax.random.key(0), views), views)
    np.testing.assert_allclose(jnp.sum(moving.features**2, axis=-1), 1, rtol=1e-5)
    for way in (moving.free, moving.flow):
        assert jnp.abs(jnp.sum(moving.features * way, axis=-1)).max() < 1e-3 * jnp.abs(way).max()


def test_the_state_is_left_alone_and_stages_are_recorded(views):
    encoder, method = mlp_encoder((6, 5), projector=(3,), features=4), get("byol", hidden=(6,))
    state = init_state(encoder, method, optax.sgd(0.1), jax.random.key(2), views)
    record = jax.jit(lambda state: probe_state(encoder, method, state, views))(state)
    widths = {name: stage.eigenvalues.shape[0] for name, stage in record.stages.items()}
    assert widths == {"layer0": 6, "backbone": 5, "projector0": 3, "projector": 4}
    np.testing.assert_allclose(record.stages["projector"].eigenvalues, record.features.eigenvalues, rtol=1e-5)
