"""The eigenmode flow against published formulas in NumPy, SciPy's integrator, and its own closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from rdm_jax import theory
from rdm_jax.dynamics import (
    EigenmodeParameters,
    Eigenmodes,
    LinearDesign,
    balanced_eigenmodes,
    conserved_modes,
    critical_weight_decay,
    direct_pred_gains,
    eigenmode_field,
    fixed_points,
    isoloss_gains,
    require_success,
    solve,
)
from tests.dynamics import linear_cases as cases

pytestmark = pytest.mark.usefixtures("x64")

SIGMA = 0.3
SIZE = 1 + SIGMA  # of E[x x^T]
EXPONENT = 0.7


def slope(design, modes, **numbers):
    return eigenmode_field(design)(0.0, modes, EigenmodeParameters(**{"noise": SIGMA, **numbers}))


def published(t, state, alpha, noise, eta, tau):
    p, s = np.split(state, 2)
    return np.concatenate(
        [alpha * s * (tau - (1 + noise) * p) - eta * p, 2 * p * s * (tau - (1 + noise) * p) - 2 * eta * s]
    )


def test_learned_predictor():
    args = {"predictor_rate": cases.ALPHA, "weight_decay": cases.ETA, "target_ratio": cases.TAU}
    found = slope(LinearDesign(), Eigenmodes(jnp.array(cases.P), jnp.array(cases.S)), **args)
    expected = published(0, np.append(cases.P, cases.S), cases.ALPHA, SIGMA, cases.ETA, cases.TAU)
    np.testing.assert_allclose(np.append(found.predictor, found.encoder), expected, rtol=1e-13)


def test_a_moving_average_has_a_ratio_for_each_mode():
    modes = Eigenmodes(jnp.array(cases.P), jnp.array(cases.S), jnp.array(cases.TAU_MODES))
    found = slope(LinearDesign(target="average"), modes, weight_decay=cases.ETA, target_rate=cases.BETA)
    expected = published(0, np.append(cases.P, cases.S), 1.0, SIGMA, cases.ETA, cases.TAU_MODES)
    np.testing.assert_allclose(found.encoder, expected[3:], rtol=1e-13)
    change = cases.BETA * (1 - cases.TAU_MODES) - cases.TAU_MODES * expected[3:] / (2 * cases.S)
    np.testing.assert_allclose(found.ratio, change, rtol=1e-13)


@pytest.mark.parametrize("isotropic", [False, True])
def test_isoloss(isotropic):
    """In lambda = (1 + sigma^2) s, the eigenvalues of E[z z^T], as published."""
    found = slope(
        LinearDesign(isoloss_gains, isotropic=isotropic), Eigenmodes(None, jnp.array(cases.S)), predictor=EXPONENT
    )
    level = SIZE * cases.S
    expected = 2 * level ** (1 if isotropic else 1 + EXPONENT) * (1 - SIZE * level**EXPONENT)
    np.testing.assert_allclose(SIZE * found.encoder, expected, rtol=1e-13)


def test_direct_pred():
    found = slope(
        LinearDesign(direct_pred_gains), Eigenmodes(None, jnp.array(cases.S)), predictor=0.01, weight_decay=0.02
    )
    p = np.sqrt(cases.S / cases.S.max()) + 0.01
    np.testing.assert_allclose(found.encoder, 2 * cases.S * (p * (1 - SIZE * p) - 0.02), rtol=1e-13)


def test_without_predictor_every_mode_decays_by_the_noise():
    found = slope(LinearDesign("none"), Eigenmodes(None, jnp.array(cases.S)))
    np.testing.assert_allclose(found.encoder, -2 * SIGMA * cases.S, rtol=1e-13)


def test_without_stop_gradient_every_mode_decays():
    """s' = -2 ((1 + sigma^2)(p^2 + 1) - 2 p) s: negative for every p, as published."""
    modes = Eigenmodes(jnp.array(cases.P), jnp.array(cases.S))
    found = slope(LinearDesign(stop_gradient=False), modes)
    np.testing.assert_allclose(found.encoder, -2 * (SIZE * (cases.P**2 + 1) - 2 * cases.P) * cases.S, rtol=1e-13)
    assert (found.encoder < 0).all()


