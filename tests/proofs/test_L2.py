"""L2: hand-computed margins, ties, the library's criteria, and wrong variants that must be refuted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from proofs_numeric import L2_single_crossing as L2
from rdm_jax import theory
from tests.proofs.refuting import assert_margins, drawn, floats, refuted, variants

pytestmark = pytest.mark.usefixtures("x64")
CROSSING, ORDERED = L2.STATEMENT.claims
EIG, SV = 0, 1


def test_margins_of_a_crossing_by_hand():
    # s = (2, 1): q = (4/5, 1/5), x = (-1 * 1, 1 * 4)/4 = (-1/4, 1): dH/dt = -2 q_1 q_2 (x_1 - x_2) log 4,
    # and the first share loses 2 q_1/4. The mean rate 7 is of no account.
    c = L2.Crossing([2.0, 1.0], [-1.0, 1.0], 7.0, EIG, EIG, 1)
    np.testing.assert_allclose(L2.crossing_rates(floats(c)), [6.75, 8.0])
    assert_margins(CROSSING, c, [2 * 0.16 * 1.25 * np.log(4), 0.4])
    assert_margins(CROSSING, c._replace(direction=-1), [2 * 0.16 * 1.25 * np.log(4), 0.4])


def test_margins_of_a_crossing_by_hand_for_singular_values():
    # q = (2/3, 1/3), x = (-1, 2)/2: dH/dt = -q_1 q_2 (x_1 - x_2) log 2, share q_1/2.
    assert_margins(CROSSING, L2.Crossing([2.0, 1.0], [-1.0, 1.0], 7.0, SV, SV, 1), [2 / 9 * 1.5 * np.log(2), 1 / 3])


def test_margins_of_running_means_by_hand():
    # Running means (0, 1/2): rates (0, 1). At the step (1, 1/2) the turned rates are (0, -1) and q = (2/3, 1/3).
    c = L2.Ordered([2.0, 1.0], 3.0, [0.0, 0.5], [0.3, -0.7], 1)
    np.testing.assert_allclose(L2.running(floats(c)), [[0, 0.5], [0, 1]])
    assert_margins(ORDERED, c, [2 * 0.16 * np.log(4), 2 * 2 / 9 * np.log(2), 0.0, 0.0])


def test_rates_have_the_running_means_they_are_made_of():
    increments = np.array([0.0, 0.5, 0.0, 1.25])
    c = L2.Ordered([4.0, 3.0, 2.0, 1.0], 0.0, increments.tolist(), [1.0] * 4, 1)
    means, rates = L2.running(floats(c))
    np.testing.assert_allclose(means, [0, 0.5, 0.5, 1.75])
    np.testing.assert_allclose(np.cumsum(rates) / np.arange(1, 5), means)


def test_equal_modes_on_both_sides_of_the_mean():
    # The first share's end is no gap, so nothing is claimed of it: in truth it grows.
    c = L2.Crossing([1.0, 1.0], [-1.0, 1.0], 0.0, EIG, EIG, 1)
    assert_margins(CROSSING, c, [0.0, 0.0])
    assert all(fall["falls"] for fall in L2.tied_crossing().values())


def test_the_library_recognises_a_single_crossing(rng):
    c = drawn(CROSSING, 1000, rng)
    found = jax.jit(theory.single_crossing)(c.singular**2, jax.vmap(L2.crossing_rates)(c))
    assert (found.rising | (c.direction == -1) | (c.sv == SV)).all()
    assert (found.falling | (c.direction == 1) | (c.sv == SV)).all()
    assert 100 < found.universal.sum() < 900


def test_the_library_recognises_rising_running_means(rng):
    c = drawn(ORDERED, 1000, rng)
    rates = jax.vmap(lambda one: L2.running(one)[1])(c)
    found = jax.jit(theory.single_crossing)(jnp.stack([c.singular**2] * 2), jnp.stack([rates, -rates]))
    assert found.universal[0].all()
    assert 20 < found.universal[1].sum() < 500


def test_wrong_variants_are_refuted():
    rules = {
        "the direction does not matter": lambda m, c: c.direction * m[0],
        "top shares grow": lambda m, c: -m[1],
        "true": lambda m, c: m[0],
    }
    assert refuted(variants(CROSSING, rules)) == rules.keys() - {"true"}
    rules = {"no converse": lambda m, c: -m[1], "half the rate": lambda m, c: m[0] / 2}
    assert refuted(variants(ORDERED, rules)) == {"no converse"}
