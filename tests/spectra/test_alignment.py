"""Two branches compared: the definitions in NumPy float64, and cases solved by hand."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from rdm_jax.spectra import (
    branches_with_filter,
    commutator_norm,
    eigenspace_alignment,
    low_pass_index,
    principal_angles,
    spectral_filter,
)

EPS = float(np.finfo(np.float32).eps)
OF_BRANCHES = {
    "spectral_filter": spectral_filter,
    "eigenspace_alignment": eigenspace_alignment,
    "commutator_norm": commutator_norm,
    "principal_angles": lambda online, target: principal_angles(online, target, 1),
}


@pytest.fixture
def branches(rng):
    """Two unrelated branches with clearly separated spectra."""
    online = (rng.normal(size=(12, 5)) * [1, 3, 0.5, 2, 1]) @ np.linalg.qr(rng.normal(size=(5, 5)))[0]
    return online, rng.normal(size=(12, 5)) * [5, 0.2, 2.5, 1, 0.5] + 0.4


def by_definition(online, target):
    """Moments and the target's eigensystem, largest first."""
    moments = [branch.T @ branch / len(branch) for branch in (online, target)]
    values, vectors = np.linalg.eigh(moments[1])
    return *moments, values[::-1], vectors[:, ::-1]


# The measured filter.


@pytest.mark.parametrize(("n", "d"), [(20, 6), (6, 20), (6, 6)])
def test_a_planted_filter_is_measured(key, n, d):
    spectrum = np.array([9.0, 5, 3, 1, 0.2, 1e-3])
    gains = np.array([0.5, 2, 1, 0, 0.7, 3])
    padding = np.zeros(d - 6)
    online, target = branches_with_filter(key, n, np.append(spectrum, padding), np.append(gains, padding))
    measured = spectral_filter(online, target)
    assert measured.valid.shape == (6,) and measured.valid.all()
    # A gain's error is eps s_max / s_i, times how much larger the largest gain is; s_max / s_6 = 95.
    assert_allclose(measured.gains, gains, atol=3e-5, rtol=3e-5)
    assert_allclose(measured.spectrum, spectrum, rtol=1e-4)


def test_gains_follow_the_definition_without_shared_eigenspaces(x64, branches):
    moment, _, values, vectors = by_definition(*branches)
    measured = spectral_filter(*branches)
    assert_allclose(measured.spectrum, values, rtol=1e-10)
    expected = [math.sqrt(v @ moment @ v / value) for v, value in zip(vectors.T, values, strict=True)]
    assert_allclose(measured.gains, expected, rtol=1e-10)


def test_null_directions_are_masked(key):
    online, target = branches_with_filter(key, 8, [4.0, 2, 0, 0], [1.0, 3, 5, 5])
    measured = spectral_filter(online + 1, target)
    assert measured.valid.tolist() == [True, True, False, False]
    assert (measured.gains[2:] == 0).all() and (measured.spectrum[2:] == 0).all()
    assert_allclose(measured.spectrum[:2], [4, 2], rtol=1e-5)


def test_online_may_collapse_but_not_the_target(branches):
    _, target = branches
    assert (spectral_filter(np.zeros((12, 5)), target).gains == 0).all()
    with pytest.raises(ValueError, match="target is all zero"):
        spectral_filter(target, np.zeros((12, 5)))
    traced = jax.jit(spectral_filter)(target, np.zeros((12, 5)))
    assert np.isnan(traced.gains).all() and np.isnan(traced.spectrum).all() and not traced.valid.any()


# The low-pass index.


def index_by_pairs(gains, spectrum):
    """The definition, a pair at a time."""
    agreement = total = 0.0
    for (g, value), (other_g, other) in itertools.combinations(zip(gains, spectrum, strict=True), 2):
        agreement += value * other * np.sign(g - other_g) * np.sign(value - other)
        total += value * other * (value != other)
    return agreement / total


def test_low_pass_index_by_hand():
    # Pair masses 8, 4, 2, of which the first is out of order.
    assert_allclose(low_pass_index([2.0, 3.0, 1.0], [4.0, 2.0, 1.0]), -2 / 14, rtol=8 * EPS)
    # A tied gain counts 0, a tied eigenvalue not at all.
    assert_allclose(low_pass_index([2.0, 2.0, 1.0], [4.0, 2.0, 1.0]), 6 / 14, rtol=8 * EPS)
    assert_allclose(low_pass_index([3.0, 1.0, 2.0], [4.0, 1.0, 1.0]), 1, rtol=8 * EPS)


