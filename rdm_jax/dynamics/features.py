"""Feature flow: the features themselves descend the loss, as spectra (mean field) and as arrays (docs/theory.md, part B).

Time is that of gradient flow per sample, z' = -n dL/dz, with the common factor of the cosine included.
"""

from functools import cache
from typing import Any, NamedTuple

from rdm_jax.dynamics.designs import FeatureDesign
from rdm_jax.dynamics.solve import Field
from rdm_jax.types import Array, ArrayLike, Features, PRNGKeyArray

__all__ = ["FeatureParameters", "Modes", "ViewFeatures", "feature_field", "mode_field", "views_with_spectrum"]


class Modes(NamedTuple):
    """State of the mean field: (d,) eigenvalues lambda; m (None unless the noise is free); gains (None unless learned)."""

    spectrum: Array
    signal: Array | None = None
    gains: Array | None = None


class ViewFeatures(NamedTuple):
    """State of the exact flow: features (n, d); the second view (None unless free); W_p (d, d) (None unless learned)."""

    first: Array
    second: Array | None = None
    predictor: Array | None = None


class FeatureParameters(NamedTuple):
    """Parameters: ``noise`` nu >= 0 (persistent), what the filters take as theirs, and of a learned predictor alpha and rho."""

    noise: ArrayLike = 0.0
    online: Any = ()
    target: Any = ()
    predictor_rate: ArrayLike = 1.0
    ridge: ArrayLike = 0.0


@cache
def mode_field(design: FeatureDesign) -> Field:
    """The mean field of the spectrum, ``field(t, Modes, FeatureParameters)``: lambda_i' = 2 f r_i lambda_i.

    r_i are ``rdm_jax.theory.growth_rates`` and f ``common_factor`` of the gains at the present spectrum. Free noise: both
    views move, each towards the other, and m_i' = 2 f g_i (h_i lambda_i - kappa g_i m_i) (kappa = 1 for the squared error). Persistent
    noise: m = lambda - nu, and a mode that has reached nu stays there. A learned predictor follows the squared error with a ridge,
    g_i' = alpha (h_i m_i - (lambda_i + rho) g_i). isotropic: the leading g_i of r_i is dropped.

    Args:
        design: on free features; not "sample cosine", which has no mean field.

    Returns:
        The field, the same object for equal designs.

    Raises:
        ValueError: "sample cosine".

    Source: docs/theory.md, table of part B, S2, T8.

    >>> field = mode_field(FeatureDesign(loss="squared", noise="persistent"))
    >>> field(0.0, Modes(jnp.array([2.0])), FeatureParameters(noise=0.5)).spectrum  # 2 (1.5 - 2)
    Array([-1.], dtype=float32)
    """
    raise NotImplementedError


@cache
def feature_field(design: FeatureDesign) -> Field:
    """The exact flow of the features, ``field(t, ViewFeatures, FeatureParameters)``: z' = -n dL/dz by jax.grad of the loss.

    Filters are matrices in the eigenbasis of the batch's own second moment, behind a stop-gradient. Without noise both branches
    see the same view; with persistent noise the target is the exact conditional mean E[z+ | z] = C_m C_z^-1 z, C_m = C_z - nu I; with
    free noise both views are state, and each is online in one of the two orders.

    Args:
        design: on free features.

    Returns:
        The field, the same object for equal designs.

    Source: docs/theory.md, part B, S3.

    >>> field = feature_field(FeatureDesign(loss="squared", noise="persistent"))
    >>> field(0.0, ViewFeatures(jnp.array([[2.0]])), FeatureParameters(noise=1.0)).first  # (3/4 - 1) 2
    Array([[-0.5]], dtype=float32)
    """
    raise NotImplementedError


def views_with_spectrum(key: PRNGKeyArray, n: int, spectrum: ArrayLike, signal: ArrayLike) -> tuple[Features, Features]:
    """Two views with exactly C_z = V diag(lambda) V^T for each and E[z+ z^T] = V diag(m) V^T, V random.

    Args:
        key: a jax random key.
        n: samples, at least 2 d.
        spectrum: (d,) lambda >= 0.
        signal: (d,) m with |m_i| <= lambda_i.

    Returns:
        Both views, (n, d).

    Raises:
        ValueError: a signal above the spectrum, shapes that differ, or too few samples.

    Source: docs/theory.md, notation.

    >>> first, second = views_with_spectrum(jax.random.key(0), 8, [3.0, 1.0], [2.0, 0.5])
    >>> print(f"{(first * second).sum() / 8:.4f}")
    2.5000
    """
    raise NotImplementedError
