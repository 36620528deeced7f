"""Features times a constant operator: values and first derivatives of Z W, with W held fixed."""

from collections.abc import Sequence

import jax

from rdm_jax._products import product
from rdm_jax.types import Array, Features, Float


@jax.custom_jvp
def from_left(features: Features, left: Float[Array, "n n"], factors: Sequence[Array]) -> Features:
    """Z W = K Z with K = ``left``, for n < d, where W = Z^T F_1 F_2 ... Z would be larger than Z.

    The derivative along dZ is dZ W, and so the gradient of <Y, G> is G W: both by way of n x n matrices.
    """
    return product(left, features)


@from_left.defjvp
def _from_left_jvp(
    primals: tuple[Features, Array, Sequence[Array]], tangents: tuple[Features, Array, Sequence[Array]]
) -> tuple[Features, Features]:
    features, _, factors = primals
    fixed = jax.lax.stop_gradient(features)
    # From the outside in: multiplied out first, the factors' large entries would drown the small ones.
    return from_left(*primals), product(tangents[0], fixed.T, *factors, fixed)
