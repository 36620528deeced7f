"""Which hypotheses of the static statements a filter meets on a given spectrum."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rdm_jax._checks import as_floating, require
from rdm_jax.filters.gains import Filter
from rdm_jax.types import ArrayLike, Flag, Spectrum

__all__ = ["FilterClass", "classify"]

# Rounding of a gain and of its product with s: power(-1) has g(s) s = 1 up to this many eps.
SLACK = 16


class FilterClass(NamedTuple):
    """What holds for gains g on the support {s > 0}; ``docs/theory.md`` T1 needs the first and fourth, T2 the others.

    ``low_pass``: s_i > s_j implies g_i >= g_j. ``high_pass``: it implies g_i <= g_j. ``order_preserving``: it implies
    g_i s_i >= g_j s_j. ``nonnegative``: g >= 0. ``positive``: g > 0. Equal s imply nothing.
    """

    low_pass: Flag
    high_pass: Flag
    order_preserving: Flag
    nonnegative: Flag
    positive: Flag


def classify(filter: Filter | ArrayLike, singular_values: ArrayLike, *, samples: int = 1) -> FilterClass:
    """Whether a filter, or gains, are low-pass, high-pass, order-preserving, nonnegative, positive on a spectrum.

    low-pass: g nondecreasing in s; high-pass: nonincreasing; order-preserving: g(s) s nondecreasing; each on the
    support {s > 0}, and each up to 16 eps of rounding, relative to the larger of the two values compared. Equal
    singular values are not compared. ``log`` has a negative gain where s < 1 and is not a filter in the sense of T1
    there. A constant gain is both low-pass and high-pass.

    Args:
        filter: a ``Filter``, or (..., k) gains that belong to ``singular_values``.
        singular_values: (..., k), >= 0, any order, in feature units; sqrt(n lambda) for eigenvalues lambda of the
            second moment of n rows.
        samples: n, as for ``Filter.gains``; not used for gains.

    Returns:
        Five booleans, or arrays of them for leading axes. All are False under jit for invalid input.

    Raises:
        ValueError: gains and singular values of different shapes; singular values negative, or either not finite.

    >>> from rdm_jax.filters import power
    >>> [bool(holds) for holds in classify(power(-1.5), [2.0, 1.0])]  # outputs 0.71 and 1: order lost
    [False, True, False, True, True]

    Source: docs/theory.md L1, T1, T2.
    """
    values = as_floating(singular_values, "singular_values")
    gains = filter.gains(values, samples) if isinstance(filter, Filter) else as_floating(filter, "gains")
    if values.ndim < 1 or gains.shape != values.shape:
        raise ValueError(
            f"gains and singular_values must have one shape (..., k), got {gains.shape} and {values.shape}"
        )
    holds, valid = _holds(gains, values)
    require(valid, "gains must be finite, and singular_values finite and >= 0; see rdm_jax.spectra.singular_values")
    return holds


@jax.jit
def _holds(gains: Spectrum, values: Spectrum) -> tuple[FilterClass, Flag]:
    valid = jnp.all(jnp.isfinite(gains) & jnp.isfinite(values) & (values >= 0), axis=-1)
    dead = values <= 0
    holds = (
        _nondecreasing(gains, values),
        _nondecreasing(-gains, values),
        _nondecreasing(gains * values, values),
        jnp.all(dead | (gains >= 0), axis=-1),
        jnp.all(dead | (gains > 0), axis=-1),
    )
    return FilterClass(*(valid & each for each in holds)), valid


def _nondecreasing(heights: Spectrum, values: Spectrum) -> Flag:
    """Whether a larger value, among the positive ones, never has a smaller height."""
    # Ties are sorted by height, so that they pass, and the extreme one faces the neighbouring values.
    order = jnp.lexsort((heights, values), axis=-1)
    sorted_values = jnp.take_along_axis(values, order, axis=-1)
    sorted_heights = jnp.take_along_axis(heights, order, axis=-1)
    lower, upper = sorted_heights[..., :-1], sorted_heights[..., 1:]
    slack = SLACK * float(jnp.finfo(heights.dtype).eps) * jnp.maximum(jnp.abs(lower), jnp.abs(upper))
    return jnp.all((sorted_values[..., :-1] <= 0) | (upper >= lower - slack), axis=-1)
