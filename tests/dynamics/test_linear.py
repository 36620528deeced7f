"""The matrix flow against the gradient of the actual loss, against the eigenmodes, and what it conserves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rdm_jax.dynamics import (
    Branches,
    Eigenmodes,
    LinearDesign,
    LinearParameters,
    SampleParameters,
    aligned_branches,
    branch_field,
    conserved_matrix,
    conserved_modes,
    eigenmode_field,
    random_branches,
    sample_branch_field,
    solve,
)
from tests.dynamics import linear_cases as cases

pytestmark = pytest.mark.usefixtures("x64")

SYMMETRIC = LinearDesign("symmetric")


@pytest.fixture(scope="module")
def generic():
    """Generic positive definite X and X' that don't commute, and views of which they are exactly the moments."""
    rng = np.random.default_rng(7)
    size, n = cases.MODES + 1, 40
    signal, noise = (factor @ factor.T / size for factor in rng.normal(size=(2, size, size)))
    both = np.block([[signal + noise, signal], [signal, signal + noise]])
    samples = np.linalg.qr(rng.normal(size=(n, 2 * size)))[0] * n**0.5 @ np.linalg.cholesky(both).T
    return signal, noise, samples[:, :size], samples[:, size:]


@pytest.fixture(scope="module")
def slopes(generic):
    """Slope of every design at a generic state, from the moments and from the samples; compiled as one."""
    signal, noise, first, second = generic
    rng = np.random.default_rng(3)
    numbers = (cases.ALPHA, cases.ETA, cases.BETA, cases.TAU)
    designs = {**cases.DESIGNS, "symmetric": (SYMMETRIC, ())}

    def both(state, design, closed):
        return (
            branch_field(design)(0.0, state, LinearParameters(signal, noise, *numbers, closed)),
            sample_branch_field(design)(0.0, state, SampleParameters(first, second, *numbers, closed)),
        )

    with jax.enable_x64(True):
        states = {name: cases.generic_branches(design, rng) for name, (design, _) in designs.items()}
        return jax.jit(lambda states: {name: both(states[name], *case) for name, case in designs.items()})(states)


@pytest.mark.parametrize("name", [*cases.DESIGNS, "symmetric"])
def test_the_field_is_the_gradient_of_the_loss_of_samples_with_these_moments(slopes, name):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12), *slopes[name])


def test_the_learned_field_is_the_published_one(generic, rng):
    signal, noise, *_ = generic
    state = cases.generic_branches(LinearDesign(target="average"), rng)
    args = LinearParameters(signal, noise, cases.ALPHA, cases.ETA, cases.BETA)
    slope = branch_field(LinearDesign(target="average"))(0.0, state, args)
    head, encoder, target = map(np.asarray, state)
    error = target @ signal - head @ encoder @ (signal + noise)
    np.testing.assert_allclose(slope.predictor, cases.ALPHA * error @ encoder.T - cases.ETA * head, rtol=1e-12)
    np.testing.assert_allclose(slope.encoder, head.T @ error - cases.ETA * encoder, rtol=1e-12)
    np.testing.assert_allclose(slope.target, cases.BETA * (encoder - target), rtol=1e-12)


def test_a_symmetric_predictor_stays_symmetric(generic, rng):
    state = cases.generic_branches(SYMMETRIC, rng)
    state = state._replace(predictor=state.predictor + state.predictor.T)
    slope = branch_field(SYMMETRIC)(0.0, state, LinearParameters(*generic[:2]))
    np.testing.assert_allclose(slope.predictor, slope.predictor.T, rtol=1e-15)


def test_aligned_branches_move_as_their_modes(rng):
    left, right = cases.rotations(rng)
    seen, root = right[:, : cases.MODES], np.sqrt(cases.S)
    for name, (design, closed) in cases.DESIGNS.items():
        modes = cases.modes_of(design)
        moved = eigenmode_field(design)(0.0, modes, cases.mode_parameters(closed))
        slope = branch_field(design)(0.0, aligned_branches(modes, left, seen), cases.aligned_parameters(closed, right))
        expected = {"encoder": (moved.encoder / (2 * root), seen)}
        if moved.predictor is not None:
            expected["predictor"] = moved.predictor, left
        if moved.ratio is not None:
            expected["target"] = moved.ratio * root + cases.TAU_MODES * moved.encoder / (2 * root), seen
        for part, (values, inner) in expected.items():
            actual = left.T @ np.asarray(getattr(slope, part)) @ inner
            np.testing.assert_allclose(actual, np.diag(values), atol=1e-13, err_msg=f"{name}: {part}")


@pytest.fixture(scope="module")
def trajectories(generic):
    """Aligned modes and matrices side by side, and a generic start, for a moving average; integrated as one."""
    design = LinearDesign(target="average")
    rng = np.random.default_rng(11)
    left, right = cases.rotations(rng)
    signal, noise, *_ = generic

    def field(t, state, args):
        aligned, unaligned = args
        return {
            "modes": eigenmode_field(design)(t, state["modes"], cases.mode_parameters(())),
            "aligned": branch_field(design)(t, state["aligned"], aligned),
            "generic": branch_field(design)(t, state["generic"], unaligned),
        }

    with jax.enable_x64(True):
        modes = cases.modes_of(design)
        start = {
            "modes": modes,
            "aligned": aligned_branches(modes, left, right[:, : cases.MODES]),
            "generic": cases.generic_branches(design, rng),
        }
        args = cases.aligned_parameters((), right), LinearParameters(signal, noise, cases.ALPHA, cases.ETA, cases.BETA)
        return jax.tree.map(np.asarray, solve(field, start, args, np.linspace(0, 40, 9))), left


def test_matrix_and_eigenmode_trajectories_agree(trajectories):
    found, left = trajectories
    modes, branches = found.record["modes"], found.record["aligned"]
    sizes = np.einsum("ij,tik,tlk,lm->tjm", left, branches.encoder, branches.encoder, left)
    heads = np.einsum("ij,tik,kl->tjl", left, branches.predictor, left)
    ratios = (
        np.einsum("ij,tik,tlk,lm->tjm", left, branches.target, branches.encoder, left)
        / sizes.diagonal(0, 1, 2)[:, None]
    )
    for matrices, values in ((sizes, modes.encoder), (heads, modes.predictor), (ratios, modes.ratio)):
        np.testing.assert_allclose(matrices.diagonal(0, 1, 2), values, atol=1e-8)
        assert np.ptp(values, axis=0).min() > 0.01  # and something happens


def test_conservation_along_the_trajectories(trajectories):
    found, _ = trajectories
    decay = np.exp(-2 * cases.ETA * found.times)
    modes, branches = found.record["modes"], found.record["generic"]
    kept = np.asarray(conserved_modes(modes.predictor, modes.encoder, cases.ALPHA))
    assert np.abs(kept - kept[0] * decay[:, None]).max() < 1e-9 * modes.encoder.max()
    kept = np.asarray(conserved_matrix(branches.predictor, branches.encoder, cases.ALPHA))
    largest = np.linalg.norm(branches.encoder, 2, axis=(1, 2)).max() ** 2
    assert np.abs(kept - kept[0] * decay[:, None, None]).max() < 1e-9 * largest


def test_more_samples_come_closer_to_the_moments(generic, rng):
    signal, noise, *_ = generic
    state = cases.generic_branches(LinearDesign(), rng)
    exact = branch_field(LinearDesign())(0.0, state, LinearParameters(signal, noise)).encoder

    def error(n):
        shared = rng.normal(size=(n, len(signal))) @ np.linalg.cholesky(signal).T
        views = (shared + rng.normal(size=(n, len(noise))) @ np.linalg.cholesky(noise).T for _ in range(2))
        slope = sample_branch_field(LinearDesign())(0.0, state, SampleParameters(*views)).encoder
        return np.linalg.norm(slope - exact)

    few, many = (np.sqrt(np.mean([error(n) ** 2 for _ in range(12)])) for n in (100, 10000))
    assert 5 < few / many < 20  # 10, with a relative error of about 1/sqrt(2 * 12) on either


def test_random_branches(key):
    found = random_branches(key, 40, 90, scale=0.2, design=LinearDesign("symmetric", "average"))
    assert found.encoder.shape == found.target.shape == (40, 90) and found.predictor.shape == (40, 40)
    np.testing.assert_array_equal(found.predictor, found.predictor.T)
    np.testing.assert_array_equal(found.target, found.encoder)
    # standard deviations from n entries: 5 standard errors of 1/sqrt(2 n)
    np.testing.assert_allclose(found.encoder.std(), 0.2 / 90**0.5, rtol=5 / (2 * 3600) ** 0.5)
    np.testing.assert_allclose(random_branches(key, 40, 90, scale=0.2).predictor.std(), 0.2 / 40**0.5, rtol=0.09)
    assert random_branches(key, 4, 9, design=LinearDesign("none")).predictor is None


STATE = Branches(jnp.eye(2), jnp.ones((2, 3)))
ARGS = LinearParameters(np.eye(3), np.eye(3))


@pytest.mark.parametrize(
    ("design", "state", "args", "message"),
    [
        ({}, STATE, ARGS._replace(noise=-0.1 * np.eye(3)), "noise must be a second moment"),
        ({}, STATE, ARGS._replace(noise=np.array([[1, 2, 0], [2, 1, 0], [0, 0, 1]])), "noise must be a second moment"),
        ({}, STATE, ARGS._replace(signal=np.triu(np.ones((3, 3)))), "signal must be symmetric"),
        ({}, STATE, ARGS._replace(signal=np.eye(2)), r"signal must be \(k, k\) for an encoder \(d, k\) = \(2, 3\)"),
        ({}, STATE, ARGS._replace(predictor_rate=0.0), "predictor_rate must be positive"),
        ({}, STATE, ARGS._replace(weight_decay=-1.0), "weight_decay must be nonnegative"),
        ({"target": "average"}, STATE, ARGS, "the state's target must be an array for this design"),
        ({"predictor": "none"}, STATE, ARGS, "the state's predictor must be None for this design"),
        ({}, STATE._replace(predictor=jnp.eye(3)), ARGS, r"predictor must have shape \(2, 2\)"),
    ],
)
def test_bad_input_is_a_sentence(design, state, args, message):
    with pytest.raises(ValueError, match=message):
        branch_field(LinearDesign(**design))(0.0, state, args)


def test_bad_views_are_a_sentence():
    with pytest.raises(ValueError, match=r"the views must be \(n, k\) for an encoder"):
        sample_branch_field(LinearDesign())(0.0, STATE, SampleParameters(np.ones((5, 2)), np.ones((5, 2))))


def test_bad_branches_are_a_sentence(key):
    with pytest.raises(ValueError, match="need one column for each of the modes"):
        aligned_branches(Eigenmodes(None, jnp.ones(2)), np.eye(3), np.eye(2))
    with pytest.raises(ValueError, match="encoder modes must be nonnegative"):
        aligned_branches(Eigenmodes(None, -jnp.ones(2)), np.eye(2), np.eye(2))
    with pytest.raises(ValueError, match="widths of at least 1"):
        random_branches(key, 0, 2)
    with pytest.raises(ValueError, match="scale must be positive"):
        random_branches(key, 2, 2, scale=-1.0)
