import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rdm_jax.methods import METHODS, get
from rdm_jax.training import ema_schedule, init_state, make_step, mlp_encoder, train

RATE, DECAY, MOMENTUM = 0.3, 0.05, 0.9
SMALL = {"simsiam": {"hidden": (6,)}, "byol": {"hidden": (6,)}, "swav": {"count": 5, "queue": 16}, "dino": {"count": 5}}
VIEWS = np.random.default_rng(0).normal(0.2, 1.0, (3, 2, 8, 4)).astype(np.float32)
AFFINE = mlp_encoder((), projector=(), features=3)


def _state():
    return init_state(AFFINE, get("linear"), sgd(), jax.random.key(0), VIEWS[0])


def sgd():
    return optax.chain(optax.add_decayed_weights(DECAY), optax.sgd(RATE, momentum=MOMENTUM))


@pytest.mark.parametrize("name", METHODS)
def test_a_step_of_every_method_keeps_the_structure_of_the_state(name):
    encoder, method = mlp_encoder((5,), projector=(), features=3), get(name, **SMALL.get(name, {}))
    state = jax.eval_shape(lambda: init_state(encoder, method, sgd(), jax.random.key(0), VIEWS[0]))
    after, loss = jax.eval_shape(make_step(encoder, method, sgd(), steps_per_epoch=2), state, VIEWS[0])
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (state, after))
    assert shapes[0] == shapes[1] and loss.shape == ()
    assert (state.target is None) == (method.target_weights == "shared")


def reference(views, encoder, bias, predictor, tau, steps):
    """Squared error |P z1 - t2|^2 / 2 with a lagging target, coupled decay and momentum, by hand in float64."""
    weights = [np.asarray(leaf, np.float64) for leaf in (encoder, bias, predictor)]
    target, memory, losses = [weights[0], weights[1]], [0.0, 0.0, 0.0], []
    for batch in views[:steps].astype(np.float64):
        slopes = [np.zeros_like(leaf) for leaf in weights]
        loss = 0.0
        for x, other in (batch, batch[::-1]):
            z, t = x @ weights[0] + weights[1], other @ target[0] + target[1]
            error = z @ weights[2].T - t
            loss += np.mean(np.sum(error**2, axis=1)) / 4
            pull = error @ weights[2] / len(x) / 2
            slopes[0] += x.T @ pull
            slopes[1] += pull.sum(0)
            slopes[2] += error.T @ z / len(x) / 2
        losses.append(loss)
        memory = [MOMENTUM * m + s + DECAY * w for m, s, w in zip(memory, slopes, weights, strict=True)]
        weights = [w - RATE * m for w, m in zip(weights, memory, strict=True)]
        target = [tau * t + (1 - tau) * w for t, w in zip(target, weights, strict=False)]
    return losses, weights, target


@pytest.mark.parametrize("weights", ["shared", "ema"])
def test_steps_by_value(weights):
    method, tau = get("linear", weights=weights), 0.75 if weights == "ema" else 0.0
    start = init_state(AFFINE, method, sgd(), jax.random.key(0), VIEWS[0])
    start.params.encoder["output"]["bias"] += jnp.array([0.1, -0.2, 0.3])
    if weights == "ema":
        start.target.params.encoder["output"]["bias"] += jnp.array([0.1, -0.2, 0.3])
    output = start.params.encoder["output"]
    losses, expected, target = reference(
        VIEWS, output["kernel"], output["bias"], start.params.method["predictor"], tau, 3
    )
    state, step = start, jax.jit(make_step(AFFINE, method, sgd(), ema=tau))
    for batch, loss in zip(VIEWS, losses, strict=True):
        state, found = step(state, batch)
        np.testing.assert_allclose(found, loss, rtol=2e-5)
    after = state.params.encoder["output"]
    for leaf, value in zip((after["kernel"], after["bias"], state.params.method["predictor"]), expected, strict=True):
        np.testing.assert_allclose(leaf, value, rtol=2e-4, atol=1e-5)
    if weights == "ema":
        lagging = state.target.params.encoder["output"]
        np.testing.assert_allclose(lagging["kernel"], target[0], rtol=2e-4, atol=1e-5)
        np.testing.assert_allclose(lagging["bias"], target[1], rtol=2e-4, atol=1e-5)


