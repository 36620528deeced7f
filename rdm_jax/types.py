"""Array names with their shapes, defined once (jaxtyping).

The letters mean the same everywhere: ``n`` samples, ``d`` feature dimensions, ``k`` modes.
Shapes are enforced at run time in the tests only (jaxtyping's import hook with beartype).
"""

from collections.abc import Sequence
from typing import Any

import jaxtyping
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

# At the public edge nested lists are arrays too.
ArrayLike = jaxtyping.ArrayLike | Sequence[Any]

Features = Float[Array, "n d"]
Views = Float[Array, "*views n d"]
Outputs = Float[Array, "*views n _"]  # of the same samples, with a width of their own
Moment = Float[Array, "d d"]
Spectrum = Float[Array, "*batch d"]
Gains = Float[Array, "*batch d"]
Batched = Float[Array, "*batch"]
Flag = Bool[Array, "*batch"]
Mask = Bool[Array, "*batch d"]
Scalar = Float[Array, ""]
Labels = Int[Array, " n"]

__all__ = [
    "Array",
    "ArrayLike",
    "Batched",
    "Features",
    "Flag",
    "Gains",
    "Labels",
    "Mask",
    "Moment",
    "Outputs",
    "PRNGKeyArray",
    "Scalar",
    "Spectrum",
    "Views",
]
