"""Losses against NumPy written from the definitions, and their published ranges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rdm_jax.methods import byol_loss, cross_entropy, mean_field_cosine, negative_cosine, squared_error
from tests.methods import reference

FEATURE_LOSSES = [negative_cosine, byol_loss, squared_error, mean_field_cosine]


def pair(rng, n=7, d=4):
    return rng.normal(size=(n, d)) * [3.0, 1.0, 0.5, 0.2], rng.normal(size=(n, d)) + 0.3


def expected(loss, p, t):
    if loss in (negative_cosine, byol_loss):
        mean = np.mean(reference.cosines(p, t))
        return -mean if loss is negative_cosine else 2 - 2 * mean
    if loss is squared_error:
        return sum(np.sum((a - b) ** 2) for a, b in zip(p, t, strict=True)) / (2 * len(p))
    return -np.sum(p * t) / np.sqrt(np.sum(p**2) * np.sum(t**2))


@pytest.mark.parametrize("loss", FEATURE_LOSSES)
def test_equals_its_definition(loss, rng):
    p, t = pair(rng)
    assert float(jax.jit(loss)(p, t)) == pytest.approx(expected(loss, p, t), rel=1e-5)


def test_cross_entropy_equals_its_definition(rng):
    scores = rng.normal(size=(6, 5))
    assignments = reference.softmax(rng.normal(size=(6, 5)))
    assert float(cross_entropy(scores / 0.1, assignments)) == pytest.approx(
        reference.cross_entropy(scores, assignments, 0.1), rel=1e-5
    )


def test_cross_entropy_survives_probabilities_that_underflow():
    value, gradient = jax.jit(jax.value_and_grad(cross_entropy))(jnp.array([[0.0, 300.0]]), jnp.array([[1.0, 0.0]]))
    assert float(value) == 300.0 and gradient.tolist() == [[-1.0, 1.0]]


@pytest.mark.parametrize(
    ("loss", "least", "most"), [(negative_cosine, -1, 1), (byol_loss, 0, 4), (mean_field_cosine, -1, 1)]
)
def test_range(loss, least, most, rng):
    p, _ = pair(rng)
    assert float(loss(p, 3 * p)) == pytest.approx(least, abs=1e-6)
    assert float(loss(p, -p)) == pytest.approx(most, abs=1e-6)


@pytest.mark.parametrize("loss", FEATURE_LOSSES)
def test_collapsed_outputs_have_a_finite_value_and_gradient(loss):
    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.zeros((3, 2)), jnp.ones((3, 2)))
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_half_precision_is_summed_in_single(rng):
    p, t = (jnp.asarray(x, jnp.bfloat16) for x in pair(rng))
    for loss in FEATURE_LOSSES:
        assert loss(p, t).dtype == jnp.float32
        assert float(loss(p, t)) == float(loss(p.astype(jnp.float32), t.astype(jnp.float32)))


@pytest.mark.parametrize("loss", [*FEATURE_LOSSES, cross_entropy])
def test_shapes_that_would_broadcast_are_refused(loss):
    with pytest.raises(ValueError, match=r"one shape \(n, d\), got \(3, 2\) and \(1, 2\)"):
        loss(jnp.ones((3, 2)), jnp.ones((1, 2)))
