"""What probes mean, on features whose state is known by how they were made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rdm_jax.reporting import plain
from rdm_jax.training import diagnose, probe, span

WIDTH, SAMPLES = 16, 256


def features(spectrum, shift=0.0):
    """Twice the same view, whose modes are the coordinates."""
    directions = np.linalg.qr(np.random.default_rng(0).normal(size=(SAMPLES, WIDTH)))[0]
    rows = jnp.asarray(directions * np.sqrt(SAMPLES * np.asarray(spectrum)), jnp.float32)
    return jnp.stack([rows, rows]) + shift


HEALTHY = features(np.ones(WIDTH))
FEW = features(np.array([1.0] * 4 + [1e-7] * (WIDTH - 4)))
LINE = features(np.array([1.0] + [1e-4] * (WIDTH - 1)))
POINT = features(1e-5 * np.ones(WIDTH), shift=1.0)


@pytest.mark.parametrize(
    ("z", "state"),
    [(HEALTHY, "healthy"), (FEW, "dimensional collapse"), (LINE, "complete collapse"), (POINT, "complete collapse")],
    ids=["healthy", "few", "line", "point"],
)
def test_states(z, state):
    assert diagnose(probe(z, z)).state == state


def test_a_shift_that_leaves_the_samples_apart_is_no_collapse():
    assert diagnose(probe(*2 * [features(np.ones(WIDTH), shift=0.5)])).state == "healthy"


def test_few_samples_of_many_dimensions_are_no_collapse():
    rows = jax.random.normal(jax.random.key(1), (2, 8, 64))
    assert diagnose(probe(rows, rows)).state == "healthy"


def test_since_counts_from_the_last_change():
    records = [probe(z, z) for z in (FEW, HEALTHY, FEW, FEW)]
    found = diagnose(records)
    assert found.since == 2 and "since probe 3 of 4" in str(found)
    assert diagnose(records[:2]).since == 1


def test_the_first_bad_stage_is_named_in_the_order_of_the_network():
    stages = {"projector": LINE, "stage2": FEW, "stage1": HEALTHY, "backbone": FEW, "projector0": FEW}
    assert diagnose(probe(FEW, FEW, stages=stages)).stage == "stage2"
    assert diagnose(probe(LINE, LINE, stages=stages)).stage == "projector"
    assert diagnose(probe(FEW, FEW, stages={"stage1": HEALTHY})).stage == "features"
    assert diagnose(probe(HEALTHY, HEALTHY, stages=stages)).stage is None


@pytest.mark.parametrize(("power", "kind"), [(1.0, "low-pass"), (0.0, "all-pass"), (-0.5, "high-pass")])
def test_the_filter_is_named_as_the_target_sees_it(power, kind):
    spectrum = 2.0 ** -np.arange(WIDTH, dtype=np.float32)
    z = features(spectrum)
    found = diagnose(probe(z * jnp.asarray(spectrum**power)[None, None], z))
    assert found.filter == kind and f"({kind})" in str(found)


def test_gains_that_differ_by_rounding_make_no_filter():
    rounded = LINE * jnp.asarray([1 - 1e-6] + [1.0] * (WIDTH - 1))[None, None]
    assert diagnose(probe(rounded, LINE)).filter == "all-pass"


def test_advice_follows_from_the_filter_and_the_noise():
    assert "add a predictor" in str(diagnose(probe(FEW, FEW)))
    few = features(np.array([4.0, 3.0, 2.0, 1.0] + [1e-7] * (WIDTH - 4)))
    low_pass = few * jnp.asarray([1.0] + [0.5] * (WIDTH - 1))[None, None]
    alone = diagnose(probe(low_pass[0], few[0]))
    assert alone.rising is None and "second view" in str(alone)
    known = diagnose(probe(low_pass, few))
    assert known.rising in (True, False) and "Wiener threshold" in str(known)


def test_lines_of_metrics_serve_as_well():
    record = probe(FEW, FEW, stages={"backbone": FEW})
    line = plain({name: value for name, value in record._asdict().items() if name != "vectors"})
    assert str(diagnose([line])) == str(diagnose(record))


def test_nothing_to_diagnose():
    with pytest.raises(ValueError, match="no probe was made"):
        diagnose([])


def test_span_counts_directions():
    assert span(np.ones(5)) == 5 and span([1.0, 0.0]) == 1 and span([0.9989, 0.0011]) == 2
