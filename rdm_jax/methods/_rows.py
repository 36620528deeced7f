"""Rows of features: unit length, without a gradient that is NaN at a row of zeros."""

import jax.numpy as jnp

from rdm_jax.types import Array, Views


def unit_rows(features: Views) -> Views:
    """Each row over its length; a row of zeros stays zero, with gradient 0."""
    return features * inverse_length(features)


def inverse_length(features: Views) -> Array:
    """1 / |z| of each row, as a last axis of 1; 0 for a row of zeros."""
    square = jnp.sum(features**2, axis=-1, keepdims=True)
    nonzero = square > 0
    return jnp.where(nonzero, 1 / jnp.sqrt(jnp.where(nonzero, square, 1)), 0)
