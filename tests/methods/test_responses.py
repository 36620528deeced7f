"""The contract of all transforms: what they do to features with a prescribed spectrum is what their response says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rdm_jax.methods import (
    TRANSFORMS,
    Context,
    CorrelationState,
    QueueState,
    center_ema,
    center_features,
    chain,
    direct_copy,
    direct_pred,
    direct_set,
    filtering,
    identity,
    isotropic,
    l2_normalize,
    linear_predictor,
    mlp_predictor,
    parse_filter,
    prototypes,
    queued,
    sharpen,
    sinkhorn,
    softmax,
    stop_gradient,
    without_constant_mode,
)
from rdm_jax.spectra import eigensystem, features_with_spectrum, second_moment, spectral_filter
from rdm_jax.theory import (
    centered_spectrum,
    sinkhorn_linearisation,
    softmax_spectrum,
    wiener_gains,
    wiener_predictor,
)

N, SPECTRUM, NOISE, RIDGE = 64, np.array([5.0, 3.0, 1.6, 0.7]), 0.4, 0.3
D = len(SPECTRUM)
MEAN = np.array([0.5, -1.5, 0.2, 0.6])
# Eigenvectors, and with them measured gains, are known to rounding over the gaps of the spectrum.
ROUNDING = 2e-5


def views(key, n=N, noise=NOISE):
    """Two views z, z+ whose moments are exactly E[zz^T] = E[z+z+^T] = C_m + noise I, E[z+z^T] = C_m."""
    first, second = jax.random.split(key)
    flat = features_with_spectrum(first, n, np.ones(3 * D))
    basis = features_with_spectrum(second, D, np.ones(D)) / jnp.sqrt(1.0 * D)
    signal, *noises = jnp.split(flat, 3, axis=1)
    shared = signal * jnp.sqrt(jnp.asarray(SPECTRUM - noise, jnp.float32))[None]
    return jnp.stack([(shared + jnp.sqrt(noise) * other) @ basis.T for other in noises])


def in_eigenbasis(features, vector):
    """Coordinates of a vector in the eigenbasis of the features' second moment, in the order of ``spectral_filter``."""
    return eigensystem(second_moment(features)).vectors.T @ vector


def assert_response(transform, params, state, features, context, *, tolerance=ROUNDING, mode=lambda z: z):
    compiled = jax.jit(lambda p, s, z: mode(transform.apply(p, s, z, context)[0]))
    measured = spectral_filter(compiled(params, state, features), mode(features))
    alive = np.asarray(measured.valid)
    predicted = transform.response(measured.spectrum, context)
    assert predicted.shape == measured.gains.shape
    np.testing.assert_allclose(measured.gains[alive], predicted[alive], rtol=tolerance, atol=tolerance)
    return predicted


def plain(key):
    return features_with_spectrum(key, N, SPECTRUM)


def scores(key, size, mean=None):
    """Scores whose rows have mean 0 and size at most ``size``."""
    first, second = jax.random.split(key)
    mixing = without_constant_mode(jax.random.normal(second, (D, D + 2)))
    made = features_with_spectrum(first, N, SPECTRUM, mean=mean) @ mixing
    return size * made / jnp.max(jnp.abs(made))


def trained_perceptron(key, first, second):
    """relu(W z) - relu(-W z) = W z, with the best W."""
    transform = mlp_predictor((2 * D,), batch_norm=False)
    params, state = transform.init(key, first)
    best = wiener_predictor(second.T @ first / N, first.T @ first / N, RIDGE)
    layers = params["predictor"]
    layers["linear0"]["kernel"] = jnp.concatenate([best.T, -best.T], axis=1)
    layers["linear1"]["kernel"] = jnp.concatenate([jnp.eye(D), -jnp.eye(D)])
    return transform, params, state


def check_identity(key):
    assert_response(identity(), {}, (), plain(key), Context())


def check_stop_gradient(key):
    assert_response(stop_gradient(), {}, (), plain(key), Context())


def check_filtering(key):
    for name, scale in (
        ("power:1", "batch"),
        ("log1p", "batch"),
        ("log1p_square", "sample"),
        ("wiener:0.4,0.3", "batch"),
    ):
        transform = filtering(parse_filter(name), side="online", scale=scale)
        assert_response(transform, {}, (), plain(key), Context(samples=N))
    assert_response(filtering(parse_filter("power:-0.5"), side="target"), {}, (), plain(key), Context(samples=N))
    assert filtering(parse_filter("power:1"), side="online").response(SPECTRUM, Context()) is None


def check_center_features(key):
    features = features_with_spectrum(key, N, SPECTRUM, mean=MEAN)
    context = Context(mean=in_eigenbasis(features, MEAN))
    predicted = assert_response(center_features(), {}, (), features, context)
    assert np.ptp(predicted) > 0.1
    along_top = np.array([1.2, 0.0, 0.0, 0.0])
    expected = jnp.sqrt(centered_spectrum(SPECTRUM, 1.2**2) / SPECTRUM)
    np.testing.assert_allclose(center_features().response(SPECTRUM, Context(mean=along_top)), expected, rtol=1e-6)
    assert center_features().response(SPECTRUM, Context()) is None


