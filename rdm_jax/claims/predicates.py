"""Comparisons for hypotheses, on float64 arrays and on object arrays of exact rationals alike.

On floats they allow a few rounding errors of the compared values, since a product of two monotone
sequences need not be monotone in its last digit; on exact numbers they allow nothing.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

_ULPS = 16


def is_exact(values: Any) -> bool:
    """Whether the values are exact numbers (rationals or balls, alone or in an object array) rather than floats."""
    return getattr(values, "dtype", None) == np.dtype(object) or type(values).__module__.startswith("flint")


def at_least(larger: Any, smaller: Any) -> Any:
    """``larger >= smaller``, elementwise; on floats up to 16 units in the last place."""
    if is_exact(larger - smaller):
        return np.asarray((larger - smaller) >= 0, dtype=bool)
    slack = _ULPS * jnp.finfo(jnp.result_type(larger, smaller)).eps
    return larger - smaller >= -slack * jnp.maximum(jnp.abs(larger), jnp.abs(smaller))


def nonincreasing(values: Any, support: Any = None) -> Any:
    """Each value at least the next one; pairs of which the second is off the ``support`` do not count."""
    ordered = at_least(values[:-1], values[1:])
    return ordered if support is None else ordered | ~support[1:]


def nearly_nonincreasing(values: Any, support: Any = None) -> Any:
    """For positive values: each at most about one per cent (1.0101 times) above its predecessor."""
    ordered = at_least(10101 * values[:-1], 10000 * values[1:])
    return ordered if support is None else ordered | ~support[1:]


def nearly_nondecreasing(values: Any, support: Any = None) -> Any:
    """For positive values: each at most about one per cent (1.0101 times) below its predecessor."""
    ordered = at_least(10101 * values[1:], 10000 * values[:-1])
    return ordered if support is None else ordered | ~support[1:]


def nondecreasing(values: Any, support: Any = None) -> Any:
    """Each value at most the next one; pairs of which the second is off the ``support`` do not count."""
    return nonincreasing(-values, support)


def on(spectrum: Any) -> Any:
    """The support of a spectrum, as booleans."""
    return np.asarray(spectrum > 0, dtype=bool) if is_exact(spectrum) else spectrum > 0
