"""What the nonlinear experiment measures, on cases whose answer is known; the whole of it runs in tests/smoke."""

import numpy as np
import pytest
from nonlinear import alignment, causes, designs, filters, growth, ranks, threshold
from nonlinear_dynamics import NonlinearOptions

from rdm_jax.methods import get
from rdm_jax.training import Predicted, Record, StageRecord, entropy_speed


def test_entropy_rate_is_the_derivative_of_the_log_of_the_effective_rank(rng):
    spectrum, rates = np.sort(rng.gamma(1.0, size=(4, 6)))[:, ::-1], rng.normal(size=(4, 6))

    def log_rank(values):
        shares = values / values.sum(-1, keepdims=True)
        return -np.sum(shares * np.log(shares), -1)

    ends = [log_rank(spectrum * np.exp(2 * step * rates)) for step in (1e-5, -1e-5)]
    np.testing.assert_allclose(entropy_speed(spectrum, rates), (ends[0] - ends[1]) / 2e-5, rtol=1e-6)


def made_run(spectra, rates, steps):
    """A run of two seeds whose eigenvectors stand still; all else is of no matter here."""
    unknown = np.full(spectra.shape[:-1], np.nan)
    stage = StageRecord(spectra, np.exp(-np.sum(_shares(spectra) * np.log(_shares(spectra)), -1)), *3 * [unknown])
    vectors = np.broadcast_to(np.eye(spectra.shape[-1]), (*spectra.shape, spectra.shape[-1]))
    fields = dict.fromkeys(Record._fields, unknown)
    fields |= {"online": stage, "target": stage, "features": stage, "vectors": vectors, "rates": rates, "stages": {}}
    fields |= {"entropy_rate": entropy_speed(spectra, rates), "rank_difference": 0 * unknown}
    fields |= {"alignment": np.ones_like(spectra), "gains": np.ones_like(spectra), "theta": np.ones_like(spectra)}
    fields |= {"predicted": Predicted(np.ones_like(spectra), np.ones_like(spectra), 0 * unknown)}
    design = designs.table(spectra.shape[-1])["SimSiam"]
    return designs.Run("SimSiam", design, None, steps, Record(**fields), rates, rates, None)


def _shares(spectra):
    return spectra / spectra.sum(-1, keepdims=True)


@pytest.fixture
def moving(rng):
    """Modes that grow at constant rates and keep their order."""
    steps, put_in = np.arange(0, 220, 20), rng.uniform(-8e-4, 8e-4, size=(2, 6))
    values = np.exp(-0.7 * np.arange(6)) * np.exp(2 * put_in[:, None] * steps[None, :, None])
    assert np.all(np.diff(values, axis=-1) < 0)
    return steps, values, np.broadcast_to(put_in[:, None], values.shape)


def test_measured_rates_are_those_put_in(moving):
    steps, values, rates = moving
    found = growth.rates(made_run(values, rates, steps))
    assert len(found.seed) > 10
    np.testing.assert_allclose(found.measured, found.predicted, atol=2e-6)
    entry = growth.entry(made_run(values, rates, steps), 0)
    assert entry["scores"]["rank correlation"]["measured"] == pytest.approx(1)
    assert entry["scores"]["explained variance"]["measured"] == pytest.approx(1, abs=1e-4)
    wrong = growth.entry(made_run(values, -rates, steps), 0)
    assert wrong["scores"]["rank correlation"]["measured"] == pytest.approx(-1)


def test_the_sign_of_the_entropy_rate_hits_where_it_is_right(moving):
    steps, values, rates = moving
    assert threshold.entry(made_run(values, rates, steps), 0)["hits"] == 1
    assert threshold.entry(made_run(values, -rates, steps), 0)["hits"] == 0
    assert threshold.entry(made_run(values, rates, steps), 0)["explained"] > 0.99


def test_a_filter_is_judged_up_to_its_scale(moving):
    run = made_run(moving[1], moving[2], moving[0])
    record = run.record._replace(gains=3 * run.record.gains)
    assert filters.judge(run._replace(record=record))[0].measured == pytest.approx(0, abs=1e-7)
    assert alignment.mean(run) == pytest.approx(np.ones((2, len(moving[0]))))


@pytest.mark.parametrize("exponent", [-0.5, 0.0, 1.0])
def test_view_noise_has_the_mean_and_the_shape_that_it_is_asked_for(exponent):
    signal, noise = designs.variances(designs.numbers(designs.Setting(noise=0.2, exponent=exponent)), 8)
    assert float(noise.mean()) == pytest.approx(0.2, rel=1e-5)
    np.testing.assert_allclose(noise / noise[0], (signal / signal[0]) ** exponent, rtol=1e-5)
    signal, noise = designs.variances(designs.numbers(designs.Setting(noise=0.2, white=1.0)), 8)
    np.testing.assert_allclose(signal + noise, 1.2, rtol=1e-6)


def test_designs_are_the_methods_of_the_table_and_say_which_filters_are_fixed():
    table = designs.table(8)
    methods = {name: get(design.method, **design.options) for name, design in table.items()}
    assert {method.name for method in methods.values()} == {
        "simsiam", "byol", "linear", "directpred", "isoloss", "swav", "dino", "rdm_simsiam", "rdm_byol", "symsimsiam"
    }  # fmt: skip
    assert {name for name, design in table.items() if design.built_in} == {
        name for name, method in methods.items() if method.name.startswith("rdm") or method.name == "symsimsiam"
    }


def test_options_that_make_no_sense_are_refused():
    for wrong in ({"steps": 31}, {"modes": 2}, {"batch": 8}, {"seeds": 1}):
        with pytest.raises(ValueError, match=f"--{next(iter(wrong))}"):
            NonlinearOptions(**wrong)
    with pytest.raises(ValueError, match="did you mean 'SimSiam'"):
        NonlinearOptions(designs=("Simsiam",))
    assert ranks.PART.name == "ranks" and causes.MEMORY.name == "causes_memory"


def test_drift_is_the_squared_sine_of_the_turn():
    angles = np.array([0.0, 0.2, 0.5])
    turned = np.array([[[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]] for a in angles])
    run = made_run(np.broadcast_to([2.0, 1.0], (2, 3, 2)).copy(), np.zeros((2, 3, 2)), np.arange(3))
    run = run._replace(record=run.record._replace(vectors=np.stack([turned, turned])))
    np.testing.assert_allclose(alignment.drift(run), np.sin([[0.2, 0.3]] * 2) ** 2)
    assert 0.4 < alignment.random_drift(8, 0) < 0.6
