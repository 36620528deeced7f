"""Numerical verification of the Rank Differential Mechanism.

The parts are imported by name, so that each brings in only what it needs: ``from rdm_jax import spectra``.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
