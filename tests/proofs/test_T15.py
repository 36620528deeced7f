"""T15: what is observed about a run, by hand; and a tiny sweep against gradient descent in NumPy."""

import jax
import numpy as np
import pytest

from proofs_numeric import T15_rank_order as T15
from proofs_numeric import _sweep

pytestmark = pytest.mark.usefixtures("x64")


def outcome(online, target, commutator=0.0, trace=None, gains=(1.0, 1.0)):
    """One run with the given ranks at its recorded times."""
    trace = np.ones(len(online)) if trace is None else trace
    lag = np.full(len(online), commutator)
    run = _sweep.Run(*(np.array([x]) for x in (2, False, 0.1, 0.3, 1.0, 0.2, 1.0)))
    return _sweep.Outcome(run, *(np.array([x], float) for x in (online, target, lag, trace, gains)))


def test_the_smallest_rank_difference_counts_while_the_features_live():
    assert _sweep.rank_order(outcome([0.1, 0.2, 0.1], [0.3, 0.1, 0.5])) == pytest.approx([-0.1])
    assert _sweep.rank_order(outcome([0.1, 0.2, 0.9], [0.3, 0.3, 0.1], trace=[2.0, 1.0, 1e-7])) == pytest.approx([0.1])
    assert np.isnan(_sweep.rank_order(outcome([0.1, np.nan], [0.3, np.nan], trace=[1.0, np.nan]))).all()


def test_a_turn_is_the_smaller_of_fall_and_rise():
    assert _sweep.turn(outcome([0.0] * 3, [0.9, 0.2, 0.5])) == pytest.approx([0.3])
    assert _sweep.turn(outcome([0.0] * 3, [0.9, 0.5, 0.2])) == pytest.approx([0.0])


def test_a_plateau_is_common_to_the_surviving_modes():
    assert _sweep.plateau(outcome([0.0], [0.0], 0.02, gains=(0.8, 0.8, 0.001))) == pytest.approx([0.02])
    assert _sweep.plateau(outcome([0.0], [0.0], 0.02, gains=(0.8, 0.6, 0.001))) == pytest.approx([0.25])


def test_collapsed_runs_are_no_survivors():
    assert len(_sweep.survivors(outcome([0.0, 0.0], [0.0, 0.0], trace=[1.0, 1e-7])).trace) == 0
    assert len(_sweep.survivors(outcome([0.0, 0.0], [0.0, 0.0], trace=[1.0, 1e-5])).trace) == 1


def test_a_curve_ends_where_its_features_collapse():
    assert T15._living(np.array([0.3, 0.2, np.nan, 0.1])) == [0.3, 0.2]
    assert T15._living(np.array([0.3, 0.2])) == [0.3, 0.2]


@pytest.fixture
def tiny(monkeypatch):
    """A sweep of a few runs of a few steps."""
    monkeypatch.setattr(_sweep, "RUNS", {2: 2, 6: 3})
    monkeypatch.setattr(_sweep, "STRETCHES", ((4, 2), (6, 3)))
    _sweep.sweep.cache_clear()
    yield _sweep.sweep(5)
    _sweep.sweep.cache_clear()


def rank(moment, size):
    values = np.linalg.eigvalsh(moment)[-size:]
    q = np.maximum(values, 0) / values.sum()
    return -np.sum(q[q > 0] * np.log(q[q > 0]))


def test_a_tiny_sweep_against_numpy(tiny):
    np.testing.assert_allclose(_sweep.times(), [0, 0.2, 0.4, 0.7, 1.0])
    keys = jax.random.split(jax.random.key(5), 10)
    for i in (0, 4, 9):
        run = jax.tree.map(lambda leaf, i=i: leaf[i], tiny.run)
        first, second = jax.random.split(keys[i])
        signal, noise = map(np.asarray, jax.jit(_sweep._moments)(first, run))
        head, encoder, target = (np.asarray(m) for m in jax.jit(_sweep._start)(second, run))
        assert np.all(encoder[run.width :] == 0) and np.all(encoder[:, run.width :] == 0)
        assert np.all(target == encoder)
        if not run.anisotropic:
            np.testing.assert_array_equal(signal, np.diag(np.arange(6) < run.width))
        moment, decay = signal + noise, run.share / (4 * (1 + run.noise))
        found = []
        for step in range(11):
            if step in (0, 2, 4, 7, 10):
                online = head @ encoder @ moment @ encoder.T @ head.T
                lagging = target @ moment @ target.T
                found.append((rank(online, run.width), rank(lagging, run.width), np.trace(lagging)))
            error = target @ signal - head @ encoder @ moment
            turning, moving = run.predictor_rate * error @ encoder.T - decay * head, head.T @ error - decay * encoder
            head, encoder, target = (
                head + 0.1 * turning,
                encoder + 0.1 * moving,
                target + 0.1 * run.target_rate * (encoder - target),
            )
        for measured, expected in zip((tiny.online, tiny.target, tiny.trace), np.array(found).T, strict=True):
            np.testing.assert_allclose(measured[i], expected, rtol=1e-7)


def test_laws_count_the_runs_they_speak_of(tiny):
    trials = {law.name: len(law.measure(5)[0]) for law in T15.STATEMENT.laws}
    assert trials["T15 rank order, isotropic"] == trials["T15 rank order, anisotropic"] == 3
    assert trials["T15 fall and rise"] == 6
    margins, runs = T15.STATEMENT.laws[1].measure(5)
    assert list(runs.anisotropic) == [True] * 3
    wide = tiny.target[7:] - tiny.online[7:]
    np.testing.assert_allclose(margins, wide.min(axis=1) + 1e-6)
