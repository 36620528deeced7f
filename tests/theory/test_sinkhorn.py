"""Sinkhorn-Knopp against a plain loop on the matrix itself, its fixed point, and the orders of its linear regime."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rdm_jax import theory

pytestmark = pytest.mark.usefixtures("x64")

ORDERS = ["rows-first", "columns-first"]


@pytest.fixture
def scores(rng):
    return rng.normal(size=(7, 4)) + np.arange(4)


def plain_sinkhorn(scores, epsilon, iterations, order):
    plan = np.exp(scores / epsilon)
    for step in range(2 * iterations):
        if (step % 2 == 0) == (order == "rows-first"):
            plan = plan / (len(plan) * plan.sum(axis=1, keepdims=True))
        else:
            plan = plan / (plan.shape[1] * plan.sum(axis=0, keepdims=True))
    return plan


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("iterations", [1, 3])
def test_iterations_are_those_on_the_matrix(scores, order, iterations):
    expected = plain_sinkhorn(scores, 0.7, iterations, order)
    np.testing.assert_allclose(theory.sinkhorn_knopp(scores, 0.7, iterations, order), expected, rtol=1e-13)


def test_many_iterations_reach_uniform_marginals_and_the_scaling_of_the_scores(scores):
    plan = np.asarray(theory.sinkhorn_knopp(scores, 0.7, 300))
    np.testing.assert_allclose(plan.sum(axis=1), 1 / 7, rtol=1e-13)
    np.testing.assert_allclose(plan.sum(axis=0), 1 / 4, rtol=1e-13)
    ratio = np.log(plan) - scores / 0.7  # a number per row plus a number per column
    np.testing.assert_allclose(ratio - ratio[:1] - ratio[:, :1] + ratio[0, 0], 0, atol=1e-12)


def test_small_epsilon_does_not_overflow(scores):
    plan = np.asarray(theory.sinkhorn_knopp(100 * scores, 0.05, 5, "columns-first"))
    np.testing.assert_allclose(plan.sum(axis=1), 1 / 7, rtol=1e-12)


def slopes(errors):
    return np.log2(np.array(errors[:-1]) / errors[1:])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("iterations", [1, 2])
def test_the_linearisation_is_of_second_order(scores, order, iterations):
    scales = 2.0 ** np.arange(7, 11)
    errors = [
        np.abs(theory.sinkhorn_knopp(scores, e, iterations, order) - theory.sinkhorn_linearisation(scores, e)).max()
        for e in scales
    ]
    np.testing.assert_allclose(slopes(errors), 2, atol=0.03)


def test_the_linearisation_has_the_marginals_and_the_scaled_difference(scores):
    linear = np.asarray(theory.sinkhorn_linearisation(scores, 3.0))
    np.testing.assert_allclose(linear.sum(axis=1), 1 / 7, rtol=1e-14)
    np.testing.assert_allclose(linear.sum(axis=0), 1 / 4, rtol=1e-14)
    mixed = linear[2, 3] - linear[2, 0] - linear[5, 3] + linear[5, 0]
    expected = (scores[2, 3] - scores[2, 0] - scores[5, 3] + scores[5, 0]) / (3.0 * 28)
    np.testing.assert_allclose(mixed, expected, rtol=1e-12)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("iterations", [1, 2])
def test_iterations_contract_as_the_second_power_of_epsilon(scores, order, iterations):
    """T12: the distance to the fixed point after k iterations is O(eps^-2k)."""
    errors = []
    for epsilon in 2.0 ** np.arange(5, 8):
        fixed = theory.sinkhorn_knopp(scores, epsilon, 30, order)
        errors.append(np.abs(theory.sinkhorn_knopp(scores, epsilon, iterations, order) - fixed).max())
    np.testing.assert_allclose(slopes(errors), 2 * iterations, atol=0.1)


def test_jit_gradient_and_vmap(scores):
    def value(scores, epsilon):
        plan, linear = theory.sinkhorn_knopp(scores, epsilon, 2), theory.sinkhorn_linearisation(scores, epsilon)
        return jnp.sum(jnp.sin(9 * plan + linear))

    np.testing.assert_allclose(jax.jit(value)(scores, 0.7), value(scores, 0.7), rtol=1e-13)
    gradient, step = jax.jit(jax.grad(value))(scores, 0.7), np.zeros((7, 4))
    step[1, 2] = 1e-6
    slope = (value(scores + step, 0.7) - value(scores - step, 0.7)) / 2e-6
    np.testing.assert_allclose(gradient[1, 2], slope, rtol=1e-6)
    batch = np.stack([scores, -scores])
    together = jax.jit(jax.vmap(value, (0, None)))(batch, 0.7)
    np.testing.assert_allclose(together, [value(x, 0.7) for x in batch], rtol=1e-12)


def test_bad_input(scores):
    with pytest.raises(ValueError, match="iterations must be at least 1"):
        theory.sinkhorn_knopp(scores, 1.0, 0)
    with pytest.raises(ValueError, match="order must be"):
        theory.sinkhorn_knopp(scores, 1.0, 1, "rows")
    with pytest.raises(ValueError, match="epsilon must be positive"):
        theory.sinkhorn_linearisation(scores, 0.0)
    assert np.all(np.isnan(jax.jit(theory.sinkhorn_knopp, static_argnums=2)(scores, -1.0, 2)))
