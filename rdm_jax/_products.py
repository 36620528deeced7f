"""Matrix products at the precision that spectra need: accelerators round the factors to fewer bits by default."""

import jax.numpy as jnp

from rdm_jax.types import Array


def product(*matrices: Array) -> Array:
    """The product of matrices, multiplied from left to right."""
    result, *rest = matrices
    for matrix in rest:
        result = jnp.matmul(result, matrix, precision="highest")
    return result
