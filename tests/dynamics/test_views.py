"""The exact flow of features against the mean field, against published formulas, and its own invariants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rdm_jax.dynamics import (
    FeatureDesign,
    FeatureParameters,
    ViewFeatures,
    feature_field,
    mode_field,
    power_gains,
    views_with_spectrum,
)
from tests.dynamics import feature_cases as cases

pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture(scope="module")
def slopes():
    """Slopes of both fields of every design at one start, compiled as one."""

    def both(design, numbers, modes, views):
        args = cases.parameters(design, numbers)
        return mode_field(design)(0.0, modes, args), feature_field(design)(0.0, views, args)

    with jax.enable_x64(True):
        starts = {name: cases.start_of(design) for name, (design, _) in cases.DESIGNS.items()}
        states = {name: start[:2] for name, start in starts.items()}
        found = jax.jit(lambda states: {name: both(*cases.DESIGNS[name], *pair) for name, pair in states.items()})(
            states
        )
    return {name: (*jax.tree.map(np.asarray, (found[name], starts[name][1])), starts[name][2]) for name in starts}


@pytest.mark.parametrize("name", cases.DESIGNS)
def test_the_mean_field_is_exact(slopes, name):
    """d/dt of E[z z^T] and of E[z+ z^T] in the modes' eigenbasis, by autodiff of the loss of the batch."""
    (modes, views), state, basis = slopes[name]

    def change(left, right, left_slope, right_slope):
        moved = (left_slope.T @ right + left.T @ right_slope) / cases.SAMPLES
        return np.diag(basis.T @ moved @ basis)

    np.testing.assert_allclose(change(state.first, state.first, views.first, views.first), modes.spectrum, atol=1e-13)
    if modes.signal is not None:
        shared = change(state.second, state.first, views.second, views.first)
        np.testing.assert_allclose(shared, modes.signal, atol=1e-13)
    if modes.gains is not None:
        np.testing.assert_allclose(np.diag(basis.T @ views.predictor @ basis), modes.gains, atol=1e-13)


@pytest.mark.parametrize("isotropic", [False, True])
def test_one_sample_under_the_cosine(isotropic):
    """IsoLoss: z_m' = l_m / (|Dz|^3 |z|) sum_k l_k (l_k - l_m) z_k^2 z_m, and without the leading l_m."""
    levels, z = np.array([1.5, 0.7, 0.2]), np.array([0.4, -1.1, 0.8])
    field = feature_field(FeatureDesign("sample cosine", "learned", isotropic=isotropic))
    found = field(0.0, ViewFeatures(z[None], None, jnp.diag(levels)), FeatureParameters()).first[0]
    sums = [(levels * (levels - level) * z**2).sum() for level in levels]
    expected = (1 if isotropic else levels) * sums * z / (np.linalg.norm(levels * z) ** 3 * np.linalg.norm(z))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_cosine_of_each_sample_keeps_every_length(key):
    """And no top share of the spectrum rises under a low-pass filter, whatever the distribution: S3."""
    features = jax.random.gamma(key, 0.3, (20, 5)) * jnp.array([[1.0, -2.0, 0.5, 3.0, 1.0]])
    args = FeatureParameters(online=0.7)
    found = jax.jit(feature_field(FeatureDesign("sample cosine", power_gains)))(0.0, ViewFeatures(features), args).first
    basis = np.linalg.eigh(features.T @ features)[1][:, ::-1]
    projected, moved = np.asarray(features) @ basis, np.asarray(found) @ basis
    rates = (projected * moved).sum(axis=0)
    assert (np.cumsum(rates)[:-1] < 0).all()
    np.testing.assert_allclose(rates.sum(), 0, atol=1e-12)


