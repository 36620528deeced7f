"""T11: margins by hand, means in any direction, the quoted violations, and wrong variants that must be refuted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import arb

from proofs_numeric import T11_softmax_sharpening as T11
from proofs_numeric import _softmax
from rdm_jax import theory
from tests.proofs.refuting import assert_margins, exact, refuted, variants

pytestmark = pytest.mark.usefixtures("x64")
CLAIM = T11.STATEMENT.claims[0]


def entropy(spectrum):
    q = np.array([x for x in spectrum if x > 1e-300])
    q = q / q.sum()
    return -np.sum(q * np.log(q))


def instance(spectrum, orthogonal, along, low, high, mode=0, regime=T11.ABOVE):
    return T11.Instance(spectrum, orthogonal, along, low, high, mode, regime)


def test_margins_without_a_mean_along_the_covariance_by_hand():
    c = instance([3.0, 1.0], 0.5, 0.0, 2.0, 5.0)
    assert_margins(CLAIM, c, [entropy([2.5, 3, 1]) - entropy([5.5, 3, 1])], rtol=1e-12)


def test_margins_below_the_turning_point_by_hand():
    c = instance([3.0, 1.0], 0.0, 0.0, 0.5, 2.0, regime=T11.BELOW)
    assert_margins(CLAIM, c, [entropy([2, 3, 1]) - entropy([0.5, 3, 1])], rtol=1e-12)


def test_margins_with_a_mean_along_an_eigenvector_by_hand():
    # [[l, sqrt(l) 2], [sqrt(l) 2, 4 + 8]]: trace and determinant 14, 16 at l = 2 and 18, 48 at l = 6
    c = instance([8.0, 3.0], 0.0, 2.0, 2.0, 6.0, regime=T11.ANY_MEAN)
    low, high = [7 + 33**0.5, 7 - 33**0.5, 3], [9 + 33**0.5, 9 - 33**0.5, 3]
    assert_margins(CLAIM, c, [entropy(low) - entropy(high)], rtol=1e-12)
    assert T11.above_the_bound(exact(c._replace(low=22.0)))  # (64 + 9 + 2 * 4 * 8 + 16)/11 = 13.9
    assert not T11.above_the_bound(exact(c._replace(low=13.9)))


def test_the_model_is_the_library_s_for_any_mean():
    spectrum, along, mode, level = jnp.array([5.0, 2.0, 0.5]), 1.5, 1, 7.0
    tau = np.sqrt(level / _softmax.CLASSES)
    mean = jnp.zeros(3).at[mode].set(along)
    expected = theory.softmax_spectrum_from_mean(spectrum, _softmax.CLASSES, tau, mean) * _softmax.CLASSES * level
    model = jax.jit(_softmax.model)(spectrum, jnp.zeros(()), jnp.array(along), mode, level)
    np.testing.assert_allclose(np.sort(model), np.sort(expected), rtol=1e-12)


def gram_entropy(covariance, mean, level):
    """Entropy of the linear model in coordinates, for a mean in any direction."""
    u = np.concatenate([[np.sqrt(level)], mean])
    moment = np.outer(u, u)
    moment[1:, 1:] += np.diag(covariance)
    return entropy(np.maximum(np.linalg.eigvalsh(moment), 0))


def test_the_bound_holds_for_means_in_any_direction(rng):
    theirs = 0
    for _ in range(300):
        covariance, mean = np.exp(2 * rng.standard_normal(4)), rng.standard_normal(4) * np.exp(rng.standard_normal())
        second = np.diag(covariance) + np.outer(mean, mean)
        bound = np.sum(second**2) / covariance.sum()
        levels = bound * np.array([1.0, 1.1, 2.0, 10.0])
        assert np.all(np.diff([gram_entropy(covariance, mean, level) for level in levels]) < 0)
        turning = covariance.sum() / np.exp(entropy(covariance))
        theirs += gram_entropy(covariance, mean, 1.1 * turning) > gram_entropy(covariance, mean, turning)
    assert theirs > 5  # the condition for Cov b = 0 alone does not suffice


def test_without_the_mean_the_condition_is_refuted_exactly():
    # the certified counterexample to K tau^2 >= Lambda/erank for a mean along an eigenvector
    c = exact(instance([7.0, 0.0], 0.0, 7.0, 7.001, 60.0))
    assert T11.right_side(c)
    assert CLAIM.ball_margin(c)[0] < 0
    assert not CLAIM.hypotheses[2].holds(c)


def test_logits_that_violate_above_their_largest():
    logits, low, high = T11.HOT
    assert low > max(abs(np.array(row) - np.mean(row)).max() for row in logits)
    found = []
    for tau in (low, high):
        outputs = np.exp(np.array(logits) / tau)
        outputs = outputs / outputs.sum(axis=1, keepdims=True)
        found.append(entropy(np.linalg.eigvalsh(outputs.T @ outputs / 2)))
        np.testing.assert_allclose(float(T11.ball_softmax_rank(logits, tau).mid()), found[-1], rtol=1e-12)
    assert found[1] > found[0]
    assert T11.ball_softmax_rank(logits, high) - T11.ball_softmax_rank(logits, low) > arb(0.001)


def test_how_often_the_rank_rises():
    rates = T11.rising_rates(jax.random.key(5), jnp.array([0.1, 0.2, 1.01, 2.0]), draws=60, samples=24, classes=4)
    assert all(rates[f"{name}, outputs"]["each"][-1] == 0 for name in T11.SAMPLERS)
    assert rates["nonzero mean, outputs"]["anywhere"] > 0.1
    assert 0.1 < rates["equal scales, constant removed"]["each"][-1] < 0.9


@pytest.mark.parametrize("dropped, hypothesis", [("turning point 1% off", 3), ("a mean along an eigenvector", 2)])
def test_wrong_variants_are_refuted(dropped, hypothesis):
    kept = tuple(h for i, h in enumerate(CLAIM.hypotheses) if i != hypothesis)
    assert refuted(variants(CLAIM, {"erank": lambda m, c: m[0]}, dropped=dropped, hypotheses=kept)) == {"erank"}
