"""Linear dual-branch dynamics in full matrices: z = W x, p = W_p z, t = W_a x+ (Tian, Chen and Ganguli 2021)."""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rdm_jax._checks import as_floating, poison, require, rounding
from rdm_jax.dynamics._numbers import Numbers, read_number, read_numbers, require_branch
from rdm_jax.dynamics._operators import basis_of, operator, product, symmetric
from rdm_jax.dynamics.designs import LinearDesign
from rdm_jax.dynamics.eigenmodes import Eigenmodes
from rdm_jax.dynamics.integrate import Field
from rdm_jax.types import Array, ArrayLike, Flag, Moment, PRNGKeyArray

__all__ = ["Branches", "LinearParameters", "aligned_branches", "branch_field", "random_branches"]


class Branches(NamedTuple):
    """State: W_p (d, d) (None unless learned), W (d, k), and W_a (d, k) (None unless it is a moving average)."""

    predictor: Array | None
    encoder: Array
    target: Array | None = None


class LinearParameters(NamedTuple):
    """Parameters: ``signal`` X = E[xbar xbar^T] and ``noise`` X' = E Cov(x | xbar), (k, k); the rest are numbers.

    ``predictor_rate``: alpha_p > 0. ``weight_decay``: eta >= 0. ``target_rate``: beta >= 0 of a moving average.
    ``target_ratio``: tau of a target tau W. ``predictor``: the parameters of a closed form.
    """

    signal: ArrayLike
    noise: ArrayLike
    predictor_rate: ArrayLike = 1.0
    weight_decay: ArrayLike = 0.0
    target_rate: ArrayLike = 0.0
    target_ratio: ArrayLike = 1.0
    predictor: Any = ()


class Instant(NamedTuple):
    """W_p (None without predictor), W and W_a, X, X + X', the numbers, and whether all is valid."""

    predictor: Array | None
    encoder: Array
    target: Array
    signal: Moment
    moment: Moment
    numbers: Numbers
    valid: Flag


def aligned_branches(modes: Eigenmodes, left: ArrayLike, right: ArrayLike) -> Branches:
    """Matrices with the given modes: W = U diag(sqrt(s)) V^T, W_p = U diag(p) U^T, W_a = U diag(tau sqrt(s)) V^T.

    Args:
        modes: j of them.
        left: U (d, j) with orthonormal columns.
        right: V (k, j) with orthonormal columns.

    Returns:
        Branches; those parts that the modes have.

    Raises:
        ValueError: shapes that do not fit; negative encoder modes.

    Source: docs/theory.md T13 (d).

    >>> modes = Eigenmodes(predictor=jnp.array([2.0, 3.0]), encoder=jnp.array([4.0, 1.0]))
    >>> aligned_branches(modes, jnp.eye(2), jnp.eye(2)).encoder.tolist()
    [[2.0, 0.0], [0.0, 1.0]]
    """
    outer, inner = as_floating(left, "left"), as_floating(right, "right")
    sizes, valid = read_number(modes.encoder, "encoder modes", outer.dtype)
    if sizes.ndim != 1 or outer.shape[1:] != sizes.shape or inner.shape[1:] != sizes.shape:
        raise ValueError(
            f"left and right need one column for each of the modes {sizes.shape}, got {outer.shape} and {inner.shape}"
        )
    roots = poison(jnp.sqrt(sizes), valid)
    predictor = None if modes.predictor is None else product(outer * modes.predictor[None], outer.T)
    target = None if modes.ratio is None else product(outer * (modes.ratio * roots)[None], inner.T)
    return Branches(predictor, product(outer * roots[None], inner.T), target)


def random_branches(
    key: PRNGKeyArray, features: int, inputs: int, *, scale: ArrayLike = 0.1, design: LinearDesign | None = None
) -> Branches:
    """A generic small start: independent normal entries of variance scale^2 / k in W, scale^2 / d in W_p; W_a = W.

    Args:
        key: a jax random key.
        features: d.
        inputs: k.
        scale: > 0, what the singular values of both matrices are of the order of.
        design: which branches there are; by default a learned predictor and no moving average. For a symmetric
            predictor W_p starts symmetric.

    Returns:
        Branches. NaN under jit for invalid input.

    Raises:
        ValueError: a width below 1; a scale that is not positive and finite.

    Source: docs/theory.md T15.

    >>> random_branches(jax.random.key(0), 3, 5).encoder.shape
    (3, 5)
    """
    design = LinearDesign() if design is None else design
    if features < 1 or inputs < 1:
        raise ValueError(f"features and inputs are widths of at least 1, got {features} and {inputs}")
    size = as_floating(scale, "scale")
    size, valid = read_number(size, "scale", size.dtype, positive=True)
    rows, columns = jax.random.split(key)
    head = poison(size, valid) * jax.random.normal(rows, (features, features), size.dtype) / features**0.5
    encoder = poison(size, valid) * jax.random.normal(columns, (features, inputs), size.dtype) / inputs**0.5
    return Branches(
        predictor=(symmetric(head) if design.predictor == "symmetric" else head) if design.learns_predictor else None,
        encoder=encoder,
        target=encoder if design.target == "average" else None,
    )