@pytest.mark.parametrize("spectrum", [[9.0, 4, 2, 1], [1.0, 9, 4, 2], [1e-20, 9e-20, 4e-20, 2e-20]])
def test_low_pass_index_at_its_ends(spectrum):
    spectrum = np.array(spectrum)
    for power in (0.01, 1.0, 3.0):
        gains = (spectrum / spectrum.max()) ** power
        assert_allclose(low_pass_index(gains, spectrum), 1, rtol=8 * EPS)
        assert_allclose(low_pass_index(1 / gains, spectrum), -1, rtol=8 * EPS)
    assert low_pass_index(np.full(4, 0.3), spectrum) == 0


def test_low_pass_index_is_the_mean_over_pairs(rng):
    spectrum, gains = rng.exponential(size=(2, 3, 15)).astype(np.float32)
    expected = [index_by_pairs(g, s) for g, s in zip(gains, spectrum, strict=True)]
    assert max(np.abs(expected)) < 0.9 and np.std(expected) > 0.01
    assert_allclose(low_pass_index(gains, spectrum), expected, atol=32 * EPS)
    assert_allclose(jax.jit(jax.vmap(low_pass_index))(gains, spectrum), expected, atol=32 * EPS)


def test_where_the_spectrum_is_zero_gains_do_not_matter():
    assert_allclose(low_pass_index([2.0, 3.0, 1.0, np.nan, -5.0], [4.0, 2.0, 1.0, 0.0, 0.0]), -1 / 7, rtol=8 * EPS)


def test_equal_branches_have_no_order(branches):
    """What rounding does to the gains of two equal branches is no filter."""
    online, _ = branches
    assert low_pass_index(*spectral_filter(online, online)[1::-1]) == 0
    assert low_pass_index(*spectral_filter(online * 3, online)[1::-1]) == 0


def test_ties_are_within_the_tolerance_asked_for():
    gains, spectrum = [1.05, 1.0, 0.5], [4.0, 2.0, 1.0]
    assert_allclose(low_pass_index(gains, spectrum), 1, rtol=8 * EPS)
    assert_allclose(low_pass_index(gains, spectrum, rtol=0.1), 6 / 14, rtol=8 * EPS)


def test_low_pass_index_refuses_what_has_no_answer():
    for gains, spectrum, message in [
        ([1.0, 2.0], [3.0, 3.0], "no two different eigenvalues"),
        ([1.0, 2.0], [3.0, 0.0], "no two different eigenvalues"),
        ([1.0, -2.0], [3.0, 1.0], "finite and >= 0"),
        ([1.0, np.nan], [3.0, 1.0], "finite and >= 0"),
        ([1.0, 2.0], [0.0, 0.0], "all zero"),
        ([1.0, 2.0], [np.inf, 1.0], "NaN or inf"),
    ]:
        with pytest.raises(ValueError, match=message):
            low_pass_index(gains, spectrum)
        assert np.isnan(jax.jit(low_pass_index)(jnp.array(gains), jnp.array(spectrum)))
    with pytest.raises(ValueError, match="one shape"):
        low_pass_index([1.0], [3.0, 1.0])


# Eigenspaces.


def test_alignment_follows_the_definition(x64, branches):
    moment, _, _, vectors = by_definition(*branches)
    expected = [v @ moment @ v / np.linalg.norm(moment @ v) for v in vectors.T]
    assert_allclose(eigenspace_alignment(*branches), expected, rtol=1e-10)
    assert_allclose(eigenspace_alignment(*branches, top=2), expected[:2], rtol=1e-10)


@pytest.mark.parametrize(("n", "d"), [(20, 4), (4, 20)])
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_shared_eigenspaces_are_aligned_at_any_scale(key, n, d, scale):
    zeros = np.zeros(d - 4)
    online, target = branches_with_filter(
        key, n, np.append([9.0, 4, 1, 0.1], zeros), np.append([2.0, 0.1, 1, 3], zeros)
    )
    assert_allclose(eigenspace_alignment(online * scale, target), np.ones(4), rtol=1e-4)
    assert_allclose(commutator_norm(online * scale, target / scale), 0, atol=20 * EPS)


def test_alignment_is_nan_where_it_is_undefined(key):
    online, target = branches_with_filter(key, 9, [4.0, 2, 1, 0], [1.0, 0, 3, 1])
    assert np.isnan(eigenspace_alignment(online, target)).tolist() == [False, True, False, True]


