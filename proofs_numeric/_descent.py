"""Gradient descent with a small learning rate against its flow, of matrices and of modes: convergence orders of T13."""

import jax
import jax.numpy as jnp

from proofs_numeric._flow import flow
from rdm_jax import dynamics
from rdm_jax.claims import Order

LEARNING_RATES = (0.02, 0.01, 0.005)
TIME = 2.0
DESIGN = dynamics.LinearDesign(target="average")
NUMBERS = {"predictor_rate": 0.7, "weight_decay": 0.05, "target_rate": 1.5}


def _errors(field, state, args, sizes):
    """Distances of descent and flow at ``TIME``, for each learning rate."""
    wanted = flow(field, state, args, [0.0, TIME], 400)
    steps = [round(TIME / rate) for rate in sizes]

    def error(rate, end):
        options = {"learning_rate": rate, "steps": max(steps), "every": min(steps)}
        descent = dynamics.descend(field, state, args, **options).record
        gaps = jax.tree.map(lambda a, b: jnp.sum((a[end] - b[-1]) ** 2), descent, wanted)
        return jnp.sqrt(sum(jax.tree.leaves(gaps)))

    return jax.vmap(error)(jnp.array(sizes), jnp.array(steps) // min(steps))


def matrix_errors(key, sizes):
    """Random W_p, W and W_a = W of three features and inputs, X and X' that do not commute: (16, sizes)."""

    def one(key):
        first, second, third = jax.random.split(key, 3)
        start = dynamics.random_branches(first, 3, 3, scale=1.0, design=DESIGN)
        signal, noise = (jax.random.normal(k, (3, 3)) / 2 for k in (second, third))
        args = dynamics.LinearParameters(signal @ signal.T, noise @ noise.T, **NUMBERS)
        return _errors(dynamics.branch_field(DESIGN), start, args, sizes)

    return jax.vmap(one)(jax.random.split(key, 16))


def mode_errors(key, sizes):
    """Five random modes with moving averages: (16, sizes)."""

    def one(key):
        predictor, encoder, ratio = jax.random.uniform(key, (3, 5), minval=0.1, maxval=1.0)
        args = dynamics.EigenmodeParameters(noise=0.3, **NUMBERS)
        start = dynamics.Eigenmodes(predictor, encoder, ratio)
        return _errors(dynamics.eigenmode_field(DESIGN), start, args, sizes)

    return jax.vmap(one)(jax.random.split(key, 16))


ORDERS = (
    Order(
        "T13 descent, matrices",
        "gradient descent leaves the flow by O(learning rate)",
        1.0,
        LEARNING_RATES,
        matrix_errors,
    ),
    Order("T13 descent, modes", "so it does mode by mode", 1.0, LEARNING_RATES, mode_errors),
)
