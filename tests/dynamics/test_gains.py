"""Gain functions against their formulas in NumPy, and against the filters of the same name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rdm_jax import filters
from rdm_jax.dynamics import (
    LagParameters,
    direct_copy_gains,
    direct_pred_gains,
    filter_gains,
    isoloss_gains,
    lagging_gains,
    power_gains,
    ridge_gains,
)

pytestmark = pytest.mark.usefixtures("x64")

SPECTRUM = np.array([3.0, 0.8, 1.5, 0.0])
SIGNAL = np.array([2.0, 0.7, 0.2, 0.0])
ON = SPECTRUM > 0


def published_direct_pred(spectrum, offset):
    return np.maximum(np.sqrt(np.maximum(spectrum, 0) / spectrum.max()) + offset, 1e-4)


CASES = {
    "power": (power_gains, 0.6, np.where(ON, SPECTRUM**0.3, 0)),
    "power below 0": (power_gains, -1.0, np.where(ON, np.where(ON, SPECTRUM, 1) ** -0.5, 0)),
    "isoloss": (isoloss_gains, 0.7, SPECTRUM**0.7),
    "direct pred": (direct_pred_gains, 0.01, published_direct_pred(SPECTRUM, 0.01)),
    "direct pred without offset": (direct_pred_gains, 0.0, published_direct_pred(SPECTRUM, 0.0)),
    "direct copy": (direct_copy_gains, 0.3, SPECTRUM + 0.3),
    "ridge": (ridge_gains, 0.5, SIGNAL / (SPECTRUM + 0.5)),
    "lagging": (
        lagging_gains,
        LagParameters(0.5, 0.9),
        SIGNAL / (SPECTRUM + 0.5) * (1 - np.exp(-0.9 * (SPECTRUM + 0.5))),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_values(case):
    gains, parameters, expected = case
    np.testing.assert_allclose(gains(SPECTRUM, SIGNAL, parameters), expected, rtol=1e-13)


@pytest.mark.parametrize("gains", [power_gains, isoloss_gains])
def test_exponents_can_be_mapped_over_and_differentiated(gains):
    exponents = jnp.array([-0.5, 0.0, 1.0])
    found = jax.vmap(lambda a: gains(SPECTRUM, SIGNAL, a))(exponents)
    alone = np.stack([gains(SPECTRUM, SIGNAL, float(a)) for a in exponents])
    np.testing.assert_allclose(found, alone, rtol=1e-14)
    slope = jax.grad(lambda spectrum: jnp.sum(gains(spectrum, SIGNAL, -0.5)))(jnp.array(SPECTRUM))
    assert np.isfinite(slope).all() and slope[-1] == 0


@pytest.mark.parametrize(
    "filter", [filters.power(-0.3), filters.log(), filters.log1p_square(), filters.wiener(0.4, 0.2)], ids=repr
)
def test_a_filter_sees_the_singular_values_of_its_batch(filter):
    found = filter_gains(filter, 16)(SPECTRUM, SIGNAL, ())
    np.testing.assert_allclose(found, filter.gains(4 * np.sqrt(SPECTRUM), 16), rtol=1e-13)


def test_equal_filters_are_one_function():
    assert filter_gains(filters.power(0.5)) is filter_gains(filters.power(1 / 2))
    assert filter_gains(filters.power(0.5)) is not filter_gains(filters.power(0.5), 2)
