"""Growth rates against the gradient of the real losses on samples with an exactly prescribed second moment."""

from decimal import Decimal, localcontext
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdm_jax import theory

pytestmark = pytest.mark.usefixtures("x64")

SPECTRUM = np.array([5.0, 2.5, 1.2, 0.4])
ONLINE = np.array([1.3, 0.9, 0.2, 0.6])
TARGET = np.array([0.5, 1.1, 0.7, 1.6])
# not diagonal in the eigenbasis, and not symmetric: E[z+ z^T] of two views need be neither
CROSS = np.array([[3.0, 0.3, 0.1, 0.0], [-0.2, 1.9, 0.2, 0.1], [0.0, 0.1, 0.3, -0.1], [0.1, 0.0, 0.2, 0.2]])
SIDES = {"online": (ONLINE, None), "target": (None, TARGET), "both": (ONLINE, TARGET), "none": (None, None)}


def entropy(spectrum):
    shares = spectrum[spectrum > 0] / spectrum.sum()
    return -(shares * np.log(shares)).sum()


def rotation(rng, size):
    return np.linalg.qr(rng.normal(size=(size, size)))[0]


def two_views(rng, spectrum, cross, basis):
    """Samples of (z, z+) whose second moments are exactly C_z = V diag V^T for both and E[z+ z^T] = V cross V^T."""
    both = np.block([[np.diag(spectrum), cross.T], [cross, np.diag(spectrum)]])
    samples = np.linalg.qr(rng.normal(size=(6 * len(spectrum), 2 * len(spectrum))))[0]
    views = np.sqrt(len(samples)) * samples @ np.linalg.cholesky(both).T
    return views[:, : len(spectrum)] @ basis.T, views[:, len(spectrum) :] @ basis.T


def mean_loss(features, second_view, online, target, loss):
    outputs, targets = features @ online.T, second_view @ target.T
    if loss == "squared":
        return jnp.mean(jnp.sum((outputs - targets) ** 2, axis=1)) / 2
    lengths = jnp.mean(jnp.sum(outputs**2, axis=1)) * jnp.mean(jnp.sum(targets**2, axis=1))
    return -jnp.mean(jnp.sum(outputs * targets, axis=1)) / jnp.sqrt(lengths)


GRADIENT = jax.jit(jax.grad(mean_loss), static_argnames="loss")


def measured_rates(rng, online, target, cross, loss):
    """Half of d log lambda_i / dt under z' = -n dL/dz, by autodiff of the loss."""
    basis = rotation(rng, len(SPECTRUM))
    features, second_view = two_views(rng, SPECTRUM, cross, basis)
    online_filter, target_filter = basis * online @ basis.T, basis * target @ basis.T
    flow = -len(features) * GRADIENT(features, second_view, online_filter, target_filter, loss)
    change = (flow.T @ features + features.T @ flow) / len(features)
    return np.diag(basis.T @ change @ basis) / (2 * SPECTRUM)


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("loss", ["cosine", "squared"])
def test_rates_are_those_of_the_real_gradient(rng, loss, side, noisy):
    online, target = SIDES[side]
    cross = CROSS if noisy else np.diag(SPECTRUM) * (1 - 1e-9)  # as close as Cholesky allows
    ones = np.ones_like(SPECTRUM)
    measured = measured_rates(rng, ones if online is None else online, ones if target is None else target, cross, loss)
    signal = np.diag(cross) if noisy else None
    rates = theory.growth_rates(SPECTRUM, online_gains=online, target_gains=target, signal=signal, loss=loss)
    factor = theory.common_factor(SPECTRUM, online_gains=online, target_gains=target, loss=loss)
    # 1e-9 from the views that are not quite equal, else rounding
    np.testing.assert_allclose(factor * rates, measured, atol=1e-12 if noisy else 1e-8)


