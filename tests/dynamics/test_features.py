"""The mean field against its formulas in NumPy, and against closed forms over finite time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rdm_jax import theory
from rdm_jax.dynamics import FeatureDesign, FeatureParameters, Modes, mode_field, power_gains, solve
from tests.dynamics import feature_cases as cases

pytestmark = pytest.mark.usefixtures("x64")


def given(spectrum, signal, parameters):
    """A filter whose gains are its parameters."""
    return parameters


ONLINE, TARGET = np.array([0.9, -0.4, 0.7, 0.2]), np.array([0.5, 0.8, -0.3, 1.2])
GIVEN = {"online": ONLINE, "target": TARGET}


def pull(towards, own, loss, spectrum=cases.SPECTRUM, signal=cases.SIGNAL):
    """f (h a - kappa g b), by the definition of the losses."""
    kappa, factor = 1, 1
    if loss == "cosine":
        size, length = (ONLINE**2 * spectrum).sum(), (TARGET**2 * spectrum).sum()
        kappa, factor = (ONLINE * TARGET * signal).sum() / size, 1 / np.sqrt(size * length)
    return factor * (TARGET * towards - kappa * ONLINE * own)


@pytest.mark.parametrize("isotropic", [False, True])
@pytest.mark.parametrize("loss", ["squared", "cosine"])
def test_free_noise(loss, isotropic):
    """Gains of either sign; lambda' = 2 g f (h m - kappa g lambda), m' = 2 g f (h lambda - kappa g m)."""
    field = mode_field(FeatureDesign(loss, given, given, "free", isotropic))
    found = field(0.0, Modes(cases.SPECTRUM, cases.SIGNAL), FeatureParameters(**GIVEN))
    leading = 2 * (1 if isotropic else ONLINE)
    np.testing.assert_allclose(found.spectrum, leading * pull(cases.SIGNAL, cases.SPECTRUM, loss), rtol=1e-12)
    np.testing.assert_allclose(found.signal, leading * pull(cases.SPECTRUM, cases.SIGNAL, loss), rtol=1e-12)


@pytest.mark.parametrize("loss", ["squared", "cosine"])
def test_persistent_noise(loss):
    found = mode_field(FeatureDesign(loss, given, given, "persistent"))(
        0.0, Modes(cases.SPECTRUM), FeatureParameters(noise=0.45, **GIVEN)
    )
    signal = cases.SPECTRUM - 0.45
    expected = 2 * ONLINE * pull(signal, cases.SPECTRUM, loss, signal=signal)
    np.testing.assert_allclose(found.spectrum, expected, rtol=1e-12)


def test_no_noise_and_no_filter_is_at_rest():
    for loss in ("squared", "cosine"):
        found = mode_field(FeatureDesign(loss))(0.0, Modes(cases.SPECTRUM), FeatureParameters())
        np.testing.assert_allclose(found.spectrum, 0, atol=1e-15)


def test_modes_off_the_support_stay_there():
    padded = np.append(cases.SPECTRUM, 0.0)
    field, args = mode_field(FeatureDesign(online=power_gains)), FeatureParameters(online=-0.5)
    found, short = (field(0.0, Modes(spectrum), args).spectrum for spectrum in (padded, cases.SPECTRUM))
    np.testing.assert_allclose(found, np.append(short, 0.0), rtol=1e-13)
    below = field(0.0, Modes(np.append(cases.SPECTRUM, -1e-15)), args).spectrum
    np.testing.assert_allclose(below, found, rtol=1e-13)


def test_a_learned_predictor_moves_as_the_lagging_one_of_the_theory():
    design = FeatureDesign("squared", "learned", noise="free")
    args = FeatureParameters(predictor_rate=cases.RATE, ridge=cases.RIDGE)

    def lagging(progress):
        return theory.lagging_predictor_gains(cases.SPECTRUM, cases.SIGNAL, cases.RIDGE, progress)

    for progress in (0.0, 0.4, 3.0):
        found = mode_field(design)(0.0, Modes(cases.SPECTRUM, cases.SIGNAL, lagging(progress)), args)
        expected = cases.RATE * jax.jvp(lagging, (progress,), (1.0,))[1]
        np.testing.assert_allclose(found.gains, expected, rtol=1e-12, atol=1e-15)


def test_a_target_filter_is_what_the_predictor_learns():
    found = mode_field(FeatureDesign("cosine", "learned", given, "persistent"))(
        0.0, Modes(cases.SPECTRUM, None, cases.GAINS), FeatureParameters(0.3, (), TARGET, cases.RATE, cases.RIDGE)
    )
    expected = TARGET * (cases.SPECTRUM - 0.3) - (cases.SPECTRUM + cases.RIDGE) * cases.GAINS
    np.testing.assert_allclose(found.gains, cases.RATE * expected, rtol=1e-12)


def test_free_noise_over_time():
    """Constant gains: lambda - m decays at 2 g (g + h), lambda + m grows at 2 g (h - g); the predictor denoises."""
    online, target, times = np.abs(ONLINE), np.abs(TARGET), np.array([0.0, 0.7, 2.0])
    field = mode_field(FeatureDesign("squared", given, given, "free"))
    start = Modes(jnp.array(cases.SPECTRUM), jnp.array(cases.SIGNAL))
    found = solve(field, start, FeatureParameters(online=online, target=target), times).record
    noise = (cases.SPECTRUM - cases.SIGNAL) * np.exp(-2 * online * (online + target) * times[:, None])
    total = (cases.SPECTRUM + cases.SIGNAL) * np.exp(2 * online * (target - online) * times[:, None])
    np.testing.assert_allclose(found.spectrum, (total + noise) / 2, rtol=1e-9)
    np.testing.assert_allclose(found.signal, (total - noise) / 2, rtol=1e-9)


FILTERED = mode_field(FeatureDesign(online=power_gains, noise="persistent"))


def test_the_symmetric_design_spreads_as_predicted_until_a_mode_reaches_the_noise_and_stays():
    args = FeatureParameters(noise=0.3, online=0.0)
    horizon = float(theory.symmetric_horizon(cases.SPECTRUM, 0.3))
    times = horizon * np.array([0.0, 0.5, 0.999, 1.5, 3.0])
    found = solve(FILTERED, Modes(cases.SPECTRUM), args, times)
    for time, spectrum in zip(times[:3], found.record.spectrum, strict=False):
        np.testing.assert_allclose(spectrum, theory.symmetric_spectrum(cases.SPECTRUM, 0.3, time), rtol=1e-9)
    # where the rate jumps the step is as wrong as a step may be, and nothing corrects it later
    np.testing.assert_allclose(found.record.spectrum[3:, -1], 0.3, rtol=1e-8)
    assert (np.diff(found.record.spectrum[:, 0]) > 0).all() and found.steps < 500


def test_without_noise_a_low_pass_filter_lifts_the_rank_at_constant_trace():
    times = np.array([0.0, 1.0, 3.0, 10.0, 30.0])
    found = np.asarray(solve(FILTERED, Modes(cases.SPECTRUM), FeatureParameters(online=1.0), times).record.spectrum)
    np.testing.assert_allclose(found.sum(axis=1), cases.SPECTRUM.sum(), rtol=1e-9)
    assert (np.diff(np.cumsum(found, axis=1)[:, :-1], axis=0) < 0).all()  # every top share falls: T5


@pytest.mark.parametrize(
    ("options", "state", "args", "message"),
    [
        ({}, Modes(-cases.SPECTRUM), {}, "spectrum has a negative value"),
        ({}, Modes(np.ones((2, 2))), {}, r"spectrum must have shape \(d,\), got \(2, 2\)"),
        ({"noise": "persistent"}, Modes(np.ones(2)), {"noise": -0.1}, "noise must be nonnegative and finite, got -0.1"),
        ({"noise": "free"}, Modes(np.ones(2)), {}, "the state's signal must be an array for this design"),
        ({"noise": "free"}, Modes(np.ones(2), np.ones(3)), {}, "signal must have the spectrum's shape"),
        ({"online": "learned"}, Modes(np.ones(2)), {}, "the state's gains must be an array for this design"),
        ({}, Modes(np.ones(2), None, np.ones(2)), {}, "the state's gains must be None for this design"),
        ({"online": "learned"}, Modes(np.ones(2), None, np.ones(2)), {"ridge": -1.0}, "ridge must be nonnegative"),
        ({"online": given}, Modes(np.ones(2)), {"online": np.zeros(2)}, "online_gains are 0 on the whole support"),
    ],
)
def test_bad_input_is_a_sentence(options, state, args, message):
    with pytest.raises(ValueError, match=message):
        mode_field(FeatureDesign(**options))(0.0, state, FeatureParameters(**args))
