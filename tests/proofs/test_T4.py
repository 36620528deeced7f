"""T4: margins against an independent SVD, and wrong variants that must be refuted."""

import numpy as np
import pytest

from proofs_numeric import T4_output_space as T4
from tests.proofs.refuting import assert_margins, exact, refuted, variants

pytestmark = pytest.mark.usefixtures("x64")
GAINS, SAMPLES = T4.STATEMENT.claims


def log_ranks(features):
    """log erank of features, eig and sv, from the definition."""
    values = np.linalg.svd(features, compute_uv=False)
    shares = [values**k / np.sum(values**k) for k in (2, 1)]
    return np.array([-np.sum(q * np.log(q)) for q in shares])


def filtered(features, gain):
    left, s, right = np.linalg.svd(features, full_matrices=False)
    return left @ np.diag(gain(s) * s) @ right


def expected(online, target, step):
    before, moved, after = (log_ranks(x) for x in (online, (1 - step) * online + step * target, target))
    return np.concatenate([moved - before, after - moved])


def test_margins_of_gains_against_an_svd(rng):
    left, right = (np.linalg.qr(rng.standard_normal((n, 3)))[0] for n in (7, 3))
    singular, gains = np.array([3.0, 1.5, 0.5]), np.array([0.4, 0.7, 2.0])
    online, target = (left @ np.diag(s) @ right.T for s in (singular, gains * singular))
    c = T4.Gains(singular.tolist(), gains.tolist(), 0.3)
    assert_margins(GAINS, c, expected(online, target, 0.3), rtol=1e-12)


@pytest.mark.parametrize("other", [False, True])
def test_margins_of_samples_against_an_svd(rng, other):
    common, noise, other_noise = (rng.standard_normal((2, 5)) * [[1.0], [0.2]] for _ in range(3))
    other_noise = other_noise if other else noise
    c = T4.Views(common.tolist(), noise.tolist(), other_noise.tolist(), 0.7, 1.3, 0.4)
    target = filtered((common + other_noise).T, lambda s: 0.7 + 1.3 / s)
    found = expected((common + noise).T, target, 0.4)
    assert_margins(SAMPLES, c, found, rtol=1e-10)


def test_the_ball_of_a_flat_sample_decides_equality():
    c = T4.Views([[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0]] * 2, [[0.0, 0.0]] * 2, 0.5, 1.0, 0.25)
    assert T4.equality_views(exact(c)) == [True] * 4
    assert all(ball.contains(0) for ball in SAMPLES.ball_margin(exact(c)))


def test_wrong_variants_are_refuted():
    rules = {
        "at least in proportion to eta": lambda m, c: m[0] - c.step * (m[0] + m[2]),
        "beyond the target": lambda m, c: -m[2],
        "true": lambda m, c: m[0] + m[2],
    }
    assert refuted(variants(GAINS, rules)) == rules.keys() - {"true"}


def test_the_other_view_is_refuted():
    rules = {"rise": lambda m, c: m[0], "bound": lambda m, c: m[2]}
    wrong = variants(SAMPLES, rules, SAMPLES.strata, dropped="the other view", hypotheses=SAMPLES.hypotheses[1:])
    assert refuted(wrong) == rules.keys()
