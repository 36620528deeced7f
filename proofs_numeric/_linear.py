"""What the statements on linear branches share: matrices in balls, rotations, and the flow as the statement writes it."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flint import arb, arb_mat

from rdm_jax.claims import balls


class Flow(NamedTuple):
    """E W^T, W_p' and W' in balls, for X and X' as `arb_mat`."""

    pull: Any
    predictor: Any
    encoder: Any


def matrix(entries):
    """A matrix of balls, from an object array."""
    return arb_mat(entries.tolist())


def diagonal(values):
    """A diagonal matrix of balls."""
    size = len(values)
    return arb_mat([[values[i] if i == j else arb(0) for j in range(size)] for i in range(size)])


def inner(first, second):
    """tr(A^T B)."""
    pairs = zip(first.entries(), second.entries(), strict=True)
    return balls.total([a * b for a, b in pairs])


def size(entries):
    """The Frobenius norm."""
    return inner(entries, entries).sqrt()


def entries(values):
    """The sum of the magnitudes of the entries: unlike the norm it is sharp around 0."""
    return balls.total([abs(entry) for entry in values.entries()])


def flow(predictor, encoder, target, signal, noise, rate, decay, symmetrised):
    """W_p' = alpha_p E W^T - eta W_p and W' = W_p^T E - eta W, E = W_a X - W_p W (X + X')."""
    error = target * signal - predictor * encoder * (signal + noise)
    pull = error * encoder.transpose()
    head = (pull + pull.transpose()) * arb(0.5) if symmetrised else pull
    return Flow(pull, head * rate - predictor * decay, predictor.transpose() * error - encoder * decay)


def rotation(x):
    """The rotation of a quaternion (1, x), x of three numbers: rows of floats, or of exact numbers where x is exact."""
    a, b, c = x
    unit = 1 / (1 + a * a + b * b + c * c)
    return [
        [(1 + a * a - b * b - c * c) * unit, 2 * (a * b - c) * unit, 2 * (a * c + b) * unit],
        [2 * (a * b + c) * unit, (1 - a * a + b * b - c * c) * unit, 2 * (b * c - a) * unit],
        [2 * (a * c - b) * unit, 2 * (b * c + a) * unit, (1 - a * a - b * b + c * c) * unit],
    ]


def turned(x):
    """The same as an array of floats."""
    return jnp.stack([jnp.stack(row) for row in rotation(x)])
