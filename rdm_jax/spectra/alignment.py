"""How two branches' spectra relate: the measured filter, its monotonicity, and how far eigenspaces are shared.

All of these measure; none carries a gradient (eigenvectors have none at repeated eigenvalues). ``online`` and
``target`` are the features of the two branches for the same n samples, not centred and not normalised here.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from rdm_jax._checks import as_features, as_floating, as_spectrum, poison, require
from rdm_jax._products import product
from rdm_jax.spectra.decompose import null_tolerance, right_singular, singular_values
from rdm_jax.spectra.moments import second_moment
from rdm_jax.types import Array, ArrayLike, Batched, Features, Flag, Gains, Mask, Moment, Scalar, Spectrum


class SpectralFilter(NamedTuple):
    """The filter that takes one branch's spectrum to the other's, as measured by ``spectral_filter``.

    ``spectrum``: eigenvalues of the target's second moment, largest first. ``gains``: what multiplies the
    singular values. ``valid``: where the direction is not null; both others are 0 elsewhere.
    """

    spectrum: Spectrum
    gains: Gains
    valid: Mask


def spectral_filter(online: ArrayLike, target: ArrayLike) -> SpectralFilter:
    """The online branch's filter relative to the target, measured in the target's eigenbasis.

    g_i = sqrt(v_i^T C_online v_i / lambda_i) with C_target v_i = lambda_i v_i. Where both second moments commute
    this is the relative filter of the theory; otherwise also see ``eigenspace_alignment``. Where target
    eigenvalues repeat, the basis of their space, and so how gains spread over it, is arbitrary.

    Args:
        online: (n, d).
        target: (n, d), the same samples.

    Returns:
        ``spectrum`` (k,), ``gains`` (k,) and ``valid`` (k,), with k = min(n, d), largest eigenvalue first. Target
        directions below ``null_tolerance`` of s_max have spectrum 0, gain 0 and valid False.

    Raises:
        ValueError: not (n, d) arrays of the same shape, NaN or inf, or a target that is all zero. Under a trace
            spectrum and gains are NaN and valid is False instead.

    >>> target = jnp.array([[2.0, 0.0], [0.0, 1.0]])
    >>> measured = spectral_filter(target * jnp.array([[3.0, 0.5]]), target)
    >>> [round(float(g), 4) for g in measured.gains], [round(float(v), 4) for v in measured.spectrum]
    ([3.0, 0.5], [2.0, 0.5])

    Source: Zhuo et al. 2023; docs/theory.md, notation.
    """
    online, target, finite = _pair(online, target)
    spectrum, gains, alive = _measured(online, target)
    nonzero = alive[0]
    require(nonzero, "target is all zero: there is no spectrum to compare with (it has collapsed to the origin)")
    valid = finite & nonzero
    return SpectralFilter(poison(spectrum, valid), poison(gains, valid), alive & valid)


def low_pass_index(gains: ArrayLike, spectrum: ArrayLike, *, rtol: float | None = None) -> Batched:
    """How low-pass a filter is: mass-weighted rank correlation of gain and eigenvalue, in [-1, 1].

    sum_{i<j} q_i q_j sgn(g_i - g_j) sgn(lambda_i - lambda_j) / sum_{i<j} q_i q_j |sgn(lambda_i - lambda_j)|, with
    q = spectrum / sum(spectrum): Somers' D of the gain on the eigenvalue, each pair weighted by the product of
    its masses. 1 iff the gain is strictly increasing in the eigenvalue (low-pass), -1 iff strictly decreasing
    (high-pass), 0 if constant. A pair with tied gains counts 0; one with tied eigenvalues does not count.
    Piecewise constant, so its gradient is 0.

    Args:
        gains: (..., d), >= 0; what they are where the spectrum is 0 does not matter.
        spectrum: (..., d), nonnegative, any scale and order.
        rtol: two values tie if they differ by at most rtol times the larger; by default 64 eps, so that
            rounding in the gains of two equal branches is not taken for an order.

    Returns:
        (...), the index.

    Raises:
        ValueError: shapes differ, NaN, inf or negative gains, a spectrum as ``effective_rank`` refuses it, or
            no two different eigenvalues (then there is no order to correlate with). Under a trace the result
            is NaN instead.

    >>> print(f"{low_pass_index([3.0, 1.0, 2.0], [2.0, 1.0, 1.0]):.4f} {low_pass_index([3.0, 1.0], [1.0, 2.0]):.4f}")
    1.0000 -1.0000

    Source: Somers 1962; docs/theory.md, notation (low-pass).
    """
    values, valid = as_spectrum(spectrum)
    sizes = as_floating(gains, "gains").astype(values.dtype)
    if sizes.shape != values.shape:
        raise ValueError(f"gains and spectrum need one shape, got {sizes.shape} and {values.shape}")
    index, sound, ordered = _somers(sizes, values, 64 * float(jnp.finfo(values.dtype).eps) if rtol is None else rtol)
    require(sound, "gains must be finite and >= 0 where the spectrum is not 0; a signed filter has no low-pass order")
    require(ordered, "spectrum has no two different eigenvalues: there is no order for the gains to follow")
    return poison(index, valid & sound & ordered)


def eigenspace_alignment(online: ArrayLike, target: ArrayLike, *, top: int | None = None) -> Spectrum:
    """Cosine between C_online v and v for each eigenvector v of the target's second moment.

    a_i = v_i^T C_online v_i / |C_online v_i|, in [0, 1]: 1 iff v_i is an eigenvector of C_online as well.

    Args:
        online: (n, d).
        target: (n, d), the same samples.
        top: how many leading eigenvectors; None is all min(n, d).

    Returns:
        (top,), largest target eigenvalue first. NaN where it is undefined: a null direction of the target, or
        one that C_online maps to 0.

    Raises:
        ValueError: not (n, d) arrays of the same shape, NaN or inf, or top outside [1, min(n, d)]. Under a trace
            the result is NaN instead.

    >>> target = jnp.array([[2.0, 0.0], [0.0, 1.0]])
    >>> [round(float(a), 4) for a in eigenspace_alignment(jnp.array([[1.0, 1.0], [0.0, 0.0]]), target)]
    [0.7071, 0.7071]

    Source: Zhuo et al. 2023, who take the mean over the top 512 of it.
    """
    online, target, finite = _pair(online, target)
    cosines, defined = _image_cosines(online, target, _count(top, min(target.shape), "top"))
    return poison(cosines, defined & finite)


def commutator_norm(online: ArrayLike, target: ArrayLike) -> Scalar:
    """How far the two second moments are from commuting: |AB - BA|_F / (|A|_F |B|_F), A = C_online, B = C_target.

    Args:
        online: (n, d).
        target: (n, d), the same samples.

    Returns:
        A scalar in [0, sqrt(2)]; 0 iff there is a common eigenbasis.

    Raises:
        ValueError: not (n, d) arrays of the same shape, NaN or inf, or a branch that is all zero. Under a trace
            the result is NaN instead.

    >>> print(f"{commutator_norm(jnp.array([[1.0, 1.0], [0.0, 0.0]]), jnp.array([[2.0, 0.0], [0.0, 0.0]])):.4f}")
    0.7071

    Source: docs/theory.md T14; the bound is Boettcher and Wenzel 2008.
    """
    online, target, finite = _pair(online, target)
    norm, nonzero = _unit_commutator(online, target)
    require(nonzero, "a branch is all zero: a commutator relative to its norm is undefined")
    return poison(norm, finite & nonzero)


def principal_angles(online: ArrayLike, target: ArrayLike, k: int) -> Spectrum:
    """Principal angles between the spaces of the k leading eigenvectors of the two second moments.

    cos theta_i are the singular values of V_online^T V_target; angles below 45 degrees come from their sines, so
    small ones are accurate.

    Args:
        online: (n, d).
        target: (n, d), the same samples.
        k: dimension of both spaces, at most min(n, d). Where eigenvalues k and k + 1 are equal the space is arbitrary.

    Returns:
        (k,) angles in radians, smallest first, in [0, pi/2].

    Raises:
        ValueError: not (n, d) arrays of the same shape, NaN or inf, or k outside [1, min(n, d)]. Under a trace
            the result is NaN instead.

    >>> target = jnp.array([[2.0, 0.0], [0.0, 1.0]])
    >>> [round(float(angle), 4) for angle in principal_angles(jnp.array([[1.0, 1.0], [0.0, 0.0]]), target, 1)]
    [0.7854]

    Source: Bjoerck and Golub 1973.
    """
    online, target, finite = _pair(online, target)
    return poison(_angles(online, target, _count(k, min(target.shape), "k")), finite)


def _pair(online: ArrayLike, target: ArrayLike) -> tuple[Features, Features, Flag]:
    """Both branches without gradient, and whether all is finite."""
    left, left_finite = as_features(online, "online")
    right, right_finite = as_features(target, "target")
    if left.shape != right.shape:
        raise ValueError(f"online and target must be the same samples in one space, got {left.shape} and {right.shape}")
    dtype = jnp.promote_types(left.dtype, right.dtype)
    left, right = (jax.lax.stop_gradient(branch.astype(dtype)) for branch in (left, right))
    return left, right, left_finite & right_finite


def _count(given: int | None, most: int, name: str) -> int:
    count = most if given is None else given
    if not 1 <= count <= most:
        raise ValueError(f"{name} must be in [1, min(n, d)] = [1, {most}], got {given}")
    return count


@jax.jit
def _measured(online: Features, target: Features) -> tuple[Float[Array, " k"], Float[Array, " k"], Bool[Array, " k"]]:
    """The target's eigenvalues, the gains, and which directions are not null."""
    values, vectors = right_singular(target)
    alive = values > null_tolerance(target.shape, target.dtype) * values[0]
    sizes = jnp.linalg.norm(product(online, vectors), axis=0)
    gains = jnp.where(alive, sizes / jnp.where(alive, values, 1), 0)
    return jnp.where(alive, values**2 / len(target), 0), gains, alive


