"""The flow in equal steps against closed forms, its order, and the adaptive solver that it stands in for."""

import jax.numpy as jnp
import numpy as np
import pytest

from proofs_numeric import _descent
from proofs_numeric._flow import flow
from rdm_jax import dynamics

pytestmark = pytest.mark.usefixtures("x64")


def test_a_field_that_depends_on_time_and_state_in_closed_form():
    # y' = a t y from 3 at t = 1: y = 3 exp(a (t^2 - 1)/2); z' = 1 beside it
    found = flow(lambda t, y, a: {"y": a * t * y["y"], "z": 1.0}, {"y": 3.0, "z": 0.5}, 0.8, [1.0, 1.5, 3.0], 100)
    times = np.array([1.0, 1.5, 3.0])
    np.testing.assert_allclose(found["y"], 3 * np.exp(0.4 * (times**2 - 1)), rtol=1e-6)
    np.testing.assert_allclose(found["z"], times - 0.5, rtol=1e-13)  # after 200 additions


def test_it_is_of_order_four():
    errors = [abs(float(flow(lambda t, y, a: a * y, 1.0, -2.0, [0.0, 1.0], n)[-1]) - np.exp(-2.0)) for n in (10, 20)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(4.0, abs=0.2)


def test_it_follows_the_branches_as_the_adaptive_solver_does(key):
    start = dynamics.random_branches(key, 3, 3, scale=1.0, design=_descent.DESIGN)
    args = dynamics.LinearParameters(jnp.diag(jnp.array([1.0, 0.7, 0.4])), 0.3 * jnp.eye(3), **_descent.NUMBERS)
    field = dynamics.branch_field(_descent.DESIGN)
    expected = dynamics.solve(field, start, args, [0.0, 2.0]).record
    for a, b in zip(flow(field, start, args, [0.0, 2.0], 400), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