@cache
def branch_field(design: LinearDesign) -> Field:
    """The vector field of the matrices, ``field(t, Branches, LinearParameters)``.

    W_p' = alpha_p E W^T - eta W_p,    W' = W_p^T E - eta W,    W_a' = beta (W - W_a),    E = W_a X - W_p W (X + X')

    Cosine: E = (W_a X - kappa W_p W (X + X')) / sqrt(E|p|^2 E|t|^2), kappa = E[p.t] / E|p|^2. A closed-form predictor
    is V diag(p) V^T in the eigenbasis of the actual correlation E[z z^T] = W (X + X') W^T. "symmetric": of E W^T only
    the symmetric part. isotropic: W' = E - eta W. Without stop-gradient W' gains tau (W_p W X - tau W (X + X')), or its
    cosine form.

    Args:
        design: of a linear dual-branch method.

    Returns:
        The field, the same object for equal designs. It raises a ValueError for parameters out of range and a state
        that does not fit the design; under jit its derivative is NaN.

    Source: Tian, Chen and Ganguli 2021; docs/theory.md T13, T14.

    >>> branches = Branches(predictor=0.5 * jnp.eye(1), encoder=2 * jnp.eye(1))
    >>> slope = branch_field(LinearDesign())(0.0, branches, LinearParameters(signal=[[1.0]], noise=[[0.5]]))
    >>> float(slope.predictor[0, 0]), float(slope.encoder[0, 0])  # E = 2 - 0.5 * 2 * 1.5
    (1.0, 0.25)
    """

    def field(t: Any, state: Branches, args: LinearParameters) -> Branches:
        now = read_instant(design, state, args)
        online = now.encoder if now.predictor is None else product(now.predictor, now.encoder)
        error = _pull(design, now, now.target, online)
        back = error if now.predictor is None or design.isotropic else product(now.predictor.T, error)
        if not design.stop_gradient:
            back = back + now.numbers.target_ratio * _pull(design, now, online, now.target)
        return assemble(design, state, now, product(error, now.encoder.T), back)

    return field


def assemble(design: LinearDesign, state: Branches, now: Instant, head: Moment | None, back: Array) -> Branches:
    """The derivative, from minus the loss's gradients with respect to W_p and W."""
    alpha, eta, beta = now.numbers.predictor_rate, now.numbers.weight_decay, now.numbers.target_rate
    learned = lag = None
    if state.predictor is not None and head is not None:
        pull = symmetric(head) if design.predictor == "symmetric" else head
        learned = poison(alpha * pull - eta * state.predictor, now.valid)
    if state.target is not None:
        lag = poison(beta * (now.encoder - state.target), now.valid)
    return Branches(learned, poison(back - eta * now.encoder, now.valid), lag)


def read_instant(design: LinearDesign, state: Branches, args: LinearParameters) -> Instant:
    """State and parameters as arrays that fit, with the predictor of the design."""
    encoder = read_encoder(design, state)
    numbers = read_numbers(args, encoder.dtype)
    signal, signal_valid = _read_moment(args.signal, "signal", encoder)
    noise, noise_valid = _read_moment(args.noise, "noise", encoder)
    return Instant(
        predictor=predictor_of(design, state, encoder, signal + noise, signal, args.predictor),
        encoder=encoder,
        target=numbers.target_ratio * encoder if state.target is None else state.target,
        signal=signal,
        moment=signal + noise,
        numbers=numbers,
        valid=numbers.valid & signal_valid & noise_valid,
    )


def read_encoder(design: LinearDesign, state: Branches) -> Array:
    """W, once the state's shapes and parts are those of the design."""
    encoder = as_floating(state.encoder, "encoder")
    require_branch(
        state.predictor is not None, design.learns_predictor, "predictor", "it has one only if it is learned"
    )
    require_branch(state.target is not None, design.target == "average", "target", "only a moving average is a state")
    shapes = {
        "predictor": (state.predictor, (len(encoder), len(encoder))),
        "target": (state.target, encoder.shape),
    }
    for name, (value, shape) in shapes.items():
        if value is not None and jnp.shape(value) != shape:
            raise ValueError(
                f"{name} must have shape {shape} beside an encoder {encoder.shape}, got {jnp.shape(value)}"
            )
    return encoder


def predictor_of(
    design: LinearDesign, state: Branches, encoder: Array, moment: Moment, cross: Moment, parameters: Any
) -> Array | None:
    """W_p: the state's, the closed form of the actual correlation, or None."""
    if not callable(design.predictor):
        return state.predictor
    basis = basis_of(product(encoder, moment, encoder.T), product(encoder, cross, encoder.T))
    return operator(basis, design.predictor, parameters)


def _pull(design: LinearDesign, now: Instant, towards: Array, branch: Array) -> Array:
    """Minus the gradient with respect to B of the loss between B x and A x+, for B = ``branch`` and A = ``towards``."""
    shared, own = product(towards, now.signal), product(branch, now.moment)
    if design.loss == "squared":
        return shared - own
    overlap, size = jnp.sum(branch * shared), jnp.sum(branch * own)
    length = jnp.sum(towards * product(towards, now.moment))
    return (shared - overlap / size * own) / jnp.sqrt(size * length)


def _read_moment(value: ArrayLike, name: str, encoder: Array) -> tuple[Moment, Flag]:
    matrix = as_floating(value, name).astype(encoder.dtype)
    if matrix.shape != (encoder.shape[1],) * 2:
        raise ValueError(f"{name} must be (k, k) for an encoder (d, k) = {encoder.shape}, got {matrix.shape}")
    tolerance = jnp.max(rounding(matrix))
    symmetrical = jnp.max(jnp.abs(matrix - matrix.T)) <= tolerance
    # of a positive semidefinite matrix no entry exceeds the geometric mean of its diagonal ones
    spread = jnp.diagonal(matrix)
    bounded = jnp.all(matrix**2 <= jnp.outer(spread, spread) + tolerance**2) & jnp.all(spread >= 0)
    require(symmetrical, f"{name} must be symmetric, a second moment; pass (M + M.T) / 2 if it should be")
    require(bounded, f"{name} must be a second moment, whose eigenvalues are nonnegative; it has a negative one")
    return matrix, symmetrical & bounded
