"""Designs on free features with starts and parameters that fit them, as modes and as views with exactly these modes."""

import jax
import jax.numpy as jnp
import numpy as np

from rdm_jax import filters
from rdm_jax.dynamics import (
    FeatureDesign,
    FeatureParameters,
    LagParameters,
    Modes,
    ViewFeatures,
    filter_gains,
    lagging_gains,
    power_gains,
    ridge_gains,
    views_with_spectrum,
)

SPECTRUM, SIGNAL, GAINS = np.array([3.0, 1.6, 0.9, 0.5]), np.array([2.5, 0.7, 0.8, 0.1]), np.array([0.5, 0.6, 0.1, 0.3])
NOISE, RATE, RIDGE = 0.3, 0.7, 0.1
SAMPLES = 12

LOG1P, LOG = filter_gains(filters.log1p()), filter_gains(filters.log())
LEARNED = {"predictor_rate": RATE, "ridge": RIDGE}
DESIGNS = {
    "cosine, online": (FeatureDesign(online=power_gains), {"online": 1.0}),
    "cosine, target": (FeatureDesign(target=power_gains), {"target": -0.5}),
    "cosine, signed filter": (FeatureDesign(online=LOG), {}),
    "cosine, isotropic": (FeatureDesign(online=power_gains, isotropic=True), {"online": 1.0}),
    "cosine, persistent": (FeatureDesign(online=power_gains, target=LOG1P, noise="persistent"), {"online": 0.5}),
    "cosine, free": (FeatureDesign(online=power_gains, target=LOG1P, noise="free"), {"online": 0.5}),
    "cosine, learned, persistent": (FeatureDesign(online="learned", noise="persistent"), LEARNED),
    "squared, none": (FeatureDesign(loss="squared", noise="persistent"), {}),
    "squared, both": (FeatureDesign("squared", LOG1P, power_gains), {"target": -0.3}),
    "squared, signed filter, free": (FeatureDesign("squared", LOG, LOG1P, "free"), {}),
    "squared, ridge, persistent": (
        FeatureDesign("squared", ridge_gains, power_gains, "persistent"),
        {"online": 0.2, "target": 0.2},
    ),
    "squared, lagging, free": (
        FeatureDesign("squared", lagging_gains, None, "free"),
        {"online": LagParameters(0.2, 1.5)},
    ),
    "squared, isotropic, free": (FeatureDesign("squared", power_gains, None, "free", True), {"online": 0.5}),
    "squared, learned, free": (FeatureDesign("squared", "learned", power_gains, "free"), {"target": -0.2, **LEARNED}),
}


def parameters(design, numbers):
    return FeatureParameters(noise=NOISE if design.noise == "persistent" else 0.0, **numbers)


def modes_of(design):
    return Modes(
        spectrum=jnp.array(SPECTRUM),
        signal=jnp.array(SIGNAL) if design.noise == "free" else None,
        gains=jnp.array(GAINS) if design.learns_predictor else None,
    )


def views_of(design, key):
    """The same as features, and the eigenvectors that belong to the modes."""
    first, second = views_with_spectrum(key, SAMPLES, SPECTRUM, SIGNAL)
    basis = np.linalg.eigh(np.asarray(first.T @ first))[1][:, ::-1]
    predictor = jnp.array(basis * GAINS @ basis.T) if design.learns_predictor else None
    return ViewFeatures(first, second if design.noise == "free" else None, predictor), basis


def start_of(design, seed=0):
    return modes_of(design), *views_of(design, jax.random.key(seed))
