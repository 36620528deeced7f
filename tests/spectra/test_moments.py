"""Second moments of arrays, and the same numbers accumulated over batches and devices."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from numpy.testing import assert_allclose

from rdm_jax.spectra import MomentAccumulator, eigenvalues, second_moment
from rdm_jax.spectra.moments import smaller_moment

EPS = float(np.finfo(np.float32).eps)


def moment_by_rows(features, center=False, normalize=False):
    """The definition, a row at a time, in float64."""
    rows = [np.asarray(row, np.float64) for row in np.asarray(features, np.float64)]
    if normalize:
        rows = [row / np.sqrt(sum(row**2)) for row in rows]
    mean = sum(rows) / len(rows) if center else 0
    return sum(np.outer(row - mean, row - mean) for row in rows) / len(rows)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("center", [False, True])
def test_matches_the_definition(rng, center, normalize):
    features = (rng.normal(size=(30, 5)) * [3, 1, 1, 0.1, 2] + [1, 0, -2, 0, 5]).astype(np.float32)
    expected = moment_by_rows(features, center, normalize)
    found = second_moment(features, center=center, normalize=normalize)
    assert found.dtype == jnp.float32
    assert_allclose(found, expected, atol=20 * EPS * np.abs(features).max() ** 2)
    accumulated = MomentAccumulator.init(5).update(features, normalize=normalize).moment(center=center)
    assert_allclose(accumulated, expected, atol=20 * EPS * np.abs(features).max() ** 2)


@pytest.mark.parametrize("shape", [(1, 4), (4, 1), (1, 1)])
def test_single_rows_and_columns(rng, shape):
    features = rng.normal(size=shape).astype(np.float32)
    assert_allclose(second_moment(features), moment_by_rows(features), rtol=4 * EPS)
    centred = second_moment(features, center=True)
    assert_allclose(centred, moment_by_rows(features, center=True), atol=4 * EPS)


def test_constant_rows_have_no_covariance_and_one_direction():
    features = np.full((7, 3), 1e4, np.float32)
    assert_allclose(second_moment(features, center=True), np.zeros((3, 3)))
    assert_allclose(eigenvalues(second_moment(features)), [3e8, 0, 0], rtol=1e-6, atol=100)
    assert_allclose(second_moment(np.zeros((4, 2))), np.zeros((2, 2)))


def test_normalising_keeps_zero_rows_and_extreme_ones_and_finite_gradients():
    features = jnp.array([[0.0, 0.0], [3e-30, 4e-30], [3e30, 4e30], [3.0, -4.0]])
    expected = (2 * np.outer([0.6, 0.8], [0.6, 0.8]) + np.outer([0.6, -0.8], [0.6, -0.8])) / 4
    assert_allclose(second_moment(features, normalize=True), expected, rtol=1e-6, atol=EPS)
    gradient = jax.grad(lambda x: second_moment(x, normalize=True)[0, 0])(features)
    assert np.isfinite(gradient).all() and (gradient[0] == 0).all()
    # d (x^2 / (x^2 + y^2)) / dx = 2 x y^2 / (x^2 + y^2)^2 at (3, -4), over n = 4.
    assert_allclose(gradient[3, 0], 2 * 3 * 16 / 625 / 4, rtol=1e-5)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4)])
@pytest.mark.parametrize("center", [False, True])
def test_smaller_moment_has_the_same_nonzero_eigenvalues(rng, shape, center):
    features = (rng.normal(size=shape) + 2).astype(np.float32)
    small = smaller_moment(jnp.asarray(features), center, False)
    assert small.shape == (4, 4)
    expected = np.linalg.eigvalsh(moment_by_rows(features, center))[::-1][:4]
    assert_allclose(eigenvalues(small), expected, atol=10 * EPS * expected[0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8"])
def test_narrow_dtypes_are_widened(rng, dtype):
    features = jnp.asarray(rng.integers(-3, 4, size=(600, 3)), dtype)
    assert_allclose(second_moment(features), moment_by_rows(features), rtol=1e-6, atol=EPS)


def test_a_large_common_mean_costs_the_covariance_nothing(rng):
    features = (rng.normal(size=(2000, 3)) * [1, 0.5, 2] + 4096).astype(np.float32)
    expected = moment_by_rows(features, center=True)
    # The textbook E[xx] - E[x]E[x] is off by eps * 4096^2 = 2 here.
    assert_allclose(second_moment(features, center=True), expected, atol=1e-4)


def test_features_within_a_few_ulps_of_their_mean_keep_their_covariance(rng):
    """The mean itself falls between two floats; what it is rounded by must not count as spread."""
    ulps = np.column_stack([rng.integers(0, 3, size=301), rng.integers(0, 2, size=301)])
    features = (4096 + ulps * 2.0**-11).astype(np.float32)
    expected = moment_by_rows(ulps, center=True)
    assert_allclose(second_moment(features, center=True) * 2.0**22, expected, rtol=1e-5, atol=1e-5)
    seen = MomentAccumulator.init(2).update(features)
    assert_allclose(seen.moment(center=True) * 2.0**22, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.ones(3), r"shape \(n, d\)"),
        (np.ones((3, 0)), r"shape \(n, d\)"),
        (np.array([[1.0, np.nan]]), "NaN or inf"),
        (np.array([[1.0, 1j]]), "must be real"),
        ([[1.0], [1.0, 2.0]], "must be a numeric array"),
    ],
)
def test_bad_features_are_refused(features, message):
    with pytest.raises(ValueError, match=message):
        second_moment(features)
    with pytest.raises(ValueError, match=message):
        MomentAccumulator.init(2).update(features)


def test_bad_features_are_nan_under_jit():
    bad = jnp.array([[1.0, jnp.inf], [0.0, 1.0]])
    assert np.isnan(jax.jit(second_moment)(bad)).all()
    seen = jax.jit(lambda x: MomentAccumulator.init(2).update(x).update(jnp.ones((3, 2))))(bad)
    assert np.isnan(seen.moment()).all() and seen.total() == 5


def test_second_moment_under_vmap_is_a_loop(rng):
    batch = rng.normal(size=(3, 6, 2)).astype(np.float32)
    moment = partial(second_moment, center=True, normalize=True)
    assert_allclose(jax.vmap(moment)(batch), [moment(x) for x in batch], atol=4 * EPS)


# The accumulator.


def test_uneven_batches_in_any_order_give_the_whole(rng):
    features = (rng.normal(size=(50, 4)) * [1, 2, 3, 0.2] + [9, 0, -9, 1]).astype(np.float32)
    parts = [MomentAccumulator.init(4).update(part) for part in np.split(features, [1, 8, 20, 21])]
    empty = MomentAccumulator.init(4)
    forwards, backwards = empty, empty
    for part in parts:
        forwards, backwards = forwards.merge(part), part.merge(backwards)
    tree = parts[0].merge(parts[1]).merge(parts[2].merge(parts[3]).merge(empty)).merge(parts[4])
    for whole in (forwards, backwards, tree):
        assert whole.total() == 50
        for center in (False, True):
            assert_allclose(whole.moment(center=center), moment_by_rows(features, center), atol=1e-4)


def test_scan_keeps_structure_and_compiles_once(rng):
    batches = rng.normal(size=(5, 6, 3)).astype(np.float32)
    traces = []

    def step(seen, batch):
        traces.append(batch)
        return seen.update(batch), None

    seen, _ = jax.lax.scan(step, MomentAccumulator.init(3), batches)
    assert len(traces) == 1
    assert jax.tree.map(jnp.result_type, seen) == jax.tree.map(jnp.result_type, MomentAccumulator.init(3))
    assert_allclose(seen.moment(center=True), moment_by_rows(batches.reshape(30, 3), center=True), atol=1e-6)


def test_a_million_rows_with_a_large_mean_in_float32(x64):
    """Data on a grid that float32 holds exactly, so that the reference sees the same numbers."""
    n, batches = 1000, 1000
    mean = jnp.array([1000.0, -300.0, 0.0], jnp.float32)

    def draw(key):
        return jnp.round(jax.random.normal(key, (n, 3), jnp.float32) * jnp.array([[64.0, 32, 8]], jnp.float32)) / 64

    def step(carry, key):
        seen, total, square = carry
        batch = draw(key)
        wide = batch.astype(jnp.float64)
        return (seen.update(batch + mean[None]), total + wide.sum(0), square + wide.T @ wide), None

    start = (MomentAccumulator.init(3, jnp.float32), jnp.zeros(3), jnp.zeros((3, 3)))
    (seen, total, square), _ = jax.jit(lambda keys: jax.lax.scan(step, start, keys))(
        jax.random.split(jax.random.key(1), batches)
    )
    count = n * batches
    covariance = square / count - jnp.outer(total, total) / count**2
    # A thousand additions, each rounded by eps/2 in no preferred direction: eps/2 * sqrt(1000) = 2e-6 of a standard
    # deviation squared; sums about zero would be off by eps * mean^2 = 0.1.
    assert seen.scatter.dtype == jnp.float32 and seen.total() == count
    assert_allclose(seen.moment(center=True), covariance, atol=1e-5)
    centre = total / count + mean
    assert_allclose(seen.moment(), covariance + jnp.outer(centre, centre), rtol=1e-6, atol=1e-2)


def test_the_count_does_not_stall_beyond_float32(rng):
    features = rng.normal(size=(24, 2)).astype(np.float32)
    many = single = MomentAccumulator.init(2).update(features)
    for _ in range(30):
        many = many.merge(many)
    assert float(many.total()) == 24 * 2**30  # beyond int32 as well
    more = many.merge(MomentAccumulator.init(2).update(features[:1]))
    assert np.int64(more.limbs[0]) * 2**16 + np.int64(more.limbs[1]) == 24 * 2**30 + 1
    assert_allclose(many.moment(center=True), single.moment(center=True), rtol=1e-6)


def test_a_row_late_in_a_long_run_still_moves_the_mean():
    seen = MomentAccumulator.init(1).update(jnp.zeros((2**12, 1)))
    for _ in range(14):
        seen = seen.merge(seen)
    for _ in range(3):
        seen = seen.update(jnp.full((2**12, 1), 4096.0))
    assert_allclose(seen.mean, [3 * 4096.0 / (2**14 + 3)], rtol=1e-6)


def test_float64_accumulates_in_float64(x64, rng):
    features = rng.normal(size=(40, 2)) + 1e6
    seen = MomentAccumulator.init(2).update(features[:13]).update(features[13:])
    assert seen.mean.dtype == seen.scatter.dtype == jnp.float64
    # The mean of numbers near 1e6 is rounded by 1e-10, in the reference as well.
    assert_allclose(seen.moment(center=True), moment_by_rows(features, center=True), atol=1e-9)
    assert MomentAccumulator.init(2, jnp.float32).update(features).scatter.dtype == jnp.float32


def test_misuse_is_refused():
    seen = MomentAccumulator.init(3)
    with pytest.raises(ValueError, match="no rows were accumulated"):
        seen.moment()
    assert np.isnan(jax.jit(lambda: MomentAccumulator.init(3).moment())()).all()
    with pytest.raises(ValueError, match="4 columns, but init was given d=3"):
        seen.update(np.ones((2, 4)))
    with pytest.raises(ValueError, match="cannot merge"):
        seen.merge(MomentAccumulator.init(2))
    for arguments in [(0,), (3, jnp.int32), (3, jnp.bfloat16)]:
        with pytest.raises(ValueError, match="at least 32 bits"):
            MomentAccumulator.init(*arguments)


def test_gradient_passes_through_the_accumulator(x64, rng):
    features = rng.normal(size=(6, 3))

    def trace(x):
        return jnp.trace(MomentAccumulator.init(3).update(x[:2]).update(x[2:]).moment())

    assert_allclose(jax.grad(trace)(jnp.asarray(features)), features / 3, atol=1e-12)


def test_all_reduce_over_a_mapped_axis_is_the_merge(rng):
    features = (rng.normal(size=(4, 7, 3)) * [1, 2, 0.3] + [4096, 0, 1]).astype(np.float32)

    def reduced(batch):
        return MomentAccumulator.init(3).update(batch).all_reduce("device")

    seen = jax.vmap(reduced, axis_name="device")(features)
    assert_allclose(seen.limbs, [[0, 28]] * 4)
    expected = moment_by_rows(features.reshape(28, 3), center=True)
    for scatter in seen.scatter:
        assert_allclose(scatter / 28, expected, atol=1e-4)


def test_all_reduce_with_an_empty_device(rng):
    features = rng.normal(size=(5, 2)).astype(np.float32)
    full, empty = MomentAccumulator.init(2).update(features), MomentAccumulator.init(2)
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), full, empty)
    seen = jax.vmap(lambda part: part.all_reduce("device"), axis_name="device")(both)
    assert_allclose(seen.scatter[1] / 5, full.moment(center=True), rtol=1e-6)
    assert_allclose(seen.mean[1], full.mean, rtol=1e-6)


def test_shard_map_on_the_devices_here(rng):
    features = rng.normal(size=(6 * jax.device_count(), 3)).astype(np.float32)
    check_devices(features)


def test_eight_virtual_devices_in_a_process_of_their_own():
    code = (
        "import numpy as np, jax; from tests.spectra.test_moments import check_devices\n"
        "assert jax.device_count() == 8\n"
        "check_devices(np.random.default_rng(5).normal(size=(64, 3)).astype(np.float32) + 100)"
    )
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def check_devices(features):
    """Both ways over devices agree with the definition, and send sums, never features."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, everywhere = PartitionSpec("data"), PartitionSpec()

    def local(batch):
        return MomentAccumulator.init(3).update(batch).all_reduce("data")

    mapped = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=rows, out_specs=everywhere))
    sharded = jax.device_put(features, jax.NamedSharding(mesh, rows))
    automatic = jax.jit(MomentAccumulator.init(3).update)

    def scanned(batch):
        start = jax.tree.map(lambda leaf: jax.lax.pcast(leaf, "data", to="varying"), MomentAccumulator.init(3))
        seen, _ = jax.lax.scan(lambda seen, row: (seen.update(row[None]), None), start, batch)
        return seen.all_reduce("data")

    in_scan = jax.jit(jax.shard_map(scanned, mesh=mesh, in_specs=rows, out_specs=everywhere))
    for seen in (mapped(sharded), automatic(sharded), in_scan(sharded)):
        assert seen.total() == len(features)
        assert_allclose(seen.moment(center=True), moment_by_rows(features, center=True), atol=1e-5)
    assert_allclose(jax.jit(second_moment)(sharded), moment_by_rows(features), rtol=1e-5, atol=1e-5)
    for program in (mapped, automatic, in_scan, jax.jit(second_moment)):
        text = program.lower(sharded).compile().as_text()
        assert "all-gather" not in text and ("all-reduce" in text or jax.device_count() == 1)