def test_frozen_parameters_and_their_momentum_stay_until_their_epoch():
    method = get("swav", count=5, queue=0, frozen_epochs=1)
    state = init_state(AFFINE, method, sgd(), jax.random.key(0), VIEWS[0])
    step = jax.jit(make_step(AFFINE, method, sgd(), steps_per_epoch=2))
    prototypes = [state.params.method["prototypes"]]
    for batch in VIEWS[:2]:
        state, _ = step(state, batch)
        prototypes.append(state.params.method["prototypes"])
    assert (prototypes[0] == prototypes[1]).all() and (prototypes[1] == prototypes[2]).all()
    # The first step that moves them knows no decay and no momentum from before.
    fresh = state._replace(optimizer=sgd().init(state.params))
    moved, expected = (step(start, VIEWS[2])[0].params.method["prototypes"] for start in (state, fresh))
    np.testing.assert_allclose(moved, expected, rtol=1e-6)
    assert np.abs(np.asarray(moved - prototypes[2])).max() > 1e-3


def test_train_is_the_loop_and_seeds_can_be_vmapped():
    encoder, method = mlp_encoder((5,), projector=(), features=3), get("byol", hidden=(4,))
    step = make_step(encoder, method, optax.sgd(0.2), ema=ema_schedule(0.5, 1.0, 4))
    batches = lambda index: jnp.asarray(VIEWS)[index % 3]  # noqa: E731
    kernel = lambda state: state.params.encoder["output"]["kernel"]  # noqa: E731
    states = [init_state(encoder, method, optax.sgd(0.2), jax.random.key(seed), VIEWS[0]) for seed in (0, 1)]
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    run = jax.jit(jax.vmap(lambda state: train(step, state, batches, kernel, steps=4, every=2)))
    _, losses, kernels = run(both)
    assert losses.shape == (2, 4) and kernels.shape == (2, 3, 5, 3)
    state, one = states[1], jax.jit(step)
    for index in range(4):
        state, loss = one(state, batches(index))
        np.testing.assert_allclose(losses[1, index], loss, rtol=1e-4)
    np.testing.assert_allclose(kernels[1, 2], kernel(state), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(kernels[1, 0], kernel(states[1]), rtol=1e-6)


def test_ema_schedule_by_value():
    steps = np.array([0, 3, 10, 20, 25])
    found = [float(ema_schedule(0.96, 1.0, 20)(jnp.array(step))) for step in steps]
    np.testing.assert_allclose(found, 1 - 0.04 * (np.cos(np.pi * np.minimum(steps, 20) / 20) + 1) / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_step(AFFINE, get("byol"), sgd(), ema=1.5), r"weight in \[0, 1\], got 1.5"),
        (lambda: make_step(AFFINE, get("byol"), sgd(), steps_per_epoch=0), "at least 1, got 0"),
        (lambda: ema_schedule(0.9, 1.0, 0), "steps >= 1"),
        (lambda: train(print, _state(), print, print, steps=5, every=2), "multiple of every, got steps=5"),
        (lambda: init_state(AFFINE, get("byol"), sgd(), jax.random.key(0), VIEWS[:, 0]), "both views"),
    ],
)
def test_bad_input_gets_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_parts_of_a_batch_add_up_and_what_is_watched_comes_in_order():
    """The loss is a mean over rows without batch statistics, so that parts make no difference."""
    state, method = _state(), get("linear")
    whole, loss = jax.jit(make_step(AFFINE, method, sgd()))(state, VIEWS[0])
    parted = make_step(AFFINE, method, sgd(), microbatches=4, watch=lambda done: done.online.features)
    after, (same, seen) = jax.jit(parted)(state, VIEWS[0])
    np.testing.assert_allclose(same, loss, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), after, whole)
    output = state.params.encoder["output"]
    expected = VIEWS[0] @ np.asarray(output["kernel"]) + np.asarray(output["bias"])
    np.testing.assert_allclose(seen, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="no 3 equal parts"):
        make_step(AFFINE, method, sgd(), microbatches=3)(state, VIEWS[0])


def test_parts_of_a_batch_have_statistics_of_their_own():
    encoder, method = mlp_encoder((5,), projector=(), features=3), get("linear")
    state = init_state(encoder, method, sgd(), jax.random.key(0), VIEWS[0])
    step = jax.jit(make_step(encoder, method, sgd(), microbatches=2))
    stats = step(state, VIEWS[0])[0].stats["backbone_norm"]
    kernel, mean = np.asarray(state.params.encoder["backbone"]["kernel"]), np.zeros(5)
    for part in np.split(VIEWS[0], 2, axis=1):
        for view in part:
            mean = 0.9 * mean + 0.1 * (view @ kernel).mean(0)
    np.testing.assert_allclose(stats["mean"], mean, rtol=1e-4, atol=1e-6)