def check_center_ema(key):
    features = features_with_spectrum(key, N, SPECTRUM, mean=MEAN)
    center = jnp.array([0.2, -0.4, 0.9, 0.1])
    context = Context(mean=in_eigenbasis(features, MEAN), center=in_eigenbasis(features, center))
    assert_response(center_ema(), {}, center, features, context)
    converged = center_ema().response(SPECTRUM, Context(mean=MEAN))
    np.testing.assert_array_equal(converged, center_features().response(SPECTRUM, Context(mean=MEAN)))


def check_sharpen(key):
    assert_response(sharpen(0.3), {}, (), plain(key), Context())


def check_softmax(key):
    for size in (0.1, 0.01):
        features = scores(key, size)
        predicted = assert_response(softmax(), {}, (), features, Context(), tolerance=size, mode=without_constant_mode)
    classes = features.shape[1]
    theory = softmax_spectrum(SPECTRUM, classes, 1.0)[1:]
    np.testing.assert_allclose(theory, predicted[0] ** 2 * SPECTRUM, rtol=1e-6)
    assert softmax().response(SPECTRUM, Context(width=9)).tolist() == pytest.approx([1 / 9] * D)


def check_sinkhorn(key):
    for size in (0.1, 0.01):
        features = size * scores(key, 0.05, MEAN)
        context = Context(mean=in_eigenbasis(features, jnp.mean(features, axis=0)))
        mode = without_constant_mode
        # The second order is relative to the gain 1 / (K eps) that the regime gives, here 1 / 0.3.
        assert_response(sinkhorn(), {}, (), features, context, tolerance=2 * size / 0.3, mode=mode)
    predicted = sinkhorn().response(*spectrum_and_mean(features))
    model = spectral_filter(mode(N * sinkhorn_linearisation(features, 0.05)), features)
    np.testing.assert_allclose(predicted[:D], model.gains[:D], rtol=1e-3)
    assert sinkhorn().response(SPECTRUM, Context()) is None


def spectrum_and_mean(features):
    values = eigensystem(second_moment(features)).values
    return values, Context(mean=in_eigenbasis(features, jnp.mean(features, axis=0)))


def check_queued(key):
    features = 0.01 * scores(key, 0.05, MEAN)
    transform = queued(sinkhorn(), 2 * N)
    # With the batch itself in the queue all means are those of the batch.
    state = QueueState(jnp.concatenate([features, features]), jnp.int32(2 * N), ())
    context = Context(mean=in_eigenbasis(features, jnp.mean(features, axis=0)))
    assert_response(transform, {}, state, features, context, tolerance=0.07, mode=without_constant_mode)


def check_linear_predictor(key):
    first, second = views(key)
    best = wiener_predictor(second.T @ first / N, first.T @ first / N, RIDGE)
    context = Context(noise=NOISE, ridge=RIDGE)
    predicted = assert_response(linear_predictor(), {"predictor": best}, (), first, context)
    np.testing.assert_allclose(predicted, wiener_gains(SPECTRUM, NOISE, RIDGE), rtol=1e-4)
    exact = linear_predictor().response(SPECTRUM, Context(signal=SPECTRUM - NOISE, ridge=RIDGE))
    np.testing.assert_allclose(predicted, exact, rtol=1e-4)
    lagging = linear_predictor().response([2.0], Context(signal=[1.0], progress=np.log(2.0)))
    assert float(lagging[0]) == pytest.approx(0.375)
    assert linear_predictor().response(SPECTRUM, Context()) is None


def check_mlp_predictor(key):
    first, second = views(key)
    transform, params, state = trained_perceptron(key, first, second)
    assert_response(transform, params, state, first, Context(noise=NOISE, ridge=RIDGE))


def check_direct_pred(key):
    features = plain(key)
    _, state = direct_pred().init(key, features)
    assert_response(direct_pred(epsilon=0.05), {}, state, features, Context())
    old = CorrelationState(second_moment(features), jnp.int32(1))
    assert_response(direct_pred(momentum=0.7), {}, old, features, Context(train=False))


def check_direct_copy(key):
    features = plain(key)
    assert_response(direct_copy(epsilon=0.2), {}, direct_copy().init(key, features)[1], features, Context())


def check_direct_set(key):
    features = plain(key)
    for normalize in (True, False):
        transform = direct_set(0.7, epsilon=0.2, normalize=normalize)
        assert_response(transform, {}, transform.init(key, features)[1], features, Context())


def check_isotropic(key):
    features = plain(key)
    transform = isotropic(direct_set(0.5))
    assert_response(transform, {}, transform.init(key, features)[1], features, Context())


