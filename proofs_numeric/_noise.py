"""What T7 and T9 share: isotropic noise nu, power filters, and spectra on one side of the level nu (1 + 2/|a|)."""

from typing import NamedTuple

import jax.numpy as jnp

from rdm_jax.claims import Ablation, Hypothesis, at_least, families, nonincreasing, on
from rdm_jax.types import Array


class Noisy(NamedTuple):
    """Eigenvalues (descending), noise nu, |a|; side 1: all eigenvalues above nu (1 + 2/|a|), -1: all below."""

    spectrum: Array
    noise: Array
    strength: Array
    side: Array


class Raw(NamedTuple):
    """Free parameters of a `Noisy`; ``room``: root of the log distance from the level."""

    spectrum: families.Sequence
    room: Array
    log_strength: Array
    side: Array


def sample(tape, d):
    spectrum = families.sample_spectrum(tape, d)._replace(keep=d)
    side = jnp.where(tape.scalar() < 0.5, 1, -1)
    return Raw(spectrum, tape.scalar(0.0, 2.0), tape.scalar(-3.0, 2.0), side)


def strength(raw):
    """|a|, bounded so that no power overflows."""
    return jnp.exp(jnp.clip(raw.log_strength, -3.0, 2.0))


def rising_from(sequence):
    """The sequence's spectrum over its smallest value, descending to 1 (and at most exp(40)), 0 from ``keep`` on."""
    heights = families.ascending(sequence)
    ratio = heights[sequence.keep - 1] / heights
    return jnp.where(families.kept(sequence), jnp.minimum(ratio, jnp.exp(40.0)), 0.0)


def build(raw, dropped):
    a, shape, unit = strength(raw), rising_from(raw.spectrum), jnp.exp(raw.spectrum.scale)
    room = jnp.where(dropped["level 1% off"], jnp.log(1 / 1.01), raw.room**2)
    room = jnp.where(dropped["anywhere above the noise"], -(raw.room**2), room)
    below_all = jnp.minimum(unit, unit * a / (a + 2) * jnp.exp(-room))
    snr = 2 / a * jnp.exp(-room) * shape / shape[0]
    spectrum = unit * jnp.where(raw.side > 0, shape, jnp.where(shape > 0, 1 + snr, 0.0))
    return Noisy(spectrum, jnp.where(raw.side > 0, below_all, unit), a, raw.side)


def relative_power(c, exponent):
    """(lambda / lambda_min)**exponent on the support, 1 off it."""
    positive = c.spectrum > 0
    smallest = jnp.min(jnp.where(positive, c.spectrum, jnp.inf))
    return jnp.where(positive, c.spectrum / smallest, 1.0) ** exponent


def signal(c):
    """m = lambda - nu on the support, 0 off it."""
    return jnp.where(c.spectrum > 0, c.spectrum - c.noise, 0.0)


HYPOTHESES = (
    Hypothesis("sorted spectrum", "lambda descending and >= 0", lambda c: nonincreasing(c.spectrum)),
    Hypothesis(
        "signal", "lambda >= nu > 0", lambda c: (at_least(c.spectrum, c.noise) | ~on(c.spectrum)) & (c.noise > 0)
    ),
    Hypothesis("a power filter", "|a| > 0", lambda c: c.strength > 0),
    Hypothesis(
        "one side of the level",
        "all lambda >= nu (1 + 2/|a|), or all <= it",
        lambda c: at_least(c.side * c.strength * c.spectrum, c.side * (c.strength + 2) * c.noise) | ~on(c.spectrum),
    ),
)

ABLATIONS = (
    Ablation("anywhere above the noise", "lambda >= nu only", drops=("one side of the level",)),
    Ablation(
        "level 1% off",
        "lambda up to 1% on the wrong side of the level",
        drops=("one side of the level",),
        instead=(
            Hypothesis(
                "nearly one side",
                "on one side of the level within 1.01%",
                lambda c: (
                    at_least(
                        (10000 + 101 * c.side) * c.side * c.strength * c.spectrum,
                        10000 * c.side * (c.strength + 2) * c.noise,
                    )
                    | ~on(c.spectrum)
                ),
            ),
        ),
    ),
)
