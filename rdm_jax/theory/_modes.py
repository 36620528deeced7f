"""What the predictions share: reading modes at the public edge, and weighted deviations that do not cancel.

A mode with lambda = 0 is off the support. Its gains and rates are replaced before anything is computed from
them and its weight is 0, so it changes no value and carries no gradient: spectra may be padded with zeros.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rdm_jax._checks import as_floating, as_spectrum, require
from rdm_jax.spectra import effective_rank
from rdm_jax.spectra.decompose import eigenvalues as moment_eigenvalues
from rdm_jax.types import Array, ArrayLike, Batched, Bool, Flag, Gains, Spectrum


class Modes(NamedTuple):
    """Eigenvalues lambda, gains g and h, signal ratio m / lambda (0 off the support), and what was valid."""

    spectrum: Spectrum
    online: Gains
    target: Gains
    ratio: Gains
    valid: Flag


def read_spectrum(value: ArrayLike, name: str = "spectrum") -> tuple[Spectrum, Flag]:
    """A nonnegative, not all-zero spectrum whose zeros carry no gradient, and its validity."""
    array, valid = as_spectrum(value, name)
    return only(array > 0, array), valid


def read_modes(
    spectrum: ArrayLike, online_gains: ArrayLike | None, target_gains: ArrayLike | None, signal: ArrayLike | None
) -> Modes:
    """All modes at one shape and validated; ``None`` means gain 1, or signal m = lambda (no view noise)."""
    eigenvalues, valid = read_spectrum(spectrum)
    online, online_valid = read_per_mode(online_gains, eigenvalues, "online_gains")
    target, target_valid = read_per_mode(target_gains, eigenvalues, "target_gains")
    moments, signal_valid = read_per_mode(signal, eigenvalues, "signal", nonnegative=False)
    shape = jnp.broadcast_shapes(eigenvalues.shape, online.shape, target.shape, moments.shape)
    eigenvalues, online, target, moments = (jnp.broadcast_to(x, shape) for x in (eigenvalues, online, target, moments))
    on = eigenvalues > 0
    ratio = on.astype(eigenvalues.dtype) if signal is None else only(on, moments) / only(on, eigenvalues, 1.0)
    flags = (valid, online_valid, target_valid, signal_valid)
    valid = jnp.stack([jnp.broadcast_to(flag, shape[:-1]) for flag in flags]).all(axis=0)
    return Modes(eigenvalues, only(on, online, 1.0), only(on, target, 1.0), ratio, valid)


def read_per_mode(
    value: ArrayLike | None, spectrum: Spectrum, name: str, *, nonnegative: bool = True
) -> tuple[Array, Array]:
    """One number per mode (``None``: ones), 0 off the support, and whether all on the support are usable."""
    array = jnp.ones_like(spectrum) if value is None else as_floating(value, name)
    if array.ndim == 0 or array.shape[-1] != spectrum.shape[-1]:
        raise ValueError(
            f"{name} of shape {array.shape} must have one number per mode of the spectrum, which has shape "
            f"{spectrum.shape}; repeat a constant with jnp.full({spectrum.shape[-1]}, value)"
        )
    shape = jnp.broadcast_shapes(array.shape, spectrum.shape)
    array, on = jnp.broadcast_to(array, shape), jnp.broadcast_to(spectrum > 0, shape)
    usable = jnp.isfinite(array) & (array >= 0) if nonnegative else jnp.isfinite(array)
    valid = jnp.all(usable | ~on, axis=-1)
    wanted = "finite and nonnegative" if nonnegative else "finite"
    require(valid, f"{name} must be {wanted} wherever the spectrum is positive; check what they were computed from")
    return only(on, array), valid


def read_per_batch(
    value: ArrayLike, spectrum: Spectrum, name: str, *, finite: bool = True, positive: bool = False
) -> tuple[Array, Flag]:
    """A nonnegative scalar or one number per spectrum of the batch, in its dtype and with a last axis of 1."""
    array = as_floating(value, name).astype(spectrum.dtype)
    if array.ndim > 0 and array.shape != spectrum.shape[:-1]:
        raise ValueError(
            f"{name} of shape {array.shape} must be a scalar or one number per spectrum, here {spectrum.shape[:-1]}; "
            "use jax.vmap to run several on one spectrum"
        )
    array = jnp.broadcast_to(array, spectrum.shape[:-1])
    valid = (array > 0 if positive else array >= 0) & (jnp.isfinite(array) | (not finite))
    wanted = "positive" if positive else "nonnegative"
    require(valid, f"{name} must be {wanted}{' and finite' if finite else ''}, got {value}")
    return array[..., None], valid


def read_scale(value: ArrayLike, beside: Array, name: str) -> tuple[Array, Flag]:
    """A positive finite scalar, a temperature or an entropic regularisation, in the dtype of the array beside it."""
    scale = as_floating(value, name).astype(beside.dtype)
    valid = jnp.isfinite(scale) & (scale > 0)
    if scale.ndim > 0:
        raise ValueError(f"{name} must be a scalar, got shape {scale.shape}; use jax.vmap to run several")
    require(valid, f"{name} must be positive and finite, got {value}")
    return scale, valid


def only(mask: Bool[Array, "..."], values: Array, fill: float = 0.0) -> Array:
    """The values where the mask holds, a constant without gradient elsewhere."""
    return jnp.where(mask, values, fill)


def per_gain(values: Array, modes: Modes) -> Array:
    """The values over g where the online output has the mode, 0 elsewhere."""
    has = (modes.spectrum > 0) & (modes.online > 0)
    return only(has, values / only(has, modes.online, 1.0))


def relative(weights: Array) -> Array:
    """Weights over their largest, taken as a constant: for expressions in which the scale drops out."""
    return weights / jax.lax.stop_gradient(jnp.max(weights, axis=-1, keepdims=True))


def weighted_mean(values: Array, weights: Array) -> Array:
    """sum(w x) / sum(w) over the last axis, which is kept with length 1."""
    return jnp.sum(weights * values, axis=-1, keepdims=True) / jnp.sum(weights, axis=-1, keepdims=True)


def deviation(values: Array, weights: Array) -> Array:
    """x - E_w[x], to relative rounding even where all x nearly agree (the mean of the first pass is corrected)."""
    first = values - weighted_mean(values, weights)
    return first - weighted_mean(first, weights)


def log_ratio(values: Array, reference: Array) -> Array:
    """log(x / c) for positive x and c, to relative rounding also where x is near c."""
    near = jnp.abs(values - reference) < reference / 2
    return jnp.where(
        near,
        jnp.log1p(only(near, values - reference) / reference),
        jnp.log(jnp.where(near, 1, values / reference)),
    )


def log_deviation(spectrum: Spectrum, weights: Array) -> Array:
    """log lambda - E_w[log lambda] on the support, 0 off it."""
    on = spectrum > 0
    reference = jax.lax.stop_gradient(weighted_mean(spectrum, weights))
    logs = log_ratio(jnp.where(on, spectrum, reference), reference)
    return only(on, deviation(logs, weights))


def covariance(first: Array, second: Array, weights: Array) -> Batched:
    """E_w[x y] of two deviations."""
    return weighted_mean(first * second, weights)[..., 0]


def rank_one_update(diagonal: Spectrum, vector: Array, factor: Array | float) -> Spectrum:
    """Eigenvalues, largest first, of diag(lambda) + c v v^T >= 0, where c has a last axis of 1 or is a number."""
    factors = jnp.broadcast_to(factor, diagonal[..., :1].shape)
    flat = (array.reshape(-1, array.shape[-1]) for array in (diagonal, vector, factors))
    return jax.vmap(_update_one)(*flat).reshape(diagonal.shape)


def _update_one(diagonal: Array, vector: Array, factor: Array) -> Array:
    return moment_eigenvalues(jnp.diag(diagonal) + (factor * vector)[:, None] * vector[None, :])


def entropy_peak(rest: Spectrum) -> Batched:
    """The extra eigenvalue at which the entropy peaks: Lambda_rest / erank(rest)."""
    return jnp.sum(rest, axis=-1) / effective_rank(rest)
