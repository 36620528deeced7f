"""What to record along a trajectory: the same statistics of modes, features and linear branches."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax.numpy as jnp

from rdm_jax import theory
from rdm_jax._checks import rounding
from rdm_jax.dynamics._operators import diagonal_in, from_gains, product, symmetric
from rdm_jax.dynamics.designs import FeatureDesign, LinearDesign
from rdm_jax.dynamics.eigenmodes import EigenmodeParameters, Eigenmodes, error_and_growth, read_aligned
from rdm_jax.dynamics.features import FeatureParameters, Modes, mode_rates, read_modes, spectrum_rates
from rdm_jax.dynamics.integrate import Record
from rdm_jax.dynamics.linear import Branches, Instant, LinearParameters, branch_field, read_instant
from rdm_jax.dynamics.samples import SampleParameters, read_samples, sample_branch_field
from rdm_jax.dynamics.views import Outputs, ViewFeatures, moment_of, outputs_of, read_views
from rdm_jax.spectra import effective_rank, eigensystem
from rdm_jax.types import Array, Batched, Features, Gains, Moment, Scalar, Spectrum

__all__ = ["Statistics", "branch_statistics", "eigenmode_statistics", "feature_statistics", "mode_statistics"]


class Statistics(NamedTuple):
    """Of one instant. Arrays have one number per mode: in the order of the state's modes, or largest first of matrices.

    ``spectrum``, ``signal``: lambda and m of the features z. ``online``, ``target``: eigenvalues of the outputs p and
    t. ``gains``: the measured filter, sqrt(v^T C_p v / lambda_t) for the target's eigenvectors v. ``threshold``: theta
    = h m / (lambda g), 0 where g is. ``rates``: the growth rates r of lambda' = 2 r lambda that theory predicts, with
    common factor and weight decay. ``effective_rank`` (eig) of z; ``online_rank`` and ``target_rank`` of p and t;
    ``rank_difference``: target - online. ``rank_rate``: d erank/dt of z that the rates predict. ``commutator``:
    |[C_p, C_t]|_F / (|C_p|_F |C_t|_F).
    """

    spectrum: Array
    signal: Array
    online: Array
    target: Array
    gains: Array
    threshold: Array
    rates: Array
    effective_rank: Batched
    online_rank: Batched
    target_rank: Batched
    rank_difference: Batched
    rank_rate: Batched
    commutator: Batched


class Moments(NamedTuple):
    """E[z z^T], E[z+ z^T], E[t z^T], E[p p^T], E[t t^T], and the operator of the online branch."""

    features: Moment
    cross: Moment
    pull: Moment
    online: Moment
    target: Moment
    operator: Moment


@cache
def eigenmode_statistics(design: LinearDesign) -> Record:
    """What ``solve`` can record along ``eigenmode_field(design)``.

    Args:
        design: that the field was made from.

    Returns:
        ``record(t, Eigenmodes, EigenmodeParameters) -> Statistics``.

    Source: docs/theory.md T13, S1.

    >>> modes = Eigenmodes(predictor=jnp.array([1.0, 0.0]), encoder=jnp.array([1.0, 1.0]))
    >>> found = eigenmode_statistics(LinearDesign())(0.0, modes, EigenmodeParameters())
    >>> round(float(found.rank_difference), 4), round(float(found.target_rank), 4)
    (1.0, 2.0)
    """

    def record(t: Any, state: Eigenmodes, args: EigenmodeParameters) -> Statistics:
        now = read_aligned(design, state, args)
        alive = jnp.maximum(now.encoder, 0)
        rates = error_and_growth(design, now)[1]
        return _of_modes(now.moment * alive, now.signal * alive, now.predictor, now.ratio, rates)

    return record


@cache
def branch_statistics(design: LinearDesign) -> Record:
    """What ``solve`` or ``descend`` can record along ``branch_field(design)`` or ``sample_branch_field(design)``.

    The predicted rates are those of the flow itself, v^T W' E[x x^T] W^T v / lambda for the eigenvectors v of E[z z^T].

    Args:
        design: that the field was made from.

    Returns:
        ``record(t, Branches, LinearParameters or SampleParameters) -> Statistics``.

    Source: docs/theory.md T13, T14, S1.

    >>> branches = Branches(predictor=jnp.diag(jnp.array([1.0, 0.5])), encoder=jnp.eye(2))
    >>> found = branch_statistics(LinearDesign())(0.0, branches, LinearParameters(jnp.eye(2), jnp.zeros((2, 2))))
    >>> sorted(round(float(gain), 4) for gain in found.gains)
    [0.5, 1.0]
    """

    def record(t: Any, state: Branches, args: LinearParameters | SampleParameters) -> Statistics:
        if isinstance(args, SampleParameters):
            now, slope = read_samples(design, state, args)[0], sample_branch_field(design)(t, state, args)
        else:
            now, slope = read_instant(design, state, args), branch_field(design)(t, state, args)
        moved = product(slope.encoder, now.moment, now.encoder.T)
        return _of_moments(
            _moments_of_branches(now), lambda basis, values, *_: _quotient(diagonal_in(basis, moved), values)
        )

    return record


@cache
def mode_statistics(design: FeatureDesign) -> Record:
    """What ``solve`` can record along ``mode_field(design)``.

    Args:
        design: that the field was made from.

    Returns:
        ``record(t, Modes, FeatureParameters) -> Statistics``.

    Source: docs/theory.md, part B; S1.

    >>> found = mode_statistics(FeatureDesign(noise="persistent"))(0.0, Modes([3.0, 1.0]), FeatureParameters(noise=0.5))
    >>> [round(float(theta), 4) for theta in found.threshold]
    [0.8333, 0.5]
    """

    def record(t: Any, state: Modes, args: FeatureParameters) -> Statistics:
        now = read_modes(design, state, args)
        return _of_modes(now.spectrum, now.signal, now.online, now.target, mode_rates(design, now))

    return record


@cache
def feature_statistics(design: FeatureDesign) -> Record:
    """What ``solve`` or ``descend`` can record along ``feature_field(design)``; p is of the first view.

    The predicted rates are the mean field's, from the measured lambda, m and gains in the eigenbasis of E[z z^T]; for
    the cosine of each sample they are an approximation.

    Args:
        design: that the field was made from.

    Returns:
        ``record(t, ViewFeatures, FeatureParameters) -> Statistics``.

    Source: docs/theory.md, part B; S1.

    >>> features = jnp.array([[2.0, 0.0], [0.0, 1.0]])
    >>> found = feature_statistics(FeatureDesign())(0.0, ViewFeatures(features), FeatureParameters())
    >>> [round(float(value), 4) for value in found.spectrum]
    [2.0, 0.5]
    """

    def record(t: Any, state: ViewFeatures, args: FeatureParameters) -> Statistics:
        first, second, _ = read_views(design, state)
        noise = jnp.asarray(args.noise, first.dtype)
        order = outputs_of(design, state, args, first, second, noise)

        def rates(basis: Moment, values: Spectrum, gains: Gains, pull: Gains) -> Gains:
            found = spectrum_rates(design, values, gains, pull, jnp.trace(order.target_moment))
            return jnp.where((values <= noise) & (design.noise == "persistent"), 0, found)

        return _of_moments(_moments_of_order(order, second), rates)

    return record


def _of_modes(spectrum: Spectrum, signal: Gains, online: Gains, target: Gains, rates: Gains) -> Statistics:
    """The statistics of branches with a common eigenbasis."""
    outputs, targets = online**2 * spectrum, target**2 * spectrum
    threshold = theory.wiener_threshold(
        spectrum, online_gains=jnp.abs(online), signal=jnp.where(online < 0, -1, 1) * target * signal
    )
    gains = _quotient(jnp.abs(online), jnp.abs(target))
    return _assembled(spectrum, signal, outputs, targets, gains, threshold, rates, jnp.zeros((), spectrum.dtype))


def _of_moments(moments: Moments, rates: Callable[[Moment, Spectrum, Gains, Gains], Gains]) -> Statistics:
    """The statistics of branches that need not commute; rates(vectors, lambda, g, h m) in the basis of E[z z^T]."""
    values, basis = eigensystem(symmetric(moments.features))
    levels, target_basis = eigensystem(symmetric(moments.target))
    online = diagonal_in(basis, moments.operator)
    pull = diagonal_in(basis, moments.pull)
    threshold = theory.wiener_threshold(
        values, online_gains=jnp.abs(online), signal=jnp.where(online < 0, -1, 1) * pull
    )
    passed = jnp.maximum(diagonal_in(target_basis, moments.online), 0)
    gains = jnp.sqrt(_quotient(passed, jnp.where(levels > rounding(levels), levels, 0)))
    signal, outputs = diagonal_in(basis, moments.cross), eigensystem(symmetric(moments.online)).values
    growth = rates(basis, values, online, pull)
    return _assembled(values, signal, outputs, levels, gains, threshold, growth, _commutator(moments))


def _assembled(
    spectrum: Spectrum,
    signal: Gains,
    online: Spectrum,
    target: Spectrum,
    gains: Gains,
    threshold: Gains,
    rates: Gains,
    commutator: Scalar,
) -> Statistics:
    online_rank, target_rank = effective_rank(online), effective_rank(target)
    return Statistics(
        spectrum=spectrum,
        signal=signal,
        online=online,
        target=target,
        gains=gains,
        threshold=threshold,
        rates=rates,
        effective_rank=effective_rank(spectrum),
        online_rank=online_rank,
        target_rank=target_rank,
        rank_difference=target_rank - online_rank,
        rank_rate=theory.effective_rank_rate(spectrum, rates),
        commutator=commutator,
    )


def _moments_of_branches(now: Instant) -> Moments:
    predictor = jnp.eye(len(now.encoder), dtype=now.encoder.dtype) if now.predictor is None else now.predictor
    features = product(now.encoder, now.moment, now.encoder.T)
    return Moments(
        features=features,
        cross=product(now.encoder, now.signal, now.encoder.T),
        pull=product(now.target, now.signal, now.encoder.T),
        online=product(predictor, features, predictor.T),
        target=product(now.target, now.moment, now.target.T),
        operator=predictor,
    )


def _moments_of_order(order: Outputs, second: Features | None) -> Moments:
    features, size = moment_of(order.features), len(order.features)
    shared = from_gains(order.basis, order.basis.signal)
    return Moments(
        features=features,
        cross=shared if second is None else product(second.T, order.features) / size,
        pull=product(order.target.T, order.features) / size,
        online=product(order.online, features, order.online.T),
        target=order.target_moment,
        operator=order.online,
    )


def _commutator(moments: Moments) -> Scalar:
    left, right = (moment / jnp.linalg.norm(moment) for moment in (moments.online, moments.target))
    return jnp.linalg.norm(product(left, right) - product(right, left))


def _quotient(values: Array, over: Array) -> Array:
    """The ratio, 0 where there is nothing to divide by."""
    some = over > 0
    return jnp.where(some, values / jnp.where(some, over, 1), 0)
