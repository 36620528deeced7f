"""T13: margins against NumPy and by hand, the ablated cases, and wrong variants that must be refuted."""

import jax
import numpy as np
import pytest

from proofs_numeric import T13_eigenmodes as T13
from proofs_numeric import _aligned, _conservation, _fixed_points, _linear
from tests.proofs.refuting import SMALL, assert_margins, exact, refuted, variants

pytestmark = pytest.mark.usefixtures("x64")
CONSERVATION, ALIGNED, LOW_PASS, FIXED_POINTS = T13.STATEMENT.claims
LOG4 = np.log(4)


def flow(predictor, encoder, target, signal, noise, rate, decay):
    """E W^T, W_p' and W' in NumPy."""
    error = target @ signal - predictor @ encoder @ (signal + noise)
    pull = error @ encoder.T
    return pull, rate * pull - decay * predictor, predictor.T @ error - decay * encoder


def conservation(rng, symmetrised):
    """A random instance with a symmetric W_p, and its margin: what [W_p, A] is beside the terms, if symmetrised."""
    head, encoder, target, first, second = rng.normal(size=(5, 3, 3))
    head, rate, decay = head + head.T, 0.7, 0.3
    pull, turning, moving = flow(head, encoder, target, first @ first.T, second @ second.T, rate, decay)
    skew = (pull - pull.T) / 2
    turning = turning - symmetrised * rate * skew
    sizes = map(np.linalg.norm, (head, encoder, turning, moving))
    matrices = (m.tolist() for m in (head, encoder, target, first, second))
    c = _conservation.Instance(*matrices, rate, decay, decay, symmetrised)
    left = symmetrised * np.abs(head @ skew - skew @ head).sum()
    h, w, t, m = sizes
    return c, -left / (w * m + h * t / rate + decay * (w**2 + h**2 / rate))


@pytest.mark.parametrize("symmetrised", [0, 1])
def test_what_a_symmetrised_predictor_loses_is_a_commutator(rng, symmetrised):
    c, expected = conservation(rng, symmetrised)
    assert (expected < -0.01) == bool(symmetrised)
    assert_margins(CONSERVATION, c, [expected], rtol=1e-12)


def test_rotations_are_those_of_quaternions():
    quarter = np.array(_linear.rotation([0.0, 0.0, 1.0]))
    np.testing.assert_allclose(quarter, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-15)
    turned = np.asarray(_linear.turned(np.array([0.3, -1.2, 0.7])))
    np.testing.assert_allclose(turned @ turned.T, np.eye(3), atol=1e-15)
    assert np.linalg.det(turned) == pytest.approx(1)
    assert np.trace(turned) == pytest.approx(1 + 2 * np.cos(2 * np.arctan(np.sqrt(0.09 + 1.44 + 0.49))))


@pytest.mark.parametrize(("predictor_turn", "data_turn"), [(0.0, 0.0), (0.4, 0.0), (0.0, 0.4)])
def test_aligned_branches_move_as_their_modes_and_turned_ones_do_not(rng, predictor_turn, data_turn):
    p, ratio = rng.normal(size=(2, 3))
    root, signal, noise = rng.uniform(0.5, 2.0, (3, 3))
    left, right = rng.normal(size=(2, 3))
    first, second = (np.array([0.0, 0.0, turn]) for turn in (predictor_turn, data_turn))
    rate, decay, speed = 0.7, 0.3, 1.3
    c = _aligned.Instance(
        *(x.tolist() for x in (p, root, ratio, signal, noise, left, right, first, second)), rate, decay, speed
    )
    u, v, a, b = (np.array(_linear.rotation(x)) for x in (left, right, first, second))
    encoder, target = u @ np.diag(root) @ v.T, u @ np.diag(ratio * root) @ v.T
    head, x = u @ a @ np.diag(p) @ a.T @ u.T, v @ b @ np.diag(signal) @ b.T @ v.T
    _, turning, moving = flow(head, encoder, target, x, v @ np.diag(noise) @ v.T, rate, decay)
    pull = ratio * signal - (signal + noise) * p
    modes = np.diag(rate * root**2 * pull - decay * p), np.diag(root * (p * pull - decay))
    wrong = np.abs(turning - u @ modes[0] @ u.T).sum(), np.abs(moving - u @ modes[1] @ v.T).sum()
    floats = _aligned.Instance(*map(np.asarray, c))
    sizes = [float(size) for size in _aligned.terms(floats)]
    expected = [-wrong[0] / sizes[0], -wrong[1] / sizes[1], 0, 0]
    assert (max(wrong) > 0.1) == bool(predictor_turn or data_turn)
    assert_margins(ALIGNED, c, expected, rtol=1e-11)


def test_low_pass_by_hand():
    # p = (2, 1), c = 0: s = (4, 1); tau = 1, sigma = 0: r = p (1 - p) = (-2, 0); the unit of rates is 2 (1 + 2)
    c = T13.Instance([2.0, 1.0], [0.0, 0.0], [1.0, 1.0], 0.0, 1.0, 1)
    target, online = (-sum(q * np.log(q)) for q in (np.array([4, 1]) / 5, np.array([16, 1]) / 17))
    assert_margins(LOW_PASS, c, [target - online, 0.64 * LOG4 / 6, 2 / 9 * LOG4 / 6])
    assert_margins(LOW_PASS, c._replace(direction=0), [target - online, 0, 0])
    # c = 8 for the second mode: s = (4, 9), and the predictor makes the output flatter than the target
    unequal = c._replace(conserved=[0.0, 8.0], direction=0)
    target, online = (-sum(q * np.log(q)) for q in (np.array([4, 9]) / 13, np.array([16, 9]) / 25))
    difference = float(jax.jit(LOW_PASS.margin)(T13.Instance(*map(np.asarray, unequal)))[0])
    assert difference == pytest.approx(target - online)
    assert float(LOW_PASS.ball_margin(exact(unequal))[0].mid()) == pytest.approx(target - online)


def test_low_pass_is_strict_unless_the_surviving_modes_are_equal():
    equal = T13.Instance([1.0, 1.0, 0.0], [0.5, 0.5, 0.0], [1.0] * 3, 0.1, 2.0, -1)
    assert LOW_PASS.equality(exact(equal)) == [True, True, True]
    # p = 0 with c = 1/2 is a mode of its own
    assert LOW_PASS.equality(exact(equal._replace(conserved=[0.5, 0.5, 0.5]))) == [False, False, False]


def test_fixed_points_by_hand():
    # critical 1/4, eta = 0.16: p = 0.8 and 0.2, where p' has the slopes -0.48 and 0.12 (in units of 1/4);
    # at p = 1/2, eta = 1/2, s falls at the rate 1/4, in units of 1
    c = _fixed_points.Instance(1.0, 0.0, 1.0, 0.6, 0.5, 1.0, 2.0)
    assert_margins(FIXED_POINTS, c, [0, 0, 0, 1.92, 0.48, 0, 0.25], rtol=1e-12, atol=1e-14)
    # s = 2 p^2: p' / p = 2 * 0.5 * 0.5 - 0.16 is 0.25 more than its factors; s falls all the same
    c = c._replace(balance=2.0)
    assert_margins(FIXED_POINTS, c, [0, 0, -0.2, 1.92, 0.48, 0, 0.2], rtol=1e-12, atol=1e-14)


def test_wrong_variants_are_refuted():
    rules = {
        "true": lambda m, c: m[0],
        "high-pass": lambda m, c: -m[0],
        "rises on both sides": lambda m, c: c.direction * m[1],
    }
    assert refuted(variants(LOW_PASS, rules, strata=SMALL)) == rules.keys() - {"true"}
