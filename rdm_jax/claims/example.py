"""The smallest complete claim, for reading and for doctests: squares of nonnegative numbers keep their order."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from rdm_jax.claims.claim import Ablation, Claim, Conclusion, Hypothesis, Law, Order, Stratum
from rdm_jax.claims.predicates import at_least
from rdm_jax.claims.search import generator
from rdm_jax.claims.tape import Tape
from rdm_jax.types import Array, PRNGKeyArray


class Pair(NamedTuple):
    """An instance: two numbers, large >= small >= 0."""

    large: Array
    small: Array


class Raw(NamedTuple):
    """Its free parameters: a number, and the root of what is added to its size."""

    small: Array
    gap: Array


def _sample(tape: Tape, d: Array) -> Raw:
    del d  # an instance has no modes
    return Raw(tape.scalar(-2.0, 2.0), tape.scalar(-1.0, 1.0))


def build(raw: Raw, dropped: Mapping[str, Array]) -> Pair:
    """Any parameters to an instance; the gap is a square, so that no gradient step can make it negative."""
    small = jnp.abs(raw.small)
    gap = jnp.where(dropped["reversed"], -(raw.gap**2), raw.gap**2)
    return Pair(small + gap, small)


def margin(c: Pair) -> Array:
    """large^2 - small^2, and minus the residual of its factorisation."""
    square = c.large**2 - c.small**2
    return jnp.stack([square, -jnp.abs((c.large - c.small) * (c.large + c.small) - square)])


def ball_margin(c: Pair) -> Sequence[Any]:
    """The same in balls, written again."""
    square = c.large**2 - c.small**2
    return [square, (c.large - c.small) * (c.large + c.small) - square]


def distance(c: Pair) -> Array:
    """Equality holds where large = small."""
    return jnp.stack([c.large - c.small, jnp.ones(())])


SQUARES = Claim(
    name="squares",
    statement="For large >= small >= 0, large^2 >= small^2; and their difference factors.",
    hypotheses=(
        Hypothesis("order", "large >= small", lambda c: at_least(c.large, c.small)),
        Hypothesis("sign", "small >= 0", lambda c: c.small >= 0),
    ),
    conclusions=(Conclusion("squares", 1e-14), Conclusion("factors", 1e-14, kind="identity")),
    sample=_sample,
    build=build,
    margin=margin,
    ball_margin=ball_margin,
    distance=distance,
    equality=lambda c: [bool(c.large == c.small), None],
    ablations=(Ablation("reversed", "large <= small", drops=("order",)),),
    rows=1,
    strata=(Stratum((2, 3), 3, 1.0),),
)


def _remainders(key: PRNGKeyArray, sizes: tuple[float, ...]) -> Array:
    del key  # nothing here is random
    return jnp.array([[1 + a * x / 2 - jnp.sqrt(1 + a * x) for x in sizes] for a in (1.0, 0.5)])


SQUARE_ROOT = Order(
    name="square root",
    statement="1 + x/2 - sqrt(1 + x) is of second order.",
    slope=2.0,
    sizes=(1e-1, 3e-2, 1e-2, 3e-3),
    measure=_remainders,
)


def _uniform_pairs(seed: int) -> tuple[Array, Pair]:
    drawn = jnp.sort(generator("halves", "law", seed).random((1000, 2)))
    pairs = Pair(large=drawn[:, 1], small=drawn[:, 0])
    return pairs.large - 2 * pairs.small, pairs


HALVES = Law(
    name="halves",
    statement="Of two uniform numbers in (0, 1), the smaller is at most half of the larger: for half of the pairs.",
    measure=_uniform_pairs,
)
