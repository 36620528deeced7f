"""Feature flow as spectra: free features that descend the loss, in the mean field (docs/theory.md, part B).

Time is that of gradient flow of each sample, z' = -n dL/dz, with the common factor of the cosine included.
"""

from functools import cache
from typing import Any, NamedTuple

import jax.numpy as jnp

from rdm_jax import theory
from rdm_jax._checks import as_floating, poison, require, rounding
from rdm_jax.dynamics._numbers import read_number, require_branch
from rdm_jax.dynamics.designs import FeatureDesign
from rdm_jax.dynamics.integrate import Field
from rdm_jax.types import Array, ArrayLike, Batched, Flag, Gains, Spectrum

__all__ = ["FeatureParameters", "Modes", "mode_field"]


class Modes(NamedTuple):
    """State, (d,) each: eigenvalues lambda, m (None unless the noise is free), gains g (None unless learned)."""

    spectrum: Array
    signal: Array | None = None
    gains: Array | None = None


class FeatureParameters(NamedTuple):
    """Parameters.

    ``noise``: nu >= 0, if it is persistent. ``online``, ``target``: the parameters of the filters. Of a learned
    predictor ``predictor_rate``: alpha > 0, and ``ridge``: rho >= 0 in the unit of lambda.
    """

    noise: ArrayLike = 0.0
    online: Any = ()
    target: Any = ()
    predictor_rate: ArrayLike = 1.0
    ridge: ArrayLike = 0.0


class ModesNow(NamedTuple):
    """An instant: lambda, m, g and h of every mode, the numbers, and whether all is valid."""

    spectrum: Spectrum
    signal: Gains
    online: Gains
    target: Gains
    noise: Array
    predictor_rate: Array
    ridge: Array
    valid: Flag


@cache
def mode_field(design: FeatureDesign) -> Field:
    """The mean field of the spectrum, ``field(t, Modes, FeatureParameters)``: lambda_i' = 2 f r_i lambda_i.

    r_i are ``rdm_jax.theory.growth_rates`` and f ``common_factor`` of the gains at the present spectrum.

    - free noise: each view moves towards the other one, so that also m_i' = 2 f g_i (h_i lambda_i - kappa g_i m_i),
      with kappa = sum(g h m) / sum(g^2 lambda) for the cosine and 1 for the squared error.
    - persistent noise: m_i = lambda_i - nu, and a mode that has come down to nu stays there.
    - a learned predictor follows the squared error with a ridge: g_i' = alpha (h_i m_i - (lambda_i + rho) g_i).
    - isotropic: the leading g_i is dropped, lambda_i' = 2 f (h_i m_i - kappa g_i lambda_i).

    Filters that are negative somewhere are taken with their sign.

    Args:
        design: on free features; not "sample cosine", which has no mean field.

    Returns:
        The field, the same object for equal designs. It raises a ValueError for parameters out of range and a state
        that does not fit the design; under jit its derivative is NaN.

    Raises:
        ValueError: "sample cosine".

    Source: docs/theory.md, table of part B; S2, T8.

    >>> field = mode_field(FeatureDesign(loss="squared", noise="persistent"))
    >>> float(field(0.0, Modes(jnp.array([2.0])), FeatureParameters(noise=0.5)).spectrum[0])  # 2 (1.5 - 2)
    -1.0
    """
    if design.loss == "sample cosine":
        raise ValueError(
            "the cosine of each sample has no mean field: use feature_field, or loss='cosine' to approximate"
        )

    def field(t: Any, state: Modes, args: FeatureParameters) -> Modes:
        now = read_modes(design, state, args)
        slope = 2 * now.spectrum * mode_rates(design, now)
        shared = 2 * (now.online if not design.isotropic else 1) * _pull(design, now)
        learned = now.predictor_rate * (now.target * now.signal - (now.spectrum + now.ridge) * now.online)
        return Modes(
            spectrum=poison(slope, now.valid),
            signal=poison(shared, now.valid) if design.noise == "free" else None,
            gains=poison(learned, now.valid) if design.learns_predictor else None,
        )

    return field