def test_differentiating_through_the_filter_gives_other_rates(rng):
    """So the stop-gradient of the statement matters: g(s) = log(1 + s) has no constant d(g s)/ds over g."""

    def loss(singular_values):  # one sample per mode suffices without view noise
        outputs = jnp.log1p(singular_values) * singular_values
        fixed = jax.lax.stop_gradient(singular_values)
        return -jnp.sum(outputs * fixed) / jnp.sqrt(jnp.sum(outputs**2) * jnp.sum(fixed**2))

    values = np.sqrt(SPECTRUM)
    through = -jax.grad(loss)(values) / values
    rates = theory.growth_rates(SPECTRUM, online_gains=np.log1p(values))
    factor = theory.common_factor(SPECTRUM, online_gains=np.log1p(values))
    ratio = through / (factor * rates)
    slope = np.log1p(values) + values / (1 + values)
    np.testing.assert_allclose(ratio, slope / np.log1p(values), rtol=1e-12)
    assert np.ptp(ratio) > 0.1


def test_the_cosine_conserves_the_trace():
    signal = np.diag(CROSS)
    rates = theory.growth_rates(SPECTRUM, online_gains=ONLINE, target_gains=TARGET, signal=signal)
    np.testing.assert_allclose(np.sum(SPECTRUM * rates), 0, atol=1e-14)


def exact_cosine_rates(spectrum, gains):
    """theory.md's sum over pairs, in rational arithmetic."""
    lam, g = ([Fraction(float(x)) for x in array] for array in (spectrum, gains))
    total = sum(b * b * a for a, b in zip(lam, g, strict=True))
    pairs = list(zip(lam, g, strict=True))
    return np.array([float(gi * sum(gj * lj * (gj - gi) for lj, gj in pairs) / total) for gi in g])


@pytest.mark.parametrize("spread", [1.0, 1e-6, 1e-12])
def test_nearly_constant_gains_lose_no_digits(spread):
    gains = 1 + spread * np.array([0.31, 0.02, -0.17, -0.23])
    rates, exact = theory.growth_rates(SPECTRUM, online_gains=gains), exact_cosine_rates(SPECTRUM, gains)
    np.testing.assert_allclose(rates, exact, rtol=1e-13)
    rate = theory.entropy_rate_wiener(SPECTRUM, online_gains=gains)
    np.testing.assert_allclose(rate, theory.entropy_rate(SPECTRUM, exact), rtol=1e-13)


@pytest.mark.parametrize("spread", [1.0, 1e-6, 1e-12])
def test_nearly_constant_target_gains_lose_no_digits(spread):
    gains = 1 + spread * np.array([0.31, 0.02, -0.17, -0.23])
    exact_gains, weights = [Fraction(float(x)) for x in gains], [Fraction(float(x)) for x in SPECTRUM]
    mean = sum(g * w for g, w in zip(exact_gains, weights, strict=True)) / sum(weights)
    rates = theory.growth_rates(SPECTRUM, target_gains=gains)
    np.testing.assert_allclose(rates, [float(g - mean) for g in exact_gains], rtol=1e-13)


@pytest.mark.parametrize("convention", ["eig", "sv"])
def test_entropy_rate_is_the_derivative_of_the_entropy(convention):
    spectrum, rates, step = np.array([5.0, 1.2, 0.0, 0.4]), np.array([0.3, -0.2, 9.0, 0.1]), 1e-5
    power = {"eig": 1, "sv": 0.5}[convention]

    def at(time):
        return entropy((spectrum * np.exp(2 * rates * time)) ** power)

    slope = (at(step) - at(-step)) / (2 * step)
    rank_slope = (np.exp(at(step)) - np.exp(at(-step))) / (2 * step)
    # central differences: step^2 truncation, eps / step rounding, both about 1e-10
    np.testing.assert_allclose(theory.entropy_rate(spectrum, rates, convention=convention), slope, rtol=1e-8)
    measured = theory.effective_rank_rate(spectrum, rates, convention=convention)
    np.testing.assert_allclose(measured, rank_slope, rtol=1e-8)


