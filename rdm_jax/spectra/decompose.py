"""The only calls of eigh and svd: order, clipping, the null tolerance, and gradients that stay finite.

Differentiating an eigensolver divides by differences of eigenvalues: NaN where two are equal. The values
alone do not need that. Here their derivatives are first-order perturbation theory,

    d lambda_i = v_i^T dC v_i,        d s_i = u_i^T dA v_i,

finite everywhere and, for every symmetric function of the values (an entropy, a trace, a norm), right at
repeated values too, whichever basis of the eigenspace the solver returned. Forward and reverse mode both
work; *second* derivatives go through the eigenvectors and are NaN at repeated values.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from rdm_jax._checks import as_features, as_floating, poison, require, rounding
from rdm_jax._products import product
from rdm_jax.types import Array, ArrayLike, Features, Flag, Moment, Scalar, Spectrum


class Eigensystem(NamedTuple):
    """Eigenvalues, largest first, and the matching orthonormal eigenvectors in the columns of ``vectors``."""

    values: Spectrum
    vectors: Moment


def null_tolerance(shape: tuple[int, ...], dtype: Any) -> float:
    """The fraction of s_max below which a singular value is rounding: max(n, d) * eps.

    The project's one definition of a null direction. It is meant for singular values; an eigenvalue of
    the second moment is null below its square.

    Args:
        shape: of the feature matrix; its last two axes count.
        dtype: that the decomposition is computed in.

    Returns:
        The relative tolerance, a Python float.

    >>> f"{null_tolerance((256, 2048), 'float32'):.2e}"
    '2.44e-04'

    Source: the usual bound on the backward error of an SVD, Golub and Van Loan 2013, section 5.4; so does NumPy's rank.
    """
    return max(shape[-2:]) * float(jnp.finfo(dtype).eps)


def eigenvalues(moment: ArrayLike) -> Spectrum:
    """Eigenvalues of a second moment or covariance, largest first.

    Negatives within rounding of 0 become 0. The gradient is V diag(g) V^T: finite, and for symmetric
    functions of the eigenvalues right at repeated and at zero ones.

    Args:
        moment: (d, d), symmetric and positive semidefinite up to rounding, in feature units squared.

    Returns:
        (d,) eigenvalues, descending, all >= 0.

    Raises:
        ValueError: not square, not symmetric, NaN or inf, or an eigenvalue negative beyond rounding.
            Under a trace the result is NaN instead.

    >>> import numpy as np
    >>> np.asarray(eigenvalues([[2.0, 1.0], [1.0, 2.0]])).round(4).tolist()
    [3.0, 1.0]

    Source: docs/theory.md, notation.
    """
    matrix, coarseness = _as_moment(moment)
    values, *sound = _checked_eigenvalues(matrix, coarseness)
    return poison(values, _required(matrix, *sound))


def eigensystem(moment: ArrayLike) -> Eigensystem:
    """Eigenvalues, largest first, and eigenvectors of a second moment or covariance; no gradient.

    C = V diag(lambda) V^T. The gradient is stopped: eigenvectors have none at repeated eigenvalues.

    Args:
        moment: (d, d), symmetric and positive semidefinite up to rounding, in feature units squared.

    Returns:
        ``values`` (d,), descending, >= 0, and ``vectors`` (d, d), eigenvector i in column i.

    Raises:
        ValueError: as ``eigenvalues``. Under a trace both arrays are NaN instead.

    >>> import numpy as np
    >>> values, vectors = eigensystem([[1.0, 0.0], [0.0, 4.0]])
    >>> np.asarray(values).round(4).tolist(), abs(np.asarray(vectors)).round(4).tolist()
    ([4.0, 1.0], [[0.0, 1.0], [1.0, 0.0]])

    Source: docs/theory.md, notation.
    """
    matrix, coarseness = _as_moment(moment)
    values, vectors, *sound = _checked_eigensystem(jax.lax.stop_gradient(matrix), coarseness)
    valid = _required(matrix, *sound)
    return Eigensystem(poison(values, valid), poison(vectors, valid))


def singular_values(features: ArrayLike) -> Spectrum:
    """Singular values of a feature matrix, largest first.

    Backward stable: the error of each is a small multiple of eps * s_max, so values below
    ``null_tolerance`` of the largest are rounding. (Square roots of a Gram matrix's eigenvalues would be
    off by sqrt(eps) * s_max.) The gradient of s_i is u_i v_i^T; of null ones it is 0, a subgradient.

    Args:
        features: (n, d), not centred, not divided by sqrt(n).

    Returns:
        (min(n, d),) singular values, descending, in feature units.

    Raises:
        ValueError: not a nonempty (n, d) array, or NaN or inf in it. Under a trace the result is NaN instead.

    >>> import numpy as np
    >>> np.asarray(singular_values([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]])).round(4).tolist()
    [4.0, 3.0]

    Source: docs/theory.md, notation.
    """
    array, finite = as_features(features)
    return poison(_singular_values(array if array.shape[0] >= array.shape[1] else array.T), finite)


def right_singular(features: Features) -> tuple[Float[Array, " k"], Float[Array, "d k"]]:
    """Singular values, largest first, and right singular vectors in the columns of (d, min(n, d)); no checks."""
    if features.shape[0] >= features.shape[1]:
        return _tall_svd(features)
    basis, triangle = _thin_qr(features.T)
    values, vectors = _tall_svd(triangle.T)
    return values, product(basis, vectors)


def small_side(features: Features) -> tuple[Float[Array, " k"], Float[Array, "k k"]]:
    """Singular values, in either order, and singular vectors on the smaller side; no checks.

    The vectors are left ones in the columns of (n, n) if n < d, else right ones in the columns of (d, d).
    """
    return _tall_svd(_tall(features))


def small_side_by_gram(features: Features) -> tuple[Float[Array, " k"], Float[Array, "k k"]]:
    """The same as ``small_side`` from the smaller Gram matrix, several times as fast, with half the digits.

    Relative errors are about eps * (s_max / s_i)^2: below sqrt(eps) * s_max everything is rounding.
    """
    tall = _tall(features)
    gram = product(tall.T, tall)
    vectors, values = _symmetric_eigh(gram)
    return jnp.sqrt(jnp.maximum(values, 0)), vectors


def _tall(features: Features) -> Float[Array, "long short"]:
    return features if features.shape[0] >= features.shape[1] else features.T


def _as_moment(moment: ArrayLike) -> tuple[Moment, float]:
    """The matrix, and its input's epsilon in units of the working epsilon."""
    matrix = as_floating(moment, "moment")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ValueError(
            f"moment must have shape (d, d) with d >= 1, got {matrix.shape}; "
            "for features use rdm_jax.spectra.second_moment(features) first"
        )
    return matrix, _epsilon(jnp.asarray(moment).dtype) / _epsilon(matrix.dtype)


