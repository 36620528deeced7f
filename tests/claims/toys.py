"""Toy statements that compile fast: about the larger and the smaller of two numbers."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp

from rdm_jax.claims import Ablation, Claim, Conclusion, DomainCondition, Hypothesis, Order, Statement, Stratum, at_least
from rdm_jax.types import Array


class Pair(NamedTuple):
    """Two numbers; the claim needs large >= small >= 0."""

    large: Array
    small: Array


class Raw(NamedTuple):
    """A number and the root of what is added to it."""

    small: Array
    gap: Array


def sample(tape, d):
    return Raw(tape.scalar(-2.0, 2.0), tape.scalar(-1.0, 1.0))


def build(raw, dropped):
    small = jnp.abs(raw.small)
    gap = jnp.where(dropped["reversed"], -(raw.gap**2), raw.gap**2)
    return Pair(small + gap, small)


def margin(c):
    return jnp.stack(
        [c.large**2 - c.small**2, -jnp.abs((c.large - c.small) * (c.large + c.small) - c.large**2 + c.small**2)]
    )


def ball_margin(c):
    square = c.large**2 - c.small**2
    return [square, (c.large - c.small) * (c.large + c.small) - square]


def distance(c):
    return jnp.stack([c.large - c.small, jnp.ones(())])


def raise_domain():
    raise ValueError("two numbers are needed")


SQUARES = Claim(
    name="squares",
    statement="For large >= small >= 0, large^2 >= small^2; and their difference factors.",
    hypotheses=(
        Hypothesis("order", "large >= small", lambda c: at_least(c.large, c.small)),
        Hypothesis("sign", "small >= 0", lambda c: c.small >= 0),
    ),
    conclusions=(Conclusion("squares", 1e-14), Conclusion("factors", 1e-14, kind="identity")),
    sample=sample,
    build=build,
    margin=margin,
    ball_margin=ball_margin,
    distance=distance,
    equality=lambda c: [bool(c.large == c.small), None],
    ablations=(Ablation("reversed", "large <= small", drops=("order",)),),
    domain=(DomainCondition("two numbers", raise_domain),),
    rows=1,
    strata=(Stratum((2, 3), 3, 1.0),),
)

SQUARE_ROOT = Order(
    name="square root",
    statement="sqrt(1 + x) - 1 - x/2 is of second order.",
    slope=2.0,
    sizes=(1e-1, 3e-2, 1e-2, 3e-3),
    measure=lambda key, sizes: jnp.array([[1 + a * x / 2 - jnp.sqrt(1 + a * x) for x in sizes] for a in (1.0, 0.5)]),
)

STATEMENT = Statement(
    name="toy",
    title="squares keep order",
    text="Squares of nonnegative numbers keep their order.",
    source="school",
    not_checked="negative numbers",
    claims=(SQUARES,),
    orders=(SQUARE_ROOT,),
)


def variant(**changes):
    """The claim with something changed, usually for the worse."""
    return dataclasses.replace(SQUARES, **changes)