@jax.jit
def _somers(gains: Gains, values: Spectrum, rtol: Scalar | float) -> tuple[Batched, Flag, Flag]:
    """The index, whether the gains are finite and >= 0 on the support, and whether any two eigenvalues differ."""
    gains = jnp.where(values > 0, gains, 0)
    sound = jnp.all((gains >= 0) & jnp.isfinite(gains), axis=-1)
    largest = jnp.max(values, axis=-1, keepdims=True)
    mass = values / jnp.where(largest > 0, largest, 1)
    weights = mass[..., :, None] * mass[..., None, :]
    order = _order(values, rtol)
    total = jnp.sum(weights * jnp.abs(order), axis=(-2, -1))
    agreement = jnp.sum(weights * order * _order(gains, rtol), axis=(-2, -1))
    return agreement / jnp.where(total > 0, total, 1), sound, total > 0


def _order(values: Spectrum, rtol: Scalar | float) -> Array:
    """sgn(v_i - v_j) for all pairs, 0 within the tolerance."""
    rows, columns = values[..., :, None], values[..., None, :]
    tied = jnp.abs(rows - columns) <= rtol * jnp.maximum(rows, columns)
    return jnp.where(tied, 0, jnp.sign(rows - columns))


@partial(jax.jit, static_argnames="top")
def _image_cosines(online: Features, target: Features, top: int) -> tuple[Float[Array, " k"], Bool[Array, " k"]]:
    """cos(C_online v, v) for the leading target eigenvectors, and where it is defined."""
    values, vectors = right_singular(target)
    largest = jnp.max(jnp.abs(online))
    online = online / jnp.where(largest > 0, largest, 1)
    projected = product(online, vectors[:, :top])
    image = jnp.linalg.norm(product(online.T, projected), axis=0)
    tolerance = null_tolerance(target.shape, target.dtype)
    mapped = jnp.linalg.norm(projected, axis=0) > tolerance * jnp.linalg.norm(online)
    defined = (values[:top] > tolerance * values[0]) & mapped
    cosines = jnp.sum(projected**2, axis=0) / jnp.where(defined, image, 1)
    return jnp.clip(cosines, 0, 1), defined


@jax.jit
def _unit_commutator(online: Features, target: Features) -> tuple[Scalar, Flag]:
    left, right = _unit_moment(online), _unit_moment(target)
    both = product(left, right)
    return jnp.linalg.norm(both - both.T), jnp.any(online != 0) & jnp.any(target != 0)


def _unit_moment(features: Features) -> Moment:
    largest = jnp.max(jnp.abs(features))
    moment = second_moment(features / jnp.where(largest > 0, largest, 1))
    norm = jnp.linalg.norm(moment)
    return moment / jnp.where(norm > 0, norm, 1)


@partial(jax.jit, static_argnames="k")
def _angles(online: Features, target: Features, k: int) -> Float[Array, " k"]:
    ours, theirs = (right_singular(branch)[1][:, :k] for branch in (online, target))
    overlap = product(theirs.T, ours)
    cosines = singular_values(overlap)
    sines = singular_values(ours - product(theirs, overlap))[::-1]
    small = cosines**2 > 0.5
    return jnp.where(small, jnp.arcsin(jnp.where(small, sines, 0)), jnp.arccos(jnp.where(small, 0, cosines)))
