"""What theory says of a batch of outputs, beside what is measured: pure, jit-able, and of use in any training loop.

z are the features that the online branch starts from (what enters the predictor, the filter or the softmax), p its
output, t the target's output for the other view, all (2, n, d) for the two views of n samples. Everything is read
from second moments, so that batches may be accumulated: ``read(merge(measure(...), measure(...)))``.

The predicted growth rates are those of *free* features: they would hold if z itself took gradient steps. A network
moves z through its parameters, so that an empirical kernel, which theory does not know, scales the rate of each mode
and mixes modes. Judge them by rank correlation, or by explained variance after one scale factor, against shuffled
modes.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rdm_jax import theory
from rdm_jax._checks import is_traced, rounding
from rdm_jax.methods import (
    Context,
    Loss,
    Method,
    byol_loss,
    cross_entropy,
    mean_field_cosine,
    negative_cosine,
    squared_error,
)
from rdm_jax.reporting import plain
from rdm_jax.spectra import (
    MomentAccumulator,
    effective_rank,
    effective_rank_influence,
    eigensystem,
    eigenvalues,
    low_pass_index,
    null_effective_rank,
)
from rdm_jax.training.measure import Moments, measure, views_of
from rdm_jax.types import Array, ArrayLike, Flag, Gains, Moment, Scalar, Spectrum

__all__ = [
    "Errors",
    "Followed",
    "LossKind",
    "Predicted",
    "Record",
    "StageRecord",
    "follow",
    "loss_kind",
    "probe",
    "rank_errors",
    "read",
]


class StageRecord(NamedTuple):
    """Eigenvalues of a second moment, its effective rank ("eig"), that of the covariance, and the null level.

    ``null``: what as many isotropic Gaussian samples would show; a rank near it can't be told from full rank.
    ``varying``: tr(covariance) / tr(second moment), 0 where all samples have the same features.
    """

    eigenvalues: Spectrum
    rank: Scalar
    centered_rank: Scalar
    null: Scalar
    varying: Scalar


class Predicted(NamedTuple):
    """What the method's own responses predict; NaN where theory is silent.

    ``online_gains``, ``target_gains``: in the eigenbasis of the online and of the target features. ``rank_difference``:
    erank(target) - erank(online) from them and the measured spectra of the features.
    """

    online_gains: Gains
    target_gains: Gains
    rank_difference: Scalar


class Errors(NamedTuple):
    """Standard errors of the effective ranks and of their difference, over independent samples; NaN where unknown."""

    online: Scalar
    target: Scalar
    features: Scalar
    rank_difference: Scalar


class Record(NamedTuple):
    """One probe. Modes are eigenvectors of C_z = E[z z^T], largest eigenvalue first, unless another basis is named.

    ``features`` and ``target_features``: what the branches start from, which are one where they share their weights.
    ``rank_difference``: erank(target) - erank(online). ``filter``: sqrt(v^T C_p v / lambda) and ``alignment``:
    cos(C_p v, v), both in the *target's* eigenbasis, 0 and NaN in null directions; ``low_pass``: the filter's index.
    ``vectors``: the modes, in columns. ``signal``: m. ``isotropy``: effective rank of the view noise C_z - C_m over d,
    1 where it is isotropic. ``gains``: g, the filter from z to p. ``theta``: t's pull on each mode over g (S1; for a
    target h z it is h m / (lambda g)). ``rates``: r of free features, common factor included, and ``entropy_rate``:
    dH/dt from them. ``errors``: known to ``probe``, which sees the rows, and not to ``read``.
    """

    online: StageRecord
    target: StageRecord
    features: StageRecord
    target_features: StageRecord
    stages: dict[str, StageRecord]
    rank_difference: Scalar
    filter: Gains
    low_pass: Scalar
    alignment: Spectrum
    vectors: Moment
    signal: Spectrum
    isotropy: Scalar
    gains: Gains
    theta: Gains
    rates: Gains
    entropy_rate: Scalar
    predicted: Predicted
    errors: Errors


class LossKind(NamedTuple):
    """How theory sees a loss: "cosine" or "squared", its factor on all rates, and how its gradient reaches z.

    ``direct``: whether it passes as by the identity, so that a rate lacks the leading gain g.
    """

    name: str
    factor: float = 1.0
    direct: bool = False


class Followed(NamedTuple):
    """Growth of each mode until the next probe.

    ``growth``: log lambda(after) - log lambda(before). ``kept``: whether the mode was found again: one eigenvector
    has more than half of its squared length. ``successor``: which one.
    """

    growth: Spectrum
    kept: Flag
    successor: Array


# The softmax and its cross-entropy: the gradient in the logits is p - t over the temperature, whatever p is.
_KINDS: dict[Loss, LossKind] = {
    negative_cosine: LossKind("cosine"),
    mean_field_cosine: LossKind("cosine"),
    byol_loss: LossKind("cosine", 2.0),
    squared_error: LossKind("squared"),
    cross_entropy: LossKind("squared", direct=True),
}


def loss_kind(method: Method) -> LossKind:
    """How theory sees the loss of a method, with the factor of its pairs.

    Args:
        method: from ``rdm_jax.methods.get``.

    Returns:
        The kind.

    Raises:
        ValueError: a loss that theory does not know.

    >>> from rdm_jax.methods import get
    >>> loss_kind(get("byol"))  # 2 - 2 cos, summed over the pairs
    LossKind(name='cosine', factor=4.0, direct=False)
    """
    if method.loss not in _KINDS:
        known = ", ".join(loss.__name__ for loss in _KINDS)
        raise ValueError(f"theory has no growth rates for the loss of {method.name}: pass kind=, or use one of {known}")
    kind = _KINDS[method.loss]
    return kind._replace(factor=kind.factor * (2 if method.pairs == "sum" else 1))


def probe(
    online: ArrayLike | Callable[[Any], Array],
    target: ArrayLike | Callable[[Any], Array],
    *,
    inputs: Any = None,
    features: ArrayLike | None = None,
    target_features: ArrayLike | None = None,
    stages: Mapping[str, ArrayLike] | None = None,
    method: Method | None = None,
    kind: LossKind | None = None,
    context: Context | None = None,
) -> Record:
    """Measure both branches on a fixed set of samples, and predict beside it.

    Args:
        online: p (2, n, d) for two views, or (n, d) for one (view noise is then unknown, and what depends on it NaN);
            or a function of one view's inputs.
        target: t, likewise, in the same order of views: pairing it with the other view is done here.
        inputs: the two views' inputs, if ``online`` and ``target`` are functions.
        features: z, what the online branch starts from; None: the target's output is it.
        target_features: what the target branch starts from; None: z.
        stages: other features to record, (2, n, .) or (n, .), by name.
        method: whose responses are to be predicted; None: the predictions are NaN.
        kind: of the loss; None: the method's, or without one the cosine.
        context: what else is known (epoch, ridge, progress); ``signal``, ``mean`` and ``width`` are measured here, and
            ``samples`` is n unless it is given.

    Returns:
        The record.

    Raises:
        ValueError: outputs of different shapes, of fewer than two samples, or functions without inputs.

    >>> z = jnp.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> record = probe(z * jnp.array([[1.0, 0.5]]), z)
    >>> [round(float(gain), 4) for gain in record.filter], round(float(record.low_pass), 4)
    ([1.0, 0.5], 1.0)

    Source: docs/theory.md T3, S1, S4 and the table of growth rates; Zhuo et al. 2023 for the alignment.
    """
    outputs = [_output(branch, inputs, name) for branch, name in ((online, "online"), (target, "target"))]
    z = outputs[1] if features is None else features
    moments = measure(*outputs, features=z, target_features=target_features, stages=stages, method=method)
    given = context or Context()
    known = given._replace(samples=given.samples or jnp.asarray(z).shape[-2])
    record = read(moments, method=method, kind=kind, context=known)
    return record._replace(errors=rank_errors(outputs[0], outputs[1], z, moments, method=method))


def rank_errors(
    online: ArrayLike, target: ArrayLike, features: ArrayLike, moments: Moments, *, method: Method | None = None
) -> Errors:
    """Standard errors of a probe's effective ranks, by the delta method; both views of a sample count as one.

    They say how far the ranks would move with other samples. A bias remains, of which ``StageRecord.null`` tells.

    Args:
        online: p (2, n, d) or (n, d), independent samples.
        target: t, likewise.
        features: z, likewise.
        moments: of these rows.
        method: as for ``measure``.

    Returns:
        The errors.

    Raises:
        ValueError: as ``measure``.

    >>> z = jnp.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> errors = rank_errors(z, z, z, measure(z, z, features=z))
    >>> round(float(errors.online), 4), float(errors.rank_difference)  # the same rows: the difference has no error
    (0.3658, 0.0)

    Source: ``spectra.effective_rank_influence``.
    """
    named = (online, "online"), (target, "target"), (None if features is target else features, "features")
    p, t, z = (None if value is None else views_of(value, name, method) for value, name in named)
    return _rank_errors(p, t, z, moments)


def read(
    moments: Moments,
    *,
    method: Method | None = None,
    kind: LossKind | None = None,
    context: Context | None = None,
) -> Record:
    """The record that belongs to the moments.

    Args:
        moments: of ``measure`` or ``merge``.
        method: as for ``probe``.
        kind: as for ``probe``.
        context: as for ``probe``.

    Returns:
        The record.

    Raises:
        ValueError: a loss that theory does not know.

    >>> z = jnp.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> float(read(measure(z, z, features=z)).rank_difference)
    0.0

    Source: docs/theory.md T3, S1, S4 and the table of growth rates.
    """
    how = kind or (LossKind("cosine") if method is None else loss_kind(method))
    which = _first_alike(moments)
    record = _read(moments, jnp.asarray(how.factor, moments.rows.dtype), how.name, how.direct, which)
    if method is None:
        return record
    known = (context or Context())._replace(train=True, signal=jnp.maximum(record.signal, 0))
    samples, shared = known.samples, which[2] == which[3]
    return record._replace(predicted=_predicted(moments, record, known._replace(samples=None), method, samples, shared))


def follow(before: Record, after: Record) -> Followed:
    """Each mode's growth between two probes, followed by its eigenvector and not by its rank in order.

    Args:
        before: one record, or several on leading axes.
        after: as many, of the same features later.

    Returns:
        Followed, for each pair of records.

    >>> z = jnp.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> crossed = follow(probe(z, z), probe(z[:, ::-1] * 1.0, z * jnp.array([[0.25, 1.0]])))
    >>> crossed.successor.tolist(), [round(float(x), 4) for x in crossed.growth]  # 2 log 0.25
    ([1, 0], [-2.7726, 0.0])
    """
    overlap = jnp.einsum("...ji,...jk->...ik", before.vectors, after.vectors, precision="highest") ** 2
    successor = jnp.argmax(overlap, axis=-1)
    reached = jnp.take_along_axis(after.features.eigenvalues, successor, axis=-1)
    start = before.features.eigenvalues
    alive = (start > 0) & (reached > 0)
    growth = jnp.where(alive, jnp.log(jnp.where(alive, reached, 1) / jnp.where(alive, start, 1)), 0)
    return Followed(growth, alive & (jnp.max(overlap, axis=-1) > 0.5), successor)


def line_of(record: Record) -> dict[str, Any]:
    """The record as JSON has it, without its eigenvectors, which are too many to keep."""
    return plain({name: value for name, value in record._asdict().items() if name != "vectors"})


def _output(branch: ArrayLike | Callable[[Any], Array], inputs: Any, name: str) -> ArrayLike:
    if not callable(branch):
        return branch
    if inputs is None:
        raise ValueError(f"{name} is a function: pass the two views it is to be applied to, inputs=(first, second)")
    return jnp.stack([branch(view) for view in inputs])


# Compiled as one: where a quantity is undefined it is NaN, and the others stand.
@partial(jax.jit, static_argnames=("loss", "direct", "which"))
def _read(moments: Moments, factor: Scalar, loss: str, direct: bool, which: tuple[int, ...]) -> Record:
    sides = _sides(moments)
    modes = {i: _modes(sides[i].moment()) for i in sorted({which[1], which[2]})}
    stages = {i: _stage(moments, sides[i]) for i in sorted(set(which))}
    online, target, features, target_features = (stages[i] for i in which)
    spectrum, vectors = modes[which[2]]
    gains = _gains(_along(moments.online.moment(), vectors), spectrum)
    signal, pull = spectrum - _along(moments.noise.moment(), vectors), _along(moments.pull, vectors)
    rates = factor * _common(moments, loss) * _growth(spectrum, gains, pull, loss, direct)
    unknown = jnp.full_like(spectrum, jnp.nan)
    return Record(
        online,
        target,
        features,
        target_features,
        {name: _stage(moments, stage) for name, stage in moments.stages.items()},
        target.rank - online.rank,
        *_filter(moments, *modes[which[1]]),
        vectors,
        signal,
        _isotropy(moments),
        gains,
        theory.wiener_threshold(spectrum, online_gains=gains, signal=pull),
        rates,
        theory.entropy_rate(spectrum, rates),
        Predicted(unknown, unknown, unknown[0]),
        Errors(*4 * [unknown[0]]),
    )


@jax.jit
def _rank_errors(p: Array, t: Array, z: Array | None, moments: Moments) -> Errors:
    ours, theirs = (
        jnp.mean(effective_rank_influence(rows, stage.moment()), axis=0)
        for rows, stage in ((p, moments.online), (t, moments.target))
    )
    own = theirs if z is None else jnp.mean(effective_rank_influence(z, moments.features.moment()), axis=0)
    return Errors(*(jnp.sqrt(jnp.mean(psi**2) / len(psi)) for psi in (ours, theirs, own, theirs - ours)))


def _sides(moments: Moments) -> tuple[MomentAccumulator, ...]:
    return moments.online, moments.target, moments.features, moments.target_features


def _first_alike(moments: Moments) -> tuple[int, ...]:
    """For each side the first that has the same moments, so that no matrix is decomposed twice."""
    sides = _sides(moments)
    return tuple(next(i for i, other in enumerate(sides) if _alike(side, other)) for side in sides)


def _alike(side: MomentAccumulator, other: MomentAccumulator) -> bool:
    if side is other or is_traced(*side, *other):
        return side is other
    return all(np.array_equal(ours, theirs) for ours, theirs in zip(side, other, strict=True))


def _stage(moments: Moments, stage: MomentAccumulator) -> StageRecord:
    both = jnp.stack([stage.moment(), stage.moment(center=True)])
    raw, centered = jax.vmap(eigenvalues)(both)
    values = _supported(raw)
    null = null_effective_rank(moments.rows, values.shape[-1])
    total, varying = jnp.trace(both, axis1=1, axis2=2)
    return StageRecord(values, effective_rank(values), effective_rank(_supported(centered)), null, varying / total)


def _modes(moment: Moment) -> tuple[Spectrum, Moment]:
    values, vectors = eigensystem(moment)
    return _supported(values), vectors


def _supported(values: Spectrum) -> Spectrum:
    """Eigenvalues within rounding of 0 are 0: theory then leaves them out."""
    return jnp.where(values > rounding(values), values, 0)


def _along(moment: Moment, vectors: Moment) -> Array:
    return jnp.sum(vectors * jnp.matmul(moment, vectors, precision="highest"), axis=0)


def _gains(power: Array, spectrum: Spectrum) -> Gains:
    on = spectrum > 0
    return jnp.where(on, jnp.sqrt(jnp.maximum(power, 0) / jnp.where(on, spectrum, 1)), 0)


def _growth(spectrum: Spectrum, gains: Gains, pull: Array, loss: str, direct: bool) -> Gains:
    rates = theory.growth_rates(spectrum, online_gains=gains, signal=pull, loss=loss)
    return jnp.where(gains > 0, rates / jnp.where(gains > 0, gains, 1), 0) if direct else rates


def _common(moments: Moments, loss: str) -> Scalar | float:
    """The common factor of the rates, with E|t|^2 as measured."""
    sizes = jnp.trace(moments.online.moment()) * jnp.trace(moments.target.moment())
    return 1.0 if loss == "squared" else 1 / jnp.sqrt(sizes)


def _filter(moments: Moments, spectrum: Spectrum, vectors: Moment) -> tuple[Gains, Scalar, Spectrum]:
    """Of the online output in the target's eigenbasis: gains, their low-pass index, and the alignment."""
    image = jnp.matmul(moments.online.moment(), vectors, precision="highest")
    power = jnp.sum(vectors * image, axis=0)
    gains, length = _gains(power, spectrum), jnp.linalg.norm(image, axis=0)
    defined = (spectrum > 0) & (length > 0)
    alignment = jnp.where(defined, power / jnp.where(defined, length, 1), jnp.nan)
    return gains, low_pass_index(gains, spectrum), alignment


