"""How predictions are judged, on rates whose agreement is known."""

import numpy as np
import pytest

from rdm_jax.training import entropy_speed, judge_rates, judge_signs, ladder, relative_rates

NAMES = ("predicted", "free", "flow", "measured")


@pytest.fixture
def cases(rng):
    """Spectra of eight modes at thirty instants of three runs, and rates."""
    spectrum = np.sort(rng.gamma(1.0, size=(30, 8)) + 0.1)[:, ::-1]
    return spectrum, rng.normal(size=(30, 8)), np.repeat(np.arange(3), 10)


def judged(spectrum, seeds, **rates):
    return relative_rates(spectrum, np.ones(spectrum.shape, bool), seeds, **rates)


def test_rates_are_relative_to_the_whole_spectrum(cases):
    spectrum, values, seeds = cases
    rate = judged(spectrum, seeds, **dict.fromkeys(NAMES, values))
    shares = spectrum / spectrum.sum(-1, keepdims=True)
    np.testing.assert_allclose(np.sum(shares * rate.predicted, -1), 0, atol=1e-12)
    shifted = judged(spectrum, seeds, **dict.fromkeys(NAMES, values + 7.0))
    np.testing.assert_allclose(shifted.measured, rate.measured, atol=1e-12)


def test_scale_does_not_matter_and_chance_is_low(cases):
    spectrum, values, seeds = cases
    rate = judged(spectrum, seeds, predicted=values, free=values, flow=values, measured=3e-4 * values)
    found = judge_rates(rate, 0)
    assert found["rank correlation"]["measured"] == pytest.approx(1)
    assert found["explained variance"]["measured"] == pytest.approx(1)
    assert abs(found["rank correlation"]["chance"]) < 0.25 and found["rank correlation"]["spread"] < 1e-9


def test_a_prediction_that_is_the_order_of_the_modes_says_nothing_beyond_it(cases, rng):
    spectrum, _, seeds = cases
    order = np.log(spectrum)
    rate = judged(
        spectrum, seeds, predicted=order, free=order, flow=order, measured=order + rng.normal(size=order.shape)
    )
    assert judge_rates(rate, 0)["rank correlation"]["measured"] > 0.3
    assert np.isnan(judge_rates(rate, 0)["beyond"]["measured"])


def test_modes_that_were_lost_and_instants_with_too_few_do_not_count(cases):
    spectrum, values, seeds = cases
    kept = np.ones(spectrum.shape, bool)
    kept[0, 3:] = False
    kept[1, 4:] = False
    rate = relative_rates(spectrum, kept, seeds, **dict.fromkeys(NAMES, values))
    assert len(rate.mask) == 29 and rate.mask[0].sum() == 4


def test_the_ladder_says_where_it_is_lost(cases, rng):
    spectrum, values, seeds = cases
    other = rng.normal(size=values.shape)
    found = ladder(judged(spectrum, seeds, predicted=values, free=values, flow=other, measured=other))
    assert found["predicted -> free"] == pytest.approx(1) and found["flow -> measured"] == pytest.approx(1)
    assert abs(found["free -> flow"]) < 0.3
    unknown = np.full_like(values, np.nan)
    assert np.isnan(
        ladder(judged(spectrum, seeds, predicted=values, free=unknown, flow=unknown, measured=other))["free -> flow"]
    )


def test_entropy_speed_is_the_derivative_of_the_entropy(cases):
    spectrum, rates, _ = cases

    def entropy(values):
        shares = values / values.sum(-1, keepdims=True)
        return -np.sum(shares * np.log(shares), -1)

    ends = [entropy(spectrum * np.exp(2 * rates * t)) for t in (1e-5, -1e-5)]
    np.testing.assert_allclose(entropy_speed(spectrum, rates), (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-8)


def test_signs(cases):
    spectrum, rates, _ = cases
    speed = entropy_speed(spectrum, rates)
    right, wrong = (judge_signs(spectrum, rates, sign * speed, 0) for sign in (1.0, -1.0))
    assert right["hits"] == 1 and wrong["hits"] == 0
    assert right["explained"] == pytest.approx(1) and wrong["explained"] == 0
    assert 0.4 < right["chance"] < 0.9 and right["frequent"] == max(np.mean(speed > 0), np.mean(speed < 0))
    assert all(np.isnan(value) for value in judge_signs(spectrum[:0], rates[:0], speed[:0], 0).values())
