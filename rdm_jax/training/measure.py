"""The second moments of both branches' outputs, from which a probe is read; batches of them can be merged."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rdm_jax._checks import as_floating, require
from rdm_jax.methods import Method, without_constant_mode
from rdm_jax.spectra import MomentAccumulator
from rdm_jax.types import Array, ArrayLike, Moment, Scalar, Views

__all__ = ["Moments", "measure", "merge"]

_NAMES = ("online", "target", "features", "target_features")


class Moments(NamedTuple):
    """Averages over rows and views; all that a record needs, so that batches can be merged.

    ``noise``: of the rows (z - z+) / sqrt(2), so that its moment is the view noise C_z - C_m. ``pull``: sym E[t z^T],
    t of the other view. ``response``: sym E[p z^T], of the same view. ``rows``: n. With one view only, ``noise`` and
    ``pull`` are NaN.
    """

    rows: Scalar
    online: MomentAccumulator
    target: MomentAccumulator
    features: MomentAccumulator
    target_features: MomentAccumulator
    noise: MomentAccumulator
    pull: Moment
    response: Moment
    stages: dict[str, MomentAccumulator]


def measure(
    online: ArrayLike,
    target: ArrayLike,
    *,
    features: ArrayLike,
    target_features: ArrayLike | None = None,
    stages: Mapping[str, ArrayLike] | None = None,
    method: Method | None = None,
) -> Moments:
    """The moments of a batch, to be merged with others and read.

    Args:
        online: p (2, n, d) or (n, d).
        target: t, likewise.
        features: z, likewise.
        target_features: likewise; None: z.
        stages: by name, (2, n, .) or (n, .).
        method: whose ``assignments`` says whether the constant mode is removed; None: it stays.

    Returns:
        The moments.

    Raises:
        ValueError: outputs of different shapes, or of fewer than two samples.

    >>> z = jnp.array([[[2.0], [-2.0]], [[1.0], [-1.0]]])
    >>> moments = measure(z, z, features=z)
    >>> float(moments.features.moment()[0, 0]), float(moments.noise.moment()[0, 0].round(4))  # they share 2 * 1
    (2.5, 0.5)
    """
    given = [online, target, features, features if target_features is None else target_features]
    # What is given twice is measured once, and is the same object in the moments.
    which = tuple(next(i for i, other in enumerate(given) if other is value) for value in given)
    views = {i: views_of(given[i], _NAMES[i], method) for i in sorted(set(which))}
    if len({branch.shape for branch in views.values()}) > 1:
        shapes = ", ".join(str(views[i].shape) for i in which)
        raise ValueError(f"outputs and features must be alike, got shapes {shapes}")
    layers = {name: views_of(stage, name) for name, stage in (stages or {}).items()}
    moments, noise, pull, response, layers = _measured(views, layers, which)
    p, t, z, their_z = (moments[i] for i in which)
    rows = jnp.asarray(views[0].shape[1], pull.dtype)
    return Moments(rows, p, t, z, their_z, noise, pull, response, layers)


def merge(first: Moments, second: Moments) -> Moments:
    """The moments of two batches together.

    Args:
        first: of ``measure``.
        second: of ``measure``, of as many features.

    Returns:
        The moments.

    >>> one, two = (measure(x, x, features=x) for x in (jnp.ones((1, 2, 1)), jnp.full((1, 6, 1), 3.0)))
    >>> float(merge(one, two).online.moment()[0, 0]), float(merge(one, two).rows)
    (7.0, 8.0)
    """
    rows = first.rows + second.rows

    def averaged(ours: Any, theirs: Any) -> Any:
        if isinstance(ours, MomentAccumulator):
            return ours.merge(theirs)
        return ours * (first.rows / rows) + theirs * (second.rows / rows)

    merged = jax.tree.map(averaged, first, second, is_leaf=lambda node: isinstance(node, MomentAccumulator))
    return merged._replace(rows=rows)


def views_of(value: ArrayLike, name: str, method: Method | None = None) -> Views:
    """Outputs as (views, n, d), checked, without the constant mode where the method leaves it out."""
    array = as_floating(value, name)
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or len(array) > 2 or array.shape[1] < 2 or array.shape[2] < 1:
        raise ValueError(f"{name} must be (2, n, d), or (n, d) for one view, of n >= 2 samples; got {array.shape}")
    require(jnp.all(jnp.isfinite(array)), f"{name} of shape {array.shape} hold NaN or inf; find what made them")
    return without_constant_mode(array) if method is not None and method.assignments else array


@partial(jax.jit, static_argnames="which")
def _measured(views: dict[int, Views], stages: dict[str, Array], which: tuple[int, ...]) -> tuple[Any, ...]:
    """Moments of each distinct array, then what they have between them; ``which``: the array of p, t, z, target's z."""
    p, t, z, _ = (views[i] for i in which)
    sides, layers = ({name: _accumulated(rows) for name, rows in one.items()} for one in (views, stages))
    response = _cross(p, z)
    if len(z) == 2:
        return sides, _accumulated((z - z[::-1]) / 2**0.5), _cross(t[::-1], z), response, layers
    unknown = jnp.full_like(response, jnp.nan)
    noise = MomentAccumulator(sides[which[2]].limbs, unknown[0], unknown)
    return sides, noise, unknown, response, layers


def _accumulated(views: Array) -> MomentAccumulator:
    return MomentAccumulator.init(views.shape[-1], views.dtype).update(views.reshape(-1, views.shape[-1]))


def _cross(left: Views, right: Views) -> Moment:
    """sym E[a b^T] over all rows of all views."""
    product = jnp.einsum("vni,vnj->ij", left, right, precision="highest") / (left.shape[0] * left.shape[1])
    return (product + product.T) / 2