def test_a_nearly_flat_spectrum_keeps_its_entropy_rate():
    spectrum, rates = 3 * (1 + 1e-9 * np.array([0.5, 0.1, -0.2, -0.9])), np.array([0.3, -0.2, 0.9, 0.1])
    with localcontext() as context:
        context.prec = 50
        lam, r = ([Decimal(float(x)) for x in array] for array in (spectrum, rates))
        q = [x / sum(lam) for x in lam]
        mean = sum(a * b for a, b in zip(q, r, strict=True))
        exact = -2 * sum(a * (b - mean) * x.ln() for a, b, x in zip(q, r, lam, strict=True))
    np.testing.assert_allclose(theory.entropy_rate(spectrum, rates), float(exact), rtol=1e-13)


def test_the_numbers_of_the_statement():
    """docs/theory.md S1: a positive rank difference with a falling effective rank."""
    signal = np.array([4.0, 2.0, 1.0, 0.3])
    spectrum = signal + 1
    options = {"online_gains": np.sqrt(spectrum), "signal": signal}
    assert round(float(theory.entropy_rate_wiener(spectrum, **options)), 3) == -0.042
    assert round(float(theory.entropy_rate(spectrum, theory.growth_rates(spectrum, **options))), 3) == -0.042
    assert entropy(spectrum) - entropy(spectrum**2) > 0.27
    stationary = theory.growth_rates(spectrum, online_gains=signal / spectrum, signal=signal)
    np.testing.assert_allclose(stationary, 0, atol=1e-16)


HEIGHTS = (1e-3, 0.999)
ENTROPY_RATE = jax.jit(theory.entropy_rate)
WIDTH = 4  # all drawn instances are padded to one width, so that they share one compilation
SIZES = st.integers(2, WIDTH)


def padded(values):
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, WIDTH - values.shape[-1])])


@settings(max_examples=30)
@given(st.integers(0, 10**6), SIZES)
def test_both_paths_to_the_entropy_rate_agree(number, size):
    rng = np.random.default_rng(number)
    spectrum, online, target = padded(np.exp(rng.normal(size=(3, size))))
    options = {"online_gains": online, "target_gains": target, "signal": spectrum * rng.uniform(size=WIDTH)}
    expected = theory.entropy_rate(spectrum, theory.growth_rates(spectrum, **options))
    scale = np.sum(spectrum * online * target) / np.sum(spectrum) * np.ptp(np.log(spectrum[:size]))
    np.testing.assert_allclose(theory.entropy_rate_wiener(spectrum, **options), expected, atol=1e-13 * scale)


@settings(max_examples=30)
@given(st.integers(0, 10**6), SIZES)
def test_without_noise_a_low_pass_filter_raises_and_its_reverse_lowers(number, size):
    """T5 and T7: both signs, so that a vanishing or reversed rate is seen."""
    spectrum, gains = np.sort(np.exp(np.random.default_rng(number).normal(size=(2, size))))[:, ::-1]
    for side, sign in (("online_gains", 1), ("target_gains", -1)):
        for order in (1, -1):
            rates = theory.growth_rates(padded(spectrum), **{side: padded(gains[::order])})
            assert sign * order * theory.entropy_rate(padded(spectrum), rates) > 0


def test_squared_error_needs_gains_above_one_half():
    """T6's example of sharpness, to leading order: dH/dt = -(4/9) log 2 delta^2."""
    for delta in (1e-2, 1e-3):
        spectrum, gains = np.array([2.0, 1.0, 0.0, 0.0]), np.array([0.5, 0.5 - delta, 0.0, 0.0])
        rate = theory.entropy_rate(spectrum, theory.growth_rates(spectrum, online_gains=gains, loss="squared"))
        np.testing.assert_allclose(rate, -4 / 9 * np.log(2) * delta**2, rtol=1e-9)


def brute_force_crossing(spectrum, rates):
    """L2's pattern, from the definition: some level of lambda separates the growing from the shrinking modes."""
    excess = rates - np.sum(spectrum * rates) / np.sum(spectrum)
    levels = spectrum[:, None]
    rising = np.all(excess * (spectrum - levels) <= 1e-14, axis=1).any()
    falling = np.all(excess * (spectrum - levels) >= -1e-14, axis=1).any()
    return rising, falling


