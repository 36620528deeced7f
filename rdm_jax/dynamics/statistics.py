"""What to record along a trajectory: the same statistics for modes, features and linear branches."""

from functools import cache
from typing import NamedTuple

from rdm_jax.dynamics.designs import FeatureDesign, LinearDesign
from rdm_jax.dynamics.solve import Record
from rdm_jax.types import Array, Batched

__all__ = ["Statistics", "branch_statistics", "eigenmode_statistics", "feature_statistics", "mode_statistics"]


class Statistics(NamedTuple):
    """Of one instant. Arrays have one number per mode, in the order of the state's modes, or largest first for matrices.

    ``spectrum``, ``signal``: lambda and m of the features z; ``online``, ``target``: eigenvalues of the outputs p and t;
    ``gains``: the measured filter sqrt(lambda_p / lambda_t) in the target's eigenbasis; ``threshold``: theta = h m / (lambda g);
    ``rates``: growth rates r of lambda' = 2 r lambda that theory predicts, common factor and weight decay included;
    ``effective_rank`` (eig) of z; ``online_rank``, ``target_rank`` of p and t; ``rank_difference``: target - online;
    ``rank_rate``: d erank/dt of z that theory predicts; ``commutator``: |[C_p, C_t]|_F / (|C_p|_F |C_t|_F).
    """

    spectrum: Array
    signal: Array
    online: Array
    target: Array
    gains: Array
    threshold: Array
    rates: Array
    effective_rank: Batched
    online_rank: Batched
    target_rank: Batched
    rank_difference: Batched
    rank_rate: Batched
    commutator: Batched


@cache
def eigenmode_statistics(design: LinearDesign) -> Record:
    """``record`` for ``eigenmode_field(design)``.

    Args:
        design: that the field was made from.

    Returns:
        ``record(t, Eigenmodes, EigenmodeParameters) -> Statistics``.

    Source: docs/theory.md T13, S1.
    """
    raise NotImplementedError


@cache
def branch_statistics(design: LinearDesign) -> Record:
    """``record`` for ``branch_field(design)`` and ``sample_branch_field(design)``.

    Args:
        design: that the field was made from.

    Returns:
        ``record(t, Branches, LinearParameters or SampleParameters) -> Statistics``.

    Source: docs/theory.md T13, T14, S1.
    """
    raise NotImplementedError


@cache
def mode_statistics(design: FeatureDesign) -> Record:
    """``record`` for ``mode_field(design)``.

    Args:
        design: that the field was made from.

    Returns:
        ``record(t, Modes, FeatureParameters) -> Statistics``.

    Source: docs/theory.md, part B, S1.
    """
    raise NotImplementedError


@cache
def feature_statistics(design: FeatureDesign) -> Record:
    """``record`` for ``feature_field(design)``; the predicted rates are the mean field's.

    Args:
        design: that the field was made from.

    Returns:
        ``record(t, ViewFeatures, FeatureParameters) -> Statistics``.

    Source: docs/theory.md, part B, S1.
    """
    raise NotImplementedError
