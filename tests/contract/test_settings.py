"""The test-suite's own settings: each would fail quietly, so each is shown to bite."""

import warnings

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import settings

from rdm_jax import _checks


def test_a_value_against_its_annotation_is_an_error():
    with pytest.raises(jaxtyping.TypeCheckError):
        _checks.poison(jnp.ones(2), jnp.ones(2))  # the second argument is to be booleans


def test_a_warning_is_an_error():
    with pytest.raises(UserWarning, match="boo"):
        warnings.warn("boo", stacklevel=1)


def test_arrays_of_different_rank_do_not_meet_by_accident():
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones(3) + jnp.ones((2, 3))


def test_floats_are_32_bits_unless_asked_for():
    assert jnp.asarray(1.5).dtype == jnp.float32


def test_x64(x64):
    assert jnp.asarray(1.5).dtype == jnp.float64
    assert jax.jit(jnp.sqrt)(np.float64(2.0)) == np.sqrt(2.0)


def test_property_tests_are_the_same_in_every_run():
    assert settings().derandomize and settings().deadline is None and settings().database is None
