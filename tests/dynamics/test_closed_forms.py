"""Closed forms of the linear dynamics against published numbers, NumPy, and the vector fields themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdm_jax.dynamics import (
    Branches,
    EigenmodeParameters,
    Eigenmodes,
    LinearDesign,
    LinearParameters,
    alignment_bound,
    alignment_threshold,
    branch_field,
    commutator,
    conserved_matrix,
    conserved_modes,
    critical_weight_decay,
    eigenmode_field,
    fixed_points,
    lag_rank_difference,
    plateau,
)

pytestmark = pytest.mark.usefixtures("x64")

SIGMA, ETA, ALPHA, TAU = 0.3, 0.02, 1.7, 0.9


def test_published_numbers():
    found = fixed_points(0.3, 0.01)
    np.testing.assert_allclose(found[:3], [0.0101335, 0.759097, 0.576229], rtol=1e-5)
    np.testing.assert_allclose(critical_weight_decay(0.3), 0.192308, rtol=1e-5)


@settings(max_examples=30)
@given(st.floats(0, 3), st.floats(0.05, 2), st.floats(0.01, 1), st.floats(0.3, 3), st.floats(0.5, 1))
def test_fixed_points_are_roots_and_at_rest(noise, signal, share, alpha, tau):
    eta = share * float(critical_weight_decay(noise, signal=signal, target_ratio=tau))
    found = fixed_points(noise, eta, signal=signal, predictor_rate=alpha, target_ratio=tau)
    roots = np.sort(np.roots([signal + noise, -tau * signal, eta]).real)
    # at the critical value the roots are as far apart as the square root of rounding
    np.testing.assert_allclose([found.edge, found.predictor], roots, rtol=1e-7)
    np.testing.assert_allclose(found.encoder, found.predictor**2 / alpha, rtol=1e-14)
    np.testing.assert_allclose(found.spectrum, (signal + noise) * found.encoder, rtol=1e-14)


def test_the_field_vanishes_at_both_fixed_points():
    found = fixed_points(SIGMA, ETA, predictor_rate=ALPHA, target_ratio=TAU)
    args = EigenmodeParameters(ALPHA, 1.0, SIGMA, ETA, target_ratio=TAU)
    predictor = jnp.stack([found.edge, found.predictor])
    slope = eigenmode_field(LinearDesign())(0.0, Eigenmodes(predictor, predictor**2 / ALPHA), args)
    np.testing.assert_allclose(slope.predictor, 0, atol=1e-15)
    np.testing.assert_allclose(slope.encoder, 0, atol=1e-15)


def test_the_critical_value_itself_has_one_fixed_point():
    found = fixed_points(SIGMA, critical_weight_decay(SIGMA))
    np.testing.assert_allclose([found.edge, found.predictor], 1 / (2 * (1 + SIGMA)), rtol=1e-7)


def test_above_the_critical_value_there_is_none():
    with pytest.raises(
        ValueError, match=r"weight_decay 0\.2 exceeds the critical value .*0\.1923.* lower it, or use plat"
    ):
        fixed_points(0.3, 0.2)
    assert np.isnan(jax.jit(fixed_points)(0.3, 0.2)).all()
    assert np.isfinite(jax.jit(fixed_points)(0.3, 0.19)).all()


def test_the_plateau_has_collapsed_modes_at_zero():
    signal, noise = np.array([1.0, 0.5, 0.2]), np.array([0.3, 0.1, 0.4])
    found = plateau(noise, 0.05, signal=signal, predictor_rate=2.0)
    alive = fixed_points(noise[:2], 0.05, signal=signal[:2], predictor_rate=2.0)
    for mine, theirs in zip(found, alive, strict=True):
        np.testing.assert_array_equal(mine[:2], theirs)
    np.testing.assert_array_equal([values[2] for values in found], [np.inf, 0, 0, 0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: critical_weight_decay(-0.1), "noise must be nonnegative and finite: it is a variance; got -0.1"),
        (lambda: critical_weight_decay(0.1, signal=0.0), "signal and target_ratio must be positive"),
        (lambda: fixed_points(0.1, -0.01), "weight_decay must be nonnegative and finite, got -0.01"),
        (lambda: fixed_points(0.1, 0.01, predictor_rate=0.0), "predictor_rate must be positive and finite"),
        (lambda: lag_rank_difference(0.1, 0.0), "target_rate must be positive and finite"),
        (lambda: alignment_threshold(np.nan), "noise must be nonnegative"),
        (lambda: alignment_bound(np.eye(2), np.eye(3), noise=0.1), r"predictor must be \(d, d\) and encoder \(d, k\)"),
        (lambda: alignment_bound([[1.0, 0.5], [0.0, 1.0]], np.eye(2), noise=0.1), "predictor must be symmetric"),
        (lambda: alignment_bound(np.eye(2), np.eye(2), noise=-0.1), "noise must be nonnegative and finite"),
    ],
)
def test_bad_input_is_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_conserved_quantities(rng):
    predictor, encoder = rng.normal(size=(3, 3)), rng.normal(size=(3, 4))
    expected = encoder @ encoder.T - predictor.T @ predictor / ALPHA
    np.testing.assert_allclose(conserved_matrix(predictor, encoder, ALPHA), expected, rtol=1e-13)
    np.testing.assert_allclose(
        conserved_modes(predictor[0], encoder[0, :3], ALPHA), encoder[0, :3] - predictor[0] ** 2 / ALPHA
    )


@pytest.fixture
def symmetric_branches(rng):
    head = rng.normal(size=(4, 4))
    return (head + head.T) / 2, rng.normal(size=(4, 6))


def test_the_commutator_obeys_its_equation(symmetric_branches):
    """L' = -(K L + L K), with L' from the field of the symmetrised dynamics."""
    predictor, encoder = symmetric_branches
    args = LinearParameters(np.eye(6), SIGMA * np.eye(6), ALPHA, ETA, target_ratio=TAU)
    slope = branch_field(LinearDesign("symmetric"))(0.0, Branches(jnp.array(predictor), jnp.array(encoder)), args)
    size, moved = encoder @ encoder.T, slope.encoder @ encoder.T + encoder @ slope.encoder.T
    change = commutator(moved, predictor) + commutator(size, slope.predictor)
    options = {"noise": SIGMA, "weight_decay": ETA, "predictor_rate": ALPHA, "target_ratio": TAU}
    matrix, now = alignment_bound(predictor, encoder, **options).matrix, commutator(size, predictor)
    np.testing.assert_allclose(change, -(matrix @ now + now @ matrix), atol=1e-12 * np.abs(change).max())


def test_alignment_bound(symmetric_branches):
    predictor, encoder = symmetric_branches
    found = alignment_bound(predictor, encoder, noise=SIGMA, weight_decay=ETA, predictor_rate=ALPHA, target_ratio=TAU)
    matrix = (1 + SIGMA) * (predictor @ predictor + ALPHA / 2 * encoder @ encoder.T) - TAU * predictor
    matrix += 1.5 * ETA * np.eye(4)
    np.testing.assert_allclose(found.matrix, matrix, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.decay, 2 * np.linalg.eigvalsh(matrix)[0], atol=1e-12)
    indefinite = alignment_bound(0.3 * np.eye(2), 0.01 * np.eye(2), noise=0.0)
    np.testing.assert_allclose(indefinite.decay, 2 * (0.09 + 0.5e-4 - 0.3), rtol=1e-12)


@settings(max_examples=30)
@given(st.floats(0, 2), st.floats(0.5, 1), st.floats(-1, 1))
def test_above_the_threshold_alignment_is_unconditional(sigma, tau, p):
    eta = alignment_threshold(sigma, target_ratio=tau)
    found = alignment_bound([[p]], [[0.0]], noise=sigma, weight_decay=eta, target_ratio=tau)
    assert found.decay >= -1e-14
    worst = tau / (2 * (1 + sigma))
    np.testing.assert_allclose(
        alignment_bound([[worst]], [[0.0]], noise=sigma, weight_decay=eta, target_ratio=tau).decay, 0, atol=1e-14
    )


def test_lag_rank_difference():
    np.testing.assert_allclose(lag_rank_difference(np.array([0.5, -1.0]), 4.0), [-0.125, 0.25])
