"""Integration against closed forms, and what happens where it can't go on."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rdm_jax import dynamics
from rdm_jax.dynamics import IntegrationError, descend, require_success, solve


class Rates(NamedTuple):
    rate: jax.Array
    noise: jax.Array


def decay(t, state, args):
    return {"fast": -3 * args.rate * state["fast"], "slow": -args.rate * state["slow"]}


def explode(t, state, args):
    return args * state**2  # y = y0 / (1 - args y0 t)


def until(t, state, args):
    return jnp.sqrt(args - t) * state  # not real after t = args


def state_and_sum(t, state, args):
    return {**state, "sum": jnp.sum(state["fast"]) ** 2 + args.rate * t}


START = {"fast": np.array([2.0, 1.0]), "slow": np.array([5.0])}
TIMES = [0.5, 0.75, 2.0]


def decayed(rate):
    elapsed = np.array(TIMES) - 0.5
    fast = np.array([2.0, 1.0]) * np.exp(-3 * rate * elapsed)[:, None]
    return fast, 5 * np.exp(-rate * elapsed)[:, None]


@pytest.fixture
def states(x64):
    return jnp.array([[1.0, 0.5], [1.0, 0.5], [jnp.nan, 1.0], [8.0, 1.0]])


def test_linear_decay(x64):
    found = solve(decay, START, Rates(0.7, 0.0), TIMES, record=state_and_sum)
    fast, slow = decayed(0.7)
    np.testing.assert_allclose(found.record["fast"], fast, rtol=1e-9)
    np.testing.assert_allclose(found.record["slow"], slow, rtol=1e-9)
    np.testing.assert_allclose(found.record["sum"], fast.sum(axis=1) ** 2 + 0.7 * np.array(TIMES), rtol=1e-9)
    np.testing.assert_array_equal(found.times, TIMES)
    assert found.result == 0 and found.reached == 2.0 and 0 < found.steps < 60


def test_tolerance_is_the_accuracy(x64):
    fast, _ = decayed(0.7)
    errors = [
        np.abs(solve(decay, START, Rates(0.7, 0.0), TIMES, record=state_and_sum, rtol=rtol).record["fast"] - fast).max()
        for rtol in (1e-4, 1e-7, 1e-12)
    ]
    assert 1e-8 < errors[0] < 1e-3 and 1e-11 < errors[1] < 1e-6 and errors[2] < 2e-12


def test_in_32_bits_the_state_keeps_its_type():
    found = solve(decay, START, Rates(0.7, 0.0), TIMES)
    assert found.record["slow"].dtype == found.times.dtype == jnp.float32
    np.testing.assert_allclose(found.record["slow"], decayed(0.7)[1], rtol=1e-5)


def test_gradient_of_the_end_with_respect_to_a_parameter(x64):
    slope = jax.grad(lambda rate: solve(explode, START["fast"] / 2, rate, [0.0, 0.25, 0.5]).record[-1, 0])(1.0)
    np.testing.assert_allclose(slope, 2.0, rtol=1e-8)  # t / (1 - rate t)^2


def test_a_blow_up_is_an_error_that_names_time_and_parameters(x64):
    message = r"stopped at t = 1 of 2 .* blows up .* Parameters: 1\."
    with pytest.raises(IntegrationError, match=message):
        solve(explode, START["fast"] / 2, 1.0, [0.0, 0.4, 2.0])


def test_a_field_that_stops_being_finite_is_an_error(x64):
    with pytest.raises(IntegrationError, match=r"stopped at t = 1 of 2"):
        solve(until, jnp.array([1.0]), 1.0, [0.0, 2.0])
    with pytest.raises(IntegrationError, match=r"stopped at t = 0 of 2 .* not finite at the start"):
        solve(until, jnp.array([1.0]), -1.0, [0.0, 2.0])


def test_the_limit_of_steps_is_an_error(x64):
    with pytest.raises(IntegrationError, match=r"after 3 steps: that is the limit of steps: raise max_steps.*rate=0.7"):
        solve(decay, START, Rates(0.7, 0.0), TIMES, max_steps=3)


def test_under_vmap_failures_are_nan_and_carry_a_code(states):
    """In one compilation for all starts and rates; each member is as if it were alone."""
    traces, times = [], [0.0, 0.4, 2.0]

    @jax.jit
    @jax.vmap
    def run(state, rate):
        traces.append(1)
        return solve(explode, state, rate, times)

    rates = jnp.array([0.1, 1.0, 1.0, 0.25])
    run(states / 2, 3 * rates)
    found = run(states, rates)
    assert len(traces) == 1
    np.testing.assert_array_equal(found.result, [0, 2, 3, 2])
    np.testing.assert_allclose(found.reached, [2.0, 1.0, np.nan, 0.5])
    np.testing.assert_allclose(found.record[1, 1], [1 / 0.6, 0.5 / 0.8])
    assert np.isnan(found.record[2]).all() and np.isnan(found.record[[1, 3], 2]).all()
    alone = solve(explode, states[0], rates[0], times)
    np.testing.assert_allclose(found.record[0], alone.record, rtol=1e-13)
    assert found.steps[0] == alone.steps
    with pytest.raises(IntegrationError, match=r"3 of 4 integrations failed; number 1 stopped at t = 1 .*: 1\.$"):
        require_success(found, rates)
    last = jax.tree.map(lambda leaf: leaf[3:].reshape((1, 1, *leaf.shape[1:])), found)
    with pytest.raises(IntegrationError, match=r"number 0, 0 stopped at t = 0.5 .*rate=0.25"):
        require_success(last, {"rate": rates[3:, None], "other": jnp.arange(9.0)})


def test_the_message_abbreviates_large_parameters(states):
    args = {"rate": 1.0, "matrix": jnp.arange(12.0).reshape(3, 4)}
    failed = dynamics.Solution(jnp.array([0.0, 2.0]), None, jnp.array(1), jnp.array(0.5), jnp.array(7))
    with pytest.raises(IntegrationError, match=r"Parameters: matrix=<\(3, 4\) in \[0, 11\]>, rate=1\.$"):
        require_success(failed, args)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state": {**START, "slow": np.array([np.inf])}}, r"state\['slow'\] of shape \(1,\) holds NaN or inf"),
        ({"args": Rates(np.nan, 0.0)}, r"args\.rate of shape \(\) holds NaN or inf"),
        ({"args": Rates("fast", 0.0)}, "args.rate must be a numeric array"),
        ({"state": ()}, "state holds no arrays"),
        ({"times": [0.0, 1.0, 1.0]}, "strictly increasing"),
        ({"times": [0.0]}, r"times must have shape \(T,\) with T >= 2"),
        ({"times": [0.0, np.inf]}, "times must be finite"),
        ({"field": lambda t, y, args: y["fast"]}, "must look like the state"),
        ({"record": lambda t, y, args: jnp.argmax(y["fast"])}, "record must return floating arrays"),
    ],
)
def test_bad_input_is_a_sentence(change, message):
    given = {"field": decay, "state": START, "args": Rates(0.7, 0.0), "times": TIMES, **change}
    with pytest.raises(ValueError, match=message):
        solve(**given)


def test_descent_is_the_power_of_one_step(x64):
    found = descend(decay, START, Rates(0.5, 0.0), learning_rate=0.1, steps=6, every=2)
    np.testing.assert_allclose(found.times, [0.0, 0.2, 0.4, 0.6])
    np.testing.assert_allclose(found.record["fast"][:, 0], 2 * 0.85 ** np.array([0, 2, 4, 6]), rtol=1e-14)
    np.testing.assert_allclose(found.record["slow"][:, 0], 5 * 0.95 ** np.array([0, 2, 4, 6]), rtol=1e-14)
    assert found.result == 0 and found.steps == 6 and found.reached == found.times[-1]


def test_descent_tends_to_the_flow_at_order_one(x64):
    flow = 1 / (1 - 0.5)
    rates = np.array([2.0**-6, 2.0**-8, 2.0**-10])
    errors = [abs(descend(explode, 1.0, 0.5, learning_rate=h, steps=round(1 / h)).record[-1] - flow) for h in rates]
    slope = np.polyfit(np.log(rates), np.log(errors), 1)[0]
    assert abs(slope - 1) < 0.02


def test_descent_that_diverges_is_an_error(x64):
    with pytest.raises(
        IntegrationError, match=r"stopped at t = \d+ of 20 after 20 steps: the state blows up.*smaller d"
    ):
        descend(explode, jnp.array([1.0]), 1.0, learning_rate=1.0, steps=20)
    found = jax.jit(jax.vmap(lambda rate: descend(explode, 1.0, rate, learning_rate=1.0, steps=20, every=5)))(
        jnp.array([-0.1, 2.0])
    )
    np.testing.assert_array_equal(found.result, [0, 2])
    assert np.isfinite(found.record[0]).all() and np.isnan(found.record[1, 2:]).all() and found.record[1, 0] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0, "steps": 2}, "learning_rate must be positive"),
        ({"learning_rate": 0.1, "steps": 5, "every": 2}, "every must divide steps"),
    ],
)
def test_bad_steps_are_a_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        descend(decay, START, Rates(0.7, 0.0), **options)


def test_times_may_be_close_together(x64):
    """A step that lands on a time can be as short as rounding; the next ones recover from it."""
    times = np.array([0.0, 1e-16, 0.5])
    found = solve(explode, START["fast"] / 2, 1.0, times)
    np.testing.assert_allclose(found.record[:, 0], 1 / (1 - times), rtol=1e-9)


def test_the_error_is_importable_and_a_runtime_error():
    assert issubclass(dynamics.IntegrationError, RuntimeError)
