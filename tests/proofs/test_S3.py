"""S3: hand-computed margins, eigenvalues of a moving cloud, quadrature, and wrong variants that must be refuted."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from proofs_numeric import S3_exact_per_sample_cosine as S3
from tests.proofs.refuting import assert_margins, exact, floats, refuted, variants

pytestmark = pytest.mark.usefixtures("x64")
CLAIM = S3.STATEMENT.claims[0]


def noiseless(samples, online, target):
    return S3.Instance(samples, samples, online, target, 0.0)


def test_margins_by_hand():
    # |z|^2 = 2, |p|^2 = 5/4, kappa = 6/5: z z' = (-1, 1)/5 over |p||z|. Target: |t|^2 = 5, kappa = 3/2: (-1, 1)/2.
    c = noiseless([[1.0, 1.0], [1.0, -1.0]], [1.0, 0.5], [1.0, 2.0])
    assert_margins(CLAIM, c, [0.2 / np.sqrt(2.5), 0.5 / np.sqrt(10), 0, 0])


def test_turned_filters_and_a_second_view_by_hand():
    # Turned by 90 degrees (tilt 1) the gains change places, so the sums change sign; g = (1, 1/2), h = (1, 2).
    c = noiseless([[1.0, 1.0], [-1.0, 1.0]], [1.0, 0.5], [1.0, 2.0])
    assert_margins(CLAIM, c._replace(tilt=1.0), [-0.2 / np.sqrt(2.5), -0.5 / np.sqrt(10), 0, 0])
    # t = (1, 0), g = 1: z' = (t - z/2)/sqrt(2), so z_1 z_1' = 1/(2 sqrt 2), the first mode grows.
    c = S3.Instance([[1.0, 1.0]] * 2, [[1.0, 0.0]] * 2, [1.0, 1.0], [1.0, 1.0], 0.0)
    assert_margins(CLAIM, c, [-0.5 / np.sqrt(2)] * 2 + [0, 0])


def test_samples_with_one_gain_or_one_mode_each_stand_still():
    assert CLAIM.equality(exact(noiseless([[1.0, 0.0], [0.0, 1.0]], [1.0, 0.5], [1.0, 2.0])))[:2] == [True, True]
    assert CLAIM.equality(exact(noiseless([[1.0, 1.0], [0.0, 1.0]], [1.0, 0.5], [1.0, 2.0])))[:2] == [False, False]
    assert CLAIM.equality(exact(noiseless([[1.0, 1.0], [2.0, 1.0]], [0.5, 0.5], [1.0, 2.0])))[:2] == [True, False]
    # the first sum is still where only modes 2 and 3 mix
    c = noiseless([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]], [1.0, 0.5, 0.1], [1.0, 2.0, 3.0])
    assert CLAIM.equality(exact(c))[:2] == [True, True]
    assert_margins(CLAIM, c, [0, 0, 0, 0])


def test_the_sums_are_those_of_eigenvalues_in_any_basis(rng):
    """A cloud closed under sign changes, turned by a random rotation: one small step of the real gradient flow."""
    samples, gains = np.sort(rng.exponential(size=(2, 3)))[:, ::-1] + 0.1, np.array([1.3, 0.8, 0.3])
    basis = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    signs = np.array(list(itertools.product([1, -1], repeat=3)))
    cloud = (signs[:, None] * samples).reshape(-1, 3) @ basis.T
    filter_ = basis * gains @ basis.T

    def loss(features):
        p, t = features @ filter_, jax.lax.stop_gradient(features)
        return -jnp.sum(jnp.sum(p * t, axis=1) / jnp.linalg.norm(p, axis=1) / jnp.linalg.norm(t, axis=1))

    step = 1e-6
    before, after = (
        np.linalg.eigvalsh(z.T @ z / 16)[::-1] for z in (cloud, cloud - step * jax.jit(jax.grad(loss))(cloud))
    )
    rates = np.cumsum(after - before)[:2] / step / 2
    margins = CLAIM.margin(floats(noiseless(samples.tolist(), gains.tolist(), [1.0, 1.0, 1.0])))
    np.testing.assert_allclose(-rates.max(), margins[0], rtol=1e-4)  # the step's own curvature
    assert margins[0] > 0


def test_the_quadrature_is_exact_for_polynomials():
    points, weights = S3._chi_square(8)
    moments = [1.0, 1.0, 1 + 2 / 8, (1 + 2 / 8) * (1 + 4 / 8)]  # of chi^2/degrees
    np.testing.assert_allclose([weights @ points**k for k in range(4)], moments, rtol=1e-12)


def test_mean_field_needs_independent_modes(key):
    measure = jax.jit(S3.deviations, static_argnames=("sizes", "together"))
    apart, together = (np.asarray(measure(key, (16.0, 64.0), together=case)) for case in (False, True))
    assert np.all(apart[:, 1] < apart[:, 0] / 3)
    np.testing.assert_allclose(together[:, 1], together[:, 0], rtol=1e-12)
    assert np.median(together) > 0.1


def test_wrong_variants_are_refuted():
    rules = {
        "true": lambda m, c: m[0],
        "online sums grow": lambda m, c: -m[0],
        "target sums grow": lambda m, c: -m[1],
        "online sums fall as fast as target sums": lambda m, c: m[0] - m[1],
    }
    assert refuted(variants(CLAIM, rules)) == rules.keys() - {"true"}
