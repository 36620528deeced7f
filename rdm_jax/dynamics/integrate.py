"""Vector fields along time: integrated by diffrax, or followed in discrete steps; every outcome has a result code."""

from collections.abc import Callable
from functools import partial
from typing import Any

import diffrax
import jax
import jax.numpy as jnp

from rdm_jax._checks import as_floating, is_traced, poison, require
from rdm_jax.dynamics.solution import INVALID, NOT_FINITE, REACHED, STEP_LIMIT, Solution, require_success
from rdm_jax.types import Array, ArrayLike, Bool, Flag, Scalar

__all__ = ["descend", "solve"]

DEFAULT_RTOL = {"float64": 1e-10, "float32": 1e-5}

State = Any  # a pytree of floating arrays
Args = Any  # a pytree of numbers and arrays, all of which may be traced
Field = Callable[[Any, State, Args], State]
Record = Callable[[Any, State, Args], Any]


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

    Dormand and Prince's method of order 8 with adaptive steps, one of which ends at each of the times (diffrax's
    Dopri8). It compiles once for a ``field``, a ``record`` (the same objects) and shapes, whatever the numbers.
    ``jax.vmap`` runs many starts and parameters at once, each with steps of its own, until the slowest is done; for
    thousands of them ``jax.lax.map(..., batch_size=250)`` stays in the cache. Differentiable (reverse mode).

    Args:
        field: ``field(t, state, args)``, the time derivative, in the structure and dtypes of the state.
        state: the start at ``times[0]``, a pytree of floating arrays.
        args: the parameters, a pytree of numbers or arrays.
        times: (T,) increasing, T >= 2.
        record: ``record(t, state, args)``, a pytree of floating arrays; None: the state itself.
        rtol: error a step may make, relative to the state; by default 1e-10 in float64, 1e-5 in float32.
        atol: the same, absolute, in the unit of the state; by default rtol / 100.
        max_steps: limit of steps.

    Returns:
        Solution. Inside ``jax.jit`` and ``jax.vmap`` a failure makes the records from then on NaN and ``result`` not 0:
        see ``require_success``.

    Raises:
        ValueError: a start, parameters or times that are not finite; times that do not increase; a derivative or a
            record of the wrong structure; whatever the field itself refuses at the start. Under a trace ``result`` is
            3 instead.
        IntegrationError: the end was not reached (outside of ``jax.jit`` and ``jax.vmap``).

    Source: Hairer, Norsett and Wanner 1993, section II.10; diffrax (Kidger 2021).

    >>> halving = solve(lambda t, y, rate: -rate * y, jnp.array([8.0, 4.0]), jnp.log(2.0), [0.0, 1.0, 2.0])
    >>> [[round(float(value), 3) for value in row] for row in halving.record], int(halving.result)
    ([[8.0, 4.0], [4.0, 2.0], [2.0, 1.0]], 0)
    """
    start, numbers, valid = _read(state, args)
    grid, increasing = _read_times(times, start)
    _compare_structures(field, record, grid[0], start, numbers)
    relative = as_floating(DEFAULT_RTOL[str(grid.dtype)] if rtol is None else rtol, "rtol").astype(grid.dtype)
    absolute = relative / 100 if atol is None else as_floating(atol, "atol").astype(grid.dtype)
    outcome = _integrate(field, record, max_steps, start, numbers, grid, relative, absolute, valid & increasing)
    return _concluded(outcome, field, grid[0], start, numbers)


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

    Time is t = learning_rate * step, so that the records stand beside those of ``solve`` at ``times``; their distance
    is of order 1 in the learning rate.

    Args:
        field: as for ``solve``.
        state: the start, as for ``solve``.
        args: the parameters, as for ``solve``.
        learning_rate: > 0, in the unit of time; a scalar.
        steps: how many.
        every: steps from one record to the next; divides ``steps``.
        record: as for ``solve``.

    Returns:
        Solution with steps / every + 1 records, the start first.

    Raises:
        ValueError: as ``solve``; a learning rate that is not positive; ``every`` that does not divide ``steps``.
        IntegrationError: the state stopped being finite (outside of ``jax.jit`` and ``jax.vmap``).

    Source: docs/theory.md, linear dual-branch dynamics, whose flow is the limit of a small learning rate.

    >>> halves = descend(lambda t, y, rate: -rate * y, 8.0, 1.0, learning_rate=0.5, steps=4, every=2)
    >>> [float(value) for value in halves.record], [float(time) for time in halves.times]
    ([8.0, 2.0, 0.5], [0.0, 1.0, 2.0])
    """
    start, numbers, valid = _read(state, args)
    rate = as_floating(learning_rate, "learning_rate").astype(jax.tree.leaves(start)[0].dtype)
    positive = jnp.isfinite(rate) & (rate > 0)
    require(positive, f"learning_rate must be positive and finite, got {learning_rate}")
    if every < 1 or steps < 1 or steps % every:
        raise ValueError(f"every must divide steps, both at least 1; got every={every}, steps={steps}")
    origin = jnp.zeros_like(rate)
    _compare_structures(field, record, origin, start, numbers)
    outcome = _descend(field, record, steps, every, start, numbers, rate, valid & positive)
    return _concluded(outcome, field, origin, start, numbers)


