"""Parameters of the linear dynamics, as the fields read them."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from rdm_jax._checks import as_floating, require
from rdm_jax.types import Array, ArrayLike, Flag


class Numbers(NamedTuple):
    """Arrays in the dtype of the state, and whether they are in range."""

    predictor_rate: Array
    weight_decay: Array
    target_rate: Array
    target_ratio: Array
    valid: Flag


def read_number(
    value: ArrayLike, name: str, dtype: Any, *, positive: bool = False, sign: bool = True
) -> tuple[Array, Flag]:
    """An array in the given dtype, and whether all of it is finite and nonnegative (positive; of any sign)."""
    array = as_floating(value, name).astype(dtype)
    in_range = array > 0 if positive else (array >= 0) | (not sign)
    valid = jnp.all(jnp.isfinite(array) & in_range)
    wanted = "positive and finite" if positive else "nonnegative and finite" if sign else "finite"
    require(valid, f"{name} must be {wanted}, got {value}")
    return array, valid


def read_numbers(args: Any, dtype: Any) -> Numbers:
    """The rates and ratios that all linear dynamics share."""
    alpha, alpha_valid = read_number(args.predictor_rate, "predictor_rate", dtype, positive=True)
    eta, eta_valid = read_number(args.weight_decay, "weight_decay", dtype)
    beta, beta_valid = read_number(args.target_rate, "target_rate", dtype)
    tau, tau_valid = read_number(args.target_ratio, "target_ratio", dtype, sign=False)
    return Numbers(alpha, eta, beta, tau, alpha_valid & eta_valid & beta_valid & tau_valid)


def require_branch(present: bool, wanted: bool, name: str, reason: str) -> None:
    """A part of the state is there exactly if the design has it."""
    if present != wanted:
        expected = "must be an array" if wanted else "must be None"
        raise ValueError(f"the state's {name} {expected} for this design: {reason}")
