"""Linear dual-branch dynamics of aligned branches: a few numbers per mode (docs/theory.md T13)."""

from functools import cache
from typing import Any, NamedTuple

import jax.numpy as jnp

from rdm_jax._checks import as_floating, poison
from rdm_jax.dynamics._numbers import read_number, read_numbers, require_branch
from rdm_jax.dynamics.designs import LinearDesign
from rdm_jax.dynamics.integrate import Field
from rdm_jax.types import Array, ArrayLike, Flag

__all__ = ["EigenmodeParameters", "Eigenmodes", "balanced_eigenmodes", "eigenmode_field"]


class Eigenmodes(NamedTuple):
    """State, (k,) each: predictor modes p_j (None unless learned), encoder modes s_j of W W^T, and target ratios tau_j.

    ``ratio`` is None unless the target is a moving average; a constant tau is a parameter.
    """

    predictor: Array | None
    encoder: Array
    ratio: Array | None = None


class EigenmodeParameters(NamedTuple):
    """Parameters, each a number or one per mode.

    ``predictor_rate``: alpha_p > 0. ``signal``, ``noise``: x and xi >= 0, eigenvalues of X and X'; 1 and sigma^2 in
    T13. ``weight_decay``: eta >= 0. ``target_rate``: beta >= 0 of a moving average. ``target_ratio``: tau of a target
    tau W. ``predictor``: the parameters of a closed form.
    """

    predictor_rate: ArrayLike = 1.0
    signal: ArrayLike = 1.0
    noise: ArrayLike = 0.0
    weight_decay: ArrayLike = 0.0
    target_rate: ArrayLike = 0.0
    target_ratio: ArrayLike = 1.0
    predictor: Any = ()


class Aligned(NamedTuple):
    """An instant: p, s, tau, x and x + xi of every mode, alpha_p, eta, beta, and whether all is valid."""

    predictor: Array
    encoder: Array
    ratio: Array
    signal: Array
    moment: Array
    predictor_rate: Array
    weight_decay: Array
    target_rate: Array
    valid: Flag


def balanced_eigenmodes(
    encoder: ArrayLike, predictor_rate: ArrayLike = 1.0, *, ratio: ArrayLike | None = None
) -> Eigenmodes:
    """Balanced modes: p_j = sqrt(alpha_p s_j), so that the conserved s_j - p_j^2 / alpha_p is 0.

    Args:
        encoder: (k,) s_j >= 0.
        predictor_rate: alpha_p > 0.
        ratio: tau_j of a target that is a moving average, (k,) or a number.

    Returns:
        Eigenmodes. NaN under jit for invalid input.

    Raises:
        ValueError: a negative or infinite mode; a rate that is not positive.

    Source: docs/theory.md T13 (c).

    >>> [float(p) for p in balanced_eigenmodes(jnp.array([4.0, 0.25])).predictor]
    [2.0, 0.5]
    """
    modes = as_floating(encoder, "encoder")
    modes, modes_valid = read_number(modes, "encoder", modes.dtype)
    rate, rate_valid = read_number(predictor_rate, "predictor_rate", modes.dtype, positive=True)
    lag = None if ratio is None else jnp.broadcast_to(as_floating(ratio, "ratio").astype(modes.dtype), modes.shape)
    return Eigenmodes(poison(jnp.sqrt(rate * modes), modes_valid & rate_valid), modes, lag)