def check_chain(key):
    features = features_with_spectrum(key, N, SPECTRUM, mean=MEAN)
    mean = in_eigenbasis(features, MEAN)
    center = jnp.array([0.2, -0.4, 0.9, 0.1])
    order = filtering(parse_filter("power:1"), side="online"), filtering(parse_filter("log1p"), side="online")
    one = assert_response(chain(*order), {}, ((), ()), features, Context(samples=N))
    other = assert_response(chain(*order[::-1]), {}, ((), ()), features, Context(samples=N))
    assert np.max(np.abs(one / other - 1)) > 0.1
    # Centering after a filter: the mean is filtered too.
    filtered = chain(filtering(parse_filter("power:1"), side="online", scale="sample"), center_features())
    assert_response(filtered, {}, ((), ()), features, Context(mean=mean))
    teacher = chain(center_ema(), sharpen(2000.0), softmax())
    rows = without_constant_mode(features)
    state = teacher.init(key, rows)[1]
    state = (without_constant_mode(center[None])[0], *state[1:])
    context = Context(
        mean=in_eigenbasis(rows, jnp.mean(rows, axis=0)),
        center=in_eigenbasis(rows, without_constant_mode(center[None])[0]),
    )
    assert_response(teacher, {}, state, rows, context, tolerance=2e-3, mode=without_constant_mode)
    assert chain().response(SPECTRUM, Context()).tolist() == [1.0] * D
    assert chain(identity(), l2_normalize()).response(SPECTRUM, Context()) is None


def check_silent(transform):
    """Where theory is silent the response says so, whatever is known."""
    assert transform.response(SPECTRUM, Context(noise=NOISE, mean=MEAN, samples=N)) is None


CHECKS = {name: globals().get(f"check_{name}") for name in TRANSFORMS} | {
    "l2_normalize": lambda key: check_silent(l2_normalize()),
    "prototypes": lambda key: check_silent(prototypes(3)),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_measured_filter_is_the_response(name, key):
    CHECKS[name](key)


def test_a_chain_hands_signal_and_noise_on(key):
    first, second = views(key)
    filters = filtering(parse_filter("power:1"), side="online", scale="sample")
    filtered = filters.apply({}, (), first, Context())[0], filters.apply({}, (), second, Context())[0]
    best = wiener_predictor(filtered[1].T @ filtered[0] / N, filtered[0].T @ filtered[0] / N, RIDGE)
    transform = chain(filters, linear_predictor())
    assert_response(transform, {"predictor": best}, ((), ()), first, Context(noise=NOISE, ridge=RIDGE), tolerance=1e-4)


def test_centering_takes_from_the_signal_what_it_takes_from_the_moment():
    transform = chain(center_ema(), linear_predictor())
    context = Context(mean=MEAN, center=0.5 * MEAN, signal=SPECTRUM - NOISE)
    centered = SPECTRUM - 0.75 * MEAN**2
    expected = np.sqrt(centered / SPECTRUM) * (1 - NOISE / centered)
    np.testing.assert_allclose(transform.response(SPECTRUM, context), expected, rtol=1e-5)
    by_noise = transform.response(SPECTRUM, Context(mean=MEAN, center=0.5 * MEAN, noise=NOISE))
    np.testing.assert_allclose(by_noise, expected, rtol=1e-5)


def test_predictors_on_random_views_come_within_the_sampling_error(key):
    n = 4096
    first, second, third = jax.random.split(key, 3)
    shared = jax.random.normal(first, (n, D)) * jnp.sqrt(jnp.asarray(SPECTRUM - NOISE, jnp.float32))[None]
    one, other = (shared + NOISE**0.5 * jax.random.normal(k, (n, D)) for k in (second, third))
    best = wiener_predictor(other.T @ one / n, one.T @ one / n)
    # g = 1 - noise / lambda has standard error about sqrt(2 noise / (n lambda)); five of them at the smallest lambda.
    tolerance = 5 * np.sqrt(2 * NOISE / (n * SPECTRUM[-1]))
    assert_response(linear_predictor(), {"predictor": best}, (), one, Context(noise=NOISE), tolerance=tolerance)


def test_an_invalid_spectrum_is_refused_and_poisoned(key):
    with pytest.raises(ValueError, match="negative value beyond rounding"):
        identity().response([1.0, -1.0], Context())
    poisoned = jax.jit(lambda spectrum: identity().response(spectrum, Context()))(jnp.array([1.0, -1.0]))
    assert np.isnan(poisoned).all()
    with pytest.raises(ValueError, match=r"noise is a variance .* must be >= 0, got -1"):
        linear_predictor().response(SPECTRUM, Context(noise=-1))
    with pytest.raises(ValueError, match="both signal and noise"):
        linear_predictor().response(SPECTRUM, Context(signal=SPECTRUM, noise=0.1))
