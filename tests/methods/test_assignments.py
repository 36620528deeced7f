"""Softmax, sharpening, Sinkhorn-Knopp and the queue against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rdm_jax.methods import (
    Context,
    chain,
    linear_schedule,
    prototypes,
    queued,
    sharpen,
    sinkhorn,
    softmax,
    without_constant_mode,
)
from tests.methods import reference

TRAIN = Context()


def test_softmax_at_a_temperature(rng):
    logits = rng.normal(size=(2, 5, 4))
    output, _ = chain(sharpen(0.1), softmax()).apply({}, ((), ()), logits, TRAIN)
    np.testing.assert_allclose(output[1], reference.softmax(logits[1], 0.1), rtol=1e-4, atol=1e-7)


def test_teacher_temperature_is_the_published_list():
    published = np.concatenate([np.linspace(0.04, 0.07, 50), np.full(10, 0.07)])
    schedule = jax.vmap(linear_schedule(0.04, 0.07, 50))
    np.testing.assert_allclose(schedule(jnp.arange(60.0)), published, rtol=1e-6)
    np.testing.assert_allclose(schedule(jnp.arange(60.0) + 0.9), published, rtol=1e-6)
    with pytest.raises(ValueError, match="at least 2 epochs"):
        linear_schedule(1, 2, 1)


def test_a_schedule_keeps_the_precision_of_the_logits(x64):
    transform = sharpen(linear_schedule(1.0, 2.0, 3))
    for dtype in (jnp.float32, jnp.float64):
        assert transform.apply({}, (), jnp.ones((1, 1), dtype), Context(epoch=2))[0].dtype == dtype


def test_a_schedule_needs_the_epoch():
    transform = sharpen(linear_schedule(1.0, 2.0, 3))
    assert transform.apply({}, (), jnp.ones((1, 1)), Context(epoch=2))[0].tolist() == [[0.5]]
    assert transform.response([3.0], Context(epoch=2)).tolist() == [0.5]
    with pytest.raises(ValueError, match=r"the temperature depends on the epoch: pass Context\(epoch"):
        transform.apply({}, (), jnp.ones((1, 1)), TRAIN)


@pytest.mark.parametrize("iterations", [1, 3])
def test_sinkhorn_is_that_of_each_view(iterations, rng):
    scores = np.tanh(rng.normal(size=(2, 8, 5)))
    output, _ = jax.jit(lambda s: sinkhorn(iterations).apply({}, (), s, TRAIN))(scores)
    for view, plan in zip(scores, output, strict=True):
        np.testing.assert_allclose(plan, reference.sinkhorn(view, 0.05, iterations), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(output.sum(axis=-1), 1, rtol=1e-5)


def test_sinkhorn_scales_with_epsilon(rng):
    scores = np.tanh(rng.normal(size=(8, 5)))
    sharp, _ = sinkhorn(3, 0.05).apply({}, (), scores, TRAIN)
    scaled, _ = sinkhorn(3, linear_schedule(1.0, 2.0, 2)).apply({}, (), 40 * scores, Context(epoch=1))
    np.testing.assert_allclose(scaled, sharp, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("size", [5, 8, 19])
def test_queue_against_a_list(size, rng, key):
    """Three rows a step: some sizes are no multiple of it, and the first is soon full."""
    transform = queued(chain(prototypes(4), sinkhorn()), size, start=2)
    example = jax.ShapeDtypeStruct((2, 3, 6), jnp.bfloat16)
    params, state = transform.init(key, example)
    first = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
    step = jax.jit(transform.apply, static_argnums=())
    past = [[], []]
    for epoch in range(6):
        params = {"prototypes": jnp.asarray(rng.normal(size=(4, 6)), jnp.float32)}
        views = jnp.asarray(rng.normal(size=(2, 3, 6)), jnp.bfloat16)
        output, state = step(params, state, views, Context(epoch=epoch))
        for view, queue, plan in zip(reference.f64(views), past, output, strict=True):
            used = queue if epoch >= 2 and len(queue) == size else []
            rows = np.array([*view, *used])
            expected = reference.sinkhorn(rows @ reference.unit(params["prototypes"]).T, 0.05, 3)[:3]
            np.testing.assert_allclose(plan, expected, rtol=1e-3, atol=1e-6)
            queue[:0] = list(view)
            del queue[size:]
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) == first
    np.testing.assert_allclose(state.features[1, : len(past[1])], past[1])
    _, same = transform.apply(params, state, views, Context(train=False, epoch=9))
    jax.tree.map(np.testing.assert_array_equal, same, state)


def test_no_gradient_reaches_what_is_in_the_queue(key):
    transform = queued(prototypes(4), 2)
    views = jnp.ones((3, 2))
    params, state = transform.init(key, views)
    gradient = jax.grad(lambda z: transform.apply(params, state, z, TRAIN)[1].features.sum())(views)
    assert gradient.tolist() == [[0.0, 0.0]] * 3


def test_a_queue_from_an_epoch_on_needs_the_epoch(key):
    transform = queued(sinkhorn(), 2, start=1)
    _, state = transform.init(key, jnp.ones((3, 2)))
    with pytest.raises(ValueError, match="the queue is used, from epoch 1 on, depends on the epoch"):
        transform.apply({}, state, jnp.ones((3, 2)), TRAIN)


def test_rows_without_the_constant_mode(rng):
    rows = rng.normal(size=(2, 3, 4))
    np.testing.assert_allclose(without_constant_mode(rows), rows - rows.mean(axis=2, keepdims=True), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sharpen(0.0), "temperature must be positive"),
        (lambda: sinkhorn(0), "iterations must be at least 1"),
        (lambda: sinkhorn(3, -1.0), "epsilon must be positive"),
        (lambda: queued(sinkhorn(), 0), "at least 1, got 0"),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
