"""Features to second moment or covariance: of one array, or accumulated over batches and devices."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from rdm_jax._checks import as_features, poison, require
from rdm_jax._products import product
from rdm_jax.types import Array, ArrayLike, Features, Moment, Scalar

_LIMB = 16  # bits of the count's low limb: the sum over up to 2^15 devices still fits int32


def second_moment(features: ArrayLike, *, center: bool = False, normalize: bool = False) -> Moment:
    """Second moment of a batch, or its covariance.

    C = (1/n) sum_i z_i z_i^T; with ``center``, of z_i - mean(z), still over n. For batches that do not fit in
    memory use ``MomentAccumulator``.

    Args:
        features: (n, d).
        center: subtract the mean row.
        normalize: scale each row to unit length first; zero rows stay zero.

    Returns:
        (d, d), symmetric, positive semidefinite up to rounding, in feature units squared.

    Raises:
        ValueError: not a nonempty (n, d) array, or NaN or inf in it. Under a trace the result is NaN instead.

    >>> import numpy as np
    >>> np.asarray(second_moment([[2.0, 0.0], [0.0, 4.0]])).round(4).tolist()
    [[2.0, 0.0], [0.0, 8.0]]
    >>> np.asarray(second_moment([[2.0, 0.0], [0.0, 4.0]], center=True)).round(4).tolist()
    [[1.0, -2.0], [-2.0, 4.0]]

    Source: docs/theory.md, notation.
    """
    array, finite = as_features(features)
    return poison(_moment(array, center, normalize), finite)


class MomentAccumulator(NamedTuple):
    """Running count, mean and scatter of features: a pytree that passes through scan, vmap and psum.

    The scatter sum (z - mean)(z - mean)^T is kept about the running mean, so a large common mean costs no
    accuracy, and the count in two integers, so it never stalls. Structure, shapes and dtypes are fixed by
    ``init``. Over devices: every device accumulates its own rows, then ``all_reduce``; or ``update`` with
    sharded features under jit, which XLA reduces by itself. Features are never gathered.

    >>> import numpy as np
    >>> seen = MomentAccumulator.init(2).update([[2.0, 0.0]]).update([[0.0, 4.0]])
    >>> np.asarray(seen.moment()).round(4).tolist(), float(seen.total())
    ([[2.0, 0.0], [0.0, 8.0]], 2.0)

    Source: Chan, Golub and LeVeque 1983, pairwise merging.
    """

    limbs: Array
    mean: Array
    scatter: Array

    @classmethod
    def init(cls, d: int, dtype: jax.typing.DTypeLike | None = None) -> "MomentAccumulator":
        """An empty accumulator for d-dimensional features; float32, or float64 where that is the default.

        Args:
            d: feature dimension.
            dtype: floating type of the sums, at least float32.

        Returns:
            An accumulator with no rows.

        Raises:
            ValueError: d < 1, or a dtype that is not floating or narrower than float32.
        """
        dtype = jax.dtypes.canonicalize_dtype(jnp.result_type(float) if dtype is None else dtype)
        if d < 1 or not jnp.issubdtype(dtype, jnp.floating) or jnp.finfo(dtype).bits < 32:
            raise ValueError(f"init needs d >= 1 and a floating dtype of at least 32 bits, got d={d}, dtype={dtype}")
        return cls(jnp.zeros(2, jnp.int32), jnp.zeros(d, dtype), jnp.zeros((d, d), dtype))

    def update(self, features: ArrayLike, *, normalize: bool = False) -> "MomentAccumulator":
        """Add the rows of a batch.

        Args:
            features: (n, d).
            normalize: scale each row to unit length first; zero rows stay zero.

        Returns:
            An accumulator of all rows so far.

        Raises:
            ValueError: not an (n, d) array of the d given to ``init``, or NaN or inf in it. Under a trace the
                sums become NaN instead, and stay so.
        """
        array, finite = as_features(features)
        if array.shape[1] != self.mean.shape[0]:
            raise ValueError(f"features have {array.shape[1]} columns, but init was given d={self.mean.shape[0]}")
        mean, scatter = _mean_and_scatter(array.astype(self.mean.dtype), normalize)
        limbs = jnp.array([len(array) >> _LIMB, len(array) % 2**_LIMB], jnp.int32)
        return self.merge(MomentAccumulator(limbs, poison(mean, finite), poison(scatter, finite)))

    def merge(self, other: "MomentAccumulator") -> "MomentAccumulator":
        """The accumulator of both sets of rows; order does not matter up to rounding.

        Args:
            other: an accumulator of the same d.

        Returns:
            An accumulator with the dtypes of ``self``.

        Raises:
            ValueError: different d.
        """
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"cannot merge moments of d={self.mean.shape[0]} and d={other.mean.shape[0]} features")
        return _merged(self, jax.tree.map(lambda ours, theirs: theirs.astype(ours.dtype), self, other))

    def all_reduce(self, axis_name: str | tuple[str, ...]) -> "MomentAccumulator":
        """The merged accumulator of all devices, on each of them; for shard_map, pmap and vmap with that axis.

        Two sums of d numbers and one of (d, d) travel, never the features. A scan *inside* shard_map must start from
        a varying carry: ``jax.tree.map(lambda leaf: jax.lax.pcast(leaf, axis_name, to="varying"), init(d))``.

        Args:
            axis_name: the mapped axis or axes to reduce over.

        Returns:
            The same accumulator on every device.
        """
        limbs = _carry(jax.lax.psum(self.limbs, axis_name))
        share = self.total() / jnp.maximum(_number(limbs, self.mean.dtype), 1)
        rough = jax.lax.psum(share * self.mean, axis_name)
        # A large common mean is rounded in the first sum; the sum of the small remainders is not.
        mean = rough + jax.lax.psum(share * (self.mean - rough), axis_name)
        shift = self.mean - mean
        scatter = jax.lax.psum(self.scatter + self.total() * jnp.outer(shift, shift), axis_name)
        return MomentAccumulator(limbs, mean, scatter)

    def total(self) -> Scalar:
        """Number of rows so far, rounded to the floating dtype."""
        return _number(self.limbs, self.mean.dtype)

    def moment(self, *, center: bool = False) -> Moment:
        """Second moment of all rows, or with ``center`` their covariance; both over n.

        Args:
            center: subtract the mean row.

        Returns:
            (d, d), as ``second_moment``.

        Raises:
            ValueError: no rows yet. Under a trace the result is NaN instead.
        """
        total = self.total()
        require(total > 0, "no rows were accumulated: call update(features) first")
        covariance = self.scatter / jnp.maximum(total, 1)
        moment = covariance if center else covariance + jnp.outer(self.mean, self.mean)
        return poison(moment, total > 0)


@partial(jax.jit, static_argnames=("center", "normalize"))
def _moment(rows: Features, center: bool, normalize: bool) -> Moment:
    rows = _prepared(rows, center, normalize)
    return product(rows.T, rows) / len(rows)


def smaller_moment(rows: Features, center: bool, normalize: bool) -> Float[Array, "k k"]:
    """The smaller of Z^T Z / n and Z Z^T / n: same nonzero eigenvalues; no checks."""
    rows = _prepared(rows, center, normalize)
    n, d = rows.shape
    return (product(rows.T, rows) if n >= d else product(rows, rows.T)) / n


@partial(jax.jit, static_argnames="normalize")
def _mean_and_scatter(rows: Features, normalize: bool) -> tuple[Array, Moment]:
    mean, rows = _centred(_unit_rows(rows) if normalize else rows)
    return mean[0], product(rows.T, rows)


@jax.jit
def _merged(ours: MomentAccumulator, theirs: MomentAccumulator) -> MomentAccumulator:
    before, added = ours.total(), theirs.total()
    weight = added / jnp.maximum(before + added, 1)
    shift = theirs.mean - ours.mean
    scatter = ours.scatter + theirs.scatter + before * weight * jnp.outer(shift, shift)
    return MomentAccumulator(_carry(ours.limbs + theirs.limbs), ours.mean + weight * shift, scatter)


def _prepared(rows: Features, center: bool, normalize: bool) -> Features:
    rows = _unit_rows(rows) if normalize else rows
    return _centred(rows)[1] if center else rows


def _unit_rows(rows: Features) -> Features:
    """Each row over its length; the largest entry goes first so that squares neither overflow nor vanish."""
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(rows), axis=1, keepdims=True))
    nonzero = largest > 0
    rows = jnp.where(nonzero, rows, 1) / jnp.where(nonzero, largest, 1)
    return jnp.where(nonzero, rows / jnp.linalg.norm(rows, axis=1, keepdims=True), 0)


def _centred(rows: Features) -> tuple[Array, Features]:
    """The mean row, as (1, d), and the rows without it."""
    rough = jnp.mean(rows, axis=0, keepdims=True)
    rows = rows - rough
    # A mean is rounded to a float; the second pass removes the rest, so that constant rows centre to exactly 0.
    rest = jnp.mean(rows, axis=0, keepdims=True)
    return rough + rest, rows - rest


def _carry(limbs: Array) -> Array:
    high, low = limbs
    return jnp.stack([high + (low >> _LIMB), low % 2**_LIMB])


def _number(limbs: Array, dtype: jnp.dtype) -> Scalar:
    return limbs[0].astype(dtype) * 2**_LIMB + limbs[1].astype(dtype)
