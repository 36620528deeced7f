"""What a batch of features looks like: moments, spectra, effective ranks, and how two branches compare."""

from rdm_jax.spectra.alignment import (
    SpectralFilter,
    commutator_norm,
    eigenspace_alignment,
    low_pass_index,
    principal_angles,
    spectral_filter,
)
from rdm_jax.spectra.decompose import Eigensystem, eigensystem, eigenvalues, null_tolerance, singular_values
from rdm_jax.spectra.moments import MomentAccumulator, second_moment
from rdm_jax.spectra.nulls import null_effective_rank, null_rankme
from rdm_jax.spectra.rank import (
    alpha_req,
    effective_rank,
    effective_rank_influence,
    feature_effective_rank,
    lidar,
    numerical_rank,
    participation_ratio,
    rank_difference,
    rankme,
    renyi_effective_rank,
    stable_rank,
)
from rdm_jax.spectra.synthetic import branches_with_filter, features_with_spectrum

__all__ = [
    "Eigensystem",
    "MomentAccumulator",
    "SpectralFilter",
    "alpha_req",
    "branches_with_filter",
    "commutator_norm",
    "effective_rank",
    "effective_rank_influence",
    "eigenspace_alignment",
    "eigensystem",
    "eigenvalues",
    "feature_effective_rank",
    "features_with_spectrum",
    "lidar",
    "low_pass_index",
    "null_effective_rank",
    "null_rankme",
    "null_tolerance",
    "numerical_rank",
    "participation_ratio",
    "principal_angles",
    "rank_difference",
    "rankme",
    "renyi_effective_rank",
    "second_moment",
    "singular_values",
    "spectral_filter",
    "stable_rank",
]
