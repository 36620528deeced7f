"""What the linear experiment measures, on cases whose answer is known; the whole of it runs in tests/smoke."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear import alignment, collapse, designs, filters, gaps, growth, losses, threshold
from linear_dynamics import LinearOptions

from rdm_jax import dynamics
from rdm_jax.dynamics import LinearDesign


def rotated(d, rng):
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


def made_run(times, moments, rates, statistics=None):
    observed = designs.Observed(statistics, moments, rates)
    return designs.Run("made", designs.FEATURES, times, None, observed)


def test_measured_rates_are_those_put_in_through_a_crossing(x64, rng):
    times = np.linspace(0, 1, 101)
    basis, put_in = rotated(3, rng), np.array([-1.0, 0.3, 0.8])
    values = np.array([3.0, 2.0, 1.0]) * np.exp(2 * put_in * times[:, None])  # the first crosses both others
    moments = np.einsum("ij,tj,kj->tik", basis, values, basis)[None]
    order = np.argsort(-values, axis=-1)
    sorted_rates = np.take_along_axis(np.broadcast_to(put_in, values.shape), order, -1)[None]
    predicted, measured = growth.rates(made_run(times, moments, sorted_rates))
    np.testing.assert_allclose(measured, predicted, atol=1e-9)
    assert growth.scores(predicted, measured, 0)["rank correlation"]["measured"] == pytest.approx(1)


def test_a_rotating_eigenbasis_does_not_pass_for_growth(x64, rng):
    times = np.linspace(0, 1, 401)
    turns = np.array([[[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]] for t in times])
    values = np.array([2.0, 1.0]) * np.exp(2 * np.array([0.4, -0.2]) * times[:, None])
    moments = np.einsum("tij,tj,tkj->tik", turns, values, turns)[None]
    rates = np.broadcast_to([0.4, -0.2], (1, 401, 2))
    predicted, measured = growth.rates(made_run(times, moments, rates))
    np.testing.assert_allclose(measured, predicted, atol=1e-4)


BRANCHES = {
    "learned": LinearDesign(),
    "moving average": LinearDesign(target="average"),
    "cosine": LinearDesign(loss="cosine"),
    "no stop-gradient": LinearDesign(stop_gradient=False),
    "isotropic": LinearDesign(predictor=dynamics.isoloss_gains, isotropic=True, loss="cosine"),
    "none": LinearDesign(predictor="none"),
}


@pytest.mark.parametrize("name", BRANCHES)
def test_rates_of_branches_are_the_flows_own_where_all_commute(name, x64, key, rng):
    design = BRANCHES[name]
    variances, shared = np.array([1.5, 1.2, 0.9]), np.array([1.1, 0.6, 0.4])
    first, second = dynamics.views_with_spectrum(key, 12, variances, shared)
    inner = np.linalg.eigh(first.T @ first)[1][:, ::-1]
    modes = dynamics.Eigenmodes(
        predictor=jnp.array([0.9, 0.4, 0.6]) if design.learns_predictor else None,
        encoder=jnp.array([0.7, 0.5, 0.2]),
        ratio=jnp.array([0.8, 1.1, 0.9]) if design.target == "average" else None,
    )
    state = dynamics.aligned_branches(modes, rotated(3, rng), inner)
    args = dynamics.SampleParameters(first, second, weight_decay=0.1, target_ratio=0.7, predictor=0.5)
    flow = dynamics.branch_statistics(design)(0.0, state, args)
    np.testing.assert_allclose(designs.branch_rates(design, state, args), flow.rates, rtol=1e-9)


def test_the_published_sign_of_squared_error(x64, monkeypatch):
    monkeypatch.setattr(losses, "WIDTH", 2)
    losses.short_step.cache_clear()
    delta = 0.05
    gains = np.array([[0.5, 0.5 - delta], [0.9, 0.2]])
    falls, rises = losses.rank_rates("squared", gains, np.array([[2.0, 1.0], [2.0, 1.0]]))
    erank = np.exp(-(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3)))
    assert falls == pytest.approx(-0.308 * delta**2 * erank, rel=2e-3)  # docs/theory.md T6
    assert rises > 0
    assert (losses.rank_rates("cosine", gains, np.array([[2.0, 1.0], [2.0, 1.0]])) > 0).all()


def test_the_boundary_is_between_the_last_survivor_and_the_first_collapse():
    decay = np.array([0.1, 0.2, 0.3, 0.4])
    survived = np.array([[1.0, 1.0, 1.0], [0.5, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(collapse.boundary(survived, decay), [0.25, 0.15, 0.45])


def test_a_bound_that_is_the_decay_itself_is_met_with_equality():
    times = np.linspace(0, 2, alignment.INSTANTS)
    rate = 1.5 * np.ones((2, alignment.INSTANTS))
    norm = np.array([[3.0], [0.2]]) * np.exp(-1.5 * times)
    case = alignment.under_bound(0.02, times, alignment.Observed(norm, norm, rate))
    np.testing.assert_allclose(case["excess"], 1, rtol=1e-12)
    np.testing.assert_allclose(case["faster"], 1)


def test_predicted_filters_are_sorted_by_eigenvalue():
    statistics = dynamics.Statistics(*[np.zeros((1, 3))] * len(dynamics.Statistics._fields))._replace(
        target=np.array([[1.0, 3.0, 2.0]]),
        gains=np.array([[0.1, 0.3, 0.2]]),
        spectrum=np.array([[1.0, 3.0, 2.0]]),
        signal=np.array([[0.5, 3.0, 1.0]]),
    )
    run = designs.Run("made", designs.FEATURES, np.zeros(1), statistics, None)
    spectrum, gains, wiener = filters.by_eigenvalue(run)
    assert (
        spectrum.tolist() == [[3, 2, 1]] and gains.tolist() == [[0.3, 0.2, 0.1]] and wiener.tolist() == [[1, 0.5, 0.5]]
    )


def test_a_slope_is_that_of_the_power():
    sizes = np.array([1.0, 3.0, 9.0])
    assert gaps.slope(sizes, 5 * sizes**-0.5) == pytest.approx(-0.5)


def test_either_filter_is_a_power_or_a_predictor():
    spectrum, signal = jnp.array([4.0, 1.0]), jnp.array([3.0, 0.5])
    power, wiener, ridge = (threshold.CASES[name] for name in ("g(s) = s", "Wiener predictor", "ridge predictor"))
    np.testing.assert_allclose(threshold.either(spectrum, signal, power), [2, 1], rtol=1e-6)
    np.testing.assert_allclose(threshold.either(spectrum, signal, wiener), [0.75, 0.5], rtol=1e-6)
    np.testing.assert_allclose(threshold.either(spectrum, signal, ridge), [0.6, 0.25], rtol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"modes": 2}, "--modes must be at least 3"),
        ({"samples": 31}, "--samples must be at least 32"),
        ({"steps": 250}, "multiple of 100"),
        ({"designs": ("isolos",)}, "did you mean 'isoloss'"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_bad_sizes_get_a_sentence(wrong, said):
    with pytest.raises(ValueError, match=said):
        LinearOptions(**wrong)


def test_drawn_views_have_the_populations_moments(x64):
    sizes = designs.Sizes(modes=3, samples=200_000, seeds=1, steps=1, every=1, seed=0)
    first, second = designs.drawn_views(jax.random.key(0), sizes, 0.15)
    own, shared = first.T @ first / len(first), second.T @ first / len(first)
    signal = np.sort(np.asarray(designs.population(3)))
    # five standard errors of a second moment, whose relative variance is 2 / n
    np.testing.assert_allclose(np.linalg.eigvalsh(own), signal + 0.15, rtol=5 * (2 / 200_000) ** 0.5)
    np.testing.assert_allclose(np.linalg.eigvalsh(shared + shared.T) / 2, signal, rtol=0.05)
