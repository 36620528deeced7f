"""What every test relies on: doubts are errors, randomness is reproducible, 64-bit floats are asked for by name.

Shapes in annotations are enforced through an option of jaxtyping's, in setup.cfg.
"""

import os
import zlib

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from rdm_jax._xla import quick_flags

os.environ["XLA_FLAGS"] = f"{quick_flags()} {os.environ.get('XLA_FLAGS', '')}"

# Two arrays of different rank meet only where the code says how: (d,) + (n, d) is too often a bug.
jax.config.update("jax_numpy_rank_promotion", "raise")

# The fixtures used beside @given (x64) hold over all of its examples, and the first example pays for compilation.
settings.register_profile(
    "tests",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("tests")


def pytest_report_header() -> str:
    """Name what the tests ran on."""
    return f"jax {jax.__version__} on {jax.default_backend()}, numpy {np.__version__}"


@pytest.fixture
def x64():
    """Let the test use float64; all others run in float32, as training does."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def seed(request) -> int:
    """An integer that belongs to the test: the same in every run, another in every test, shown when it fails."""
    number = zlib.crc32(request.node.nodeid.encode())
    print(f"seed = {number}")
    return number


@pytest.fixture
def key(seed):
    """A jax random key made from the test's seed."""
    return jax.random.key(seed)


@pytest.fixture
def rng(seed) -> np.random.Generator:
    """A NumPy generator made from the test's seed, for references that jax has no part in."""
    return np.random.default_rng(seed)