def read_modes(design: FeatureDesign, state: Modes, args: FeatureParameters) -> ModesNow:
    """State and parameters as arrays that fit, with the gains of the design."""
    spectrum, valid = _alive(state.spectrum)
    require_branch(state.signal is not None, design.noise == "free", "signal", "m is one only if the noise is free")
    require_branch(state.gains is not None, design.learns_predictor, "gains", "they are one only if online='learned'")
    for name, value in (("signal", state.signal), ("gains", state.gains)):
        if value is not None and jnp.shape(value) != spectrum.shape:
            raise ValueError(f"{name} must have the spectrum's shape {spectrum.shape}, got {jnp.shape(value)}")
    noise, noise_valid = read_number(args.noise, "noise", spectrum.dtype)
    rate, rate_valid = read_number(args.predictor_rate, "predictor_rate", spectrum.dtype, positive=True)
    ridge, ridge_valid = read_number(args.ridge, "ridge", spectrum.dtype)
    signal = _signal(design, state, spectrum, noise)
    return ModesNow(
        spectrum=spectrum,
        signal=signal,
        online=_gains(design.online, "online", spectrum, signal, args.online)
        if state.gains is None
        else as_floating(state.gains, "gains"),
        target=_gains(design.target, "target", spectrum, signal, args.target),
        noise=noise,
        predictor_rate=rate,
        ridge=ridge,
        valid=valid & noise_valid & rate_valid & ridge_valid,
    )


def mode_rates(design: FeatureDesign, now: ModesNow) -> Gains:
    """f r_i; 0 for a mode that persistent noise holds up."""
    rates = spectrum_rates(design, now.spectrum, now.online, now.target * now.signal, energy(now.target, now.spectrum))
    held = (now.spectrum <= now.noise) & (design.noise == "persistent")
    return jnp.where(held, 0, rates)


def spectrum_rates(design: FeatureDesign, spectrum: Spectrum, online: Gains, pull: Gains, length: Batched) -> Gains:
    """f r_i from lambda, g, the pull h m and E|t|^2."""
    size = energy(online, spectrum)
    factor = 1.0 if design.loss == "squared" else 1 / jnp.sqrt(size * length)
    if design.isotropic:
        on = spectrum > 0
        kappa = 1.0 if design.loss == "squared" else jnp.sum(online * pull) / size
        return factor * jnp.where(on, pull / jnp.where(on, spectrum, 1) - kappa * online, 0)
    # r(g, m) = r(-g, -m), so the theory's nonnegative gains cover signed filters too
    loss = "squared" if design.loss == "squared" else "cosine"
    signed = jnp.where(online < 0, -pull, pull)
    return factor * theory.growth_rates(spectrum, online_gains=jnp.abs(online), signal=signed, loss=loss)


def energy(gains: Gains, spectrum: Spectrum) -> Batched:
    """E|output|^2 = sum(g^2 lambda)."""
    return jnp.sum(gains**2 * spectrum, axis=-1)


def _pull(design: FeatureDesign, now: ModesNow) -> Gains:
    """f (h_i lambda_i - kappa g_i m_i): what free noise adds to E[z z+]."""
    if design.loss == "squared":
        return now.target * now.spectrum - now.online * now.signal
    size, length = energy(now.online, now.spectrum), energy(now.target, now.spectrum)
    kappa = jnp.sum(now.online * now.target * now.signal) / size
    return (now.target * now.spectrum - kappa * now.online * now.signal) / jnp.sqrt(size * length)


def _signal(design: FeatureDesign, state: Modes, spectrum: Spectrum, noise: Array) -> Gains:
    if state.signal is not None:
        return as_floating(state.signal, "signal")
    return jnp.maximum(spectrum - noise, 0) if design.noise == "persistent" else spectrum


def _gains(function: Any, side: str, spectrum: Spectrum, signal: Gains, parameters: Any) -> Gains:
    if function is None:
        return jnp.ones_like(spectrum)
    gains = as_floating(function(spectrum, signal, parameters), f"{side} gains")
    if gains.shape != spectrum.shape:
        raise ValueError(f"the {side} filter must give one gain per mode, {spectrum.shape}; it gave {gains.shape}")
    return gains


def _alive(spectrum: ArrayLike) -> tuple[Spectrum, Flag]:
    """The spectrum, in which a dying mode that a step took slightly below 0 is at 0."""
    values = as_floating(spectrum, "spectrum")
    if values.ndim != 1:
        raise ValueError(f"spectrum must have shape (d,), got {values.shape}; use jax.vmap to run several")
    require(
        jnp.all(values >= -rounding(values)),
        "spectrum has a negative value: it must be eigenvalues of a second moment (use rdm_jax.spectra.eigenvalues)",
    )
    return jnp.maximum(values, 0), jnp.min(values) >= -1e-6 * jnp.max(values)
