"""Random numbers for samplers: a tape of uniforms, drawn by NumPy outside the compiled code.

Random number generators are most of what XLA would compile in a sampler. Drawn outside, they cost nothing to
compile, and a sampler is a plain function from uniforms to parameters.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from rdm_jax.types import Array

SCALARS = 64


class Tape:
    """Hands out the uniforms of one instance in order: vectors of the stratum's width, and scalars.

    Args:
      vectors: (rows, width) uniforms in (0, 1).
      scalars: (64,) uniforms in (0, 1).
    """

    def __init__(self, vectors: Float[Array, "rows width"], scalars: Float[Array, " scalars"]) -> None:
        self._vectors, self._scalars = vectors, scalars
        self._row = self._column = 0

    @property
    def width(self) -> int:
        """The static number of entries of a vector."""
        return self._vectors.shape[1]

    def vector(self) -> Array:
        """Uniforms in (0, 1), one for each mode."""
        return self.vectors(1)[0]

    def vectors(self, count: int) -> Array:
        """``count`` rows of uniforms in (0, 1)."""
        self._row += count
        if self._row > self._vectors.shape[0]:
            raise ValueError(f"the sampler draws more than {self._vectors.shape[0]} vectors: raise the claim's `rows`")
        return self._vectors[self._row - count : self._row]

    def scalar(self, low: float | int | Array = 0.0, high: float | int | Array = 1.0) -> Array:
        """A uniform number in (low, high)."""
        self._column += 1
        if self._column > self._scalars.shape[0]:
            raise ValueError(f"the sampler draws more than {self._scalars.shape[0]} scalars")
        return low + (high - low) * self._scalars[self._column - 1]

    def integer(self, low: int | Array, high: int | Array) -> Array:
        """A uniform integer in [low, high)."""
        drawn = jnp.floor(self.scalar(low, high)).astype(int)
        return jnp.clip(drawn, low, jnp.maximum(high - 1, low))


def exponential(uniforms: Array) -> Array:
    """Standard exponential numbers from uniforms."""
    return -jnp.log(uniforms)


def logistic(uniforms: Array) -> Array:
    """Standard logistic numbers from uniforms: symmetric, standard deviation 1.8, tails heavier than normal."""
    return jnp.log(uniforms) - jnp.log1p(-uniforms)


def blank_tapes(generator: np.random.Generator, count: int, rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Uniforms in (0, 1) for ``count`` instances: vectors (count, rows, width) and scalars (count, 64)."""
    tiny = 2.0**-60  # keeps logarithms finite; generator.random is in [0, 1 - 2**-53]
    return generator.random((count, rows, width)) + tiny, generator.random((count, SCALARS)) + tiny