@cache
def eigenmode_field(design: LinearDesign) -> Field:
    """The vector field of aligned modes, ``field(t, Eigenmodes, EigenmodeParameters)``.

    p_j' = alpha_p s_j e_j - eta p_j,    s_j' = 2 p_j s_j e_j - 2 eta s_j,    e_j = tau_j x_j - (x_j + xi_j) p_j

    A closed-form predictor is p_j = p(lambda_j), lambda_j = (x_j + xi_j) s_j; without predictor p_j = 1. isotropic: the
    leading p_j of s_j' is dropped. A moving average has tau_j' = beta (1 - tau_j) - tau_j s_j' / (2 s_j). Without
    stop-gradient s_j' gains 2 tau_j s_j (p_j x_j - tau_j (x_j + xi_j)). Cosine: in e_j the second term is multiplied by
    kappa = E[p.t] / E|p|^2, and all of it divided by sqrt(E|p|^2 E|t|^2).

    Args:
        design: of a linear dual-branch method; "symmetric" is the same as "learned" here.

    Returns:
        The field, the same object for equal designs. It raises a ValueError for parameters out of range and a state
        that does not fit the design; under jit its derivative is NaN.

    Source: docs/theory.md T13; Tian, Chen and Ganguli 2021; Halvagal, Laborieux and Zenke 2023.

    >>> modes = Eigenmodes(predictor=jnp.array([0.5]), encoder=jnp.array([2.0]))
    >>> slope = eigenmode_field(LinearDesign())(0.0, modes, EigenmodeParameters(noise=0.5, weight_decay=0.1))
    >>> round(float(slope.encoder[0]), 4)  # 2 * 0.5 * 2 * (1 - 1.5 * 0.5) - 2 * 0.1 * 2
    0.1
    """

    def field(t: Any, state: Eigenmodes, args: EigenmodeParameters) -> Eigenmodes:
        modes = read_aligned(design, state, args)
        error, growth = error_and_growth(design, modes)
        learned = modes.predictor_rate * modes.encoder * error - modes.weight_decay * modes.predictor
        lag = modes.target_rate * (1 - modes.ratio) - modes.ratio * growth
        return Eigenmodes(
            predictor=poison(learned, modes.valid) if design.learns_predictor else None,
            encoder=poison(2 * modes.encoder * growth, modes.valid),
            ratio=poison(lag, modes.valid) if design.target == "average" else None,
        )

    return field


def read_aligned(design: LinearDesign, state: Eigenmodes, args: EigenmodeParameters) -> Aligned:
    """State and parameters at one shape, with the predictor of the design."""
    modes = as_floating(state.encoder, "encoder")
    numbers, dtype = read_numbers(args, modes.dtype), modes.dtype
    signal, signal_valid = read_number(args.signal, "signal", dtype)
    noise, noise_valid = read_number(args.noise, "noise", dtype)
    require_branch(
        state.predictor is not None, design.learns_predictor, "predictor", "it has one only if it is learned"
    )
    require_branch(state.ratio is not None, design.target == "average", "ratio", "only a moving average has one")
    per_mode = {"signal": signal, "noise": noise, "target_ratio": numbers.target_ratio, "predictor": state.predictor}
    for name, value in {**per_mode, "ratio": state.ratio}.items():
        if value is not None and jnp.shape(value) not in ((), modes.shape):
            raise ValueError(f"{name} of shape {jnp.shape(value)} must fit the encoder modes, which are {modes.shape}")
    moment = jnp.broadcast_to(signal + noise, modes.shape)
    return Aligned(
        predictor=_predictor(design, state, args, signal, moment),
        encoder=modes,
        ratio=jnp.broadcast_to(numbers.target_ratio if state.ratio is None else state.ratio, modes.shape),
        signal=jnp.broadcast_to(signal, modes.shape),
        moment=moment,
        predictor_rate=numbers.predictor_rate,
        weight_decay=numbers.weight_decay,
        target_rate=numbers.target_rate,
        valid=numbers.valid & signal_valid & noise_valid,
    )


def error_and_growth(design: LinearDesign, modes: Aligned) -> tuple[Array, Array]:
    """e_j, and the growth rate s_j' / (2 s_j)."""
    error = _pull(design, modes, modes.ratio, modes.predictor)
    growth = (error if design.isotropic else modes.predictor * error) - modes.weight_decay
    if not design.stop_gradient:
        growth = growth + modes.ratio * _pull(design, modes, modes.predictor, modes.ratio)
    return error, growth


def _predictor(
    design: LinearDesign, state: Eigenmodes, args: EigenmodeParameters, signal: Array, moment: Array
) -> Array:
    if state.predictor is not None:
        return as_floating(state.predictor, "predictor")
    if not callable(design.predictor):
        return jnp.ones_like(state.encoder)
    # a step may take a dying mode slightly below 0
    alive = jnp.maximum(state.encoder, 0)
    return design.predictor(moment * alive, signal * alive, args.predictor)


def _pull(design: LinearDesign, modes: Aligned, towards: Array, branch: Array) -> Array:
    """What draws the output ``branch`` z towards ``towards`` z+, in the unit of z."""
    if design.loss == "squared":
        return towards * modes.signal - branch * modes.moment
    overlap = jnp.sum(towards * branch * modes.signal * modes.encoder)
    size, length = (jnp.sum(gains**2 * modes.moment * modes.encoder) for gains in (branch, towards))
    return (towards * modes.signal - overlap / size * branch * modes.moment) / jnp.sqrt(size * length)
