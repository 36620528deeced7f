"""S9: steps against gradient descent on features, bounds by hand, what the flow keeps and leaves, wrong variants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from proofs_numeric import S9_finite_time as S9
from proofs_numeric import _trajectories
from rdm_jax import spectra
from rdm_jax.dynamics import (
    FeatureDesign,
    FeatureParameters,
    Modes,
    ViewFeatures,
    descend,
    feature_field,
    mode_field,
    power_gains,
    ridge_gains,
    views_with_spectrum,
)
from tests.proofs.refuting import assert_margins, exact, floats, refuted, variants

pytestmark = pytest.mark.usefixtures("x64")
(CLAIM,) = S9.STATEMENT.claims


def descent(spectrum, strength=1.0, noise=0.0, rate=0.1, side=1, squared=0, old=None, memory=0.0):
    return S9.Descent(spectrum, strength, noise, rate, old or [1.0] * len(spectrum), memory, side, squared)


@pytest.mark.parametrize(("side", "squared", "noise"), [(1, 0, 0.3), (-1, 1, 0.0)])
def test_a_step_is_gradient_descent_on_features(key, side, squared, noise):
    spectrum = jnp.array([4.0, 2.5, 1.5])
    loss, sort = ("squared" if squared else "cosine"), ("persistent" if noise else "none")
    sides = {"online": power_gains} if side > 0 else {"target": power_gains}
    args = FeatureParameters(noise=noise, online=0.7, target=-0.7)
    features = views_with_spectrum(key, 8, spectrum, spectrum)[0]
    field = feature_field(FeatureDesign(loss=loss, noise=sort, **sides))
    walk = descend(field, ViewFeatures(features), args, learning_rate=0.2, steps=S9.STEPS)
    found = jax.vmap(lambda z: spectra.eigenvalues(spectra.second_moment(z)))(walk.record.first)
    steps = S9.path(floats(descent(spectrum, 0.7, noise, 0.2, side, squared)))
    np.testing.assert_allclose(steps, found, rtol=1e-12)


def reference(spectrum, gains_of, rate):
    """Spectra of three steps under the squared error and a target filter, and the margins."""
    x = [np.array(spectrum)]
    for _ in range(3):
        x.append(x[-1] * (1 + rate * (gains_of(x[-1]) - 1)) ** 2)
    q = [values / values.sum() for values in x]
    ranks, extremes = [-np.sum(p * np.log(p)) for p in q], [np.log(values[0] / values[-1]) for values in x]
    order = min(np.log(values[:-1] / values[1:]).min() for values in x[1:])
    return [order, np.diff(ranks).min(), -np.diff(extremes).max()]


def test_margins_by_another_path():
    expected = reference([4.0, 1.0, 0.5], lambda x: x**-0.5, 0.3)
    assert_margins(CLAIM, descent([4.0, 1.0, 0.5], rate=0.3, side=-1, squared=1), expected, rtol=1e-11)


def test_a_remembered_filter_does_not_follow():
    gains = np.array([0.5, 2.0])
    c = descent([4.0, 1.0], rate=0.3, side=-1, squared=1, old=gains.tolist(), memory=1.0)
    assert_margins(CLAIM, c, reference([4.0, 1.0], lambda x: gains, 0.3), rtol=1e-11)


@pytest.mark.parametrize(
    ("side", "squared", "bound"),
    [(1, 0, 5 / 16 / (5 * 2**1.5)), (-1, 0, 5 / 16 / (5 * 2**1.5)), (1, 1, 1 / (5 * 16)), (-1, 1, 1 / 3)],
)
def test_largest_rates_by_hand(side, squared, bound):
    # lambda = (4, 1), a = 2: gains (4, 1) or (1/4, 1)
    np.testing.assert_allclose(S9.largest_rate(jnp.array([4.0, 1.0, 0.0]), 2.0, side, squared), bound, rtol=1e-14)
    small = next(h for h in CLAIM.hypotheses if h.name == "small steps")
    c = descent([4.0, 1.0], 2.0, side=side, squared=squared)
    for part, held in ((0.999, True), (1.001, False)):
        assert bool(small.holds(floats(c._replace(rate=part * bound)))) == held
        assert small.holds(exact(c._replace(rate=part * bound))) == held


def test_equality_is_a_tie_or_a_flat_spectrum():
    assert CLAIM.equality(exact(descent([2.0, 1.0, 1.0]))) == [True, False, False]
    assert CLAIM.equality(exact(descent([2.0, 2.0, 0.0]))) == [True, True, True]
    assert CLAIM.equality(exact(descent([2.0, 1.0, 0.5]))) == [False, False, False]


def ranks(design, modes, args, rate=0.05, steps=1500):
    """Effective ranks along the flow of the spectrum."""
    walk = descend(
        mode_field(design),
        modes,
        args,
        learning_rate=rate,
        steps=steps,
        every=steps // 50,
        record=lambda t, state, args: spectra.effective_rank(state.spectrum),
    )
    return np.asarray(walk.record)


def test_a_ridge_raises_the_rank_at_all_times_whatever_the_noise_does():
    # m is not ordered like lambda, and moves with the features
    modes = Modes(jnp.array([5.0, 3.0, 2.0, 1.0]), signal=jnp.array([0.5, 2.5, 0.1, 0.9]))
    found = ranks(FeatureDesign(online=ridge_gains, noise="free"), modes, FeatureParameters(online=0.5))
    assert np.all(np.diff(found) > 0)


def test_a_predictor_that_learns_along_overshoots():
    start = jnp.array([2.0, 1.0])
    design, modes = FeatureDesign(online="learned"), Modes(start, gains=start / 1000)
    found = ranks(design, modes, FeatureParameters(predictor_rate=0.03), steps=200)
    assert found.max() > 1.99 > 1.98 > found[found.argmax() :].min()
    certified = _trajectories.certified_overshoot()
    assert float(certified["until they cross"]) > 0 > float(certified["then"])


def test_theta_of_the_last_mode_above_kappa_does_not_stay():
    certified = _trajectories.certified_loss()
    assert {name: float(text) > 0 for name, text in certified.items()} == {
        "first step of the smallest": True,
        "rise of log erank": True,
        "then": False,
        "above the noise": True,
    }


def test_gains_below_a_half_leave_their_side():
    design = FeatureDesign(loss="squared", online=power_gains)
    found = ranks(design, Modes(jnp.array([0.16, 0.04])), FeatureParameters(online=1.0))  # g = (0.4, 0.2)
    assert found[1] < found[0] < found[-1]


@pytest.mark.parametrize(("noise", "kept"), [(0.01, True), (1.0, False)])
def test_a_noisy_target_under_the_squared_error(noise, kept):
    # h = 1/s: lambda* = 3 nu, and h m/lambda there is 2/(3 sqrt(3 nu)): 3.8 or 0.38
    design = FeatureDesign(loss="squared", target=power_gains, noise="persistent")
    start = jnp.array([4.5, 3.5]) * noise
    args = FeatureParameters(noise=noise, target=-1.0)
    walk = descend(mode_field(design), Modes(start), args, learning_rate=0.01, steps=300, every=300)
    assert (walk.record.spectrum[-1].min() >= 3 * noise) == kept


def test_wrong_variants_are_refuted():
    rules = {"true": lambda m, c: m[1], "falls": lambda m, c: -m[1], "apart": lambda m, c: -m[2]}
    assert refuted(variants(CLAIM, rules, CLAIM.strata[:1])) == {"falls", "apart"}
    rules = {"rises": lambda m, c: m[1]}
    assert refuted(variants(CLAIM, rules, CLAIM.strata[:1], dropped="noise above the level", hypotheses=())) == {
        "rises"
    }