def test_alignment_of_a_rotated_plane_by_hand():
    # C_online = diag(4, 1) seen along (cos a, sin a): (4 c^2 + s^2) / sqrt(16 c^2 + s^2).
    angle = 0.3
    c, s = math.cos(angle), math.sin(angle)
    online, target = np.diag([2.0, 1.0]), np.diag([3.0, 1.0]) @ np.array([[c, s], [-s, c]])
    expected = [(4 * c**2 + s**2) / math.hypot(4 * c, s), (4 * s**2 + c**2) / math.hypot(4 * s, c)]
    assert_allclose(eigenspace_alignment(online, target), expected, rtol=1e-5)
    assert_allclose(principal_angles(online, target, 1), [angle], rtol=1e-5)


def test_commutator_follows_the_definition(x64, branches):
    left, right, *_ = by_definition(*branches)
    expected = np.linalg.norm(left @ right - right @ left) / np.linalg.norm(left) / np.linalg.norm(right)
    assert_allclose(commutator_norm(*branches), expected, rtol=1e-10)
    assert_allclose(commutator_norm(*branches[::-1]), expected, rtol=1e-10)
    with pytest.raises(ValueError, match="all zero"):
        commutator_norm(branches[0], np.zeros((12, 5)))


@pytest.mark.parametrize("shape", [(12, 5), (5, 12)])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_principal_angles_follow_the_definition(x64, rng, shape, k):
    online, target = rng.normal(size=(2, *shape)) * np.arange(1, shape[1] + 1)
    bases = [np.linalg.svd(branch)[2][:k].T for branch in (online, target)]
    cosines = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    # The arc cosine of a rounded 1 is off by sqrt(eps).
    assert_allclose(principal_angles(online, target, k), np.arccos(np.clip(cosines, 0, 1)), atol=5e-8)


@pytest.mark.parametrize("angle", [1e-5, 1e-2, 1.0, math.pi / 2])
def test_principal_angles_of_a_rotated_space(angle):
    c, s = math.cos(angle), math.sin(angle)
    # Span of e1, e2 against span of e1, cos e2 + sin e3.
    online, target = np.diag([3.0, 2, 0, 0]), np.array([[3.0, 0, 0, 0], [0, 2 * c, 2 * s, 0], [0] * 4, [0] * 4])
    assert_allclose(principal_angles(online, target, 2), [0, angle], atol=5 * EPS, rtol=1e-5)


# What all of them share.


@pytest.mark.parametrize("function", OF_BRANCHES.values(), ids=OF_BRANCHES.keys())
def test_jit_and_vmap_change_nothing_and_there_is_no_gradient(branches, function):
    online, target = (jnp.asarray(branch, jnp.float32) for branch in branches)
    alone = function(online, target)
    for left, right in zip(jax.tree.leaves(jax.jit(function)(online, target)), jax.tree.leaves(alone), strict=True):
        assert_allclose(left, right, rtol=1e-5, atol=1e-6)
    pair = jax.vmap(function)(jnp.stack([online, target]), jnp.stack([target, online]))
    for left, right in zip(jax.tree.leaves(pair), jax.tree.leaves(alone), strict=True):
        assert_allclose(left[0], right, rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda x: jax.tree.reduce(jnp.add, jax.tree.map(jnp.sum, function(x, target))))(online)
    assert (gradient == 0).all()


@pytest.mark.parametrize("function", OF_BRANCHES.values(), ids=OF_BRANCHES.keys())
def test_bad_branches_are_refused(branches, function):
    online, target = branches
    for bad, message in [
        (target[:5], r"same samples in one space, got \(12, 5\) and \(5, 5\)"),
        (target[:, :3], "same samples in one space"),
        (target[0], r"target must have shape \(n, d\)"),
        (np.where(target == target[2, 1], np.nan, target), "target of shape .* NaN or inf"),
    ]:
        with pytest.raises(ValueError, match=message):
            function(online, bad)
    traced = jax.jit(function)(online, jnp.asarray(target).at[2, 1].set(jnp.inf))
    floats = [leaf for leaf in jax.tree.leaves(traced) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert all(np.isnan(leaf).all() for leaf in floats)


def test_counts_are_checked(branches):
    for top in (0, 6):
        with pytest.raises(ValueError, match=r"top must be in \[1, min\(n, d\)\] = \[1, 5\]"):
            eigenspace_alignment(*branches, top=top)
        with pytest.raises(ValueError, match=r"k must be in"):
            principal_angles(*branches, top)
