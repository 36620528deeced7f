"""What every public edge does with its input, in one place, so that all errors read alike.

Eager calls raise a ``ValueError`` that says what was passed and what to do. Under a trace (jit, vmap,
grad) values cannot be looked at, so the functions here return a ``valid`` flag beside the array and the
caller poisons its result with NaN. Shapes are static: a wrong shape raises either way.
"""

import difflib
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from rdm_jax.types import Array, ArrayLike, Batched, Flag


def is_traced(*arrays: ArrayLike) -> bool:
    """Whether any of the arrays is a tracer, so that its values cannot be looked at."""
    return any(isinstance(array, jax.core.Tracer) for array in arrays)


def require(condition: Flag | bool, message: str) -> None:
    """Raise ``ValueError(message)`` unless every element holds; do nothing under a trace."""
    # NumPy's all: jax's would be traced, and so have no truth value, even for a constant inside jit.
    if not is_traced(condition) and not np.all(condition):
        raise ValueError(message)


def choose(value: str, options: Iterable[str], name: str) -> str:
    """The value if it is one of the options; else a ``ValueError`` that lists them and names the nearest."""
    names = list(options)
    if value in names:
        return value
    near = difflib.get_close_matches(str(value), names, n=1, cutoff=0)
    raise ValueError(f"{name} must be one of {', '.join(map(repr, names))}; got {value!r}: did you mean {near[0]!r}?")


def poison(value: Array, valid: Flag) -> Array:
    """NaN wherever the input was outside the domain, so that a trace never returns a plausible number."""
    return jnp.where(valid, value, jnp.nan)


def as_floating(value: ArrayLike, name: str) -> Array:
    """Array-like to a real floating array of at least float32 (bfloat16 and float16 are upcast)."""
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a numeric array, got {type(value).__name__}: {error}") from error
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(f"{name} must be real, got dtype {array.dtype}; pass its absolute value or real part")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return array.astype(jnp.result_type(float))
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def as_features(value: ArrayLike, name: str = "features") -> tuple[Array, Flag]:
    """An (n, d) batch of features and whether all of it is finite."""
    array = as_floating(value, name)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"{name} must have shape (n, d) with n, d >= 1, got {array.shape}; "
            "flatten leading axes with x.reshape(-1, x.shape[-1])"
        )
    finite = _all_finite(array)
    require(finite, f"{name} of shape {array.shape} hold NaN or inf; drop those rows or find what made them")
    return array, finite


def rounding(spectrum: Array) -> Batched:
    """The size below which an eigenvalue is rounding: max(d, 64) machine epsilons times the largest magnitude."""
    # Not less than 64: the entries of a moment carry the rounding of a sum over n, however small d is.
    scale = max(spectrum.shape[-1], 64) * jnp.finfo(spectrum.dtype).eps
    return scale * jnp.max(jnp.abs(spectrum), axis=-1)


def as_spectrum(value: ArrayLike, name: str = "spectrum") -> tuple[Array, Flag]:
    """A nonnegative, not all-zero spectrum on the last axis, negatives within rounding set to 0, and its validity."""
    array = as_floating(value, name)
    if array.ndim < 1 or array.shape[-1] == 0:
        raise ValueError(f"{name} needs at least one value on its last axis, got shape {array.shape}")
    cleaned, finite, nonnegative, nonzero = _inspected(array)
    require(finite, f"{name} of shape {array.shape} holds NaN or inf; check what it was computed from")
    require(
        nonnegative,
        f"{name} has a negative value beyond rounding: it must be eigenvalues of a second moment or "
        "covariance, which are nonnegative (use rdm_jax.spectra.eigenvalues)",
    )
    require(nonzero, f"{name} is all zero: normalising it is undefined (the features have collapsed to the origin)")
    return cleaned, finite & nonnegative & nonzero


# Compiled as one, so that a first eager call does not compile its steps one by one.
@jax.jit
def _inspected(array: Array) -> tuple[Array, Flag, Flag, Flag]:
    finite = jnp.all(jnp.isfinite(array), axis=-1)
    nonnegative = jnp.min(array, axis=-1) >= -rounding(array)
    # A zero itself passes, so that gradients reach it: those of a sum or a maximum do not vanish there.
    return jnp.where(array < 0, 0, array), finite, nonnegative, jnp.max(array, axis=-1) > 0


@jax.jit
def _all_finite(array: Array) -> Flag:
    return jnp.all(jnp.isfinite(array))
