"""T9. With isotropic view noise a power filter lifts a band of modes: which sign d erank/dt has depends on where they lie."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb

from proofs_numeric import _common, _noise
from rdm_jax import theory
from rdm_jax.claims import (
    Ablation,
    Claim,
    Conclusion,
    DomainCondition,
    Figure,
    Hypothesis,
    Statement,
    at_least,
    balls,
    families,
    nonincreasing,
    on,
)
from rdm_jax.types import Array


def _scaled_rate(spectrum, gains, signal):
    """dH/dt by the library over E_q[g^2]: where g is relative to lambda_min, in the unit of theta(lambda_min)."""
    rates = theory.growth_rates(spectrum, online_gains=gains, signal=signal)
    return theory.entropy_rate(spectrum, rates) * jnp.sum(spectrum) / jnp.sum(gains**2 * spectrum)


def _ball_table(spectrum, noise, strength):
    """theta, kappa and dH/dt / E_q[g^2] from the table of growth rates, with g relative to lambda_min."""
    gains = [(x / spectrum[-1]) ** (strength / 2) for x in spectrum]
    signal = [x - n for x, n in zip(spectrum, noise, strict=True)]
    powers = [g * g * x for g, x in zip(gains, spectrum, strict=True)]
    power = balls.total(powers)
    kappa = balls.total([g * m for g, m in zip(gains, signal, strict=True)]) / power
    rates = [g * (m / x - kappa * g) for g, m, x in zip(gains, signal, spectrum, strict=True)]
    theta = [m / (x * g) for g, m, x in zip(gains, signal, spectrum, strict=True)]
    return theta, kappa, _common.entropy_rate(spectrum, rates) * balls.total(spectrum) / power


def margin(c):
    gains, signal = _noise.relative_power(c, c.strength / 2), _noise.signal(c)
    theta = theory.wiener_threshold(c.spectrum, online_gains=gains, signal=signal)
    smallest = jnp.min(jnp.where(c.spectrum > 0, c.spectrum, jnp.inf))
    kappa = theory.noise_band(c.spectrum, c.noise, c.strength).kappa * smallest ** (c.strength / 2)
    return jnp.stack([c.side * _scaled_rate(c.spectrum, gains, signal), jnp.max(theta) - kappa, _end(c, theta) - kappa])


def _end(c, theta):
    """theta at the smallest mode (side 1) or the largest (-1)."""
    return jnp.where(c.side > 0, theta[jnp.sum(c.spectrum > 0) - 1], theta[0])
