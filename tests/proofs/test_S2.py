"""S2: hand-computed margins, moments that do not commute against autodiff, and wrong variants that must be refuted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from proofs_numeric import S2_regularised_or_lagging_predictor as S2
from tests.proofs.refuting import assert_margins, exact, refuted, variants

pytestmark = pytest.mark.usefixtures("x64")
(CLAIM,) = S2.STATEMENT.claims


def test_margin_of_a_ridge_by_hand():
    # g = m/(lambda + 1) = (1, 1/2), theta = (3/2, 2), g^2 lambda = (2, 1/4), so q_p = (8/9, 1/9) and
    # -2 Cov(theta, log lambda)/E[theta] = 2 (8/81) (1/2) log 2 / (14/9) = (4/63) log 2.
    c = S2.Instance([2.0, 1.0], [3.0, 1.0], [3.0, 1.0], 1.0, 0.0)
    assert_margins(CLAIM, c, [4 / 63 * np.log(2)] * 2)


def test_margin_of_a_lagging_predictor_by_hand():
    # alpha t = log 2: g = m/lambda (1 - 2^-lambda) = (3/4, 1/2), theta = (4/3, 2), g^2 lambda = (9/8, 1/4), so
    # q_p = (9/11, 2/11) and -2 Cov/E = 2 (18/121) (2/3) log 2 / (16/11) = (3/22) log 2.
    c = S2.Instance([2.0, 1.0], [2.0, 1.0], [2.0, 1.0], 0.0, 1 / np.log(2))
    assert_margins(CLAIM, c, [3 / 22 * np.log(2)] * 2)


def test_the_exact_wiener_filter_is_stationary():
    c = S2.Instance([2.0, 1.0], [0.3, 0.9], [0.3, 0.9], 0.0, 0.0)
    assert_margins(CLAIM, c, [0.0, 0.0])
    assert CLAIM.equality(exact(c)) == [True, True]
    assert CLAIM.equality(exact(c._replace(ridge=0.1))) == [False, False]
    assert CLAIM.equality(exact(c._replace(lag=0.1))) == [False, False]


def flow_of_features(rng, spectrum, cross, predictor):
    """r_i of C_z's eigenmodes by autodiff of the mean-field cosine on samples with E[z z^T], E[z+ z^T] as given."""
    both = np.block([[np.diag(spectrum), cross.T], [cross, np.diag(spectrum)]])
    d, count = len(spectrum), 40
    samples = np.sqrt(count) * np.linalg.qr(rng.normal(size=(count, 2 * d)))[0] @ np.linalg.cholesky(both).T

    def loss(features, target):
        output = features @ predictor.T
        inner, lengths = jnp.sum(output * target), jnp.sum(output**2) * jnp.sum(target**2)
        return -count * inner / jnp.sqrt(lengths)

    views, targets = samples[:, :d], samples[:, d:]
    change = -np.asarray(jax.grad(loss)(views, targets)).T @ views / count
    factor = np.sqrt(np.sum((views @ predictor.T) ** 2) * np.sum(targets**2)) / count
    return np.diag(change) * factor / spectrum


def test_moments_that_do_not_commute(rng):
    spectrum, ridge, time = np.array([4.0, 2.5, 1.0, 0.4]), 0.3, 0.7
    cross = np.array([[1.1, 0.5, -0.2, 0.1], [0.4, 0.3, 0.3, -0.2], [-0.3, 0.2, 0.5, 0.1], [0.1, 0.1, 0.0, 0.2]])
    stiffness = spectrum + ridge
    predictor = cross * (1 - np.exp(-time * stiffness)) / stiffness
    assert np.abs(predictor @ np.diag(spectrum) - np.diag(spectrum) @ predictor).max() > 0.2
    rates = flow_of_features(rng, spectrum, cross, predictor)
    shares = spectrum / spectrum.sum()
    speed = -2 * np.sum(shares * (rates - shares @ rates) * np.log(spectrum))
    signal = np.linalg.norm(cross, axis=0)
    scale = np.sum(predictor * cross) / spectrum.sum()
    c = S2.Instance(spectrum.tolist(), signal.tolist(), signal.tolist(), ridge, 1 / time)
    assert speed > 0.01 * scale
    assert_margins(CLAIM, c, [speed / scale] * 2, rtol=1e-10)


def test_wrong_variants_are_refuted():
    rules = {
        "erank falls": lambda m, c: -m[0],
        "faster than the ridge alone": lambda m, c: m[1] - c.ridge / (c.ridge + c.spectrum[0]),
        "true": lambda m, c: m[0] + m[1],
    }
    assert refuted(variants(CLAIM, rules)) == rules.keys() - {"true"}


def test_a_sharper_predictor_and_another_signal_lower_the_rank():
    # theta = (1 - rho/lambda) for the one, and m/learned = (1, 2/3) for the other: both grow with lambda
    sharper = S2.Instance([2.0, 1.0], [3.0, 1.0], [3.0, 1.0], -0.5, 0.0)
    other = S2.Instance([2.0, 1.0], [3.0, 1.0], [3.0, 1.5], 0.0, 0.0)
    assert all(CLAIM.ball_margin(exact(c))[0] < 0 for c in (sharper, other))
