"""T3: hand-computed optima and ranks, singular moments, limits of alignment, and wrong variants to be refuted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import fmpq

from proofs_numeric import T3_optimal_linear_predictor as T3
from proofs_numeric import _alignment, _optimum
from rdm_jax import theory
from rdm_jax.claims import certify_instance
from tests.proofs.refuting import assert_margins, exact, refuted, variants

pytestmark = pytest.mark.usefixtures("x64")
OPTIMUM, FILTER = T3.STATEMENT.claims


def test_margins_of_the_filter_by_hand():
    # lambda = (4, 1), g = m/(lambda + 1) = (3/5, 0): the online output has rank 1.
    rank = np.exp(-0.8 * np.log(0.8) - 0.2 * np.log(0.2))
    assert_margins(FILTER, T3.Instance([3.0, 0.0], [1.0, 1.0], 1.0), [(rank - 1) / rank, 0.6])


def test_flat_where_there_is_signal_is_not_flat():
    # lambda = (2, 2, 1) is flat where m > 0, but a mode without signal belongs to its support
    c = exact(T3.Instance([1.0, 1.0, 0.0], [1.0, 1.0, 1.0], 0.0))
    assert FILTER.equality(c) == [False, True]
    assert certify_instance(FILTER, c, which=[0])[0].verdict == "holds"
    assert FILTER.ball_margin(c)[0] > 0.2
    assert FILTER.equality(exact(T3.Instance([1.0, 1.0, 0.0], [0.0, 0.0, 0.0], 0.5))) == [True, True]


def test_anisotropic_noise_reverses_the_rank_difference():
    # m/v = (1/3, 9): the filter passes the small mode, and the online output is flatter than the target
    signal, noise = (np.array([fmpq(*x) for x in pairs]) for pairs in (((1, 1), (9, 10)), ((3, 1), (1, 10))))
    c = T3.Instance(signal, noise, fmpq(0))
    held = {h.name: bool(np.all(h.holds(c))) for h in FILTER.hypotheses}
    assert held == {"moments": True, "nonnegative ridge": True, "sorted spectrum": True, "noise ordered": False}
    assert certify_instance(FILTER, c, which=[0])[0].verdict == "fails"


def data(centres, noise, predictor, ridge):
    """Views centre +- noise of four data as an instance, with a competing predictor."""
    views = np.stack([centres + noise, centres - noise], axis=1)
    return _optimum.Instance(views.tolist(), predictor.tolist(), ridge, 0.0)


def test_margins_of_the_optimum_against_numpy(rng):
    centres, noise, other = rng.normal(size=(4, 3)) * [3, 1, 0.5], rng.normal(size=(4, 3)), rng.normal(size=(3, 3))
    signal, ridge = centres.T @ centres / 4, 0.7
    feature = signal + noise.T @ noise / 4
    best = signal @ np.linalg.inv(feature + ridge * np.eye(3))
    aligned = signal @ np.linalg.inv(feature)

    def loss(w):
        return np.trace(w @ feature @ w.T) - 2 * np.trace(w @ signal) + np.trace(feature) + ridge * np.sum(w**2)

    def cosine(w):
        return np.trace(w @ signal) / np.sqrt(np.trace(w @ feature @ w.T) * np.trace(feature))

    size = (np.trace(feature) + ridge) * (1 + np.sum(other**2))
    expected = [(loss(other) - loss(best)) / size, 0.0, cosine(aligned) - cosine(other)]
    assert_margins(OPTIMUM, data(centres, noise, other, ridge), expected, rtol=1e-11)


def test_the_predictor_of_a_singular_moment_has_minimal_norm(rng):
    basis = np.linalg.qr(rng.normal(size=(5, 5)))[0][:, :3]
    signal, noise = (basis @ np.diag(x) @ basis.T for x in ([2.0, 1.0, 0.5], [0.3, 0.1, 0.8]))
    found = theory.wiener_predictor(signal, signal + noise)
    np.testing.assert_allclose(found, signal @ np.linalg.pinv(signal + noise), atol=1e-13)


def test_a_mode_without_signal_is_turned_away():
    # m = (1, 0), C_v = I + eps (offdiagonal): C_p v is along the other eigenvector for the silent mode, to order eps
    online, feature = jax.jit(_alignment.bent)(jnp.array([1.0, 0.0]), jnp.array([[0.5, 1.0], [1.0, 0.5]]), 1e-4)
    np.testing.assert_allclose(feature, [[2.0, 1e-4], [1e-4, 1.0]])
    gaps = jax.jit(_alignment.cosine_gaps)(online, feature)
    assert gaps[0] < 1e-8
    assert gaps[1] > 0.99


def test_wrong_variants_are_refuted():
    rules = {
        "a strict gap": lambda m, c: m[0] - c.ridge / 1000,
        "high-pass": lambda m, c: -m[1],
        "true": lambda m, c: m[0] + m[1],
    }
    assert refuted(variants(FILTER, rules)) == rules.keys() - {"true"}


def test_a_predictor_without_the_ridge_is_not_optimal(rng):
    centres, noise = rng.normal(size=(4, 2)), rng.normal(size=(4, 2))
    c = data(centres, noise, np.eye(2), 1.0)
    floats = _optimum.Instance(*(jnp.asarray(x) for x in c))
    _, _, best, aligned = jax.jit(_optimum.optima)(floats)
    assert _optimum.regression(floats, aligned) > 1.01 * _optimum.regression(floats, best)
    assert _optimum.cosine(floats, aligned) > _optimum.cosine(floats, best)
