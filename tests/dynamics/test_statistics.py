"""Statistics against NumPy, prediction beside simulation along trajectories, and rates against what happens next."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rdm_jax.dynamics import (
    EigenmodeParameters,
    Eigenmodes,
    FeatureDesign,
    FeatureParameters,
    LinearDesign,
    LinearParameters,
    Modes,
    SampleParameters,
    Statistics,
    ViewFeatures,
    aligned_branches,
    branch_field,
    branch_statistics,
    eigenmode_statistics,
    feature_field,
    feature_statistics,
    mode_field,
    mode_statistics,
    solve,
)
from tests.dynamics import feature_cases, linear_cases

pytestmark = pytest.mark.usefixtures("x64")

PER_MODE = ("spectrum", "signal", "online", "target", "gains", "threshold", "rates")
FINITE_TIME = ("cosine, persistent", "squared, learned, free")
TIMES = np.array([0.0, 0.5, 2.0])


def erank(spectrum):
    shares = np.asarray(spectrum)[np.asarray(spectrum) > 0] / np.sum(spectrum)
    return np.exp(-(shares * np.log(shares)).sum())


def by_size(statistics):
    """Modes in the order of a matrix's eigenvalues; the outputs' spectra in their own."""
    order = np.argsort(-statistics.spectrum, axis=-1)
    sorted_ones = {name: np.take_along_axis(getattr(statistics, name), order, -1) for name in PER_MODE}
    for name in ("online", "target"):
        sorted_ones[name] = -np.sort(-sorted_ones[name], axis=-1)
    return statistics._replace(**sorted_ones)


@pytest.fixture(scope="module")
def trajectories():
    """States of mean field and features of two designs side by side over finite time; integrated as one."""
    designs = {name: feature_cases.DESIGNS[name] for name in FINITE_TIME}

    def both(t, state, args):
        return {
            name: (
                mode_field(design)(t, state[name][0], args[name]),
                feature_field(design)(t, state[name][1], args[name]),
            )
            for name, (design, _) in designs.items()
        }

    with jax.enable_x64(True):
        starts = {name: feature_cases.start_of(design)[:2] for name, (design, _) in designs.items()}
        args = {name: feature_cases.parameters(*case) for name, case in designs.items()}
        return solve(both, starts, args, TIMES).record


@pytest.mark.parametrize("name", FINITE_TIME)
def test_the_mean_field_is_exact_over_finite_time(trajectories, name):
    modes, features = jax.tree.map(np.asarray, trajectories[name])
    spectra = [np.linalg.eigvalsh(first.T @ first / feature_cases.SAMPLES)[::-1] for first in features.first]
    np.testing.assert_allclose(spectra, -np.sort(-modes.spectrum, axis=1), atol=1e-8)
    assert np.abs(np.diff(modes.spectrum, axis=0)).min() > 0.01  # and something happens


def test_statistics_of_features_are_those_of_their_modes(trajectories):
    design, numbers = feature_cases.DESIGNS["cosine, persistent"]
    modes, views = jax.tree.map(lambda leaf: leaf[-1], trajectories["cosine, persistent"])
    args = feature_cases.parameters(design, numbers)
    expected = by_size(jax.tree.map(np.asarray, jax.jit(mode_statistics(design))(0.0, modes, args)))
    found = jax.jit(feature_statistics(design))(0.0, views, args)
    for part in Statistics._fields:
        np.testing.assert_allclose(getattr(found, part), getattr(expected, part), atol=1e-8, err_msg=part)
    np.testing.assert_allclose(expected.gains, np.sqrt(expected.online / expected.target), rtol=1e-12)
    for spectrum, rank in (("spectrum", "effective_rank"), ("online", "online_rank"), ("target", "target_rank")):
        np.testing.assert_allclose(getattr(expected, rank), erank(getattr(expected, spectrum)), rtol=1e-12)
    np.testing.assert_allclose(expected.rank_difference, expected.target_rank - expected.online_rank, rtol=1e-12)


def after(field, state, args, step):
    return jax.tree.map(lambda x, slope: x + step * slope, state, field(0.0, state, args))


def assert_rates_are_what_happens(field, record, state, args):
    """By a central difference along the flow: errors of order step^2."""
    step = 1e-5
    now, early, late = (record(0.0, after(field, state, args, h), args) for h in (0.0, -step, step))
    change = (late.effective_rank - early.effective_rank) / (2 * step)
    np.testing.assert_allclose(now.rank_rate, change, rtol=1e-7)
    rates = (np.log(late.spectrum) - np.log(early.spectrum)) / (4 * step)
    np.testing.assert_allclose(now.rates, rates, rtol=1e-7, atol=1e-9)


def test_predicted_rates_of_features_are_what_happens():
    design, numbers = feature_cases.DESIGNS["squared, signed filter, free"]
    modes, views, _ = feature_cases.start_of(design)
    args = feature_cases.parameters(design, numbers)
    assert_rates_are_what_happens(jax.jit(mode_field(design)), jax.jit(mode_statistics(design)), modes, args)
    assert_rates_are_what_happens(jax.jit(feature_field(design)), jax.jit(feature_statistics(design)), views, args)


@pytest.mark.parametrize("name", ["learned, no stop-gradient, cosine", "isoloss, isotropic"])
def test_predicted_rates_of_branches_are_what_happens(name, rng):
    design, closed = linear_cases.DESIGNS[name]
    state = linear_cases.generic_branches(design, rng)
    args = linear_cases.aligned_parameters(closed, linear_cases.rotations(rng).right)
    field, record = jax.jit(branch_field(design)), jax.jit(branch_statistics(design))
    assert_rates_are_what_happens(field, record, state, args)


@pytest.mark.parametrize("name", ["learned, average", "none, average, cosine"])
def test_aligned_branches_have_the_statistics_of_their_modes(name, rng):
    design, closed = linear_cases.DESIGNS[name]
    modes, (left, right) = linear_cases.modes_of(design), linear_cases.rotations(rng)
    expected = eigenmode_statistics(design)(0.0, modes, linear_cases.mode_parameters(closed))
    branches = aligned_branches(modes, left, right[:, : linear_cases.MODES])
    found = jax.jit(branch_statistics(design))(0.0, branches, linear_cases.aligned_parameters(closed, right))
    expected = by_size(jax.tree.map(np.asarray, expected))
    for part in Statistics._fields:
        if part != "gains":  # in the order of the target's eigenvalues, which another ratio makes another one
            np.testing.assert_allclose(getattr(found, part), getattr(expected, part), atol=1e-12, err_msg=part)
    np.testing.assert_allclose(np.sort(found.gains), np.sort(expected.gains), rtol=1e-11)


def test_branches_that_do_not_commute(rng):
    """In NumPy, from the definitions."""
    design = LinearDesign(target="average")
    state = linear_cases.generic_branches(design, rng)
    args = linear_cases.aligned_parameters((), linear_cases.rotations(rng).right)
    found = branch_statistics(design)(0.0, state, args)
    head, encoder, target = map(np.asarray, state)
    signal, total = np.asarray(args.signal), np.asarray(args.signal + args.noise)
    features, online = encoder @ total @ encoder.T, head @ encoder @ total @ encoder.T @ head.T
    goal, pull = target @ total @ target.T, target @ signal @ encoder.T
    values, basis = (part[..., ::-1] for part in np.linalg.eigh(features))
    levels, directions = (part[..., ::-1] for part in np.linalg.eigh(goal))
    np.testing.assert_allclose(found.spectrum, values, rtol=1e-11)
    np.testing.assert_allclose(found.online, np.linalg.eigvalsh(online)[::-1], rtol=1e-10)
    np.testing.assert_allclose(found.target, levels, rtol=1e-11)
    np.testing.assert_allclose(found.signal, np.diag(basis.T @ encoder @ signal @ encoder.T @ basis), rtol=1e-10)
    gains = np.sqrt(np.diag(directions.T @ online @ directions) / levels)
    np.testing.assert_allclose(found.gains, gains, rtol=1e-10)
    threshold = np.diag(basis.T @ pull @ basis) / (values * np.diag(basis.T @ head @ basis))
    np.testing.assert_allclose(found.threshold, threshold, rtol=1e-10)
    np.testing.assert_allclose(found.effective_rank, erank(values), rtol=1e-11)
    np.testing.assert_allclose(found.rank_difference, erank(levels) - erank(found.online), rtol=1e-10)
    left, right = online / np.linalg.norm(online), goal / np.linalg.norm(goal)
    np.testing.assert_allclose(found.commutator, np.linalg.norm(left @ right - right @ left), rtol=1e-11)


def test_samples_have_the_statistics_of_their_moments(rng):
    design = LinearDesign(target="average")
    state = linear_cases.generic_branches(design, rng)
    first = rng.normal(size=(30, linear_cases.MODES + 1))
    moment = first.T @ first / 30
    found = branch_statistics(design)(0.0, state, SampleParameters(first, first))
    expected = branch_statistics(design)(0.0, state, LinearParameters(moment, np.zeros_like(moment)))
    for part in Statistics._fields:
        np.testing.assert_allclose(getattr(found, part), getattr(expected, part), rtol=1e-9, err_msg=part)


def test_modes_without_gain_have_no_threshold_and_padding_changes_nothing():
    args, design = FeatureParameters(0.5, (), (), 1.0, 0.0), FeatureDesign(online="learned", noise="persistent")
    short = mode_statistics(design)(0.0, Modes(np.array([3.0, 1.0]), None, np.array([1.0, 0.5])), args)
    long = mode_statistics(design)(0.0, Modes(np.array([3.0, 1.0, 0.0]), None, np.array([1.0, 0.5, 0.3])), args)
    np.testing.assert_allclose(long.threshold, np.append(short.threshold, 0.0))
    np.testing.assert_allclose(long.rank_rate, short.rank_rate, rtol=1e-13)
    np.testing.assert_allclose(long.rank_difference, short.rank_difference, rtol=1e-13)


def test_negative_predictor_modes_count_with_their_size():
    modes = Eigenmodes(jnp.array([0.5, -0.2]), jnp.array([1.0, 2.0]))
    found = eigenmode_statistics(LinearDesign())(0.0, modes, EigenmodeParameters(noise=0.25))
    np.testing.assert_allclose(found.gains, [0.5, 0.2], rtol=1e-14)
    np.testing.assert_allclose(found.threshold, [1 / (1.25 * 0.5), -1 / (1.25 * 0.2)], rtol=1e-14)


def test_many_seeds_and_parameters_compile_once(key):
    """Features under vmap over starts and continuous parameters."""
    traces, design = [], FeatureDesign("sample cosine", feature_cases.power_gains)

    @jax.jit
    @jax.vmap
    def run(key, exponent):
        traces.append(1)
        start, args = ViewFeatures(jax.random.normal(key, (6, 2))), FeatureParameters(online=exponent)
        return solve(feature_field(design), start, args, jnp.array([0.0, 1.0]))

    for scale in (1.0, 0.5):
        found = run(jax.random.split(key, 3), scale * jnp.array([0.5, 1.0, 2.0]))
        shares = [[np.linalg.norm(first, 2) ** 2 for first in member] for member in found.record.first]
        # S3: without noise a low-pass filter flattens the spectrum
        assert not found.result.any() and (np.diff(shares) < 0).all()
    assert len(traces) == 1