def _required(matrix: Moment, finite: Flag, symmetric: Flag, nonnegative: Flag) -> Flag:
    require(finite, f"moment of shape {matrix.shape} holds NaN or inf; check the features it was computed from")
    require(symmetric, f"moment of shape {matrix.shape} is not symmetric; pass (moment + moment.T) / 2 if it should be")
    require(
        nonnegative,
        "moment has a negative eigenvalue beyond rounding: it must be a second moment or covariance, "
        "which have none (use rdm_jax.spectra.second_moment)",
    )
    return finite & symmetric & nonnegative


def _epsilon(dtype: Any) -> float:
    return float(jnp.finfo(dtype).eps) if jnp.issubdtype(dtype, jnp.floating) else float(jnp.finfo(float).eps)


@jax.jit
def _checked_eigenvalues(matrix: Moment, coarseness: Scalar | float) -> tuple[Spectrum, Flag, Flag, Flag]:
    values = _eigenvalues(matrix)
    return _clipped(values), *_soundness(matrix, values, coarseness)


@jax.jit
def _checked_eigensystem(matrix: Moment, coarseness: Scalar | float) -> tuple[Spectrum, Moment, Flag, Flag, Flag]:
    values, vectors = _eigh(matrix)
    return _clipped(values), vectors, *_soundness(matrix, values, coarseness)


def _clipped(values: Spectrum) -> Spectrum:
    """Set negatives to 0, letting gradients through: that of the trace is 1 at 0 too."""
    return values - jax.lax.stop_gradient(jnp.minimum(values, 0))


def _soundness(matrix: Moment, values: Spectrum, coarseness: Scalar | float) -> tuple[Flag, Flag, Flag]:
    """Finite, symmetric, and no eigenvalue below 0, up to the rounding of what was given."""
    symmetric = jnp.max(jnp.abs(matrix - matrix.T)) <= coarseness * jnp.max(rounding(matrix))
    return jnp.all(jnp.isfinite(matrix)), symmetric, values[-1] >= -coarseness * rounding(values)


