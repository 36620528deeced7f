"""Decompositions: known matrices, NumPy in float64, and derivatives exactly where eigensolvers have none."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from rdm_jax.spectra import eigensystem, eigenvalues, null_tolerance, singular_values
from rdm_jax.spectra.decompose import right_singular

EPS = float(np.finfo(np.float32).eps)


def orthogonal(rng, d):
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


def matrix_with(rng, n, d, values):
    left, right = np.linalg.qr(rng.normal(size=(n, len(values))))[0], np.linalg.qr(rng.normal(size=(d, len(values))))[0]
    return left * values @ right.T


@functools.lru_cache
def gradient_of(function):
    """Compiled once for each function, not once for each primitive in it."""
    return jax.jit(jax.grad(function))


def central_difference(function, point, direction, step):
    compiled = jax.jit(function)
    return (float(compiled(point + step * direction)) - float(compiled(point - step * direction))) / (2 * step)


def test_eigenvalues_of_a_matrix_solved_by_hand():
    # Characteristic polynomial (5 - l)((2 - l)^2 - 1).
    assert_allclose(eigenvalues(np.array([[2.0, 1, 0], [1, 2, 0], [0, 0, 5]])), [5, 3, 1], rtol=8 * EPS)


@pytest.mark.parametrize("values", [np.ones(40), np.repeat([3.0, 1.0], 20), np.arange(1.0, 41) ** -4, np.eye(40)[0]])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_eigenvalues_keep_an_absolute_error_of_rounding(rng, values, scale):
    rotation = orthogonal(rng, 40)
    moment = (rotation * values @ rotation.T * scale).astype(np.float32)
    moment = (moment + moment.T) / 2
    exact = np.linalg.eigvalsh(moment.astype(np.float64))[::-1]
    assert_allclose(eigenvalues(moment) / scale, np.maximum(exact, 0) / scale, atol=12 * EPS * values.max())


def test_eigensystem_reconstructs_the_matrix_in_order(rng):
    rotation, values = orthogonal(rng, 5), np.array([0.1, 7.0, 2.0, 0.0, 3.0])
    moment = rotation * values @ rotation.T
    found = eigensystem(moment.astype(np.float32))
    assert_allclose(found.values, [7, 3, 2, 0.1, 0], atol=40 * EPS)
    assert_allclose(found.vectors * found.values[None] @ found.vectors.T, moment, atol=40 * EPS)
    assert_allclose(found.vectors.T @ found.vectors, np.eye(5), atol=10 * EPS)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int32"])
def test_narrow_dtypes_are_widened(dtype):
    moment = jnp.array([[2, 1], [1, 2]], dtype)
    assert (
        eigenvalues(moment).dtype == eigensystem(moment).vectors.dtype == singular_values(moment).dtype == jnp.float32
    )
    assert_allclose(eigenvalues(moment), [3, 1], rtol=8 * EPS)


def test_float64_stays_float64(x64, rng):
    rotation, values = orthogonal(rng, 6), np.array([1e4, 3, 1, 1e-3, 1e-6, 0])
    found = eigenvalues(rotation * values @ rotation.T)
    assert found.dtype == jnp.float64
    assert_allclose(found, values, atol=1e-11)


def test_rounding_below_zero_becomes_zero_and_more_is_refused():
    assert eigenvalues(np.diag(np.float32([1, -2e-6])))[1] == 0
    with pytest.raises(ValueError, match="negative eigenvalue beyond rounding"):
        eigenvalues(np.diag([1.0, -1e-3]))
    with pytest.raises(ValueError, match="negative eigenvalue beyond rounding"):
        eigensystem(np.diag([1.0, -1e-3]))


def test_a_coarse_moment_is_judged_by_its_own_rounding(rng):
    vector = rng.normal(size=12)
    moment = jnp.asarray(np.outer(vector, vector), jnp.bfloat16)
    assert float(np.linalg.eigvalsh(np.asarray(moment, np.float64))[0]) < -1e-3  # bfloat16 keeps 8 bits
    assert_allclose(eigenvalues(moment)[0], vector @ vector, rtol=0.02)


@pytest.mark.parametrize(
    ("moment", "message"),
    [
        (np.ones((2, 3)), r"shape \(d, d\).*second_moment"),
        (np.ones(3), r"shape \(d, d\)"),
        (np.ones((0, 0)), r"shape \(d, d\)"),
        (np.array([[1.0, np.nan], [np.nan, 1]]), "NaN or inf"),
        (np.array([[1.0, np.inf], [np.inf, 1]]), "NaN or inf"),
        (np.array([[1.0, 0.5], [0.0, 1]]), "not symmetric"),
        (np.eye(2) * 1j, "must be real"),
        ("moment", "must be a numeric array"),
    ],
)
@pytest.mark.parametrize("function", [eigenvalues, eigensystem])
def test_bad_moments_are_refused(function, moment, message):
    with pytest.raises(ValueError, match=message):
        function(moment)


@pytest.mark.parametrize("entry", [np.nan, -2.0])
def test_bad_moments_are_nan_under_jit(entry):
    moment = jnp.diag(jnp.array([1.0, entry]))
    assert np.isnan(jax.jit(eigenvalues)(moment)).all()
    assert all(np.isnan(part).all() for part in jax.jit(eigensystem)(moment))


def test_vmap_is_a_loop_and_jit_changes_nothing(rng):
    batch = np.stack([matrix_with(rng, 6, 4, [3.0, 2, 1, 0.1]) for _ in range(3)]).astype(np.float32)
    moments = np.einsum("bni,bnj->bij", batch, batch)
    assert_allclose(jax.vmap(eigenvalues)(moments), [eigenvalues(m) for m in moments], rtol=1e-5)
    assert_allclose(jax.vmap(singular_values)(batch), [singular_values(x) for x in batch], rtol=1e-5)
    assert_allclose(jax.jit(singular_values)(batch[0]), singular_values(batch[0]), rtol=1e-6)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="accelerators decompose a batch at once")
@pytest.mark.parametrize("function", [eigenvalues, eigensystem, singular_values, jax.grad(lambda x: eigenvalues(x)[0])])
def test_a_cpu_takes_the_matrices_of_a_batch_one_by_one(function):
    """Batches that run side by side can wait for each other forever: see ``_one_by_one``."""
    program = jax.jit(jax.vmap(function)).lower(jnp.ones((3, 5, 5))).compile().as_text()
    calls = [line for line in program.splitlines() if "lapack" in line]
    assert calls and not any("[3," in line for line in calls)
    whole = jax.jit(jax.vmap(jnp.linalg.eigh)).lower(jnp.ones((3, 5, 5))).compile().as_text()
    assert any("lapack" in line and "[3,5,5]" in line for line in whole.splitlines()), "what is to be avoided"


# Gradients: a function of the moment, and the derivative of what it sums over the eigenvalues.
SMOOTH = {
    "cubes": (lambda moment: jnp.sum(eigenvalues(moment) ** 3), lambda value: 3 * value**2),
    "exponential": (lambda moment: jnp.sum(jnp.exp(-eigenvalues(moment))), lambda value: -np.exp(-value)),
    "trace": (lambda moment: jnp.sum(eigenvalues(moment)), np.ones_like),
}


def sum_of_cubes(matrix):
    return jnp.sum(singular_values(matrix) ** 3)


def nuclear_norm(matrix):
    return jnp.sum(singular_values(matrix))


@pytest.mark.parametrize("values", [(3.0, 2, 1, 0.5), (2.0, 2, 1, 1), (1.0, 1, 1, 1), (2.0, 1, 0, 0), (0.0, 0, 0, 0)])
@pytest.mark.parametrize(("function", "derivative"), SMOOTH.values(), ids=SMOOTH.keys())
def test_gradient_of_eigenvalues_is_the_matrix_function(x64, rng, values, function, derivative):
    rotation, values = orthogonal(rng, 4), np.array(values)
    moment = jnp.asarray(rotation * values @ rotation.T)
    # d/dC tr f(C) = f'(C), computed in the basis the matrix was made from.
    assert_allclose(gradient_of(function)(moment), rotation * derivative(values) @ rotation.T, atol=1e-12)


def test_forward_derivative_of_eigenvalues_is_a_difference_quotient(x64, rng):
    moment, direction = np.diag([4.0, 2, 2, 0.3]), rng.normal(size=(4, 4))
    direction = direction + direction.T

    def function(matrix):
        return jnp.sum(eigenvalues(matrix) ** 1.5)

    moved = jax.jvp(function, (jnp.asarray(moment),), (jnp.asarray(direction),))[1]
    # Second-order differences: error of order step^2 and eps/step.
    assert_allclose(moved, central_difference(function, moment, direction, 1e-5), rtol=1e-8)


def test_eigensystem_has_no_gradient(rng):
    gradient = gradient_of(lambda m: jnp.sum(eigensystem(m).vectors ** 3) + jnp.sum(eigensystem(m).values))(jnp.eye(3))
    assert_allclose(gradient, np.zeros((3, 3)))


def test_singular_values_of_a_matrix_solved_by_hand():
    # A^T A = [[9, 12], [12, 41]] has trace 50 and determinant 225: eigenvalues 45 and 5.
    matrix = np.array([[3.0, 4], [0, 5]])
    expected = np.sqrt([45, 5])
    assert_allclose(singular_values(matrix), expected, rtol=4 * EPS)
    assert_allclose(singular_values(np.vstack([matrix, np.zeros((3, 2))]).T), expected, rtol=4 * EPS)


@pytest.mark.parametrize("shape", [(40, 7), (7, 40), (12, 12), (1, 5), (5, 1)])
def test_singular_values_keep_an_absolute_error_of_rounding(rng, shape):
    true = np.logspace(0, -6, min(shape))
    matrix = matrix_with(rng, *shape, true).astype(np.float32)
    exact = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    # A Gram matrix would be off by sqrt(eps) = 3e-4 at the small end; here a few eps of the largest.
    assert_allclose(singular_values(matrix), exact, atol=6 * EPS)


def test_singular_values_survive_extreme_scales():
    matrix = np.array([[3.0, 4], [0, 5]], np.float32)
    for scale in (1e-30, 1e30):
        assert_allclose(singular_values(matrix * np.float32(scale)) / np.float32(scale), np.sqrt([45, 5]), rtol=1e-5)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (4, 4)])
@pytest.mark.parametrize("values", [(3.0, 2, 1, 0.5), (2.0, 2, 2, 2), (2.0, 1, 1, 0), (1.0, 1, 0, 0)])
def test_gradient_of_singular_values_is_the_polar_form(x64, rng, shape, values):
    left, right = np.linalg.qr(rng.normal(size=(shape[0], 4)))[0], np.linalg.qr(rng.normal(size=(shape[1], 4)))[0]
    values = np.array(values)
    matrix = jnp.asarray(left * values @ right.T)
    # d sum f(s) = U f'(S) V^T; f = s^3 has f'(0) = 0, so null directions take no part.
    gradient = gradient_of(sum_of_cubes)(matrix)
    assert_allclose(gradient, left * (3 * values**2) @ right.T, atol=1e-12)


def test_null_singular_values_take_the_zero_subgradient(x64, rng):
    left, right = np.linalg.qr(rng.normal(size=(5, 2)))[0], np.linalg.qr(rng.normal(size=(3, 2)))[0]
    gradient = gradient_of(nuclear_norm)(jnp.asarray(left * [2.0, 1] @ right.T))
    assert_allclose(gradient, left @ right.T, atol=1e-12)
    assert_allclose(gradient_of(nuclear_norm)(jnp.zeros((5, 3))), np.zeros((5, 3)))


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (5, 5)])
def test_right_singular_vectors_diagonalise(rng, shape):
    matrix = matrix_with(rng, *shape, np.logspace(0, -3, min(shape))).astype(np.float32)
    values, vectors = right_singular(jnp.asarray(matrix))
    assert vectors.shape == (shape[1], min(shape))
    rotated = np.asarray(matrix, np.float64) @ np.asarray(vectors, np.float64)
    assert_allclose(rotated.T @ rotated, np.diag(np.asarray(values, np.float64) ** 2), atol=8 * EPS)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.ones(3), r"shape \(n, d\)"),
        (np.ones((0, 3)), r"shape \(n, d\)"),
        (np.ones((2, 2, 2)), "reshape"),
        (np.array([[1.0, np.inf]]), "NaN or inf"),
    ],
)
def test_bad_features_are_refused(features, message):
    with pytest.raises(ValueError, match=message):
        singular_values(features)


def test_bad_features_are_nan_under_jit():
    assert np.isnan(jax.jit(singular_values)(jnp.array([[1.0, jnp.nan], [0, 1]]))).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_null_tolerance_separates_rounding_from_signal(x64, rng, dtype):
    # Batch normalisation with n <= d leaves one null direction: the constant one.
    features = rng.normal(size=(64, 200)).astype(dtype)
    features -= features.mean(axis=0)
    values = np.asarray(singular_values(features))
    assert np.sum(values > null_tolerance(features.shape, features.dtype) * values[0]) == 63
    assert null_tolerance((3, 200, 64), dtype) == 200 * np.finfo(dtype).eps