@settings(max_examples=30)
@given(st.integers(0, 10**6), SIZES)
def test_single_crossing_is_the_pattern_of_the_statement(number, size):
    rng = np.random.default_rng(number)
    spectrum, rates = rng.choice([0.5, 1.0, 2.0, 3.0], size=size), rng.choice([-1.0, 0.0, 1.0], size=size)
    crossing = theory.single_crossing(padded(spectrum), padded(rates))
    assert (bool(crossing.rising), bool(crossing.falling)) == brute_force_crossing(spectrum, rates)
    rate = theory.entropy_rate(padded(spectrum), padded(rates))
    assert rate >= -1e-14 or not crossing.rising
    assert rate <= 1e-14 or not crossing.falling


@settings(max_examples=30)
@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0, 2.0]), min_size=4, max_size=4))
def test_universal_rates_are_those_that_raise_every_sorted_spectrum(values):
    rates = np.array(values)
    # the steps of the criterion: k equal large modes over m - k equal smaller ones, the rest negligible
    shapes = [(k, m) for m in (2, 3, 4) for k in range(1, m)]
    steps = [[1.0] * k + [height] * (m - k) + [1e-12] * (4 - m) for k, m in shapes for height in HEIGHTS]
    descending = np.exp(-np.cumsum(np.random.default_rng(0).exponential(size=(50, 4)), axis=1))
    spectra = np.concatenate([steps, descending])
    raised = np.asarray(ENTROPY_RATE(spectra, np.broadcast_to(rates, spectra.shape))) >= -1e-9
    assert bool(theory.single_crossing(descending[0], rates).universal) == bool(np.all(raised))


PADDED = np.append(SPECTRUM, [0.0, 0.0])


def with_padding(values, fill):
    return np.append(values, [fill, fill])


def total_rate(spectrum, online, target, signal):
    options = {"online_gains": online, "target_gains": target, "signal": signal}
    cosine, squared = (theory.growth_rates(spectrum, loss=loss, **options) for loss in ("cosine", "squared"))
    rate = theory.entropy_rate(spectrum, cosine + 2 * squared, convention="sv")
    factor = theory.common_factor(spectrum, online_gains=online, target_gains=target)
    return rate + 3 * theory.entropy_rate_wiener(spectrum, **options) * factor


TOTAL_RATE_AND_GRADIENTS = jax.jit(jax.value_and_grad(total_rate, (0, 1, 2, 3)))


@pytest.mark.parametrize("fill", [0.0, 7.0, np.inf, np.nan])
def test_padding_changes_neither_values_nor_gradients(fill):
    arguments = (SPECTRUM, ONLINE, TARGET, np.diag(CROSS))
    padded = (PADDED, *(with_padding(x, fill) for x in arguments[1:]))
    value, gradients = TOTAL_RATE_AND_GRADIENTS(*arguments)
    padded_value, padded_gradients = TOTAL_RATE_AND_GRADIENTS(*padded)
    np.testing.assert_allclose(padded_value, value, rtol=1e-14)
    for gradient, padded_gradient in zip(gradients, padded_gradients, strict=True):
        np.testing.assert_allclose(padded_gradient, with_padding(gradient, 0.0), rtol=1e-13, atol=1e-15)


def test_off_the_support_nothing_grows():
    for loss in ("cosine", "squared"):
        rates = jax.jit(partial(theory.growth_rates, loss=loss))(PADDED, online_gains=with_padding(ONLINE, 3.0))
        assert np.all(rates[:4] != 0) and np.all(rates[4:] == 0)