def _one_by_one(decomposition: Callable[[Array], Any]) -> Callable[[Array], Any]:
    """The decomposition, which on a CPU takes the matrices of a batch one after the other.

    XLA's CPU runtime lets batches of decompositions that do not depend on each other run side by side in its pool of
    threads, where with few threads they can wait for each other forever (seen with jaxlib 0.10.2 on two cores).
    """

    @jax.custom_batching.custom_vmap
    def apply(matrix: Array) -> Any:
        return decomposition(matrix)

    @apply.def_vmap
    def batched(size: int, is_batched: list[bool], matrices: ArrayLike) -> tuple[Any, Any]:
        out = jax.lax.platform_dependent(
            matrices, cpu=lambda batch: jax.lax.map(apply, batch), default=jax.vmap(decomposition)
        )
        return out, jax.tree.map(lambda leaf: True, out)

    return apply


@_one_by_one
def _eigh(matrix: Moment) -> tuple[Spectrum, Moment]:
    values, vectors = jnp.linalg.eigh(matrix)
    return values[::-1], vectors[:, ::-1]


@_one_by_one
def _symmetric_eigh(matrix: Moment) -> tuple[Moment, Spectrum]:
    """Eigenvectors and eigenvalues in LAPACK's order, smallest first, of a matrix that is exactly symmetric."""
    vectors, values = jax.lax.linalg.eigh(matrix, symmetrize_input=False)
    return vectors, values


@_one_by_one
def _thin_qr(matrix: Array) -> tuple[Array, Array]:
    basis, triangle = jnp.linalg.qr(matrix)
    return basis, triangle


@jax.custom_jvp
def _eigenvalues(matrix: Moment) -> Spectrum:
    # On a CPU XLA's eigvalsh computes the vectors too and drops them; bisection takes a third of the time or less.
    return jax.lax.platform_dependent(matrix, cpu=_bisected, default=lambda m: jnp.linalg.eigvalsh(m)[::-1])


@_one_by_one
def _bisected(matrix: Moment) -> Spectrum:
    largest = jnp.max(jnp.abs(matrix))
    unit = (matrix + matrix.T) / jnp.where(largest > 0, 2 * largest, 1)
    _, diagonal, beside, _ = jax.lax.linalg.tridiagonal(unit, lower=True)
    return largest * jax.scipy.linalg.eigh_tridiagonal(diagonal, beside, eigvals_only=True)[::-1]


@_eigenvalues.defjvp
def _eigenvalues_jvp(primals: tuple[Moment], tangents: tuple[Moment]) -> tuple[Array, Array]:
    values, vectors = _eigh(*primals)
    moved = product(*tangents, vectors)
    return values, jnp.sum(vectors * moved, axis=0)


@jax.jit
@_one_by_one
def _tall_svd(tall: Features) -> tuple[Spectrum, Moment]:
    """Singular values and right singular vectors (in columns) of a matrix with n >= d."""
    # Of the transpose: LAPACK reads and writes columns, so that neither the input nor the vectors need a copy.
    vectors, values, _ = jnp.linalg.svd(_square(tall).T, full_matrices=False)
    return values, vectors


def _square(tall: Features) -> Moment:
    """A (d, d) matrix with the same singular values and right singular vectors."""
    # LAPACK's svd of a tall matrix, as XLA calls it, asks for an (n, n) workspace.
    return jnp.linalg.qr(tall, mode="r") if tall.shape[0] > tall.shape[1] else tall


@jax.custom_jvp
@jax.jit
@_one_by_one
def _singular_values(tall: Features) -> Spectrum:
    return jnp.linalg.svd(_square(tall), compute_uv=False)


@_singular_values.defjvp
def _singular_values_jvp(primals: tuple[Features], tangents: tuple[Features]) -> tuple[Array, Array]:
    (tall,) = primals
    values, right = _tall_svd(tall)
    alive = values > null_tolerance(tall.shape, tall.dtype) * values[0]
    left = product(tall, right) / jnp.where(alive, values, jnp.inf)[None]
    moved = product(*tangents, right)
    return values, jnp.sum(left * moved, axis=0)
