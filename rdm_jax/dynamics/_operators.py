"""Filters as matrices, in the eigenbasis of the features' own second moment; no gradient passes through them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rdm_jax.dynamics.designs import GainFunction
from rdm_jax.spectra.decompose import eigensystem
from rdm_jax.types import Array, Gains, Moment, Spectrum


class Basis(NamedTuple):
    """Eigenvalues lambda of C_z, largest first, its eigenvectors in columns, and m_i = v_i^T E[z+ z^T] v_i >= 0."""

    spectrum: Spectrum
    vectors: Moment
    signal: Gains


def product(*factors: Array) -> Array:
    """The product of matrices, from the left, at full precision."""
    result = factors[0]
    for factor in factors[1:]:
        result = jnp.matmul(result, factor, precision="highest")
    return result


def symmetric(matrix: Moment) -> Moment:
    """The symmetric part."""
    return (matrix + matrix.T) / 2


def basis_of(moment: Moment, cross: Moment) -> Basis:
    """The eigenbasis of a second moment, and what the views share of each mode (not below 0, as gains expect it)."""
    values, vectors = eigensystem(symmetric(moment))
    return Basis(values, vectors, jnp.maximum(diagonal_in(vectors, jax.lax.stop_gradient(cross)), 0))


def diagonal_in(vectors: Moment, matrix: Moment) -> Array:
    """v_i^T M v_i for the eigenvectors in the columns."""
    return jnp.sum(vectors * product(matrix, vectors), axis=0)


def operator(basis: Basis, gains: GainFunction, parameters: Any) -> Moment:
    """V diag(g) V^T."""
    return from_gains(basis, gains(basis.spectrum, basis.signal, parameters))


def from_gains(basis: Basis, gains: Gains) -> Moment:
    """V diag(g) V^T for given gains."""
    return product(basis.vectors * gains[None], basis.vectors.T)
