"""Isotropic view noise: the band of growing modes, thresholds, and the symmetric design (docs/theory.md T7-T9, S6)."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rdm_jax._checks import as_floating, poison, require, rounding
from rdm_jax.theory import _modes
from rdm_jax.types import Array, ArrayLike, Batched, Flag, Mask, Spectrum

__all__ = [
    "NoiseBand",
    "flat_stability_margin",
    "noise_band",
    "stability_threshold",
    "symmetric_horizon",
    "symmetric_spectrum",
    "target_noise_threshold",
]


class NoiseBand(NamedTuple):
    """Modes grow strictly between the edges and shrink outside; theta peaks at ``peak``, kappa = E_{q_p}[theta]."""

    peak: Batched
    lower_edge: Batched
    upper_edge: Batched
    kappa: Batched


def noise_band(spectrum: ArrayLike, noise: ArrayLike, exponent: ArrayLike) -> NoiseBand:
    """The band of growing modes under an online power filter g = s^a with isotropic noise (mean-field cosine).

    theta(lambda) = (1 - nu / lambda) lambda^(-a/2) is unimodal with peak lambda* = nu (1 + 2/a); r has the sign of
    theta - kappa, kappa = sum(lambda^(a/2) (lambda - nu)) / sum(lambda^(1 + a)). The edges are the two solutions of
    lambda - nu = kappa lambda^(1 + a/2), found by bisection in log lambda (a fixed number of halvings, down to
    rounding). On a spectrum erank rises if theta(lambda_min) >= kappa (no mode below the band) and falls if
    theta(lambda_max) >= kappa (none above).

    Args:
        spectrum: (..., d) eigenvalues lambda >= nu on the support (signal and noise together).
        noise: nu > 0 in the unit of lambda; a scalar or one per spectrum.
        exponent: a > 0 of g = s^a; a scalar or one per spectrum.

    Returns:
        NoiseBand of (...) arrays: peak and edges in the unit of lambda, kappa in the unit of lambda^(-a/2). The upper
        edge is inf where every mode is at the noise floor. Differentiable. NaN under jit for invalid input.

    Raises:
        ValueError: invalid spectrum; noise or exponent not positive and finite; an eigenvalue below the noise.

    Source: docs/theory.md T9.

    >>> band = noise_band(jnp.array([4.0, 2.0]), 1.0, 2.0)  # kappa = (4 * 3 + 2 * 1) / (64 + 8) = 7 / 36
    >>> [round(float(value), 4) for value in band]  # 7 lambda^2 = 36 (lambda - 1)
    [2.0, 1.3592, 3.7836, 0.1944]
    """
    eigenvalues, valid = _modes.read_spectrum(spectrum)
    floor, floor_valid = _modes.read_per_batch(noise, eigenvalues, "noise", positive=True)
    power, power_valid = _modes.read_per_batch(exponent, eigenvalues, "exponent", positive=True)
    valid = valid & floor_valid & power_valid & _above_floor(eigenvalues, floor)
    # in the unit of nu: heights x = log(lambda / nu), and kappa nu^(a/2)
    nu, half = floor[..., 0], power[..., 0] / 2
    level = _mean_threshold(eigenvalues / floor, power)
    crest = jnp.log1p(1 / half)
    lower, upper = _edges(level, crest, half)
    band = (nu * (1 + 1 / half), nu * jnp.exp(lower), nu * jnp.exp(upper), level * nu**-half)
    return NoiseBand(*(poison(value, valid) for value in band))


def target_noise_threshold(noise: ArrayLike, exponent: ArrayLike) -> Batched:
    """The level nu (1 + 2/|a|): with isotropic noise and a target filter h = s^a, a < 0, erank rises above it.

    d erank/dt >= 0 if lambda_min is at least the level, <= 0 if lambda_max is at most it (mean-field cosine or squared
    error). For an online filter s^|a| under the cosine it is the peak of ``noise_band``.

    Args:
        noise: (...) nu >= 0 in the unit of lambda.
        exponent: (...) a, not 0.

    Returns:
        (...) level in the unit of lambda. NaN under jit for invalid input.

    Raises:
        ValueError: noise negative or not finite; exponent 0 or NaN.

    Source: docs/theory.md T7, T9, S6.

    >>> float(target_noise_threshold(1.5, -0.5))
    7.5
    """
    floor, steepness = as_floating(noise, "noise"), stability_threshold(exponent)
    valid = jnp.isfinite(floor) & (floor >= 0)
    require(valid, f"noise must be nonnegative and finite, got {noise}")
    return poison(floor * (1 + steepness), valid)


def stability_threshold(exponent: ArrayLike) -> Batched:
    """Signal-to-noise ratio 2/|a| above which the flat state is stable under a power filter s^a.

    SNR = (lambda - nu) / nu with persistent isotropic noise, mean-field cosine; a > 0 online or a < 0 on the target.

    Args:
        exponent: (...) a, not 0.

    Returns:
        (...) ratio without unit. NaN under jit for an exponent of 0.

    Raises:
        ValueError: exponent 0 or NaN.

    Source: docs/theory.md S6.

    >>> float(stability_threshold(0.5))
    4.0
    """
    power = as_floating(exponent, "exponent")
    valid = jnp.abs(power) > 0
    require(valid, f"exponent must be a number other than 0 (a flat filter has no threshold), got {exponent}")
    return poison(2 / jnp.abs(power), valid)


def flat_stability_margin(level: ArrayLike, noise: ArrayLike, slope: ArrayLike) -> Batched:
    """By how much a filter outweighs the noise at a flat spectrum: slope - 1/SNR; the flat state is stable iff > 0.

    slope = d log g / d log lambda (online) or -d log h / d log lambda (target) at the level, SNR = (lambda - nu) / nu.
    The margin is -d log theta / d log lambda there, so a small departure of log lambda from the mean decays at the rate
    2 theta g^2 margin under the mean-field cosine (common factor excluded).

    Args:
        level: (...) the common eigenvalue lambda > nu.
        noise: (...) nu >= 0 in the unit of lambda.
        slope: (...) of the filter, without unit; a/2 for g = s^a.

    Returns:
        (...) margin without unit. NaN under jit for invalid input.

    Raises:
        ValueError: noise negative or not finite; a level that does not exceed it.

    Source: docs/theory.md S6.

    >>> float(flat_stability_margin(3.0, 1.0, 0.5)), float(flat_stability_margin(5.0, 1.0, 0.5))
    (0.0, 0.25)
    """
    height, floor, steepness = (as_floating(x, n) for x, n in ((level, "level"), (noise, "noise"), (slope, "slope")))
    valid = jnp.isfinite(floor) & (floor >= 0) & (height > floor)
    require(valid, f"a flat state needs level > noise >= 0, got level {level} and noise {noise}")
    return poison(steepness - floor / jnp.where(valid, height - floor, 1), valid)


def symmetric_spectrum(spectrum: ArrayLike, noise: ArrayLike, time: ArrayLike) -> Spectrum:
    """The spectrum of the symmetric design (g = h = 1, mean-field cosine) under fixed isotropic noise: it spreads.

    lambda_i(t) - mean = (lambda_i(0) - mean) exp(2 nu t / (Lambda mean)),    mean = Lambda / (number of modes)

    Lambda = sum lambda is conserved; the common factor 1/Lambda is included. It holds until the smallest mode reaches
    nu (``symmetric_horizon``).

    Args:
        spectrum: (..., d) eigenvalues lambda(0) >= nu on the support.
        noise: nu >= 0 in the unit of lambda; a scalar or one per spectrum.
        time: t >= 0, gradient flow of the features (z' = -gradient per sample) of -E[p.t]/sqrt(E|p|^2 E|t|^2), in the
            unit of lambda; a scalar or one per spectrum.

    Returns:
        (..., d) eigenvalues in the order given, 0 off the support. NaN under jit for invalid input, and beyond the
        horizon.

    Raises:
        ValueError: invalid spectrum; noise or time negative or not finite; an eigenvalue below the noise, now or at t.

    Source: docs/theory.md T8.

    >>> spread = symmetric_spectrum(jnp.array([5.0, 3.0]), 1.0, 16 * jnp.log(2.0))  # exp(2 t / (8 * 4)) = 2
    >>> [round(float(value), 4) for value in spread]
    [6.0, 2.0]
    """
    eigenvalues, valid = _modes.read_spectrum(spectrum)
    floor, floor_valid = _modes.read_per_batch(noise, eigenvalues, "noise")
    elapsed, time_valid = _modes.read_per_batch(time, eigenvalues, "time")
    mean, excess = _excess(eigenvalues)
    rate = 2 * floor / (mean * jnp.sum(eigenvalues, axis=-1, keepdims=True))
    later = _modes.only(eigenvalues > 0, mean + excess * jnp.exp(rate * elapsed))
    valid = valid & floor_valid & time_valid & _above_floor(eigenvalues, floor)
    valid = valid & _above_floor(later, floor, eigenvalues > 0)
    return poison(later, valid[..., None])


def symmetric_horizon(spectrum: ArrayLike, noise: ArrayLike) -> Batched:
    """The time at which the symmetric design's smallest mode reaches the noise: ``symmetric_spectrum`` ends there.

    t = Lambda mean / (2 nu) log((mean - nu) / (mean - lambda_min))

    Args:
        spectrum: (..., d) eigenvalues lambda(0) >= nu on the support.
        noise: nu > 0 in the unit of lambda; a scalar or one per spectrum.

    Returns:
        (...) time in the unit of ``symmetric_spectrum``; inf for a flat spectrum above nu. NaN under jit for invalid
        input.

    Raises:
        ValueError: invalid spectrum; noise not positive and finite; an eigenvalue below the noise.

    Source: docs/theory.md T8.

    >>> round(float(symmetric_horizon(jnp.array([5.0, 3.0]), 1.0)) / 16, 4)  # log(3 / 1)
    1.0986
    """
    eigenvalues, valid = _modes.read_spectrum(spectrum)
    floor, floor_valid = _modes.read_per_batch(noise, eigenvalues, "noise", positive=True)
    valid = valid & floor_valid & _above_floor(eigenvalues, floor)
    mean, excess = _excess(eigenvalues)
    depth, room = -jnp.min(excess, axis=-1), (mean - floor)[..., 0]
    moving = depth > 0
    growth = jnp.where(moving, room, 1) / jnp.where(moving, depth, 1)
    unit = jnp.sum(eigenvalues, axis=-1) * mean[..., 0] / (2 * floor[..., 0])
    # rounding may leave no room at all; a flat spectrum above the noise never reaches it
    time = jnp.where(moving, unit * jnp.log(jnp.maximum(growth, 1)), jnp.where(room > 0, jnp.inf, 0))
    return poison(time, valid)


def _above_floor(spectrum: Spectrum, floor: Array, on: Mask | None = None) -> Flag:
    """Whether no mode of the support (by default: of the positive ones) lies below the noise."""
    on = spectrum > 0 if on is None else on
    above = jnp.all((spectrum >= floor - rounding(spectrum)[..., None]) | ~on, axis=-1)
    require(above, "an eigenvalue lies below the noise: m = lambda - noise >= 0 must hold on the support, at any time")
    return above


def _excess(spectrum: Spectrum) -> tuple[Array, Array]:
    """The mean over the support, and the deviations from it (0 off the support)."""
    on = spectrum > 0
    counts = on.astype(spectrum.dtype)
    return _modes.weighted_mean(spectrum, counts), _modes.only(on, _modes.deviation(spectrum, counts))


def _mean_threshold(ratio: Spectrum, power: Array) -> Batched:
    on = ratio > 0
    heights = _modes.only(on, jnp.log(_modes.only(on, ratio, 1.0)))
    top = jax.lax.stop_gradient(jnp.max(heights, axis=-1, keepdims=True))
    weights = _modes.only(on, jnp.exp((1 + power) * (heights - top)))
    return jnp.maximum(_modes.weighted_mean(_theta(heights, power / 2), weights)[..., 0], 0)


def _theta(height: Array, half: Array) -> Array:
    """theta nu^(a/2) as a function of x = log(lambda / nu), half = a/2."""
    return -jnp.expm1(-height) * jnp.exp(-half * height)


def _edges(level: Batched, crest: Batched, half: Batched) -> tuple[Batched, Batched]:
    """Both heights at which theta is the level, by bisection on either side of the crest."""
    fixed_level, fixed_crest, fixed_half = (jax.lax.stop_gradient(x) for x in (level, crest, half))
    positive = fixed_level > 0
    # beyond this height theta < exp(-x a/2) <= level
    far = jnp.maximum(fixed_crest, -jnp.log(jnp.where(positive, fixed_level, 1)) / fixed_half)
    lower = _bisect(jnp.zeros_like(far), fixed_crest, fixed_level, fixed_half, rising=True)
    upper = _bisect(fixed_crest, far, fixed_level, fixed_half, rising=False)
    lower, upper = (_with_gradient(height, level, half) for height in (lower, upper))
    return lower, jnp.where(positive, upper, jnp.inf)


@partial(jax.jit, static_argnames="rising")
def _bisect(low: Batched, high: Batched, level: Batched, half: Batched, *, rising: bool) -> Batched:
    def halve(_: ArrayLike, bracket: tuple[Batched, Batched]) -> tuple[Batched, Batched]:
        middle = (bracket[0] + bracket[1]) / 2
        beyond = (_theta(middle, half) >= level) == rising
        return jnp.where(beyond, bracket[0], middle), jnp.where(beyond, middle, bracket[1])

    steps = jnp.finfo(low.dtype).nmant + 12
    low, high = jax.lax.fori_loop(0, steps, halve, (low, high))
    return (low + high) / 2


def _with_gradient(height: Batched, level: Batched, half: Batched) -> Batched:
    """The same height, with the derivative of the implicit function theta(x; a) = level (0 at the crest)."""
    slope = jax.lax.stop_gradient(jnp.exp(-half * height) * (jnp.exp(-height) * (1 + half) - half))
    residual = _theta(height, half) - level
    step = residual - jax.lax.stop_gradient(residual)
    steep = slope != 0
    return height - _modes.only(steep, step / _modes.only(steep, slope, 1.0))