@pytest.mark.parametrize("loss", ["squared", "cosine"])
def test_the_modes_are_the_free_features_sped_up_by_the_size_of_the_input(loss):
    """lambda' = 2 (1 + sigma^2) f r lambda, with the theory's growth rates."""
    modes = Eigenmodes(jnp.array(cases.P), jnp.array(cases.S))
    found = slope(LinearDesign(loss=loss), modes)
    filters = {"online_gains": cases.P, "loss": loss}
    rates = theory.growth_rates(SIZE * cases.S, signal=cases.S, **filters)
    factor = theory.common_factor(SIZE * cases.S, **filters)
    np.testing.assert_allclose(found.encoder, 2 * SIZE * factor * rates * cases.S, rtol=1e-12)


@pytest.fixture(scope="module")
def sweep():
    """Random noise, rates and starts, weight decay from 0.1 to 1.5 of the critical value; integrated as one, once."""
    rng = np.random.default_rng(5)
    n, traces = 60, []
    noise, alpha = rng.uniform(0, 1, n), rng.uniform(0.5, 2, n)
    share = np.repeat([0.1, 0.5, 0.9, 1.1, 1.5], n // 5)
    start = rng.uniform(0.05, 1.2, (2, n, 3))

    @jax.jit
    @jax.vmap
    def run(predictor, encoder, alpha, noise, decay):
        traces.append(1)
        args = EigenmodeParameters(alpha, noise=noise, weight_decay=decay)
        times = jnp.array([0.0, 1.0, 5.0, 20.0, 40.0]) / decay
        return solve(eigenmode_field(LinearDesign()), Eigenmodes(predictor, encoder), args, times)

    with jax.enable_x64(True):
        decay = np.asarray(share * critical_weight_decay(noise))
        found = require_success(run(*start, alpha, noise, decay))
        run(*start[:, ::-1], alpha[::-1], noise[::-1], decay[::-1])
    assert len(traces) == 1
    return jax.tree.map(np.asarray, found), {"alpha": alpha, "noise": noise, "decay": decay, "share": share}


def test_conservation(sweep):
    found, numbers = sweep
    modes = found.record
    kept = np.asarray(conserved_modes(modes.predictor, modes.encoder, numbers["alpha"][:, None, None]))
    decay = np.exp(-2 * numbers["decay"][:, None] * found.times)[:, :, None]
    error = np.abs(kept - kept[:, :1] * decay).max(axis=(1, 2))
    assert (error <= 1e-9 * modes.encoder.max(axis=(1, 2))).all()


def test_below_the_critical_weight_decay_modes_end_at_the_fixed_point_or_at_zero(sweep):
    found, numbers = sweep
    below = numbers["share"] < 1
    expected = fixed_points(numbers["noise"][below], numbers["decay"][below], predictor_rate=numbers["alpha"][below])
    p, s = found.record.predictor[below, -1], found.record.encoder[below, -1]
    alive = s > 1e-3
    # at 0.9 of the critical value the slowest rate is a third of eta: exp(-13) is left at t = 40 / eta
    settled = np.broadcast_to((numbers["share"][below] < 0.9)[:, None], alive.shape)
    np.testing.assert_allclose(p, np.where(alive, expected.predictor[:, None], 0), atol=1e-4)
    close = {"rtol": 1e-8, "atol": 1e-10}
    wanted = [np.broadcast_to(values[:, None], alive.shape)[alive & settled] for values in expected[1:3]]
    np.testing.assert_allclose(p[alive & settled], wanted[0], **close)
    np.testing.assert_allclose(s[alive & settled], wanted[1], **close)
    assert 0.2 < alive[settled].mean() < 1


def test_above_the_critical_weight_decay_every_mode_collapses(sweep):
    found, numbers = sweep
    above = numbers["share"] > 1
    assert np.abs(found.record.encoder[above, -1]).max() < 1e-6


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_the_edge_of_the_basin(share):
    eta = float(share * critical_weight_decay(SIGMA))
    point = fixed_points(SIGMA, eta)
    edge = float(point.edge)
    start = balanced_eigenmodes(np.array([0.98 * edge, 1.02 * edge, 1.0]) ** 2)
    args = EigenmodeParameters(noise=SIGMA, weight_decay=eta)
    end = solve(eigenmode_field(LinearDesign()), start, args, [0.0, 1.0, 200 / eta], rtol=1e-12).record
    np.testing.assert_allclose(end.predictor[-1], [0, point.predictor, point.predictor], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(end.encoder[-1], [0, point.encoder, point.encoder], rtol=1e-8, atol=1e-8)


def test_scipy_agrees():
    start, times = np.append(cases.P, cases.S), np.array([0.0, 3.0, 30.0])
    numbers = (cases.ALPHA, SIGMA, cases.ETA, cases.TAU)
    theirs = solve_ivp(published, (0, 30), start, "DOP853", times, args=numbers, rtol=1e-11, atol=1e-13).y.T
    args = EigenmodeParameters(cases.ALPHA, 1.0, SIGMA, cases.ETA, 0.0, cases.TAU)
    ours = solve(
        eigenmode_field(LinearDesign()), Eigenmodes(jnp.array(cases.P), jnp.array(cases.S)), args, times
    ).record
    np.testing.assert_allclose(np.concatenate([ours.predictor, ours.encoder], axis=1), theirs, rtol=1e-8)


def test_a_collapsing_mode_does_no_harm():
    """Far beyond collapse the integrator's error may have either sign; closed forms must not make NaN of it."""
    design = LinearDesign(isoloss_gains)
    args = EigenmodeParameters(noise=SIGMA, weight_decay=5.0, predictor=0.5)
    found = eigenmode_field(design)(0.0, Eigenmodes(None, jnp.array([1.0, -1e-13])), args)
    np.testing.assert_allclose(found.encoder[1], 2 * 5 * 1e-13, rtol=1e-12)


MODES = Eigenmodes(jnp.ones(2), jnp.ones(2))


@pytest.mark.parametrize(
    ("design", "modes", "args", "message"),
    [
        ({}, MODES, {"noise": -0.1}, "noise must be nonnegative and finite, got -0.1"),
        ({}, MODES, {"weight_decay": -1.0}, "weight_decay must be nonnegative"),
        ({}, MODES, {"predictor_rate": 0.0}, "predictor_rate must be positive"),
        ({}, MODES, {"target_ratio": np.inf}, "target_ratio must be finite"),
        ({}, MODES, {"noise": np.ones(3)}, r"noise of shape \(3,\) must fit the encoder modes, which are \(2,\)"),
        ({}, Eigenmodes(jnp.ones(3), jnp.ones(2)), {}, r"predictor of shape \(3,\) must fit"),
        ({}, Eigenmodes(None, jnp.ones(2)), {}, "the state's predictor must be an array for this design"),
        ({"predictor": "none"}, MODES, {}, "the state's predictor must be None for this design"),
        ({"target": "average"}, MODES, {}, "the state's ratio must be an array for this design"),
    ],
)
def test_bad_input_is_a_sentence(design, modes, args, message):
    with pytest.raises(ValueError, match=message):
        eigenmode_field(LinearDesign(**design))(0.0, modes, EigenmodeParameters(**args))


def test_bad_parameters_reach_the_caller_of_solve():
    modes, times = Eigenmodes(jnp.array(cases.P), jnp.array(cases.S)), jnp.array([0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match="noise must be nonnegative and finite"):
        solve(eigenmode_field(LinearDesign()), modes, EigenmodeParameters(noise=-0.1), times)
    run = jax.jit(lambda args: solve(eigenmode_field(LinearDesign()), modes, args, times))
    found = run(EigenmodeParameters(noise=-0.1))
    assert found.result == 3 and np.isnan(found.record.encoder).all()


def test_balanced_modes():
    found = balanced_eigenmodes(cases.S, 2.0, ratio=1.0)
    np.testing.assert_allclose(conserved_modes(found.predictor, found.encoder, 2.0), 0, atol=1e-15)
    np.testing.assert_array_equal(found.ratio, [1, 1, 1])
    with pytest.raises(ValueError, match="encoder must be nonnegative"):
        balanced_eigenmodes([-1.0])
    with pytest.raises(ValueError, match="predictor_rate must be positive"):
        balanced_eigenmodes([1.0], 0.0)