def _read(state: State, args: Args) -> tuple[State, Args, Flag]:
    """State and parameters as arrays in the state's dtype, and whether all of it is finite."""
    start, finite = _read_tree(state, "state")
    leaves = jax.tree.leaves(start)
    if not leaves:
        raise ValueError("state holds no arrays: there is nothing to integrate")
    dtype = jnp.result_type(*leaves)
    numbers, usable = _read_tree(args, "args")
    start, numbers = jax.tree.map(lambda leaf: leaf.astype(dtype), (start, numbers))
    return start, numbers, finite & usable


def _read_tree(tree: Any, name: str) -> tuple[Any, Flag]:
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    arrays, valid = [], jnp.array(True)
    for path, leaf in leaves:
        label = f"{name}{jax.tree_util.keystr(path)}"
        array = as_floating(leaf, label)
        finite = jnp.all(jnp.isfinite(array))
        require(finite, f"{label} of shape {array.shape} holds NaN or inf; check what it was computed from")
        arrays.append(array)
        valid = valid & finite
    return jax.tree.unflatten(structure, arrays), valid


def _read_times(times: ArrayLike, start: State) -> tuple[Array, Flag]:
    grid = as_floating(times, "times").astype(jax.tree.leaves(start)[0].dtype)
    if grid.ndim != 1 or len(grid) < 2:
        raise ValueError(f"times must have shape (T,) with T >= 2, the start first, got {grid.shape}")
    increasing = jnp.all(jnp.diff(grid) > 0) & jnp.all(jnp.isfinite(grid))
    require(increasing, "times must be finite and strictly increasing (in the dtype of the state)")
    return grid, increasing


def _compare_structures(field: Field, record: Record | None, time: Array, start: State, args: Args) -> None:
    """Hold the field's derivative and the record against what they must look like."""
    derivative = jax.eval_shape(field, time, start, args)
    wanted, got = (jax.tree.map(lambda leaf: f"{leaf.dtype}{leaf.shape}", tree) for tree in (start, derivative))
    if wanted != got:
        raise ValueError(f"the field's derivative must look like the state, {wanted}; it is {got}")
    if record is not None:
        kept = jax.tree.leaves(jax.eval_shape(record, time, start, args))
        if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in kept):
            raise ValueError("record must return floating arrays, which can be NaN after a failure; convert the others")


def _concluded(outcome: Solution, field: Field, time: Array, start: State, args: Args) -> Solution:
    """The solution, unless it failed; then the field is asked for its own words first."""
    if not is_traced(outcome.result) and int(outcome.result) == INVALID:
        field(time, start, args)
    return require_success(outcome, args)


