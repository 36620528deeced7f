"""What T11 and T12 share: the linear model of softmax outputs, for a mean along one eigenvector of the logits' covariance."""

import jax.numpy as jnp
from flint import arb

from rdm_jax import theory
from rdm_jax.claims import balls
from rdm_jax.claims.predicates import is_exact

CLASSES = 256  # K enters through the level K tau^2 only, so one number of classes stands for all


def _pair(constant, along, variance):
    """Eigenvalues of [[u^2, u v], [u v, v^2 + variance]] for u^2 = ``constant``, v = ``along``."""
    difference = constant - along * along - variance
    root = (difference * difference + 4 * constant * along * along) ** 0.5
    large = (constant + along * along + variance + root) / 2
    return large, constant * variance / large


def model(spectrum, orthogonal, along, mode, level):
    """Spectrum of the linear model over 1/(K tau)^2, from the library's for Cov b = 0.

    Args:
      spectrum: eigenvalues of Cov(y~), y~ the centred logits.
      orthogonal: squared length of the part of b = E[y~] that is orthogonal to Cov(y~).
      along, mode: the coordinate of b along one eigenvector, and which.
      level: K tau^2.
    """
    temperature = jnp.sqrt(level / CLASSES)
    modes = theory.softmax_spectrum(spectrum, CLASSES, temperature, orthogonal) * CLASSES * level
    large, small = _pair(modes[0], jnp.where(along > 0, along, 1.0), modes[1 + mode])
    return jnp.where(along > 0, modes.at[0].set(large).at[1 + mode].set(small), modes)


def ball_entropy(spectrum, orthogonal, along, mode, level):
    """Entropy of the same spectrum, in balls."""
    rest = list(spectrum)
    large, rest[mode] = _pair(level + orthogonal, along, rest[mode])
    return balls.entropy([large, *rest])


def turning_point(spectrum):
    """Lambda/erank of Cov(y~), in balls for exact numbers."""
    if is_exact(spectrum):
        values = [arb(x) for x in spectrum]
        return balls.total(values) / balls.effective_rank(values)
    return theory.centering_peak(spectrum)
