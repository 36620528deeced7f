"""Linear designs with starts and parameters that fit them; nothing symmetric, nothing commuting unless it must."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from rdm_jax.dynamics import (
    Branches,
    EigenmodeParameters,
    Eigenmodes,
    LinearDesign,
    LinearParameters,
    direct_copy_gains,
    direct_pred_gains,
    isoloss_gains,
    ridge_gains,
)

DESIGNS = {
    "learned": (LinearDesign(), ()),
    "learned, average": (LinearDesign(target="average"), ()),
    "learned, cosine": (LinearDesign(loss="cosine"), ()),
    "learned, cosine, average": (LinearDesign(loss="cosine", target="average"), ()),
    "learned, isotropic": (LinearDesign(isotropic=True), ()),
    "learned, no stop-gradient": (LinearDesign(stop_gradient=False), ()),
    "learned, no stop-gradient, cosine": (LinearDesign(stop_gradient=False, loss="cosine"), ()),
    "none": (LinearDesign("none"), ()),
    "none, average, cosine": (LinearDesign("none", "average", "cosine"), ()),
    "isoloss": (LinearDesign(isoloss_gains), 0.7),
    "isoloss, isotropic": (LinearDesign(isoloss_gains, isotropic=True), 0.7),
    "isoloss, cosine, isotropic": (LinearDesign(isoloss_gains, loss="cosine", isotropic=True), 0.7),
    "direct pred, average": (LinearDesign(direct_pred_gains, "average"), 0.01),
    "direct copy": (LinearDesign(direct_copy_gains), 0.1),
    "ridge": (LinearDesign(ridge_gains), 0.2),
}

MODES = 3
P, S, TAU_MODES = np.array([0.8, 0.3, 0.5]), np.array([1.2, 0.7, 0.4]), np.array([0.9, 0.6, 1.1])
X, XI = np.array([1.0, 0.6, 1.4]), np.array([0.3, 0.1, 0.5])
ALPHA, ETA, BETA, TAU = 1.7, 0.03, 0.4, 0.9


class Rotations(NamedTuple):
    """U (d, d) and V (k, k) with d = 3 modes and k = 4 inputs, the last of which no mode sees."""

    left: np.ndarray
    right: np.ndarray


def rotations(rng):
    left, right = (np.linalg.qr(rng.normal(size=(size, size)))[0] for size in (MODES, MODES + 1))
    return Rotations(left, right)


def modes_of(design):
    return Eigenmodes(
        predictor=jnp.array(P) if design.learns_predictor else None,
        encoder=jnp.array(S),
        ratio=jnp.array(TAU_MODES) if design.target == "average" else None,
    )


def mode_parameters(closed):
    return EigenmodeParameters(ALPHA, X, XI, ETA, BETA, TAU, closed)


def aligned_parameters(closed, right):
    """Commuting X and X' with the modes' eigenvalues, and others for the input that no mode sees."""
    signal, noise = ((right * np.append(values, 0.7)) @ right.T for values in (X, XI))
    return LinearParameters((signal + signal.T) / 2, (noise + noise.T) / 2, ALPHA, ETA, BETA, TAU, closed)


def generic_branches(design, rng):
    head = rng.normal(size=(MODES, MODES))
    return Branches(
        predictor=jnp.array(head) if design.learns_predictor else None,
        encoder=jnp.array(rng.normal(size=(MODES, MODES + 1))),
        target=jnp.array(rng.normal(size=(MODES, MODES + 1))) if design.target == "average" else None,
    )
