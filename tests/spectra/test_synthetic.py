"""Synthetic features: what was prescribed is there, exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from rdm_jax.spectra import branches_with_filter, features_with_spectrum


def spectrum_of(features):
    values = np.linalg.svd(np.asarray(features), compute_uv=False) ** 2 / len(features)
    return np.append(values, np.zeros(features.shape[1] - len(values)))


@pytest.mark.parametrize(
    ("n", "spectrum"), [(12, [1.0, 5, 2, 2, 0.1]), (5, [1.0, 5, 2, 2, 0.1]), (3, [0, 4.0, 0, 1, 0.5]), (1, [0.0, 3])]
)
def test_second_moment_has_the_spectrum(x64, key, n, spectrum):
    features = features_with_spectrum(key, n, spectrum)
    assert features.shape == (n, len(spectrum))
    assert_allclose(spectrum_of(features), np.sort(spectrum)[::-1], atol=1e-13)
    other = features_with_spectrum(jax.random.fold_in(key, 1), n, spectrum)
    assert n == 1 or np.abs(np.asarray(features - other)).max() > 0.1


def test_with_a_mean_the_covariance_has_the_spectrum(x64, key):
    spectrum, mean = [3.0, 1, 0.5, 0], [100.0, 0, -2, 1]
    for n in (10, 4):
        features = np.asarray(features_with_spectrum(key, n, spectrum, mean=mean))
        assert_allclose(features.mean(axis=0), mean, atol=1e-12)
        assert_allclose(spectrum_of(features - features.mean(axis=0)), spectrum, atol=1e-12)


def test_directions_are_isotropic(key):
    """The leading direction is uniform on the sphere: its second moment is I/3."""
    draw = jax.jit(jax.vmap(lambda key: features_with_spectrum(key, 1, jnp.array([3.0, 0.0, 0.0]))[0]))
    directions = np.asarray(draw(jax.random.split(key, 4000))) / np.sqrt(3)
    # The variance of x_i^2 is 4/45, of x_i x_j 1/15: five standard errors over 4,000 draws.
    assert_allclose(directions.T @ directions / 4000, np.eye(3) / 3, atol=5 * np.sqrt(4 / 45 / 4000))
    assert_allclose(directions.mean(axis=0), np.zeros(3), atol=5 * np.sqrt(1 / 3 / 4000))


@pytest.mark.parametrize("n", [9, 3])
def test_a_filter_acts_in_the_eigenbasis(x64, key, n):
    # In the order given: 1 gets 5, 4 gets 0.5, 2 gets 3.
    spectrum, gains = np.array([1.0, 4, 2, 0]), np.array([5.0, 0.5, 3, 7])
    online, target = (np.asarray(branch) for branch in branches_with_filter(key, n, spectrum, gains))
    assert_allclose(spectrum_of(target), [4, 2, 1, 0], atol=1e-12)
    assert_allclose(spectrum_of(online), np.sort(spectrum * gains**2)[::-1], atol=1e-12)
    moments = [branch.T @ branch / n for branch in (online, target)]
    assert_allclose(moments[0] @ moments[1], moments[1] @ moments[0], atol=1e-12)
    # tr C_online C_target = sum g^2 lambda^2 pins which gain belongs to which eigenvalue.
    assert_allclose(np.trace(moments[0] @ moments[1]), np.sum(gains**2 * spectrum**2), rtol=1e-12)


def test_what_cannot_be_made_is_refused(key):
    for n, spectrum, options, message in [
        (2, [1.0, 1, 1], {}, "2 samples carry at most 2 nonzero"),
        (3, [1.0, 1, 1], {"mean": [0.0, 0, 0]}, "3 samples carry at most 2 nonzero"),
        (1, [1.0, 0], {"mean": [0.0, 0]}, "n >= 2"),
        (0, [1.0], {}, "n >= 1"),
        (3, [[1.0, 2.0]], {}, r"spectrum of shape \(d,\)"),
        (3, [0.0, 0.0], {}, "all zero"),
        (3, [1.0, -1.0], {}, "negative"),
        (3, [1.0, 2.0], {"mean": [1.0]}, "mean must have the spectrum's shape"),
        (3, [1.0, 2.0], {"mean": [1.0, np.nan]}, "mean hold NaN or inf"),
    ]:
        with pytest.raises(ValueError, match=message):
            features_with_spectrum(key, n, spectrum, **options)
    with pytest.raises(ValueError, match="gains must have the spectrum's shape"):
        branches_with_filter(key, 3, [1.0, 2.0], [1.0])
    traced = jax.jit(features_with_spectrum, static_argnums=1)(key, 2, jnp.ones(3))
    assert np.isnan(traced).all()
