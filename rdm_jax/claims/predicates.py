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
    """``larger >= smaller``, elementwise; on floats up to 16 units in the last place.

    Args:
        larger: floats or exact numbers.
        smaller: likewise, of the same shape.

    Returns:
        Booleans.

    >>> bool(at_least(jnp.array(0.2), jnp.array(0.1))), bool(at_least(jnp.array(0.1), jnp.array(0.2)))
    (True, False)
    """
    if is_exact(larger - smaller):
        return np.asarray((larger - smaller) >= 0, dtype=bool)
    slack = _ULPS * jnp.finfo(jnp.result_type(larger, smaller)).eps
    return larger - smaller >= -slack * jnp.maximum(jnp.abs(larger), jnp.abs(smaller))


def nonincreasing(values: Any, support: Any = None) -> Any:
    """Whether each value is at least the next one.

    Args:
        values: (d,) floats or exact numbers.
        support: (d,) booleans; a pair of which the second is off the support does not count.

    Returns:
        (d - 1,) booleans.

    >>> nonincreasing(jnp.array([2.0, 1.0, 3.0])).tolist()
    [True, False]
    """
    ordered = at_least(values[:-1], values[1:])
    return ordered if support is None else ordered | ~support[1:]


def nearly_nonincreasing(values: Any, support: Any = None) -> Any:
    """For positive values: whether each is at most about one per cent (1.0101 times) above its predecessor.

    Args:
        values: (d,) positive floats or exact numbers.
        support: (d,) booleans; a pair of which the second is off the support does not count.

    Returns:
        (d - 1,) booleans.

    >>> nearly_nonincreasing(jnp.array([1.0, 1.01, 1.03])).tolist()
    [True, False]
    """
    ordered = at_least(10101 * values[:-1], 10000 * values[1:])
    return ordered if support is None else ordered | ~support[1:]


def nearly_nondecreasing(values: Any, support: Any = None) -> Any:
    """For positive values: whether each is at most about one per cent (1.0101 times) below its predecessor.

    Args:
        values: (d,) positive floats or exact numbers.
        support: (d,) booleans; a pair of which the second is off the support does not count.

    Returns:
        (d - 1,) booleans.

    >>> nearly_nondecreasing(jnp.array([1.01, 1.0, 0.9])).tolist()
    [True, False]
    """
    ordered = at_least(10101 * values[1:], 10000 * values[:-1])
    return ordered if support is None else ordered | ~support[1:]


def nondecreasing(values: Any, support: Any = None) -> Any:
    """Whether each value is at most the next one.

    Args:
        values: (d,) floats or exact numbers.
        support: (d,) booleans; a pair of which the second is off the support does not count.

    Returns:
        (d - 1,) booleans.

    >>> nondecreasing(jnp.array([1.0, 2.0, 0.0])).tolist()
    [True, False]
    """
    return nonincreasing(-values, support)


def on(spectrum: Any) -> Any:
    """The support of a spectrum.

    Args:
        spectrum: (d,) floats or exact numbers, >= 0.

    Returns:
        (d,) booleans.

    >>> on(jnp.array([2.0, 0.0])).tolist()
    [True, False]
    """
    return np.asarray(spectrum > 0, dtype=bool) if is_exact(spectrum) else spectrum > 0