def test_the_cosine_of_each_sample_approaches_the_mean_field_like_one_over_the_participation_ratio(rng):
    """Independent modes at two levels: the growth of the upper level, by the exact flow and by the mean field."""
    exact, mean = (feature_field(FeatureDesign(loss, power_gains)) for loss in ("sample cosine", "cosine"))
    args = FeatureParameters(online=1.0)

    @jax.jit
    def growth(features):
        slopes = (field(0.0, ViewFeatures(features), args).first for field in (exact, mean))
        half = features.shape[1] // 2
        return [jnp.sum(slope[:, :half] * features[:, :half]) for slope in slopes]

    errors, ratios = [], []
    for half in (12, 24, 40):
        spectrum = np.repeat([4.0, 1.0], half) / half
        features = np.linalg.qr(rng.normal(size=(2000, 2 * half)))[0] * np.sqrt(2000 * spectrum)
        ours, expected = growth(features)
        errors.append(abs(ours / expected - 1))
        ratios.append((spectrum**2).sum() ** 2 / (spectrum**4).sum())
    slope = np.polyfit(np.log(ratios), np.log(errors), 1)[0]
    assert abs(slope + 1) < 0.1


def test_second_views_are_the_targets_of_the_cosine_of_each_sample(key):
    first, second = (jax.random.normal(k, (6, 3)) for k in jax.random.split(key))
    found = feature_field(FeatureDesign("sample cosine", noise="free"))(
        0.0, ViewFeatures(first, second), FeatureParameters()
    )
    for own, other, slope in ((first, second, found.first), (second, first, found.second)):
        unit, length = own / jnp.linalg.norm(own, axis=1)[:, None], jnp.linalg.norm(own, axis=1)[:, None]
        towards = other / jnp.linalg.norm(other, axis=1)[:, None]
        expected = (towards - unit * jnp.sum(unit * towards, axis=1)[:, None]) / length
        np.testing.assert_allclose(slope, expected, rtol=1e-10, atol=1e-13)


def test_directions_at_the_noise_are_held_up():
    features = np.sqrt(8) * np.linalg.qr(np.random.default_rng(0).normal(size=(8, 2)))[0] * np.sqrt([2.0, 0.3])
    field = feature_field(FeatureDesign(noise="persistent"))
    found = np.asarray(field(0.0, ViewFeatures(features), FeatureParameters(noise=0.4)).first)
    np.testing.assert_allclose(found[:, 1], 0, atol=1e-14)
    assert np.abs(found[:, 0]).max() > 0.01


def test_views_have_their_moments(key):
    first, second = (np.asarray(view) for view in views_with_spectrum(key, 9, cases.SPECTRUM, cases.SIGNAL))
    moments = [left.T @ right / 9 for left, right in ((first, first), (second, second), (second, first))]
    basis = np.linalg.eigh(moments[0])[1][:, ::-1]
    for moment, values in zip(moments, (cases.SPECTRUM, cases.SPECTRUM, cases.SIGNAL), strict=True):
        np.testing.assert_allclose(basis.T @ moment @ basis, np.diag(values), atol=1e-13)


@pytest.mark.parametrize(
    ("spectrum", "signal", "n", "message"),
    [
        ([1.0, 2.0], [1.5, 1.0], 8, r"signal must lie within the spectrum"),
        ([1.0, 2.0], [1.0], 8, r"need spectrum and signal \(d,\) alike"),
        ([1.0, 2.0], [1.0, 1.0], 3, r"n >= 2 d"),
    ],
)
def test_impossible_views_are_refused(key, spectrum, signal, n, message):
    with pytest.raises(ValueError, match=message):
        views_with_spectrum(key, n, spectrum, signal)


Z = np.ones((4, 2))


@pytest.mark.parametrize(
    ("options", "state", "args", "message"),
    [
        ({"noise": "persistent"}, ViewFeatures(Z), {"noise": -1.0}, "noise must be nonnegative"),
        ({}, ViewFeatures(Z, Z), {}, "the state's second must be None for this design"),
        ({"noise": "free"}, ViewFeatures(Z), {}, "the state's second must be an array for this design"),
        ({"noise": "free"}, ViewFeatures(Z, Z[1:]), {}, "both views must have one shape"),
        ({"online": "learned"}, ViewFeatures(Z), {}, "the state's predictor must be an array"),
        ({"online": "learned"}, ViewFeatures(Z, None, np.eye(3)), {}, r"predictor must be \(d, d\) beside features"),
        ({}, ViewFeatures(np.nan * Z), {}, "first of shape .* hold NaN or inf"),
    ],
)
def test_bad_input_is_a_sentence(options, state, args, message):
    with pytest.raises(ValueError, match=message):
        feature_field(FeatureDesign(**options))(0.0, state, FeatureParameters(**args))
