"""What importing a part brings in: `spectra` is for other people's code and must stay light."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
REPORT = """
import sys
import jax, numpy, jaxtyping
before = {{name.partition(".")[0] for name in sys.modules}}
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError(name + " is not installed")
sys.meta_path.insert(0, Absent())
import {module}
after = {{name.partition(".")[0] for name in sys.modules}}
print(*sorted(after - before - sys.stdlib_module_names))
"""
TRAIN = {"flax", "orbax", "tensorflow", "tensorflow_datasets"}
PROOFS = {"flint", "matplotlib", "optax", "rich", "tyro"}


def imported_by(module, blocked):
    """Top-level packages, beyond those of jax, numpy and jaxtyping, that the import of ``module`` loads."""
    command = [sys.executable, "-c", REPORT.format(module=module, blocked=blocked)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("part", ["spectra", "filters", "theory"])
def test_numerical_parts_need_jax_numpy_and_jaxtyping_only(part):
    assert imported_by(f"rdm_jax.{part}", TRAIN | PROOFS) == ["rdm_jax"]


def test_claims_need_no_training_library():
    assert "rdm_jax" in imported_by("rdm_jax.claims", TRAIN)


def test_dynamics_need_diffrax_and_what_it_brings():
    brought = {"diffrax", "equinox", "lineax", "optimistix", "wadler_lindig"}
    assert set(imported_by("rdm_jax.dynamics", TRAIN | PROOFS)) <= {"rdm_jax", *brought}


def test_the_library_itself_imports_nothing():
    code = "import sys, rdm_jax; assert 'jax' not in sys.modules and rdm_jax.__version__"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