def test_gradients_are_right_and_finite_at_repeated_eigenvalues_and_a_closed_gate():
    spectrum, online = np.array([2.0, 2.0, 1.0, 0.0]), np.array([1.0, 0.5, 0.0, 0.0])

    def rates(online):
        rate = theory.entropy_rate(spectrum, theory.growth_rates(spectrum, online_gains=online))
        return jnp.stack([rate, theory.entropy_rate_wiener(spectrum, online_gains=online)])

    step = 1e-6 * np.eye(4)[:2]
    differences = [(rates(online + row) - rates(online - row)) / 2e-6 for row in step]
    jacobian = jax.jit(jax.jacobian(rates))(online)
    np.testing.assert_allclose(jacobian[:, :2].T, differences, rtol=1e-7, atol=1e-9)
    assert np.all(np.isfinite(jacobian))


def test_jit_and_vmap_are_the_plain_loop(rng):
    spectra, online, target, signal = np.exp(rng.normal(size=(4, 3, 4)))
    loop = np.array([total_rate(*row) for row in zip(spectra, online, target, signal, strict=True)])
    np.testing.assert_allclose(jax.jit(jax.vmap(total_rate))(spectra, online, target, signal), loop, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(total_rate)(spectra, online, target, signal), loop, rtol=1e-12)
    crossings = jax.jit(theory.single_crossing)(spectra, online)
    for row, (spectrum, rates) in enumerate(zip(spectra, online, strict=True)):
        assert [bool(flag[row]) for flag in crossings] == [bool(x) for x in theory.single_crossing(spectrum, rates)]


def test_one_spectrum_meets_a_batch_of_gains(rng):
    gains = np.exp(rng.normal(size=(3, 4)))
    rates = jax.jit(theory.growth_rates)(SPECTRUM, online_gains=gains)
    loop = np.array([theory.growth_rates(SPECTRUM, online_gains=row) for row in gains])
    np.testing.assert_allclose(rates, loop, rtol=1e-13)
    batch = ENTROPY_RATE(SPECTRUM, gains)
    np.testing.assert_allclose(batch, [theory.entropy_rate(SPECTRUM, row) for row in gains], rtol=1e-13)


def test_float32_keeps_its_digits():
    with jax.enable_x64(False):
        rates = theory.growth_rates(SPECTRUM.astype(np.float32) * 1e-30, online_gains=ONLINE.astype(np.float32) * 1e-9)
        assert rates.dtype == jnp.float32
    np.testing.assert_allclose(rates / 1e-9, theory.growth_rates(SPECTRUM, online_gains=ONLINE), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"online_gains": -ONLINE}, "online_gains must be finite and nonnegative"),
        ({"target_gains": ONLINE * np.nan}, "target_gains must be finite and nonnegative"),
        ({"signal": ONLINE * np.inf}, "signal must be finite"),
        ({"online_gains": 0 * ONLINE}, "online_gains are 0 on the whole support"),
        ({"online_gains": ONLINE[:2]}, "one number per mode"),
        ({"online_gains": np.float64(2)}, "repeat a constant"),
        ({"loss": "huber"}, 'loss must be "cosine" or "squared"'),
    ],
)
def test_bad_input_says_what_to_do(options, message):
    with pytest.raises(ValueError, match=message):
        theory.growth_rates(SPECTRUM, **options)


def test_bad_input_under_jit_is_nan():
    rates, entropy_rate = jax.jit(theory.growth_rates), jax.jit(theory.entropy_rate_wiener)
    for bad in (-ONLINE, ONLINE * np.nan, 0 * ONLINE):
        assert np.all(np.isnan(rates(SPECTRUM, online_gains=bad)))
        assert np.isnan(entropy_rate(SPECTRUM, online_gains=bad))
    assert np.isnan(ENTROPY_RATE(0 * SPECTRUM, ONLINE))
    assert not any(jax.jit(theory.single_crossing)(SPECTRUM, ONLINE * np.nan))


def test_bad_rates_and_conventions_raise():
    with pytest.raises(ValueError, match="rates must be finite"):
        theory.entropy_rate(SPECTRUM, ONLINE * np.nan)
    with pytest.raises(ValueError, match='convention must be "eig" or "sv"'):
        theory.effective_rank_rate(SPECTRUM, ONLINE, convention="svd")
