"""Asymptotic statements: the measured order of convergence, held against the claimed one."""

import dataclasses
import zlib

import jax
import numpy as np

from rdm_jax.claims.claim import Order
from rdm_jax.claims.search import require_x64

TOLERANCE = 0.1


@dataclasses.dataclass(frozen=True)
class OrderResult:
    """Slope of the mean log error against log size, its standard error over instances, and the errors themselves."""

    slope: float
    standard_error: float
    claimed: float
    instances: int
    sizes: tuple[float, ...]
    errors: tuple[float, ...]

    @property
    def holds(self) -> bool:
        """Whether the measured slope is within 0.1 of the claimed one."""
        return bool(abs(self.slope - self.claimed) <= TOLERANCE)


def order(claim: Order, *, seed: int = 0) -> OrderResult:
    """Measure the convergence order of an asymptotic statement.

    The slope is that of a least-squares line through (log size, log error), averaged over random instances.

    Args:
      claim: the asymptotic statement.
      seed: the same seed gives the same numbers on the same machine.

    Returns:
      An `OrderResult`; ``holds`` is true when the slope is within 0.1 of the claimed one.

    Raises:
      ValueError: float64 is not enabled, or an error is not positive and finite.

    >>> from rdm_jax.claims.example import SQUARE_ROOT
    >>> with jax.enable_x64(True):
    ...     round(order(SQUARE_ROOT).slope, 1)
    2.0
    """
    require_x64()
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(claim.name.encode()))
    errors = np.asarray(jax.jit(lambda key: claim.measure(key, claim.sizes))(key))
    if errors.ndim != 2 or errors.shape[1] != len(claim.sizes):
        raise ValueError(f"{claim.name}: measure must return (instances, {len(claim.sizes)}), got {errors.shape}")
    if not np.all(np.isfinite(errors) & (errors > 0)):
        raise ValueError(f"{claim.name}: an error is zero, negative or not finite, so that no order can be measured")
    logs = np.log(errors)
    x = np.log(claim.sizes)
    x = x - x.mean()
    slopes = logs @ x / (x @ x)
    spread = slopes.std(ddof=1) / np.sqrt(len(slopes)) if len(slopes) > 1 else float("nan")
    means = np.exp(logs.mean(axis=0))
    return OrderResult(
        float(slopes.mean()), float(spread), claim.slope, len(slopes), claim.sizes, tuple(means.tolist())
    )
