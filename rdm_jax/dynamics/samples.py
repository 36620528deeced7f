"""Linear dual-branch dynamics on finite samples: the gradient of the actual loss on given views."""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rdm_jax._checks import as_features
from rdm_jax.dynamics._numbers import read_numbers
from rdm_jax.dynamics._operators import product, symmetric
from rdm_jax.dynamics.designs import LinearDesign
from rdm_jax.dynamics.integrate import Field
from rdm_jax.dynamics.linear import Branches, Instant, assemble, predictor_of, read_encoder
from rdm_jax.types import Array, ArrayLike, Scalar

__all__ = ["SampleParameters", "sample_branch_field"]


class SampleParameters(NamedTuple):
    """Parameters: ``first`` and ``second`` (n, k), two views of the same data; the rest as in ``LinearParameters``."""

    first: ArrayLike
    second: ArrayLike
    predictor_rate: ArrayLike = 1.0
    weight_decay: ArrayLike = 0.0
    target_rate: ArrayLike = 0.0
    target_ratio: ArrayLike = 1.0
    predictor: Any = ()


@cache
def sample_branch_field(design: LinearDesign) -> Field:
    """Gradient flow of the loss of given views, by ``jax.grad``: ``field(t, Branches, SampleParameters)``.

    L = mean over the n pairs of |W_p W x - W_a x+|^2 / 2, or its mean-field cosine. With exact moments, E[x x^T] = X +
    X' for both views and E[x+ x^T] = X, this is ``branch_field``; so it is as n grows.

    Args:
        design: of a linear dual-branch method.

    Returns:
        The field, the same object for equal designs. It raises a ValueError for parameters out of range and a state
        that does not fit the design; under jit its derivative is NaN.

    Source: Tian, Chen and Ganguli 2021.

    >>> views = SampleParameters(first=[[1.0], [-1.0]], second=[[2.0], [-2.0]])
    >>> branches = Branches(predictor=jnp.eye(1), encoder=jnp.eye(1))
    >>> float(sample_branch_field(LinearDesign())(0.0, branches, views).encoder[0, 0])  # E = 2 - 1
    1.0
    """

    def field(t: Any, state: Branches, args: SampleParameters) -> Branches:
        now, first, second = read_samples(design, state, args)
        gradient = jax.grad(_loss, (0, 1))(
            now.predictor, now.encoder, now.target, now.numbers.target_ratio, first, second, design
        )
        head, back = jax.tree.map(jnp.negative, gradient)
        return assemble(design, state, now, head, back)

    return field


def read_samples(design: LinearDesign, state: Branches, args: SampleParameters) -> tuple[Instant, Array, Array]:
    """State and parameters as arrays that fit, and the two views."""
    encoder = read_encoder(design, state)
    first, first_finite = as_features(args.first, "first")
    second, second_finite = as_features(args.second, "second")
    if first.shape != second.shape or first.shape[1] != encoder.shape[1]:
        raise ValueError(
            f"the views must be (n, k) for an encoder (d, k) = {encoder.shape}, got {first.shape} and {second.shape}"
        )
    first, second = first.astype(encoder.dtype), second.astype(encoder.dtype)
    numbers = read_numbers(args, encoder.dtype)
    moment, cross = (product(view.T, first) / len(first) for view in (first, second))
    predictor = predictor_of(design, state, encoder, moment, symmetric(cross), args.predictor)
    target = numbers.target_ratio * encoder if state.target is None else state.target
    valid = numbers.valid & first_finite & second_finite
    return Instant(predictor, encoder, target, cross, moment, numbers, valid), first, second


def _loss(
    predictor: Array | None,
    encoder: Array,
    target: Array,
    ratio: Array,
    first: Array,
    second: Array,
    design: LinearDesign,
) -> Scalar:
    outputs = _predicted(predictor, product(first, encoder.T), design)
    weights = jax.lax.stop_gradient(target) if design.stop_gradient else ratio * encoder
    targets = product(second, weights.T)
    if design.loss == "squared":
        return jnp.mean(jnp.sum((outputs - targets) ** 2, axis=1)) / 2
    overlap, size, length = (jnp.mean(jnp.sum(a * b, axis=1)) for a, b in _pairs(outputs, targets))
    return -overlap / jnp.sqrt(size * length)


def _predicted(predictor: Array | None, features: Array, design: LinearDesign) -> Array:
    if predictor is None:
        return features
    if not design.isotropic:
        return product(features, predictor.T)
    # the value of the prediction, with the gradient of the features as they are
    fixed = jax.lax.stop_gradient(features)
    return product(fixed, predictor.T) + features - fixed


def _pairs(outputs: Array, targets: Array) -> tuple[tuple[Array, Array], ...]:
    return (outputs, targets), (outputs, outputs), (targets, targets)
