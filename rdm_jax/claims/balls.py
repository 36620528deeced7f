"""Spectral quantities in ball arithmetic, written from their definitions in python-flint and from nothing else.

They share no code with `rdm_jax.spectra`: that is what makes a certificate worth having. Vectors are object
arrays (or lists) of ``arb``; modes that are exactly 0 are off the support.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from flint import arb

Balls = Sequence[Any] | np.ndarray

HALF = arb(0.5)


def vector(values: Any) -> Any:
    """An object array of the given balls."""
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out


def total(values: Balls) -> Any:
    """The sum, 0 for an empty vector."""
    return sum(values, arb(0))


def support(spectrum: Balls) -> list[int]:
    """The modes that are not exactly 0."""
    # Of a ball around 0 neither == 0 nor != 0 is certain; it is on the support.
    return [i for i, value in enumerate(spectrum) if not value == 0]


def normalised(spectrum: Balls) -> Any:
    """q_i = lambda_i / sum(lambda) on the support."""
    positive = [spectrum[i] for i in support(spectrum)]
    scale = 1 / total(positive)
    return vector([value * scale for value in positive])


def entropy(spectrum: Balls) -> Any:
    """H(q) = log(Lambda) - sum(lambda log lambda)/Lambda on the support."""
    positive = [spectrum[i] for i in support(spectrum)]
    mass = total(positive)
    return mass.log() - total([value * value.log() for value in positive]) / mass


def effective_rank(spectrum: Balls) -> Any:
    """exp H(q) (Roy and Vetterli 2007)."""
    return entropy(spectrum).exp()


def renyi_entropy(spectrum: Balls, order: Any) -> Any:
    """log(sum q^order)/(1 - order); the order is a ball, None stands for infinity."""
    q = normalised(spectrum)
    if order is None:
        return -max(q, key=lambda value: float(value.mid())).log()
    if order == 0:
        return arb(len(q)).log()
    if order == 1:
        return entropy(spectrum)
    return total([value**order for value in q]).log() / (1 - order)


def power(values: Balls, exponent: Any) -> Any:
    """value**exponent on the support, 0 elsewhere."""
    return vector([arb(0) if value == 0 else value**exponent for value in values])


def covariance(weights: Balls, x: Balls, y: Balls) -> Any:
    """Cov_w(x, y) for weights that need not sum to 1."""
    mass = total(weights)
    mean_x = total([w * a for w, a in zip(weights, x, strict=True)]) / mass
    mean_y = total([w * b for w, b in zip(weights, y, strict=True)]) / mass
    return total([w * (a - mean_x) * (b - mean_y) for w, a, b in zip(weights, x, y, strict=True)]) / mass


def mean(weights: Balls, x: Balls) -> Any:
    """E_w[x] for weights that need not sum to 1."""
    return total([w * a for w, a in zip(weights, x, strict=True)]) / total(weights)


def count(values: Balls, threshold: Any) -> Any:
    """How many values exceed the threshold; a ball that is not a point where a comparison is undecided."""
    sure = sum(bool(value > threshold) for value in values)
    possible = sum(not bool(value <= threshold) for value in values)
    return arb((sure + possible) / 2, (possible - sure) / 2)
