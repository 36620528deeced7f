"""What an integration leaves behind, and the error that names where and why it stopped."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from rdm_jax._checks import is_traced
from rdm_jax.types import Array

__all__ = ["IntegrationError", "Solution", "require_success"]

REACHED, STEP_LIMIT, NOT_FINITE, INVALID = range(4)

ADVICE = {
    STEP_LIMIT: "that is the limit of steps: raise max_steps, end earlier, or loosen rtol and atol",
    NOT_FINITE: "the state blows up or the field is not finite there: end earlier, change the parameters, or take "
    "smaller discrete steps",
    INVALID: "the start, the parameters or the times are invalid, or the field is not finite at the start: call it "
    "without jit and vmap to see which",
}


class IntegrationError(RuntimeError):
    """An integration that did not reach its end; the message names the time, the parameters and what to change."""


class Solution(NamedTuple):
    """What ``solve`` or ``descend`` leaves: T times and a record at each; leading axes appear under ``jax.vmap``.

    ``result``: 0 the end was reached; 1 the limit of steps was; 2 the state blows up, or the field is not finite on the
    way; 3 the start, the parameters or the times are invalid. ``reached``: the time up to which the record holds; later
    records are NaN. ``steps``: how many were tried.
    """

    times: Float[Array, "*batch times"]
    record: Any
    result: Int[Array, "*batch"]
    reached: Float[Array, "*batch"]
    steps: Int[Array, "*batch"]


def require_success(solution: Solution, args: Any = None) -> Solution:
    """Raise unless every member of a solution reached its end; the first that did not is named.

    Args:
        solution: of ``solve`` or ``descend``, with any leading axes from ``jax.vmap``.
        args: the parameters, to be named in the message; those that were mapped over have the same leading axes.

    Returns:
        The solution, unchanged (also under a trace, where the results cannot be seen).

    Raises:
        IntegrationError: a member did not reach its end.

    Source: docs/theory.md, linear dual-branch dynamics.

    >>> from rdm_jax.dynamics import solve
    >>> decay = solve(lambda t, y, rate: -rate * y, 2.0, 1.0, [0.0, 1.0])
    >>> require_success(decay) is decay
    True
    """
    if is_traced(solution.result) or not np.any(solution.result):
        return solution
    result = np.asarray(solution.result)
    failed = np.argwhere(result)
    first = tuple(int(i) for i in failed[0])
    raise IntegrationError(_sentence(solution, args, first, len(failed), result.size))


def _sentence(solution: Solution, args: Any, index: tuple[int, ...], failed: int, members: int) -> str:
    code, steps, reached, times = (
        np.asarray(leaf)[index] for leaf in (solution.result, solution.steps, solution.reached, solution.times)
    )
    who = (
        f"{failed} of {members} integrations failed; number {', '.join(map(str, index))}"
        if index
        else "the integration"
    )
    return (
        f"{who} stopped at t = {reached:.6g} of {times[-1]:.6g} after {steps} steps: {ADVICE[int(code)]}. "
        f"Parameters: {_compact(args, index, solution.result.shape)}."
    )


def _compact(args: Any, index: tuple[int, ...], batch: tuple[int, ...]) -> str:
    """name=value of every parameter, of one member where it was mapped over; of larger arrays the shape and range."""
    parts = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(args):
        value = np.asarray(leaf)
        if index and value.shape[: len(batch)] == batch:
            value = np.asarray(value[index])
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        parts.append(f"{name}={_brief(value)}" if name else _brief(value))
    return ", ".join(parts) or "none given"


def _brief(value: np.ndarray) -> str:
    if value.size > 8:
        return f"<{value.shape} in [{value.min():.6g}, {value.max():.6g}]>"
    return np.array2string(value, formatter={"float_kind": lambda number: f"{number:.6g}"}, separator=", ")
