"""Dynamics: what an asymmetric design does to the spectrum over time, predicted and simulated (docs/theory.md).

A *design* (``LinearDesign``, ``FeatureDesign``) says what is asymmetric. From it come vector fields ``field(t, state,
args)`` at several levels of exactness, and the statistics to record; ``solve`` integrates a field, ``descend`` follows
it in steps:

    design = FeatureDesign(loss="cosine", online=power_gains, noise="persistent")
    args = FeatureParameters(noise=0.1, online=1.0)
    predicted = solve(mode_field(design), Modes(spectrum), args, times, record=mode_statistics(design))
    simulated = solve(feature_field(design), ViewFeatures(features), args, times, record=feature_statistics(design))

Everything is pure: ``jax.vmap`` maps over starts and parameters at once, and each design compiles once.
"""

from rdm_jax.dynamics.closed_forms import (
    AlignmentBound,
    FixedPoints,
    alignment_bound,
    alignment_threshold,
    commutator,
    conserved_matrix,
    conserved_modes,
    critical_weight_decay,
    fixed_points,
    lag_rank_difference,
    plateau,
)
from rdm_jax.dynamics.designs import FeatureDesign, LinearDesign
from rdm_jax.dynamics.eigenmodes import EigenmodeParameters, Eigenmodes, balanced_eigenmodes, eigenmode_field
from rdm_jax.dynamics.features import FeatureParameters, Modes, mode_field
from rdm_jax.dynamics.gains import (
    LagParameters,
    direct_copy_gains,
    direct_pred_gains,
    filter_gains,
    isoloss_gains,
    lagging_gains,
    power_gains,
    ridge_gains,
)
from rdm_jax.dynamics.integrate import descend, solve
from rdm_jax.dynamics.linear import Branches, LinearParameters, aligned_branches, branch_field, random_branches
from rdm_jax.dynamics.samples import SampleParameters, sample_branch_field
from rdm_jax.dynamics.solution import IntegrationError, Solution, require_success
from rdm_jax.dynamics.statistics import (
    Statistics,
    branch_statistics,
    eigenmode_statistics,
    feature_statistics,
    mode_statistics,
)
from rdm_jax.dynamics.views import ViewFeatures, feature_field, views_with_spectrum

__all__ = [
    "AlignmentBound",
    "Branches",
    "EigenmodeParameters",
    "Eigenmodes",
    "FeatureDesign",
    "FeatureParameters",
    "FixedPoints",
    "IntegrationError",
    "LagParameters",
    "LinearDesign",
    "LinearParameters",
    "Modes",
    "SampleParameters",
    "Solution",
    "Statistics",
    "ViewFeatures",
    "aligned_branches",
    "alignment_bound",
    "alignment_threshold",
    "balanced_eigenmodes",
    "branch_field",
    "branch_statistics",
    "commutator",
    "conserved_matrix",
    "conserved_modes",
    "critical_weight_decay",
    "descend",
    "direct_copy_gains",
    "direct_pred_gains",
    "eigenmode_field",
    "eigenmode_statistics",
    "feature_field",
    "feature_statistics",
    "filter_gains",
    "fixed_points",
    "isoloss_gains",
    "lag_rank_difference",
    "lagging_gains",
    "mode_field",
    "mode_statistics",
    "plateau",
    "power_gains",
    "random_branches",
    "require_success",
    "ridge_gains",
    "sample_branch_field",
    "solve",
    "views_with_spectrum",
]
