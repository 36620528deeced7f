"""Pieces that several statements share: not a statement itself."""

import jax.numpy as jnp
from flint import arb

from rdm_jax.claims import balls, families, on


def least(values):
    """The minimum of balls, 0 for none."""
    smallest = values[0] if len(values) else arb(0)
    for value in values[1:]:
        smallest = smallest.min(value)
    return smallest


def _descending(values):
    """Balls around the sorted values: the k-th largest lies between the k-th largest lower and upper ends."""
    lower = sorted((value.lower() for value in values), reverse=True)
    upper = sorted((value.upper() for value in values), reverse=True)
    return [a.union(b) for a, b in zip(lower, upper, strict=True)]


def largest_shares(spectrum):
    """For each k, the share of the k largest values in their sum, in balls."""
    mass, sums = balls.total(spectrum), []
    for value in _descending(spectrum):
        sums.append(value + (sums[-1] if sums else 0))
    return [value / mass for value in sums]


def entropy_rate(spectrum, rates, exponent=1):
    """dH/dt in balls where lambda' = 2 r lambda and q is lambda^exponent, normalised: -sum q' log q from its definition."""
    modes = balls.support(spectrum)
    weights = [spectrum[i] if exponent == 1 else spectrum[i] ** exponent for i in modes]
    mass = balls.total(weights)
    shares = [weight / mass for weight in weights]
    growth = [2 * exponent * rates[i] for i in modes]
    mean = balls.total([q * g for q, g in zip(shares, growth, strict=True)])
    return -balls.total([q * (g - mean) * q.log() for q, g in zip(shares, growth, strict=True)])


def spread(values, weights):
    """E_w|x - E_w[x]|, for weights that need not sum to 1."""
    weights = weights / jnp.sum(weights)
    return jnp.sum(weights * jnp.abs(values - jnp.sum(weights * values)))


def joint_spread(first, second, weights):
    """E_w|x - E_w[x]| E_w|y - E_w[y]|: 0 exactly where x or y is constant.

    At most 4 |Cov_w(x, y)| if x and y are equally or oppositely ordered: true for indicators of upper sets, of which
    ordered x and y are nonnegative combinations.
    """
    return spread(first, weights) * spread(second, weights)


def constant(values):
    """Whether the given exact values are all equal."""
    return all(value == values[0] for value in values)


def singular_values(sequence):
    """Descending singular values whose squares have the sequence's range (condition numbers to 1e8)."""
    return families.descending(sequence._replace(roots=sequence.roots / 2**0.5, scale=sequence.scale / 2))


def normalised_mass(singular, sv):
    """What a convention normalises, in floats or exactly: singular values (sv = 1) or their squares (sv = 0)."""
    return singular * (sv + (1 - sv) * singular)


def order_preserving_gains(sequence, scale, angles, shares=(0.0, 1.0)):
    """Gains whose log-gaps are a share of those of `singular_values`: in [0, 1], high-pass and order preserving.

    The shares run between the given two as the angles do their turns; equal singular values have equal gains.
    """
    low, high = shares
    gaps = jnp.where(jnp.arange(len(angles)) > 0, sequence.roots**2 / 2, 0.0)
    return jnp.exp(scale + families.accumulate((low + (high - low) * jnp.sin(angles) ** 2) * gaps))


def sample_angles(tape):
    """Angles for `order_preserving_gains`: all equal (a power), all 0 (constant gains), only ends of the range, any."""
    turns, kind = jnp.pi * tape.vector(), tape.scalar()
    ends = jnp.where(turns < jnp.pi / 2, 0.0, jnp.pi / 2)
    power = jnp.full(turns.shape, tape.scalar(0.0, jnp.pi))
    return jnp.where(kind < 0.1, 0.0, jnp.where(kind < 0.3, ends, jnp.where(kind < 0.5, power, turns)))


def equal_gains_at_ties(c):
    """Neighbours on the support with equal singular values have equal gains: the filter is a function of s."""
    return (c.singular[:-1] != c.singular[1:]) | (c.gains[:-1] == c.gains[1:]) | ~on(c.singular[1:])


def squared_distance(first, second):
    """||q - q'||_1^2: by S4 at most twice the log-rank difference, since one is the other under a low-pass filter."""
    shares = (x / jnp.sum(x) for x in (first, second))
    return jnp.sum(jnp.abs(next(shares) - next(shares))) ** 2
