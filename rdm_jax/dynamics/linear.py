"""Linear dual-branch dynamics in full matrices: z = W x, p = W_p z, target W_a (Tian, Chen and Ganguli 2021)."""

from functools import cache
from typing import Any, NamedTuple

from rdm_jax.dynamics.designs import LinearDesign
from rdm_jax.dynamics.eigenmodes import Eigenmodes
from rdm_jax.dynamics.solve import Field
from rdm_jax.types import Array, ArrayLike, PRNGKeyArray

__all__ = [
    "Branches",
    "LinearParameters",
    "SampleParameters",
    "aligned_branches",
    "branch_field",
    "random_branches",
    "sample_branch_field",
]


class Branches(NamedTuple):
    """State: W_p (d, d) (None if not learned), W (d, k), and W_a (d, k) (None where the target is tau W)."""

    predictor: Array | None
    encoder: Array
    target: Array | None = None


class LinearParameters(NamedTuple):
    """Parameters: X and X' as (k, k) matrices, the others numbers, as in ``EigenmodeParameters``."""

    signal: ArrayLike
    noise: ArrayLike
    predictor_rate: ArrayLike = 1.0
    weight_decay: ArrayLike = 0.0
    target_rate: ArrayLike = 0.0
    target_ratio: ArrayLike = 1.0
    predictor: Any = ()


class SampleParameters(NamedTuple):
    """Parameters: two views of n data as (n, k) arrays, the others numbers, as in ``EigenmodeParameters``."""

    first: ArrayLike
    second: ArrayLike
    predictor_rate: ArrayLike = 1.0
    weight_decay: ArrayLike = 0.0
    target_rate: ArrayLike = 0.0
    target_ratio: ArrayLike = 1.0
    predictor: Any = ()


def aligned_branches(modes: Eigenmodes, left: ArrayLike, right: ArrayLike) -> Branches:
    """Matrices with the given modes: W = U diag(sqrt(s)) V^T, W_p = U diag(p) U^T, W_a = U diag(tau sqrt(s)) V^T.

    Args:
        modes: (j,) modes.
        left: U (d, j) with orthonormal columns.
        right: V (k, j) with orthonormal columns.

    Returns:
        Branches.

    Raises:
        ValueError: shapes that do not fit; negative encoder modes.

    Source: docs/theory.md T13 (d).

    >>> modes = Eigenmodes(predictor=jnp.array([2.0, 3.0]), encoder=jnp.array([4.0, 1.0]))
    >>> aligned_branches(modes, jnp.eye(2), jnp.eye(2)).encoder.tolist()
    [[2.0, 0.0], [0.0, 1.0]]
    """
    raise NotImplementedError


def random_branches(
    key: PRNGKeyArray, features: int, inputs: int, *, scale: ArrayLike = 0.1, design: LinearDesign = LinearDesign()
) -> Branches:
    """A generic small start: independent normal entries of standard deviation scale / sqrt(width); W_a = W.

    Args:
        key: a jax random key.
        features: d.
        inputs: k.
        scale: typical singular value of both matrices.
        design: which branches are part of the state; "symmetric" starts from a symmetric W_p.

    Returns:
        Branches.

    Raises:
        ValueError: a width below 1; a scale that is not positive.

    Source: docs/theory.md T15.

    >>> random_branches(jax.random.key(0), 3, 5).encoder.shape
    (3, 5)
    """
    raise NotImplementedError


@cache
def branch_field(design: LinearDesign) -> Field:
    """The vector field of the matrices, ``field(t, Branches, LinearParameters)``.

        W_p' = alpha_p E W^T - eta W_p,    W' = W_p^T E - eta W,    W_a' = beta (W - W_a),    E = W_a X - W_p W (X + X')

    for the squared error; for the mean-field cosine E = (W_a X - kappa W_p W (X + X')) / sqrt(E|p|^2 E|t|^2) with kappa =
    E[p.t] / E|p|^2. A closed-form predictor is V diag(p) V^T in the eigenbasis of the actual correlation W (X + X') W^T.
    "symmetric": the symmetric part of E W^T. isotropic: W' = E - eta W. Without stop-gradient W' gains
    tau (W_p W X - tau W (X + X')), or its cosine form.

    Args:
        design: of a linear dual-branch method.

    Returns:
        The field, the same object for equal designs.

    Source: Tian, Chen and Ganguli 2021; docs/theory.md T13, T14.

    >>> field, eye = branch_field(LinearDesign()), jnp.eye(1)
    >>> moved = field(0.0, Branches(predictor=0.5 * eye, encoder=2 * eye), LinearParameters(signal=eye, noise=eye))
    >>> float(moved.predictor[0, 0]), float(moved.encoder[0, 0])  # E = 2 - 0.5 * 2 * 2 = 0
    (0.0, 0.0)
    """
    raise NotImplementedError


@cache
def sample_branch_field(design: LinearDesign) -> Field:
    """The same on finite samples: gradient flow of the actual loss on given views, ``field(t, Branches, SampleParameters)``.

    L = mean over the n pairs of |W_p W x - sg(W_a x+)|^2 / 2, or its mean-field cosine, differentiated by jax.grad. As n
    grows this is ``branch_field`` with X = E[x+ x^T] and X + X' = E[x x^T].

    Args:
        design: of a linear dual-branch method.

    Returns:
        The field, the same object for equal designs.

    Source: Tian, Chen and Ganguli 2021.

    >>> field = sample_branch_field(LinearDesign())
    >>> views = SampleParameters(first=jnp.array([[1.0], [-1.0]]), second=jnp.array([[2.0], [-2.0]]))
    >>> float(field(0.0, Branches(predictor=jnp.eye(1), encoder=jnp.eye(1)), views).encoder[0, 0])  # E = 2 - 1
    1.0
    """
    raise NotImplementedError
