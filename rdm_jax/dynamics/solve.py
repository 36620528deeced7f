"""Vector fields along time: integrated by diffrax, or followed in discrete steps; every outcome has a result code."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Float, Int

from rdm_jax.types import Array, ArrayLike

__all__ = ["IntegrationError", "Solution", "descend", "require_success", "solve"]

State = Any  # a pytree of floating arrays
Args = Any  # a pytree of numbers and arrays, all of them traced
Field = Callable[[Any, State, Args], State]
Record = Callable[[Any, State, Args], Any]


class IntegrationError(RuntimeError):
    """An integration that did not reach its end; the message names the time, the parameters and what to change."""


class Solution(NamedTuple):
    """What ``solve`` or ``descend`` leaves: T times and a record at each; leading axes appear under ``jax.vmap``.

    ``result``: 0 the end was reached; 1 the limit of steps was; 2 the step size vanished (the state blows up, or the
    field is not finite there); 3 the start, the parameters or the times were invalid. ``reached``: the time up to which
    the record holds; later records are NaN. ``steps``: how many were tried.
    """

    times: Float[Array, "*batch times"]
    record: Any
    result: Int[Array, "*batch"]
    reached: Float[Array, "*batch"]
    steps: Int[Array, "*batch"]


def solve(
    field: Field,
    state: State,
    args: Args,
    times: ArrayLike,
    *,
    record: Record | None = None,
    rtol: ArrayLike | None = None,
    atol: ArrayLike | None = None,
    max_steps: int = 100_000,
) -> Solution:
    """Integrate y' = field(t, y, args) and record it at the given times.

    diffrax's Dopri8 with adaptive steps; records between steps come from its interpolant of order 7. One compilation per
    ``field`` and ``record`` (the same objects) and shapes: numbers in ``args`` may change, and ``jax.vmap`` runs many
    starts and parameters at once, each with steps of its own. Differentiable.

    Args:
        field: ``field(t, state, args)``, the time derivative in the tree structure and dtypes of the state.
        state: the start at ``times[0]``, a pytree of floating arrays.
        args: the parameters, a pytree of numbers or arrays.
        times: (T,) increasing, T >= 2.
        record: ``record(t, state, args)``, a pytree of floating arrays; None: the state itself.
        rtol: error a step may make, relative to the state; by default 1e-10 in float64, 1e-5 in float32.
        atol: the same, absolute, in the unit of the state; by default rtol / 100.
        max_steps: limit of steps.

    Returns:
        Solution. In a failed member of a ``vmap`` the records from the failure on are NaN and ``result`` is not 0
        (see ``require_success``).

    Raises:
        ValueError: a start, parameters or times that are not finite; times that do not increase; a derivative or a record
            of the wrong structure; whatever the field itself refuses. Under a trace ``result`` is 3 instead.
        IntegrationError: the end was not reached (outside of ``jax.jit`` and ``jax.vmap``).

    Source: Hairer, Norsett and Wanner 1993, sections II.4 to II.6; diffrax (Kidger 2021).

    >>> decay = solve(lambda t, y, rate: -rate * y, jnp.array([2.0, 4.0]), jnp.log(2.0), jnp.array([0.0, 1.0, 2.0]))
    >>> [[round(float(value), 3) for value in row] for row in decay.record], int(decay.result)
    ([[2.0, 4.0], [1.0, 2.0], [0.5, 1.0]], 0)
    """
    raise NotImplementedError


def descend(
    field: Field,
    state: State,
    args: Args,
    *,
    learning_rate: ArrayLike,
    steps: int,
    every: int = 1,
    record: Record | None = None,
) -> Solution:
    """Follow a field in discrete steps, y <- y + learning_rate field(t, y, args): plain gradient descent of its loss.

    t = learning_rate * step, so that the record stands beside that of ``solve`` at the same times; the distance is of
    order learning_rate.

    Args:
        field: as for ``solve``.
        state: the start.
        args: the parameters.
        learning_rate: > 0, in the unit of time; a scalar.
        steps: how many.
        every: steps between two records; divides ``steps``.
        record: as for ``solve``.

    Returns:
        Solution with steps / every + 1 records, the start first. ``result`` is 2 if the state stopped being finite.

    Raises:
        ValueError: as ``solve``; a learning rate that is not positive; ``every`` that does not divide ``steps``.
        IntegrationError: the state stopped being finite (outside of ``jax.jit`` and ``jax.vmap``).

    Source: docs/theory.md, linear dual-branch dynamics (the flow is its limit of a small learning rate).

    >>> halves = descend(lambda t, y, rate: -rate * y, jnp.array(8.0), 1.0, learning_rate=0.5, steps=4, every=2)
    >>> [float(value) for value in halves.record], [float(time) for time in halves.times]
    ([8.0, 2.0, 0.5], [0.0, 1.0, 2.0])
    """
    raise NotImplementedError


def require_success(solution: Solution, args: Args = None) -> Solution:
    """Raise unless every member of a (batched) solution reached its end; the first failing one is named.

    Args:
        solution: of ``solve`` or ``descend``, with any leading axes from ``jax.vmap``.
        args: the parameters, to be named in the message; with the same leading axes where they were mapped over.

    Returns:
        The solution, unchanged.

    Raises:
        IntegrationError: a member failed.

    Source: docs/theory.md, linear dual-branch dynamics.

    >>> decay = solve(lambda t, y, rate: -rate * y, jnp.array(2.0), 1.0, jnp.array([0.0, 1.0]))
    >>> require_success(decay, 1.0) is decay
    True
    """
    raise NotImplementedError
