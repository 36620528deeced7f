"""Linear dual-branch dynamics of aligned branches: three numbers per mode (docs/theory.md T13)."""

from functools import cache
from typing import Any, NamedTuple

from rdm_jax.dynamics.designs import LinearDesign
from rdm_jax.dynamics.solve import Field
from rdm_jax.types import Array, ArrayLike

__all__ = ["EigenmodeParameters", "Eigenmodes", "balanced_eigenmodes", "eigenmode_field"]


class Eigenmodes(NamedTuple):
    """State: (k,) predictor modes p_j (None if not learned), encoder modes s_j of W W^T, and target ratios tau_j.

    ``ratio`` is None where the target is tau W with a constant tau, which then is a parameter.
    """

    predictor: Array | None
    encoder: Array
    ratio: Array | None = None


class EigenmodeParameters(NamedTuple):
    """Parameters, numbers or (k,) arrays.

    ``predictor_rate`` alpha_p > 0; ``signal`` x and ``noise`` xi (or sigma^2) >= 0: eigenvalues of X and X'; ``weight_decay``
    eta >= 0; ``target_rate`` beta > 0 of a moving average; ``target_ratio`` tau of a target tau W; ``predictor``: what a
    closed form takes as its parameters.
    """

    predictor_rate: ArrayLike = 1.0
    signal: ArrayLike = 1.0
    noise: ArrayLike = 0.0
    weight_decay: ArrayLike = 0.0
    target_rate: ArrayLike = 0.0
    target_ratio: ArrayLike = 1.0
    predictor: Any = ()


def balanced_eigenmodes(
    encoder: ArrayLike, predictor_rate: ArrayLike = 1.0, *, ratio: ArrayLike | None = None
) -> Eigenmodes:
    """Balanced modes: p_j = sqrt(alpha_p s_j), for which the conserved s_j - p_j^2 / alpha_p is 0.

    Args:
        encoder: (k,) s_j >= 0.
        predictor_rate: alpha_p > 0.
        ratio: (k,) or a number tau_j, for a target that is a moving average.

    Returns:
        Eigenmodes.

    Raises:
        ValueError: a negative mode; a rate that is not positive.

    Source: docs/theory.md T13 (c).

    >>> [float(p) for p in balanced_eigenmodes(jnp.array([4.0, 0.25])).predictor]
    [2.0, 0.5]
    """
    raise NotImplementedError


@cache
def eigenmode_field(design: LinearDesign) -> Field:
    """The vector field of aligned modes, ``field(t, Eigenmodes, EigenmodeParameters)``.

        p_j' = alpha_p s_j e_j - eta p_j,    s_j' = 2 p_j s_j e_j - 2 eta s_j,    e_j = tau_j x_j - (x_j + xi_j) p_j

    x = 1 and xi = sigma^2 for T13. A closed-form predictor is p_j = p(lambda_j), lambda_j = (x_j + xi_j) s_j; no predictor:
    p_j = 1; isotropic: the leading p_j is dropped. A moving average: tau_j' = beta (1 - tau_j) - tau_j s_j' / (2 s_j). Without
    stop-gradient s_j' gains 2 tau_j s_j (p_j x_j - tau_j (x_j + xi_j)). Cosine: the second term of e_j is multiplied by
    kappa = E[p.t] / E|p|^2, and e_j divided by sqrt(E|p|^2 E|t|^2).

    Args:
        design: of a linear dual-branch method; "symmetric" is the same as "learned" here.

    Returns:
        The field, the same object for equal designs.

    Source: docs/theory.md T13; Tian, Chen and Ganguli 2021; Halvagal, Laborieux and Zenke 2023.

    >>> field = eigenmode_field(LinearDesign())
    >>> modes = Eigenmodes(predictor=jnp.array([0.5]), encoder=jnp.array([2.0]))
    >>> field(0.0, modes, EigenmodeParameters(noise=0.5, weight_decay=0.1)).encoder  # 2 * 0.5 * 2 * 0.25 - 2 * 0.1 * 2
    Array([0.1], dtype=float32)
    """
    raise NotImplementedError