class Stepping(diffrax.ClipStepSizeController):  # type: ignore[misc]
    """Ends a step at every time of the record, whose accuracy then is that of the steps; and notices a stall.

    A step that lands on a time may be as short as rounding. One that is refused may not: then none can succeed.
    """

    def adapt_step_size(self, t0: Any, t1: Any, *rest: Any) -> Any:
        """As that of the parent, with another result for a stall."""
        kept, *following, result = super().adapt_step_size(t0, t1, *rest)
        stalled = jnp.logical_not(kept) & (t1 - t0 <= 16 * jnp.finfo(t1.dtype).eps * jnp.abs(t1))
        return kept, *following, diffrax.RESULTS.where(stalled, diffrax.RESULTS.dt_min_reached, result)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _integrate(
    field: Field,
    record: Record | None,
    max_steps: int,
    start: State,
    args: Args,
    grid: Array,
    rtol: Scalar,
    atol: Scalar,
    valid: Flag,
) -> Solution:
    # Zeros in place of an invalid start or NaN parameters: the stepper would try them until its limit.
    start, numbers = jax.tree.map(lambda leaf: jnp.where(valid, leaf, 0), (start, args))
    grid = jnp.where(valid, grid, jnp.arange(len(grid), dtype=grid.dtype))
    # At t = 0, where no step is short relative to t, this is what ends a stall.
    smallest = jnp.finfo(grid.dtype).eps ** 2 * jnp.max(jnp.abs(grid))
    adaptive = diffrax.PIDController(rtol=rtol, atol=atol, dtmin=smallest, force_dtmin=False)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Dopri8(),
        grid[0],
        grid[-1],
        None,
        start,
        numbers,
        saveat=diffrax.SaveAt(subs=(diffrax.SubSaveAt(ts=grid), diffrax.SubSaveAt(t1=True, fn=lambda t, y, args: t))),
        stepsize_controller=Stepping(adaptive, step_ts=grid),  # type: ignore[arg-type, call-arg]
        max_steps=max_steps,
        throw=False,
    )
    states, (reached,) = solution.ys
    held = jnp.isfinite(solution.ts[0])
    ended = (solution.result == diffrax.RESULTS.successful) & held[-1]
    limited = solution.result == diffrax.RESULTS.max_steps_reached
    started = valid & (reached > grid[0])
    outcome = jnp.where(ended, REACHED, jnp.where(limited, STEP_LIMIT, jnp.where(started, NOT_FINITE, INVALID)))
    return Solution(
        times=poison(grid, valid),
        record=_recorded(record, grid, states, numbers, held & valid),
        result=jnp.where(valid, outcome, INVALID).astype(jnp.int32),
        reached=poison(reached, valid),
        steps=solution.stats["num_steps"],
    )


def _recorded(record: Record | None, times: Array, states: State, args: Args, held: Bool[Array, " times"]) -> Any:
    """The record of every time, NaN where it was not reached; made after the loop, which would make it every step."""
    kept = states if record is None else jax.vmap(record, (0, 0, None))(times, states, args)
    return jax.tree.map(lambda leaf: jnp.where(jnp.expand_dims(held, range(1, leaf.ndim)), leaf, jnp.nan), kept)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _descend(
    field: Field, record: Record | None, steps: int, every: int, start: State, args: Args, rate: Scalar, valid: Flag
) -> Solution:
    def step(number: Array, state: State) -> State:
        derivative = field(number * rate, state, args)
        return jax.tree.map(lambda value, slope: value + rate * slope, state, derivative)

    def stretch(state: State, number: Array) -> tuple[State, State]:
        return jax.lax.fori_loop(number, number + every, step, state), state

    numbers = jnp.arange(0, steps + 1, every)
    last, early = jax.lax.scan(stretch, start, numbers[:-1])
    states = jax.tree.map(lambda first, final: jnp.concatenate([first, final[None]]), early, last)
    finite = jax.vmap(lambda state: jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(state)]).all())
    held, times = valid & jnp.cumprod(finite(states)).astype(bool), numbers * rate
    started = valid & held[min(1, steps // every)]
    return Solution(
        times=poison(times, valid),
        record=_recorded(record, times, states, args, held),
        result=jnp.where(held[-1], REACHED, jnp.where(started, NOT_FINITE, INVALID)).astype(jnp.int32),
        reached=poison(times[jnp.maximum(jnp.sum(held) - 1, 0)], valid),
        steps=jnp.array(steps),
    )
