"""Why growth is not as predicted: what is taken away from the steps, and how what is left is judged."""

import growth_causes
import jax.numpy as jnp
import numpy as np
import pytest
from growth_causes import SETTINGS, CausesOptions, judge, prepared


def test_momentum_is_forgotten_and_the_rate_is_that_of_another_step():
    trained, forgetful, slow = SETTINGS
    momentum, count = jnp.array([1.0, 2.0]), jnp.array(780, jnp.int32)
    assert prepared(trained, 390, momentum).tolist() == [1.0, 2.0] and int(prepared(trained, 390, count)) == 390
    assert prepared(forgetful, 390, momentum).tolist() == [0.0, 0.0] and slow.scale < forgetful.scale == 1


def test_the_mean_over_repeats_brings_out_what_noise_hides(rng):
    rate = rng.normal(size=12)
    growths = rate + 3 * rng.normal(size=(400, 12))
    rates = {name: rate for name in growth_causes.RATES} | {"free": rng.normal(size=12)}
    found = judge(rates, growths, np.ones(12, bool), seed=0)
    assert found["flow"]["mean"] > 0.9 > 0.5 > found["flow"]["single"] > 0
    assert found["flow"]["mean"] > found["flow"]["chance"]
    assert found["free"]["mean"] < found["flow"]["mean"]


def test_modes_that_were_lost_do_not_count(rng):
    rate, mask = np.arange(6.0), np.arange(6) < 4
    growths = np.tile(np.where(mask, rate, -100.0), (2, 1))
    found = judge(dict.fromkeys(growth_causes.RATES, rate), growths, mask, seed=0)
    assert found["predicted"]["mean"] == found["predicted"]["single"] == pytest.approx(1)


def test_options_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="--rate-at"):
        CausesOptions(rate_at=1.0)
    with pytest.raises(ValueError, match="name the folders"):
        growth_causes.parts(CausesOptions())
