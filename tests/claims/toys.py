"""The library's example claim, with a domain condition, as a statement and in variants."""

import dataclasses

import jax.numpy as jnp

from rdm_jax.claims import DomainCondition, Statement, example
from rdm_jax.claims.example import HALVES, SQUARE_ROOT, build, margin

__all__ = ["HALVES", "SQUARES", "SQUARE_ROOT", "STATEMENT", "build", "jnp", "margin", "variant"]


def raise_domain():
    raise ValueError("two numbers are needed")


SQUARES = dataclasses.replace(example.SQUARES, domain=(DomainCondition("two numbers", raise_domain),))

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