def _isotropy(moments: Moments) -> Scalar:
    def measured(moment: Moment) -> Scalar:
        noise = _supported(eigenvalues(moment))
        return effective_rank(noise) / noise.shape[-1]

    noise = moments.noise.moment()
    return jax.lax.cond(jnp.isnan(noise[0, 0]), lambda moment: moment[0, 0], measured, noise)


@partial(jax.jit, static_argnames=("method", "samples", "shared"))
def _predicted(
    moments: Moments, record: Record, context: Context, method: Method, samples: int | None, shared: bool
) -> Predicted:
    known = context._replace(train=True, samples=samples, width=len(record.vectors))
    spectrum = record.features.eigenvalues
    own = spectrum, record.vectors
    their_spectrum, their_vectors = own if shared else _modes(moments.target_features.moment())
    ours = known._replace(mean=_rotated(record.vectors, moments.features.mean))
    theirs = known._replace(signal=None, mean=_rotated(their_vectors, moments.target_features.mean))
    found = [method.online_response(spectrum, ours), method.target_response(their_spectrum, theirs)]
    gains, target_gains = (record.predicted.online_gains if one is None else one for one in found)
    ranks = [effective_rank(g**2 * values) for g, values in ((target_gains, their_spectrum), (gains, spectrum))]
    return Predicted(gains, target_gains, ranks[0] - ranks[1])


def _rotated(vectors: Moment, mean: Array) -> Array:
    return jnp.matmul(vectors.T, mean, precision="highest")
