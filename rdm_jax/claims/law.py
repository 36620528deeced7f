"""Empirical laws: how often something happens over random trials, with its interval. Observed, never proved."""

import dataclasses
import math
from typing import NamedTuple

import jax
import numpy as np

from rdm_jax.claims.claim import Instance, Law
from rdm_jax.claims.search import require_x64

_EXCEPTIONS = 5
_NORMAL = 1.959963984540054  # 95% of a standard normal number lie within


class Exceptional(NamedTuple):
    """A trial in which a law did not hold, and by how much."""

    margin: float
    instance: Instance


@dataclasses.dataclass(frozen=True)
class LawResult:
    """In how many trials a law held, the 95% interval of that frequency, and its worst exceptions."""

    trials: int
    held: int
    interval: tuple[float, float]
    exceptions: tuple[Exceptional, ...]

    @property
    def frequency(self) -> float:
        """The share of the trials in which the law held."""
        return self.held / self.trials


def wilson_interval(held: int, trials: int) -> tuple[float, float]:
    """The 95% interval of a frequency: those p with |held/trials - p| <= 1.96 sqrt(p (1 - p)/trials).

    It keeps within [0, 1] and is no point where a law always holds, as held/trials +- its standard error would be.

    Args:
        held: how often it happened.
        trials: out of how many independent trials, at least 1.

    Returns:
        Its ends.

    Raises:
        ValueError: no trial, or ``held`` outside 0 ... trials.

    Source: Wilson 1927; Newcombe 1998, method 3.

    >>> [round(end, 4) for end in wilson_interval(81, 263)]
    [0.2553, 0.3662]
    """
    if not 0 <= held <= trials or trials < 1:
        raise ValueError(f"a frequency needs 0 <= held <= trials and a trial, got held={held}, trials={trials}")
    centre, square = held + _NORMAL**2 / 2, held * (trials - held) / trials + _NORMAL**2 / 4
    low, high = ((centre + side * _NORMAL * math.sqrt(square)) / (trials + _NORMAL**2) for side in (-1, 1))
    return (0.0 if held == 0 else low), (1.0 if held == trials else high)


def law(claim: Law, *, seed: int = 0) -> LawResult:
    """Measure how often an empirical law holds.

    Args:
      claim: the law.
      seed: the same seed gives the same numbers on the same machine.

    Returns:
      A `LawResult` with the worst exceptions. However often the law held, it neither passes nor fails.

    Raises:
      ValueError: float64 is not enabled, nothing was tried, or a trial has no margin (NaN): then nothing is observed.

    >>> from rdm_jax.claims.example import HALVES
    >>> with jax.enable_x64(True):
    ...     result = law(HALVES)
    >>> result.trials, 0.4 < result.interval[0] < 1 / 2 < result.interval[1] < 0.6
    (1000, True)
    """
    require_x64()
    measured, instances = claim.measure(seed)
    margins = np.asarray(measured, float)
    if margins.ndim != 1 or len(margins) == 0:
        raise ValueError(f"{claim.name}: measure must return a margin a trial and at least one, got {margins.shape}")
    if np.any(np.isnan(margins)):
        raise ValueError(f"{claim.name}: {np.sum(np.isnan(margins))} of {len(margins)} trials have no margin (NaN)")
    held = int(np.sum(margins >= 0))
    worst = np.argsort(margins, kind="stable")[: min(_EXCEPTIONS, len(margins) - held)]
    exceptions = [Exceptional(float(margins[i]), jax.tree.map(lambda leaf, i=i: leaf[i], instances)) for i in worst]
    return LawResult(len(margins), held, wilson_interval(held, len(margins)), tuple(exceptions))
