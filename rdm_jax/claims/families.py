"""Families of spectra and filters: free parameters, the strata they are drawn from, and the maps that
build the hypotheses in.

A sequence is held as the square roots of its successive log-gaps. Squaring makes every parameter value
legal (a descending spectrum stays descending wherever a gradient step leads), zero is an exact tie, and a
tie stays one under gradients, so that faces of the cone are searched as well as its interior.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rdm_jax.claims.tape import Tape, exponential, logistic
from rdm_jax.types import Array

MAX_LOG_CONDITION = 18.42  # condition numbers to 1e8


class Sequence(NamedTuple):
    """Free parameters of a positive sequence over the modes.

    ``roots``: square roots of the log-gaps (entry 0 is not used); ``free``: unordered logarithms, for when the order
    is dropped; ``scale``: log of the first entry; ``keep``: entries from here on are 0; ``entry``: the one a near
    miss puts out of order.
    """

    roots: Array
    free: Array
    scale: Array
    keep: Array
    entry: Array


def accumulate(gaps: Array) -> Array:
    """The running sums of nonnegative gaps, one after the other: nondecreasing and equal across gaps of 0, exactly.

    A parallel sum (`jnp.cumsum`) adds in another order at every entry, and so may break ties in the last digit.
    """
    return jax.lax.scan(lambda total, gap: (total + gap,) * 2, jnp.zeros((), gaps.dtype), gaps)[1]


def _fall(sequence: Sequence) -> Array:
    gaps = sequence.roots**2
    return accumulate(gaps.at[0].set(0.0))


def kept(sequence: Sequence) -> Array:
    """The entries that are not cut to 0."""
    return jnp.arange(sequence.roots.shape[0]) < sequence.keep


def descending(sequence: Sequence) -> Array:
    """A nonincreasing, nonnegative sequence: exp(scale - sum of gaps), 0 from ``keep`` on."""
    return jnp.where(kept(sequence), jnp.exp(sequence.scale - _fall(sequence)), 0.0)


def ascending(sequence: Sequence) -> Array:
    """A nondecreasing positive sequence: exp(scale + sum of gaps); ``keep`` is not used."""
    return jnp.exp(sequence.scale + _fall(sequence))


def unordered(sequence: Sequence) -> Array:
    """Positive numbers in no order: exp(scale + free); ``keep`` is not used."""
    return jnp.exp(sequence.scale + sequence.free)


def signed(sequence: Sequence) -> Array:
    """The descending sequence with signs from ``free``: what a filter with negative gains looks like."""
    return descending(sequence) * jnp.sign(sequence.free)


def out_of_order(values: Array, sequence: Sequence, *, up: bool = True) -> Array:
    """The sequence with one entry moved one per cent past its predecessor: above it (``up``) or below."""
    before = values[sequence.entry - 1]
    return values.at[sequence.entry].set(before * (1.01 if up else 1 / 1.01))


def _gaps(tape: Tape, d: Array) -> Array:
    """Log-gaps of one stratum: generic, ties, power law, step, heavy tails, nearly equal, one outlier, or flat."""
    index = jnp.arange(tape.width)
    inside = (index > 0) & (index < d)
    reach = MAX_LOG_CONDITION * tape.scalar() ** 2
    gaps, coins = exponential(tape.vector()), tape.vector()

    def spread(values: Array) -> Array:
        values = jnp.where(inside, values, 0.0)
        return reach * values / jnp.maximum(jnp.sum(values), 1e-300)

    generic = spread(gaps)
    ties = spread(jnp.where(coins < 0.6, 0.0, gaps))
    power_law = jnp.log1p(1.0 / jnp.maximum(index, 1)) * tape.scalar(0.0, 3.0)
    step = jnp.where(index == tape.integer(1, d), reach, 0.0)
    heavy = spread(jnp.maximum(coins, 1e-6) ** -2.0)
    nearly_equal = gaps * 10.0 ** tape.scalar(-9.0, -3.0)
    outlier = jnp.where(index == 1, reach, nearly_equal)
    flat = jnp.zeros(tape.width)
    strata = jnp.stack([generic, ties, power_law, step, heavy, nearly_equal, outlier, flat])
    upper = jnp.cumsum(jnp.array([0.3, 0.15, 0.1, 0.12, 0.12, 0.08, 0.1]))
    return jnp.where(inside, strata[jnp.sum(tape.scalar() > upper)], 0.0)


def sample_spectrum(tape: Tape, d: Array) -> Sequence:
    """Parameters of a spectrum with ``d`` modes, of which some may be 0 (one draw in ten). Takes three vectors."""
    rank = jnp.where(tape.scalar() < 0.1, tape.integer(1, d + 1), d)
    return Sequence(
        roots=jnp.sqrt(_gaps(tape, d)),
        free=logistic(tape.vector()),
        scale=tape.scalar(-3.0, 3.0),
        keep=rank,
        entry=tape.integer(1, jnp.maximum(rank, 2)),
    )


def sample_filter(tape: Tape, spectrum: Sequence, d: Array) -> Sequence:
    """Parameters of a monotone filter over a spectrum: a power of it, a cut-off, or a stratum of its own.

    Takes three vectors.
    """
    own = sample_spectrum(tape, d)
    power = spectrum.roots * jnp.sqrt(tape.scalar(0.0, 1.5))
    kind = tape.scalar()
    return own._replace(
        roots=jnp.where(kind < 0.25, power, own.roots),
        keep=jnp.where(kind > 0.85, tape.integer(1, d + 1), d),
        entry=spectrum.entry,
    )
