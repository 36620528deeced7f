"""Analytic predictions: what an asymmetric design should do to a spectrum (docs/theory.md, parts A and B).

Spectra are eigenvalues lambda of the second moment on the last axis, leading axes batch; gains multiply singular
values. Modes with lambda = 0 are off the support: they change nothing and carry no gradient, so spectra may be padded
with zeros. Everything is pure, to be jitted by the caller, and computed in the precision of its input.
"""

from rdm_jax.theory.centering import (
    centered_spectrum,
    centered_spectrum_from_mean,
    centering_first_order,
    centering_peak,
)
from rdm_jax.theory.growth import (
    Crossing,
    common_factor,
    effective_rank_rate,
    entropy_rate,
    entropy_rate_wiener,
    growth_rates,
    single_crossing,
)
from rdm_jax.theory.noise import (
    NoiseBand,
    flat_stability_margin,
    noise_band,
    stability_threshold,
    symmetric_horizon,
    symmetric_spectrum,
    target_noise_threshold,
)
from rdm_jax.theory.sinkhorn import sinkhorn_knopp, sinkhorn_linearisation
from rdm_jax.theory.softmax import (
    sharpening_threshold,
    softmax_linearisation,
    softmax_spectrum,
    softmax_spectrum_from_mean,
)
from rdm_jax.theory.speed import SlopeRange, SpeedBounds, slope_range, speed_bounds
from rdm_jax.theory.wiener import (
    RankDifferenceTerms,
    lagging_predictor_gains,
    predicted_rank_difference,
    rank_difference_decomposition,
    wiener_gains,
    wiener_predictor,
    wiener_threshold,
)

__all__ = [
    "Crossing",
    "NoiseBand",
    "RankDifferenceTerms",
    "SlopeRange",
    "SpeedBounds",
    "centered_spectrum",
    "centered_spectrum_from_mean",
    "centering_first_order",
    "centering_peak",
    "common_factor",
    "effective_rank_rate",
    "entropy_rate",
    "entropy_rate_wiener",
    "flat_stability_margin",
    "growth_rates",
    "lagging_predictor_gains",
    "noise_band",
    "predicted_rank_difference",
    "rank_difference_decomposition",
    "sharpening_threshold",
    "single_crossing",
    "sinkhorn_knopp",
    "sinkhorn_linearisation",
    "slope_range",
    "softmax_linearisation",
    "softmax_spectrum",
    "softmax_spectrum_from_mean",
    "speed_bounds",
    "stability_threshold",
    "symmetric_horizon",
    "symmetric_spectrum",
    "target_noise_threshold",
    "wiener_gains",
    "wiener_predictor",
    "wiener_threshold",
]
