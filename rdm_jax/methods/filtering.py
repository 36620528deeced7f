"""A fixed spectral filter as a branch transform, and filters by their names."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rdm_jax import filters
from rdm_jax._checks import choose
from rdm_jax.filters import Filter
from rdm_jax.methods.transform import Context, Transform, each_view, make_transform
from rdm_jax.types import Gains, Spectrum, Views

__all__ = ["filtering", "parse_filter"]

_NAMED: dict[str, Callable[..., Filter]] = {
    "power": filters.power,
    "log": filters.log,
    "log1p": filters.log1p,
    "log1p_square": filters.log1p_square,
    "identity": filters.identity,
    "wiener": filters.wiener,
}


def filtering(filter: Filter, *, side: str, method: str = "exact", scale: str = "batch") -> Transform:
    """A spectral filter, for each view over its whole batch: singular values s become g(s) s.

    Online the operator is a constant and gradients reach the features; on the target side there is no gradient. See
    ``rdm_jax.filters.apply`` for all of it.

    Args:
        filter: such as ``rdm_jax.filters.power(-0.5)``; ``parse_filter`` makes one from its name.
        side: ``"online"`` or ``"target"``.
        method: ``"exact"`` or ``"matmul"``.
        scale: ``"batch"``: the gain is g(s) of the raw batch's singular values; ``"sample"``: g(s / sqrt(n)).

    Returns:
        The transform, for that side. Its response is the filter's gain; with ``scale="batch"`` and for ``wiener`` it
        takes ``context.samples``, and is None without.

    Raises:
        ValueError: not a filter; an unknown side, method or scale; a filter that ``"matmul"`` does not cover.

    >>> transform = filtering(filters.power(1), side="online")
    >>> transform.apply({}, (), jnp.array([[3.0, 0.0], [0.0, 2.0]]), Context())[0].round(4).tolist()
    [[9.0, 0.0], [0.0, 4.0]]
    >>> [round(float(gain), 4) for gain in transform.response([9.0, 4.0], Context(samples=4))]  # s = sqrt(4 lambda)
    [6.0, 4.0]

    Source: Zhuo et al. 2023; docs/theory.md T1, T2.
    """
    # Options are checked now and not at the first step.
    jax.eval_shape(
        lambda features: filters.apply(filter, features, side=side, method=method, scale=scale),
        jax.ShapeDtypeStruct((2, 2), jnp.float32),
    )

    def apply(params: dict[str, Any], state: Any, features: Views, context: Context) -> tuple[Views, Any]:
        def one(view: Views, state: Any) -> tuple[Views, Any]:
            return filters.apply(filter, view, side=side, method=method, scale=scale), state

        return each_view(one, features, state)

    def response(spectrum: Spectrum, context: Context) -> Gains | None:
        if scale == "sample":
            return filter.gains(jnp.sqrt(spectrum))
        if context.samples is None:
            return None
        return filter.gains(jnp.sqrt(context.samples * spectrum), context.samples)

    return make_transform(apply, response, side=side, stops=side == "target")


def parse_filter(text: str) -> Filter:
    """A filter by name, with its numbers after a colon: ``"power:-0.5"``, ``"log1p"``, ``"wiener:0.1,0"``.

    Args:
        text: name, or name:number, or name:number,number.

    Returns:
        The filter.

    Raises:
        ValueError: an unknown name, with the nearest; the wrong count of numbers, or something else than numbers.

    >>> parse_filter("power:-0.5"), parse_filter("log1p")
    (power(-0.5), log1p())

    Source: Zhuo et al. 2023.
    """
    name, _, numbers = text.partition(":")
    make = _NAMED[choose(name, _NAMED, "filter")]
    values = [number.strip() for number in numbers.split(",")] if numbers else []
    wanted = list(inspect.signature(make).parameters)
    if len(values) != len(wanted):
        form = name + (":" + ",".join(wanted).upper() if wanted else "")
        raise ValueError(f"filter {name!r} is written {form}, got {text!r}")
    return make(*values)


def filter_warnings(filter: Filter, side: str) -> tuple[str, ...]:
    """What theory has against a filter on one side: why a method with it is a negative control.

    The gain is looked at for singular values from 1e-3 to 1e3.

    Args:
        filter: the gain.
        side: ``"online"`` or ``"target"``.

    Returns:
        Sentences for a report; none if theory has nothing against it.

    Raises:
        ValueError: an unknown side.

    >>> filter_warnings(filters.power(1), "online")
    ()
    >>> filter_warnings(filters.power(1), "target")[0][:66]
    'negative control: power(1.0) is low-pass, and on the target side t'

    Source: docs/theory.md T1, T2.
    """
    choose(side, ("online", "target"), "side")
    with jax.ensure_compile_time_eval():
        kind = filters.classify(filter, jnp.geomspace(1e-3, 1e3, 25))
        low, high, ordered, nonnegative = (bool(flag) for flag in kind[:4])
    found = []
    if low and high:
        found.append(f"negative control: {filter} has a constant gain, so there is no rank difference")
    elif low and side == "target":
        found.append(f"negative control: {filter} is low-pass, and on the target side that lowers the rank")
    elif high and side == "online":
        found.append(f"negative control: {filter} is high-pass, and on the online side that raises the rank")
    elif not (low or high):
        found.append(f"{filter} is neither low-pass nor high-pass: theory gives the rank difference no sign")
    if side == "target" and high and not ordered:
        found.append(f"{filter} does not keep the order of singular values: the target's rank may fall (T2)")
    if not nonnegative:
        found.append(f"{filter} has negative gains for small singular values, where it is no filter in the sense of T1")
    return tuple(found)
