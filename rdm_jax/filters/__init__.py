"""Filters: gains on the singular values of a batch of features, and their application to it."""

from rdm_jax.filters.application import apply, null_directions
from rdm_jax.filters.classification import FilterClass, classify
from rdm_jax.filters.gains import Filter, compose, identity, log, log1p, log1p_square, power, wiener

__all__ = [
    "Filter",
    "FilterClass",
    "apply",
    "classify",
    "compose",
    "identity",
    "log",
    "log1p",
    "log1p_square",
    "null_directions",
    "power",
    "wiener",
]
